"""An adapter's folder, which is opened as its base model with the adapter.

    adapter_config.json, adapter_model.safetensors    see `peft`
    tokenizer.json, generation_config.json, ...       if they differ from the base's

`load` opens such a folder like any other: it finds the base, quantizes it as in the adapter's
training, and adds the adapter. The base may be an adapter's folder itself, whose adapter is merged
first.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from groundup.adapters.attach import active_adapter, adapter_names, merge, use_adapter
from groundup.adapters.layers import linear_layers
from groundup.adapters.nf4 import NF4Linear
from groundup.adapters.quantization import is_quantized, quantize, quantized_layers
from groundup.data.packs.manifest import HUB
from groundup.errors import UserError, shorten
from groundup.formats.folder import (
    GENERATION_CONFIG,
    StoredModel,
    save_beside,
    with_end_ids,
)
from groundup.formats.locate import (
    ADAPTER_CONFIG,
    CONFIG,
    TOKENIZER,
    is_adapter,
    is_named,
    locate,
)
from groundup.formats.peft import (
    WEIGHTS,
    load_adapter,
    read_origin,
    require_adapter_weights,
    save_adapter,
)
from groundup.formats.peft_config import read_adapter_config
from groundup.formats.weights import weights_hash
from groundup.lm.config import ModelConfig
from groundup.lm.model import CausalLM
from groundup.runs.files import file_hash, read_json_object
from groundup.text.tokenizer import Tokenizer

# The files that determine a model's output, with a guard's thresholds; cards, run records and logs
# do not.
_HASHED_FILES = (
    *(CONFIG, GENERATION_CONFIG, TOKENIZER, ADAPTER_CONFIG),
    *("tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja"),
    *("model*.safetensors", "model*.safetensors.index.json", "adapter_model.safetensors"),
    "guard.json",
)


# Reading.


@dataclass(frozen=True)
class AdapterFolder(StoredModel):
    """An adapter's folder; `open` opens the base that it names."""

    open: Callable[[Path], StoredModel]

    @cached_property
    def base(self) -> StoredModel:
        return self.open(base_of(self.path))

    @cached_property
    def tokenizer(self) -> Tokenizer:
        own = (self.path / TOKENIZER).is_file()
        return Tokenizer.load(self.path) if own else self.base.tokenizer

    @cached_property
    def config(self) -> ModelConfig:
        return with_end_ids(self.base.config, self.path)

    def require_weights(self) -> None:
        self.base.require_weights()
        require_adapter_weights(self.path)

    def model(
        self, dtype: torch.dtype | None = None, device: torch.device | str = "cpu"
    ) -> CausalLM:
        """The base with the adapter, which is active."""
        base, origin = self.base, read_origin(self.path)
        # In training the base was quantized from its stored dtype.
        model = base.model(None if origin.quantization else dtype, device)
        if adapter_names(model):
            merge(model, reversible=False)
        if origin.quantization and not is_quantized(model):
            _quantize(self.path, model, origin.quantization)
        known = _weights_hash(base.path) if origin.base_sha256 else None
        load_adapter(model, self.path, base_sha256=known)
        model.config = self.config
        return model if dtype is None else model.to(dtype)


def with_adapters(
    model: CausalLM, folders: Sequence[Path | str], *, base: Path | str | None = None
) -> list[str]:
    """Add the adapters of several folders to one model, named after their folders.

    Returns the names, in order, for `Request.adapter` and `use_adapter`; none is active yet. A dot
    in a folder's name becomes "_". `base` is the model's source: if given, adapters of other bases
    are refused. Raises `UserError` for duplicate names and for anything that cannot be loaded.
    """
    paths = [locate(folder) for folder in folders]
    known = _weights_hash(locate(base)) if base is not None else None
    _quantize_for(model, paths)
    names = [path.resolve().name.replace(".", "_") for path in paths]
    for path, name in zip(paths, names, strict=True):
        load_adapter(model, path, name=name, base_sha256=known)
    use_adapter(model, None)
    return names


def _quantize_for(model: CausalLM, folders: Sequence[Path]) -> None:
    """Quantize the base as in the training of its adapters."""
    # `load_adapter` refuses a folder without an adapter.
    folders = [folder for folder in folders if is_adapter(folder)]
    said = [read_origin(folder).quantization for folder in folders]
    if not any(said) or is_quantized(model):
        return
    other = next((i for i, one in enumerate(said) if one != said[0]), None)
    if other is not None:
        raise UserError(
            f"the adapters in {folders[0]} and {folders[other]} were trained on bases of different "
            "precision, and one base cannot have both; use one at a time"
        )
    assert said[0] is not None
    _quantize(folders[0], model, said[0])


def generation_config_of(path: Path) -> Path | None:
    """The file with a model's sampling settings: its own or, for an adapter without one, its
    base's; None if there is none."""
    while is_adapter(path) and not (path / GENERATION_CONFIG).is_file():
        path = base_of(path)
    file = path / GENERATION_CONFIG
    return file if file.is_file() else None


def own_sampling(path: Path) -> dict[str, Any] | None:
    """A model's sampling settings, which models trained from it inherit; None if it does not ask
    for sampling."""
    file = generation_config_of(path)
    said = {} if file is None else read_json_object(file)
    return said if said.get("do_sample") is True else None


def base_of(folder: Path) -> Path:
    """Returns the path of an adapter's base, as recorded in its weights file or its config.

    Raises `UserError` if there is no such path.
    """
    base, seen = _base_of(folder), {folder.resolve()}
    at = base
    while is_adapter(at):
        if at.resolve() in seen:
            raise UserError(f"the adapter in {folder} is, through {at}, its own base; {_REMEDY}")
        seen.add(at.resolve())
        at = _base_of(at)
    return base


_REMEDY = f"write the path of its base as base_model_name_or_path into its {ADAPTER_CONFIG}"


def _base_of(folder: Path) -> Path:
    places = [read_origin(folder).base, read_adapter_config(folder).base]
    for place in filter(None, places):
        if is_named(place):
            return locate(place)
        # Joining leaves an absolute path unchanged.
        if os.path.exists(folder / place):
            return locate(folder / place)
        if os.path.exists(place):
            return locate(place)
    said = next(filter(None, reversed(places)), None)
    if said is None:
        raise UserError(f"the adapter in {folder} does not name its base model; {_REMEDY}")
    name = f" (such as {HUB}{said})" if said.count("/") == 1 and not said.startswith(".") else ""
    raise UserError(
        f"the adapter in {folder} needs the base model {shorten(said)}, which is not here; "
        f"{_REMEDY}, a folder or a name{name}"
    )


def model_hash(path: Path, *, alone: bool = False) -> str:
    """One hash of everything that determines a model's output, including an adapter's base.

    `alone` leaves out the base, for an adapter that is used on another model.
    """
    if path.is_file():
        return file_hash(path)
    files = sorted({file for pattern in _HASHED_FILES for file in path.glob(pattern)})
    lines = [f"{file.name} {file_hash(file)}" for file in files]
    if is_adapter(path) and not alone:
        lines.append(f"base {model_hash(base_of(path))}")
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _weights_hash(path: Path) -> str:
    """The hash of a model's weights; for an adapter's folder, of its own and its base's weights."""
    if not is_adapter(path):
        return weights_hash(path)
    both = f"{file_hash(path / WEIGHTS)} {_weights_hash(base_of(path))}"
    return hashlib.sha256(both.encode()).hexdigest()


# Writing.


def save_adapted(
    folder: Path | str,
    model: CausalLM,
    tokenizer: Tokenizer,
    *,
    card: str,
    base: Path | str,
    name: str | None = None,
    sampling: Mapping[str, Any] | None = None,
) -> None:
    """Write an adapter of the model (by default the active one) into a folder that `load` opens.

    `base` is the source of the model without it, `sampling` as in `save_model`. Other files in the
    folder, such as a run's, stay as they are. A killed process leaves a complete adapter, or a
    folder without adapter_config.json.
    """
    folder, name = Path(folder), name or active_adapter(model) or "default"
    (folder / ADAPTER_CONFIG).unlink(missing_ok=True)
    save_beside(folder, model, tokenizer, card, sampling)
    save_adapter(
        folder,
        model,
        name=name,
        base=base,
        base_sha256=_weights_hash(locate(base)),
        quantization=_quantization(model),
    )


# Quantization.


def _quantization(model: CausalLM) -> dict[str, Any] | None:
    """The arguments of `quantize` that reproduce the model's layers; None if none is quantized."""
    layers = quantized_layers(model)
    one = next(iter(layers.values()), None)
    if one is None:
        return None
    said: dict[str, Any] = {"kind": "int8"}
    if isinstance(one, NF4Linear):
        said = {
            "kind": one.kind,
            "block_size": one.block_size,
            "double_quant": one.double_quant,
        }
    paths = [path.removesuffix(".base_layer") for path in layers]
    return said if paths == list(linear_layers(model)) else said | {"targets": paths}


def _quantize(folder: Path, model: CausalLM, said: Mapping[str, Any]) -> None:
    """Quantize a model as recorded in an adapter's file."""
    kinds = {"kind": str, "block_size": int, "double_quant": bool, "targets": list}
    for name, value in said.items():
        if name not in kinds or not isinstance(value, kinds[name]):
            raise UserError(
                f"{folder / WEIGHTS} says that its base was quantized with {shorten(name)}: "
                f"{shorten(value)}, which is unknown; save the adapter again"
            )
    quantize(model, **said)
