"""2.6 Language models that count, solved."""

from collections.abc import Sequence

import numpy as np


def bigram(tokens: np.ndarray, vocab_size: int, k: float) -> np.ndarray:
    counts = np.full((vocab_size, vocab_size), k, dtype=float)
    # Not counts[…] += 1, which counts a repeated pair only once.
    np.add.at(counts, (tokens[:-1], tokens[1:]), 1)
    return counts / counts.sum(axis=1, keepdims=True)


def next_token(tokens: np.ndarray, context: Sequence[int], vocab_size: int, k: float) -> np.ndarray:
    counts = np.full(vocab_size, k, dtype=float)
    n = len(context)
    for i in range(max(1, n), len(tokens)):  # nothing predicts the first token
        if list(tokens[i - n : i]) == list(context):
            counts[tokens[i]] += 1
    return counts / counts.sum()


def perplexity(tokens: np.ndarray, table: np.ndarray) -> float:
    return float(np.exp(-np.log(table[tokens[:-1], tokens[1:]]).mean()))
