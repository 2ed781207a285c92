"""5.10 Writing a model card

The lesson: groundup learn 5.10        Check it: groundup learn check 5.10
"""


def shown(value: float, low: float, high: float) -> tuple[str, str]:
    """A share and its interval as strings: ("80.0 %", "49.0 % to 94.3 %")."""
    raise NotImplementedError


def says(low: float, high: float, chance: float) -> str:
    """ "above chance", "below chance" or "not significant"."""
    raise NotImplementedError


def missing(tasks: list[str], measured: list[str]) -> list[str]:
    """The tasks that were not measured, in the order of `tasks`."""
    raise NotImplementedError
