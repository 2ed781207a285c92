"""From tokens to batches: rows of one length, filled side by side, never seeing each other.

Both streams are pure functions of (seed, step): an epoch's order comes from a generator seeded by
(seed, epoch), so any step can be made again without the steps before it.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Int, Integer
from torch import nn

from groundup.errors import UserError
from groundup.text.corpus import Shard
from groundup.text.packs import is_synthetic
from groundup.train.batch import Batch, DataStream

# Rows left open while packing: with eight, about 2 % of a row stays empty.
_OPEN_ROWS = 8
_PADDING = -1


@dataclass(frozen=True)
class Marked:
    """A tokenised conversation: `trained[i]` says whether token i is the assistant's."""

    ids: Sequence[int]
    trained: Sequence[bool]

    @property
    def inputs(self) -> int:
        """How many positions of a row it takes: the last token is a target only."""
        return len(self.ids) - 1


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
        return [_batch(rows[i : i + self.micro_rows]) for i in range(0, len(rows), self.micro_rows)]

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

    def __getitem__(self, index: int) -> _Row:
        epoch, place = divmod(index, self.per_epoch)
        tokens, order = self._epoch(epoch)
        start = int(order[place]) * self._context
        ids = tokens[start : start + self._context + 1].astype(np.int64)
        weights = np.ones(self._context, np.float32)
        return _Row(ids[:-1], ids[1:], weights, np.cumsum(ids[:-1] == 0))


class ConversationStream(DataStream):
    """Fine-tuning rows: whole conversations packed side by side, trained where `trained` says.

    What is not the assistant's has `prompt_weight`. With `chained` above 0 that share of them goes
    on from the conversation before, as long as both fit: in a long chat what is asked has often
    nothing to do with what was said, and that must be learned.

    With `balance` above 0, small sources are heard more often than they are large, and with a
    `world` share that share of the conversations is the world's (see `balanced`).
    """

    def __init__(
        self,
        conversations: Sequence[Marked],
        *,
        sources: Sequence[str] = (),
        balance: float = 0.0,
        world: float | None = None,
        prompt_weight: float = 0.0,
        chained: float = 0.0,
        context: int,
        rows: int,
        micro_rows: int,
        seed: int,
    ) -> None:
        self.conversations = [cut_to(c, context) for c in conversations]
        self.sources, self.balance = sources or [""] * len(conversations), balance
        self.world, self.prompt_weight, self.chained = world, prompt_weight, chained
        self.context, self.seed = context, seed
        self.rows, self.micro_rows = rows, min(micro_rows, rows)
        if not any(any(c.trained[1:]) for c in self.conversations):
            raise UserError(
                "no conversation has an assistant's turn to train on within "
                f"context={context} tokens; give some, or a larger context"
            )
        self._epoch = functools.lru_cache(maxsize=2)(self._packed)
        # Every epoch has as many rows as the first, so that a step knows its epoch at once.
        self.rows_per_epoch = len(self._epoch(0))

    def at(self, step: int, model: nn.Module) -> list[Batch]:
        wanted = range(step * self.rows, (step + 1) * self.rows)
        rows = []
        for index in wanted:
            epoch, place = divmod(index, self.rows_per_epoch)
            packed = self._epoch(epoch)
            rows.append(self._row(packed[place % len(packed)]))
        return [_batch(rows[i : i + self.micro_rows]) for i in range(0, len(rows), self.micro_rows)]

    def _packed(self, epoch: int) -> list[list[list[int]]]:
        """Rows of chains of conversations."""
        generator = np.random.default_rng((self.seed, epoch))
        order = balanced(self.sources, self.balance, generator, self.world)
        chains = self._chains(order.tolist(), generator.random(len(order)) < self.chained)
        packed = pack([self._inputs(chain) for chain in chains], self.context)
        # A row that closed late stands late: shuffled, or the last batches would be odd ones.
        mixed = np.random.default_rng((self.seed, epoch, 1)).permutation(len(packed))
        return [[chains[i] for i in packed[row]] for row in mixed]

    def _chains(self, order: Sequence[int], goes_on: Bool[np.ndarray, " items"]) -> list[list[int]]:
        chains: list[list[int]] = []
        for index, follows in zip(order, goes_on, strict=True):
            if follows and chains and self._inputs([*chains[-1], index]) <= self.context:
                chains[-1].append(index)
            else:
                chains.append([index])
        return chains

    def _inputs(self, members: Sequence[int]) -> int:
        return sum(len(self.conversations[i].ids) for i in members) - 1

    def _chain(self, members: Sequence[int]) -> Marked:
        """Several conversations as the turns of one; the template writes them just so."""
        ids = [token for i in members for token in self.conversations[i].ids]
        return Marked(ids, [own for i in members for own in self.conversations[i].trained])

    def _row(self, members: Sequence[Sequence[int]]) -> _Row:
        chains = [self._chain(chain) for chain in members]
        return _joined(chains, self.context, self.prompt_weight)


def balanced(
    sources: Sequence[str],
    balance: float,
    generator: np.random.Generator,
    world: float | None = None,
) -> Int[np.ndarray, " items"]:
    """An epoch's order of items, as many as there are, drawn from their sources.

    A source of n items gets a share in proportion to n^(1 - balance): 0 takes every item once, 1
    gives every source the same say. A source that needs more than it has is repeated whole before
    any of its items comes once more; one that needs less gives a fresh sample each epoch. Where
    there are sources of the world and others, the world's have the share `world` together, and
    among themselves are as large as they are: its mixture was made on purpose.
    """
    names, membership = np.unique(np.array(sources), return_inverse=True)
    sizes = np.bincount(membership, minlength=len(names))
    shares = sizes ** (1.0 - balance)
    synthetic = np.array([is_synthetic(str(name)) for name in names])
    if world is not None and synthetic.any() and not synthetic.all():
        shares[synthetic] = world * sizes[synthetic] / sizes[synthetic].sum()
        shares[~synthetic] *= (1 - world) / shares[~synthetic].sum()
    # Cumulative rounding: the parts always add up to the whole.
    edges = np.round(np.cumsum(shares) / shares.sum() * len(sources)).astype(np.int64)
    wanted = np.diff(edges, prepend=0)
    drawn: list[Int[np.ndarray, " part"]] = []
    for source, count in enumerate(wanted):
        members = np.flatnonzero(membership == source)
        while count > 0:
            drawn.append(generator.permutation(members)[:count])
            count -= len(drawn[-1])
    return generator.permutation(np.concatenate(drawn))


def cut_to(conversation: Marked, context: int) -> Marked:
    """The conversation's first `context` inputs."""
    return Marked(conversation.ids[: context + 1], conversation.trained[: context + 1])


def pack(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Lay items into rows in the order given, each into the fullest open row it fits.

    Returns the indices in each row. Every item must fit an empty row.
    """
    done: list[list[int]] = []
    open_rows: list[tuple[int, list[int]]] = []
    for index, length in enumerate(lengths):
        assert length <= capacity, (length, capacity)
        fitting = [i for i, (used, _) in enumerate(open_rows) if used + length <= capacity]
        if fitting:
            best = max(fitting, key=lambda i: open_rows[i][0])
            used, members = open_rows[best]
            open_rows[best] = (used + length, [*members, index])
            continue
        if len(open_rows) == _OPEN_ROWS:
            fullest = max(range(_OPEN_ROWS), key=lambda i: open_rows[i][0])
            done.append(open_rows.pop(fullest)[1])
        open_rows.append((length, [index]))
    return done + [members for _, members in open_rows]


def packed_batch(rows: Sequence[Sequence[Marked]], width: int) -> Batch:
    """One row of `width` for each list of items, laid side by side, padded on the right.

    Item i, counted through all rows, is segment i of the batch.
    """
    return _batch([_joined(members, width) for members in rows])


@dataclass(frozen=True)
class _Row:
    input_ids: Int[np.ndarray, " context"]
    targets: Int[np.ndarray, " context"]
    weights: np.ndarray
    segment_ids: Int[np.ndarray, " context"]


def _joined(members: Sequence[Marked], context: int, prompt_weight: float = 0.0) -> _Row:
    row = _Row(
        np.zeros(context, np.int64),
        np.zeros(context, np.int64),
        np.zeros(context, np.float32),
        np.full(context, _PADDING, np.int64),
    )
    start = 0
    for segment, member in enumerate(members):
        place = slice(start, start + member.inputs)
        row.input_ids[place] = member.ids[:-1]
        row.targets[place] = member.ids[1:]
        row.weights[place] = np.where(member.trained[1:], 1.0, prompt_weight)
        row.segment_ids[place] = segment
        start += member.inputs
    return row


def _batch(rows: Sequence[_Row]) -> Batch:
    segments = _numbered([row.segment_ids for row in rows])
    return Batch(
        torch.from_numpy(np.stack([row.input_ids for row in rows])),
        torch.from_numpy(np.stack([row.targets for row in rows])),
        torch.from_numpy(np.stack([row.weights for row in rows])),
        torch.from_numpy(_positions(segments)),
        torch.from_numpy(segments),
    )


def _numbered(
    rows: Sequence[Int[np.ndarray, " time"]],
) -> Int[np.ndarray, "rows time"]:
    """Number segments over the whole batch, so that each sequence has a number of its own."""
    first, numbered = 0, []
    for row in rows:
        numbered.append(np.where(row == _PADDING, _PADDING, row + first))
        first += int(row.max()) + 1
    return np.stack(numbered)


def _positions(segments: Int[np.ndarray, "rows time"]) -> Int[np.ndarray, "rows time"]:
    """Count from 0 within each segment."""
    time = np.arange(segments.shape[1])
    begins: Bool[np.ndarray, "rows time"] = np.ones_like(segments, bool)
    begins[:, 1:] = segments[:, 1:] != segments[:, :-1]
    return time - np.maximum.accumulate(np.where(begins, time, 0), axis=1)
