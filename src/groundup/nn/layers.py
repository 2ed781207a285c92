"""Layers: linear, embedding, layer norm, RMS norm, dropout, 1D convolution.

Names, shapes, initial values and the supported options are torch's, so weights can be exchanged
unchanged. `linear`, `layer_norm` and `rms_norm` are formulas for tensors of both engines, ours and
torch's. Every layer draws its initial values from `rng` (see `nn.init`) and is float32 by default.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Float, Integer
from numpy.typing import DTypeLike

from groundup.maths.arrays import ShapeError
from groundup.maths.ops import cat, stack
from groundup.maths.tensor import Tensor
from groundup.nn import init
from groundup.nn.init import Rng
from groundup.nn.module import Module

T = TypeVar("T", bound=Any)
"""A tensor of either engine, ours or torch's."""


def linear(x: T, weight: T, bias: Any = None) -> T:
    """Compute x Wᵀ + b for x (…, in), weight (out, in), bias (out)."""
    product = x @ weight.mT
    result: T = product if bias is None else product + bias
    return result


def layer_norm(x: T, weight: T, bias: T, eps: float) -> T:
    """Compute (x - mean) / √(variance + eps) · weight + bias over the dimensions that weight has.

    Source: Ba, Kiros and Hinton (2016), "Layer normalization".
    """
    if x.dtype.itemsize == 2:  # squares soon exceed the largest float16, 65,504
        wide: T = layer_norm(x.float(), weight.float(), bias.float(), eps).to(weight.dtype)
        return wide
    dims = tuple(range(-weight.ndim, 0))
    centered = x - x.mean(dims, keepdim=True)
    variance = centered.square().mean(dims, keepdim=True)
    result: T = centered * (variance + eps).rsqrt() * weight + bias
    return result


def rms_norm(x: T, weight: T, eps: float) -> T:
    """Compute x / √(mean of x² + eps) · weight over the dimensions that weight has.

    A layer norm without the mean and the bias, which proved unnecessary.
    Source: Zhang and Sennrich (2019), "Root mean square layer normalization".
    """
    if x.dtype.itemsize == 2:  # as in `layer_norm`
        wide: T = rms_norm(x.float(), weight.float(), eps).to(weight.dtype)
        return wide
    dims = tuple(range(-weight.ndim, 0))
    result: T = x * (x.square().mean(dims, keepdim=True) + eps).rsqrt() * weight
    return result


class Linear(Module):
    """y = x Wᵀ + b, with weight (out_features, in_features) and bias (out_features).

    Initial values are U(-b, b) with b = 1 / √in_features, as in torch.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        rng: Rng = None,
        dtype: DTypeLike = np.float32,
    ) -> None:
        _at_least(1, in_features=in_features, out_features=out_features)
        rng, bound = init.generator(rng), 1 / math.sqrt(in_features)
        self.in_features = in_features
        self.out_features = out_features
        self.weight = init.uniform_parameter((out_features, in_features), bound, rng, dtype)
        self.bias = init.uniform_parameter((out_features,), bound, rng, dtype) if bias else None

    def forward(
        self, x: Float[Tensor, "*batch in_features"]
    ) -> Float[Tensor, "*batch out_features"]:
        return linear(x, self.weight, self.bias)

    def extra_repr(self) -> str:
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, "
            f"bias={self.bias is not None}"
        )


class Embedding(Module):
    """Row number i of a table for each id i, with weight (num_embeddings, embedding_dim).

    Equivalent to a linear layer on one-hot vectors, without the products with 0. Initial values
    are N(0, 1), as in torch.
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        rng: Rng = None,
        dtype: DTypeLike = np.float32,
    ) -> None:
        _at_least(1, num_embeddings=num_embeddings, embedding_dim=embedding_dim)
        self.num_embeddings = num_embeddings
        self.embedding_dim = embedding_dim
        self.weight = init.normal_(
            Tensor(np.empty((num_embeddings, embedding_dim), dtype)), rng=rng
        )

    def forward(
        self, ids: Integer[Tensor, "*batch"] | Integer[np.ndarray, "*batch"]
    ) -> Float[Tensor, "*batch embedding_dim"]:
        """Look up ids; `ValueError` for an id outside the table."""
        rows = np.asarray(ids)
        if rows.dtype.kind not in "iu":
            raise ValueError(f"ids are {rows.dtype}; give integers, as an array or a tensor")
        wrong = (rows < 0) | (rows >= self.num_embeddings)
        if wrong.any():
            raise ValueError(
                f"id {rows[wrong][0]} is not one of the {self.num_embeddings} embeddings, "
                f"0 to {self.num_embeddings - 1}"
            )
        return self.weight[rows]

    def extra_repr(self) -> str:
        return f"{self.num_embeddings}, {self.embedding_dim}"


class LayerNorm(Module):
    """`layer_norm`: mean 0 and variance 1 over the last dimensions, then a weight and a bias."""

    def __init__(
        self,
        normalized_shape: int | np.integer | Sequence[int],
        eps: float = 1e-5,
        dtype: DTypeLike = np.float32,
    ) -> None:
        self.normalized_shape = _as_shape(normalized_shape)
        self.eps = eps
        self.weight = Tensor(np.ones(self.normalized_shape, dtype))
        self.bias = Tensor(np.zeros(self.normalized_shape, dtype))

    def forward(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        _ends_in(x, self.normalized_shape)
        return layer_norm(x, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return f"{self.normalized_shape}, eps={self.eps}"


class RMSNorm(Module):
    """`rms_norm`: mean square 1 over the last dimensions, then a weight.

    `eps` is by default the machine epsilon of the input's dtype, as in torch.
    """

    def __init__(
        self,
        normalized_shape: int | np.integer | Sequence[int],
        eps: float | None = None,
        dtype: DTypeLike = np.float32,
    ) -> None:
        self.normalized_shape = _as_shape(normalized_shape)
        self.eps = eps
        self.weight = Tensor(np.ones(self.normalized_shape, dtype))

    def forward(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        _ends_in(x, self.normalized_shape)
        x = x if x.dtype.kind == "f" else x.double()  # like the mean of integers
        eps = float(np.finfo(x.dtype).eps) if self.eps is None else self.eps
        return rms_norm(x, self.weight, eps)

    def extra_repr(self) -> str:
        return f"{self.normalized_shape}, eps={self.eps}"


class Dropout(Module):
    """Zeroes each number with probability p and scales the others by 1 / (1 - p): the mean stays.

    In evaluation mode it does nothing. The layer has its own generator, seeded by `rng`.
    Source: Srivastava et al. (2014), "Dropout".
    """

    def __init__(self, p: float = 0.5, rng: Rng = None) -> None:
        if not 0 <= p <= 1:
            raise ValueError(f"p={p} is not a probability; give a number from 0 to 1")
        self.p = p
        (self.rng,) = init.generator(rng).spawn(1)

    def forward(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        if not self.training or self.p == 0:
            return x
        kept = self.rng.random(x.shape, np.float32) >= self.p
        return x * np.multiply(kept, 1 / (1 - self.p) if self.p < 1 else 0.0, dtype=x.dtype)

    def extra_repr(self) -> str:
        return f"p={self.p}"


class Conv1d(Module):
    """A linear layer on each window of a signal x (n, in_channels, length).

    y[n, o, i] = b[o] + Σ_{c,k} W[o, c, k] · x[n, c, i · stride + k · dilation - padding]

    with zeros beyond the ends. The output is (n, out_channels, ⌊(length + 2 padding - dilation
    (kernel_size - 1) - 1) / stride⌋ + 1). Channels are split into `groups` without connections
    between them, so weight is (out_channels, in_channels / groups, kernel_size). Initial values are
    U(-b, b) with b = 1 / √fan_in, as in torch.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        padding: int = 0,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = True,
        rng: Rng = None,
        dtype: DTypeLike = np.float32,
    ) -> None:
        _at_least(1, in_channels=in_channels, out_channels=out_channels, kernel_size=kernel_size)
        _at_least(1, stride=stride, dilation=dilation, groups=groups)
        _at_least(0, padding=padding)
        if in_channels % groups or out_channels % groups:
            raise ValueError(
                f"groups={groups} does not divide in_channels={in_channels} and "
                f"out_channels={out_channels}; try {math.gcd(in_channels, out_channels)}"
            )
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel_size = kernel_size
        self.stride = stride
        self.padding = padding
        self.dilation = dilation
        self.groups = groups
        shape = (out_channels, in_channels // groups, kernel_size)
        rng, bound = init.generator(rng), 1 / math.sqrt(shape[1] * kernel_size)
        self.weight = init.uniform_parameter(shape, bound, rng, dtype)
        self.bias = init.uniform_parameter((out_channels,), bound, rng, dtype) if bias else None

    def forward(
        self, x: Float[Tensor, "n in_channels length"]
    ) -> Float[Tensor, "n out_channels positions"]:
        """Convolve; `ShapeError` for wrong channels or a signal shorter than one window."""
        reach = self.dilation * (self.kernel_size - 1) + 1
        fits = x.ndim == 3 and x.shape[1] == self.in_channels
        if not fits or x.shape[2] + 2 * self.padding < reach:
            raise ShapeError(
                f"an input of shape {x.shape} does not fit (n, {self.in_channels}, length) with "
                f"length + 2 · {self.padding} (padding) at least {reach}, which a window spans"
            )
        columns = self._windows(x)
        weight = self.weight.reshape(self.groups, self.out_channels // self.groups, -1)
        y = (weight @ columns).reshape(len(x), self.out_channels, columns.shape[-1])
        return y if self.bias is None else y + self.bias.unsqueeze(-1)

    def _windows(self, x: Tensor) -> Tensor:
        """Return windows as columns: (n, groups, in_channels / groups · kernel_size, positions).

        It takes one slice per kernel position, so gradients need no scattering.
        """
        if self.padding:
            zeros = x.new_zeros(*x.shape[:2], self.padding)
            x = cat([zeros, x, zeros], dim=2)
        last = x.shape[2] - self.dilation * (self.kernel_size - 1)
        starts = range(0, self.dilation * self.kernel_size, self.dilation)
        slices = stack([x[:, :, k : k + last : self.stride] for k in starts], dim=2)
        rows = self.in_channels // self.groups * self.kernel_size
        return slices.reshape(len(x), self.groups, rows, slices.shape[-1])

    def extra_repr(self) -> str:
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, "
            f"stride={self.stride}, padding={self.padding}, dilation={self.dilation}, "
            f"groups={self.groups}, bias={self.bias is not None}"
        )


def _at_least(least: int, **sizes: int) -> None:
    for name, size in sizes.items():
        if not isinstance(size, (int, np.integer)) or size < least:
            raise ValueError(f"{name}={size!r} must be a whole number from {least}")


def _as_shape(shape: int | np.integer | Sequence[int]) -> tuple[int, ...]:
    return (int(shape),) if isinstance(shape, (int, np.integer)) else tuple(shape)


def _ends_in(x: Tensor, shape: tuple[int, ...]) -> None:
    """Check the last dimensions, since broadcasting would accept a 1 there."""
    if x.shape[-len(shape) :] != shape:
        raise ShapeError(
            f"an input of shape {x.shape} does not end in {shape}, which is normalized"
        )
