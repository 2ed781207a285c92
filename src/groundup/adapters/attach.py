"""Adapters on a model: put on, chosen by name, trained, merged.

    add_lora(model, rank=16)                  one adapter, active and alone in being trained
    add_lora(model, rank=4, name="other")     another one on the same base
    use_adapter(model, None)                  the model answers as its base does
    merge(model)                              the active adapter becomes part of the weights

`lora` has what happens in one layer, `modules_to_save` the parameters that an adapter replaces.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from numbers import Integral
from typing import TypeVar, cast

import torch
from torch import nn

from groundup.adapters import modules_to_save
from groundup.adapters.layers import chosen
from groundup.adapters.lora import LoRA, LoRALinear, lora_layers
from groundup.errors import UserError

M = TypeVar("M", bound=nn.Module)


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
    if not isinstance(rank, Integral) or isinstance(rank, bool):
        raise UserError(f"rank={rank} must be a whole number; try 16")
    layers = chosen(model, targets)
    for path, layer in layers.items():
        most = min(layer.in_features, layer.out_features)
        if not 1 <= rank <= most:
            raise UserError(
                f"rank={rank} must be from 1 to {most} for {path}, whose matrix is "
                f"{layer.out_features} x {layer.in_features}; take another rank, or leave this "
                "layer out of the targets"
            )
    lora = LoRA(int(rank), alpha, dropout, use_rslora, use_dora)
    return attach(model, dict.fromkeys(layers, lora), name=name, seed=seed)


def attach(model: M, loras: Mapping[str, LoRA], *, name: str = "default", seed: int = 0) -> M:
    """Put an adapter on the layers of these paths, each with its own `LoRA`; see `add_lora`."""
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
    """The name of the active adapter, if any."""
    actives = (part.active for part in model.modules() if isinstance(part, LoRALinear))
    return next((name for name in actives if name is not None), None)


def use_adapter(model: nn.Module, name: str | None) -> None:
    """Make an adapter active, or none of them. What is trained stays as it is.

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
    """A context in which that adapter is active."""
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


# Merging.


@dataclass(frozen=True)
class _Merged:
    """The layers that `merge` replaced, and the layers that replace them."""

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
