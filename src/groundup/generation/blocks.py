"""Weights in the blocks of a GGUF file, which are multiplied without unpacking them first.

    q8_0    w = d q          d: float16, q: 32 numbers of 8 bits          34 bytes
    q4_0    w = d (q - 8)    d: float16, q: 32 numbers of 4 bits          18 bytes
    q4_1    w = d q + m      d and m: float16, q: 32 numbers of 4 bits    20 bytes

(llama.cpp's formats, ggml-common.h.) A decoding step reads every weight once, so it gets faster in
proportion to the bytes saved. Only weights are quantized: `kernel.c` multiplies a few rows in
float32 with the dequantized values. For many rows the matrix is first dequantized in their dtype,
and freed again afterwards.
"""

from __future__ import annotations

from collections.abc import Callable
from ctypes import byref
from typing import Literal, get_args

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from groundup.adapters.frozen import FrozenLinear
from groundup.errors import UserError
from groundup.generation.library import FLAGS, KINDS, Matrix, library
from groundup.kernels.linear import record_forward

BlockKind = Literal["q8_0", "q4_0", "q4_1"]
BLOCK_KINDS: tuple[BlockKind, ...] = get_args(BlockKind)
BLOCK_BYTES: dict[BlockKind, int] = {"q8_0": 34, "q4_0": 18, "q4_1": 20}
BLOCK = 32

# For more rows, dequantizing the matrix once is cheaper than reading its blocks repeatedly.
_MAX_ROWS = 32

Blocks = UInt8[Tensor, "rows bytes"]


def dequantize_blocks(
    blocks: Blocks, kind: BlockKind, dtype: torch.dtype = torch.float32
) -> Float[Tensor, "rows columns"]:
    """The values of the blocks, computed in float32 and rounded to `dtype`."""
    rows = blocks.shape[0]
    split = blocks.reshape(-1, BLOCK_BYTES[kind])
    head = 4 if kind == "q4_1" else 2
    scales = split[:, :head].contiguous().view(torch.float16).float()
    if kind == "q8_0":
        quants = split[:, head:].view(torch.int8).float()
    else:
        quants = torch.cat([split[:, head:] & 15, split[:, head:] >> 4], 1).float()
    if kind == "q4_0":
        quants -= 8
    numbers = quants * scales[:, :1]
    if kind == "q4_1":
        numbers += scales[:, 1:]
    return numbers.view(rows, -1).to(dtype)


@record_forward
class BlockLinear(FrozenLinear):
    """A linear layer whose weight stays in blocks."""

    def __init__(self, blocks: Blocks, kind: BlockKind, bias: nn.Parameter | None = None) -> None:
        super().__init__(blocks.shape[0], blocks.shape[1] // BLOCK_BYTES[kind] * BLOCK, bias)
        self.kind: BlockKind = kind
        self.register_packed(blocks=blocks)

    def matrix(self, bias: int | None = None) -> Matrix:
        """The weight as the kernel's struct; `bias` is the address of a float32 bias."""
        (blocks,) = self.packed_tensors
        kind = KINDS.index(self.kind)
        return Matrix(blocks.data_ptr(), bias, self.out_features, self.in_features, kind)

    @property
    def dequantize_fn(self) -> Callable[..., Tensor]:
        return self._dequantize

    def _dequantize(self, like: Tensor, blocks: Blocks) -> Float[Tensor, "out in"]:
        compiled = library(like.dtype) if _on_cpu(like, blocks) else None
        if compiled is None:
            return dequantize_blocks(blocks, self.kind, like.dtype)
        weight = torch.empty(self.out_features, self.in_features, dtype=like.dtype)
        compiled.dequantize(byref(self.matrix()), weight.data_ptr(), torch.get_num_threads())
        return weight

    def forward(self, x: Float[Tensor, "*rows in"]) -> Float[Tensor, "*rows out"]:
        (blocks,) = self.packed_tensors
        rows = x.numel() // self.in_features
        compiled = None
        if 0 < rows <= _MAX_ROWS and not torch.is_grad_enabled() and _on_cpu(x, blocks):
            compiled = library(x.dtype)
        if compiled is None:
            return super().forward(x)
        wide = x.float().contiguous()
        y = torch.empty(*x.shape[:-1], self.out_features, dtype=torch.float32)
        compiled.linear(
            byref(self.matrix()), rows, wide.data_ptr(), y.data_ptr(), torch.get_num_threads()
        )
        return (y if self.bias is None else y + self.bias).to(x.dtype)


class BlockEmbedding(nn.Module):
    """An embedding whose weight stays in blocks; `forward` dequantizes only the rows it returns."""

    def __init__(self, blocks: Blocks, kind: BlockKind, dtype: torch.dtype) -> None:
        super().__init__()
        self.kind: BlockKind = kind
        self.blocks = nn.Buffer(blocks)
        # Its dtype is that of the output, and follows `model.to`.
        self.like = nn.Buffer(torch.empty(0, dtype=dtype, device=blocks.device), persistent=False)

    def forward(self, ids: Int[Tensor, "*rows"]) -> Float[Tensor, "*rows width"]:
        rows = self.blocks[ids.reshape(-1)]
        return dequantize_blocks(rows, self.kind, self.like.dtype).view(*ids.shape, -1)


def refuse_blocks(model: nn.Module) -> None:
    """Raises `UserError` for a model with weights in blocks, which cannot be saved."""
    if any(isinstance(module, BlockLinear | BlockEmbedding) for module in model.modules()):
        raise UserError(
            "the model keeps its GGUF file's blocks, which are for generation only; load it "
            "without keep_quantized to save it"
        )


def _on_cpu(x: Tensor, blocks: Tensor) -> bool:
    return x.dtype in FLAGS and x.device.type == blocks.device.type == "cpu"
