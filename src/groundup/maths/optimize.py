"""Minimizing a function: five methods, each one line, and their convergence rates.

Each method computes the next point from the last two, with g the gradient and H the Hessian at x:

    gradient descent     x ← x - η g
    line search          x ← x - t g               t halved until the value falls enough
    heavy ball           x ← x - η g + β (x - x')  x' the point before (Polyak 1964)
    Nesterov             y - η ∇f(y)               with y = x + β (x - x')  (Nesterov 1983)
    Newton               x ← x - t H⁻¹ g

A quadratic ½ xᵀ A x shows why they differ. Along each eigenvector of A each step multiplies the
error by a factor that depends only on the eigenvalue, so the slowest direction sets the pace, and
the condition number κ = largest / smallest decides. With the best settings these factors are

    gradient descent  (κ - 1) / (κ + 1)    Nesterov     1 - 2 / √(3κ + 1)
    heavy ball        (√κ - 1) / (√κ + 1)  Newton       0

For κ = 100 they are 0.98, 0.88 (Nesterov), 0.82 (heavy ball) and 0. Nesterov's usual setting, used
by `tuned`, gives 1 - 1 / √κ, here 0.9. A method's `contraction` is the theory for any setting,
`Trajectory.contraction` the measured factor. `landscapes.py` has test functions.

Sources: Boyd and Vandenberghe (2004), "Convex optimization", chapter 9, below "BV"; Nocedal and
Wright (2006), "Numerical optimization", 2nd edition, below "NW".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf, isfinite, log, sqrt
from typing import NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Float, Real

from groundup.maths.derivatives import hessian, value_and_gradient
from groundup.maths.linalg import eigh, solve
from groundup.maths.tensor import Tensor, no_grad

Function: TypeAlias = Callable[[Tensor], Tensor]
"""A vector (n,) -> a single number."""
Vector: TypeAlias = Float[np.ndarray, "n"]


class Point(NamedTuple):
    """A point with its value and gradient."""

    x: Vector
    value: float
    gradient: Vector


Method: TypeAlias = Callable[[Function, Point, Point], Vector]
"""(f, the current point, the previous one, at the start the same) -> the next x."""


# The methods.


@dataclass(frozen=True)
class GradientDescent:
    """x ← x - η g: steepest descent with a fixed rate."""

    rate: float

    def __call__(self, f: Function, now: Point, before: Point) -> Vector:
        x: Vector = now.x - self.rate * now.gradient
        return x

    def contraction(self, eigenvalues: Vector) -> float:
        """max |1 - η λ|; from η = 2 / λ_max on it does not converge."""
        return float(np.abs(1 - self.rate * eigenvalues).max())

    @staticmethod
    def tuned(smallest: float, largest: float) -> GradientDescent:
        """η = 2 / (λ_min + λ_max), where the steepest and the flattest direction are equally slow.

        Here and below, the best setting for quadratics with eigenvalues in this range.
        """
        return GradientDescent(2 / (smallest + largest))


@dataclass(frozen=True)
class LineSearch:
    """Gradient descent with backtracking, which needs no rate (Armijo 1966; BV, section 9.3).

    t = first, first/2, first/4, ... until f(x - t g) ≤ f(x) - c t |g|²
    """

    first: float = 1.0
    sufficient: float = 1e-4
    """c: the required part of the decrease that the slope predicts (NW, section 3.1)."""

    def __call__(self, f: Function, now: Point, before: Point) -> Vector:
        return backtrack(f, now, -now.gradient, self.first, self.sufficient)

    def contraction(self, eigenvalues: Vector) -> float:
        """At most √(1 - 2 c λ_min min(first, 1 / 2 λ_max)): t is never halved below 1 / 2 λ_max."""
        shortest = min(self.first, 0.5 / float(eigenvalues.max()))
        return sqrt(1 - 2 * self.sufficient * float(eigenvalues.min()) * shortest)


@dataclass(frozen=True)
class HeavyBall:
    """x ← x - η g + β (x - x'): gradient descent with momentum (Polyak 1964)."""

    rate: float
    momentum: float

    def __call__(self, f: Function, now: Point, before: Point) -> Vector:
        x: Vector = now.x - self.rate * now.gradient + self.momentum * (now.x - before.x)
        return x

    def contraction(self, eigenvalues: Vector) -> float:
        """The largest root of r² - (1 + β - η λ) r + β, over all eigenvalues λ."""
        return _largest_root(1 + self.momentum - self.rate * eigenvalues, self.momentum)

    @staticmethod
    def tuned(smallest: float, largest: float) -> HeavyBall:
        """η = 4 / (√λ_min + √λ_max)² and β = ((√κ - 1) / (√κ + 1))²."""
        slow, fast = sqrt(smallest), sqrt(largest)
        return HeavyBall(4 / (slow + fast) ** 2, ((fast - slow) / (fast + slow)) ** 2)


@dataclass(frozen=True)
class Nesterov:
    """y = x + β (x - x'), x ← y - η ∇f(y): the gradient is taken at the point ahead."""

    rate: float
    momentum: float

    def __call__(self, f: Function, now: Point, before: Point) -> Vector:
        ahead = now.x + self.momentum * (now.x - before.x)
        x: Vector = ahead - self.rate * evaluate(f, ahead).gradient
        return x

    def contraction(self, eigenvalues: Vector) -> float:
        """The largest root of r² - (1 + β)(1 - η λ) r + β (1 - η λ), over all eigenvalues λ."""
        shrunk = 1 - self.rate * eigenvalues
        return _largest_root((1 + self.momentum) * shrunk, self.momentum * shrunk)

    @staticmethod
    def tuned(smallest: float, largest: float) -> Nesterov:
        """η = 1 / λ_max and β = (√κ - 1) / (√κ + 1) (Nesterov 2004, section 2.2.1)."""
        slow, fast = sqrt(smallest), sqrt(largest)
        return Nesterov(1 / largest, (fast - slow) / (fast + slow))


@dataclass(frozen=True)
class Newton:
    """x ← x - t H⁻¹ g: to the minimum of the quadratic approximation at x.

    If H is not safely positive definite, the approximation has no minimum, and a multiple of the
    identity is added (NW, section 3.4). t is 1, halved while the step is too long.
    """

    def __call__(self, f: Function, now: Point, before: Point) -> Vector:
        curvature = hessian(f, now.x).data
        eigenvalues, _ = eigh(curvature)
        # A thousandth of the largest curvature limits the step without making it a gradient step.
        least = 1e-3 * (float(np.abs(eigenvalues).max()) or 1.0)
        if eigenvalues.min() < 1e-9 * least:
            curvature = curvature + (least - eigenvalues.min()) * np.eye(len(now.x))
        return backtrack(f, now, -solve(curvature, now.gradient))

    def contraction(self, eigenvalues: Vector) -> float:
        """0: a quadratic is its own approximation."""
        return 0.0


def backtrack(
    f: Function, now: Point, direction: Vector, first: float = 1.0, sufficient: float = 1e-4
) -> Vector:
    """Return the first x + t d, t = first, first/2, ..., with f(x + t d) ≤ f(x) + c t g·d.

    Close to a minimum, differences of f are lost in rounding. There the slope must have shrunk
    instead, ∇f(x + t d)·d ≤ (2c - 1) g·d, which is equivalent on a quadratic (Hager and Zhang 2005,
    section 4). If no t down to 1e-16 is short enough, the result is x itself.
    """
    slope = float(now.gradient @ direction)
    t = first
    while t > 1e-16 * first:
        x: Vector = now.x + t * direction
        change = value_at(f, x) - now.value
        if abs(change) > 1e-12 * abs(now.value):
            enough = change <= sufficient * t * slope
        else:
            enough = float(evaluate(f, x).gradient @ direction) <= (2 * sufficient - 1) * slope
        if enough:
            return x
        t /= 2
    return now.x


def _largest_root(b: Vector, c: float | Vector) -> float:
    """max |r| over the roots of all r² - b r + c = 0."""
    spread = np.sqrt(np.asarray(b**2 - 4 * c, dtype=complex))
    return float(np.maximum(np.abs(b + spread), np.abs(b - spread)).max() / 2)


# The descent.


@dataclass(frozen=True, eq=False)
class Trajectory:
    """The points of a descent, including the start, and whether it converged."""

    points: Float[np.ndarray, "steps n"]
    values: Float[np.ndarray, "steps"]
    gradient_norms: Float[np.ndarray, "steps"]
    converged: bool

    def errors(self, minimum: Real[np.ndarray, "n"]) -> Float[np.ndarray, "steps"]:
        """Return the distance of each point from a minimum."""
        distances: Float[np.ndarray, "steps"] = np.linalg.norm(self.points - minimum, axis=1)
        return distances

    def contraction(self, minimum: Real[np.ndarray, "n"]) -> float:
        """Return the factor by which a step reduced the error, averaged over the last half.

        This is r if errors fall as r^t. Errors: `ValueError` if no step was taken.
        """
        errors = self.errors(minimum)
        last = len(errors) - 1
        if last == 0:
            raise ValueError("a rate needs a step; start further away, or lower the tolerance")
        middle = last // 2
        if errors[middle] == 0:
            return 0.0
        return float((errors[last] / errors[middle]) ** (1 / (last - middle)))

    def order(self, minimum: Real[np.ndarray, "n"]) -> float:
        """Return q if errors fall as e ← c e^q: 1 for all gradient methods, 2 for Newton's.

        It uses the last three errors above rounding. Errors: `ValueError` if there are fewer, or
        if two consecutive ones are equal.
        """
        errors = self.errors(minimum)
        visible = errors[errors > 1e-13 * max(1.0, float(np.linalg.norm(minimum)))]
        if len(visible) < 3:
            raise ValueError("an order needs three errors above 1e-13; start further away")
        last = [log(float(error)) for error in visible[-3:]]
        if last[1] in (last[0], last[2]):
            raise ValueError(
                f"an order needs errors that change, but two in a row are {visible[-2]:.3g}; "
                "try another step size or start"
            )
        return (last[2] - last[1]) / (last[1] - last[0])


def minimize(
    f: Function,
    start: Real[np.ndarray, "n"] | Sequence[float],
    method: Method,
    *,
    steps: int = 1000,
    tolerance: float = 1e-8,
) -> Trajectory:
    """Follow `method` downhill from `start` until the gradient's norm is at most `tolerance`.

    It also ends, without convergence, after `steps` steps and at a value or gradient that is not
    finite. Errors: `ValueError` for a start that is not a vector of finite numbers; `ShapeError`
    for a function that returns several numbers.
    """
    x = np.array(start, dtype=np.float64)
    if x.ndim != 1 or not np.isfinite(x).all():
        raise ValueError(f"start={start} must be a list of finite numbers, such as [-1.2, 1.0]")
    points = [evaluate(f, x)]
    before = points[0]
    while len(points) <= steps and tolerance < _length(points[-1]) < inf:
        now = points[-1]
        points.append(evaluate(f, method(f, now, before)))
        before = now
    norms = np.array([_length(point) for point in points])
    return Trajectory(
        points=np.stack([point.x for point in points]),
        values=np.array([point.value for point in points]),
        gradient_norms=norms,
        converged=bool(norms[-1] <= tolerance),
    )


def evaluate(f: Function, x: Vector) -> Point:
    """Return f and its gradient at x."""
    value, gradient = value_and_gradient(f, x)
    return Point(x, value.item(), gradient.data)


def value_at(f: Function, x: Vector) -> float:
    """Return f at x, without recording."""
    with no_grad():
        return float(f(Tensor(x)))


def _length(point: Point) -> float:
    """The norm of the gradient; infinite if the value is not finite."""
    with np.errstate(over="ignore", invalid="ignore"):
        length = float(np.sqrt(point.gradient @ point.gradient))
    return length if isfinite(point.value) and isfinite(length) else inf
