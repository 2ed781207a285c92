"""Adapters on a model: add, select, train, merge.

    add_lora(model, rank=16)                  adds an adapter; it is active and alone trainable
    add_lora(model, rank=4, name="other")     adds another one to the same base
    use_adapter(model, None)                  the model answers as its base does
    merge(model)                              folds the active adapter into the weights

`lora` implements one layer, `modules_to_save` the parameters that an adapter replaces.
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
    """Add an adapter to the model's linear layers; it becomes active and alone trainable.

    Layers are replaced in place: by default all linear layers of the blocks, never the output head.
    `targets` are layer names or their ends (`q_proj`); a single string is a regular expression for
    whole names. Another call with another `name` adds another adapter to the same base.

    Raises `UserError` for an invalid rank, target or name.
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
                f"{layer.out_features} x {layer.in_features}; choose another rank, or leave this "
                "layer out of the targets"
            )
    lora = LoRA(int(rank), alpha, dropout, use_rslora, use_dora)
    return attach(model, dict.fromkeys(layers, lora), name=name, seed=seed)


def attach(model: M, loras: Mapping[str, LoRA], *, name: str = "default", seed: int = 0) -> M:
    """Add an adapter to the layers at these paths, each with its own `LoRA`; see `add_lora`."""
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
    # Names become parts of parameter paths and keys of an nn.ModuleDict.
    if not name or "." in name or hasattr(nn.ModuleDict(), name):
        raise UserError(
            f"{name!r} cannot be an adapter's name; choose a name without dots that is no "
            "attribute of nn.ModuleDict, such as 'default'"
        )


# Selection.


def adapter_names(model: nn.Module) -> list[str]:
    """The model's adapters, in the order in which they were added."""
    layers = lora_layers(model).values()
    return list(dict.fromkeys(name for layer in layers for name in layer.adapters))


def active_adapter(model: nn.Module) -> str | None:
    """The name of the active adapter, if any."""
    actives = (part.active for part in model.modules() if isinstance(part, LoRALinear))
    return next((name for name in actives if name is not None), None)


def use_adapter(model: nn.Module, name: str | None) -> None:
    """Activate an adapter, or none. Which parameters are trainable does not change.

    Raises `UserError` for an adapter that the model does not have.
    """
    if name is not None:
        check_known(model, name)
    for layer in lora_layers(model).values():
        layer.active = name if name in layer.adapters else None
    modules_to_save.use(model, name)


def check_known(model: nn.Module, name: str) -> None:
    """Raise `UserError` if the model has no adapter of this name."""
    known = adapter_names(model)
    if name not in known:
        there = f"it has {', '.join(known)}" if known else "it has none"
        raise UserError(f"the model has no adapter called {name!r}; {there}")


@contextmanager
def using_adapter(model: nn.Module, name: str | None) -> Iterator[None]:
    """A context in which the adapter is active."""
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

    The model has plain layers and names again, and all of it is trainable. A quantized layer
    becomes a plain one that holds its dequantized weight plus the update. With `reversible`, the
    replaced layers are kept in memory for `unmerge`.

    Raises `UserError` if no adapter is active.
    """
    if active_adapter(model) is None:
        raise UserError(
            f"no adapter is active; call use_adapter first with one of {adapter_names(model)}"
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
        # Inside a dataclass the old layers are not submodules, so parameter names stay plain.
        model.__dict__[_MERGED] = _Merged(layers, replaced_by, taken, trained)
    return model


def unmerge(model: M) -> M:
    """Restore base and adapters as they were before `merge`, bit for bit.

    Nothing is subtracted: `merge` kept the old layers. Later changes to the merged weights
    (training, another dtype) are lost.

    Raises `UserError` if nothing was merged, or not reversibly.
    """
    merged: _Merged | None = model.__dict__.pop(_MERGED, None)
    if merged is None:
        raise UserError("there is nothing to unmerge; merge with reversible=True")
    for path, layer in merged.layers.items():
        if model.get_submodule(path) is not merged.replaced_by[path]:
            raise UserError(f"{path} was replaced after merging; load the model again")
        model.set_submodule(path, layer)
    modules_to_save.restore(model, merged.saved)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in merged.trained)
    return model
