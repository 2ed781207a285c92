"""The commonest mistakes with model cards."""

REPLACES = {
    "not_in_percent": "shown",
    "no_decimal": "shown",
    "two_decimals": "shown",
    "no_blank": "shown",
    "plus_or_minus": "shown",
    "one_text": "shown",
    "middle_decides": "says",
    "touching_is_above": "says",
    "turned_around": "says",
    "only_above": "says",
    "one_end_is_enough": "says",
    "no_difference": "says",
    "half_is_chance": "says",
    "what_was_measured": "missing",
    "without_order": "missing",
    "how_many": "missing",
    "measured_not_known": "missing",
    "part_of_a_name": "missing",
    "in_any_case": "missing",
}


def not_in_percent(value: float, low: float, high: float) -> tuple[str, str]:
    """The numbers are still shares. In percent they are a hundred times as large."""
    return f"{value:.1f} %", f"{low:.1f} % to {high:.1f} %"


def no_decimal(value: float, low: float, high: float) -> tuple[str, str]:
    """Use one decimal: `.1f`."""
    return f"{100 * value:.0f} %", f"{100 * low:.0f} % to {100 * high:.0f} %"


def two_decimals(value: float, low: float, high: float) -> tuple[str, str]:
    """Use one decimal, since more of them suggest false precision: `.1f`."""
    return f"{100 * value:.2f} %", f"{100 * low:.2f} % to {100 * high:.2f} %"


def no_blank(value: float, low: float, high: float) -> tuple[str, str]:
    """Put a space between the number and the sign: "80.0 %". (Python's own `%` format writes
    none.)"""
    return f"{value:.1%}", f"{low:.1%} to {high:.1%}"


def plus_or_minus(value: float, low: float, high: float) -> tuple[str, str]:
    """Write the interval with its two ends. It is not symmetric: near 0 and 1 a share has more room
    on one side."""
    return f"{100 * value:.1f} %", f"± {100 * (high - low) / 2:.1f} %"


def one_text(value: float, low: float, high: float) -> str:
    """Return two strings, the value and the interval: they go into separate columns."""
    return f"{100 * value:.1f} % ({100 * low:.1f} % to {100 * high:.1f} %)"


def middle_decides(low: float, high: float, chance: float) -> str:
    """The middle is compared with chance. The interval's ends decide, since chance may lie
    inside."""
    return "above chance" if (low + high) / 2 > chance else "below chance"


def touching_is_above(low: float, high: float, chance: float) -> str:
    """An interval that touches the chance level contains it: above means low > chance, not low >=
    chance."""
    if low >= chance:
        return "above chance"
    return "below chance" if high <= chance else "not significant"


def turned_around(low: float, high: float, chance: float) -> str:
    """Above and below are exchanged: above chance means that the *low* end is above it."""
    if high < chance:
        return "above chance"
    return "below chance" if low > chance else "not significant"


def only_above(low: float, high: float, chance: float) -> str:
    """Below chance is a finding too: a model that is surely worse than guessing is not guessing."""
    return "above chance" if low > chance else "not significant"


def one_end_is_enough(low: float, high: float, chance: float) -> str:
    """One end on that side is not enough: the *whole* interval must be there. For "above" check the
    low end, for "below" the high end."""
    if high > chance:
        return "above chance"
    return "below chance" if low < chance else "not significant"


def no_difference(low: float, high: float, chance: float) -> str:
    """If chance lies inside, this says that there is no difference. Nobody knows that: it cannot be
    told from chance."""
    if low > chance:
        return "above chance"
    return "below chance" if high < chance else "no difference from chance"


def half_is_chance(low: float, high: float, chance: float) -> str:
    """The ends are compared with one half. Use the given chance level: with four answers it is a
    quarter."""
    if low > 0.5:
        return "above chance"
    return "below chance" if high < 0.5 else "not significant"


def what_was_measured(tasks: list[str], measured: list[str]) -> list[str]:
    """These are the tasks that *were* measured."""
    return [task for task in tasks if task in measured]


def without_order(tasks: list[str], measured: list[str]) -> list[str]:
    """A set has no order, and sorting changes the order. Keep the order of `tasks`."""
    return sorted(set(tasks) - set(measured))


def how_many(tasks: list[str], measured: list[str]) -> int:
    """This counts them; return their names."""
    return len(set(tasks) - set(measured))


def measured_not_known(tasks: list[str], measured: list[str]) -> list[str]:
    """This includes measured names that are not in `tasks`. Return only names from `tasks`."""
    left = [task for task in tasks if task not in measured]
    return left + [one for one in measured if one not in tasks]


def part_of_a_name(tasks: list[str], measured: list[str]) -> list[str]:
    """The names are searched in one string, where a name also matches inside a longer one, as bbq
    does in bbq-age. Check whether it is in the *list*."""
    return [task for task in tasks if task not in " ".join(measured)]


def in_any_case(tasks: list[str], measured: list[str]) -> list[str]:
    """Capital and small letters are treated as equal. Compare the names exactly."""
    return [task for task in tasks if task.lower() not in [one.lower() for one in measured]]
