"""What goes wrong with LoRA."""

import math

import torch
from torch import Tensor

REPLACES = {
    "scale_forgotten": "lora",
    "base_scaled_too": "lora",
    "base_left_out": "lora",
    "not_transposed": "lora",
    "both_zero": "start",
    "both_random": "start",
    "wide_start": "start",
    "scale_not_merged": "merged",
    "weight_changed": "merged",
    "merged_the_wrong_way": "merged",
}


def scale_forgotten(x: Tensor, base: Tensor, down: Tensor, up: Tensor, scale: float) -> Tensor:
    """The scale is not used: the update is s B A x, with s = alpha / r."""
    return base + x @ down.T @ up.T


def base_scaled_too(x: Tensor, base: Tensor, down: Tensor, up: Tensor, scale: float) -> Tensor:
    """The base is scaled too. Only the update is: W x stays as the model had it."""
    return scale * (base + x @ down.T @ up.T)


def base_left_out(x: Tensor, base: Tensor, down: Tensor, up: Tensor, scale: float) -> Tensor:
    """That is the update alone. It stands *beside* W x: add base."""
    return (x @ down.T * scale) @ up.T


def not_transposed(x: Tensor, base: Tensor, down: Tensor, up: Tensor, scale: float) -> Tensor:
    """The shapes do not fit: A is (r, in) and rows of x are (..., in), so A x is x @ A.T, and B
    alike."""
    return base + (x @ down * scale) @ up


def both_zero(rank: int, inputs: int, outputs: int) -> tuple[Tensor, Tensor]:
    """A and B are both zero: the gradient of each has the other as a factor, so neither would
    ever learn. Let A be random."""
    return torch.zeros(rank, inputs), torch.zeros(outputs, rank)


def both_random(rank: int, inputs: int, outputs: int) -> tuple[Tensor, Tensor]:
    """B is random too, so the model would not start as it was. Let B be zero."""
    bound = 1 / math.sqrt(inputs)
    up = torch.empty(outputs, rank).uniform_(-bound, bound)
    return torch.empty(rank, inputs).uniform_(-bound, bound), up


def wide_start(rank: int, inputs: int, outputs: int) -> tuple[Tensor, Tensor]:
    """A is drawn too widely. Its numbers lie between -1/sqrt(in) and 1/sqrt(in), so that A x is
    of the size of x's features."""
    return torch.randn(rank, inputs), torch.zeros(outputs, rank)


def scale_not_merged(weight: Tensor, down: Tensor, up: Tensor, scale: float) -> Tensor:
    """The scale is not merged: the model would change by merging. Add s B A."""
    return weight + up @ down


def weight_changed(weight: Tensor, down: Tensor, up: Tensor, scale: float) -> Tensor:
    """W itself was changed (+= works in place), and whoever else uses it would find another
    model. Return a new matrix."""
    weight += scale * (up @ down)
    return weight


def merged_the_wrong_way(weight: Tensor, down: Tensor, up: Tensor, scale: float) -> Tensor:
    """The product is A B, of shape (r, r). B A, `up @ down`, has W's shape."""
    return weight + scale * (down @ up)
