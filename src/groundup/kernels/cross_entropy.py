"""Cross-entropy of logits with its gradient in place; `cross_entropy.c` has the equations."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from groundup.kernels.library import call, in_use


def supports(logits: Float[Tensor, "rows vocab"]) -> bool:
    """Whether the kernel supports these logits."""
    return in_use(logits) and logits.is_contiguous() and logits.shape[1] % 16 == 0


def cross_entropy_(
    logits: Float[Tensor, "rows vocab"],
    targets: Int[Tensor, " rows"],
    weights: Float[Tensor, " rows"],
) -> Float[Tensor, ""]:
    """Return the weighted loss and overwrite `logits` by their gradient.

    Raises `IndexError`, like torch, for a target outside the vocabulary, because the kernel would
    access memory outside the logits.
    """
    rows, vocabulary = logits.shape
    if rows:
        least, most = (int(bound) for bound in targets.aminmax())
        if least < 0 or most >= vocabulary:
            wrong = least if least < 0 else most
            raise IndexError(f"target {wrong} is outside the vocabulary of {vocabulary}")
    targets, weights = targets.long().contiguous(), weights.float().contiguous()
    losses = torch.empty(rows, dtype=torch.float32)
    scratch = torch.empty(torch.get_num_threads() * vocabulary, dtype=torch.float32)
    call("cross_entropy", logits, targets, weights, rows, vocabulary, losses, scratch)
    return losses.sum()
