"""The commonest mistakes in four bits."""

import warnings

import torch
from torch import Tensor

REPLACES = {
    "one_scale_for_all": "quantize",
    "largest_number": "quantize",
    "rounded_down": "quantize",
    "evenly_spaced": "quantize",
    "zeros_divided": "quantize",
    "small_blocks_clamped": "quantize",
    "low_bits_first": "pack",
    "no_bytes": "pack",
    "halves_side_by_side": "pack",
    "unpacked_low_first": "dequantize",
    "scale_left_out": "dequantize",
    "divided_by_scale": "dequantize",
    "signed_distance": "quantize",
    "values_for_indices": "quantize",
    "scales_in_turn": "dequantize",
    "bytes_for_indices": "dequantize",
    "halves_behind_each_other": "dequantize",
}


def _nearest(scaled: Tensor, code: Tensor) -> Tensor:
    return torch.bucketize(scaled, (code[:-1] + code[1:]) / 2).flatten()


def one_scale_for_all(flat: Tensor, code: Tensor, block_size: int) -> tuple[Tensor, Tensor]:
    """One largest magnitude is used for the whole tensor. Each block has its own, so that an
    outlier harms only its own block."""
    absmax = flat.abs().max().clamp(min=1e-38).repeat(len(flat) // block_size)
    return _nearest(flat / absmax[0], code), absmax


def largest_number(flat: Tensor, code: Tensor, block_size: int) -> tuple[Tensor, Tensor]:
    """A block is divided by its largest *number*. A negative one may be larger in magnitude:
    take abs first."""
    blocks = flat.view(-1, block_size)
    absmax = blocks.amax(1)
    safe = torch.where(absmax == 0, 1e-38, absmax)
    return _nearest(blocks / safe[:, None], code), absmax


def rounded_down(flat: Tensor, code: Tensor, block_size: int) -> tuple[Tensor, Tensor]:
    """Each number gets the next value *below* it. Take the nearest one: compare with the midpoints
    between two values."""
    blocks = flat.view(-1, block_size)
    absmax = blocks.abs().amax(1)
    scaled = blocks / absmax.clamp(min=1e-38)[:, None]
    return (torch.bucketize(scaled, code, right=True) - 1).clamp(0, 15).flatten(), absmax


def evenly_spaced(flat: Tensor, code: Tensor, block_size: int) -> tuple[Tensor, Tensor]:
    """The indices are evenly spaced from -1 to 1. The values of the code are not evenly spaced:
    find the nearest of them."""
    blocks = flat.view(-1, block_size)
    absmax = blocks.abs().amax(1)
    scaled = blocks / absmax.clamp(min=1e-38)[:, None]
    return ((scaled + 1) * 7.5).round().long().flatten(), absmax


def zeros_divided(flat: Tensor, code: Tensor, block_size: int) -> tuple[Tensor, Tensor]:
    """A block of zeros is divided by zero: 0 / 0 is NaN, which has no nearest value. Divide by
    something tiny instead (clamp)."""
    blocks = flat.view(-1, block_size)
    absmax = blocks.abs().amax(1)
    distances = (blocks / absmax[:, None])[..., None] - code
    return distances.abs().argmin(-1).flatten(), absmax


def low_bits_first(indices: Tensor) -> Tensor:
    """The first index is in the low bits. It belongs in the high ones: first * 16 + second."""
    halves = indices.to(torch.uint8)
    return halves[1::2] << 4 | halves[0::2]


def no_bytes(indices: Tensor) -> Tensor:
    """The result is not a tensor of bytes: 64-bit integers take eight times the memory. Convert to
    torch.uint8."""
    return indices[0::2] * 16 + indices[1::2]


def halves_side_by_side(indices: Tensor) -> Tensor:
    """The first half of the indices is packed with the second half. Neighbors should share a byte:
    0 with 1, 2 with 3."""
    first, second = indices.to(torch.uint8).chunk(2)
    return first << 4 | second


def unpacked_low_first(packed: Tensor, absmax: Tensor, code: Tensor, block_size: int) -> Tensor:
    """The low bits come first. The first index of each pair is in the high bits."""
    indices = torch.stack((packed & 15, packed >> 4), dim=1).flatten()
    return (code[indices.long()].view(-1, block_size) * absmax[:, None]).flatten()


def scale_left_out(packed: Tensor, absmax: Tensor, code: Tensor, block_size: int) -> Tensor:
    """The scales are not used: multiply each block by its absmax."""
    return code[torch.stack((packed >> 4, packed & 15), dim=1).flatten().long()]


def divided_by_scale(packed: Tensor, absmax: Tensor, code: Tensor, block_size: int) -> Tensor:
    """Blocks are divided by their scales again. They were divided when quantized: multiply now."""
    indices = torch.stack((packed >> 4, packed & 15), dim=1).flatten()
    return (code[indices.long()].view(-1, block_size) / absmax[:, None]).flatten()


def small_blocks_clamped(flat: Tensor, code: Tensor, block_size: int) -> tuple[Tensor, Tensor]:
    """Blocks of small numbers are divided by more than their absmax, so they fall near zero. The
    constant that avoids 0 / 0 must be far below any weight: clamp(min=1e-38)."""
    blocks = flat.view(-1, block_size)
    absmax = blocks.abs().amax(1)
    return _nearest(blocks / absmax.clamp(min=1e-3)[:, None], code), absmax


def signed_distance(flat: Tensor, code: Tensor, block_size: int) -> tuple[Tensor, Tensor]:
    """The distances have signs, so the smallest is the one to the largest value. Take abs before
    argmin."""
    blocks = flat.view(-1, block_size)
    absmax = blocks.abs().amax(1)
    scaled = blocks / absmax.clamp(min=1e-38)[:, None]
    return (scaled[..., None] - code).argmin(-1).flatten(), absmax


def values_for_indices(flat: Tensor, code: Tensor, block_size: int) -> tuple[Tensor, Tensor]:
    """These are the values themselves. Return the *index* of each, which fits in four bits."""
    blocks = flat.view(-1, block_size)
    absmax = blocks.abs().amax(1)
    return code[_nearest(blocks / absmax.clamp(min=1e-38)[:, None], code)], absmax


def scales_in_turn(packed: Tensor, absmax: Tensor, code: Tensor, block_size: int) -> Tensor:
    """The scales alternate from number to number. A whole block shares one scale: view(-1,
    block_size) * absmax[:, None], or repeat_interleave."""
    indices = torch.stack((packed >> 4, packed & 15), dim=1).flatten()
    return code[indices.long()] * absmax.repeat(block_size)


def bytes_for_indices(packed: Tensor, absmax: Tensor, code: Tensor, block_size: int) -> Tensor:
    """torch treats an index of type uint8 as a mask. Convert it to integers first: .long()."""
    indices = torch.stack((packed >> 4, packed & 15), dim=1).flatten()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # by which torch says so
        return (code[indices].view(-1, block_size) * absmax[:, None]).flatten()


def halves_behind_each_other(
    packed: Tensor, absmax: Tensor, code: Tensor, block_size: int
) -> Tensor:
    """All high halves come before all low ones. The two indices of a byte belong side by side:
    stack them along a new last dimension, and flatten."""
    indices = torch.cat((packed >> 4, packed & 15)).long()
    return (code[indices].view(-1, block_size) * absmax[:, None]).flatten()
