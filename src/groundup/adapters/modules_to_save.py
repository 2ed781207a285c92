"""Parameters that an adapter replaces entirely.

PEFT's `modules_to_save` (a norm, the output head, the embeddings) and trained biases: a low-rank
product does not suit parameters so small, or so changed. The model keeps its structure: while an
adapter is active, its parameters take the places of the base's.

Paths are those of the base model (`….q_proj.bias`), whether or not the layer has adapters.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

# Per adapter, by path; None holds the base's own parameters wherever an adapter replaces them.
Saved = dict[str | None, dict[str, nn.Parameter]]

# A plain dictionary is not registered with the module: names and state stay those of the base.
_ATTRIBUTE = "modules_to_save"


def parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """The model's parameters by path; a tied parameter has several paths."""
    everything = model.named_parameters(remove_duplicate=False)
    return {path.replace(".base_layer.", "."): parameter for path, parameter in everything}


def add(model: nn.Module, name: str, tensors: Mapping[str, Tensor]) -> None:
    """Store the tensors with which an adapter replaces the parameters at these paths."""
    if not tensors:
        return
    own, saved = parameters(model), _saved(model)
    base = saved.setdefault(None, {})
    base |= {path: own[path] for path in tensors if path not in base}
    saved[name] = {path: nn.Parameter(tensor) for path, tensor in tensors.items()}


def of(model: nn.Module, name: str) -> dict[str, nn.Parameter]:
    """The parameters of an adapter that replace the base's, by path."""
    return _saved(model).get(name, {})


def use(model: nn.Module, name: str | None) -> None:
    """Put an adapter's parameters into the model, and the base's where it has none."""
    saved = _saved(model)
    for path, parameter in (saved.get(None, {}) | saved.get(name, {})).items():
        owner, _, leaf = path.rpartition(".")
        module = model.get_submodule(owner)
        module = getattr(module, "base_layer", module)
        here = module.get_parameter(leaf)
        # The model may have been moved or converted while this parameter was not part of it.
        parameter.data = parameter.data.to(here.device, here.dtype)
        setattr(module, leaf, parameter)


def freeze(model: nn.Module, *, but: str) -> None:
    """Make the parameters of one adapter trainable, and freeze those of the others."""
    for name, replaced in _saved(model).items():
        for parameter in replaced.values():
            parameter.requires_grad_(name == but)


def pop_all(model: nn.Module) -> Saved:
    """Drop all stored parameters and keep those now in the model; returns them for `restore`."""
    taken = dict(_saved(model))
    _saved(model).clear()
    return taken


def restore(model: nn.Module, taken: Saved) -> None:
    _saved(model).update(taken)


def _saved(model: nn.Module) -> Saved:
    found: Saved = model.__dict__.setdefault(_ATTRIBUTE, {})
    return found
