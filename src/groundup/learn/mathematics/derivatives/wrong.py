"""The commonest wrong answers to 1.1, each with the hint that names it."""

from collections.abc import Callable, Sequence

REPLACES = {
    "one_sided": "by_limit",
    "width_h": "by_limit",
    "not_divided": "by_limit",
    "half_to_each_side": "by_limit",
    "turned_around": "by_limit",
    "left_side_alone": "by_limit",
    "own_step": "by_limit",
    "power_not_lowered": "by_rule",
    "power_after_lowering": "by_rule",
    "highest_first": "by_rule",
    "nothing_left": "by_rule",
    "rounded_down": "by_rule",
    "half_step": "by_limit",
    "one_side_over_both": "by_limit",
    "brackets_forgotten": "by_limit",
    "factor_forgotten": "by_rule",
    "powers_from_one": "by_rule",
}


def one_sided(f: Callable[[float], float], x: float, h: float = 1e-5) -> float:
    """This uses only the right side, (f(x + h) - f(x)) / h, with an error of about h f''/2. Use
    both sides: f(x + h) - f(x - h)."""
    return (f(x + h) - f(x)) / h


def width_h(f: Callable[[float], float], x: float, h: float = 1e-5) -> float:
    """x + h and x - h are 2 h apart, but the difference was divided by h: the result is twice too
    large."""
    return (f(x + h) - f(x - h)) / h


def not_divided(f: Callable[[float], float], x: float, h: float = 1e-5) -> float:
    """The difference must still be divided by the distance of the two points, 2 h."""
    return f(x + h) - f(x - h)


def half_to_each_side(f: Callable[[float], float], x: float, h: float = 1e-5) -> float:
    """This computes (…) / 2 * h, which divides by 2 and then multiplies by h. Put brackets around
    (2 * h)."""
    return (f(x + h) - f(x - h)) / 2 * h


def turned_around(f: Callable[[float], float], x: float, h: float = 1e-5) -> float:
    """The sign is flipped: subtract the value on the left, f(x - h), from the one on the right."""
    return (f(x - h) - f(x + h)) / (2 * h)


def power_not_lowered(coefficients: Sequence[float]) -> list[float]:
    """The factors n are right, but each term is still at its old power: n c belongs to xⁿ⁻¹, one
    index lower in the list."""
    return [n * c for n, c in enumerate(coefficients)]


def power_after_lowering(coefficients: Sequence[float]) -> list[float]:
    """Each coefficient was multiplied by its new power, n - 1. The factor is the old power, n: the
    derivative of x² is 2 x, not 1 x."""
    return [n * c for n, c in enumerate(coefficients[1:])] or [0]


def highest_first(coefficients: Sequence[float]) -> list[float]:
    """The list was read with the highest power first. The first coefficient is the constant."""
    powers = range(len(coefficients) - 1, -1, -1)
    return [n * c for n, c in zip(powers, coefficients, strict=True)][:-1] or [0]


def nothing_left(coefficients: Sequence[float]) -> list[float]:
    """The derivative of a constant is the polynomial 0, [0], not an empty list."""
    return [n * c for n, c in enumerate(coefficients)][1:]


def rounded_down(coefficients: Sequence[float]) -> list[float]:
    """The decimals are lost. Coefficients may be any numbers: do not use int."""
    return [float(int(n * c)) for n, c in enumerate(coefficients)][1:] or [0]


def left_side_alone(f: Callable[[float], float], x: float, h: float = 1e-5) -> float:
    """This uses only the left side, (f(x) - f(x - h)) / h, with an error of about h f''/2. Use both
    sides: f(x + h) - f(x - h)."""
    return (f(x) - f(x - h)) / h


def own_step(f: Callable[[float], float], x: float, h: float = 1e-5) -> float:
    """The step is 1e-5 regardless of h. Use the given h."""
    return (f(x + 1e-5) - f(x - 1e-5)) / 2e-5


def half_step(f: Callable[[float], float], x: float, h: float = 1e-5) -> float:
    """This goes h / 2 to each side. Go a whole h to each side, and divide by the distance of the
    two points, 2 h."""
    return (f(x + h / 2) - f(x - h / 2)) / h


def one_side_over_both(f: Callable[[float], float], x: float, h: float = 1e-5) -> float:
    """x and x + h are h apart, but the difference was divided by 2 h. Use both sides: f(x + h) -
    f(x - h)."""
    return (f(x + h) - f(x)) / (2 * h)


def brackets_forgotten(f: Callable[[float], float], x: float, h: float = 1e-5) -> float:
    """Division comes before subtraction, so only f(x - h) was divided. Put brackets around the
    difference."""
    return f(x + h) - f(x - h) / (2 * h)


def factor_forgotten(coefficients: Sequence[float]) -> list[float]:
    """Each term moved one index down, but its factor is missing: c xⁿ becomes n c xⁿ⁻¹."""
    return list(coefficients[1:]) or [0]


def powers_from_one(coefficients: Sequence[float]) -> list[float]:
    """Each factor is one too large: the constant is at index 0, so a coefficient's index is its
    power."""
    return [(n + 1) * c for n, c in enumerate(coefficients)][1:] or [0]
