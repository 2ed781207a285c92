"""The linear layers of a model, and which of them an adapter changes, by their names as in PEFT.

Names are paths such as `model.layers.0.self_attn.q_proj`. A list names layers by these or by their
ends (`q_proj`, `self_attn.q_proj`); one string is a regular expression for whole names, or
"all-linear".
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
# A router has a row for each expert, often fewer than an adapter's rank, and what it decides is
# not to hang on what 4 bits lose.
_ROUTER = ".mlp.gate"
# A stranger's expression may never end; honest ones take microseconds.
_SECONDS = 1.0


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
    """The linear layers of the blocks that match `targets`, by path; None means all of them but
    the routers of a mixture of experts.

    Raises `UserError` for a target that matches none.
    """
    layers = linear_layers(model)
    if not layers:
        raise UserError(
            "the model's blocks have no linear layers, as a recurrent network's have none; it "
            "takes no adapter and no 4 bits: train it whole"
        )
    if targets is None:
        layers = {path: one for path, one in layers.items() if not path.endswith(_ROUTER)}
        targets = ALL_LINEAR
    for one in [targets] if isinstance(targets, str) else targets:
        wanted = Targets(one if isinstance(targets, str) else (one,))
        if not any(map(wanted.match, layers)):
            ends = ", ".join(dict.fromkeys(path.rpartition(".")[2] for path in layers))
            remedy = f"there are {ends}"
            if isinstance(targets, str):
                remedy = "one string is a regular expression for whole names: " + (
                    f"give [{one!r}] for the layers of that name"
                    if any(map(Targets((one,)).match, layers))
                    else f"write one, or a list of names, of which there are {ends}"
                )
            raise UserError(f"{one!r} matches no linear layer of the model's blocks; {remedy}")
    wanted = Targets(targets if isinstance(targets, str) else tuple(targets))
    found = {path: layer for path, layer in layers.items() if wanted.match(path)}
    if not found:
        raise UserError("the list of targets is empty; name a layer, or leave targets out for all")
    return found


def dense(layer: nn.Linear | FrozenLinear) -> Float[Tensor, "out in"]:
    """The matrix of a plain or a quantized layer, in float32."""
    return layer.weight.float() if isinstance(layer, nn.Linear) else layer.dequantized()


# Names.


@dataclass(frozen=True)
class Targets:
    """PEFT's `target_modules` and what narrows them down.

    `exclude` are names or a regular expression as `names` are. `layers` are the numbers of the
    blocks that are meant, all where it is empty; `layers_pattern` are names of the list in which
    blocks are counted. What is saved as a whole, `whole`, is no target.
    """

    names: tuple[str, ...] | str
    exclude: tuple[str, ...] | str = ()
    layers: tuple[int, ...] = ()
    layers_pattern: tuple[str, ...] = ()
    whole: tuple[str, ...] = ()

    def match(self, name: str) -> bool:
        """Whether the layer of that name is one of them."""
        if self.exclude and _is_among(name, self.exclude):
            return False
        if any(_find(one, name, r"(^|.*\.){}($|\..*)") for one in self.whole):
            return False
        if isinstance(self.names, str) or name in self.names or not self.layers:
            return _is_among(name, self.names)
        return _is_among(name, self.names) and self._block(name) in self.layers

    def _block(self, name: str) -> int | None:
        """The number of a layer's block: the first in its name, or that after `layers_pattern`."""
        lists = self.layers_pattern or (r"[^.]*",)
        opening = r"(?:^|.*?\.)" if self.layers_pattern else r".*?\."
        found = (_find(one, name, opening + r"{}\.(?P<block>\d+)\.") for one in lists)
        return next((int(match["block"]) for match in found if match), None)


def _is_among(name: str, names: tuple[str, ...] | str) -> bool:
    if isinstance(names, str):
        return names.lower() == ALL_LINEAR or _find(names, name) is not None
    return any(name == one or name.endswith(f".{one}") for one in names)


def by_pattern(patterns: Mapping[str, T], name: str, default: T) -> T:
    """The value of the first pattern that the name, or its end after a dot, matches.

    PEFT's `rank_pattern` and `alpha_pattern`: names that are regular expressions.
    """
    found = (value for key, value in patterns.items() if _find(key, name, r"(.*\.)?({})$"))
    return next(found, default)


def _find(pattern: str, name: str, within: str | None = None) -> regex.Match[str] | None:
    """Matches the whole name, or its beginning with the pattern in the place of {} in `within`."""
    try:
        if within is None:
            return _compiled(pattern).fullmatch(name, timeout=_SECONDS)
        return _compiled(within.replace("{}", pattern)).match(name, timeout=_SECONDS)
    except (regex.error, RecursionError) as error:
        fault = f"is not a regular expression ({error})"
    except TimeoutError:
        fault = f"takes too long to match {name}"
    shown = pattern if len(pattern) <= 80 else f"{pattern[:77]}…"
    raise UserError(f"the name {shown!r} {fault}; name the layers plainly, such as q_proj")


@lru_cache(8_192)  # a rank for each layer of a large model, each tried on each
def _compiled(pattern: str) -> regex.Pattern[str]:
    return regex.compile(pattern)
