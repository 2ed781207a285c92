"""Adapters on disk, in PEFT's format: groundup and PEFT read each other's files.

    adapter_config.json          the settings (see `peft_config`); written last
    adapter_model.safetensors    A and B of each layer, and parameters that the adapter replaces

An adapter is useless without its base. The metadata of the safetensors file, which PEFT ignores,
records where the base is, the hash of its weights and how it was quantized; our adapters are
refused on any other base. PEFT writes no hash, so its adapters are checked by names and shapes:
every tensor is used, none is missing, and all numbers are finite.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Set
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from safetensors.torch import save
from torch import Tensor, nn

from groundup.adapters import modules_to_save
from groundup.adapters.attach import attach, check_known, train_only, use_adapter
from groundup.adapters.layers import ALL_LINEAR, Targets, by_pattern, linear_layers
from groundup.adapters.lora import LoRA, lora_layers
from groundup.data.packs.manifest import HUB
from groundup.deprecated import renamed_keywords
from groundup.errors import UserError
from groundup.formats.locate import ADAPTER_CONFIG, is_named
from groundup.formats.peft_config import AdapterConfig, read_adapter_config
from groundup.formats.peft_names import (
    Adapted,
    Names,
    around,
    names_in_file,
    put_together,
    taken_apart,
)
from groundup.formats.weights import FLOATS, join_parts, open_weights, shape_in_file, split_parts
from groundup.runs.files import write_bytes, write_json

WEIGHTS = "adapter_model.safetensors"
# The prefix that PEFT puts before a model's own names.
_PREFIX = "base_model.model."
# Saved by PEFT with an adapter if the vocabulary was resized or on request
# (`save_embedding_layers`), without an entry in the config.
_VOCABULARY = ("model.embed_tokens.weight", "lm_head.weight")
# PEFT saves replaced modules under their own names, and reads these. If the vocabulary or all
# biases are saved, too, it writes duplicates under these names, and ignores them when reading.
_DUPLICATES = tuple(
    re.compile(rf"\.{name}\.")
    for name in ("original_module", "modules_to_save", r"modules_to_save\.[^.]+")
)
# The keys of the file's metadata, spelled as in all releases.
_QUANTIZATION, _DOUBLE_QUANT = "quantisation", "double_quantisation"
T = TypeVar("T", int, float)


@dataclass(frozen=True)
class Origin:
    """The base of an adapter: its location, the hash of its weights, its quantization.

    `base` is a name (`pack:…`, `hub:…`) or a path relative to the adapter's folder. All are None
    in PEFT's folders.
    """

    base: str | None = None
    base_sha256: str | None = None
    quantization: dict[str, Any] | None = None


# Reading.


def load_adapter(
    model: nn.Module,
    folder: Path | str,
    *,
    name: str = "default",
    base_sha256: str | None = None,
) -> None:
    """Add a folder's adapter to `model`; it becomes active and alone trainable.

    `base_sha256` is the hash of the model's weights, if known.
    Raises `UserError` for an adapter of another base and for anything that does not fit the model,
    which is then unchanged.
    """
    folder = Path(folder)
    config, origin = read_adapter_config(folder), read_origin(folder)
    if None not in (origin.base_sha256, base_sha256) and origin.base_sha256 != base_sha256:
        raise UserError(
            f"the adapter in {folder} was trained on another model than this one (the SHA-256 of "
            f"its weights was {str(origin.base_sha256)[:12]}…, here it is "
            f"{str(base_sha256)[:12]}…); give the model that it was trained on: "
            f"{_as_typed(origin.base, folder)}"
        )
    names = names_in_file(model, ours=_has_our_names(folder))
    if config.fan_in_fan_out and not names.transposed:
        raise UserError(
            f"{folder / ADAPTER_CONFIG} says fan_in_fan_out=True, which is not supported for this "
            "model, whose files store no (in, out) matrices; give the model that it was trained on"
        )
    loras = _loras(folder, config, names)
    whole = _replaced_parameters(config, model, names, loras, _vocabulary(folder, names))
    tensors = _read(folder, _shapes(model, names, loras, whole), names)
    adapted: dict[str, Adapted] = {}
    for layer, lora in loras.items():
        stored = [tensors[key] for key in _keys(layer, lora)]
        adapted |= taken_apart(names.layers[layer], (lora, stored))
    attach(model, {path: lora for path, (lora, _) in adapted.items()}, name=name)
    for path, part in lora_layers(model).items():
        if path in adapted:
            for own, given in zip(part.own_parameters(name), adapted[path][1], strict=True):
                own.data.copy_(given)
    replaced: dict[str, Tensor] = {}
    for key in whole:
        replaced |= split_parts(tensors[key], names.parameters[key])
    modules_to_save.add(model, name, replaced)
    train_only(model, name)
    use_adapter(model, name)


def read_origin(folder: Path) -> Origin:
    """The adapter's base, from the file's metadata."""
    with _opened(folder) as file:
        said = file.metadata() or {}
    quantization = None
    if _QUANTIZATION in said:
        try:
            stored = json.loads(said[_QUANTIZATION])
        except (ValueError, RecursionError):
            stored = None
        if not isinstance(stored, dict):
            raise UserError(
                f"{folder / WEIGHTS}: its quantization is not JSON; save the adapter again"
            )
        quantization = {"double_quant" if n == _DOUBLE_QUANT else n: v for n, v in stored.items()}
    return Origin(said.get("base"), said.get("base_sha256"), quantization)


def _has_our_names(folder: Path) -> bool:
    """Whether a file uses our names for a model's parts, whatever its base's files use: earlier
    releases wrote GPT-2 adapters this way."""
    with _opened(folder) as file:
        return any(key.startswith(f"{_PREFIX}model.") for key in file.keys())  # noqa: SIM118


def _loras(folder: Path, config: AdapterConfig, names: Names) -> dict[str, LoRA]:
    """The LoRA of each linear layer that the config targets."""
    if config.targets.names != ALL_LINEAR:
        for path in names.modules:
            if path not in names.layers and config.targets.match(path):
                raise UserError(
                    f"the adapter in {folder} changes {path}, and here adapters change linear "
                    "layers of the blocks; train it with modules_to_save for the others, or merge "
                    "it with PEFT"
                )
    found = {
        path: LoRA(
            by_pattern(config.rank_pattern, path, config.rank),
            by_pattern(config.alpha_pattern, path, config.alpha),
            config.dropout,
            config.use_rslora,
            config.use_dora,
        )
        for path in names.layers
        if config.targets.match(path)
    }
    if not found:
        kinds = dict.fromkeys(path.rpartition(".")[2] for path in names.layers)
        raise UserError(
            f"the adapter in {folder} changes {str(config.targets.names)[:80]}, but the model has "
            f"no linear layer of that name; it has {', '.join(kinds) or 'none'}"
        )
    return found


def _vocabulary(folder: Path, names: Names) -> set[str]:
    """The names of embeddings and head in the file, whether or not the config lists them."""
    with _opened(folder) as file:
        return {key for key in _embeddings(names) if f"{_PREFIX}{key}" in file.keys()}  # noqa: SIM118


def _embeddings(names: Names) -> list[str]:
    return [key for key, [(path, _), *_] in names.parameters.items() if path in _VOCABULARY]


def _replaced_parameters(
    config: AdapterConfig,
    model: nn.Module,
    names: Names,
    loras: Iterable[str],
    vocabulary: Set[str],
) -> list[str]:
    """The parameters that the adapter replaces, including those of the `vocabulary`."""

    def wanted(key: str) -> bool:
        owner, _, leaf = key.rpartition(".")
        if any(part.endswith(config.targets.whole) for part in around(owner)):
            return True
        return leaf == "bias" and (
            config.bias == "all" or (config.bias == "lora_only" and owner in loras)
        )

    found = [key for key in names.parameters if key in vocabulary or wanted(key)]
    if config.tied or vocabulary - set(filter(wanted, names.parameters)):
        parameters = modules_to_save.parameters(model)
        ids = {key: id(parameters[parts[0][0]]) for key, parts in names.parameters.items()}
        tied = {ids[key] for key in found}
        found = [key for key in names.parameters if key in found or ids[key] in tied]
    return found


def _keys(layer: str, lora: LoRA) -> list[str]:
    """The file's names for one layer's tensors, without the prefix."""
    parts = ["lora_A.weight", "lora_B.weight"] + ["lora_magnitude_vector"] * lora.use_dora
    return [f"{layer}.{part}" for part in parts]


def _shapes(
    model: nn.Module, names: Names, loras: Mapping[str, LoRA], whole: Iterable[str]
) -> dict[str, tuple[int, ...]]:
    """The shapes that the file's tensors must have, by name."""
    shapes: dict[str, tuple[int, ...]] = {}
    layers = linear_layers(model)
    for name, lora in loras.items():
        parts = [layers[path] for path in names.layers[name]]
        outputs = sum(part.out_features for part in parts)
        sizes = [(lora.rank, parts[0].in_features), (outputs, lora.rank), (outputs,)]
        shapes |= zip(_keys(name, lora), sizes, strict=False)
    ours = {path: p.shape for path, p in modules_to_save.parameters(model).items()}
    for key in whole:
        shapes[key] = tuple(shape_in_file(names.parameters[key], ours))
    return shapes


def _read(folder: Path, shapes: Mapping[str, tuple[int, ...]], names: Names) -> dict[str, Tensor]:
    """All tensors of the file by path; it must contain exactly these."""
    found: dict[str, Tensor] = {}
    with _opened(folder) as file:
        for key in file.keys():  # noqa: SIM118 (not a dictionary)
            path = key.removeprefix(_PREFIX).replace(".base_layer.", ".")
            if path not in shapes and any(name.sub(".", path) in shapes for name in _DUPLICATES):
                continue
            shape = tuple(file.get_slice(key).get_shape())
            kind = file.get_slice(key).get_dtype()
            if path not in shapes or path in found:
                raise UserError(
                    f"{folder / WEIGHTS}: tensor {key[:200]} is not part of the adapter that "
                    f"{ADAPTER_CONFIG} describes, on this model; check that both belong together"
                )
            if shape != shapes[path]:
                if path in _embeddings(names) and shape[1:] == shapes[path][1:]:
                    raise UserError(
                        f"{folder / WEIGHTS}: tensor {key} has {shape[0]:,} rows, but on this model"
                        f" it must have {shapes[path][0]:,}: the base's vocabulary was resized "
                        "before training; merge the adapter into it with PEFT (merge_and_unload) "
                        "and load the result, or give that base"
                    )
                raise UserError(
                    f"{folder / WEIGHTS}: tensor {key} has shape {list(shape)}, but on this model "
                    f"it must have {list(shapes[path])}; give the model that it was trained on"
                )
            if kind not in FLOATS:
                raise UserError(
                    f"{folder / WEIGHTS}: tensor {key} is of type {kind}, but adapters are read as "
                    f"{', '.join(FLOATS)}; save it in one of these"
                )
            found[path] = file.get_tensor(key)
            if not bool(found[path].isfinite().all()):
                raise UserError(
                    f"{folder / WEIGHTS}: tensor {key} has numbers that are not finite; its "
                    "training went wrong, or the file is damaged"
                )
    missing = [path for path in shapes if path not in found]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise UserError(
            f"{folder / WEIGHTS} lacks {missing[0]}{more}, which {ADAPTER_CONFIG} requires on this "
            "model; save the adapter again"
        )
    return found


def require_adapter_weights(folder: Path) -> None:
    """Raise `UserError` for an adapter's folder whose weights are missing or damaged."""
    with _opened(folder):
        pass


def _opened(folder: Path) -> AbstractContextManager[Any]:
    path, pickle = folder / WEIGHTS, folder / "adapter_model.bin"
    if not path.is_file() and pickle.is_file():
        raise UserError(
            f"{pickle} is a pickle, which can run any code when opened, and is not read; load the "
            f"adapter with a recent PEFT and save it again (save_pretrained writes {WEIGHTS})"
        )
    if not path.is_file():
        raise UserError(f"{folder} has no {WEIGHTS}; download the adapter's weights as well")
    return open_weights(path)


# Writing.


@renamed_keywords(quantisation="quantization")
def save_adapter(
    folder: Path | str,
    model: nn.Module,
    *,
    name: str = "default",
    base: Path | str | None = None,
    base_sha256: str | None = None,
    quantization: Mapping[str, Any] | None = None,
) -> None:
    """Write one adapter of the model, in float32, as PEFT would.

    `base` is the path of its base, or a name (`pack:…`, `hub:…`). The same adapter always gives the
    same bytes. A killed process leaves a complete adapter, or a folder without
    adapter_config.json. Raises `UserError` for an adapter that the model does not have.
    """
    check_known(model, name)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    names = names_in_file(model)
    adapted = {
        path: (layer.adapters[name], list(layer.own_parameters(name)))
        for path, layer in lora_layers(model).items()
        if name in layer.adapters
    }
    layers = {
        layer: put_together(model, parts, adapted)
        for layer, parts in names.layers.items()
        if any(path in adapted for path in parts)
    }
    replaced = modules_to_save.of(model, name)
    present = modules_to_save.parameters(model)
    whole = {
        key: join_parts([(stored, replaced.get(path, present[path])) for path, stored in parts])
        for key, parts in names.parameters.items()
        if any(path in replaced for path, _ in parts)
    }
    config = _described(names, {layer: lora for layer, (lora, _) in layers.items()}, set(whole))
    tensors = {
        key: tensor
        for layer, (lora, given) in layers.items()
        for key, tensor in zip(_keys(layer, lora), given, strict=True)
    }
    for key, tensor in whole.items():
        owner, _, leaf = key.rpartition(".")
        tensors[f"{owner}.base_layer.{leaf}" if owner in layers else key] = tensor
    stored = {
        f"{_PREFIX}{key}": tensor.detach().float().cpu().contiguous()
        for key, tensor in tensors.items()
    }
    place, peft_settings = _where(folder, base)
    origin = {"base": place, "base_sha256": base_sha256}
    if quantization:
        words = {_DOUBLE_QUANT if n == "double_quant" else n: v for n, v in quantization.items()}
        origin[_QUANTIZATION] = json.dumps(words)
    metadata = {"format": "pt"} | {key: value for key, value in origin.items() if value}
    described = {**config.to_json(), **peft_settings}
    # The config, which marks a complete folder, is removed first and written last.
    (folder / ADAPTER_CONFIG).unlink(missing_ok=True)
    write_bytes(folder / WEIGHTS, _encoded(stored, metadata))
    write_json(folder / ADAPTER_CONFIG, described)


def _described(names: Names, loras: Mapping[str, LoRA], replaced: Set[str]) -> AdapterConfig:
    """The config of one of the model's adapters."""
    one = next(iter(loras.values()))
    rank, rank_pattern = _pattern({path: lora.rank for path, lora in loras.items()})
    alpha, alpha_pattern = _pattern({path: lora.alpha for path, lora in loras.items()})
    biases = {p for p in replaced if p.endswith(".bias") and f"{p[:-5]}.weight" not in replaced}
    whole = dict.fromkeys(
        key.rpartition(".")[0] for key in names.parameters if key in replaced - biases
    )
    everywhere = any(key.endswith(".bias") for key in names.parameters.keys() - replaced)
    return AdapterConfig(
        rank=rank,
        alpha=alpha,
        targets=Targets(_names(names, loras), whole=tuple(whole)),
        dropout=one.dropout,
        use_rslora=one.use_rslora,
        use_dora=one.use_dora,
        rank_pattern=rank_pattern,
        alpha_pattern=alpha_pattern,
        bias="none" if not biases else "lora_only" if everywhere else "all",
        fan_in_fan_out=names.transposed,
    )


def _names(names: Names, paths: Iterable[str]) -> tuple[str, ...]:
    """The last parts of the layers' paths if no other layers match them; else the paths."""
    ends = tuple(sorted({path.rpartition(".")[2] for path in paths}))
    meant = set(filter(Targets(ends).match, names.modules))
    return ends if meant == set(paths) else tuple(paths)


def _pattern(values: Mapping[str, T]) -> tuple[T, dict[str, T]]:
    """The most common value, and the other values by the last part of the path or by the path."""
    most = Counter(values.values()).most_common(1)[0][0]
    by_end: dict[str, set[T]] = {}
    for path, value in values.items():
        by_end.setdefault(path.rpartition(".")[2], set()).add(value)
    pattern: dict[str, T] = {}
    for path, value in values.items():
        end = path.rpartition(".")[2]
        if value != most:
            pattern[end if len(by_end[end]) == 1 else path] = value
    return most, pattern


def _where(folder: Path, base: Path | str | None) -> tuple[str | None, Mapping[str, str | None]]:
    """The base as a path relative to the folder, and as settings of PEFT's."""
    name = "base_model_name_or_path"
    if base is None:
        return None, {name: None}
    if is_named(base):
        known_as, _, revision = str(base).removeprefix(HUB).partition("@")
        return str(base), {name: known_as} | ({"revision": revision} if revision else {})
    path = Path(base).resolve()
    return os.path.relpath(path, folder.resolve()), {name: str(path)}


def _as_typed(base: str | None, folder: Path) -> str:
    """The inverse of `_where`: the base as a user would type it."""
    if base is None or is_named(base):
        return str(base)
    return os.path.relpath((folder / base).resolve())


def _encoded(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """A safetensors file. The library writes metadata in random order; here it is sorted."""
    data = save(dict(tensors), dict(metadata))
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    assert len(text) <= size, "only the order has changed"
    return data[:8] + text.ljust(size) + data[8 + size :]
