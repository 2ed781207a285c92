"""Selecting the linear layers that an adapter changes, by name as in PEFT.

Names are paths such as `model.layers.0.self_attn.q_proj`. A list selects layers by these names or
their ends (`q_proj`, `self_attn.q_proj`); a single string is a regular expression for whole names,
or "all-linear".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

import regex
from jaxtyping import Float
from torch import Tensor, nn

from groundup.adapters.frozen import FrozenLinear
from groundup.errors import UserError

T = TypeVar("T")

ALL_LINEAR = "all-linear"
# A router has one row per expert, often fewer than an adapter's rank, and quantization errors must
# not change its decisions.
_ROUTER = ".mlp.gate"
# A foreign expression may never finish; honest ones take microseconds.
_SECONDS = 1.0


def linear_layers(model: nn.Module) -> dict[str, nn.Linear | FrozenLinear]:
    """The linear layers of the blocks, by path: those that can be quantized and adapted.

    Blocks are the modules of an `nn.ModuleList`, which excludes the output head; a model without
    such a list is one block. A layer with adapters is returned as its base layer, under its path.
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
    """The linear layers of the blocks that match `targets`, by path; None means all except the
    routers of a mixture of experts.

    Raises `UserError` for a target that matches nothing.
    """
    layers = linear_layers(model)
    if not layers:
        raise UserError(
            "the model's blocks have no linear layers, as in a recurrent network; adapters and "
            "4 bits are not supported: train the whole model"
        )
    if targets is None:
        layers = {path: one for path, one in layers.items() if not path.endswith(_ROUTER)}
        targets = ALL_LINEAR
    for one in [targets] if isinstance(targets, str) else targets:
        wanted = Targets(one if isinstance(targets, str) else (one,))
        if not any(map(wanted.match, layers)):
            ends = ", ".join(dict.fromkeys(path.rpartition(".")[2] for path in layers))
            remedy = f"the names are {ends}"
            if isinstance(targets, str):
                remedy = "one string is a regular expression for whole names: " + (
                    f"give [{one!r}] for the layers of that name"
                    if any(map(Targets((one,)).match, layers))
                    else f"write one, or a list of these names: {ends}"
                )
            raise UserError(f"{one!r} matches no linear layer of the model's blocks; {remedy}")
    wanted = Targets(targets if isinstance(targets, str) else tuple(targets))
    found = {path: layer for path, layer in layers.items() if wanted.match(path)}
    if not found:
        raise UserError("the list of targets is empty; name a layer, or omit targets for all")
    return found


def dense(layer: nn.Linear | FrozenLinear) -> Float[Tensor, "out in"]:
    """The matrix of a plain or a quantized layer, in float32."""
    return layer.weight.float() if isinstance(layer, nn.Linear) else layer.dequantized()


# Names.


@dataclass(frozen=True)
class Targets:
    """PEFT's `target_modules` and the settings that restrict them.

    `exclude` holds names or a regular expression, like `names`. `layers` are block numbers; empty
    means all. `layers_pattern` names the list whose blocks are counted. Modules in `whole` are
    saved as a whole and are no targets.
    """

    names: tuple[str, ...] | str
    exclude: tuple[str, ...] | str = ()
    layers: tuple[int, ...] = ()
    layers_pattern: tuple[str, ...] = ()
    whole: tuple[str, ...] = ()

    def match(self, name: str) -> bool:
        """Whether the layer of this name is selected."""
        if self.exclude and _matches_any(name, self.exclude):
            return False
        if any(_find(one, name, r"(^|.*\.){}($|\..*)") for one in self.whole):
            return False
        if isinstance(self.names, str) or name in self.names or not self.layers:
            return _matches_any(name, self.names)
        return _matches_any(name, self.names) and self._block(name) in self.layers

    def _block(self, name: str) -> int | None:
        """A layer's block number: the first in its name, or the one after `layers_pattern`."""
        lists = self.layers_pattern or (r"[^.]*",)
        opening = r"(?:^|.*?\.)" if self.layers_pattern else r".*?\."
        found = (_find(one, name, opening + r"{}\.(?P<block>\d+)\.") for one in lists)
        return next((int(match["block"]) for match in found if match), None)


def _matches_any(name: str, names: tuple[str, ...] | str) -> bool:
    if isinstance(names, str):
        return names.lower() == ALL_LINEAR or _find(names, name) is not None
    return any(name == one or name.endswith(f".{one}") for one in names)


def by_pattern(patterns: Mapping[str, T], name: str, default: T) -> T:
    """The value of the first pattern that matches the name or its end after a dot.

    PEFT's `rank_pattern` and `alpha_pattern`: names that are regular expressions.
    """
    found = (value for key, value in patterns.items() if _find(key, name, r"(.*\.)?({})$"))
    return next(found, default)


def _find(pattern: str, name: str, within: str | None = None) -> regex.Match[str] | None:
    """Match the whole name, or the start of it with `within`, where the pattern replaces {}."""
    try:
        if within is None:
            return _compiled(pattern).fullmatch(name, timeout=_SECONDS)
        return _compiled(within.replace("{}", pattern)).match(name, timeout=_SECONDS)
    except (regex.error, RecursionError) as error:
        fault = f"is not a regular expression ({error})"
    except TimeoutError:
        fault = f"takes too long to match {name}"
    shown = pattern if len(pattern) <= 80 else f"{pattern[:77]}…"
    raise UserError(f"the name {shown!r} {fault}; use plain layer names such as q_proj")


@lru_cache(8_192)  # a large model may have a rank per layer, each tried on each layer
def _compiled(pattern: str) -> regex.Pattern[str]:
    return regex.compile(pattern)
