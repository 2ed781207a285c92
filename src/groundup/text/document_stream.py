"""From documents to batches: the input of pre-training.

The stream is a pure function of (seed, step): an epoch's order comes from a generator seeded by
(seed, epoch), so any step can be computed without the steps before it.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping

import numpy as np
from jaxtyping import Int, Integer
from torch import nn

from groundup.errors import UserError
from groundup.text.batches import Row, batch_of
from groundup.text.mixing import Group, check_shares
from groundup.text.shards import Shard
from groundup.train.batch import Batch, DataStream


class DocumentStream(DataStream):
    """Pre-training rows: documents in a new order each epoch, concatenated, cut at `context`.

    A document's first token is the end-of-text token, so the end of each document is trained, too:
    as the first token of the next one. A row that begins inside a document sees nothing of its
    earlier part.

    `mixture` gives groups of sources their shares of the rows at the first step and at the last of
    `steps`, with linear interpolation between them (without `steps`, their mean throughout). Each
    group has rows and epochs of its own, and so have the remaining documents, which get the
    remaining share. If no documents remain, the last group gets it.
    """

    def __init__(
        self,
        shard: Shard,
        *,
        context: int,
        rows: int,
        micro_rows: int,
        seed: int,
        mixture: Mapping[Group, tuple[float, float]] = {},
        steps: int | None = None,
    ) -> None:
        self.rows, self.micro_rows = rows, min(micro_rows, rows)
        if len(shard.tokens) - 1 < context:
            raise UserError(
                f"the training text has {len(shard.tokens)} tokens, fewer than one row of "
                f"context={context}; give more text or a smaller context"
            )
        check_shares(shard.sources, mixture)
        self._until = steps * rows if steps else None
        rest = np.ones(len(shard.sources), bool)
        groups = []
        for group, share in mixture.items():
            members = np.isin(np.array(shard.sources), group) & rest
            part = _Rows(shard, np.flatnonzero(members), context, seed)
            if part.per_epoch:  # groups that cannot fill a row stay with the others
                groups.append((group, members, part, share))
                rest &= ~members
        others = _Rows(shard, np.flatnonzero(rest), context, seed)
        if groups and not others.per_epoch:
            _, members, *_ = groups.pop()
            others = _Rows(shard, np.flatnonzero(rest | members), context, seed)
        self._groups = [(), *(group for group, *_ in groups)]
        self._parts = [others, *(part for *_, part, _ in groups)]
        self._shares = [share for *_, share in groups]
        given = sum(sum(share) / 2 for share in self._shares)
        if given >= 1:
            raise UserError(
                "the shares of the mixture leave no rows to the other sources; give smaller shares"
            )
        self.rows_per_epoch = round(others.per_epoch / (1 - given))
        # The numbers of rows of each part that are read before a step.
        self._read = (0, [0 for _ in self._parts])

    def passes(self, steps: int) -> dict[Group, float]:
        """Returns how often `steps` steps read each group's documents; () is the rest."""
        read = self._read_before(steps)
        times = [done / part.per_epoch for done, part in zip(read, self._parts, strict=True)]
        return dict(zip(self._groups, times, strict=True))

    def at(self, step: int, model: nn.Module) -> list[Batch]:
        before, after = self._read_before(step), self._read_before(step + 1)
        rows = [
            part[i]
            for part, first, end in zip(self._parts, before, after, strict=True)
            for i in range(first, end)
        ]
        return [
            batch_of(rows[i : i + self.micro_rows]) for i in range(0, len(rows), self.micro_rows)
        ]

    def _read_before(self, step: int) -> list[int]:
        """Returns the number of rows of each part that are read before a step."""
        at, read = self._read if self._read[0] <= step else (0, [0 for _ in self._parts])
        for one in range(at, step):
            left, counts = self.rows, []
            for share, done in zip(self._shares, read[1:], strict=True):
                wanted = self._wanted(share, (one + 1) * self.rows) - done
                counts.append(min(max(wanted, 0), left))
                left -= counts[-1]
            read = [done + count for done, count in zip(read, [left, *counts], strict=True)]
        self._read = (step, read)
        return read

    def _wanted(self, share: tuple[float, float], rows: int) -> int:
        """Returns the number of a group's rows among the first `rows`: its integrated share."""
        begin, end = share
        if self._until is None:
            return round(rows * (begin + end) / 2)
        moving = min(rows, self._until)
        drift = (end - begin) * moving**2 / (2 * self._until)
        return round(begin * moving + drift + end * (rows - moving))


class _Rows:
    """Rows of some of a shard's documents, epoch after epoch, each in a new order."""

    def __init__(
        self, shard: Shard, documents: Int[np.ndarray, " documents"], context: int, seed: int
    ) -> None:
        self._shard, self._documents = shard, documents
        self._context, self._seed = context, seed
        tokens = int(np.diff(shard.offsets)[documents].sum())
        self.per_epoch = max(0, (tokens - 1) // context)
        self._epoch = functools.lru_cache(maxsize=2)(self._epoch_rows)

    def _epoch_rows(
        self, epoch: int
    ) -> tuple[Integer[np.ndarray, " tokens"], Int[np.ndarray, " rows"]]:
        """All tokens in this epoch's order, and the order of its rows."""
        generator = np.random.default_rng((self._seed, epoch))
        offsets = self._shard.offsets
        order = self._documents[generator.permutation(len(self._documents))]
        tokens = np.concatenate([self._shard.tokens[offsets[d] : offsets[d + 1]] for d in order])
        # Rows are shuffled, too, because one long speech could otherwise fill a whole batch.
        return tokens, generator.permutation(self.per_epoch)

    def __getitem__(self, index: int) -> Row:
        epoch, place = divmod(index, self.per_epoch)
        tokens, order = self._epoch(epoch)
        start = int(order[place]) * self._context
        ids = tokens[start : start + self._context + 1].astype(np.int64)
        weights = np.ones(self._context, np.float32)
        return Row(ids[:-1], ids[1:], weights, np.cumsum(ids[:-1] == self._shard.tokens[0]))
