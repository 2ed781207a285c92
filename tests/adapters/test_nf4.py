"""4 bits, bit for bit as in bitsandbytes."""

from __future__ import annotations

import json
import subprocess
import sys

import bitsandbytes.functional as bnb
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch._dynamo.utils import counters
from torch.testing import assert_close

from groundup.adapters.blockwise_8bit import dequantize_8bit, dynamic_code, quantize_8bit
from groundup.adapters.nf4 import (
    BLOCK_SIZES,
    CODES,
    NF4,
    FourBitKind,
    NF4Linear,
    dequantize_4bit,
    dequantize_nf4,
    derived_nf4,
    quantize_4bit,
    quantize_nf4,
)

CPU = torch.device("cpu")
KINDS: tuple[FourBitKind, ...] = ("nf4", "fp4")
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
# Whole blocks, rows that end within a block, a last block that is shorter, odd numbers of numbers.
SHAPES = ((64, 64), (48, 256), (63, 65), (300, 70), (7, 1), (1, 1), (129, 1), (1, 4100))


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def linear(weight: Tensor, bias: bool = False) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias, dtype=weight.dtype)
    layer.weight = nn.Parameter(weight.clone())
    return layer


# The code books.


def test_nf4_equals_the_papers_and_follows_from_the_normal_distribution() -> None:
    assert torch.equal(torch.tensor(NF4), bnb.get_4bit_type("nf4", device="cpu"))
    assert_close(derived_nf4(), torch.tensor(NF4), rtol=0, atol=3e-7)


def test_fp4_and_the_8_bit_code_equal_bitsandbytes() -> None:
    assert torch.equal(CODES["fp4"], bnb.get_4bit_type("fp4", device="cpu"))
    assert torch.equal(dynamic_code(CPU), bnb.create_dynamic_map())


def test_the_default_dtype_changes_no_code() -> None:
    program = (
        "import torch; torch.set_default_dtype(torch.bfloat16)\n"
        "from groundup.adapters.nf4 import CODES\n"
        "from groundup.adapters.blockwise_8bit import dynamic_code\n"
        "print([x.tolist() for x in (*CODES.values(), dynamic_code(torch.device('cpu')))])"
    )
    found = subprocess.check_output([sys.executable, "-c", program], text=True)
    assert json.loads(found) == [code.tolist() for code in (*CODES.values(), dynamic_code(CPU))]


def test_nf4_uses_its_values_about_equally_often_and_fp4_does_not() -> None:
    """This makes it a good code for normally distributed numbers."""
    shares = {}
    for kind in KINDS:
        packed, _ = quantize_4bit(normal(1000, 640), kind)
        indices = torch.stack([packed >> 4, packed & 15]).flatten()
        shares[kind] = indices.bincount(minlength=16) / indices.numel()
    assert shares["nf4"].max() < 0.1 < shares["fp4"].max()


# Bytes and scales.


def same_as_bitsandbytes(weight: Tensor, kind: FourBitKind, block_size: int) -> None:
    theirs, plain = bnb.quantize_4bit(weight, blocksize=block_size, quant_type=kind)
    packed, absmax = quantize_4bit(weight, kind, block_size)
    assert torch.equal(packed, theirs.flatten())
    assert torch.equal(absmax, plain.absmax)
    _, nested = bnb.quantize_4bit(
        weight, blocksize=block_size, quant_type=kind, compress_statistics=True
    )
    ours = NF4Linear.of(linear(weight), kind, block_size)
    assert torch.equal(ours.packed, packed)
    assert torch.equal(ours.absmax, nested.absmax)
    assert torch.equal(ours.nested_absmax, nested.state2.absmax)
    assert torch.equal(ours.offset, nested.offset)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_bytes_and_scales_equal_bitsandbytes(kind: FourBitKind, dtype: torch.dtype) -> None:
    for shape in SHAPES:
        weight = normal(*shape).to(dtype)
        with_zeros = weight.clone()
        with_zeros[-3:] = 0
        for block_size in BLOCK_SIZES:
            for one in (weight, with_zeros, torch.zeros_like(weight)):
                same_as_bitsandbytes(one, kind, block_size)


@pytest.mark.parametrize("kind", KINDS)
def test_exact_ties_and_their_neighbors_round_to_the_same_side(kind: FourBitKind) -> None:
    values = CODES[kind].sort().values
    middles = (values[:-1] + values[1:]) / 2
    one = torch.ones(1)
    near = [torch.nextafter(middles, side * 2 * one) for side in (-1, 1)]
    edge = torch.cat([one, values, middles, *near, torch.tensor([-0.0, 0.0])])
    for scale in (1.0, 0.5, 3.0):  # a power of two keeps the ties exact, and 3 does not
        same_as_bitsandbytes((edge * scale)[None], kind, 4096)
        same_as_bitsandbytes((edge * scale)[None].bfloat16(), kind, 4096)


@given(
    rows=st.integers(1, 40),
    columns=st.integers(1, 200),
    size=st.sampled_from([1e-30, 1e-4, 1.0, 1e4, 1e30]),
    block_size=st.sampled_from(BLOCK_SIZES),
    seed=st.integers(0, 2**31),
)
def test_any_matrix_gives_the_same_bytes(
    rows: int, columns: int, size: float, block_size: int, seed: int
) -> None:
    # Sizes that differ much from block to block reach every part of the 8-bit code.
    weight = normal(rows, columns, seed=seed) * normal(rows, 1, seed=seed + 1).exp() * size
    same_as_bitsandbytes(weight, "nf4", block_size)


@pytest.mark.parametrize("size", [1.0, 1e-30, 1e30])
def test_values_of_8_bits_equal_bitsandbytes(size: float) -> None:
    values = normal(70_001) * torch.logspace(-7, 0, 70_001) * size
    theirs, state = bnb.quantize_blockwise(values, blocksize=256)
    codes, absmax = quantize_8bit(values)
    assert torch.equal(codes, theirs)
    assert torch.equal(absmax, state.absmax)
    assert torch.equal(dequantize_8bit(codes, absmax), bnb.dequantize_blockwise(theirs, state))


# Values.


def by_hand(layer: NF4Linear, dtype: torch.dtype) -> Tensor:
    """Each number separately, from its own half byte."""
    absmax = layer.absmax
    if layer.double_quant:
        nested = layer.nested_absmax.repeat_interleave(256)[: len(absmax)]
        absmax = dynamic_code(CPU)[absmax.int()] * nested + layer.offset
    count = layer.out_features * layer.in_features
    indices = torch.stack([layer.packed >> 4, layer.packed & 15], 1).flatten()[:count].int()
    scales = absmax.repeat_interleave(layer.block_size)[:count]
    values = CODES[layer.kind][indices] * scales
    return values.to(dtype).view(layer.out_features, layer.in_features)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("double", [True, False])
def test_values_equal_bitsandbytes(kind: FourBitKind, double: bool) -> None:
    # Rows of whole blocks: with others the AVX512 program of bitsandbytes 0.50 takes the scales of
    # other rows, so that its own bytes come out wrong.
    for shape, block_size in (((48, 256), 64), ((48, 256), 128), ((20, 4096), 1024), ((9, 64), 32)):
        weight = normal(*shape)
        packed, state = bnb.quantize_4bit(
            weight, blocksize=block_size, quant_type=kind, compress_statistics=double
        )
        layer = NF4Linear.of(linear(weight), kind, block_size, double)
        for dtype in DTYPES:
            state.dtype = dtype
            theirs = bnb.dequantize_4bit(packed, state)
            assert torch.equal(layer.dequantized(dtype), theirs)
            assert torch.equal(by_hand(layer, dtype), theirs)


@pytest.mark.parametrize("shape", SHAPES)
def test_values_are_correct_in_a_shorter_last_block(shape: tuple[int, int]) -> None:
    for kind in KINDS:
        for block_size in (32, 64, 4096):
            for double in (True, False):
                layer = NF4Linear.of(linear(normal(*shape)), kind, block_size, double)
                for dtype in DTYPES:
                    assert torch.equal(layer.dequantized(dtype), by_hand(layer, dtype))


def test_large_matrices_are_dequantized_in_chunks() -> None:
    """The last chunk may end within a block or a byte."""
    for shape in ((512, 512), (513, 600), (513, 601)):
        layer = NF4Linear.of(linear(normal(*shape)), block_size=4096)
        assert torch.equal(layer.dequantized(), by_hand(layer, torch.float32))


def test_quantizing_is_idempotent() -> None:
    packed, absmax = quantize_4bit(normal(48, 256))
    again = dequantize_4bit(packed, absmax, "nf4", 64, (48, 256), torch.float32)
    assert torch.equal(quantize_4bit(again)[0], packed)


# The layer.


@pytest.mark.parametrize("block_size", [64, 128])
@pytest.mark.parametrize("double", [True, False])
def test_a_layer_takes_at_most_4_6_bits_per_number(block_size: int, double: bool) -> None:
    layer = NF4Linear.of(linear(normal(576, 576), bias=True), "nf4", block_size, double)
    held = sum(buffer.nbytes for buffer in layer.buffers())
    assert [name for name, _ in layer.named_parameters()] == ["bias"]
    assert 8 * held / 576**2 == layer.bits_per_weight <= 4.6
    scales = 8 / block_size + 32 / (block_size * 256) if double else 32 / block_size
    assert layer.bits_per_weight == pytest.approx(4 + scales, abs=2e-3)


def test_changing_the_models_dtype_changes_only_the_bias() -> None:
    layer = NF4Linear.of(linear(normal(64, 128), bias=True))
    before = [tensor.clone() for tensor in layer.packed_tensors]
    for dtype in (torch.bfloat16, torch.float64, torch.float16):
        layer.to(dtype)
        assert layer.bias is not None and layer.bias.dtype == dtype
        assert all(map(torch.equal, layer.packed_tensors, before))
    assert {tensor.device.type for tensor in layer.to("meta").packed_tensors} == {"meta"}
    assert [tensor.dtype for tensor in layer.packed_tensors] == [tensor.dtype for tensor in before]


def test_a_state_dict_round_trips() -> None:
    layer, other = (NF4Linear.of(linear(normal(64, 128, seed=seed))) for seed in (0, 1))
    assert not torch.equal(layer.dequantized(), other.dequantized())
    other.load_state_dict(layer.state_dict())
    assert torch.equal(layer.dequantized(), other.dequantized())


@pytest.mark.parametrize("rows", [(), (5,), (2, 5)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_outputs_and_gradients_equal_those_of_the_dequantized_weight(
    dtype: torch.dtype, rows: tuple[int, ...]
) -> None:
    layer = NF4Linear.of(linear(normal(96, 130), bias=True)).to(dtype)
    whole = linear(layer.dequantized(dtype), bias=True)
    whole.bias = nn.Parameter(layer.bias.detach().clone())  # type: ignore[union-attr]
    results = []
    for one in (layer, whole):
        x = normal(*rows, 130).to(dtype).requires_grad_()
        y = one(x)
        (y * normal(*rows, 96).to(dtype)).sum().backward()
        assert one.bias.grad is not None
        results.append((y, x.grad, one.bias.grad))
    for ours, theirs in zip(*results, strict=True):
        assert_close(ours, theirs, rtol=1e-6 if dtype == torch.float32 else 1e-2, atol=1e-5)
    assert layer.bias is not None and layer.packed.grad is None


def test_second_derivatives_equal_those_of_the_dequantized_weight() -> None:
    layer = NF4Linear.of(linear(normal(96, 130)))
    x = normal(5, 130).requires_grad_()
    found = []
    for y in (layer(x), x @ layer.dequantized().T):
        (slope,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
        found += torch.autograd.grad(slope.square().sum(), x)
    assert_close(*found, rtol=1e-5, atol=1e-3)


class Two(nn.Module):
    """A small block with two quantized layers."""

    def __init__(self, seed: int, double: bool) -> None:
        super().__init__()
        up, down = normal(256, 64, seed=seed) / 8, normal(64, 256, seed=seed + 1) / 16
        self.up = NF4Linear.of(linear(up, bias=True), double_quant=double)
        self.down = NF4Linear.of(linear(down), double_quant=double)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.down(torch.nn.functional.silu(self.up(x)))
        return out


def trained(blocks: list[Two], x: Tensor) -> tuple[Tensor, Tensor, int]:
    """The output, the gradient, and the size of the largest tensor kept for backward."""
    kept: list[int] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor.nbytes)
        return tensor

    x = x.detach().requires_grad_()
    out = x
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        for block in blocks:
            out = block(out)
    out.square().sum().backward()
    assert x.grad is not None
    return out.detach(), x.grad, max(kept)


@pytest.mark.parametrize("double", [True, False])
def test_compiling_changes_nothing_and_never_keeps_a_dequantized_weight(
    double: bool, unchecked_types: None
) -> None:
    """Layers share one graph; backward makes weights again, which the compiler would rather keep.

    The backend is the compiler up to where it writes C++, for which not every machine has tools.
    """
    blocks = [Two(seed, double) for seed in (0, 10, 20)]
    x = normal(3, 64)
    first = blocks[0](x).detach()
    out, gradient, kept = trained(blocks, x)
    torch._dynamo.reset()
    counters.clear()
    for block in blocks:
        block.compile(fullgraph=True, dynamic=False, backend="aot_eager_decomp_partition")
    compiled_out, compiled_gradient, compiled_kept = trained(blocks, x)
    assert counters["stats"]["unique_graphs"] == 1
    assert_close(compiled_out, out, rtol=1e-4, atol=1e-5)
    assert_close(compiled_gradient, gradient, rtol=1e-4, atol=1e-4)
    assert max(kept, compiled_kept) <= blocks[0].up.packed.nbytes < 256 * 64
    # Below the first adapter nothing has a gradient.
    assert_close(blocks[0](x), first, rtol=1e-4, atol=1e-5)


def test_it_works_without_gradients() -> None:
    layer = NF4Linear.of(linear(normal(96, 64)))
    x = normal(5, 64)
    with torch.inference_mode():
        inferred = layer(x)
    assert torch.equal(inferred, layer(x))
    assert not layer(x).requires_grad


# A tensor by itself.


@pytest.mark.parametrize("shape", [(64, 64), (7, 1), (1, 1), (3, 5, 64), (300, 70), (5000,)])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("double", [True, False])
def test_a_single_tensor_equals_bitsandbytes_bit_for_bit(
    shape: tuple[int, ...], dtype: torch.dtype, double: bool
) -> None:
    tensor = normal(*shape).to(dtype)
    for block_size in (64, 128):
        ours = quantize_nf4(tensor, block_size, double_quant=double)
        packed, state = bnb.quantize_4bit(
            tensor, blocksize=block_size, quant_type="nf4", compress_statistics=double
        )
        assert torch.equal(ours.packed, packed.flatten())
        assert torch.equal(ours.absmax, state.absmax)
        if double:
            assert ours.nested_absmax is not None and ours.offset is not None
            assert torch.equal(ours.nested_absmax, state.state2.absmax)
            assert torch.equal(ours.offset, state.offset)
        again = dequantize_nf4(ours)
        assert again.shape == tensor.shape and again.dtype == dtype
        # As one row, for the reason above: its rows need not be whole blocks.
        state.shape = torch.Size([tensor.numel()])
        assert torch.equal(again, bnb.dequantize_4bit(packed, state).view(shape))
        assert dequantize_nf4(ours, torch.float32).dtype == torch.float32


def test_bits_per_number_equal_the_papers() -> None:
    assert quantize_nf4(normal(1024, 1024)).bits == pytest.approx(4.127, abs=5e-4)
    assert quantize_nf4(normal(1024, 1024), double_quant=False).bits == 4.5


def test_rejects_settings_that_nf4_does_not_have() -> None:
    with pytest.raises(ValueError, match="block_size=48"):
        quantize_nf4(normal(64), 48)
    with pytest.raises(ValueError, match="no numbers"):
        quantize_nf4(torch.zeros(0, 4))
