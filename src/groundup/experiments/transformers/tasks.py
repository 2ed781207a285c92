"""Tasks of random tokens, which can be predicted only from the context.

    recall      k v k v … k v | k k … k        the answer to each queried key is its value
    copying     a b c … <copy> | a b c …       a string of random letters is repeated
    repetition  … A B C … | A B C …            a block of random tokens occurs a second time

Recall is the multi-query associative recall of Arora et al. 2023 (Zoology: Measuring and Improving
Recall in Efficient Language Models, section 3.2), copying that of Jelassi et al. 2024 (Repeat After
Me, section 3.1), and repetition the task on which Olsson et al. 2022 (In-context Learning and
Induction Heads) measure induction. Only predictable tokens are trained on and measured: all other
targets have weight 0.

A stream makes the batch of a step from (seed, step) alone; tests are batches of another seed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Int
from torch import nn

from groundup.train.batch import Batch, DataStream

# (rng, rows) -> a batch; a task of one length or of random ones.
MakeBatch = Callable[[np.random.Generator, int], Batch]
Ids = Int[np.ndarray, "rows time"]
# The token after the last letter of a copied string.
END = 1
# NumPy reads a seed as 32-bit words. Those of training, (seed, step), have at most three, so five
# words are always another seed; 2**40 would be (0, 256), a step of training.
TEST_SEED = (0, 0, 0, 0, 1)


class TaskStream(DataStream):
    """Batches of a task, each a pure function of (seed, step)."""

    def __init__(self, make: MakeBatch, rows: int, seed: int) -> None:
        self._make, self._rows, self._seed = make, rows, seed

    def at(self, step: int, model: nn.Module) -> list[Batch]:
        return [self._make(np.random.default_rng((self._seed, step)), self._rows)]


def test_batch(make: MakeBatch, rows: int) -> Batch:
    """Rows that training never sees, the same for every model."""
    return make(np.random.default_rng(TEST_SEED), rows)


def weighted(ids: Ids, targets: Ids, weights: Ids) -> Batch:
    """A batch of rows, each one sequence."""
    plain = Batch.of(torch.from_numpy(ids))
    return replace(
        plain,
        targets=torch.from_numpy(targets),
        weights=torch.from_numpy(weights.astype(np.float32)),
    )


# Recall.


@dataclass(frozen=True)
class Recall:
    """Pairs of a key and a value, and then every key again in another order.

    Keys are the lower half of the vocabulary and values the upper one. Each step has one of the
    numbers of `pairs`, and the same number of tokens as rows with the most pairs.
    """

    vocab_size: int
    pairs: Sequence[int]

    @property
    def context(self) -> int:
        return 3 * max(self.pairs)

    def __call__(self, rng: np.random.Generator, rows: int) -> Batch:
        pairs = int(rng.choice(np.array(self.pairs)))
        return self.batch(rng, rows * max(self.pairs) // pairs, pairs)

    def batch(self, rng: np.random.Generator, rows: int, pairs: int) -> Batch:
        """Rows of `pairs` pairs."""
        half = self.vocab_size // 2
        # The indices of the smallest random numbers are a sample without replacement.
        keys = rng.random((rows, half)).argpartition(pairs, axis=1)[:, :pairs]
        values = half + rng.integers(half, size=(rows, pairs))
        order = rng.random((rows, pairs)).argsort(axis=1)
        told = np.stack((keys, values), axis=2).reshape(rows, -1)
        ids = np.concatenate((told, np.take_along_axis(keys, order, axis=1)), axis=1)
        targets, weights = np.zeros_like(ids), np.zeros_like(ids)
        targets[:, 2 * pairs :] = np.take_along_axis(values, order, axis=1)
        weights[:, 2 * pairs :] = 1
        return weighted(ids, targets, weights)


# Copying.


@dataclass(frozen=True)
class Copying:
    """A string of random letters, a copy token, the string again, and an end token.

    Token 0 starts the copy, token 1 (`END`) ends it. Strings have from `shortest` to `longest`
    letters, uniformly distributed. A row of `context` tokens gets strings as long as the longest
    would fit, and they never see each other.
    """

    letters: int
    shortest: int
    longest: int
    context: int

    def __call__(self, rng: np.random.Generator, rows: int) -> Batch:
        shape = (rows, self.context)
        ids, targets, weights, places = (np.zeros(shape, np.int64) for _ in range(4))
        segments, segment = np.full(shape, -1), 0
        for row in range(rows):
            start = 0
            # Whether another string is added does not depend on its length: dropping strings that
            # do not fit would favor short ones.
            while start + 2 * self.longest + 1 <= self.context:
                length = int(rng.integers(self.shortest, self.longest + 1))
                end = start + 2 * length + 1
                here = slice(start, end)
                ids[row, here], targets[row, here] = self._said(rng, length)
                weights[row, start + length : end] = 1
                places[row, here], segments[row, here] = np.arange(2 * length + 1), segment
                start, segment = end, segment + 1
        return Batch(
            torch.from_numpy(ids),
            torch.from_numpy(targets),
            torch.from_numpy(weights.astype(np.float32)),
            torch.from_numpy(places),
            torch.from_numpy(segments),
        )

    def _said(
        self, rng: np.random.Generator, length: int
    ) -> tuple[Int[np.ndarray, " time"], Int[np.ndarray, " time"]]:
        string = 2 + rng.integers(self.letters, size=length)
        whole = np.concatenate((string, [0], string, [END]))
        return whole[:-1], whole[1:]


# Repetition.


@dataclass(frozen=True)
class Repetition:
    """Blocks of random tokens, each occurring twice, one pair after the other.

    Each row draws a block length from `shortest` to `longest`: with a fixed length, a head could
    find the answer by counting positions, and one layer would suffice. `weights` are 1 where the
    second of two blocks is predictable, from its second token on.
    """

    vocab_size: int
    shortest: int
    longest: int
    context: int

    def __call__(self, rng: np.random.Generator, rows: int) -> Batch:
        return self.parts(rng, rows)[0]

    def parts(self, rng: np.random.Generator, rows: int) -> tuple[Batch, Int[np.ndarray, " rows"]]:
        """A batch, and each row's block length."""
        lengths = rng.integers(self.shortest, self.longest + 1, size=rows)
        places = np.arange(self.context + 1)
        # The position in the first of the two blocks where each token was drawn.
        within = places[None] % (2 * lengths[:, None])
        first = places[None] - np.where(within >= lengths[:, None], lengths[:, None], 0)
        drawn = rng.integers(self.vocab_size, size=(rows, self.context + 1))
        ids = np.take_along_axis(drawn, first, axis=1)
        known = within > lengths[:, None]
        return weighted(ids[:, :-1].copy(), ids[:, 1:].copy(), known[:, 1:].astype(int)), lengths
