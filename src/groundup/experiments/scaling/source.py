"""A source of text without end, whose entropy is known exactly: what no model gets below.

Every fact is a key of two symbols and a value that mostly follows from them:

    a b v    a b v    …        (a, b) drawn by Zipf's law,  v = f(a, b), else any value by chance

Some facts are seen all the time and most of them hardly ever, as words are: a larger model has room
for rarer ones, and more text shows more of them. So the loss falls by power laws of both, towards

    H = (H(a) + H(b | a) + H(v | a, b)) / 3    nats a token, all three known
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import nn

from groundup.train.batch import Batch, DataStream

SYMBOLS = 128
"""Of each of three kinds: the first, the second, the value."""
VOCABULARY = 3 * SYMBOLS
CONTEXT = 128
_KEYS = SYMBOLS * SYMBOLS
# The k-th key is drawn as often as 1 / k^this.
_ZIPF = 1.2
# How often a value is the one that follows from its key; else it is any, this one too.
_FAITHFUL = 0.9


@dataclass(frozen=True)
class Source:
    """The chances of all keys and the value of each."""

    cumulative: Float[np.ndarray, " keys"]
    key_at: Int[np.ndarray, " keys"]
    values: Int[np.ndarray, " keys"]
    first: Float[np.ndarray, " symbols"]
    pairs: Float[np.ndarray, "symbols symbols"]

    @classmethod
    def drawn(cls, seed: int) -> Source:
        """A source by chance: which keys are frequent, and what follows from each."""
        rng = np.random.default_rng((seed, 77))
        chances = np.arange(1, _KEYS + 1) ** -_ZIPF
        chances /= chances.sum()
        key_at = rng.permutation(_KEYS)
        by_key = np.empty(_KEYS)
        by_key[key_at] = chances
        pairs = by_key.reshape(SYMBOLS, SYMBOLS)
        values = rng.integers(SYMBOLS, size=_KEYS)
        return cls(np.cumsum(chances), key_at, values, pairs.sum(1), pairs)

    def rows(self, count: int, rng: np.random.Generator) -> Int[np.ndarray, "count tokens"]:
        """Rows of CONTEXT + 1 tokens, each from the beginning of a fact."""
        blocks = -(-(CONTEXT + 1) // 3)
        ranks = np.searchsorted(self.cumulative, rng.random((count, blocks)), side="right")
        keys = self.key_at[np.minimum(ranks, _KEYS - 1)]
        values = self.values[keys]
        strays = rng.random(keys.shape) >= _FAITHFUL
        values = np.where(strays, rng.integers(SYMBOLS, size=keys.shape), values)
        tokens = np.stack([keys // SYMBOLS, SYMBOLS + keys % SYMBOLS, 2 * SYMBOLS + values], 2)
        found: Int[np.ndarray, "count tokens"] = tokens.reshape(count, -1)[:, : CONTEXT + 1]
        return found

    def entropies(self) -> tuple[float, float, float]:
        """H(a), H(b | a) and H(v | a, b) in nats."""
        first = -float((self.first * np.log(self.first)).sum())
        both = -float((self.pairs * np.log(self.pairs)).sum())
        stray = (1 - _FAITHFUL) / SYMBOLS
        right = _FAITHFUL + stray
        value = -(right * log(right) + (SYMBOLS - 1) * stray * log(stray))
        return first, both - first, value

    @property
    def entropy(self) -> float:
        """Nats a token of a row's targets, which begin with the second symbol of a fact."""
        kinds = np.arange(1, CONTEXT + 1) % 3
        return float(np.array(self.entropies())[kinds].mean())

    def nats(self, rows: Int[np.ndarray, "count tokens"]) -> Float[np.ndarray, " count"]:
        """Mean nats a target of each row by the source's own chances: nothing predicts better."""
        of_first = -np.log(self.first)
        of_second = -np.log(self.pairs / self.first[:, None])
        found = np.zeros((len(rows), CONTEXT + 1))
        stray = (1 - _FAITHFUL) / SYMBOLS
        for place in range(1, CONTEXT + 1):
            kind, token = place % 3, rows[:, place] % SYMBOLS
            if kind == 0:
                found[:, place] = of_first[token]
            elif kind == 1:
                found[:, place] = of_second[rows[:, place - 1] % SYMBOLS, token]
            else:
                keys = rows[:, place - 2] % SYMBOLS * SYMBOLS + rows[:, place - 1] % SYMBOLS
                right = self.values[keys] == token
                found[:, place] = -np.log(np.where(right, _FAITHFUL + stray, stray))
        nats: Float[np.ndarray, " count"] = found[:, 1:].mean(1)
        return nats


def batch(rows: Int[np.ndarray, "count tokens"]) -> Batch:
    """Rows as the model reads them: all of one document, all trained on."""
    ids = torch.from_numpy(rows.astype(np.int64))
    plain = Batch.of(ids[:, :-1].contiguous())
    ones = torch.ones(plain.input_ids.shape)
    positions = plain.position_ids.contiguous()
    return Batch(plain.input_ids, ids[:, 1:].contiguous(), ones, positions, plain.segment_ids)


class SourceStream(DataStream):
    """Batches of the source, a pure function of (seed, step)."""

    def __init__(self, source: Source, rows: int, micro_rows: int, seed: int) -> None:
        self._source, self._rows, self._micro, self._seed = source, rows, micro_rows, seed

    def at(self, step: int, model: nn.Module) -> list[Batch]:
        rows = self._source.rows(self._rows, np.random.default_rng((self._seed, 1, step)))
        return [batch(rows[at : at + self._micro]) for at in range(0, self._rows, self._micro)]


@torch.no_grad()
def heldout_loss(model: Any, loss: Any, source: Source, rows: int, seed: int) -> float:
    """The model's nats a token on fresh rows, as they would be on endlessly many.

    What these rows are harder or easier than the source is known, and taken off.
    """
    fresh = source.rows(rows, np.random.default_rng((seed, 2)))
    total = weight = 0.0
    for at in range(0, rows, 32):
        some = batch(fresh[at : at + 32])
        found = loss(model, some)
        total, weight = total + float(found.total), weight + float(some.weight)
    return total / weight - float(source.nats(fresh).mean()) + source.entropy
