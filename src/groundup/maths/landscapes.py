"""Landscapes: test functions from the literature that are hard to minimize for different reasons.

    quadratic     how much slower is a narrow valley?          the only one with exact theory
    Rosenbrock    what if the valley bends?                    steep walls, a nearly flat floor
    Himmelblau    which of several minima is found?            four minima with a hill between
    Beale         what if the slope does not show the scale?   walls of 10⁵ around a plateau
    Rastrigin     what if there are minima everywhere?         all of these methods stay in one

`plot_trajectories` draws the paths of the methods in `optimize.py`. Every function here takes one
point (n,) and returns one number, or takes m points as columns (n, m) and returns m numbers.

Source: Surjanovic and Bingham (2013), "Virtual library of simulation experiments: test functions",
and the papers named below.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import cos, inf, pi, sin
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from groundup.maths.optimize import Function, Trajectory
from groundup.maths.tensor import Tensor

if TYPE_CHECKING:
    import matplotlib.figure

# Colors that are distinguishable with color blindness (Okabe and Ito 2008).
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")


@dataclass(frozen=True, eq=False)
class Landscape:
    """A function to minimize, its minima (all of value 0), a start and a plot window."""

    name: str
    function: Function
    minima: Float[np.ndarray, "k n"]
    start: Float[np.ndarray, "n"]
    window: tuple[float, float, float, float]
    """The plotted region: left, right, bottom, top."""

    def __call__(self, x: Tensor) -> Tensor:
        return self.function(x)


def quadratic(condition: float, angle: float = pi / 6) -> Landscape:
    """½ xᵀ A x with eigenvalues 1 and κ = `condition`, the flat axis rotated by `angle` radians.

    Its valley is √κ times as long as wide. Errors: `ValueError` for a condition below 1.
    """
    if not 1 <= condition < inf:
        raise ValueError(f"condition={condition} must be at least 1 and finite")
    axes = np.array([[cos(angle), -sin(angle)], [sin(angle), cos(angle)]])
    a = Tensor(axes @ np.diag([1.0, condition]) @ axes.T, requires_grad=False)
    return Landscape(
        name=f"quadratic, κ = {condition:g}",
        function=lambda x: 0.5 * (x * (a @ x)).sum(0),
        minima=np.zeros((1, 2)),
        start=axes @ [10.0, 1.0],
        window=(-3.0, 11.0, -3.0, 8.0),
    )


def rosenbrock(x: Tensor) -> Tensor:
    """Σ 100 (x_{i+1} - x_i²)² + (1 - x_i)²: a bent valley with a flat floor (Rosenbrock 1960)."""
    return (100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2).sum(0)


def himmelblau(x: Tensor) -> Tensor:
    """(x² + y - 11)² + (x + y² - 7)²: four equal minima and saddles between (Himmelblau 1972)."""
    return (x[0] ** 2 + x[1] - 11) ** 2 + (x[0] + x[1] ** 2 - 7) ** 2


def beale(x: Tensor) -> Tensor:
    """Σ (c_i - x + x yⁱ)², c = 1.5, 2.25, 2.625: steep walls around a plateau (Beale 1958)."""
    residuals = [c - x[0] + x[0] * x[1] ** i for i, c in enumerate((1.5, 2.25, 2.625), start=1)]
    return residuals[0] ** 2 + residuals[1] ** 2 + residuals[2] ** 2


def rastrigin(x: Tensor) -> Tensor:
    """Σ x_i² + 10 (1 - cos 2π x_i): a bowl full of local minima (Rastrigin 1974)."""
    return (x**2 + 10 * (1 - (2 * pi * x).cos())).sum(0)


ROSENBROCK = Landscape(
    "Rosenbrock", rosenbrock, np.array([[1.0, 1.0]]), np.array([-1.2, 1.0]), (-2.0, 2.0, -1.0, 3.0)
)
HIMMELBLAU = Landscape(
    "Himmelblau",
    himmelblau,
    np.array(  # the first is exact, the others are roots of two quartics
        [
            [3.0, 2.0],
            [-2.805118086952745, 3.131312518250573],
            [-3.779310253377747, -3.283185991286170],
            [3.584428340330492, -1.848126526964404],
        ]
    ),
    np.array([0.0, 0.0]),
    (-5.0, 5.0, -5.0, 5.0),
)
BEALE = Landscape(
    "Beale", beale, np.array([[3.0, 0.5]]), np.array([1.0, 1.0]), (-1.0, 4.5, -2.0, 2.0)
)
RASTRIGIN = Landscape(
    "Rastrigin", rastrigin, np.array([[0.0, 0.0]]), np.array([2.2, -0.8]), (-3.0, 3.0, -3.0, 3.0)
)


def plot_trajectories(
    f: Function,
    trajectories: Mapping[str, Trajectory],
    window: tuple[float, float, float, float] | None = None,
) -> matplotlib.figure.Figure:
    """Draw the trajectories of several methods, by name, over the contours of a 2D function.

    `window` is left, right, bottom, top; by default the landscape's own, or the region of the
    points. Contour levels are denser at low values, so that a flat floor is visible. `f` is called
    once for all points: for a (2, m) tensor it must return m numbers, as it does if its sums run
    over dimension 0. Errors: `ValueError` if it returns another shape, and for points that are not
    two-dimensional.
    """
    from matplotlib.figure import Figure  # loads slowly

    if not trajectories or any(t.points.shape[1] != 2 for t in trajectories.values()):
        raise ValueError("only paths in the plane can be drawn; give trajectories of 2 numbers")
    left, right, bottom, top = window or _window(f, trajectories.values())
    across, up = np.linspace(left, right, 120), np.linspace(bottom, top, 120)
    heights = _heights(f, across, up)
    lowest = heights.min()
    figure = Figure(figsize=(7, 5.5), layout="constrained")
    axes = figure.subplots()
    axes.set(xlim=(left, right), ylim=(bottom, top), aspect="equal", xlabel="x", ylabel="y")
    axes.contour(
        across,
        up,
        heights,
        levels=lowest + (heights.max() - lowest) * np.linspace(0.02, 1, 24) ** 3,
        colors="#bbbbbb",
        linewidths=0.7,
    )
    for number, (name, trajectory) in enumerate(trajectories.items()):
        color = COLORS[number % len(COLORS)]
        ending = "" if trajectory.converged else ", not converged"
        label = f"{name}: {len(trajectory.points) - 1} steps{ending}"
        axes.plot(*trajectory.points.T, ".-", color=color, markersize=4, linewidth=1, label=label)
        axes.plot(*trajectory.points[-1], "*", color=color, markersize=11)
    if isinstance(f, Landscape):
        axes.plot(*f.minima.T, "x", color="black")
        axes.set_title(f.name)
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    return figure


def _heights(
    f: Function, across: Float[np.ndarray, "w"], up: Float[np.ndarray, "h"]
) -> Float[np.ndarray, "h w"]:
    x, y = np.meshgrid(across, up)
    heights = f(Tensor(np.stack([x.ravel(), y.ravel()]), requires_grad=False)).data
    if heights.shape != (x.size,):
        raise ValueError(
            f"the function gives shape {heights.shape} for a tensor of shape {(2, x.size)}; "
            "let its sums run over dimension 0 only, such as (x**2).sum(0)"
        )
    return heights.reshape(x.shape)


def _window(f: Function, trajectories: Iterable[Trajectory]) -> tuple[float, float, float, float]:
    if isinstance(f, Landscape):
        return f.window
    points = np.concatenate([trajectory.points for trajectory in trajectories])
    (left, bottom), (right, top) = points.min(axis=0), points.max(axis=0)
    room = 0.2 * max(right - left, top - bottom) or 1.0
    return float(left - room), float(right + room), float(bottom - room), float(top + room)
