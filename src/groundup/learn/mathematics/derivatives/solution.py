"""1.1 Derivatives, solved."""

from collections.abc import Callable, Sequence


def by_limit(f: Callable[[float], float], x: float, h: float = 1e-5) -> float:
    # Both sides: the effects of the curve's bend cancel.
    return (f(x + h) - f(x - h)) / (2 * h)


def by_rule(coefficients: Sequence[float]) -> list[float]:
    # c xⁿ becomes n c xⁿ⁻¹: the term moves one index down, and the constant vanishes.
    return [n * c for n, c in enumerate(coefficients)][1:] or [0]
