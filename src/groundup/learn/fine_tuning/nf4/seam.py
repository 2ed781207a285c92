"""Puts the learner's four bits into quantized layers."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from math import prod
from types import ModuleType

import torch
from torch import Tensor
from torch.nn.functional import pad

from groundup.adapters import nf4
from groundup.adapters.quantization import quantize, quantized_layers
from groundup.learn.plain import all_replaced
from groundup.learn.small import losses, replies, small_model

USED_BY = "QLoRA (--adapter qlora) of groundup sft, dpo and other stages, and models loaded in NF4"


def swap(part: ModuleType) -> AbstractContextManager[None]:
    """Last blocks that are shorter are filled with zeros; FP4 stays the product's."""
    product = (nf4.quantize_4bit, nf4.dequantize_4bit)

    def quantize_4bit(
        weight: Tensor, kind: nf4.FourBitKind = "nf4", block_size: int = 64
    ) -> tuple[Tensor, Tensor]:
        if kind != "nf4":
            return product[0](weight, kind, block_size)
        flat = weight.reshape(-1).float()
        count = flat.numel() + flat.numel() % 2
        whole = pad(flat, (0, -flat.numel() % block_size))
        code = nf4.CODES[kind].to(weight.device)
        indices, absmax = part.quantize(whole, code, block_size)
        return part.pack(indices[:count]), absmax

    def dequantize_4bit(
        packed: Tensor,
        absmax: Tensor,
        kind: nf4.FourBitKind,
        block_size: int,
        shape: Sequence[int],
        dtype: torch.dtype,
    ) -> Tensor:
        if kind != "nf4":
            return product[1](packed, absmax, kind, block_size, shape, dtype)
        whole = pad(packed, (0, len(absmax) * block_size // 2 - len(packed)))
        code = nf4.CODES[kind].to(packed.device)
        numbers: Tensor = part.dequantize(whole, absmax, code, block_size)
        return numbers[: prod(shape)].view(tuple(shape)).to(dtype)

    return all_replaced(
        (nf4, "quantize_4bit", quantize_4bit), (nf4, "dequantize_4bit", dequantize_4bit)
    )


def try_it() -> list[float]:
    """Replies and losses of a small model in four bits, and the bytes of a matrix."""
    model = quantize(small_model(), targets=["up_proj", "q_proj"])
    [layer, *_] = quantized_layers(model).values()
    return [*replies(model), *losses(model), *layer.packed_tensors[0][:40].tolist()]
