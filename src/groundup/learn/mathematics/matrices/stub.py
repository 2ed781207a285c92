"""1.4 Matrices as transformations.

The lesson: groundup learn 1.4        Check it: groundup learn check 1.4
"""

from math import cos, sin

import numpy as np


def rotation(angle: float) -> np.ndarray:
    """Return the matrix (2, 2) that rotates by `angle` radians, counter-clockwise."""
    raise NotImplementedError


def after(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the matrix that applies `first` and then `second`."""
    raise NotImplementedError


def moved(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Return the points (n, 2), one in each row, moved by the matrix (2, 2)."""
    raise NotImplementedError


def area_factor(matrix: np.ndarray) -> float:
    """Return ad - bc: the factor by which areas grow, negative if the plane is flipped over."""
    raise NotImplementedError
