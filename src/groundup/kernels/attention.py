"""Attention whose scores never leave the processor's cache; `attention.c` has the equations.

Instead of a mask it takes the first key that each query sees. For a row of 4,096 tokens these are
4,096 numbers instead of 16 million. Masked blocks are skipped, which are most blocks of a row of
packed short documents.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int32
from torch import Tensor

from groundup.kernels.library import Heads, Shape, call, in_use, once_differentiable, scratch

# Features of a head per tile.
_TILE = 32

Query = Float[Tensor, "rows heads time size"]
Key = Float[Tensor, "rows kv_heads time size"]
FirstSeen = Int32[Tensor, "rows time"]


def supports(x: Tensor, head_dim: int) -> bool:
    """Whether the kernel supports heads of this size and the dtype of x."""
    return in_use(x) and head_dim % _TILE == 0


def first_seen(segment_ids: Tensor, window: int | None = None) -> FirstSeen:
    """Return the first key that each query sees; it sees all keys from there to itself.

    This is the first token of its document, whose tokens are contiguous, or with a `window` at the
    earliest the token `window - 1` positions before it.
    """
    time = torch.arange(segment_ids.shape[1], dtype=torch.int32, device=segment_ids.device)
    begins = torch.ones_like(segment_ids, dtype=torch.bool)
    begins[:, 1:] = segment_ids[:, 1:] != segment_ids[:, :-1]
    first = torch.where(begins, time, 0).cummax(1).values
    return first if window is None else torch.maximum(first, time - (window - 1))


def attention(query: Query, key: Key, value: Key, first: FirstSeen) -> Query:
    """softmax(Q K^T / sqrt(d)) V, where query i sees the keys from first[i] to i.

    Raises `TypeError` for tensors of a dtype other than the kernel's.
    """
    if not all(map(in_use, (query, key, value))):
        types = ", ".join(str(x.dtype) for x in (query, key, value))
        raise TypeError(
            f"query, key and value are {types}, but the kernel in use computes with one type; "
            "convert the model's parts to one type"
        )
    out: Tensor = _Attention.apply(query, key, value, first)  # type: ignore[no-untyped-call]
    return out


def _heads(x: Tensor) -> Heads:
    return Heads(x.data_ptr(), *x.stride()[:3])


def _shape(query: Tensor, key: Tensor, first: Tensor) -> Shape:
    rows, heads, time, size = query.shape
    return Shape(rows, heads, key.shape[1], time, size, first.data_ptr())


def _by_tokens(like: Tensor) -> Tensor:
    """Return an empty tensor of this shape with memory layout (rows, time, heads, size)."""
    rows, heads, time, size = like.shape
    return torch.empty(rows, time, heads, size, dtype=like.dtype).transpose(1, 2)


def _contiguous_features(x: Tensor) -> Tensor:
    return x if x.stride(-1) == 1 else x.contiguous()


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, first: Tensor) -> Tensor:
        query, key, value = map(_contiguous_features, (query, key, value))
        first = first.contiguous()
        out, log_sums = _by_tokens(query), torch.empty(query.shape[:3], dtype=torch.float32)
        call(
            "attention", *map(_heads, (query, key, value)), _shape(query, key, first),
            _heads(out), log_sums, scratch("attention", *query.shape[2:], 0),
        )  # fmt: skip
        ctx.save_for_backward(query, key, value, first, out, log_sums)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dout: Tensor) -> Any:
        query, key, value, first, out, log_sums = ctx.saved_tensors
        dout = _contiguous_features(dout)
        gradients = [_by_tokens(x) for x in (query, key, value)]
        call(
            "attention_backward", _heads(dout), _heads(out), log_sums,
            *map(_heads, (query, key, value)), _shape(query, key, first),
            *map(_heads, gradients), scratch("attention", *query.shape[2:], 1),
        )  # fmt: skip
        return *gradients, None
