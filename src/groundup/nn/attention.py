"""Attention: each position takes a weighted mean of the values of all or of earlier positions.

Source: Vaswani et al. (2017), "Attention is all you need", section 3.2.
"""

from __future__ import annotations

import math
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Float
from numpy.typing import DTypeLike

from groundup.maths.arrays import ShapeError
from groundup.maths.tensor import Tensor
from groundup.nn import init
from groundup.nn.init import Rng
from groundup.nn.layers import Linear
from groundup.nn.module import Module

T = TypeVar("T", bound=Any)
"""A tensor of either engine, ours or torch's."""


def attention(q: T, k: T, v: T, causal: bool = True, mask: Any = None) -> T:
    """Compute softmax(q kᵀ / √d + mask) v for q (…, s, d), k (…, t, d), v (…, t, e): (…, s, e).

    Scores are divided by √d, since a sum of d products of variance 1 has variance d, and the
    softmax of large numbers has almost no gradient. The default mask is `causal_mask`. In a boolean
    mask, as in torch, True marks the visible keys. A query must see at least one key.
    """
    scores = (q * q.shape[-1] ** -0.5) @ k.mT
    if mask is None and causal:
        mask = causal_mask(scores, *scores.shape[-2:])
    if mask is not None and str(mask.dtype).endswith("bool"):
        scores = scores.masked_fill(mask == 0, -math.inf)
    elif mask is not None:
        scores = scores + mask
    result: T = scores.softmax(-1) @ v
    return result


def causal_mask(x: T, queries: int, keys: int) -> T:
    """Return 0 where a query sees a key and -inf where the key is later, in the dtype of x.

    Queries and keys end at the same position: fewer queries are the last positions.
    """
    mask: T = x.new_tensor(np.triu(np.full((queries, keys), -math.inf), keys - queries + 1))
    return mask


class CausalSelfAttention(Module):
    """Causal multi-head self-attention over a sequence (n, time, width).

    Projections compute queries, keys and values, each head attends with width / heads of their
    dimensions, and a final projection mixes the heads.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        bias: bool = True,
        rng: Rng = None,
        dtype: DTypeLike = np.float32,
    ) -> None:
        if heads < 1 or width % heads:
            fitting = [str(n) for n in range(1, width + 1) if width % n == 0]
            raise ValueError(
                f"heads={heads} does not divide width={width}; try one of {', '.join(fitting)}"
            )
        self.heads = heads
        rng = init.generator(rng)
        self.q_proj = Linear(width, width, bias, rng, dtype)
        self.k_proj = Linear(width, width, bias, rng, dtype)
        self.v_proj = Linear(width, width, bias, rng, dtype)
        self.o_proj = Linear(width, width, bias, rng, dtype)

    def forward(self, x: Float[Tensor, "n time width"]) -> Float[Tensor, "n time width"]:
        """Attend; `ShapeError` for another width or not three dimensions."""
        if x.ndim != 3 or x.shape[2] != self.q_proj.in_features:
            raise ShapeError(
                f"an input of shape {x.shape} does not fit (n, time, {self.q_proj.in_features})"
            )
        projections = (self.q_proj, self.k_proj, self.v_proj)
        q, k, v = (
            project(x).reshape(*x.shape[:2], self.heads, x.shape[2] // self.heads).transpose(1, 2)
            for project in projections
        )
        mixed: Tensor = self.o_proj(attention(q, k, v).transpose(1, 2).reshape(*x.shape))
        return mixed

    def extra_repr(self) -> str:
        return f"heads={self.heads}"
