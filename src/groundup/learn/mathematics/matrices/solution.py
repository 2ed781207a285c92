"""1.4 Matrices as transformations, solved."""

from math import cos, sin

import numpy as np


def rotation(angle: float) -> np.ndarray:
    # The columns are the images of (1, 0) and (0, 1).
    return np.array([[cos(angle), -sin(angle)], [sin(angle), cos(angle)]])


def after(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    # The matrix next to the point acts first: second @ (first @ p).
    return second @ first


def moved(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    # M p for points in rows: (M p)ᵀ = pᵀ Mᵀ.
    return points @ matrix.T


def area_factor(matrix: np.ndarray) -> float:
    (a, b), (c, d) = matrix
    return float(a * d - b * c)
