"""Which tokens of a chat are trained."""


def assistant_mask(ids: list[int], start: int, end: int, header: list[int]) -> list[bool]:
    """True at the assistant's words and at the token that ends its turn."""
    raise NotImplementedError


def shifted(ids: list[int], mask: list[bool]) -> tuple[list[int], list[int], list[float]]:
    """Inputs, targets and weights, each one shorter than the ids."""
    raise NotImplementedError
