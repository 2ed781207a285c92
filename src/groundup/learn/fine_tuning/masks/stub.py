"""4.1 Which tokens are trained

The lesson: groundup learn 4.1        Check it: groundup learn check 4.1
"""


def assistant_mask(ids: list[int], start: int, end: int, header: list[int]) -> list[bool]:
    """True at the assistant's words and at the token that ends its turn."""
    raise NotImplementedError


def shifted(ids: list[int], mask: list[bool]) -> tuple[list[int], list[int], list[float]]:
    """Inputs, targets and weights, each shorter than the ids by one."""
    raise NotImplementedError
