"""Attention whose scores never leave the processor's cache: the equations of `attention.c`.

Instead of a mask it is told the first key that each query sees. Of a row of 4,096 tokens that is
4,096 numbers and not 16 million, and what nobody sees is never computed: of short documents side by
side, most of it.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int32
from torch import Tensor

from groundup.kernels.library import Heads, Shape, call, in_use, once_differentiable, scratch

# Features of a head come in tiles of so many.
_TILE = 32

Query = Float[Tensor, "rows heads time size"]
Key = Float[Tensor, "rows kv_heads time size"]
FirstSeen = Int32[Tensor, "rows time"]


def supports(x: Tensor, head_dim: int) -> bool:
    """Whether the kernel computes with heads of this size, of the type of x."""
    return in_use(x) and head_dim % _TILE == 0


def first_seen(segment_ids: Tensor, window: int | None = None) -> FirstSeen:
    """The first key that each query sees, where it sees all from there to itself.

    That is the first token of its document, whose tokens stand side by side, or with a `window` the
    token that stands `window - 1` before it.
    """
    time = torch.arange(segment_ids.shape[1], dtype=torch.int32, device=segment_ids.device)
    begins = torch.ones_like(segment_ids, dtype=torch.bool)
    begins[:, 1:] = segment_ids[:, 1:] != segment_ids[:, :-1]
    first = torch.where(begins, time, 0).cummax(1).values
    return first if window is None else torch.maximum(first, time - (window - 1))


def attention(query: Query, key: Key, value: Key, first: FirstSeen) -> Query:
    """softmax(Q K^T / sqrt(d)) V, where query i sees the keys from first[i] to i.

    Raises `TypeError` for tensors of another type than the kernel's, as torch's products do.
    """
    if not all(map(in_use, (query, key, value))):
        types = ", ".join(str(x.dtype) for x in (query, key, value))
        raise TypeError(
            f"query, key and value are {types}, and the kernel in use computes with one type "
            "alone; convert the model's parts to one type"
        )
    out: Tensor = _Attention.apply(query, key, value, first)  # type: ignore[no-untyped-call]
    return out


def _heads(x: Tensor) -> Heads:
    return Heads(x.data_ptr(), *x.stride()[:3])


def _shape(query: Tensor, key: Tensor, first: Tensor) -> Shape:
    rows, heads, time, size = query.shape
    return Shape(rows, heads, key.shape[1], time, size, first.data_ptr())


def _by_tokens(like: Tensor) -> Tensor:
    """An empty tensor of this shape that lies in memory as (rows, time, heads, size)."""
    rows, heads, time, size = like.shape
    return torch.empty(rows, time, heads, size, dtype=like.dtype).transpose(1, 2)


def _with_features_side_by_side(x: Tensor) -> Tensor:
    return x if x.stride(-1) == 1 else x.contiguous()


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, first: Tensor) -> Tensor:
        query, key, value = map(_with_features_side_by_side, (query, key, value))
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
        dout = _with_features_side_by_side(dout)
        gradients = [_by_tokens(x) for x in (query, key, value)]
        call(
            "attention_backward", _heads(dout), _heads(out), log_sums,
            *map(_heads, (query, key, value)), _shape(query, key, first),
            *map(_heads, gradients), scratch("attention", *query.shape[2:], 1),
        )  # fmt: skip
        return *gradients, None
