"""From documents to batches: what pre-training reads.

The stream is a pure function of (seed, step): an epoch's order comes from a generator seeded by
(seed, epoch), so any step can be made again without the steps before it.
"""

from __future__ import annotations

import functools

import numpy as np
from jaxtyping import Int, Integer
from torch import nn

from groundup.errors import UserError
from groundup.text.batches import Row, batch_of
from groundup.text.rows import is_synthetic
from groundup.text.shards import Shard
from groundup.train.batch import Batch, DataStream


class DocumentStream(DataStream):
    """Pre-training rows: documents in a new order each epoch, laid end to end, cut at `context`.

    A document's first token is 0, so the end of each document is trained too: as the 0 that
    follows it. A row that begins inside a document sees nothing of what came before it.

    Where the shard has both documents of the small world and others, each have rows and epochs of
    their own, and `world` is the share of rows that are the world's: at the first step and, after
    moving evenly, at the last of `steps` (without `steps`, the mean of both all along).
    """

    def __init__(
        self,
        shard: Shard,
        *,
        context: int,
        rows: int,
        micro_rows: int,
        seed: int,
        world: tuple[float, float] = (0.0, 0.0),
        steps: int | None = None,
    ) -> None:
        self.rows, self.micro_rows = rows, min(micro_rows, rows)
        if len(shard.tokens) - 1 < context:
            raise UserError(
                f"the training text has {len(shard.tokens)} tokens, fewer than one row of "
                f"context={context}; give more text or a smaller context"
            )
        of_world = np.array([is_synthetic(source) for source in shard.sources], bool)
        parts = [_Rows(shard, np.flatnonzero(at), context, seed) for at in (~of_world, of_world)]
        self._others, self._world = parts
        self._shares, self._until = world, steps * rows if steps else None
        if not all(part.per_epoch for part in parts):
            # Only one of both, or too little of one to fill a row: there is nothing to mix.
            self._others = _Rows(shard, np.arange(len(of_world)), context, seed)
            self._shares = (0.0, 0.0)
        self.rows_per_epoch = round(self._others.per_epoch / (1 - sum(self._shares) / 2))

    def at(self, step: int, model: nn.Module) -> list[Batch]:
        first, end = step * self.rows, (step + 1) * self.rows
        world = range(self._of_world(first), self._of_world(end))
        others = range(first - world.start, end - world.stop)
        rows = [self._others[i] for i in others] + [self._world[i] for i in world]
        return [
            batch_of(rows[i : i + self.micro_rows]) for i in range(0, len(rows), self.micro_rows)
        ]

    def _of_world(self, rows: int) -> int:
        """How many of the first rows are the world's: the integral of its share."""
        begin, end = self._shares
        if self._until is None:
            return round(rows * (begin + end) / 2)
        moving = min(rows, self._until)
        drift = (end - begin) * moving**2 / (2 * self._until)
        return round(begin * moving + drift + end * (rows - moving))


class _Rows:
    """Rows of some of a shard's documents, epoch after epoch, each in an order of its own."""

    def __init__(
        self, shard: Shard, documents: Int[np.ndarray, " documents"], context: int, seed: int
    ) -> None:
        self._shard, self._documents = shard, documents
        self._context, self._seed = context, seed
        tokens = int(np.diff(shard.offsets)[documents].sum())
        self.per_epoch = max(0, (tokens - 1) // context)
        self._epoch = functools.lru_cache(maxsize=2)(self._laid_out)

    def _laid_out(
        self, epoch: int
    ) -> tuple[Integer[np.ndarray, " tokens"], Int[np.ndarray, " rows"]]:
        """All tokens in this epoch's order, and the order in which rows are taken."""
        generator = np.random.default_rng((self._seed, epoch))
        offsets = self._shard.offsets
        order = self._documents[generator.permutation(len(self._documents))]
        tokens = np.concatenate([self._shard.tokens[offsets[d] : offsets[d + 1]] for d in order])
        # Rows are shuffled too, or one long speech would fill a whole batch.
        return tokens, generator.permutation(self.per_epoch)

    def __getitem__(self, index: int) -> Row:
        epoch, place = divmod(index, self.per_epoch)
        tokens, order = self._epoch(epoch)
        start = int(order[place]) * self._context
        ids = tokens[start : start + self._context + 1].astype(np.int64)
        weights = np.ones(self._context, np.float32)
        return Row(ids[:-1], ids[1:], weights, np.cumsum(ids[:-1] == 0))
