"""The plane's transformations by their effect on points, and their plots by their contents."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from math import inf, nan, pi, sqrt
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.maths.transforms import (
    plot_transformation,
    projection,
    reflection,
    rotation,
    scaling,
    shear,
)

angles = st.floats(-10, 10)
RIGHT, UP = np.array([1.0, 0.0]), np.array([0.0, 1.0])


def test_axes_are_mapped_to_the_columns() -> None:
    for matrix, right, up in (
        (rotation(pi / 2), [0, 1], [-1, 0]),
        (scaling(2, -3), [2, 0], [0, -3]),
        (shear(0.5), [1, 0], [0.5, 1]),
        (shear(0, 2), [1, 2], [0, 1]),
        (reflection(pi / 4), [0, 1], [1, 0]),
        (reflection(0), [1, 0], [0, -1]),
        (projection(pi / 4), [0.5, 0.5], [0.5, 0.5]),
    ):
        np.testing.assert_allclose(matrix @ RIGHT, right, atol=1e-15)
        np.testing.assert_allclose(matrix @ UP, up, atol=1e-15)


@given(angles, angles)
@settings(deadline=None)
def test_rotating_twice_adds_angles(a: float, b: float) -> None:
    np.testing.assert_allclose(rotation(a) @ rotation(b), rotation(a + b), atol=1e-14)
    turned = rotation(a) @ RIGHT
    assert complex(*turned) == pytest.approx(np.exp(1j * a))


@given(angles, angles)
@settings(deadline=None)
def test_two_reflections_rotate_by_twice_the_angle_between_them(a: float, b: float) -> None:
    np.testing.assert_allclose(reflection(a) @ reflection(b), rotation(2 * (a - b)), atol=1e-14)


@given(angles)
@settings(deadline=None)
def test_a_projection_is_halfway_to_the_reflection(a: float) -> None:
    np.testing.assert_allclose(projection(a), (np.eye(2) + reflection(a)) / 2, atol=1e-15)
    np.testing.assert_allclose(projection(a) @ projection(a), projection(a), atol=1e-15)
    np.testing.assert_allclose(projection(a) @ rotation(a) @ RIGHT, rotation(a) @ RIGHT, atol=1e-14)


def test_the_order_of_composition_matters() -> None:
    assert not np.allclose(rotation(1) @ shear(1), shear(1) @ rotation(1))


def eigenvectors_drawn(matrix: np.ndarray) -> list[np.ndarray]:
    """The arrows on the left side: unit eigenvectors before the transformation."""
    before, _ = plot_transformation(matrix).axes
    arrows = [c for c in before.collections if type(c).__name__ == "Quiver"]
    return [np.array([arrow.U[0], arrow.V[0]]) for arrow in arrows]


@pytest.mark.parametrize(
    ("matrix", "count"),
    [
        (np.array([[2.0, 1.0], [1.0, 1.0]]), 2),
        (np.array([[1.0, 2.0], [3.0, 4.0]]), 2),
        (reflection(0.3), 2),
        (projection(0.5), 2),
        (np.array([[2, 0], [0, 3]]), 2),
        (shear(1), 1),
        (rotation(0.4) @ shear(1) @ rotation(-0.4), 1),
        (rotation(0.7), 0),
        (np.eye(2), 2),
        (np.zeros((2, 2)), 2),
    ],
)
def test_the_arrows_are_eigenvectors(matrix: np.ndarray, count: int) -> None:
    drawn = eigenvectors_drawn(matrix)
    assert len(drawn) == count
    for v in drawn:
        image = matrix @ v
        assert np.linalg.norm(v) == pytest.approx(1)
        assert abs(v[0] * image[1] - v[1] * image[0]) < 1e-7
    if count == 2:
        assert abs(np.linalg.det(np.stack(drawn))) > 0.1


def test_a_plot_has_circle_grid_and_title() -> None:
    figure = plot_transformation(np.array([[3.0, 0.0], [0.0, 2.0]]))
    before, after = figure.axes
    assert after.get_title() == "after: determinant 6\neigenvalues 3, 2"
    circle, ellipse = (
        next(line for line in axes.lines if len(line.get_xdata()) > 100).get_xydata()
        for axes in (before, after)
    )
    np.testing.assert_allclose(np.linalg.norm(circle, axis=1), 1)
    np.testing.assert_allclose(ellipse, circle * [3, 2])
    assert before.get_xlim() == after.get_xlim() == (-1.3 * 3, 1.3 * 3)


def test_titles_hide_rounding_and_show_complex_pairs() -> None:
    flat = plot_transformation(projection(0.5)).axes[1].get_title()
    assert flat == "after: determinant 0\neigenvalues 1, 0"
    turned = plot_transformation(sqrt(2) * rotation(pi / 4)).axes[1].get_title()
    assert turned == "after: determinant 2\neigenvalues 1+1j, 1-1j"


def test_a_figure_is_written_without_pyplot(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from groundup.maths.transforms import plot_transformation, shear\n"
        "assert 'matplotlib' not in sys.modules\n"
        f"plot_transformation(shear(1)).savefig({str(tmp_path / 'shear.svg')!r})\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "<svg" in (tmp_path / "shear.svg").read_text()


@pytest.mark.usefixtures("unchecked_types")
@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: rotation(inf), "angle=inf"),
        (lambda: projection(nan), "angle=nan"),
        (lambda: scaling(1, inf), "inf"),
        (lambda: shear(nan), "nan"),
        (lambda: plot_transformation(np.eye(3)), r"\(3, 3\)"),
        (lambda: plot_transformation(np.array([[1, nan], [0, 1]])), "nan"),
    ],
)
def test_errors_name_the_value(call: Callable[[], object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        call()
