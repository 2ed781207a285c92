"""The linear layers of a model: plain, quantized, or with adapters beside them."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from groundup.adapters.frozen import FrozenLinear
from groundup.adapters.targets import ALL_LINEAR, Targets
from groundup.errors import UserError


def linear_layers(model: nn.Module) -> dict[str, nn.Linear | FrozenLinear]:
    """The linear layers of the blocks, by path: which can be quantized and adapted.

    Blocks are the modules of an `nn.ModuleList`, which excludes the output head; a model without
    such a list is one block. A layer with adapters is returned without them, under its own path.
    """
    lists = [path for path, part in model.named_modules() if isinstance(part, nn.ModuleList)]
    blocks = tuple(f"{path}." for path in lists) or ("",)
    linear = {
        path: layer
        for path, layer in model.named_modules()
        if path.startswith(blocks) and isinstance(layer, nn.Linear | FrozenLinear)
    }
    return {path.removesuffix(".base_layer"): layer for path, layer in linear.items()}


def chosen(
    model: nn.Module, targets: Sequence[str] | str | None
) -> dict[str, nn.Linear | FrozenLinear]:
    """The linear layers of the blocks that match `targets`, by path; None means all of them.

    Raises `UserError` for a target that matches none.
    """
    layers = linear_layers(model)
    targets = ALL_LINEAR if targets is None else targets
    for one in [targets] if isinstance(targets, str) else targets:
        wanted = Targets(one if isinstance(targets, str) else (one,))
        if not any(map(wanted.match, layers)):
            kinds = dict.fromkeys(path.rpartition(".")[2] for path in layers)
            raise UserError(
                f"{one!r} matches no linear layer of the model's blocks; there are "
                f"{', '.join(kinds) or 'none'}"
            )
    wanted = Targets(targets if isinstance(targets, str) else tuple(targets))
    found = {path: layer for path, layer in layers.items() if wanted.match(path)}
    if not found:
        raise UserError("the list of targets is empty; name a layer, or leave targets out for all")
    return found


def dense(layer: nn.Linear | FrozenLinear) -> Float[Tensor, "out in"]:
    """The matrix of a plain or a quantized layer, in float32."""
    return layer.weight.float() if isinstance(layer, nn.Linear) else layer.dequantized()
