"""LoRA: freeze a matrix and train a low-rank product added to it (Hu et al. 2021).

    y = W x + s B A x          W: (out, in), frozen;  A: (r, in);  B: (out, r);  s = alpha / r

Fine-tuning changes a large matrix by an update of low rank: rank r takes r * (in + out) numbers
instead of in * out. B starts at zero, so the model is unchanged at first, and only A and B have
gradients and optimizer state. Afterwards s B A can be added to W (`merge`) and costs nothing; or it
stays separate, and one W serves several adapters (`attach.use_adapter`).

QLoRA is the same with W in 4 bits (see `nf4`): `add_lora(quantize(model))`. Small options:

    use_rslora    s = alpha / sqrt(r), so that large ranks learn as well (Kalajdzievski 2023)
    use_dora      y = m / |W + s B A| (W + s B A) x: the norm of each row is a separate parameter m
                  (Liu et al. 2024, equation 5; |.| counts as a constant in backward, section 4.3)
    LoRA+         gives B a higher learning rate than A, some 16 times: at a large width both then
                  contribute alike (Hayou et al. 2024; see `train.optim`)
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import linear

from groundup.adapters.frozen import FrozenLinear
from groundup.adapters.layers import dense
from groundup.deprecated import renamed
from groundup.kernels.linear import record_forward


@dataclass(frozen=True)
class LoRA:
    """The settings of one adapter on one matrix."""

    rank: int
    alpha: float
    dropout: float = 0.0
    use_rslora: bool = False
    use_dora: bool = False

    @property
    def scale(self) -> float:
        """s, which makes the size of an update independent of the rank."""
        return self.alpha / (math.sqrt(self.rank) if self.use_rslora else self.rank)


@record_forward
class LoRALinear(nn.Module):
    """A linear layer with adapters, of which at most one is active.

    `base_layer` is an `nn.Linear` or a quantized layer. Parameters carry PEFT's names. Their dtype
    may differ from x's; products are computed in the dtype of x.
    """

    def __init__(self, base_layer: nn.Linear | FrozenLinear) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.in_features, self.out_features = base_layer.in_features, base_layer.out_features
        self.lora_A = nn.ModuleDict()
        self.lora_B = nn.ModuleDict()
        self.lora_magnitude_vector = nn.ModuleDict()
        self.lora_dropout = nn.ModuleDict()
        self.adapters: dict[str, LoRA] = {}
        self.active: str | None = None

    def forward(self, x: Float[Tensor, "*rows in"]) -> Float[Tensor, "*rows out"]:
        y: Tensor = self.base_layer(x)
        if self.active is None:
            return y
        lora, down, up = self.adapters[self.active], *self.factors(self.active, x.dtype)
        dropped: Tensor = self.lora_dropout[self.active](x)
        # Multiplied from right to left, so B A is never formed; scaled where rows are shortest.
        update = linear(linear(dropped, down) * lora.scale, up)
        if not lora.use_dora:
            return y + update
        # As in PEFT, DoRA rescales W x of the input after dropout.
        plain = y if dropped is x else self.base_layer(dropped)
        if self.base_layer.bias is not None:
            plain = plain - self.base_layer.bias
        scale = self._dora_scale(self.active).to(x.dtype)
        return y + (scale - 1) * plain + scale * update

    def split(
        self, dtype: torch.dtype
    ) -> tuple[nn.Module, Float[Tensor, "rank in"], Float[Tensor, "out rank"]] | None:
        """W's layer, s A and B if the output is just y = W x + B (s A) x: no DoRA, no dropout.

        Else None. Without an active adapter s A and B have rank 0.
        """
        name = self.active
        if name is None:
            empty = self._like.new_empty(0, dtype=dtype)
            return (
                self.base_layer,
                empty.view(0, self.in_features),
                empty.view(self.out_features, 0),
            )
        if self.adapters[name].use_dora:
            return None
        if self.training and isinstance(self.lora_dropout[name], nn.Dropout):
            return None
        down, up = self.factors(name, dtype)
        return self.base_layer, self.adapters[name].scale * down, up

    def factors(
        self, name: str, dtype: torch.dtype
    ) -> tuple[Float[Tensor, "rank in"], Float[Tensor, "out rank"]]:
        """A and B of an adapter, in `dtype`."""
        return _weight(self.lora_A, name).to(dtype), _weight(self.lora_B, name).to(dtype)

    def add(self, name: str, lora: LoRA, generator: torch.Generator) -> None:
        """Add an adapter, which changes nothing yet; always float32.

        A is uniform within 1 / sqrt(in), as in PEFT: kaiming's rule with a = sqrt(5).
        """
        device = self._like.device
        down = torch.empty(lora.rank, self.in_features)
        nn.init.kaiming_uniform_(down, a=math.sqrt(5), generator=generator)
        self.lora_A[name] = _Weight(down.to(device))
        self.lora_B[name] = _Weight(torch.zeros(self.out_features, lora.rank, device=device))
        if lora.use_dora:
            self.lora_magnitude_vector[name] = _Weight(_row_lengths(dense(self.base_layer)))
        drop = nn.Dropout(lora.dropout) if lora.dropout else nn.Identity()
        self.lora_dropout[name] = drop.train(self.training)
        self.adapters[name] = lora

    @property
    def _like(self) -> Tensor:
        """A tensor of the base, for its device."""
        like: Tensor = next(iter(self.base_layer.state_dict().values()))
        return like

    def own_parameters(self, name: str) -> Iterator[nn.Parameter]:
        """The adapter's parameters in this layer."""
        for parts in (self.lora_A, self.lora_B, self.lora_magnitude_vector):
            if name in parts:
                yield _weight(parts, name)

    @torch.no_grad()
    def merged(self, dtype: torch.dtype) -> nn.Linear | FrozenLinear:
        """Base and active adapter as one plain layer; the base itself if no adapter is active.

        The sum is computed in float32 and rounded once: to the base's dtype or, for a quantized
        base, to `dtype`.
        """
        base = self.base_layer
        if self.active is None:
            return base
        weight = self._sum(self.active)
        if self.adapters[self.active].use_dora:
            weight = self._dora_scale(self.active)[:, None] * weight
        layer = nn.Linear(self.in_features, self.out_features, base.bias is not None, "meta")
        own = base.weight.dtype if isinstance(base, nn.Linear) else dtype
        layer.weight = nn.Parameter(weight.to(own))
        if base.bias is not None:
            layer.bias = base.bias
        return layer

    def _sum(self, name: str) -> Float[Tensor, "out in"]:
        """W + s B A, in float32."""
        down, up = self.factors(name, torch.float32)
        return dense(self.base_layer) + self.adapters[name].scale * (up @ down)

    def _dora_scale(self, name: str) -> Float[Tensor, " out"]:
        """DoRA's m / |W + s B A| for each output; no gradient flows through the norm."""
        with torch.no_grad():
            lengths = _row_lengths(self._sum(name))
        return _weight(self.lora_magnitude_vector, name) / lengths


class _Weight(nn.Module):
    """One parameter, called `weight`."""

    def __init__(self, tensor: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(tensor)


def _weight(parts: nn.ModuleDict, name: str) -> nn.Parameter:
    return cast(_Weight, parts[name]).weight


def _row_lengths(matrix: Float[Tensor, "out in"]) -> Float[Tensor, " out"]:
    lengths: Tensor = torch.linalg.vector_norm(matrix, dim=1)
    return lengths


def lora_layers(model: nn.Module) -> dict[str, LoRALinear]:
    """The layers that have adapters, by path."""
    return {path: part for path, part in model.named_modules() if isinstance(part, LoRALinear)}


if not TYPE_CHECKING:  # names that moved to `attach`

    def __getattr__(name: str) -> Any:
        return renamed(__name__, name)
