"""1.1 Derivatives, by limit and by rule.

The lesson: groundup learn 1.1        Check it: groundup learn check 1.1
"""

from collections.abc import Callable, Sequence


def by_limit(f: Callable[[float], float], x: float, h: float = 1e-5) -> float:
    """Return f'(x) by the central difference of step h."""
    raise NotImplementedError


def by_rule(coefficients: Sequence[float]) -> list[float]:
    """Return the coefficients of a polynomial's derivative, lowest power first."""
    raise NotImplementedError
