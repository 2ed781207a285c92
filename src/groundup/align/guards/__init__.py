"""A guard: what stands before and behind a model and stops what is harmful.

`examples` is what it learns from, `stage` trains it, `model` is what it is, `ngrams` the baseline
that it is compared with, and `report` says what it is worth.
"""
