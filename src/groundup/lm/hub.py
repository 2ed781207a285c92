"""A model folder is a Hugging Face folder: read by us, by transformers and by vLLM as it is.

    config.json              the shape; written last, it seals the folder
    model.safetensors        the weights, or shards and an index when they are large
    tokenizer.json, ...      the tokenizer with its chat template
    generation_config.json   the ids that end a completion, and how to sample
    README.md                the model card

Weights are read memory-mapped and given to the model without a second copy. Only safetensors are
read: a pickle can run any code when it is opened.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from groundup.errors import UserError
from groundup.lm.config import ModelConfig
from groundup.lm.model import CausalLM
from groundup.text.tokenizer import Tokenizer

CONFIG = "config.json"
GENERATION_CONFIG = "generation_config.json"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
CARD = "README.md"

# Small enough for file systems and downloads of every kind, large enough that small models are
# one file.
MAX_SHARD_BYTES = 2 * 10**9

DTYPES = {
    "float64": torch.float64,
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


def load(folder: Path | str) -> tuple[CausalLM, Tokenizer]:
    """The model and the tokenizer of a model folder, a run folder or any Hugging Face folder."""
    return load_model(folder), Tokenizer.load(Path(folder))


def load_config(folder: Path | str) -> ModelConfig:
    """The shape of the model in a folder, with every id that ends a completion.

    `config.json` holds one such id and `generation_config.json`, where there is one, all of them.
    """
    folder = Path(folder)
    config = ModelConfig.from_hf(_config_json(folder))
    if (folder / GENERATION_CONFIG).is_file():
        eos = _read_json(folder / GENERATION_CONFIG).get("eos_token_id")
        if eos is not None:
            config = replace(config, eos_token_ids=tuple(eos) if isinstance(eos, list) else (eos,))
    return config


def load_model(
    folder: Path | str,
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
) -> CausalLM:
    """The model of a folder in its own dtype, or in `dtype`.

    Raises `UserError` when files or tensors are missing, unknown or of another shape.
    """
    folder = Path(folder)
    config = load_config(folder)
    if dtype is None:
        described = _config_json(folder)
        name = described.get("dtype") or described.get("torch_dtype") or "float32"
        if name not in DTYPES:
            raise UserError(f"{folder}: dtype {name!r} is not supported; {', '.join(DTYPES)} are")
        dtype = DTYPES[name]
    with torch.device("meta"):
        model = CausalLM(config)
    tensors = _read_weights(folder, model, device)
    model.load_state_dict(
        {name: tensor.to(dtype) for name, tensor in tensors.items()}, strict=False, assign=True
    )
    if config.tie_word_embeddings:
        # Assigning gave the embedding a new parameter; the head must be that very one again.
        model.lm_head.weight = model.model.embed_tokens.weight
    return model


def save_model(
    folder: Path | str,
    model: CausalLM,
    tokenizer: Tokenizer,
    *,
    card: str,
    dtype: torch.dtype = torch.float32,
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> None:
    """Write a model folder; other files in it, such as a run's, stay as they are.

    Everything is written aside and renamed into place, `config.json` last: a process that is
    killed leaves a whole model or a folder without `config.json`, never half a model.
    """
    folder = Path(folder)
    partial = folder / ".partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    _write_weights(partial, model, dtype, max_shard_bytes)
    tokenizer.save(partial)
    (partial / CARD).write_text(card, encoding="utf-8")
    _write_json(partial / GENERATION_CONFIG, _generation_config(model.config))
    _write_json(partial / CONFIG, model.config.to_hf(str(dtype).removeprefix("torch.")))
    _move_into(folder, partial)


def _move_into(folder: Path, partial: Path) -> None:
    (folder / CONFIG).unlink(missing_ok=True)
    for stale in [*folder.glob("model*.safetensors"), folder / INDEX]:
        stale.unlink(missing_ok=True)
    names = [path.name for path in partial.iterdir() if path.name != CONFIG]
    for name in (*names, CONFIG):
        # Bytes before names: after a power cut, too, a file that is there is whole.
        with open(partial / name, "rb") as file:
            os.fsync(file.fileno())
        os.replace(partial / name, folder / name)
    partial.rmdir()


def _generation_config(config: ModelConfig) -> dict[str, Any]:
    settings = {
        "bos_token_id": config.bos_token_id,
        "eos_token_id": list(config.eos_token_ids) or None,
        "pad_token_id": config.pad_token_id,
        "do_sample": True,
        "temperature": 0.7,
        "top_p": 0.95,
    }
    return {name: value for name, value in settings.items() if value is not None}


# Writing weights.


def _write_weights(folder: Path, model: CausalLM, dtype: torch.dtype, max_shard_bytes: int) -> None:
    tensors = {name: parameter.detach() for name, parameter in model.named_parameters()}
    shards = _shards(tensors, dtype.itemsize, max_shard_bytes)
    weight_map: dict[str, str] = {}
    for number, names in enumerate(shards, start=1):
        file = f"model-{number:05}-of-{len(shards):05}.safetensors" if len(shards) > 1 else WEIGHTS
        shard = {name: tensors[name].to("cpu", dtype).contiguous() for name in names}
        try:
            save_file(shard, folder / file, metadata={"format": "pt"})
        except SafetensorError as error:
            raise UserError(
                f"{folder / file} cannot be written ({error}); free some space on its disk and "
                "start again"
            ) from None
        weight_map |= dict.fromkeys(names, file)
    if len(shards) > 1:
        total = sum(tensor.numel() for tensor in tensors.values()) * dtype.itemsize
        _write_json(folder / INDEX, {"metadata": {"total_size": total}, "weight_map": weight_map})


def _shards(tensors: Mapping[str, Tensor], itemsize: int, max_shard_bytes: int) -> list[list[str]]:
    """Names in the model's order, cut where a shard would grow too large."""
    shards: list[list[str]] = [[]]
    size = 0
    for name, tensor in tensors.items():
        grown = tensor.numel() * itemsize
        if shards[-1] and size + grown > max_shard_bytes:
            shards.append([])
            size = 0
        shards[-1].append(name)
        size += grown
    return shards


# Reading weights.


def _read_weights(folder: Path, model: CausalLM, device: torch.device | str) -> dict[str, Tensor]:
    """The tensors that the model has, checked by name and shape before the first is read."""
    # A tied head is one parameter with two names, of which this keeps the first.
    expected = {name: list(p.shape) for name, p in model.named_parameters()}
    missing, tensors = set(expected), {}
    tied_head: Tensor | None = None
    for path in _weight_files(folder):
        with _open_weights(path, device) as file:
            for name in file.keys():  # noqa: SIM118 (not a dictionary)
                if name.endswith("rotary_emb.inv_freq"):
                    continue  # early Llama folders store what follows from the config
                if name == "lm_head.weight" and name not in expected:
                    tied_head = file.get_tensor(name)
                    continue
                _check_shape(path, name, file.get_slice(name).get_shape(), expected.get(name))
                tensors[name] = file.get_tensor(name)
                missing.discard(name)
    if missing:
        raise UserError(
            f"{folder}: the weights lack {_listed(sorted(missing))}, which {CONFIG} asks for; "
            "download or save the folder again"
        )
    if tied_head is not None and not torch.equal(tied_head, tensors["model.embed_tokens.weight"]):
        raise UserError(
            f"{folder}: lm_head.weight differs from the embedding that {CONFIG} ties it to; "
            'set "tie_word_embeddings": false there'
        )
    return tensors


def _check_shape(path: Path, name: str, shape: list[int], expected: list[int] | None) -> None:
    if expected is None:
        raise UserError(
            f"{path}: tensor {name} is not part of the model that {CONFIG} describes; "
            f"check that {CONFIG} belongs to these weights (quantised weights are not read here)"
        )
    if shape != expected:
        raise UserError(
            f"{path}: tensor {name} has shape {shape}, but {CONFIG} asks for {expected}; "
            "check that both come from the same model"
        )


def _weight_files(folder: Path) -> list[Path]:
    if (folder / INDEX).is_file():
        weight_map = _read_json(folder / INDEX).get("weight_map")
        if not isinstance(weight_map, dict) or not weight_map:
            raise UserError(f"{folder / INDEX}: no weight_map; download the folder again")
        names = sorted({str(name) for name in weight_map.values()})
    elif (folder / WEIGHTS).is_file():
        names = [WEIGHTS]
    elif pickles := sorted(folder.glob("pytorch_model*.bin")):
        raise UserError(
            f"{pickles[0]} is a pickle, which can run any code when opened, and is not read; "
            "save the model with safetensors (transformers: save_pretrained) and load that"
        )
    else:
        raise UserError(f"{folder} has a {CONFIG} but no {WEIGHTS}; download the weights as well")
    for name in names:
        # A bare file name: an index from a stranger must not point outside its folder.
        if Path(name).name != name or not (folder / name).is_file():
            raise UserError(
                f"{folder / INDEX} names {name!r}, which is not in the folder; download it as well"
            )
    return [folder / name for name in names]


@contextmanager
def _open_weights(path: Path, device: torch.device | str) -> Iterator[Any]:
    try:
        with safe_open(path, framework="pt", device=str(device)) as file:
            yield file
    except SafetensorError as error:
        raise UserError(
            f"{path} is damaged ({error}); download it or save the model again"
        ) from None


# JSON.


def _config_json(folder: Path) -> dict[str, Any]:
    if (folder / CONFIG).is_file():
        return _read_json(folder / CONFIG)
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder; give one that holds a {CONFIG}")
    if within := sorted(path.parent for path in folder.glob(f"[!.]*/{CONFIG}")):
        raise UserError(
            f"{folder} is not a model itself but holds {len(within)}; give one of them: "
            f"{_listed(map(str, within))}"
        )
    raise UserError(
        f"{folder} has no {CONFIG}, so it holds no finished model; "
        "check the path, or let the run that writes it finish"
    )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        contents = json.loads(path.read_bytes())
    except ValueError as error:  # bad JSON and bad UTF-8 alike
        raise UserError(f"{path} is not valid JSON ({error}); download or save it again") from None
    if not isinstance(contents, dict):
        raise UserError(f"{path} is not a JSON object; download or save it again")
    return contents


def _write_json(path: Path, contents: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(contents, indent=2) + "\n", encoding="utf-8")


def _listed(names: Any, most: int = 3) -> str:
    names = list(names)
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest
