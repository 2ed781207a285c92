"""A source of text without end, whose entropy is known exactly: what no model gets below.

A Markov chain of order two: the next token's chances follow from the two before it, by a network
with random weights that nobody is shown,

    P(c | a, b) = softmax( W tanh(U a + V b) )

so that there is something to learn of every pair, and a larger model can follow the network more
closely. All pairs are few enough to be listed, so everything about the chain is computed and not
estimated: how often each pair comes (it is the chain's stationary distribution), and

    H = Σ P(a, b) H(c | a, b)    nats a token
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import nn

from groundup.train.batch import Batch, DataStream

VOCABULARY = 128
CONTEXT = 128
# Features of the hidden network, how much is told apart by the token before the last, and how
# unlike the chances are: at 0 all tokens would be alike.
_FEATURES, _EARLIER, _SHARPNESS = 256, 0.7, 2.5
_STEPS_AT_ONCE = 32


@dataclass(frozen=True)
class Source:
    """The chances of the next token after every pair, and of every pair."""

    chances: Float[np.ndarray, "pairs tokens"]
    pairs: Float[np.ndarray, " pairs"]

    @classmethod
    def drawn(cls, seed: int) -> Source:
        """A source by chance."""
        rng = np.random.default_rng((seed, 77))
        earlier, last = rng.normal(size=(2, VOCABULARY, _FEATURES))
        hidden = np.tanh(_EARLIER * earlier[:, None] + last[None])
        weights = rng.normal(size=(_FEATURES, VOCABULARY)) / np.sqrt(_FEATURES)
        logits = _SHARPNESS * (hidden.reshape(-1, _FEATURES) @ weights)
        chances = np.exp(logits - logits.max(1, keepdims=True))
        chances /= chances.sum(1, keepdims=True)
        return cls(chances, _stationary(chances))

    def rows(self, count: int, rng: np.random.Generator) -> Int[np.ndarray, "count tokens"]:
        """Rows of CONTEXT + 1 tokens, each from anywhere in the chain."""
        cumulative = self._cumulative
        found = np.empty((count, CONTEXT + 1), np.int64)
        begins = np.searchsorted(np.cumsum(self.pairs), rng.random(count), side="right")
        found[:, 0], found[:, 1] = np.divmod(np.minimum(begins, len(self.pairs) - 1), VOCABULARY)
        for place in range(2, CONTEXT + 1):
            state = found[:, place - 2] * VOCABULARY + found[:, place - 1]
            above = cumulative[state] > rng.random(count)[:, None]
            found[:, place] = above.argmax(1)
        return found

    @cached_property
    def _cumulative(self) -> Float[np.ndarray, "pairs tokens"]:
        sums: Float[np.ndarray, "pairs tokens"] = np.cumsum(self.chances, 1)
        sums[:, -1] = 1.0  # rounding must leave no number above all of them
        return sums

    @cached_property
    def _opening(self) -> Float[np.ndarray, "tokens tokens"]:
        """Chances of a token after one alone, which is all that a row's first target can know."""
        together = self.pairs.reshape(VOCABULARY, VOCABULARY)
        found: Float[np.ndarray, "tokens tokens"] = together / together.sum(1, keepdims=True)
        return found

    @property
    def entropy(self) -> float:
        """Nats a target of a row, of which the first is told by one token and not by two."""
        each = -(self.chances * np.log(self.chances)).sum(1)
        return (self.of_one_token + (CONTEXT - 1) * float(self.pairs @ each)) / CONTEXT

    @property
    def of_one_token(self) -> float:
        """Nats a target for whoever knows the last token alone, which is also a row's first."""
        together = self.pairs.reshape(VOCABULARY, VOCABULARY)
        return -float((together * np.log(self._opening)).sum())

    def nats(self, rows: Int[np.ndarray, "count tokens"]) -> Float[np.ndarray, " count"]:
        """Mean nats a target of each row by the source's own chances: nothing predicts better."""
        states = rows[:, :-2] * VOCABULARY + rows[:, 1:-1]
        later = -np.log(self.chances[states, rows[:, 2:]]).sum(1)
        first = -np.log(self._opening[rows[:, 0], rows[:, 1]])
        nats: Float[np.ndarray, " count"] = (first + later) / CONTEXT
        return nats


def _stationary(chances: Float[np.ndarray, "pairs tokens"]) -> Float[np.ndarray, " pairs"]:
    """How often each pair comes in the long run: what one more step leaves as it is."""
    table = chances.reshape(VOCABULARY, VOCABULARY, VOCABULARY)
    pairs = np.full((VOCABULARY, VOCABULARY), 1 / VOCABULARY**2)
    for _ in range(1_000):
        after = np.einsum("ab,abc->bc", pairs, table)
        if np.abs(after - pairs).sum() < 1e-13:
            break
        pairs = after
    found: Float[np.ndarray, " pairs"] = (pairs / pairs.sum()).ravel()
    return found


def batch(rows: Int[np.ndarray, "count tokens"]) -> Batch:
    """Rows as the model reads them: all of one document, all trained on."""
    ids = torch.from_numpy(rows.astype(np.int64))
    plain = Batch.of(ids[:, :-1].contiguous())
    ones = torch.ones(plain.input_ids.shape)
    positions = plain.position_ids.contiguous()
    return Batch(plain.input_ids, ids[:, 1:].contiguous(), ones, positions, plain.segment_ids)


class SourceStream(DataStream):
    """Batches of the source, a pure function of (seed, step).

    Those of many steps are drawn together, since a chain is drawn token by token.
    """

    def __init__(self, source: Source, rows: int, micro_rows: int, seed: int) -> None:
        self._source, self._rows, self._micro, self._seed = source, rows, micro_rows, seed
        self._drawn: tuple[int, Int[np.ndarray, "count tokens"]] | None = None

    def at(self, step: int, model: nn.Module) -> list[Batch]:
        part, place = divmod(step, _STEPS_AT_ONCE)
        if self._drawn is None or self._drawn[0] != part:
            rng = np.random.default_rng((self._seed, 1, part))
            self._drawn = part, self._source.rows(self._rows * _STEPS_AT_ONCE, rng)
        rows = self._drawn[1][place * self._rows : (place + 1) * self._rows]
        return [batch(rows[at : at + self._micro]) for at in range(0, self._rows, self._micro)]


@torch.no_grad()
def heldout_loss(
    model: Any, loss: Any, source: Source, rows: int, seed: int, device: torch.device
) -> float:
    """The nats a token of a model on this device on fresh rows, as on endlessly many.

    What these rows are harder or easier than the source is known, and taken off.
    """
    fresh = source.rows(rows, np.random.default_rng((seed, 2)))
    total = weight = 0.0
    for at in range(0, rows, 32):
        some = batch(fresh[at : at + 32])
        found = loss(model, some.to(device))
        total, weight = total + float(found.total), weight + float(some.weight)
    return total / weight - float(source.nats(fresh).mean()) + source.entropy
