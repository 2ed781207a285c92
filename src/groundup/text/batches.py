"""From items to batches: items are packed side by side into rows and never see each other.

The stream for fine-tuning is a pure function of (seed, step): an epoch's order comes from a
generator seeded by (seed, epoch), so any step can be computed without the steps before it.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Int, Int64, Integer
from torch import Tensor, nn

from groundup.errors import UserError, shorten
from groundup.text.example import Example, cut_to
from groundup.text.mixing import Mixture, alike
from groundup.train.batch import Batch, DataStream

Packing = Literal["packed", "padded"]
# Open rows while packing: with eight, about 2 % of a row stays empty.
_OPEN_ROWS = 8
_PADDING = -1
# Row widths are multiples of this, so that few shapes occur and few graphs are compiled.
_WIDTH_STEP = 64
# A row: a list of chains, each the indices of the conversations that it concatenates.
_Chains = list[list[int]]


def pack(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Put each item, in the given order, into the fullest open row with room for it.

    Returns the indices in each row. Every item must fit into an empty row.
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


def row_width(longest: int, context: int) -> int:
    """The width of rows for items of at most `longest` tokens: a multiple of 64, or `context`."""
    return min(context, -(-longest // _WIDTH_STEP) * _WIDTH_STEP)


def packed_batch(rows: Sequence[Sequence[Example]], width: int) -> Batch:
    """One row of `width` for each list of items, packed side by side, padded on the right.

    Item i, counted over all rows, is segment i of the batch. Raises `ValueError` for an item of
    fewer than two tokens, which has nothing to predict.
    """
    fewest = min((member.inputs for members in rows for member in members), default=1)
    if fewest < 1:
        raise ValueError(
            f"an item of {max(0, fewest + 1)} tokens has nothing to predict; leave it out"
        )
    return batch_of([joined(members, width) for members in rows])


@dataclass(frozen=True)
class Row:
    """One row of a batch; its segments are numbered from 0, and padding is -1."""

    input_ids: Int[np.ndarray, " context"]
    targets: Int[np.ndarray, " context"]
    weights: np.ndarray
    segment_ids: Int[np.ndarray, " context"]


def joined(members: Sequence[Example], width: int, prompt_weight: float = 0.0) -> Row:
    """Items side by side in a row of `width`. Untrained tokens have the weight `prompt_weight`,
    except tokens shared with another item, which have 0."""
    row = Row(
        np.zeros(width, np.int64),
        np.zeros(width, np.int64),
        np.zeros(width, np.float32),
        np.full(width, _PADDING, np.int64),
    )
    start = 0
    for segment, member in enumerate(members):
        place = slice(start, start + member.inputs)
        row.input_ids[place] = member.ids[:-1]
        row.targets[place] = member.ids[1:]
        is_new = np.arange(1, member.inputs + 1) >= member.shared
        row.weights[place] = np.where(member.loss_mask[1:], 1.0, prompt_weight * is_new)
        row.segment_ids[place] = segment
        start += member.inputs
    return row


def batch_of(rows: Sequence[Row]) -> Batch:
    """Combine rows of one width into a batch."""
    segments = _renumbered([row.segment_ids for row in rows])
    return Batch(
        torch.from_numpy(np.stack([row.input_ids for row in rows])),
        torch.from_numpy(np.stack([row.targets for row in rows])),
        torch.from_numpy(np.stack([row.weights for row in rows])),
        torch.from_numpy(_positions(segments)),
        torch.from_numpy(segments),
    )


def _renumbered(
    rows: Sequence[Int[np.ndarray, " time"]],
) -> Int[np.ndarray, "rows time"]:
    """Number the segments over the whole batch, so that each sequence has a unique number."""
    first, numbered = 0, []
    for row in rows:
        numbered.append(np.where(row == _PADDING, _PADDING, row + first))
        first += int(row.max()) + 1
    return np.stack(numbered)


def _positions(segments: Int[np.ndarray, "rows time"]) -> Int[np.ndarray, "rows time"]:
    """Positions that count from 0 within each segment."""
    time = np.arange(segments.shape[1])
    begins: Bool[np.ndarray, "rows time"] = np.ones_like(segments, bool)
    begins[:, 1:] = segments[:, 1:] != segments[:, :-1]
    return time - np.maximum.accumulate(np.where(begins, time, 0), axis=1)


@dataclass(frozen=True)
class DataCounts:
    """Statistics of a fine-tuning run: its items, and the tokens of an epoch.

    Of `rows` given items, `truncated` exceeded the context and were cut, and `without_answer` have
    no trained token within it. An epoch reads `tokens` tokens, `trained` of them are trained
    targets, and `padding` is the share of empty positions.
    """

    rows: int
    truncated: int
    without_answer: int
    tokens: int
    trained: int
    padding: float


class ConversationStream(DataStream):
    """Fine-tuning rows: whole conversations or documents, trained where their loss mask is true.

    In the layout "packed", several items share a row of `context` tokens and never see each other.
    In "padded" each item has its own row; the rows of a step have similar lengths, and a
    micro-batch is as wide as its longest row, rounded up to a multiple of 64. Loss and gradients
    are the same.

    Items are truncated to `context`; an item without trained tokens is then set aside, because it
    could make a step whose mean divides by 0. Untrained tokens have `prompt_weight`. If
    `multi_turn` is above 0, that share of the conversations is appended to the previous one, if
    both fit: in a long chat a question is often unrelated to the earlier turns, and the model must
    learn that. `mixture` sets how often each source appears.

    Raises `UserError` if nothing is left to train on, or for a mixture that does not fit.
    """

    def __init__(
        self,
        conversations: Sequence[Example],
        *,
        mixture: Mixture = Mixture(),  # noqa: B008 (frozen)
        layout: Packing = "packed",
        prompt_weight: float = 0.0,
        multi_turn: float = 0.0,
        context: int,
        rows: int,
        micro_rows: int,
        seed: int,
    ) -> None:
        cut = [cut_to(item, context) for item in conversations]
        if not any(item.teaches for item in cut):
            raise UserError(_nothing_to_train_on(conversations, context))
        self.conversations = [
            item for item in cut if item.teaches or (prompt_weight > 0 and item.inputs > 0)
        ]
        self.sources = [item.source for item in self.conversations]
        self.mixture = mixture
        self.layout, self.prompt_weight, self.multi_turn = layout, prompt_weight, multi_turn
        self.context, self.seed = context, seed
        self.rows, self.micro_rows = rows, min(micro_rows, rows)
        mixture.check(self.sources)
        self._lengths = np.array([item.inputs for item in self.conversations])
        self._epoch = functools.lru_cache(maxsize=2)(self._epoch_rows)
        # Every epoch has as many rows as the first, so that a step determines its epoch.
        self.rows_per_epoch = len(self._epoch(0))
        self.counts = self._data_counts(conversations, cut)

    def passes(self, steps: int) -> dict[str, float]:
        """Returns how often `steps` steps see each source's items, based on the first epoch."""
        epochs = steps * self.rows / self.rows_per_epoch
        drawn = Counter(self.sources[i] for row in self._epoch(0) for chain in row for i in chain)
        there = Counter(self.sources)
        return {one: epochs * (drawn[one] / count) for one, count in there.items()}

    def at(self, step: int, model: nn.Module) -> list[Batch]:
        wanted = range(step * self.rows, (step + 1) * self.rows)
        rows = []
        for index in wanted:
            epoch, place = divmod(index, self.rows_per_epoch)
            packed = self._epoch(epoch)
            rows.append(packed[place % len(packed)])
        return [
            batch_of([self._row(row, width) for row in part])
            for part, width in self._micro_batches(rows)
        ]

    def _micro_batches(self, rows: list[_Chains]) -> Iterator[tuple[list[_Chains], int]]:
        """The micro-batches of a step's rows, with the width of each."""
        padded = self.layout == "padded"
        rows = sorted(rows, key=self._used) if padded else rows
        for start in range(0, len(rows), self.micro_rows):
            part = rows[start : start + self.micro_rows]
            longest = max(map(self._used, part)) if padded else self.context
            yield part, row_width(longest, self.context)

    def _epoch_rows(self, epoch: int) -> list[_Chains]:
        """The rows of an epoch."""
        generator = np.random.default_rng((self.seed, epoch))
        order = self.mixture.order(self.sources, self._lengths, generator)
        concatenated = generator.random(len(order)) < self.multi_turn
        chains = self._chains(order.tolist(), concatenated)
        lengths = [self._inputs(chain) for chain in chains]
        if self.layout == "padded":
            first = -epoch * self.rows_per_epoch % self.rows if epoch else 0
            return [[chains[i]] for i in alike(lengths, self.rows, first, generator)]
        packed = pack(lengths, self.context)
        # Packing closes difficult rows last; without shuffling, the last batches would be unusual.
        mixed = np.random.default_rng((self.seed, epoch, 1)).permutation(len(packed))
        return [[chains[i] for i in packed[row]] for row in mixed]

    def _chains(self, order: Sequence[int], concatenated: Bool[np.ndarray, " items"]) -> _Chains:
        chains: _Chains = []
        for index, follows in zip(order, concatenated, strict=True):
            if follows and chains and self._may_follow(chains[-1], index):
                chains[-1].append(index)
            else:
                chains.append([index])
        return chains

    def _may_follow(self, chain: Sequence[int], index: int) -> bool:
        alone = self.conversations[chain[-1]].alone or self.conversations[index].alone
        return not alone and self._inputs([*chain, index]) <= self.context

    def _inputs(self, members: Sequence[int]) -> int:
        return sum(len(self.conversations[i].ids) for i in members) - 1

    def _used(self, chains: _Chains) -> int:
        return sum(map(self._inputs, chains))

    def _concatenated(self, members: Sequence[int]) -> Example:
        """Concatenate conversations as turns of one, exactly as the template would write them."""
        if len(members) == 1:
            return self.conversations[members[0]]
        ids = [token for i in members for token in self.conversations[i].ids]
        return Example(ids, [own for i in members for own in self.conversations[i].loss_mask])

    def _trained(self, members: Sequence[int]) -> int:
        """The number of trained targets of a chain; its first token is no target."""
        learned = sum(sum(self.conversations[i].loss_mask) for i in members)
        return learned - self.conversations[members[0]].loss_mask[0]

    def _row(self, members: _Chains, width: int) -> Row:
        return joined([self._concatenated(chain) for chain in members], width, self.prompt_weight)

    def _data_counts(self, given: Sequence[Example], cut: Sequence[Example]) -> DataCounts:
        rows = self._epoch(0)
        tokens = sum(map(self._used, rows))
        steps = [rows[start : start + self.rows] for start in range(0, len(rows), self.rows)]
        positions = sum(
            len(part) * width for step in steps for part, width in self._micro_batches(step)
        )
        return DataCounts(
            rows=len(given),
            truncated=sum(item.inputs > self.context for item in given),
            without_answer=sum(not item.teaches for item in cut),
            tokens=tokens,
            trained=sum(self._trained(chain) for row in rows for chain in row),
            padding=1 - tokens / positions,
        )


def _nothing_to_train_on(items: Sequence[Example], context: int) -> str:
    if not items:
        return "there is no conversation to train on; give at least one"
    long = sum(item.inputs > context for item in items)
    why = f"{long} of them are longer than that" if long else "none is longer than that"
    return (
        f"none of the {len(items)} rows has an assistant's word to train on within context="
        f"{context} tokens, and {why}; give {'a larger context or ' if long else ''}rows that "
        "the assistant answers"
    )


def get_batch(
    dataset: Integer[np.ndarray, " tokens"] | Integer[Tensor, " tokens"] | Sequence[int],
    batch_size: int,
    context_length: int,
    device: torch.device | str = "cpu",
    generator: np.random.Generator | int | None = None,
) -> tuple[Int64[Tensor, "rows time"], Int64[Tensor, "rows time"]]:
    """Random windows of a token stream, and the same windows one token later: inputs and targets.

    Every start where a window and its last target fit is equally likely, with replacement; the
    stream may be memory-mapped, and only the windows are read. `generator`, or a seed, makes the
    result reproducible. Pre-training in groundup uses `DocumentStream` instead, which reads each
    token once an epoch and isolates documents.

    Raises `UserError` for a stream that is too short or no row of ids, and for sizes below 1.
    """
    stream = np.asarray(dataset)
    if stream.ndim != 1 or (stream.size and not np.issubdtype(stream.dtype, np.integer)):
        raise UserError(
            f"dataset is of {stream.dtype} in {stream.ndim} dimensions; give token ids, a "
            "one-dimensional array of integers"
        )
    if batch_size < 1 or context_length < 1:
        raise UserError(
            f"batch_size={batch_size} and context_length={context_length} must be at least 1"
        )
    if len(stream) <= context_length:
        raise UserError(
            f"{len(stream)} tokens hold no window of context_length={context_length} and the "
            "token after it; give a longer stream or a shorter context"
        )
    try:
        random = np.random.default_rng(generator)
    except (TypeError, ValueError):
        raise UserError(
            f"generator={shorten(generator)} is neither a NumPy generator nor a seed; give "
            "np.random.default_rng(0)"
        ) from None
    starts = random.integers(len(stream) - context_length, size=batch_size)
    windows = [stream[start : start + context_length + 1].astype(np.int64) for start in starts]
    rows = torch.from_numpy(np.stack(windows)).to(device)
    # Copies: writing -100 into the targets must not change the inputs.
    return rows[:, :-1].clone(), rows[:, 1:].clone()
