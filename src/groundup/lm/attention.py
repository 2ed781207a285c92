"""Attention: every token queries the earlier tokens of its document.

Each token's vector is multiplied by three learned matrices (`q_proj`, `k_proj` and `v_proj` in
`model`), which give a *query* (what the token is looking for), a *key* (what it offers) and a
*value* (what it passes on when it is found). Inner products compare a query with all keys; a
softmax turns these scores into weights that sum to 1; and the token receives the weighted mean of
the values:

    attention(Q, K, V) = softmax(Q K^T / sqrt(d) + mask) V        (Vaswani et al. 2017, eq. 1)

Scores of random vectors of d numbers have a deviation of sqrt(d), hence the division: without it
the softmax would pick one token from the start and learn nothing about the others. The mask is
minus infinity where a query may not look: at later tokens, at other documents and, with a *window*
(Beltagy et al. 2020; Mistral), at tokens too far back. Four tokens, without a window and with a
window of two:

    the   x . . .         x . . .         each row is a query, each column a key
    sea   x x . .         x x . .
    is    x x x .         . x x .
    deep  x x x x         . . x x

Several heads do this at once, each with its own matrices.

In grouped-query attention (Ainslie et al. 2023) several query heads share a key head, which makes
the cache smaller. The query heads of a group are concatenated along time, so that one matrix
product serves them all and keys are never copied.
"""

from __future__ import annotations

import itertools
import math
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

# `matmul`: two batched matrix products and a softmax. On CPUs, at contexts of a few hundred tokens,
# it beats the fused kernel, which then spends most time on overhead. `fused`: torch's own kernel.
AttentionPath = Literal["matmul", "fused"]

Query = Float[Tensor, "rows heads time head_dim"]
Key = Float[Tensor, "rows kv_heads keys head_dim"]
Mask = Bool[Tensor, "rows time keys"]
# Added to the scores: the same for all heads, or one per head (ALiBi).
Bias = Float[Tensor, "rows time keys"] | Float[Tensor, "rows heads time keys"]


# The `matmul` path processes queries in blocks of this size and skips the keys that no query of a
# block may see; at a context of 256 that saves a quarter of all scores.
_QUERY_BLOCK = 128
# Up to this many rows torch's kernel is faster than two products and a softmax.
_FEW_ROWS = 6


def attention(
    query: Query, key: Key, value: Key, bias: Bias, path: AttentionPath, window: int | None = None
) -> Query:
    """softmax(Q K^T / sqrt(d) + bias) V; `bias` (see `as_bias`) must leave each query a key.

    If there are as many keys as queries, the mask must be causal and must hide everything further
    back than `window`, if there is one.
    """
    if path == "fused":
        by_head = bias[:, None] if bias.ndim == 3 else bias
        if query.device.type != "cpu":
            key, value = (_repeat_kv(shared, query.shape[1]) for shared in (key, value))
        return functional.scaled_dot_product_attention(
            query, key, value, attn_mask=by_head, enable_gqa=True
        )
    time, keys = query.shape[2], key.shape[2]
    if time == 1 and bias.ndim == 3:
        return one_query(query[:, :, 0], key, value, bias[:, 0])[:, :, None]
    if time != keys or time <= _QUERY_BLOCK:
        return _matmul_attention(query, key, value, bias)
    blocks = []
    for start in range(0, time, _QUERY_BLOCK):
        end = min(start + _QUERY_BLOCK, time)
        seen = slice(0 if window is None else max(0, start + 1 - window), end)
        part = _matmul_attention(
            query[:, :, start:end], key[:, :, seen], value[:, :, seen], bias[..., start:end, seen]
        )
        blocks.append(part)
    return torch.cat(blocks, dim=2)


def _repeat_kv(shared: Key, heads: int) -> Float[Tensor, "rows heads keys head_dim"]:
    """Repeat keys or values for every head that reads them. GPU kernels that take a bias do not
    share heads, and without such a kernel PyTorch holds the scores of all heads at once."""
    return shared.repeat_interleave(heads // shared.shape[1], dim=1)


def _matmul_attention(query: Query, key: Key, value: Key, bias: Bias) -> Query:
    """The equation. The queries that share a key head are concatenated along time,
    (rows, kv_heads, group * time, head_dim), for one product with the keys of that head."""
    rows, heads, time, head_dim = query.shape
    kv_heads, keys = key.shape[1], key.shape[2]
    by_head = (rows, kv_heads, heads // kv_heads, time, keys)
    by_key = (rows, kv_heads, heads // kv_heads * time)
    grouped = query.reshape(*by_key, head_dim) / math.sqrt(head_dim)
    scores = (grouped @ key.transpose(-1, -2)).view(by_head)
    added = bias[:, None, None] if bias.ndim == 3 else bias.reshape(by_head)
    weights = (scores + added).softmax(-1).view(*by_key, keys)
    return (weights @ value).view(rows, heads, time, value.shape[-1])


def one_query(
    query: Float[Tensor, "rows heads head_dim"],
    key: Key,
    value: Key,
    bias: Float[Tensor, "rows keys"] | None,
) -> Float[Tensor, "rows heads head_dim"]:
    """One decoding step, which reads the keys in place in the cache; `bias=None` hides no key."""
    rows, heads, head_dim = query.shape
    kv_heads, keys = key.shape[1], key.shape[2]
    if rows <= _FEW_ROWS:
        grouped = query.reshape(rows, kv_heads, -1, head_dim)
        same = None if bias is None else bias[:, None, None].expand(*grouped.shape[:3], -1)
        mixed = functional.scaled_dot_product_attention(grouped, key, value, attn_mask=same)
        return mixed.reshape(rows, heads, head_dim)
    # One product per head and row. In the cache rows and heads merge into one dimension, so no key
    # is copied, as it would be in a four-dimensional product.
    lines = query.reshape(rows * kv_heads, -1, head_dim) / math.sqrt(head_dim)
    scores = lines @ key.reshape(rows * kv_heads, keys, head_dim).transpose(1, 2)
    if bias is not None:
        scores.view(rows, -1, keys).add_(bias[:, None])
    mixed = scores.softmax(-1) @ value.reshape(rows * kv_heads, keys, head_dim)
    return mixed.view(rows, heads, head_dim)


def document_mask(segment_ids: Int[Tensor, "rows time"], window: int | None = None) -> Mask:
    """Causal within each document, nothing across documents: block-diagonal triangles.

    With a `window` a token sees itself and the window - 1 tokens before it: a band. Padding (-1)
    forms a segment of its own, so that every query has a key.
    """
    time = segment_ids.shape[1]
    seen = torch.ones(time, time, dtype=torch.bool, device=segment_ids.device).tril()
    if window is not None:
        seen = seen.triu(1 - window)
    return seen & (segment_ids[:, :, None] == segment_ids[:, None, :])


def as_bias(mask: Bool[Tensor, "*shape"], dtype: torch.dtype) -> Float[Tensor, "*shape"]:
    """0 where a query may look, minus infinity where not.

    Computed once for all layers: adding it costs each layer less than masking its scores.
    """
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(~mask, -torch.inf)


# The equation by itself, for tensors with any leading dimensions.


def scaled_dot_product_attention(
    query: Float[Tensor, "... queries d_k"],
    key: Float[Tensor, "... keys d_k"],
    value: Float[Tensor, "... keys d_v"],
    mask: Bool[Tensor, "... #queries #keys"] | Float[Tensor, "... #queries #keys"] | None = None,
) -> Float[Tensor, "... queries d_v"]:
    """softmax(Q K^T / sqrt(d_k) + mask) V with any number of leading dimensions, which broadcast.

    `mask` is true where a query may look, or holds numbers to add to the scores. It broadcasts to
    (..., queries, keys), so that rows and heads may have their own masks. If the query's last
    leading dimension (heads) is a multiple of the keys', neighboring query heads share a key head
    (Ainslie et al. 2023). A query that may look at nothing gets zeros.
    Source: Vaswani et al. 2017, equation 1.

    Raises ValueError for head counts that do not divide. Models use the faster `attention`.
    """
    group = _group_size(query, key)
    if group > 1:
        query = _grouped(query, group)
        key, value = key.unsqueeze(-3), value.unsqueeze(-3)
        if mask is not None and mask.ndim > 2:
            own = mask.shape[-3] > 1
            mask = _grouped(mask, group) if own else mask.unsqueeze(-3)
    # Divide the query, not the product, which may overflow float16.
    scores = query / math.sqrt(query.shape[-1]) @ key.transpose(-1, -2)
    if mask is not None:
        added = as_bias(mask, scores.dtype) if mask.dtype == torch.bool else mask
        scores = scores + added
    # Where all scores are minus infinity, the softmax and its gradient would be 0 / 0.
    nothing = (scores == -torch.inf).all(-1, keepdim=True)
    weights = scores.masked_fill(nothing, 0.0).softmax(-1).masked_fill(nothing, 0.0)
    output = weights @ value
    return output.flatten(-4, -3) if group > 1 else output


def _grouped(x: Tensor, group: int) -> Tensor:
    """(..., heads, time, d) as (..., kv_heads, group, time, d)."""
    return x.reshape(*x.shape[:-3], x.shape[-3] // group, group, *x.shape[-2:])


def _group_size(query: Tensor, key: Tensor) -> int:
    """The number of query heads that share a key head."""
    if query.ndim < 3 or key.ndim < 3 or 1 in (query.shape[-3], key.shape[-3]):
        return 1
    if query.shape[-3] % key.shape[-3]:
        raise ValueError(
            f"{key.shape[-3]} key heads do not divide {query.shape[-3]} query heads; "
            "each must serve the same number"
        )
    return int(query.shape[-3] // key.shape[-3])


def reference_attention(
    query: Float[Tensor, "*rows heads queries d_k"],
    key: Float[Tensor, "*rows kv_heads keys d_k"],
    value: Float[Tensor, "*rows kv_heads keys d_v"],
    mask: Bool[Tensor, "... queries keys"] | Float[Tensor, "... queries keys"],
) -> Float[Tensor, "*rows heads queries d_v"]:
    """The equation computed slowly, one query at a time: the oracle for the fast paths.

    `mask` is (*rows, queries, keys), the same for all heads, or (*rows, heads, queries, keys).
    Numbers are added to the scores; minus infinity hides a key.
    """
    added = as_bias(mask, query.dtype) if mask.dtype == torch.bool else mask
    if added.ndim < query.ndim:
        added = added.unsqueeze(-3)
    *leading, heads, queries, d_k = query.shape
    group = heads // key.shape[-3]
    added = added.expand(*leading, heads, queries, key.shape[-2])
    output = query.new_zeros(*leading, heads, queries, value.shape[-1])
    for place in itertools.product(*(range(size) for size in (*leading, heads, queries))):
        *row, head, _ = place
        allowed = (added[place] > -torch.inf).nonzero()[:, 0]
        keys = key[(*row, head // group)][allowed]
        values = value[(*row, head // group)][allowed]
        scores = keys @ query[place] / math.sqrt(d_k) + added[place][allowed]
        output[place] = scores.softmax(0) @ values
    return output
