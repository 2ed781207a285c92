"""Activations: nonlinear functions between linear layers, which would otherwise be one linear map.

All except `Softmax` act on each number separately. Important properties: a slope near zero over a
wide range stops gradients there, and a mean far from zero shifts the next layer.

    ReLU       max(x, 0)                       slope 0 or 1; a unit can die
    LeakyReLU  max(x, 0) + a min(x, 0)         units do not die
    ELU        x, or a (exp(x) - 1) below 0    mean closer to 0
    Sigmoid    1 / (1 + exp(-x))               saturates at 0 and 1; slope at most 1/4
    Tanh       2 sigmoid(2x) - 1               saturates at -1 and 1; slope 1 at 0
    Softplus   log(1 + exp(x))                 a smooth ReLU; its slope is the sigmoid
    SiLU       x sigmoid(x)                    smooth, slightly negative on the left
    GELU       x Φ(x)                          likewise, with the normal distribution's Φ
"""

from __future__ import annotations

from typing import Any, Literal, TypeVar

from jaxtyping import Float

from groundup.maths.ops import gelu, silu
from groundup.maths.tensor import Tensor, where
from groundup.nn.module import Module

T = TypeVar("T", bound=Any)
"""A tensor of either engine, ours or torch's."""


def softplus(x: T) -> T:
    """Compute log(1 + exp(x)) without overflow, as logaddexp(x, 0), on either engine.

    max(x, 0) + log(1 + exp(-|x|)) would have wrong second derivatives at 0.
    """
    result: T = x.logaddexp(x.new_zeros(()))
    return result


class Activation(Module):
    """An elementwise function."""


class ReLU(Activation):
    """max(x, 0) (Nair and Hinton 2010)."""

    def forward(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        return x.relu()


class LeakyReLU(Activation):
    """x, or below 0 `negative_slope` times x (Maas, Hannun and Ng 2013)."""

    def __init__(self, negative_slope: float = 0.01) -> None:
        self.negative_slope = negative_slope

    def forward(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        return where(x > 0, x, self.negative_slope * x)

    def extra_repr(self) -> str:
        return f"negative_slope={self.negative_slope}"


class ELU(Activation):
    """x, or below 0 `alpha` (exp(x) - 1) (Clevert, Unterthiner and Hochreiter 2015)."""

    def __init__(self, alpha: float = 1.0) -> None:
        self.alpha = alpha

    def forward(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        # Clamped, since an infinite exp on the unused side would make its gradient 0 · inf.
        return where(x > 0, x, self.alpha * x.clamp(max=0.0).expm1())

    def extra_repr(self) -> str:
        return f"alpha={self.alpha}"


class Sigmoid(Activation):
    """1 / (1 + exp(-x))."""

    def forward(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        return x.sigmoid()


class Tanh(Activation):
    """The hyperbolic tangent."""

    def forward(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        return x.tanh()


class Softplus(Activation):
    """log(1 + exp(beta x)) / beta (Dugas et al. 2001)."""

    def __init__(self, beta: float = 1.0) -> None:
        self.beta = beta

    def forward(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        return softplus(x * self.beta) / self.beta

    def extra_repr(self) -> str:
        return f"beta={self.beta}"


class SiLU(Activation):
    """x sigmoid(x) (Elfwing, Uchibe and Doya 2017)."""

    def forward(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        return silu(x)


class GELU(Activation):
    """x Φ(x), or with `approximate="tanh"` an approximation (Hendrycks and Gimpel 2016)."""

    def __init__(self, approximate: Literal["none", "tanh"] = "none") -> None:
        self.approximate = approximate

    def forward(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        return gelu(x, self.approximate)

    def extra_repr(self) -> str:
        return f"approximate={self.approximate!r}"


class Softmax(Module):
    """exp(x) / Σ exp(x) along one dimension: positive numbers that sum to 1."""

    def __init__(self, dim: int) -> None:
        self.dim = dim

    def forward(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        return x.softmax(self.dim)

    def extra_repr(self) -> str:
        return f"dim={self.dim}"
