"""PEFT's names for the parts of a model: those in the files of its base.

For most families these are our names. GPT-2's files store queries, keys and values as one matrix,
`c_attn`, where our model has three. An adapter of it has one A for all three, and each takes its
own rows of B:

    c_attn:  A (r, in)                q:  A, B[:out]    k:  A, B[out:2 out]    v:  A, B[2 out:]

Our adapters may have three different A. In a file these are stacked, and B has zeros between an A
and the outputs of the others; such a file is split again when read.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from groundup.adapters import modules_to_save
from groundup.adapters.layers import dense, linear_layers
from groundup.adapters.lora import LoRA
from groundup.formats.weights import place_in_file
from groundup.lm.families import Stored
from groundup.lm.model import CausalLM

# An adapter of one layer: its settings, A, B, and DoRA's magnitudes if it has them.
Adapted = tuple[LoRA, Sequence[Tensor]]


@dataclass(frozen=True)
class Names:
    """The linear layers and parameters by their names in a file, with our parts of each."""

    layers: Mapping[str, tuple[str, ...]]
    parameters: Mapping[str, list[tuple[str, Stored]]]

    @property
    def transposed(self) -> bool:
        """Whether the base's files store matrices as (in, out), PEFT's `fan_in_fan_out`."""
        return any(stored.transposed for parts in self.parameters.values() for _, stored in parts)

    @property
    def modules(self) -> list[str]:
        """The modules that have layers or parameters, and their parents."""
        owners = [name.rpartition(".")[0] for name in self.parameters]
        return [*dict.fromkeys(path for one in (*owners, *self.layers) for path in around(one))]


def around(path: str) -> list[str]:
    """A path and those of its parent modules, from the outermost."""
    parts = path.split(".")
    return [".".join(parts[:count]) for count in range(1, len(parts) + 1)]


def names_in_file(model: nn.Module, *, ours: bool = False) -> Names:
    """The file's names for a model's parts; with `ours` the model's own names."""

    config = model.config if isinstance(model, CausalLM) and not ours else None

    def place(path: str) -> Stored:
        return Stored(path) if config is None else place_in_file(config, path)

    layers: dict[str, tuple[str, ...]] = {}
    for path in linear_layers(model):
        name = place(f"{path}.weight").name.rpartition(".")[0]
        layers[name] = (*layers.get(name, ()), path)
    parameters: dict[str, list[tuple[str, Stored]]] = {}
    for path in modules_to_save.parameters(model):
        if ".lora_" not in path:
            parameters.setdefault(place(path).name, []).append((path, place(path)))
    return Names(layers, parameters)


def taken_apart(parts: Sequence[str], adapted: Adapted) -> dict[str, Adapted]:
    """Split the adapter of a file's layer into those of our layers, by path."""
    if len(parts) == 1:
        return {parts[0]: adapted}
    lora, (down, up, *lengths) = adapted
    ups, split_lengths = up.chunk(len(parts)), [one.chunk(len(parts)) for one in lengths]
    used = torch.stack([one.any(dim=0) for one in ups])  # which rows of A each part reads
    if not (used.sum(dim=0) == 1).all() or (lora.use_dora and not used.any(dim=1).all()):
        used = torch.ones_like(used)
    return {
        path: (
            _of_rank(lora, int(rows.sum())),
            [down[rows], ups[i][:, rows], *(one[i] for one in split_lengths)],
        )
        for i, (path, rows) in enumerate(zip(parts, used, strict=True))
        if rows.any()
    }


def put_together(model: nn.Module, parts: Sequence[str], adapted: Mapping[str, Adapted]) -> Adapted:
    """Combine the adapters of some of our layers into that of a file's layer."""
    there = [path for path in parts if path in adapted]
    if len(parts) == 1:
        return adapted[parts[0]]
    lora, (first, *_) = adapted[there[0]]
    downs = [adapted[path][1][0] for path in there]
    if there == [*parts] and all(
        adapted[path][0] == lora and torch.equal(down, first)
        for path, down in zip(there, downs, strict=True)
    ):
        down, up = first, torch.cat([adapted[path][1][1] for path in parts])
    else:
        down, ups, before = torch.cat(downs), list[Tensor](), 0
        for path in parts:
            if path not in adapted:
                outputs = linear_layers(model)[path].out_features
                ups.append(down.new_zeros(outputs, len(down)))
                continue
            own, (_, up, *_) = adapted[path]
            # The file has one scale for all, so differences in scale are multiplied into B.
            ups.append(pad(up * (own.scale / lora.scale), (before, len(down) - before - own.rank)))
            before += own.rank
        up, lora = torch.cat(ups), _of_rank(lora, len(down))
    if not lora.use_dora:
        return lora, [down, up]
    lengths = [
        adapted[path][1][2] if path in adapted else dense(linear_layers(model)[path]).norm(dim=1)
        for path in parts
    ]
    return lora, [down, up, torch.cat(lengths)]


def _of_rank(lora: LoRA, rank: int) -> LoRA:
    """The same settings at another rank, with the same scale."""
    grown = rank / lora.rank
    return replace(
        lora, rank=rank, alpha=lora.alpha * (math.sqrt(grown) if lora.use_rslora else grown)
    )
