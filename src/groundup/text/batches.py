"""From items to a batch: laid side by side in rows of one length, never seeing each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Int

from groundup.text.marked import Marked
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


def packed_batch(rows: Sequence[Sequence[Marked]], width: int) -> Batch:
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


def joined(members: Sequence[Marked], width: int, prompt_weight: float = 0.0) -> Row:
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
        row.weights[place] = np.where(member.trained[1:], 1.0, prompt_weight)
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
