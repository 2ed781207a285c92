"""Attention, its mask and its heads."""

import math

import torch
from torch import Tensor


def split_heads(x: Tensor, heads: int) -> Tensor:
    """(rows, time, width) as (rows, heads, time, width / heads)."""
    rows, time, _ = x.shape
    # Split the features within each token first; only then move heads before time.
    return x.view(rows, time, heads, -1).transpose(1, 2)


def causal_mask(time: int) -> Tensor:
    """True where query i may look at key j. Result: (time, time), boolean."""
    return torch.ones(time, time, dtype=torch.bool).tril()


def attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    """softmax(Q K^T / sqrt(d)) V, where the mask is true.

    query: (rows, heads, queries, d); key, value: (rows, heads, keys, d); mask: boolean, broadcasts
    to (rows, heads, queries, keys). Result: (rows, heads, queries, d).
    """
    scores = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])
    # Before the softmax, so that the remaining weights still sum to 1.
    weights = scores.masked_fill(~mask, -torch.inf).softmax(-1)
    return weights @ value
