"""Minimizing a function: five methods, each in a line, and how fast they are.

Each method is one line that leads from the last two points to the next, with g the gradient and H
the Hessian at x:

    gradient descent     x ← x - η g
    line search          x ← x - t g               t halved until the value falls enough
    heavy ball           x ← x - η g + β (x - x')  x' the point before (Polyak 1964)
    Nesterov             y - η ∇f(y)               with y = x + β (x - x')  (Nesterov 1983)
    Newton               x ← x - t H⁻¹ g

Why they differ shows on a quadratic ½ xᵀ A x. Along each eigenvector of A the error is multiplied
by a number that depends on the eigenvalue alone, so the slowest one sets the pace, and what counts
is the condition number κ = largest / smallest. At their best settings each step leaves

    gradient descent  (κ - 1) / (κ + 1)    Nesterov     1 - 2 / √(3κ + 1)
    heavy ball        (√κ - 1) / (√κ + 1)  Newton       nothing

of the error: for κ = 100 that is 0.98, 0.88, 0.82 and 0. Nesterov's usual setting, which is that of
`tuned`, leaves 1 - 1 / √κ, here 0.9. `contraction` of a method is the theory for any setting,
`Trajectory.contraction` is what happened. `landscapes.py` has functions to try.

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
"""A vector (n,) -> one number."""
Vector: TypeAlias = Float[np.ndarray, "n"]


class Point(NamedTuple):
    """A place, the value there, and the slope."""

    x: Vector
    value: float
    gradient: Vector


Method: TypeAlias = Callable[[Function, Point, Point], Vector]
"""(f, a point, the one before it or at the start the same) -> where to go next."""


# The methods.


@dataclass(frozen=True)
class GradientDescent:
    """x ← x - η g: downhill where it is steepest, by a fixed rate."""

    rate: float

    def __call__(self, f: Function, now: Point, before: Point) -> Vector:
        x: Vector = now.x - self.rate * now.gradient
        return x

    def contraction(self, eigenvalues: Vector) -> float:
        """max |1 - η λ|; from η = 2 / λ_max on nothing shrinks."""
        return float(np.abs(1 - self.rate * eigenvalues).max())

    @staticmethod
    def tuned(smallest: float, largest: float) -> GradientDescent:
        """η = 2 / (λ_min + λ_max), where the steepest and the flattest direction are equally slow.

        The best for quadratics with eigenvalues in this range, here and below.
        """
        return GradientDescent(2 / (smallest + largest))


@dataclass(frozen=True)
class LineSearch:
    """Gradient descent with backtracking: no rate to choose (Armijo 1966; BV, section 9.3).

    t = first, first/2, first/4, ... until f(x - t g) ≤ f(x) - c t |g|²
    """

    first: float = 1.0
    sufficient: float = 1e-4
    """c: how much of the fall that the slope promises must be there (NW, section 3.1)."""

    def __call__(self, f: Function, now: Point, before: Point) -> Vector:
        return backtrack(f, now, -now.gradient, self.first, self.sufficient)

    def contraction(self, eigenvalues: Vector) -> float:
        """At most √(1 - 2 c λ_min min(first, 1 / 2 λ_max)): t is never halved below 1 / 2 λ_max."""
        shortest = min(self.first, 0.5 / float(eigenvalues.max()))
        return sqrt(1 - 2 * self.sufficient * float(eigenvalues.min()) * shortest)


@dataclass(frozen=True)
class HeavyBall:
    """x ← x - η g + β (x - x'): a ball that keeps its speed (Polyak 1964)."""

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
    """y = x + β (x - x'), x ← y - η ∇f(y): the slope is read where the ball is about to be."""

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
    """x ← x - t H⁻¹ g: straight to the minimum of the parabola that fits here best.

    Where H is not safely positive definite, the parabola has no minimum, and a multiple of the
    identity is added until it has one (NW, section 3.4). t is 1, halved where that is too far.
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
        """0: a quadratic is its own parabola."""
        return 0.0


def backtrack(
    f: Function, now: Point, direction: Vector, first: float = 1.0, sufficient: float = 1e-4
) -> Vector:
    """The first x + t d, t = first, first/2, ..., where f(x + t d) ≤ f(x) + c t g·d.

    Close to a minimum the differences of f drown in rounding; there the slope has to have shrunk
    instead, ∇f(x + t d)·d ≤ (2c - 1) g·d, which on a quadratic is the same (Hager and Zhang 2005,
    section 4). Where no t down to 1e-16 is short enough the answer is x itself.
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
    """The points that a method went through, the start among them, and whether it arrived."""

    points: Float[np.ndarray, "steps n"]
    values: Float[np.ndarray, "steps"]
    gradient_norms: Float[np.ndarray, "steps"]
    converged: bool

    def errors(self, minimum: Real[np.ndarray, "n"]) -> Float[np.ndarray, "steps"]:
        """The distance of each point from a minimum."""
        distances: Float[np.ndarray, "steps"] = np.linalg.norm(self.points - minimum, axis=1)
        return distances

    def contraction(self, minimum: Real[np.ndarray, "n"]) -> float:
        """What a step left of the error, on average over the last half of the steps.

        That is r where errors fall as r^t. Errors: `ValueError` where no step was taken.
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
        """q where errors fall as e ← c e^q: 1 for all gradient methods, 2 for Newton's.

        From the last three errors above rounding. Errors: `ValueError` where there are fewer, or
        where two of them in a row are equal.
        """
        errors = self.errors(minimum)
        visible = errors[errors > 1e-13 * max(1.0, float(np.linalg.norm(minimum)))]
        if len(visible) < 3:
            raise ValueError("an order needs three errors above 1e-13; start further away")
        last = [log(float(error)) for error in visible[-3:]]
        if last[1] in (last[0], last[2]):
            raise ValueError(
                f"an order needs errors that change, and two in a row are {visible[-2]:.3g}; "
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

    It also ends after `steps` steps, and where a value or gradient is no finite number: then it
    has not converged. Errors: `ValueError` for a start that is no vector of finite numbers;
    `ShapeError` for a function that gives more than one number.
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
    """f and its gradient at x."""
    value, gradient = value_and_gradient(f, x)
    return Point(x, value.item(), gradient.data)


def value_at(f: Function, x: Vector) -> float:
    """f at x, off the tape."""
    with no_grad():
        return float(f(Tensor(x)))


def _length(point: Point) -> float:
    """The norm of the gradient; infinite where the value is no finite number."""
    with np.errstate(over="ignore", invalid="ignore"):
        length = float(np.sqrt(point.gradient @ point.gradient))
    return length if isfinite(point.value) and isfinite(length) else inf
