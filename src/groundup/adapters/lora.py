"""LoRA: leave a matrix as it is, and train a thin product beside it (Hu et al. 2021).

    y = W x + s B A x          W: (out, in), frozen;  A: (r, in);  B: (out, r);  s = alpha / r

What fine-tuning changes in a large matrix has low rank: an update of rank r takes r * (in + out)
numbers instead of in * out. B is zero at first, so the model starts as it was, and only A and B
have gradients and optimizer state. Afterwards s B A can be added to W (`merge`) and costs nothing
any more; or it stays beside it, and one W serves several adapters (`use_adapter`).

QLoRA is the same with W in 4 bits (see `nf4`): `add_lora(quantize(model))`. Small options:

    use_rslora    s = alpha / sqrt(r), so that large ranks learn as well (Kalajdzievski 2023)
    use_dora      y = m / |W + s B A| (W + s B A) x: the length of each row is trained apart, as m
                  (Liu et al. 2024, equation 5; |.| counts as a constant in backward, section 4.3)
    LoRA+         B learns faster than A (Hayou et al. 2024); `lora_parameters` tells them apart
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import dropout, linear

from groundup.adapters import modules_to_save
from groundup.adapters.frozen import FrozenLinear
from groundup.adapters.layers import chosen, dense
from groundup.errors import UserError

M = TypeVar("M", bound=nn.Module)


@dataclass(frozen=True)
class LoRA:
    """How one adapter changes one matrix."""

    rank: int
    alpha: float
    dropout: float = 0.0
    use_rslora: bool = False
    use_dora: bool = False

    @property
    def scale(self) -> float:
        """s, which keeps an update's size when the rank is another."""
        return self.alpha / (math.sqrt(self.rank) if self.use_rslora else self.rank)


class LoRALinear(nn.Module):
    """A linear layer with adapters beside it, of which one is active or none.

    `base_layer` is an `nn.Linear` or a quantized layer. Parameters carry PEFT's names. They may be
    of another type than x; products are computed in that of x.
    """

    def __init__(self, base_layer: nn.Linear | FrozenLinear) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.in_features, self.out_features = base_layer.in_features, base_layer.out_features
        self.lora_A = nn.ModuleDict()
        self.lora_B = nn.ModuleDict()
        self.lora_magnitude_vector = nn.ModuleDict()
        self.adapters: dict[str, LoRA] = {}
        self.active: str | None = None

    def forward(self, x: Float[Tensor, "*rows in"]) -> Float[Tensor, "*rows out"]:
        y: Tensor = self.base_layer(x)
        if self.active is None:
            return y
        lora, down, up = self.adapters[self.active], *self.factors(self.active, x.dtype)
        seen = dropout(x, lora.dropout) if self.training and lora.dropout else x
        # From right to left, so that B A is never formed, and scaled where rows are shortest.
        update = linear(linear(seen, down) * lora.scale, up)
        if not lora.use_dora:
            return y + update
        # As in PEFT, the part that DoRA takes away from W x, or adds, is of what dropout left.
        plain = y if seen is x else self.base_layer(seen)
        if self.base_layer.bias is not None:
            plain = plain - self.base_layer.bias
        scale = self._dora_scale(self.active).to(x.dtype)
        return y + (scale - 1) * plain + scale * update

    def factors(
        self, name: str, dtype: torch.dtype
    ) -> tuple[Float[Tensor, "rank in"], Float[Tensor, "out rank"]]:
        """A and B of an adapter, in that type."""
        return _weight(self.lora_A, name).to(dtype), _weight(self.lora_B, name).to(dtype)

    def add(self, name: str, lora: LoRA, generator: torch.Generator) -> None:
        """Put an adapter beside the base that changes nothing yet; float32, whatever the base is.

        A is uniform within 1 / sqrt(in), as in PEFT: kaiming's rule with a = sqrt(5).
        """
        device = next(iter(self.base_layer.state_dict().values())).device
        down = torch.empty(lora.rank, self.in_features)
        nn.init.kaiming_uniform_(down, a=math.sqrt(5), generator=generator)
        self.lora_A[name] = _Weight(down.to(device))
        self.lora_B[name] = _Weight(torch.zeros(self.out_features, lora.rank, device=device))
        if lora.use_dora:
            self.lora_magnitude_vector[name] = _Weight(_row_lengths(dense(self.base_layer)))
        self.adapters[name] = lora

    def own_parameters(self, name: str) -> Iterator[nn.Parameter]:
        """What an adapter trains here."""
        for parts in (self.lora_A, self.lora_B, self.lora_magnitude_vector):
            if name in parts:
                yield _weight(parts, name)

    @torch.no_grad()
    def merged(self, dtype: torch.dtype) -> nn.Linear | FrozenLinear:
        """Base and active adapter as one plain layer; the base itself where none is active.

        They are added in float32 and rounded once: to the base's type, or if it is quantized, which
        has none, to `dtype`.
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
        """DoRA's m / |W + s B A| for each output; no gradient flows through the length."""
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


# Adding.


def add_lora(
    model: M,
    rank: int = 16,
    alpha: float = 32.0,
    dropout: float = 0.0,
    targets: Sequence[str] | str | None = None,
    *,
    name: str = "default",
    use_rslora: bool = False,
    use_dora: bool = False,
    seed: int = 0,
) -> M:
    """Put an adapter on the model's linear layers, active and alone in being trained.

    Layers are swapped in place; by default all of the blocks, and never the output head. `targets`
    are their names or the ends of these (`q_proj`); one string is a regular expression for whole
    names. Another call with another `name` puts another adapter on the same base.

    Raises `UserError` for a rank that is no rank of a matrix, for targets and names that cannot be.
    """
    if not 0 <= dropout < 1:
        raise UserError(f"dropout={dropout} must be from 0 to less than 1; try 0.05")
    if not (alpha > 0 and math.isfinite(alpha)):
        raise UserError(f"alpha={alpha} must be a number greater than 0; try 2 * rank")
    layers = chosen(model, targets)
    for path, layer in layers.items():
        most = min(layer.in_features, layer.out_features)
        if not 1 <= rank <= most:
            raise UserError(
                f"rank={rank} must be from 1 to {most} for {path}, whose matrix is "
                f"{layer.out_features} x {layer.in_features}; take another rank, or leave this "
                "layer out of the targets"
            )
    lora = LoRA(rank, alpha, dropout, use_rslora, use_dora)
    return attach(model, dict.fromkeys(layers, lora), name=name, seed=seed)


def attach(model: M, loras: Mapping[str, LoRA], *, name: str = "default", seed: int = 0) -> M:
    """Put an adapter on the layers of these paths, each as it is said; see `add_lora`."""
    _check_name(model, name)
    generator = torch.Generator().manual_seed(seed)
    for path, lora in loras.items():
        layer = model.get_submodule(path)
        if not isinstance(layer, LoRALinear):
            layer = LoRALinear(cast(nn.Linear, layer))
            layer.train(model.training)
            model.set_submodule(path, layer)
        layer.add(name, lora, generator)
    train_only(model, name)
    use_adapter(model, name)
    return model


def _check_name(model: nn.Module, name: str) -> None:
    known = adapter_names(model)
    if name in known:
        raise UserError(
            f"the model already has an adapter called {name!r}; choose a name other than "
            f"{', '.join(known)}"
        )
    # Names become parts of parameters' paths and keys of an nn.ModuleDict.
    if not name or "." in name or hasattr(nn.ModuleDict, name):
        raise UserError(
            f"{name!r} cannot be an adapter's name; choose one without dots that is no word of "
            "torch's own, such as 'default'"
        )


# Choosing.


def adapter_names(model: nn.Module) -> list[str]:
    """The adapters that the model has, in the order in which they were put on."""
    layers = lora_layers(model).values()
    return list(dict.fromkeys(name for layer in layers for name in layer.adapters))


def active_adapter(model: nn.Module) -> str | None:
    """The adapter that the model now answers with."""
    actives = (part.active for part in model.modules() if isinstance(part, LoRALinear))
    return next((name for name in actives if name is not None), None)


def use_adapter(model: nn.Module, name: str | None) -> None:
    """Answer with that adapter, or with the base alone. What is trained stays as it is.

    Raises `UserError` for an adapter that the model does not have.
    """
    if name is not None:
        check_known(model, name)
    for layer in lora_layers(model).values():
        layer.active = name if name in layer.adapters else None
    modules_to_save.use(model, name)


def check_known(model: nn.Module, name: str) -> None:
    """Raise `UserError` for the name of an adapter that the model does not have."""
    known = adapter_names(model)
    if name not in known:
        there = f"it has {', '.join(known)}" if known else "it has none"
        raise UserError(f"the model has no adapter called {name!r}; {there}")


@contextmanager
def using_adapter(model: nn.Module, name: str | None) -> Iterator[None]:
    """Answer with that adapter for a while, then again as before."""
    before = active_adapter(model)
    use_adapter(model, name)
    try:
        yield
    finally:
        use_adapter(model, before)


def train_only(model: nn.Module, name: str) -> None:
    """Freeze everything but one adapter."""
    check_known(model, name)
    model.requires_grad_(False)
    for layer in lora_layers(model).values():
        for parameter in layer.own_parameters(name):
            parameter.requires_grad_()
    modules_to_save.freeze(model, but=name)


def lora_parameters(model: nn.Module) -> tuple[list[str], list[str]]:
    """The names of all trained A (with DoRA's magnitudes) and of all trained B.

    LoRA+ gives B a learning rate some 16 times that of A: at a large width both then contribute
    alike (Hayou et al. 2024).
    """
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    up = [name for name in trained if ".lora_B." in name]
    return [name for name in trained if ".lora_" in name and name not in up], up


# Merging.


@dataclass(frozen=True)
class _Merged:
    """What `merge` took away, and what it put there instead."""

    layers: dict[str, LoRALinear]
    replaced_by: Mapping[str, nn.Module]
    saved: modules_to_save.Saved
    trained: frozenset[str]


_MERGED = "merged_adapter"


def merge(model: M, *, reversible: bool = True) -> M:
    """Fold the active adapter into the base: W becomes W + s B A, and no adapter is left.

    The model is a plain one again, with plain names, and all of it can be trained. A quantized
    layer becomes a plain one of its dequantized weight plus the update. With `reversible`, what is
    replaced is kept for `unmerge`, and takes its memory.

    Raises `UserError` where no adapter is active.
    """
    if active_adapter(model) is None:
        raise UserError(
            "no adapter is active that could be merged; call use_adapter first with one of "
            f"{adapter_names(model)}"
        )
    trained = frozenset(name for name, p in model.named_parameters() if p.requires_grad)
    layers = lora_layers(model)
    plain = (p.dtype for name, p in model.named_parameters() if ".lora_" not in name)
    dtype = next(plain, torch.float32)
    replaced_by = {path: layer.merged(dtype) for path, layer in layers.items()}
    for path, layer in replaced_by.items():
        model.set_submodule(path, layer)
    taken = modules_to_save.pop_all(model)
    for parameter in model.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
    if reversible:
        # In a dataclass the old layers are no parts of the model, which has plain names.
        model.__dict__[_MERGED] = _Merged(layers, replaced_by, taken, trained)
    return model


def unmerge(model: M) -> M:
    """Bring back base and adapters as they were before `merge`, bit for bit.

    Nothing is subtracted: the old layers were kept. What was done to the merged weights since then
    (training, another type) is lost.

    Raises `UserError` where nothing was merged, or merged for good.
    """
    merged: _Merged | None = model.__dict__.pop(_MERGED, None)
    if merged is None:
        raise UserError("nothing is merged that could be unmerged; merge with reversible=True")
    for path, layer in merged.layers.items():
        if model.get_submodule(path) is not merged.replaced_by[path]:
            raise UserError(f"{path} was replaced after merging; load the model again")
        model.set_submodule(path, layer)
    modules_to_save.restore(model, merged.saved)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in merged.trained)
    return model
