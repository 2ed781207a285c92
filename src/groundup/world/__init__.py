"""A small invented world with known truth: every statement about it can be checked.

Its words are in `tables/*.txt`, which anybody can read and edit. `facts` holds what is true; `plot`
defines possible events, `stories` tells them and `reading` parses them back; `answers` and `kinds`
define the questions, and `questions` asks them; `conduct` defines harmful requests, and `lives` has
a planted bias. `gold` judges an answer by the truth, and `pack` makes documents, conversations and
pairs of all of it. Item i of seed s is a pure function of (s, i).
"""
