"""From items to a batch: laid side by side in rows of one length, never seeing each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Int, Int64, Integer
from torch import Tensor

from groundup.errors import UserError
from groundup.text.example import Example
from groundup.train.batch import Batch

# Rows left open while packing: with eight, about 2 % of a row stays empty.
_OPEN_ROWS = 8
_PADDING = -1


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


def packed_batch(rows: Sequence[Sequence[Example]], width: int) -> Batch:
    """One row of `width` for each list of items, laid side by side, padded on the right.

    Item i, counted through all rows, is segment i of the batch.
    """
    return batch_of([joined(members, width) for members in rows])


@dataclass(frozen=True)
class Row:
    """One row of a batch; segments are numbered from 0 in it, and padding is -1."""

    input_ids: Int[np.ndarray, " context"]
    targets: Int[np.ndarray, " context"]
    weights: np.ndarray
    segment_ids: Int[np.ndarray, " context"]


def joined(members: Sequence[Example], width: int, prompt_weight: float = 0.0) -> Row:
    """Items side by side in a row of `width`; what is not trained has `prompt_weight`."""
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
        row.weights[place] = np.where(member.loss_mask[1:], 1.0, prompt_weight)
        row.segment_ids[place] = segment
        start += member.inputs
    return row


def batch_of(rows: Sequence[Row]) -> Batch:
    """Rows of one width as a batch."""
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


def get_batch(
    dataset: Integer[np.ndarray, " tokens"],
    batch_size: int,
    context_length: int,
    device: torch.device | str = "cpu",
    generator: np.random.Generator | None = None,
) -> tuple[Int64[Tensor, "rows time"], Int64[Tensor, "rows time"]]:
    """Random windows of a stream of tokens, and the same one token later: inputs and targets.

    Every place where a window and its last target fit is equally likely, with replacement; the
    stream may be memory-mapped, and only the windows are read. `generator` (default: a new one)
    makes the draw repeatable. What pre-training here reads instead, each token once an epoch and
    documents that do not see each other, is `DocumentStream`.

    Raises `UserError` for a stream that is too short, and sizes below 1.
    """
    if batch_size < 1 or context_length < 1:
        raise UserError(
            f"batch_size={batch_size} and context_length={context_length} must be at least 1"
        )
    if len(dataset) <= context_length:
        raise UserError(
            f"{len(dataset)} tokens hold no window of context_length={context_length} and the "
            "token that follows it; give a longer stream or a shorter context"
        )
    generator = np.random.default_rng() if generator is None else generator
    starts = generator.integers(len(dataset) - context_length, size=batch_size)
    windows = [dataset[start : start + context_length + 1].astype(np.int64) for start in starts]
    rows = torch.from_numpy(np.stack(windows)).to(device)
    return rows[:, :-1], rows[:, 1:]
