"""The reference model's log-probabilities of answers: computed once, kept in the run's folder.

The reference never changes, and neither do they. The first start of a run computes those that its
steps read; every later start loads them.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open

from groundup.align.preferences import TwinPacking
from groundup.lm.logprobs import score
from groundup.lm.model import CausalLM
from groundup.runs import ranks
from groundup.text.example import Example
from groundup.train.checkpoint import write_tensors


def answer_logprobs(
    model: CausalLM, twins: Sequence[tuple[Example, Example]], context: int
) -> Float[np.ndarray, "items 2"]:
    """Return log p of both answers of each item, in nats, without gradients."""
    flat = [answer for both in twins for answer in both]
    sums = [float(found.sum()) for found in score(model, flat, context=context)]
    return np.array(sums, np.float32).reshape(-1, 2)


def fill_reference(
    reference: Float[np.ndarray, "items 2"],
    folder: Path,
    model: CausalLM,
    twins: Sequence[tuple[Example, Example]],
    packing: TwinPacking,
    steps: int | None,
) -> None:
    """Fill in the reference's log-probabilities: computed once, read by every later start.

    The items of `packing` come first, then the held-out ones. A few `steps` read only some of many
    items, and the others stay NaN. If a later start needs more, only those are computed.
    """
    path, trained = folder / "reference.safetensors", len(packing.inputs)
    read = packing.read_by(steps) if steps else np.arange(trained)
    needed = np.concatenate([read, np.arange(trained, len(reference))])
    with ranks.rank_zero_first():
        if path.is_file():
            with contextlib.suppress(SafetensorError, OSError):  # damaged: computed again
                found = _kept(path)
                if found is not None and found.shape == reference.shape:
                    reference[:] = found
        missing = needed[np.isnan(reference[needed]).any(1)]
        if not len(missing):
            return
        reference[missing] = answer_logprobs(model, [twins[i] for i in missing], packing.context)
        write_tensors(path, {"logprobs": torch.from_numpy(reference)}, {"sha256": _hash(reference)})


def _kept(path: Path) -> Float[np.ndarray, "items 2"] | None:
    with safe_open(path, framework="np") as file:
        expected = (file.metadata() or {}).get("sha256")
        found = file.get_tensor("logprobs")
    # Earlier versions wrote no hash.
    return found if expected is None or expected == _hash(found) else None


def _hash(found: Float[np.ndarray, "items 2"]) -> str:
    return hashlib.sha256(np.ascontiguousarray(found).tobytes()).hexdigest()
