"""Block formats: the gguf package's bytes, and llama.cpp's."""

from __future__ import annotations

import gguf
import numpy as np
import pytest
import torch
from gguf import quants
from torch import Tensor

from groundup.errors import UserError
from groundup.formats.gguf import tensors as gguf_tensors
from groundup.formats.gguf.tensors import BLOCK_TYPES, dequantize, quantize

# Bits a number, and how far the numbers of a bell curve are off, in parts of their spread.
SIZES = {
    "q4_0": (4.5, 0.10), "q4_1": (5, 0.09), "q5_0": (5.5, 0.05), "q5_1": (6, 0.04),
    "q8_0": (8.5, 0.01), "q2_k": (2.625, 0.40), "q3_k": (3.4375, 0.20), "q4_k": (4.5, 0.09),
    "q5_k": (5.5, 0.05), "q6_k": (6.5625, 0.03),
}  # fmt: skip


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def kind_of(type: str) -> gguf.GGMLQuantizationType:
    return gguf.GGMLQuantizationType[type.upper()]


@pytest.mark.parametrize("type", BLOCK_TYPES)
@pytest.mark.parametrize("shape", [(256,), (3, 512), (2, 3, 256)])
def test_formats_round_trip(type: str, shape: tuple[int, ...]) -> None:
    bits, off = SIZES[type]
    tensor = normal(*shape)
    blocks = quantize(tensor, type)
    assert blocks.dtype == np.uint8 and blocks.shape[:-1] == shape[:-1]
    assert 8 * blocks.size / tensor.numel() == bits
    again = dequantize(blocks, type)
    assert again.shape == tensor.shape and again.dtype == torch.float32
    assert np.array_equal(again.numpy(), quants.dequantize(blocks, kind_of(type)))
    assert off / 3 < float((again - tensor).norm() / tensor.norm()) < off
    if not type.endswith("_k"):  # whose scales are searched for, and found elsewhere
        assert torch.allclose(dequantize(quantize(again, type), type), again, atol=1e-3)


@pytest.mark.parametrize("type", [type for type in BLOCK_TYPES if not type.endswith("_k")])
def test_bytes_equal_the_gguf_packages(type: str) -> None:
    for tensor in (normal(4, 64), torch.zeros(2, 32), torch.linspace(-3, 3, 96)):
        assert np.array_equal(
            quantize(tensor, type), quants.quantize(tensor.numpy(), kind_of(type))
        )
    assert np.array_equal(quantize(normal(2, 64).bfloat16(), type.upper()),
                          quantize(normal(2, 64).bfloat16().float(), type))  # fmt: skip


def test_more_bits_are_more_accurate() -> None:
    tensor = normal(64, 256)

    def error(type: str) -> float:
        return float((dequantize(quantize(tensor, type), type) - tensor).norm())

    for kinds in (
        ["q2_k", "q3_k", "q4_k", "q5_k", "q6_k"],
        ["q4_0", "q4_1", "q5_0", "q5_1", "q8_0"],
    ):
        errors = [error(kind) for kind in kinds]
        assert errors == sorted(errors, reverse=True)


@pytest.mark.parametrize("type", BLOCK_TYPES)
@pytest.mark.parametrize(
    ("tensor", "why"),
    [
        (torch.zeros(2, 40), "whole blocks"),
        (torch.zeros(0, 256), "whole blocks"),
        (torch.full((256,), torch.nan), "NaN"),
        (torch.full((256,), torch.inf), "infinite"),
        (torch.full((256,), 1e6), "beyond"),
    ],
)
def test_values_that_overflow_a_format_are_rejected(type: str, tensor: Tensor, why: str) -> None:
    with pytest.raises(UserError, match=why):
        quantize(tensor, type)


def test_other_formats_and_partial_rows_are_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="q4_0, q4_1"):
        quantize(normal(256), "iq2_xxs")
    with pytest.raises(UserError, match="whole blocks"):
        dequantize(quantize(normal(256), "q4_1")[:-1], "q4_1")
    monkeypatch.setattr(gguf_tensors, "BINDING", "no_such_binding")
    with pytest.raises(UserError, match=r"groundup\[llama-cpp\]"):
        quantize(normal(256), "q4_k")
