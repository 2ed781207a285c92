"""A small world with known truth: everything in it is made up here, and can be checked here.

Its words stand in `tables/*.txt`, to be read and changed by anybody. `facts` holds what is true;
`plot` what may happen, `stories` tells it and `reading` reads it back; `answers` and `kinds` hold
what one can ask, and `questions` asks it; `conduct` is what one must not help with, and `lives`
have a planted bias. `gold` judges an answer by the truth, and `pack` makes documents, conversations
and pairs of it all. Item i of seed s is a pure function of (s, i).
"""
