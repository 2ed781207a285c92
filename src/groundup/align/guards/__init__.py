"""A guard: a filter in front of and behind a model that stops harmful text.

`examples` reads its training data, `stage` trains it, `model` defines it, `ngrams` is the baseline
that it is compared with, and `report` measures it.
"""
