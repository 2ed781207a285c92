"""Bytes and byte-pair encoding."""

from itertools import pairwise


def byte_ids(text: str) -> list[int]:
    """The bytes of a text in UTF-8, each from 0 to 255."""
    return list(text.encode("utf-8"))


def count_pairs(words: list[list[int]], weights: list[int]) -> dict[tuple[int, int], int]:
    """How often each pair of neighbors occurs, where word i occurs weights[i] times."""
    counts: dict[tuple[int, int], int] = {}
    for word, weight in zip(words, weights, strict=True):
        for pair in pairwise(word):
            counts[pair] = counts.get(pair, 0) + weight
    return counts


def merge(word: list[int], pair: tuple[int, int], new: int) -> list[int]:
    """A new list with `new` in place of each `pair`, from left to right."""
    merged = []
    place = 0
    while place < len(word):
        # At the last id the slice has only one id, which is not a pair.
        if tuple(word[place : place + 2]) == pair:
            merged.append(new)
            place += 2
        else:
            merged.append(word[place])
            place += 1
    return merged
