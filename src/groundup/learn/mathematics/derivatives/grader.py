"""Trials of 1.1: slopes against those of the product's tape."""

from collections.abc import Callable, Iterator, Sequence
from types import ModuleType
from typing import Any

import numpy as np

from groundup.learn.exercise import Trial
from groundup.maths.derivatives import jacobian, value_and_gradient
from groundup.maths.tensor import Tensor


def trials(seed: int) -> Iterator[Trial]:
    """Slopes of three curves, then polynomials down to a constant."""
    rng = np.random.default_rng(seed)
    x = float(rng.integers(2, 5))
    yield _slope("a line", "3 x + 1", lambda t: t * 3 + 1, x)
    yield _slope("a cube", "x³", lambda t: t * t * t, x)
    yield _slope("where the curve bends", "1 / x", lambda t: 1 / t, 0.5)
    yield _wide_step()
    yield _several()
    yield _rule("a parabola", [float(c) for c in rng.integers(2, 9, size=3)])
    yield _rule("a polynomial of degree 4", [float(c) for c in rng.integers(-9, 9, size=5)])
    yield _rule("a straight line", [4.0, 7.0])
    yield _rule("a constant", [5.0])
    yield _rule("coefficients that are not integers", [0.5, 1.25, -0.75])


def _slope(about: str, formula: str, f: Callable[[Any], Any], x: float) -> Trial:
    expected = float(value_and_gradient(f, Tensor(x))[1])

    def run(part: ModuleType) -> Any:
        return part.by_limit(f, x)

    # A central difference has an error of about 1e-10 here, a one-sided one 1e-5.
    return Trial(about, run, expected, {"f": formula, "x": x, "h": 1e-5}, rtol=1e-7)


def _wide_step() -> Trial:
    """A step of 1e-3, large enough to show: on x³ the central difference is exactly 3 x² + h²."""
    x, h = 2.0, 1e-3

    def run(part: ModuleType) -> Any:
        return part.by_limit(lambda t: t * t * t, x, h)

    shown = {"f": "x³", "x": x, "h": h}
    return Trial("a cube, with a wider step", run, 3 * x**2 + h**2, shown, rtol=1e-10)


def _several() -> Trial:
    """An f of several values: the slope of each."""
    x = 2.0

    def run(part: ModuleType) -> Any:
        return part.by_limit(lambda t: np.array([t * t, 1 / t]), x)

    shown = {"f": "[x², 1 / x]", "x": x, "h": 1e-5}
    return Trial("an f of two values", run, np.array([2 * x, -1 / x**2]), shown, rtol=1e-7)


def _rule(about: str, coefficients: list[float]) -> Trial:
    # The Taylor coefficients of f' at 0, by the tape: f'(0), f''(0), f'''(0) / 2, …
    found: list[float] = []
    f: Callable[[Tensor], Tensor] = _polynomial(coefficients)
    factorial = 1
    for n in range(max(1, len(coefficients) - 1)):
        f = _derived(f)
        factorial *= max(1, n)
        found.append(float(f(Tensor(0.0))) / factorial)

    def run(part: ModuleType) -> Any:
        result = part.by_rule(coefficients)
        return np.asarray(result, dtype=float) if isinstance(result, list | tuple) else result

    return Trial(about, run, np.array(found), {"coefficients": coefficients})


def _polynomial(coefficients: Sequence[float]) -> Callable[[Tensor], Tensor]:
    def f(x: Tensor) -> Tensor:
        value = x * 0.0
        for c in reversed(coefficients):  # Horner
            value = value * x + c
        return value

    return f


def _derived(f: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    return lambda x: jacobian(f, x, create_graph=True)
