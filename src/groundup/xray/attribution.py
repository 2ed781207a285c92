"""Direct logit attribution: how much each head and each MLP contributes to the answer's logit.

The last residual stream is a sum, x_L = embedding + sum of heads + sum of MLPs + biases, and the
answer's logit is nearly linear in it. The only nonlinear part is the divisor of the last norm,
which is *frozen* at its value (Elhage et al. 2021). Each part c of the sum then has its own
contribution, and together they are the logit:

    logit = W_U[answer] · norm(x_L) = sum_c  d · c  + constant
    RMSNorm     d = W_U[answer] * weight / rms(x_L)                              constant 0
    LayerNorm   d = (u - mean(u)) / std(x_L),  u = W_U[answer] * weight          W_U[answer] · bias

In blocks with norms after, these are frozen in the same way.

It is *direct*: a head's effect through later heads counts as theirs, not as its own. Ablating a
head (`traced(without=…)`) measures its whole effect.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from groundup.lm.model import CausalLM, RMSNorm
from groundup.xray.trace import Trace


@dataclass(frozen=True)
class Contributions:
    """What each part adds to the answer's logit at every position; `sum` is the logit."""

    embedding: Float[np.ndarray, " time"]
    heads: Float[np.ndarray, "layers heads time"]
    mlps: Float[np.ndarray, "layers time"]
    bias: Float[np.ndarray, " time"]
    """Biases of attention's output and of the last norm; 0 where a family has none."""

    @property
    def sum(self) -> Float[np.ndarray, " time"]:
        logits = self.embedding + self.heads.sum((0, 1)) + self.mlps.sum(0) + self.bias
        return np.asarray(logits)


def contributions(model: CausalLM, trace: Trace, answers: Int[Tensor, " time"]) -> Contributions:
    """Split the logits of `answers`, one token per position of the traced text (its first row)."""
    unembedding = model.head[answers].float()
    direction, bias = _through(model.model.norm, trace.residual[-1][0], unembedding)
    heads, mlps = list[Tensor](), list[Tensor]()
    # From the last layer to the first: with norms after, a layer's output passes through the norms
    # of all later layers, which are frozen as well.
    for layer, block in reversed(list(enumerate(model.blocks))):
        attended, fed_forward = trace.attended[layer][0], trace.fed_forward[layer][0]
        summed = trace.residual[layer][0] + attended
        if not block.norms_before:
            with torch.no_grad():
                after = block.input_layernorm(summed) + fed_forward
            direction, constant = _through(block.post_attention_layernorm, after, direction)
            bias = bias + constant
        mlps.insert(0, _along(fed_forward, direction))
        if not block.norms_before:
            direction, constant = _through(block.input_layernorm, summed, direction)
            bias = bias + constant
        by_head = _heads(block.self_attn.o_proj, trace.mixed[layer][0].detach(), direction)
        by_head = by_head.view(len(answers), -1, block.self_attn.head_dim).sum(-1)
        bias = bias + _along(attended, direction) - by_head.sum(-1)
        heads.insert(0, by_head.T)
    embedding = _along(trace.residual[0][0], direction)
    parts = (embedding, torch.stack(heads), torch.stack(mlps), bias)
    return Contributions(*(part.float().cpu().numpy() for part in parts))


@torch.no_grad()
def _through(
    norm: nn.Module, x: Float[Tensor, "time width"], direction: Float[Tensor, "time width"]
) -> tuple[Float[Tensor, "time width"], Float[Tensor, " time"]]:
    """d and the constant, in float32: direction · norm(x) = d · x + constant, the norm frozen."""
    assert isinstance(norm, RMSNorm | nn.LayerNorm)
    x, weighted = x.float(), direction * norm.weight.float()
    if isinstance(norm, RMSNorm):
        scale = torch.rsqrt(x.square().mean(-1, keepdim=True) + norm.eps)
        return weighted * scale, x.new_zeros(len(x))
    scale = torch.rsqrt(x.var(-1, keepdim=True, correction=0) + norm.eps)
    centered = weighted - weighted.mean(-1, keepdim=True)
    return centered * scale, direction @ norm.bias.float()


def _heads(
    o_proj: nn.Module, mixed: Float[Tensor, "time features"], direction: Float[Tensor, "time width"]
) -> Float[Tensor, "time features"]:
    """What each input of the output projection adds to the logit.

    The module is linear in its input, whatever its implementation (4-bit weights, an adapter), so
    its gradient says how much of each input reaches the direction.
    """
    with torch.enable_grad():
        mixed = mixed.requires_grad_()
        written = (o_proj(mixed).float() * direction).sum()
        (reaching,) = torch.autograd.grad(written, mixed)
    return (reaching.float() * mixed.float()).detach()


@torch.no_grad()
def _along(
    part: Float[Tensor, "time width"], direction: Float[Tensor, "time width"]
) -> Float[Tensor, " time"]:
    return (part.float() * direction).sum(-1)
