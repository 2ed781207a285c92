"""Puts the learner's byte-pair encoding into the training of tokenizers."""

from contextlib import AbstractContextManager
from types import ModuleType

from groundup.learn.plain import all_replaced
from groundup.text import bpe
from groundup.text.tokenizer import Tokenizer

USED_BY = "the training of tokenizers: your functions count and merge every pair"


def swap(part: ModuleType) -> AbstractContextManager[None]:
    """The product's words are strings of chr(id); the learner's are lists of ids."""
    places_of = bpe._count_pairs

    def count_pairs(
        words: list[str], weights: list[int]
    ) -> tuple[dict[str, int], dict[str, set[int]]]:
        found = part.count_pairs([_ids(word) for word in words], weights)
        _, where = places_of(words, weights)
        return {chr(a) + chr(b): count for (a, b), count in found.items()}, where

    def joined(word: str, pair: str, merged: str) -> str:
        a, b = _ids(pair)
        return "".join(map(chr, part.merge(_ids(word), (a, b), ord(merged))))

    return all_replaced((bpe, "_count_pairs", count_pairs), (bpe, "joined", joined))


def _ids(word: str) -> list[int]:
    return [ord(char) for char in word]


def try_it() -> list[float]:
    """The ids of a text from a tokenizer that was trained on it."""
    text = "the hug of the pug, the hugs of the pugs; hum hum hum, aaaa banana"
    return [float(id) for id in Tokenizer.from_bpe(bpe.train_bpe([text], 280)).encode(text)]
