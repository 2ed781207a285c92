from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.testing import assert_close

from groundup.lm.attention import (
    AttentionPath,
    _repeat_kv,
    as_bias,
    attention,
    document_mask,
    reference_attention,
    scaled_dot_product_attention,
)
from groundup.lm.positions import alibi_bias

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


class KeysGiven(TorchFunctionMode):
    """Records the number of key heads that PyTorch's kernel received."""

    heads = 0

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if function is functional.scaled_dot_product_attention:
            self.heads = args[1].shape[1]
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize(("device", "heads"), [("cpu", 2), ("meta", 6)])
def test_only_a_cpu_kernel_receives_shared_key_heads(device: str, heads: int) -> None:
    query, key, value = random_heads(1, 6, 2, 5)
    bias = as_bias(document_mask(torch.zeros(1, 5, dtype=torch.int64)), query.dtype)
    with KeysGiven() as given_keys:
        out = attention(*(x.to(device) for x in (query, key, value, bias)), "fused")
    assert given_keys.heads == heads and out.shape == query.shape
    repeated = (_repeat_kv(shared, 6) for shared in (key, value))
    assert_close(
        attention(query, *repeated, bias, "fused"), attention(query, key, value, bias, "fused")
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


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("kv_heads", [4, 2, 1])
@pytest.mark.parametrize("window", [None, 1, 5, 100])
@pytest.mark.parametrize("alibi", [False, True])
def test_windows_and_slopes_with_several_blocks_of_queries(
    path: AttentionPath, kv_heads: int, window: int | None, alibi: bool
) -> None:
    """Multi-head, grouped and multi-query; longer than a block of queries, in two documents."""
    time = 140
    query, key, value = random_heads(1, 4, kv_heads, time)
    segments = (torch.arange(time) >= 133).long()[None]
    bias = as_bias(document_mask(segments, window), query.dtype)
    if alibi:
        positions = torch.arange(time)[None] - 133 * segments
        bias = alibi_bias(bias, positions, positions, 4)
    found = attention(query, key, value, bias, path, window)
    expected = reference_attention(query, key, value, bias)
    assert_close(found, expected, rtol=1e-4, atol=1e-5)


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


# The equation by itself.

LEADING = [(), (3,), (2, 4), (2, 1, 4), (5, 2, 3, 2)]


@pytest.mark.parametrize("leading", LEADING)
@pytest.mark.parametrize("kind", ["none", "bool", "float", "causal"])
def test_accepts_any_leading_dimensions(leading: tuple[int, ...], kind: str) -> None:
    query, key = torch.randn(*leading, 5, 8), torch.randn(*leading, 7, 8)
    value = torch.randn(*leading, 7, 6)
    masks = {
        "none": None,
        "bool": torch.rand(*leading, 5, 7) < 0.7,  # another for each row and head
        "float": torch.randn(5, 7),
        "causal": torch.ones(5, 7, dtype=torch.bool).tril(),
    }
    mask = masks[kind]
    assert_close(
        scaled_dot_product_attention(query, key, value, mask),
        functional.scaled_dot_product_attention(query, key, value, attn_mask=mask),
        rtol=1e-5,
        atol=1e-5,
    )


def test_scores_within_float16_do_not_overflow() -> None:
    query = 30 * torch.randn(2, 50, 128)
    mask = torch.ones(50, 50, dtype=torch.bool).tril()
    found = scaled_dot_product_attention(query.half(), query.half(), query.half(), mask)
    assert_close(
        found.float(), scaled_dot_product_attention(query, query, query, mask), rtol=0.02, atol=0.2
    )


@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 2), (6, 2), (6, 3), (3, 1), (4, 4)])
@pytest.mark.parametrize("mask_shape", [(5, 7), (1, 5, 7), ("heads", 5, 7), (2, 1, 5, 7),
                                        (2, "heads", 5, 7), (2, 1, 1, 7)])  # fmt: skip
def test_grouped_heads_with_individual_masks(
    heads: int, kv_heads: int, mask_shape: tuple[int | str, ...]
) -> None:
    query = torch.randn(2, heads, 5, 8)
    key, value = torch.randn(2, kv_heads, 7, 8), torch.randn(2, kv_heads, 7, 8)
    shape = [heads if size == "heads" else int(size) for size in mask_shape]
    mask = torch.rand(*shape) < 0.6
    mask[..., 0] = True
    found = scaled_dot_product_attention(query, key, value, mask)
    theirs = functional.scaled_dot_product_attention(
        query, key, value, attn_mask=mask, enable_gqa=True
    )
    assert_close(found, theirs, rtol=1e-5, atol=1e-5)
    whole = mask.expand(2, heads, 5, 7)
    assert_close(found, reference_attention(query, key, value, whole), rtol=1e-5, atol=1e-5)


def test_a_query_without_visible_keys_gets_zeros_and_no_gradient() -> None:
    query, key, value = (torch.randn(2, 3, 4, requires_grad=True) for _ in range(3))
    mask = torch.ones(3, 3, dtype=torch.bool)
    mask[1] = False
    found = scaled_dot_product_attention(query, key, value, mask)
    assert torch.equal(found[:, 1], torch.zeros(2, 4))
    gradient = torch.autograd.grad(found.square().sum(), query)[0]
    assert gradient.isfinite().all() and not gradient[:, 1].any() and gradient[:, 0].any()


@pytest.mark.parametrize("shape", [(0, 3), (2, 0)])
def test_empty_inputs_give_empty_results(shape: tuple[int, int]) -> None:
    rows, time = shape
    query, key, value = random_heads(rows, 4, 2, time)
    found = scaled_dot_product_attention(query, key, value)
    theirs = functional.scaled_dot_product_attention(query, key, value, enable_gqa=True)
    assert found.shape == theirs.shape == (rows, 4, time, 8)
    bias = as_bias(document_mask(torch.zeros(shape, dtype=torch.int64)), query.dtype)
    for path in PATHS:
        assert attention(query, key, value, bias, path).shape == found.shape


def test_heads_that_do_not_divide_are_rejected() -> None:
    with pytest.raises(ValueError, match="3 key heads do not divide 4"):
        scaled_dot_product_attention(
            torch.randn(4, 5, 8), torch.randn(3, 5, 8), torch.randn(3, 5, 8)
        )


def test_the_reference_accepts_masks_per_head_and_any_number_of_rows() -> None:
    query, key = torch.randn(2, 3, 4, 5, 8), torch.randn(2, 3, 2, 7, 8)
    value = torch.randn(2, 3, 2, 7, 6)
    mask = torch.rand(2, 3, 4, 5, 7) < 0.6
    mask[..., 0] = True
    theirs = functional.scaled_dot_product_attention(
        query.flatten(0, 1), key.flatten(0, 1), value.flatten(0, 1),
        attn_mask=mask.flatten(0, 1), enable_gqa=True,
    ).unflatten(0, (2, 3))  # fmt: skip
    assert_close(reference_attention(query, key, value, mask), theirs, rtol=1e-5, atol=1e-5)
