"""1.5 Projection, SVD and low rank.

The lesson: groundup learn 1.5        Check it: groundup learn check 1.5
"""

import numpy as np


def project(v: np.ndarray, u: np.ndarray) -> np.ndarray:
    """Return the point of the line through u that is nearest to v, all of shape (n,)."""
    raise NotImplementedError


def low_rank(a: np.ndarray, r: int) -> tuple[np.ndarray, np.ndarray]:
    """Return left (m, r) and right (r, n), whose product is the nearest matrix of rank r."""
    raise NotImplementedError


def error(a: np.ndarray, r: int) -> float:
    """Return the root of the sum of squares of all entries of a minus its best rank-r part."""
    raise NotImplementedError
