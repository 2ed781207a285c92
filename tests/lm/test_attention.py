from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from groundup.lm.attention import (
    AttentionPath,
    as_bias,
    attention,
    document_mask,
    reference_attention,
)

PATHS: list[AttentionPath] = ["matmul", "fused"]


def random_heads(rows: int, heads: int, kv_heads: int, time: int) -> tuple[torch.Tensor, ...]:
    shapes = ((heads, time), (kv_heads, time), (kv_heads, time))
    return tuple(torch.randn(rows, count, length, 8) for count, length in shapes)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 4), (4, 2), (6, 2), (3, 1)])
def test_fast_paths_equal_the_equation(path: AttentionPath, heads: int, kv_heads: int) -> None:
    query, key, value = random_heads(2, heads, kv_heads, 7)
    segments = torch.tensor([[0, 0, 0, 1, 1, -1, -1], [0, 0, 0, 0, 0, 0, 0]])
    mask = document_mask(segments)
    assert_close(
        attention(query, key, value, as_bias(mask, query.dtype), path),
        reference_attention(query, key, value, mask),
        rtol=1e-5,
        atol=1e-5,
    )


def test_both_paths_have_the_same_gradients() -> None:
    heads = [x.requires_grad_() for x in random_heads(2, 4, 2, 6)]
    mask = document_mask(torch.zeros(2, 6, dtype=torch.int64))
    upstream = torch.randn(2, 4, 6, 8)
    by_path = [
        torch.autograd.grad(
            (attention(*heads, as_bias(mask, heads[0].dtype), path) * upstream).sum(), heads
        )  # type: ignore[misc]
        for path in PATHS
    ]
    for matmul, fused in zip(*by_path, strict=True):
        assert_close(matmul, fused, rtol=1e-5, atol=1e-5)


@settings(deadline=None)
@given(
    st.lists(st.integers(1, 5), min_size=1, max_size=5),
    st.integers(0, 4),
    st.none() | st.integers(1, 6),
)
def test_mask_is_a_triangle_or_a_band_per_document(
    lengths: list[int], padding: int, window: int | None
) -> None:
    segments = [i for i, length in enumerate(lengths) for _ in range(length)] + [-1] * padding
    mask = document_mask(torch.tensor([segments]), window)[0]
    for t, own in enumerate(segments):
        for j, other in enumerate(segments):
            near = window is None or t - j < window
            assert bool(mask[t, j]) == (own == other and j <= t and near)
