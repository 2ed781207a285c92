"""The commonest mistakes with LoRA."""

import math

import torch
from torch import Tensor

REPLACES = {
    "scale_forgotten": "lora",
    "base_scaled_too": "lora",
    "base_left_out": "lora",
    "not_transposed": "lora",
    "whole_matrix": "lora",
    "x_detached": "lora",
    "base_detached": "lora",
    "both_zero": "start",
    "both_random": "start",
    "wide_start": "start",
    "one_number": "start",
    "the_same_each_time": "start",
    "scale_not_merged": "merged",
    "weight_changed": "merged",
    "merged_the_wrong_way": "merged",
    "divided_by_the_rank_again": "lora",
    "other_one_zero": "start",
    "never_negative": "start",
    "b_before_a": "start",
    "update_alone": "merged",
}


def scale_forgotten(x: Tensor, base: Tensor, down: Tensor, up: Tensor, scale: float) -> Tensor:
    """The scale is not used: the update is s B A x, with s = alpha / r."""
    return base + x @ down.T @ up.T


def base_scaled_too(x: Tensor, base: Tensor, down: Tensor, up: Tensor, scale: float) -> Tensor:
    """The base is scaled too. Scale only the update: W x stays as it is in the model."""
    return scale * (base + x @ down.T @ up.T)


def base_left_out(x: Tensor, base: Tensor, down: Tensor, up: Tensor, scale: float) -> Tensor:
    """That is only the update. It is added to W x: add base."""
    return (x @ down.T * scale) @ up.T


def not_transposed(x: Tensor, base: Tensor, down: Tensor, up: Tensor, scale: float) -> Tensor:
    """The shapes do not fit: A is (r, in) and rows of x are (..., in), so A x is x @ A.T, and
    likewise for B."""
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
    """The numbers of A are drawn from too wide a range. They lie between -1/sqrt(in) and
    1/sqrt(in), so that A x has the size of x's features."""
    return torch.randn(rank, inputs), torch.zeros(outputs, rank)


def scale_not_merged(weight: Tensor, down: Tensor, up: Tensor, scale: float) -> Tensor:
    """The scale is not merged, so merging would change the model. Add s B A."""
    return weight + up @ down


def weight_changed(weight: Tensor, down: Tensor, up: Tensor, scale: float) -> Tensor:
    """W itself was changed (+= works in place), so any other user of W would get another model.
    Return a new matrix."""
    weight += scale * (up @ down)
    return weight


def merged_the_wrong_way(weight: Tensor, down: Tensor, up: Tensor, scale: float) -> Tensor:
    """The product is A B, of shape (r, r). B A, `up @ down`, has W's shape."""
    return weight + scale * (down @ up)


def whole_matrix(x: Tensor, base: Tensor, down: Tensor, up: Tensor, scale: float) -> Tensor:
    """B A is computed, a matrix as large as W, for each layer and step. Go through the r numbers:
    (x @ A.T) @ B.T, from left to right."""
    return base + scale * (x @ (up @ down).T)


def x_detached(x: Tensor, base: Tensor, down: Tensor, up: Tensor, scale: float) -> Tensor:
    """No gradient flows through the adapter to x, so earlier layers would learn only through W x.
    Only W is frozen."""
    return base + (x.detach() @ down.T * scale) @ up.T


def base_detached(x: Tensor, base: Tensor, down: Tensor, up: Tensor, scale: float) -> Tensor:
    """No gradient flows through base. W is frozen, but its input is not: earlier layers learn
    through W x, too."""
    return base.detach() + (x @ down.T * scale) @ up.T


def one_number(rank: int, inputs: int, outputs: int) -> tuple[Tensor, Tensor]:
    """A is not random: most of its numbers are the same, so its rows would learn alike. Draw each
    one uniformly between -1/sqrt(in) and 1/sqrt(in)."""
    return torch.full((rank, inputs), 0.5 / math.sqrt(inputs)), torch.zeros(outputs, rank)


def the_same_each_time(rank: int, inputs: int, outputs: int) -> tuple[Tensor, Tensor]:
    """Each call gives the same A, so all layers of the same size would start equal. Draw it without
    a fixed seed."""
    even = torch.linspace(-1, 1, rank * inputs).view(rank, inputs)
    return even / math.sqrt(inputs), torch.zeros(outputs, rank)


def divided_by_the_rank_again(
    x: Tensor, base: Tensor, down: Tensor, up: Tensor, scale: float
) -> Tensor:
    """The scale was divided by r. It is already alpha / r: use it as given."""
    return base + (x @ down.T * (scale / len(down))) @ up.T


def other_one_zero(rank: int, inputs: int, outputs: int) -> tuple[Tensor, Tensor]:
    """A is zero and B is random. That would train too, but here it is the opposite: A random, B
    zero, as in the paper."""
    bound = 1 / math.sqrt(inputs)
    return torch.zeros(rank, inputs), torch.empty(outputs, rank).uniform_(-bound, bound)


def never_negative(rank: int, inputs: int, outputs: int) -> tuple[Tensor, Tensor]:
    """A has no negative numbers: torch.rand goes from 0 to 1. Rescale it to -1 … 1: 2 x - 1."""
    return torch.rand(rank, inputs) / math.sqrt(inputs), torch.zeros(outputs, rank)


def b_before_a(rank: int, inputs: int, outputs: int) -> tuple[Tensor, Tensor]:
    """A and B are exchanged: A comes first, (rank, inputs)."""
    bound = 1 / math.sqrt(inputs)
    return torch.zeros(outputs, rank), torch.empty(rank, inputs).uniform_(-bound, bound)


def update_alone(weight: Tensor, down: Tensor, up: Tensor, scale: float) -> Tensor:
    """That is only the update, s B A. Merging adds it to W."""
    return scale * (up @ down)
