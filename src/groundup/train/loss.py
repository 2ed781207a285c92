"""Next-token cross-entropy that never stores the logits of a whole batch.

    loss = - sum_t weight_t * log softmax(head @ hidden_t)[target_t]

With a vocabulary of 8,192 the logits of 2,048 tokens take more memory than all activations of a
small model. So the head is applied chunk by chunk. The gradient of a chunk's logits,

    d loss / d logits_t = weight_t * (softmax(logits_t) - onehot(target_t)),

depends only on the logits, targets and weights. It is turned at once into the gradients of hidden
states and head, and the logits are discarded. Chunks stay in the processor's cache.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, cast, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from groundup.kernels import cross_entropy, gradients
from groundup.kernels.library import once_differentiable
from groundup.train.batch import Batch, Loss

# 512 rows of 8,192 bf16 logits are 8 MB, which fits a laptop's last-level cache. With a vocabulary
# of 49,152 they would be 50 MB, and 100 MB more for each step of the sum in float32.
CHUNK, _CHUNK_LOGITS, _MIN_CHUNK = 512, 2**22, 128


def chunk_rows(vocabulary: int) -> int:
    """Return the number of tokens whose logits are computed at a time."""
    return max(_MIN_CHUNK, min(CHUNK, _CHUNK_LOGITS // vocabulary))


class HeadedModel(Protocol):
    """A model with separate hidden states and output head, so that a loss can use either."""

    @property
    def head(self) -> Float[Tensor, "vocab width"]: ...

    def __call__(self, batch: Batch) -> Float[Tensor, "rows time width"]: ...


@dataclass(frozen=True)
class Auxiliary:
    """A model's own auxiliary loss: `coefficient` times `value` is added for each token."""

    name: str
    value: Float[Tensor, ""]
    coefficient: float


@runtime_checkable
class WithAuxiliaryLoss(Protocol):
    def auxiliary_loss(self, batch: Batch) -> Auxiliary | None:
        """The auxiliary loss of the last forward pass, which read this batch; None without one."""
        ...


def _chunk_loss(
    logits: Float[Tensor, "chunk vocab"],
    targets: Int[Tensor, " chunk"],
    weights: Float[Tensor, " chunk"],
) -> tuple[Float[Tensor, ""], Float[Tensor, "chunk vocab"]]:
    """The weighted loss of a chunk and its gradient with respect to the logits."""
    logits32 = logits.float()
    shifted = logits32 - logits32.amax(-1, keepdim=True)
    exponentials = shifted.exp()
    normalizer = exponentials.sum(-1, keepdim=True)
    loss = (normalizer.log() - shifted.gather(-1, targets[:, None]))[:, 0] @ weights
    gradient = exponentials * (weights[:, None] / normalizer)
    gradient.scatter_add_(-1, targets[:, None], -weights[:, None])
    return loss, gradient.to(logits.dtype)


_ChunkLoss = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
_full_chunk_loss: _ChunkLoss = _chunk_loss


def compile_chunks(on: bool) -> None:
    """Let inductor fuse a full chunk's exponentials and sums into one pass over the logits.

    The switch is process-wide. Every stage sets it at its start, so that its bits do not depend on
    a stage that ran before in the same process.
    """
    global _full_chunk_loss
    _full_chunk_loss = torch.compile(_chunk_loss, dynamic=False) if on else _chunk_loss


def _loss_and_gradient(
    logits: Float[Tensor, "chunk vocab"],
    targets: Int[Tensor, " chunk"],
    weights: Float[Tensor, " chunk"],
    rows: int,
) -> tuple[Float[Tensor, ""], Float[Tensor, "chunk vocab"]]:
    """`_chunk_loss` by the fastest available code; `rows` is the size of a full chunk."""
    if cross_entropy.supports(logits):
        return cross_entropy.cross_entropy_(logits, targets, weights), logits
    # The last, shorter chunk would be compiled again for every length.
    chunk_loss = _full_chunk_loss if logits.shape[0] == rows else _chunk_loss
    return chunk_loss(logits, targets, weights)


class _LinearCrossEntropy(torch.autograd.Function):
    """Cross-entropy of `hidden @ head.T`, with gradients computed in the forward pass."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        head: Tensor,
        targets: Tensor,
        weights: Tensor,
    ) -> Tensor:
        needs_hidden, needs_head = ctx.needs_input_grad[:2]
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        hidden_gradient = torch.empty_like(hidden) if needs_hidden else None
        # A frozen head, as with LoRA, saves a third of the work. Chunks are summed in float32,
        # because bf16 sums would lose small terms.
        head_gradient = torch.zeros_like(head, dtype=torch.float32) if needs_head else None
        rows = chunk_rows(head.shape[0])
        for start in range(0, hidden.shape[0], rows):
            part = slice(start, start + rows)
            logits = hidden[part] @ head.T
            loss, gradient = _loss_and_gradient(logits, targets[part], weights[part], rows)
            total += loss
            if hidden_gradient is not None:
                torch.mm(gradient, head, out=hidden_gradient[part])
            if head_gradient is not None:
                gradients.add_product(head_gradient, gradient, hidden[part])
        ctx.master = gradients.master_of(head)
        if head_gradient is not None and ctx.master is None:
            head_gradient = head_gradient.to(head.dtype)
        ctx.save_for_backward(hidden_gradient, head_gradient)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, scale: Tensor) -> Any:
        # In float32, rounded once: as bfloat16 the scale itself would be off by up to 0.4 %.
        hidden, head = (
            g if g is None else (g.float() * scale).to(g.dtype) for g in ctx.saved_tensors
        )
        if head is not None and ctx.master is not None:
            head = gradients.accumulate(head.dtype, ctx.master, head)
        return hidden, head, None, None


def linear_cross_entropy(
    hidden: Float[Tensor, "tokens width"],
    head: Float[Tensor, "vocab width"],
    targets: Int[Tensor, " tokens"],
    weights: Float[Tensor, " tokens"],
    trained: Int[Tensor, " trained"] | None = None,
) -> Float[Tensor, ""]:
    """Weighted sum of next-token losses in nats, in float32. Tokens of weight 0 skip the head.

    `trained` holds the indices of the other tokens, if already known. Logits have the head's dtype,
    also under `torch.autocast`.
    """
    if trained is None:
        trained = weights.nonzero()[:, 0]
    if trained.shape[0] < weights.shape[0]:
        hidden, targets, weights = hidden[trained], targets[trained], weights[trained]
    with torch.autocast(hidden.device.type, enabled=False):
        total = _LinearCrossEntropy.apply(  # type: ignore[no-untyped-call]
            hidden.to(head.dtype), head, targets, weights.float()
        )
    return cast(Tensor, total)


def next_token_loss(model: nn.Module, batch: Batch) -> Loss:
    """The loss of pre-training and of supervised fine-tuning.

    The auxiliary loss of a mixture of experts is added to the total and logged separately.
    """
    headed = cast(HeadedModel, model)
    hidden = headed(batch)
    total = linear_cross_entropy(
        hidden.flatten(0, 1),
        headed.head,
        batch.targets.flatten(),
        batch.weights.flatten(),
        batch.trained,
    )
    weight = batch.weight
    metrics = {"loss": (float(total.detach()), weight)}
    if isinstance(model, WithAuxiliaryLoss) and (added := model.auxiliary_loss(batch)) is not None:
        total = total + weight * added.coefficient * added.value
        metrics[added.name] = (weight * float(added.value.detach()), weight)
    return Loss(total, weight, metrics)
