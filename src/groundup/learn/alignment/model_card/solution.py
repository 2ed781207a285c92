"""How a card shows a number, and what was not measured."""


def shown(value: float, low: float, high: float) -> tuple[str, str]:
    """A share and its interval as strings."""
    return f"{100 * value:.1f} %", f"{100 * low:.1f} % to {100 * high:.1f} %"


def says(low: float, high: float, chance: float) -> str:
    """What the interval says about chance."""
    if low > chance:
        return "above chance"
    return "below chance" if high < chance else "not significant"


def missing(tasks: list[str], measured: list[str]) -> list[str]:
    """The tasks that were not measured."""
    return [task for task in tasks if task not in measured]
