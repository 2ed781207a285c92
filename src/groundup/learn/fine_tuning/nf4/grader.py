"""Grades NF4 by `groundup.adapters.nf4`, whose bytes are those of bitsandbytes."""

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from groundup.adapters.nf4 import CODES, dequantize_4bit, quantize_4bit
from groundup.learn.exercise import Trial, calls

_trial = partial(Trial, rtol=1e-5, atol=1e-7)


def trials(seed: int) -> Iterator[Trial]:
    generator = torch.Generator().manual_seed(seed)
    code = CODES["nf4"]
    outlier = torch.tensor([0.05, -8.0, 0.01, 0.02, 0.3, -0.1, 0.0, 0.05])
    zeros = torch.tensor([0.0, 0.0, 0.0, 0.0, 1.0, -0.5, 0.25, 0.0])
    drawn = torch.randn(256, generator=generator)
    for name, flat, block_size in (
        ("four numbers", torch.tensor([0.3, -0.1, 0.0, 0.05]), 4),
        ("two blocks, one with an outlier", outlier, 4),
        ("a block of zeros", zeros, 4),
        ("two blocks of tiny numbers", torch.tensor([1e-4, -3e-5, 5e-5, 0, 8e-9, 1e-9, 0, 0]), 4),
        ("256 numbers", drawn, 64),
    ):
        packed, absmax = quantize_4bit(flat, "nf4", block_size)
        shown = {"flat": flat, "code": code, "block_size": block_size}
        for at, what, expected in ((0, "indices", _indices(packed)), (1, "absmax", absmax)):
            yield _trial(
                f"{what} of {name}",
                calls("quantize", flat, code, block_size, at=at),
                expected,
                shown,
            )
        indices = _indices(packed)
        yield _trial(
            f"pack the indices of {name}",
            calls("pack", indices),
            packed,
            {"indices": indices},
        )
        yield Trial(
            f"the dtype of the result of pack, {name}",
            calls("pack", indices, via=_type),
            "torch.uint8",
            {"indices": indices},
        )
        yield _trial(
            f"dequantize {name}",
            calls("dequantize", packed, absmax, code, block_size),
            dequantize_4bit(packed, absmax, "nf4", block_size, flat.shape, torch.float32),
            {"packed": packed, "absmax": absmax, "code": code, "block_size": block_size},
        )


def _type(pack: Callable[[Tensor], Tensor], indices: Tensor) -> str:
    return str(pack(indices).dtype)


def _indices(packed: Tensor) -> Tensor:
    return torch.tensor([half for byte in packed.tolist() for half in (byte // 16, byte % 16)])
