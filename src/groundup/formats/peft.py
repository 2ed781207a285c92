"""Adapters on disk, in PEFT's format: what either of us writes, the other reads.

Only of GPT-2, whose q, k and v are one layer there, neither reads the other's.

    adapter_config.json          what it is (see `peft_config`); written last, it seals the folder
    adapter_model.safetensors    A and B of each layer, and what the adapter replaces as a whole

An adapter means nothing without its base. Where that lies, the hash of its weights and how it was
quantized stand in the metadata of the safetensors file, where PEFT does not mind them; an adapter
of ours is refused on any other base. PEFT writes no hash, and its adapters are checked by names and
shapes: every tensor is used, none is missing, and all numbers are finite.
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
from groundup.formats.weights import FLOATS, open_weights
from groundup.runs.files import write_bytes, write_json

WEIGHTS = "adapter_model.safetensors"
# What PEFT wraps around a model's own names.
_PREFIX = "base_model.model."
# What PEFT saves beside an adapter where the vocabulary was resized, or where it is asked to
# (`save_embedding_layers`), with no word of it in the config.
_VOCABULARY = ("model.embed_tokens.weight", "lm_head.weight")
# What is replaced as a whole PEFT saves under its own name, which it reads; where the vocabulary or
# all biases are saved as well, it saves them and the base's once more, and minds neither.
_AGAIN = tuple(
    re.compile(rf"\.{name}\.")
    for name in ("original_module", "modules_to_save", r"modules_to_save\.[^.]+")
)
# The words of the file's metadata, as all releases have written them.
_QUANTIZATION, _DOUBLE = "quantisation", "double_quantisation"
T = TypeVar("T", int, float)


@dataclass(frozen=True)
class Origin:
    """The base of an adapter: where it lies, the hash of its weights, how it was quantized.

    `base` is a name (`pack:…`, `hub:…`) or a path from the adapter's folder. All are None in
    folders of PEFT.
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
    """Put the adapter of a folder on `model`, active and alone in being trained.

    `base_sha256` is the hash of the model's weights, if it is known.
    Raises `UserError` for an adapter of another base and for whatever does not fit the model; the
    model is then as it was.
    """
    folder = Path(folder)
    config, origin = read_adapter_config(folder), read_origin(folder)
    if None not in (origin.base_sha256, base_sha256) and origin.base_sha256 != base_sha256:
        raise UserError(
            f"the adapter in {folder} was trained on another model than this one (the SHA-256 of "
            f"its weights was {str(origin.base_sha256)[:12]}…, here it is "
            f"{str(base_sha256)[:12]}…); give the model that it was trained on: "
            f"{_from_here(origin.base, folder)}"
        )
    loras = _loras(folder, config, model)
    whole = _whole(config, model, loras, _vocabulary(folder))
    shapes = _shapes(model, loras) | {path: tuple(p.shape) for path, p in whole.items()}
    tensors = _read(folder, shapes)
    attach(model, loras, name=name)
    for path, layer in lora_layers(model).items():
        if path in loras:
            for key, own in zip(_keys(path, loras[path]), layer.own_parameters(name), strict=True):
                own.data.copy_(tensors[key])
    modules_to_save.add(model, name, {path: tensors[path] for path in whole})
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
        quantization = {"double_quant" if n == _DOUBLE else n: v for n, v in stored.items()}
    return Origin(said.get("base"), said.get("base_sha256"), quantization)


def _loras(folder: Path, config: AdapterConfig, model: nn.Module) -> dict[str, LoRA]:
    """The LoRA of each linear layer that the config targets."""
    layers = linear_layers(model)
    inside = tuple(f"{path}." for path in lora_layers(model))
    if config.targets.names != ALL_LINEAR:
        for path, _ in model.named_modules():
            own = bool(inside) and path.startswith(inside)
            if path and path not in layers and not own and config.targets.match(path):
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
        for path in layers
        if config.targets.match(path)
    }
    if not found:
        kinds = dict.fromkeys(path.rpartition(".")[2] for path in layers)
        raise UserError(
            f"the adapter in {folder} changes {str(config.targets.names)[:80]}, and no linear "
            f"layer of this model is called so; it has {', '.join(kinds) or 'none'}"
        )
    return found


def _vocabulary(folder: Path) -> set[str]:
    """The paths of embeddings and head that the file holds, whether or not the config says so."""
    with _opened(folder) as file:
        return {path for path in _VOCABULARY if f"{_PREFIX}{path}" in file.keys()}  # noqa: SIM118


def _whole(
    config: AdapterConfig, model: nn.Module, loras: Iterable[str], vocabulary: Set[str]
) -> dict[str, nn.Parameter]:
    """The parameters that the adapter replaces, by path; those of the `vocabulary` among them."""
    everything = modules_to_save.parameters(model)
    everything = {path: p for path, p in everything.items() if ".lora_" not in path}

    def wanted(path: str) -> bool:
        owner, _, leaf = path.rpartition(".")
        if any(part.endswith(config.targets.whole) for part in _with_parents(owner)):
            return True
        return leaf == "bias" and (
            config.bias == "all" or (config.bias == "lora_only" and owner in loras)
        )

    found = {path: p for path, p in everything.items() if path in vocabulary or wanted(path)}
    if config.tied or vocabulary - set(filter(wanted, everything)):
        ids = {id(parameter) for parameter in found.values()}
        found = {path: p for path, p in everything.items() if path in found or id(p) in ids}
    return found


def _with_parents(path: str) -> list[str]:
    parts = path.split(".")
    return [".".join(parts[:count]) for count in range(1, len(parts) + 1)]


def _keys(path: str, lora: LoRA) -> list[str]:
    """The file's names of one layer's tensors, without the prefix."""
    parts = ["lora_A.weight", "lora_B.weight"] + ["lora_magnitude_vector"] * lora.use_dora
    return [f"{path}.{part}" for part in parts]


def _shapes(model: nn.Module, loras: Mapping[str, LoRA]) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    for path, layer in linear_layers(model).items():
        if path in loras:
            rank = loras[path].rank
            sizes = [(rank, layer.in_features), (layer.out_features, rank), (layer.out_features,)]
            shapes |= zip(_keys(path, loras[path]), sizes, strict=False)
    return shapes


def _read(folder: Path, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """All tensors of the file, which must be these and no others, by path."""
    found: dict[str, Tensor] = {}
    with _opened(folder) as file:
        for key in file.keys():  # noqa: SIM118 (not a dictionary)
            path = key.removeprefix(_PREFIX).replace(".base_layer.", ".")
            if path not in shapes and any(name.sub(".", path) in shapes for name in _AGAIN):
                continue
            shape = tuple(file.get_slice(key).get_shape())
            kind = file.get_slice(key).get_dtype()
            if path not in shapes or path in found:
                raise UserError(
                    f"{folder / WEIGHTS}: tensor {key[:200]} is no part of the adapter that "
                    f"{ADAPTER_CONFIG} describes, on this model; check that both belong together"
                )
            if shape != shapes[path]:
                if path in _VOCABULARY and shape[1:] == shapes[path][1:]:
                    raise UserError(
                        f"{folder / WEIGHTS}: tensor {key} has {shape[0]:,} rows, and on this model"
                        f" it must have {shapes[path][0]:,}: the base was given another vocabulary "
                        "before training; merge the adapter into it with PEFT (merge_and_unload), "
                        "and load the model that this gives, or give that base"
                    )
                raise UserError(
                    f"{folder / WEIGHTS}: tensor {key} has shape {list(shape)}, and on this model "
                    f"it must have {list(shapes[path])}; give the model that it was trained on"
                )
            if kind not in FLOATS:
                raise UserError(
                    f"{folder / WEIGHTS}: tensor {key} is of type {kind}, and adapters are read as "
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
            f"{folder / WEIGHTS} lacks {missing[0]}{more}, which {ADAPTER_CONFIG} asks for on this "
            "model; save the adapter again"
        )
    return found


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
    """Write one adapter of the model, in float32, as PEFT would (of GPT-2 for us alone).

    `base` is the path of its base, or a name (`pack:…`, `hub:…`). The same adapter always gives the
    same bytes. A process that is killed leaves a whole adapter, or a folder without
    adapter_config.json. Raises `UserError` for an adapter that the model does not have.
    """
    check_known(model, name)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    layers = {p: layer for p, layer in lora_layers(model).items() if name in layer.adapters}
    config = _described(model, {p: layer.adapters[name] for p, layer in layers.items()}, name)
    tensors = {
        key: parameter
        for path, layer in layers.items()
        for key, parameter in zip(
            _keys(path, layer.adapters[name]), layer.own_parameters(name), strict=True
        )
    }
    for path, parameter in modules_to_save.of(model, name).items():
        owner, _, leaf = path.rpartition(".")
        tensors[f"{owner}.base_layer.{leaf}" if owner in layers else path] = parameter
    stored = {f"{_PREFIX}{key}": p.detach().float().cpu() for key, p in tensors.items()}
    place, known_as = _where(folder, base)
    origin = {"base": place, "base_sha256": base_sha256}
    if quantization:
        words = {_DOUBLE if n == "double_quant" else n: v for n, v in quantization.items()}
        origin[_QUANTIZATION] = json.dumps(words)
    metadata = {"format": "pt"} | {key: value for key, value in origin.items() if value}
    described = config.to_json() | {"base_model_name_or_path": known_as}
    # The config, which marks a finished folder, is removed first and written last.
    (folder / ADAPTER_CONFIG).unlink(missing_ok=True)
    write_bytes(folder / WEIGHTS, _encoded(stored, metadata))
    write_json(folder / ADAPTER_CONFIG, described)


def _described(model: nn.Module, loras: Mapping[str, LoRA], name: str) -> AdapterConfig:
    """The config of an adapter of the model."""
    one = next(iter(loras.values()))
    rank, rank_pattern = _pattern({path: lora.rank for path, lora in loras.items()})
    alpha, alpha_pattern = _pattern({path: lora.alpha for path, lora in loras.items()})
    replaced = modules_to_save.of(model, name)
    biases = {p for p in replaced if p.endswith(".bias") and f"{p[:-5]}.weight" not in replaced}
    whole = dict.fromkeys(path.rpartition(".")[0] for path in replaced if path not in biases)
    others = modules_to_save.parameters(model).keys() - replaced.keys()
    everywhere = any(path.endswith(".bias") for path in others)
    return AdapterConfig(
        rank=rank,
        alpha=alpha,
        targets=Targets(_names(model, loras), whole=tuple(whole)),
        dropout=one.dropout,
        use_rslora=one.use_rslora,
        use_dora=one.use_dora,
        rank_pattern=rank_pattern,
        alpha_pattern=alpha_pattern,
        bias="none" if not biases else "lora_only" if everywhere else "all",
    )


def _names(model: nn.Module, paths: Iterable[str]) -> tuple[str, ...]:
    """The last parts of the layers' paths, if these match no other layers; else the paths."""
    ends = tuple(sorted({path.rpartition(".")[2] for path in paths}))
    meant = {path for path, _ in model.named_modules() if Targets(ends).match(path)}
    return ends if meant == set(paths) else tuple(paths)


def _pattern(values: Mapping[str, T]) -> tuple[T, dict[str, T]]:
    """The commonest value, and the other values by the last part of the path or by the path."""
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


def _where(folder: Path, base: Path | str | None) -> tuple[str | None, str | None]:
    """The base as a path from the folder, and as PEFT's `base_model_name_or_path`."""
    if base is None:
        return None, None
    if is_named(base):
        return str(base), str(base).removeprefix(HUB)
    path = Path(base).resolve()
    return os.path.relpath(path, folder.resolve()), str(path)


def _from_here(base: str | None, folder: Path) -> str:
    """What `_where` made of the base's name, as one would type it."""
    if base is None or is_named(base):
        return str(base)
    return os.path.relpath((folder / base).resolve())


def _encoded(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """A safetensors file. The library writes metadata in random order, and here it is sorted."""
    data = save(dict(tensors), dict(metadata))
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    assert len(text) <= size, "only the order has changed"
    return data[:8] + text.ljust(size) + data[8 + size :]
