"""Log-probabilities of given tokens, which most measurements are made of.

Bits per byte, multiple choice, preferences and held-out loss all ask for log p of some tokens after
others. So they share this function. Items are sorted by length and go one to a row, as many rows
at once as hold a given number of tokens: nothing is padding but a token here and there, and
attention costs no more than each item's own length squared, which packing several into long rows
would not give.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Float

from groundup.lm.logprobs import target_logprobs
from groundup.lm.model import CausalLM, uncompiled
from groundup.text.batches import packed_batch
from groundup.text.example import Example, cut_to

T = TypeVar("T")


@torch.inference_mode()
def score(
    model: CausalLM, items: Sequence[Example], *, context: int, micro_rows: int = 16
) -> list[Float[np.ndarray, " _"]]:
    """log p in nats of the trained tokens of every item, in order, given all tokens before them.

    An item is cut after `context` inputs; what is cut off has no value in its array. The first
    token has nothing before it and is never asked for. One pass reads up to `micro_rows * context`
    tokens, and no gradient is recorded.
    """
    cut = [cut_to(item, context) for item in items]
    values: list[Float[np.ndarray, " _"]] = [np.empty(0)] * len(cut)
    with uncompiled(model):
        for together in _alike(cut, micro_rows * context):
            for i, found in zip(together, _scored(model, [cut[i] for i in together]), strict=True):
                values[i] = found
    return values


def _alike(items: Sequence[Example], tokens: int) -> Iterator[list[int]]:
    """Indices of the items with any token to score, those of like length together."""
    asked = [i for i, item in enumerate(items) if any(item.loss_mask[1:])]
    asked.sort(key=lambda i: -items[i].inputs)
    while asked:
        count = max(1, tokens // items[asked[0]].inputs)
        yield asked[:count]
        asked = asked[count:]


def _scored(model: CausalLM, items: Sequence[Example]) -> list[Float[np.ndarray, " _"]]:
    """One forward pass."""
    width = max(item.inputs for item in items)
    batch = packed_batch([[item] for item in items], width).to(model.head.device)
    row, place = batch.weights.nonzero(as_tuple=True)
    # Tokens that are not asked for cost no head at all.
    hidden = model(batch)[row, place]
    flat = target_logprobs(hidden, model.head, batch.targets[row, place]).cpu().double().numpy()
    return np.split(flat, np.cumsum([sum(item.loss_mask[1:]) for item in items])[:-1])


def spread(items: Sequence[T], most: int) -> list[T]:
    """At most `most` of the items, evenly spaced, since files stand source after source."""
    count = min(most, len(items))
    return [items[place * len(items) // count] for place in range(count)]
