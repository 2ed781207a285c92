"""3.1 Bytes and byte-pair encoding

The lesson: groundup learn 3.1        Check it: groundup learn check 3.1
"""


def byte_ids(text: str) -> list[int]:
    """The bytes of a text in UTF-8, each from 0 to 255."""
    raise NotImplementedError


def count_pairs(words: list[list[int]], weights: list[int]) -> dict[tuple[int, int], int]:
    """How often each pair of neighbors occurs, where word i occurs weights[i] times."""
    raise NotImplementedError


def merge(word: list[int], pair: tuple[int, int], new: int) -> list[int]:
    """A new list with `new` in place of each `pair`, from left to right."""
    raise NotImplementedError
