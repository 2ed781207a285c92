"""What goes wrong on a card."""

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
    """The numbers are shares still. In percent they are a hundred times as large."""
    return f"{value:.1f} %", f"{low:.1f} % to {high:.1f} %"


def no_decimal(value: float, low: float, high: float) -> tuple[str, str]:
    """One decimal is asked for: `.1f`."""
    return f"{100 * value:.0f} %", f"{100 * low:.0f} % to {100 * high:.0f} %"


def two_decimals(value: float, low: float, high: float) -> tuple[str, str]:
    """One decimal is asked for, and more of them pretend to be sure: `.1f`."""
    return f"{100 * value:.2f} %", f"{100 * low:.2f} % to {100 * high:.2f} %"


def no_blank(value: float, low: float, high: float) -> tuple[str, str]:
    """A blank stands between number and sign: "80.0 %". (Python's own `%` format writes none.)"""
    return f"{value:.1%}", f"{low:.1%} to {high:.1%}"


def plus_or_minus(value: float, low: float, high: float) -> tuple[str, str]:
    """The interval is written by its ends. It is not as wide to both sides: near 0 and 1 a share
    has more room on one of them."""
    return f"{100 * value:.1f} %", f"± {100 * (high - low) / 2:.1f} %"


def one_text(value: float, low: float, high: float) -> str:
    """Two texts are asked for, the value and the interval: they go into columns of their own."""
    return f"{100 * value:.1f} % ({100 * low:.1f} % to {100 * high:.1f} %)"


def middle_decides(low: float, high: float, chance: float) -> str:
    """The middle is compared with chance. The interval's ends decide: chance may lie within."""
    return "above chance" if (low + high) / 2 > chance else "below chance"


def touching_is_above(low: float, high: float, chance: float) -> str:
    """An interval that touches the line holds it: above means low > chance, not low >= chance."""
    if low >= chance:
        return "above chance"
    return "below chance" if high <= chance else "cannot be told from chance"


def turned_around(low: float, high: float, chance: float) -> str:
    """Above and below are exchanged: above chance is where the *low* end is above it."""
    if high < chance:
        return "above chance"
    return "below chance" if low > chance else "cannot be told from chance"


def only_above(low: float, high: float, chance: float) -> str:
    """Below chance is a finding too: what does surely worse than guessing does something."""
    return "above chance" if low > chance else "cannot be told from chance"


def one_end_is_enough(low: float, high: float, chance: float) -> str:
    """One end on that side is not enough: *all* of the interval must be there, so that above is
    asked of the low end and below of the high end."""
    if high > chance:
        return "above chance"
    return "below chance" if low < chance else "cannot be told from chance"


def no_difference(low: float, high: float, chance: float) -> str:
    """Where chance lies within, this says that there is no difference. Nobody knows that: it cannot
    be told from chance."""
    if low > chance:
        return "above chance"
    return "below chance" if high < chance else "no difference from chance"


def half_is_chance(low: float, high: float, chance: float) -> str:
    """The ends are compared with one half. Chance is what is given: among four answers it is a
    quarter."""
    if low > 0.5:
        return "above chance"
    return "below chance" if high < 0.5 else "cannot be told from chance"


def what_was_measured(tasks: list[str], measured: list[str]) -> list[str]:
    """These are the tasks that *were* measured."""
    return [task for task in tasks if task in measured]


def without_order(tasks: list[str], measured: list[str]) -> list[str]:
    """A set has no order, and sorting makes another one. Keep the order of `tasks`."""
    return sorted(set(tasks) - set(measured))


def how_many(tasks: list[str], measured: list[str]) -> int:
    """This counts them; their names are asked for."""
    return len(set(tasks) - set(measured))


def measured_not_known(tasks: list[str], measured: list[str]) -> list[str]:
    """What was measured and is no task of the list stands here too. Only those of `tasks` are
    asked for."""
    left = [task for task in tasks if task not in measured]
    return left + [one for one in measured if one not in tasks]


def part_of_a_name(tasks: list[str], measured: list[str]) -> list[str]:
    """The names are looked for in one text, where a name is found in a longer one, as bbq is in
    bbq-age. Ask whether it is in the *list*."""
    return [task for task in tasks if task not in " ".join(measured)]


def in_any_case(tasks: list[str], measured: list[str]) -> list[str]:
    """Capital and small letters are taken as the same. Names are compared as they are."""
    return [task for task in tasks if task.lower() not in [one.lower() for one in measured]]
