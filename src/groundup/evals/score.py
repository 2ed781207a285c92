"""How probable a model finds given tokens: the one measurement that most of the others are made of.

Bits per byte, multiple choice, preferences and held-out loss all ask for log p of some tokens after
others. So they share this function, which lays many short items side by side in one row: packed
items never see each other, and a batch is then nearly all text and hardly padding.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch
from jaxtyping import Float

from groundup.lm.logprobs import target_logprobs
from groundup.lm.model import CausalLM
from groundup.text.packing import Marked, _batch, _joined, cut_to, pack


@torch.inference_mode()
def score(
    model: CausalLM, items: Sequence[Marked], *, context: int, micro_rows: int = 16
) -> list[Float[np.ndarray, " targets"]]:
    """log p in nats of the trained tokens of every item, in order, given all tokens before them.

    An item is cut after `context` inputs; what is cut off has no value in its array. The first
    token has nothing before it and is never asked for. No gradient is recorded.
    """
    cut = [cut_to(item, context) for item in items]
    # Longest first: rows of a batch are then about equally long, and the batch no longer than they.
    asked = [i for i, item in enumerate(cut) if any(item.trained[1:])]
    order = sorted(asked, key=lambda i: -cut[i].inputs)
    rows = [[order[i] for i in row] for row in pack([cut[i].inputs for i in order], context)]
    rows.sort(key=lambda row: -sum(cut[i].inputs for i in row))
    values: list[Float[np.ndarray, " targets"]] = [np.empty(0)] * len(cut)
    with _uncompiled(model):
        for start in range(0, len(rows), micro_rows):
            together = rows[start : start + micro_rows]
            for i, found in zip(
                (i for row in together for i in row),
                _scored(model, [[cut[i] for i in row] for row in together]),
                strict=True,
            ):
                values[i] = found
    return values


def _scored(model: CausalLM, rows: list[list[Marked]]) -> list[Float[np.ndarray, " targets"]]:
    """One forward pass; the arrays of all items, row by row."""
    width = max(sum(item.inputs for item in row) for row in rows)
    batch = _batch([_joined(row, width) for row in rows]).to(model.head.device)
    row, place = batch.weights.nonzero(as_tuple=True)
    # Tokens that are not asked for cost no head at all.
    hidden = model(batch)[row, place]
    flat = target_logprobs(hidden, model.head, batch.targets[row, place]).cpu().double().numpy()
    counts = [sum(item.trained[1:]) for members in rows for item in members]
    return np.split(flat, np.cumsum(counts)[:-1])


def _uncompiled(model: CausalLM) -> AbstractContextManager[object]:
    """Blocks compiled for training's one shape must not be compiled anew for every width here."""
    return torch.compiler.set_stance("force_eager") if model.compiled else nullcontext()
