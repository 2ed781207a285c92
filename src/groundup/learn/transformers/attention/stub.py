"""3.3 Attention, mask and heads

The lesson: groundup learn 3.3        Check it: groundup learn check 3.3
"""

import torch
from torch import Tensor


def split_heads(x: Tensor, heads: int) -> Tensor:
    """(rows, time, width) as (rows, heads, time, width / heads)."""
    raise NotImplementedError


def causal_mask(time: int) -> Tensor:
    """True where query i may look at key j. Result: (time, time), boolean."""
    raise NotImplementedError


def attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    """softmax(Q K^T / sqrt(d)) V, where the mask is true.

    query: (rows, heads, queries, d); key, value: (rows, heads, keys, d); mask: boolean, broadcasts
    to (rows, heads, queries, keys). Result: (rows, heads, queries, d).
    """
    raise NotImplementedError
