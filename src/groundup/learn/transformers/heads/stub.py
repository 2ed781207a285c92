"""3.7 Reading its heads

The lesson: groundup learn 3.7        Check it: groundup learn check 3.7
"""

import numpy as np


def diagonal_mean(attention: np.ndarray, back: int) -> np.ndarray:
    """Mean weight from each query to the key `back` positions before it.

    attention: (..., queries, keys), with the queries at the last positions. Result: (...).
    """
    raise NotImplementedError


def induction_score(attention: np.ndarray, block: int) -> np.ndarray:
    """Mean weight, from the second of two equal blocks, on the token after the same one in the
    first.

    attention: (..., time, time). Result: (...).
    """
    raise NotImplementedError
