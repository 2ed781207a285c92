"""Cross-entropy of rows of logits and its gradient in their place: the equations of
`cross_entropy.c`."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from groundup.kernels.library import call, in_use


def supports(logits: Float[Tensor, "rows vocab"]) -> bool:
    """Whether the kernel computes with these."""
    return in_use(logits) and logits.is_contiguous() and logits.shape[1] % 16 == 0


def cross_entropy_(
    logits: Float[Tensor, "rows vocab"],
    targets: Int[Tensor, " rows"],
    weights: Float[Tensor, " rows"],
) -> Float[Tensor, ""]:
    """The weighted loss; `logits` become its gradient with respect to them.

    Raises `IndexError`, as torch's does, for a target outside the vocabulary: the kernel would read
    and write beside the logits.
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
