"""Grades byte-pair encoding by `groundup.text.bpe`."""

import random
from collections.abc import Iterator
from types import ModuleType

from groundup.learn.exercise import Trial, calls
from groundup.learn.transformers.bpe.seam import swap
from groundup.text import bpe
from groundup.text.pretokens import CHAR_TO_BYTE, draw_bytes

_TEXT = "the hug of the pug, the hugs of the pugs; hum hum hum, aaaa banana"


def trials(seed: int) -> Iterator[Trial]:
    dice = random.Random(seed)
    for text in ("sea", "é", "", "naïve 🐚", " Sea\r\n", "e\u0301"):
        expected = [CHAR_TO_BYTE[char] for char in draw_bytes(text)]
        yield Trial(
            f"byte_ids({text!r})",
            calls("byte_ids", text),
            expected,
            {"text": text},
        )
    pairs: list[tuple[list[list[int]], list[int]]] = [
        ([[1, 2, 3], [2, 1]], [1, 1]),
        ([[1, 2], [2, 3]], [3, 5]),
        ([[1, 2, 1, 2]], [1]),
        ([[1, 1, 1], [7]], [1, 4]),
        ([[1, 2], [3, 1], [1, 2]], [3, 1, 4]),
        ([], []),
    ]
    pairs.append(
        (
            [[dice.randrange(1, 4) for _ in range(dice.randrange(1, 6))] for _ in range(6)],
            [dice.randrange(1, 9) for _ in range(6)],
        )
    )
    for words, weights in pairs:
        yield Trial(
            f"count_pairs of {len(words)} words",
            calls("count_pairs", words, weights),
            _counted(words, weights),
            {"words": words, "weights": weights},
        )
    merges: list[tuple[list[int], tuple[int, int]]] = [
        ([5, 1, 2, 6], (1, 2)),
        ([1, 2, 1, 2], (1, 2)),
        ([1, 2, 1, 2, 1, 2, 3], (1, 2)),
        ([1, 1, 1], (1, 1)),
        ([2, 1, 2, 3, 1], (3, 2)),
        ([], (1, 2)),
        ([11, 2, 1, 23], (1, 2)),  # as a string they contain "1 2"
        ([dice.randrange(1, 4) for _ in range(12)], (1, 1)),
        ([dice.randrange(1, 4) for _ in range(12)], (2, 1)),
    ]
    for word, pair in merges:
        merged = bpe.joined("".join(map(chr, word)), chr(pair[0]) + chr(pair[1]), chr(9))
        yield Trial(
            f"merge of {pair} in {word}",
            calls("merge", word, pair, 9),
            [ord(char) for char in merged],
            {"word": word, "pair": pair, "new": 9},
        )
    yield Trial(
        "the merges that a tokenizer learns with your functions",
        _learned,
        [list(pair) for pair in bpe.train_bpe([_TEXT], 275).merges],
        {"text": _TEXT},
    )


def _counted(words: list[list[int]], weights: list[int]) -> dict[tuple[int, ...], int]:
    counts, _ = bpe._count_pairs(["".join(map(chr, word)) for word in words], weights)
    return {tuple(map(ord, pair)): count for pair, count in sorted(counts.items())}


def _learned(part: ModuleType) -> list[list[str]]:
    with swap(part):
        return [list(pair) for pair in bpe.train_bpe([_TEXT], 275).merges]
