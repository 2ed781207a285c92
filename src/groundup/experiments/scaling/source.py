"""An endless source of text whose entropy, the lower bound of any model's loss, is known exactly.

A Markov chain of order two: a network with hidden random weights computes the next token's
probabilities from the two before it,

    P(c | a, b) = softmax( W tanh(U a + V b) )

so that every pair has something to learn, and a larger model can approximate the network better.
All pairs can be listed, so everything about the chain is computed, not estimated: the frequency of
each pair (the chain's stationary distribution), and

    H = Σ P(a, b) H(c | a, b)    nats per token
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
# Features of the hidden network, the influence of the token before the last, and the sharpness of
# the distributions: at 0 they would be uniform.
_FEATURES, _EARLIER, _SHARPNESS = 256, 0.7, 2.5
_STEPS_AT_ONCE = 32


@dataclass(frozen=True)
class Source:
    """The probabilities of the next token after every pair, and of every pair."""

    chances: Float[np.ndarray, "pairs tokens"]
    pairs: Float[np.ndarray, " pairs"]

    @classmethod
    def drawn(cls, seed: int) -> Source:
        """A random source."""
        rng = np.random.default_rng((seed, 77))
        earlier, last = rng.normal(size=(2, VOCABULARY, _FEATURES))
        hidden = np.tanh(_EARLIER * earlier[:, None] + last[None])
        weights = rng.normal(size=(_FEATURES, VOCABULARY)) / np.sqrt(_FEATURES)
        logits = _SHARPNESS * (hidden.reshape(-1, _FEATURES) @ weights)
        chances = np.exp(logits - logits.max(1, keepdims=True))
        chances /= chances.sum(1, keepdims=True)
        return cls(chances, _stationary(chances))

    def rows(self, count: int, rng: np.random.Generator) -> Int[np.ndarray, "count tokens"]:
        """Rows of CONTEXT + 1 tokens, each from a random place in the chain."""
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
        sums[:, -1] = 1.0  # despite rounding, a random number must not exceed the last sum
        return sums

    @cached_property
    def _opening(self) -> Float[np.ndarray, "tokens tokens"]:
        """Probabilities of a token after one token, the only context of a row's first target."""
        together = self.pairs.reshape(VOCABULARY, VOCABULARY)
        found: Float[np.ndarray, "tokens tokens"] = together / together.sum(1, keepdims=True)
        return found

    @property
    def entropy(self) -> float:
        """Nats per target of a row, whose first target has one token of context instead of two."""
        each = -(self.chances * np.log(self.chances)).sum(1)
        return (self.of_one_token + (CONTEXT - 1) * float(self.pairs @ each)) / CONTEXT

    @property
    def of_one_token(self) -> float:
        """Nats per target if only the last token is known, as for a row's first target."""
        together = self.pairs.reshape(VOCABULARY, VOCABULARY)
        return -float((together * np.log(self._opening)).sum())

    def nats(self, rows: Int[np.ndarray, "count tokens"]) -> Float[np.ndarray, " count"]:
        """Mean nats per target of each row by the source's own probabilities, the best possible."""
        states = rows[:, :-2] * VOCABULARY + rows[:, 1:-1]
        later = -np.log(self.chances[states, rows[:, 2:]]).sum(1)
        first = -np.log(self._opening[rows[:, 0], rows[:, 1]])
        nats: Float[np.ndarray, " count"] = (first + later) / CONTEXT
        return nats


def _stationary(chances: Float[np.ndarray, "pairs tokens"]) -> Float[np.ndarray, " pairs"]:
    """The stationary distribution of pairs, which one more step does not change."""
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
    """Rows as the model reads them: each one document, with all tokens trained on."""
    ids = torch.from_numpy(rows.astype(np.int64))
    plain = Batch.of(ids[:, :-1].contiguous())
    ones = torch.ones(plain.input_ids.shape)
    positions = plain.position_ids.contiguous()
    return Batch(plain.input_ids, ids[:, 1:].contiguous(), ones, positions, plain.segment_ids)


class SourceStream(DataStream):
    """Batches of the source, a pure function of (seed, step).

    The rows of many steps are sampled together, since a chain is sampled token by token.
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
    """A model's nats per token on new rows, corrected to the source's expectation.

    The difference between the source's own nats on these rows and its entropy is subtracted.
    """
    fresh = source.rows(rows, np.random.default_rng((seed, 2)))
    total = weight = 0.0
    for at in range(0, rows, 32):
        some = batch(fresh[at : at + 32])
        found = loss(model, some.to(device))
        total, weight = total + float(found.total), weight + float(some.weight)
    return total / weight - float(source.nats(fresh).mean()) + source.entropy
