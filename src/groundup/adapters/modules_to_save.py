"""Parameters that an adapter replaces as a whole, and that come and go with it.

PEFT's `modules_to_save` (a norm, the output head, the embeddings) and trained biases: so small, or
so changed, that a product of low rank would not do. The model keeps its shape: while an
adapter is active, its own parameters stand in the places of the base's.

Paths are those of the base alone (`….q_proj.bias`), whether or not the layer has adapters.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

# Of each adapter, by path; under None, the base's own wherever any adapter replaces them.
Saved = dict[str | None, dict[str, nn.Parameter]]

# A dictionary is no part of a module: names and state stay those of the base.
_ATTRIBUTE = "modules_to_save"


def parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """The model's parameters by path; one that is tied has several."""
    everything = model.named_parameters(remove_duplicate=False)
    return {path.replace(".base_layer.", "."): parameter for path, parameter in everything}


def add(model: nn.Module, name: str, tensors: Mapping[str, Tensor]) -> None:
    """Store the tensors that an adapter puts in the place of the parameters of these paths."""
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
    """Put that adapter's parameters into the model, and the base's wherever it has none."""
    saved = _saved(model)
    for path, parameter in (saved.get(None, {}) | saved.get(name, {})).items():
        owner, _, leaf = path.rpartition(".")
        module = model.get_submodule(owner)
        module = getattr(module, "base_layer", module)
        here = module.get_parameter(leaf)
        # The model may have been moved or converted while this parameter was not in it.
        parameter.data = parameter.data.to(here.device, here.dtype)
        setattr(module, leaf, parameter)


def freeze(model: nn.Module, *, but: str) -> None:
    """Make one adapter's parameters trainable, and no others of these."""
    for name, replaced in _saved(model).items():
        for parameter in replaced.values():
            parameter.requires_grad_(name == but)


def pop_all(model: nn.Module) -> Saved:
    """Forget all of them, and leave what now stands in the model; returns them for `restore`."""
    taken = dict(_saved(model))
    _saved(model).clear()
    return taken


def restore(model: nn.Module, taken: Saved) -> None:
    _saved(model).update(taken)


def _saved(model: nn.Module) -> Saved:
    found: Saved = model.__dict__.setdefault(_ATTRIBUTE, {})
    return found
