"""Scores that show what attention heads look at."""

import numpy as np


def diagonal_mean(attention: np.ndarray, back: int) -> np.ndarray:
    """Mean weight from each query to the key `back` positions before it.

    attention: (..., queries, keys), with the queries at the last positions. Result: (...).
    """
    queries, keys = attention.shape[-2:]
    first = keys - queries
    places = np.arange(max(first, back), keys)
    if len(places) == 0:
        return np.zeros(attention.shape[:-2], attention.dtype)
    # Two lists of equal length select pairs of row and column: a line, not a rectangle.
    return np.asarray(attention[..., places - first, places - back].mean(-1))


def induction_score(attention: np.ndarray, block: int) -> np.ndarray:
    """Mean weight, from the second of two equal blocks, on the token after the same one in the
    first.

    attention: (..., time, time). Result: (...).
    """
    # The twin stands `block` places back, and what followed it one place nearer.
    return diagonal_mean(attention[..., -block:, :], block - 1)
