"""2.6 Language models that count.

The lesson: groundup learn 2.6        Check it: groundup learn check 2.6
"""

from collections.abc import Sequence

import numpy as np


def bigram(tokens: np.ndarray, vocab_size: int, k: float) -> np.ndarray:
    """Return p(w | h) for every pair, (V, V): row h, column w; k is added to every count."""
    raise NotImplementedError


def next_token(tokens: np.ndarray, context: Sequence[int], vocab_size: int, k: float) -> np.ndarray:
    """Return p(w | context) for every w, (V,), from what followed the context in tokens."""
    raise NotImplementedError


def perplexity(tokens: np.ndarray, table: np.ndarray) -> float:
    """Return exp(-mean ln p) over all tokens but the first, from a table of bigrams."""
    raise NotImplementedError
