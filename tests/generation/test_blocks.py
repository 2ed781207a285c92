"""Weights in GGUF blocks, and the products of `kernel.c`, against the dequantized numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from ctypes import byref
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.testing import assert_close

from groundup.formats.gguf.tensors import dequantize, quantize
from groundup.generation.blocks import (
    BLOCK_KINDS,
    BlockEmbedding,
    BlockKind,
    BlockLinear,
    dequantize_blocks,
)
from groundup.generation.library import KINDS, Matrix, library


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def blocks_of(weight: Tensor, kind: BlockKind) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(quantize(weight, kind)))


@pytest.fixture
def no_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setenv("CC", str(tmp_path / "none"))
    monkeypatch.setenv("GROUNDUP_CACHE", str(tmp_path / "cache"))
    library.cache_clear()
    yield
    library.cache_clear()


@pytest.mark.parametrize("kind", BLOCK_KINDS)
def test_blocks_equal_the_gguf_package(kind: BlockKind) -> None:
    blocks = blocks_of(numbers(7, 96), kind)
    assert_close(dequantize_blocks(blocks, kind), dequantize(blocks.numpy(), kind), rtol=0, atol=0)


def check_product(kind: str, out: int, columns: int, rows: int, threads: int, biased: bool) -> None:
    """The kernel's product against torch's in float64; its sums are float32."""
    weight, x = numbers(out, columns, seed=out), numbers(rows, columns, seed=rows)
    bias = numbers(out, seed=3) if biased else None
    if kind in ("float32", "bfloat16"):
        stored = weight.to(getattr(torch, kind))
        whole = stored.double()
    else:
        stored = blocks_of(weight, kind)  # type: ignore[arg-type]
        whole = dequantize(stored.numpy(), kind).double()
    compiled = library(torch.float32)
    if compiled is None:
        pytest.skip("there is no compiler")
    at = None if bias is None else bias.data_ptr()
    matrix = Matrix(stored.data_ptr(), at, out, columns, KINDS.index(kind))
    y = torch.full((rows, out), torch.nan)
    compiled.linear(byref(matrix), rows, x.data_ptr(), y.data_ptr(), threads)
    expected = x.double() @ whole.T
    if bias is not None:
        expected += bias.double()
    largest = (x.double().abs() @ whole.abs().T).max()
    assert_close(y.double(), expected, rtol=0, atol=float(largest) * 1e-6 + 1e-6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rows", [1, 3, 4, 6, 16])
def test_sums_do_not_depend_on_the_number_of_threads(kind: str, rows: int) -> None:
    """Decoding changes that number by timing, and a run must reproduce the same bits."""
    out, columns = 45, 192
    weight, x = numbers(out, columns), numbers(rows, columns, seed=1)
    stored = (
        weight.to(getattr(torch, kind))
        if kind in ("float32", "bfloat16")
        else blocks_of(weight, kind)  # type: ignore[arg-type]
    )
    compiled = library(torch.float32)
    if compiled is None:
        pytest.skip("there is no compiler")
    matrix = Matrix(stored.data_ptr(), None, out, columns, KINDS.index(kind))
    found = []
    for threads in (1, 2, 3, 5, 6, 64):
        found.append(torch.full((rows, out), torch.nan))
        compiled.linear(byref(matrix), rows, x.data_ptr(), found[-1].data_ptr(), threads)
    assert all(torch.equal(one, found[0]) for one in found)


@given(
    kind=st.sampled_from(KINDS),
    out=st.integers(1, 40),
    columns=st.integers(1, 200),
    rows=st.integers(1, 19),
    threads=st.integers(1, 3),
    biased=st.booleans(),
)
@settings(max_examples=150, deadline=None)
def test_a_product_of_any_shape(
    kind: str, out: int, columns: int, rows: int, threads: int, biased: bool
) -> None:
    if kind in BLOCK_KINDS:
        columns = -(-columns // 32) * 32
    check_product(kind, out, columns, rows, threads, biased)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", BLOCK_KINDS)
def test_the_kernel_dequantizes_the_same_matrix(kind: BlockKind, dtype: torch.dtype) -> None:
    layer = BlockLinear(blocks_of(numbers(9, 160), kind), kind)
    (blocks,) = layer.packed_tensors
    plain = dequantize_blocks(blocks, kind, dtype)
    # d q + m may be rounded once or twice.
    assert_close(layer.dequantized(dtype), plain, rtol=torch.finfo(dtype).eps, atol=1e-7)


@pytest.mark.parametrize("rows", [1, 5, 33])
@pytest.mark.parametrize("kind", BLOCK_KINDS)
def test_a_block_layer_equals_a_plain_layer_of_its_weight(kind: BlockKind, rows: int) -> None:
    bias = nn.Parameter(numbers(24, seed=2))
    layer = BlockLinear(blocks_of(numbers(24, 64), kind), kind, bias)
    x = numbers(2, rows, 64, seed=1)
    plain = nn.functional.linear(x, layer.dequantized(), bias.detach())
    assert_close(layer(x), plain, rtol=0, atol=1e-4)
    with torch.inference_mode():
        assert_close(layer(x), plain, rtol=0, atol=1e-4)
        y = layer.to(torch.bfloat16)(x.bfloat16())
    assert y.dtype == torch.bfloat16
    assert_close(y.float(), plain, rtol=0, atol=float(plain.abs().max()) / 32)


def test_the_default_dtype_changes_no_product(another_default_dtype: Callable[[], None]) -> None:
    layer, x = BlockLinear(blocks_of(numbers(24, 64), "q8_0"), "q8_0"), numbers(5, 64, seed=1)
    with torch.inference_mode():
        y = layer(x)
        another_default_dtype()
        assert torch.equal(layer(x), y)


@pytest.mark.usefixtures("no_compiler")
@pytest.mark.parametrize("kind", BLOCK_KINDS)
def test_a_layer_without_a_compiler(kind: BlockKind) -> None:
    layer = BlockLinear(blocks_of(numbers(24, 64), kind), kind)
    x = numbers(3, 64, seed=1)
    assert library(torch.float32) is None
    with torch.inference_mode():
        assert_close(layer(x), x @ layer.dequantized().T, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", BLOCK_KINDS)
def test_an_embedding_dequantizes_its_rows(kind: BlockKind) -> None:
    blocks = blocks_of(numbers(50, 64), kind)
    embedding = BlockEmbedding(blocks, kind, torch.float32)
    ids = torch.tensor([[3, 49], [0, 3]])
    assert_close(embedding(ids), dequantize_blocks(blocks, kind)[ids], rtol=0, atol=0)
    assert embedding.to(torch.bfloat16)(ids).dtype == torch.bfloat16
    assert embedding.blocks.dtype == torch.uint8
    with pytest.raises(IndexError):
        embedding(torch.tensor([50]))
