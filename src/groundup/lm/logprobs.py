"""Log-probabilities of a batch's targets, without holding the logits of the whole batch.

    log p(y_t) = logits_t[y_t] - logsumexp(logits_t),      logits_t = head @ hidden_t

The loss of `train/loss.py` knows each token's weight in advance and computes gradients in the
forward pass. Here a token's weight is known only in backward (a preference loss needs whole
sequences first), so the forward pass keeps one number per token, the logsumexp, and backward
recomputes the logits chunk by chunk:

    d log p(y_t) / d logits_t = onehot(y_t) - softmax(logits_t)

Bits per byte, multiple choice, preferences and held-out loss all need log p of some tokens given
the tokens before them, and share `score`. Items are sorted by length, one per row, with as many
rows per pass as fit into a given number of tokens. Little is padding, and attention costs only each
item's own length squared, which packing several items into long rows would exceed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from groundup.errors import UserError
from groundup.kernels.library import once_differentiable
from groundup.lm.model import CausalLM, in_eval_mode, uncompiled
from groundup.text.batches import packed_batch
from groundup.text.example import Example, cut_to
from groundup.train.batch import Batch
from groundup.train.loss import HeadedModel, chunk_rows

# Tokens per pass without gradients. On a CPU, larger passes exceed the caches, and batches of mixed
# lengths contain much padding. An accelerator needs more: this many rows of the context.
_PASS_TOKENS, _PASS_ROWS = 2048, 16


class _TargetLogprobs(torch.autograd.Function):
    """log softmax(hidden @ head.T)[targets], computed in chunks in both directions."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, head: Tensor, targets: Tensor) -> Tensor:
        normalizers = hidden.new_empty(hidden.shape[0], dtype=_precise(hidden))
        chosen = torch.empty_like(normalizers)
        for part in _chunks(hidden, head):
            logits = (hidden[part] @ head.T).to(chosen.dtype)
            normalizers[part] = logits.logsumexp(-1)
            chosen[part] = logits.gather(-1, targets[part, None])[:, 0]
        ctx.save_for_backward(hidden, head, targets, normalizers)
        return chosen - normalizers

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> Any:
        hidden, head, targets, normalizers = ctx.saved_tensors
        hidden_gradient = torch.empty_like(hidden)
        # A frozen head (LoRA) needs no gradient, a third of the work. The sum over chunks is in
        # float32 at least: bf16 sums would lose the small terms.
        trained = ctx.needs_input_grad[1]
        head_gradient = torch.zeros_like(head, dtype=_precise(head)) if trained else None
        for part in _chunks(hidden, head):
            logits = (hidden[part] @ head.T).to(normalizers.dtype)
            gradient = (logits - normalizers[part, None]).exp_() * -upstream[part, None]
            gradient.scatter_add_(-1, targets[part, None], upstream[part, None])
            gradient = gradient.to(hidden.dtype)
            hidden_gradient[part] = gradient @ head
            if head_gradient is not None:
                head_gradient += gradient.T @ hidden[part]
        return (
            hidden_gradient,
            None if head_gradient is None else head_gradient.to(head.dtype),
            None,
        )


def _chunks(hidden: Tensor, head: Tensor) -> list[slice]:
    rows = chunk_rows(head.shape[0])
    return [slice(start, start + rows) for start in range(0, hidden.shape[0], rows)]


def _precise(like: Tensor) -> torch.dtype:
    return torch.float64 if like.dtype == torch.float64 else torch.float32


def target_logprobs(
    hidden: Float[Tensor, "tokens width"],
    head: Float[Tensor, "vocab width"],
    targets: Int[Tensor, " tokens"],
) -> Float[Tensor, " tokens"]:
    """log p of each target in nats, differentiable in `hidden` and `head`; float32 or better."""
    out = _TargetLogprobs.apply(hidden, head, targets)  # type: ignore[no-untyped-call]
    return cast(Tensor, out)


@torch.no_grad()
def logprobs(model: nn.Module, batch: Batch) -> Float[Tensor, "rows time"]:
    """log p(target) in nats at every position of the batch, whatever its weight; no gradients.

    Raises `UserError` for a batch without targets.
    """
    if not (batch.weights.any() or batch.targets.any()):
        raise UserError(
            "the batch has no targets: Batch.of makes one for a forward pass only; set them: "
            "dataclasses.replace(Batch.of(ids[:, :-1]), targets=ids[:, 1:])"
        )
    headed = cast(HeadedModel, model)
    hidden = headed(batch).flatten(0, 1)
    return target_logprobs(hidden, headed.head, batch.targets.flatten()).view_as(batch.targets)


def entropy(logits: Float[Tensor, "*batch vocab"]) -> Float[Tensor, "*batch"]:
    """H = -sum_v p_v log p_v of p = softmax(logits) in nats, differentiable.

    Between 0 (certain) and log(vocab) (uniform). Computed from log-probabilities, so logits of any
    size are safe; an outcome of probability 0, whose logit may be minus infinity, adds 0. The
    result is float32 or better, whatever the dtype of the logits.
    """
    logp = logits.to(_precise(logits)).log_softmax(-1)
    # 0 * log 0 counts as 0: without the mask it and its gradient would be NaN.
    surprise = logp.masked_fill(logp == -torch.inf, 0.0)
    return -(logp.exp() * surprise).sum(-1)


def sequence_logprobs(model: nn.Module, batch: Batch) -> Float[Tensor, " segments"]:
    """For each segment of the batch the sum of weight * log p(target) in nats, differentiable.

    With weights of 1 on a completion's tokens it is log pi(completion | prompt), as in DPO
    (Rafailov et al. 2023, eq. 7). No logits are computed for tokens of weight 0.
    """
    headed = cast(HeadedModel, model)
    hidden = headed(batch)
    rows, places = batch.weights.nonzero(as_tuple=True)
    per_token = target_logprobs(hidden[rows, places], headed.head, batch.targets[rows, places])
    weighted = per_token * batch.weights[rows, places]
    segments = int(batch.segment_ids.max()) + 1
    return weighted.new_zeros(segments).index_add(0, batch.segment_ids[rows, places], weighted)


NON_FINITE_LOGITS = (
    "the model's logits are not finite (NaN or infinite): its weights are damaged, or too large "
    "for their type; download it again, or load it in float32"
)


def require_finite(values: Float[np.ndarray, " _"]) -> None:
    """Raises `UserError` if log-probabilities are not finite: a choice or an interval computed from
    them would look like a measurement."""
    if not np.isfinite(values).all():
        raise UserError(NON_FINITE_LOGITS)


@torch.inference_mode()
def score(
    model: CausalLM, items: Sequence[Example], *, context: int, tokens_per_pass: int | None = None
) -> list[Float[np.ndarray, " _"]]:
    """log p in nats of the trained tokens of every item, in order, given all tokens before them.

    Items are truncated to `context` inputs; truncated tokens have no value in the array. The first
    token has no predecessor and is never scored. Equal items are scored once. One pass reads up to
    `tokens_per_pass` tokens, or one item; no gradient is recorded. Raises `UserError` for a model
    whose logits are not finite.
    """
    cut = [cut_to(item, context) for item in items]
    first: dict[tuple[tuple[int, ...], tuple[bool, ...]], int] = {}
    same = [first.setdefault((tuple(x.ids), tuple(x.loss_mask)), i) for i, x in enumerate(cut)]
    asked = [i for i in first.values() if cut[i].teaches]
    lengths = [cut[i].inputs for i in asked]
    values: list[Float[np.ndarray, " _"]] = [np.empty(0)] * len(cut)
    with in_eval_mode(model), uncompiled(model):
        for places in passes(lengths, context, model.head.device, tokens_per_pass):
            together = [asked[place] for place in places]
            for i, found in zip(together, _scored(model, [cut[i] for i in together]), strict=True):
                values[i] = found
    return [values[i] for i in same]


def passes(
    lengths: Sequence[int], context: int, device: torch.device, tokens: int | None = None
) -> Iterator[list[int]]:
    """Batches of item indices, one item per row, the longest items first.

    A pass holds up to `tokens` tokens, or one item; the default suits the device.
    """
    most = tokens or (_PASS_TOKENS if device.type == "cpu" else _PASS_ROWS * context)
    order = sorted(range(len(lengths)), key=lambda place: -lengths[place])
    while order:
        count = max(1, most // lengths[order[0]])
        yield order[:count]
        order = order[count:]


def _scored(model: CausalLM, items: Sequence[Example]) -> list[Float[np.ndarray, " _"]]:
    """Score one pass."""
    width = max(item.inputs for item in items)
    batch = packed_batch([[item] for item in items], width).to(model.head.device)
    row, place = batch.weights.nonzero(as_tuple=True)
    # Compute logits only where they are needed.
    hidden = model(batch)[row, place]
    flat = target_logprobs(hidden, model.head, batch.targets[row, place]).cpu().double().numpy()
    require_finite(flat)
    return np.split(flat, np.cumsum([sum(item.loss_mask[1:]) for item in items])[:-1])
