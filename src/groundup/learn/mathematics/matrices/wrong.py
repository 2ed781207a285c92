"""The commonest wrong answers to 1.4, each with the hint that names it."""

from math import cos, radians, sin

import numpy as np

REPLACES = {
    "clockwise": "rotation",
    "degrees": "rotation",
    "mirrored": "rotation",
    "other_order": "after",
    "entry_by_entry": "after",
    "not_transposed": "moved",
    "points_in_columns": "moved",
    "unsigned": "area_factor",
    "added": "area_factor",
    "minus_forgotten": "rotation",
    "points_on_the_right": "moved",
    "diagonal_alone": "area_factor",
}


def clockwise(angle: float) -> np.ndarray:
    """This rotates clockwise: the images of (1, 0) and (0, 1) were written as rows. They are the
    columns of the matrix."""
    return np.array([[cos(angle), sin(angle)], [-sin(angle), cos(angle)]])


def degrees(angle: float) -> np.ndarray:
    """The angle was treated as degrees. It is in radians, which sin and cos take directly."""
    a = radians(angle)
    return np.array([[cos(a), -sin(a)], [sin(a), cos(a)]])


def mirrored(angle: float) -> np.ndarray:
    """This matrix mirrors instead of rotating: (0, 1) goes to (-sin a, cos a), with a minus in the
    first coordinate and none in the second."""
    return np.array([[cos(angle), sin(angle)], [sin(angle), -cos(angle)]])


def other_order(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The order is reversed: in first @ second the matrix next to the point is `second`, so it acts
    first. Read products from right to left."""
    return first @ second


def entry_by_entry(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """`*` multiplies entry by entry. The matrix product, rows times columns, is `@`."""
    return first * second


def not_transposed(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """points @ matrix applies the transposed matrix; for points in rows use points @ matrix.T."""
    return points @ matrix


def points_in_columns(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """The moved points come out in columns. They go in as rows and should come out as rows."""
    return matrix @ points.T


def unsigned(matrix: np.ndarray) -> float:
    """The sign is lost: a matrix that flips the plane over has a negative determinant."""
    (a, b), (c, d) = matrix
    return float(abs(a * d - b * c))


def added(matrix: np.ndarray) -> float:
    """The second product is subtracted, not added: a d - b c."""
    (a, b), (c, d) = matrix
    return float(a * d + b * c)


def minus_forgotten(angle: float) -> np.ndarray:
    """The minus is missing: (0, 1) goes to (-sin a, cos a), which is the second column."""
    return np.array([[cos(angle), sin(angle)], [sin(angle), cos(angle)]])


def points_on_the_right(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """matrix @ points treats the columns as points. The points are rows: points @ matrix.T."""
    return matrix @ points


def diagonal_alone(matrix: np.ndarray) -> float:
    """Only the diagonal was multiplied, a d. Subtract the other product: a d - b c."""
    return float(matrix[0, 0] * matrix[1, 1])
