"""Linear transformations of the plane: 2 x 2 matrices that rotate, scale, shear, reflect, project.

A linear transformation is determined by its effect on the two axes: the columns of its matrix are
the images of (1, 0) and (0, 1). Applying one after another is the product of the matrices, read
from right to left: `rotation(a) @ shear(1)` shears first and then rotates.

`plot_transformation` draws three things that show the effect of a matrix: the grid (parallels stay
parallel), the unit circle (it becomes an ellipse whose half axes are the singular values and whose
area is |det| times pi) and the eigenvectors, the directions that are not rotated.

Source: Strang (2016), "Introduction to linear algebra", 5th edition, chapters 6 to 8.
"""

from __future__ import annotations

from math import cos, isfinite, pi, sin
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Real

from groundup.maths.linalg import det, eigvals, norm, svd

if TYPE_CHECKING:
    import matplotlib.axes
    import matplotlib.figure

# Colors that are distinguishable with color blindness (Okabe and Ito 2008).
BLUE, ORANGE, GREEN = "#0072B2", "#D55E00", "#009E73"


def rotation(angle: float) -> Float[np.ndarray, "2 2"]:
    """Rotates by `angle` radians, counter-clockwise: [[cos a, -sin a], [sin a, cos a]].

    Errors: `ValueError` for an angle that is not finite, here and below.
    """
    c, s = _direction(angle)
    return _matrix((c, -s), (s, c))


def scaling(x: float, y: float) -> Float[np.ndarray, "2 2"]:
    """Scales by x along the first axis and by y along the second: [[x, 0], [0, y]].

    Errors: `ValueError` for a factor that is not finite, here and in `shear`.
    """
    return _matrix((x, 0), (0, y))


def shear(x: float = 0.0, y: float = 0.0) -> Float[np.ndarray, "2 2"]:
    """Shears: moves a point right by x times its second coordinate and up by y times its first:
    [[1, x], [y, 1]].
    """
    return _matrix((1, x), (y, 1))


def reflection(angle: float) -> Float[np.ndarray, "2 2"]:
    """Reflects in the line through 0 at `angle` radians: [[cos 2a, sin 2a], [sin 2a, -cos 2a]]."""
    c, s = _direction(2 * angle)
    return _matrix((c, s), (s, -c))


def projection(angle: float) -> Float[np.ndarray, "2 2"]:
    """Projects points orthogonally onto the line through 0 at `angle` radians: u u^T, with the
    line's unit vector u = (cos a, sin a).
    """
    c, s = _direction(angle)
    return _matrix((c * c, c * s), (s * c, s * s))


def plot_transformation(matrix: Real[np.ndarray, "2 2"]) -> matplotlib.figure.Figure:
    """Draws grid, unit circle and real eigenvectors, before and after the transformation.

    The images of the two axes are the thick blue and orange lines. Dashed lines along the
    eigenvectors are mapped onto themselves. `.savefig(path)` writes the figure.
    Errors: `ValueError` for a shape other than (2, 2), and for entries that are not finite.
    """
    from matplotlib.figure import Figure  # loads slowly

    if matrix.shape != (2, 2):
        raise ValueError(f"shape {matrix.shape} is not a transformation of the plane; give (2, 2)")
    vectors = _eigenvectors(matrix)
    values = ", ".join(_short(complex(value)) for value in eigvals(matrix))
    reach = 1.3 * max(2.0, norm(matrix, 2))  # the ellipse fits, and both sides have one scale
    figure = Figure(figsize=(9, 4.8), layout="constrained")
    before, after = figure.subplots(1, 2)
    before.set_title("before")
    after.set_title(f"after: determinant {_short(det(matrix))}\neigenvalues {values}")
    _draw(before, np.eye(2), vectors, reach)
    _draw(after, matrix, vectors, reach)
    return figure


def _draw(
    axes: matplotlib.axes.Axes,
    matrix: Real[np.ndarray, "2 2"],
    vectors: Float[np.ndarray, "2 k"],
    reach: float,
) -> None:
    far = 5
    for i in range(-far, far + 1):
        width = 2.0 if i == 0 else 0.6
        along = np.array([[-far, far], [i, i]])
        axes.plot(*(matrix @ along), color=BLUE, linewidth=width, alpha=0.6)
        axes.plot(*(matrix @ along[::-1]), color=ORANGE, linewidth=width, alpha=0.6)
    turn = np.linspace(0, 2 * pi, 200)
    axes.plot(*(matrix @ [np.cos(turn), np.sin(turn)]), color="black")
    for v in vectors.T:
        axes.axline((0, 0), v, color=GREEN, linewidth=1, linestyle="--")
        axes.quiver(0, 0, *(matrix @ v), angles="xy", scale_units="xy", scale=1, color=GREEN)
    axes.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal")


def _eigenvectors(matrix: Real[np.ndarray, "2 2"]) -> Float[np.ndarray, "2 k"]:
    """Return zero, one or two real eigenvectors as unit columns."""
    values = eigvals(matrix)
    # A double eigenvalue may be computed as two, or as a complex pair, that differ by up to the
    # square root of the rounding error.
    near = 1e-7 * np.abs(matrix).max()
    if np.abs(values.imag).max() > near:
        return np.zeros((2, 0))
    if norm(matrix - values[0].real * np.eye(2)) <= near:
        return np.eye(2)
    first, second = (svd(matrix - value * np.eye(2))[2][-1] for value in values.real)
    both = np.stack([first, second], axis=1)
    return both if abs(det(both)) > 1e-6 else both[:, :1]


def _short(value: complex) -> str:
    """Format with three digits, and rounding noise as zero."""
    rounded = complex(round(value.real, 6) + 0.0, round(value.imag, 6) + 0.0)
    return f"{rounded:.3g}" if rounded.imag else f"{rounded.real:.3g}"


def _direction(angle: float) -> tuple[float, float]:
    if not isfinite(angle):
        raise ValueError(f"angle={angle} is not finite; give a finite number of radians")
    return cos(angle), sin(angle)


def _matrix(*rows: tuple[float, float]) -> Float[np.ndarray, "2 2"]:
    matrix = np.array(rows, dtype=float)
    if not np.isfinite(matrix).all():
        raise ValueError(f"the matrix {matrix.tolist()} is not finite; give finite numbers")
    return matrix
