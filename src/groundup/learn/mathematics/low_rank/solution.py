"""1.5 Projection, SVD and low rank, solved."""

import numpy as np


def project(v: np.ndarray, u: np.ndarray) -> np.ndarray:
    # u · u cancels the length of u: only its direction counts.
    return u * (u @ v) / (u @ u)


def low_rank(a: np.ndarray, r: int) -> tuple[np.ndarray, np.ndarray]:
    u, s, vt = np.linalg.svd(a, full_matrices=False)
    return u[:, :r] * s[:r], vt[:r]


def error(a: np.ndarray, r: int) -> float:
    # The terms are at right angles, so the squares of the dropped values add up.
    s = np.linalg.svd(a, compute_uv=False)
    return float(np.sqrt((s[r:] ** 2).sum()))
