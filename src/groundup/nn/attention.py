"""Attention: each position looks at all, or all earlier ones, and takes what it finds alike.

Source: Vaswani et al. (2017), "Attention is all you need", section 3.2.
"""

from __future__ import annotations

import math
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Float
from numpy.typing import DTypeLike

from groundup.maths.tensor import Tensor
from groundup.nn import init
from groundup.nn.init import Rng
from groundup.nn.layers import Linear
from groundup.nn.module import Module

T = TypeVar("T", bound=Any)
"""A tensor of either engine, ours or torch's."""


def attention(q: T, k: T, v: T, causal: bool = True) -> T:
    """Compute softmax(q kᵀ / √d) v for q (…, s, d), k (…, t, d), v (…, t, e): shape (…, s, e).

    Divided by √d, since a sum of d products of variance 1 has variance d, and softmax of large
    numbers has no gradient. With `causal` a query sees no key that comes after it; queries and
    keys end together, so that with s < t the queries are the last positions.
    """
    scores = (q * q.shape[-1] ** -0.5) @ k.mT
    if causal:
        queries, keys = scores.shape[-2:]
        seen = scores.new_ones(queries, keys).tril(keys - queries)
        scores = scores.masked_fill(seen == 0, -math.inf)
    result: T = scores.softmax(-1) @ v
    return result


class CausalSelfAttention(Module):
    """Attention of a sequence (n, time, width) to itself and its past, in several heads.

    Projections make queries, keys and values; each head attends in width / heads of their
    dimensions; a last projection mixes the heads.
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
        q, k, v = (self._split(project(x)) for project in (self.q_proj, self.k_proj, self.v_proj))
        mixed: Tensor = self.o_proj(attention(q, k, v).transpose(1, 2).reshape(*x.shape))
        return mixed

    def _split(self, x: Tensor) -> Tensor:
        """(n, time, width) as (n, heads, time, width / heads)."""
        return x.reshape(*x.shape[:2], self.heads, -1).transpose(1, 2)

    def extra_repr(self) -> str:
        return f"heads={self.heads}"
