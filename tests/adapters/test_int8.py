"""8 bits with a scale per row, against bitsandbytes' LLM.int8()."""

from __future__ import annotations

import bitsandbytes.functional as bnb
import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from groundup.adapters.int8 import Int8Linear, dequantize_int8, quantize_int8


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_bytes_and_values_equal_bitsandbytes(dtype: torch.dtype) -> None:
    # Rows of very different sizes, and one of zeros. bitsandbytes computes in the type it is given.
    weight = (normal(40, 130) * torch.logspace(-3, 3, 40)[:, None]).to(dtype)
    weight[7] = 0
    whole, absmax = quantize_int8(weight)
    theirs, stats, _ = bnb.int8_vectorwise_quant(weight.float())
    assert torch.equal(absmax, stats)
    assert torch.equal(whole, theirs)
    values = bnb.int8_vectorwise_dequant(theirs, stats)
    assert torch.equal(dequantize_int8(whole, absmax, torch.float32), values)
    assert torch.equal(dequantize_int8(whole, absmax, dtype), values.to(dtype))


def test_ties_round_to_even() -> None:
    row = torch.tensor([[127.0, 0.5, 1.5, 2.5, -0.5, -1.5, -126.5]])
    assert quantize_int8(row)[0].tolist() == [[127, 0, 2, 2, 0, -2, -126]]


def test_the_error_is_at_most_half_a_step() -> None:
    weight = normal(64, 256)
    whole, absmax = quantize_int8(weight)
    off = (dequantize_int8(whole, absmax, torch.float32) - weight).abs().amax(1)
    assert (off <= absmax / 127 / 2 * 1.0001).all()


def layer() -> Int8Linear:
    plain = nn.Linear(130, 96)
    with torch.no_grad():
        plain.weight.copy_(normal(96, 130))
    return Int8Linear.of(plain)


def test_a_layer_takes_a_byte_per_number_and_a_scale_per_row() -> None:
    quantized = layer()
    assert [name for name, _ in quantized.named_parameters()] == ["bias"]
    held = sum(buffer.nbytes for buffer in quantized.buffers())
    assert 8 * held / (96 * 130) == quantized.bits_per_weight == 8 + 32 / 130


def test_changing_the_models_dtype_changes_only_the_bias() -> None:
    quantized = layer()
    before = [tensor.clone() for tensor in quantized.packed_tensors]
    quantized.to(torch.bfloat16)
    assert quantized.bias is not None and quantized.bias.dtype == torch.bfloat16
    assert all(map(torch.equal, quantized.packed_tensors, before))


def test_outputs_and_gradients_equal_those_of_the_dequantized_weight() -> None:
    quantized = layer()
    whole = nn.Linear(130, 96)
    whole.weight = nn.Parameter(quantized.dequantized())
    whole.bias = nn.Parameter(quantized.bias.detach().clone())  # type: ignore[union-attr]
    results = []
    for one in (quantized, whole):
        x = normal(2, 5, 130).requires_grad_()
        y = one(x)
        (y * normal(2, 5, 96)).sum().backward()
        results.append((y, x.grad, one.bias.grad))
    for ours, theirs in zip(*results, strict=True):
        assert_close(ours, theirs, rtol=1e-6, atol=1e-5)


def test_compiling_changes_nothing(unchecked_types: None) -> None:
    quantized = layer()
    x = normal(5, 130)
    out = quantized(x)
    torch._dynamo.reset()
    quantized.compile(fullgraph=True, dynamic=False, backend="aot_eager_decomp_partition")
    assert_close(quantized(x), out)
    assert_close(quantized(x.requires_grad_()), out)
