"""Weights on disk: safetensors, one file or shards with an index, under each family's own names.

They are memory-mapped and passed to the model without a second copy. Only safetensors are read: a
pickle can run any code when it is opened. Faults of a file are found in its header, before the
first number is read.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.overrides import TorchFunctionMode

from groundup.errors import UserError, shorten
from groundup.formats.locate import CONFIG
from groundup.formats.own_config import not_in_hugging_face
from groundup.lm.config import ModelConfig
from groundup.lm.families import Stored, stored_as
from groundup.lm.model import CausalLM
from groundup.runs.console import say
from groundup.runs.files import errors_naming, file_hash, is_sealed, read_json_object, write_json

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"

# Small enough for all file systems and downloads, large enough that small models are one file.
MAX_SHARD_BYTES = 2 * 10**9

# The number of names in a message: enough to recognize their kind, short enough for a line.
_MAX_LISTED = 3
_EMBEDDING, _HEAD = "model.embed_tokens.weight", "lm_head.weight"
# The types in which weights are read, named as in the files.
FLOATS = ("F64", "F32", "F16", "BF16")


# Writing.


def write_weights(
    folder: Path,
    model: CausalLM,
    dtype: torch.dtype,
    max_shard_bytes: int,
    extra: Mapping[str, Tensor],
) -> None:
    """Write `model.safetensors`, or shards and an index if they would exceed a file's size.

    `extra` tensors are written unchanged next to the parameters, under their own names.
    """
    parameters = {name: parameter.detach() for name, parameter in model.named_parameters()}
    pieces: dict[str, list[tuple[Stored, Tensor]]] = {}
    for name, parameter in parameters.items():
        stored = place_in_file(model.config, name)
        pieces.setdefault(stored.name, []).append((stored, parameter))
    sizes = {name: sum(t.numel() for _, t in parts) for name, parts in pieces.items()}
    sizes = {name: numbers * dtype.itemsize for name, numbers in sizes.items()}
    sizes |= {name: tensor.nbytes for name, tensor in extra.items()}
    shards = _shards(sizes, max_shard_bytes)
    weight_map: dict[str, str] = {}
    for number, names in enumerate(shards, start=1):
        file = f"model-{number:05}-of-{len(shards):05}.safetensors" if len(shards) > 1 else WEIGHTS
        shard = {name: join_parts(pieces[name]).to(dtype) for name in names if name in pieces}
        shard |= {name: extra[name] for name in names if name in extra}
        shard = {name: tensor.cpu().contiguous() for name, tensor in shard.items()}
        with errors_naming(folder / file):
            save_file(shard, folder / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(names, file)
    if len(shards) > 1:
        index = {"metadata": {"total_size": sum(sizes.values())}, "weight_map": weight_map}
        write_json(folder / INDEX, index)


def place_in_file(config: ModelConfig, name: str) -> Stored:
    """Where a file stores our tensor: under our own name if no family has this shape."""
    own = not_in_hugging_face(config) is not None
    return Stored(name) if own else stored_as(config.model_type, name)


def join_parts(pieces: list[tuple[Stored, Tensor]]) -> Tensor:
    """Combines one or several of our tensors into the file's."""
    whole = torch.cat([tensor for _, tensor in pieces]) if len(pieces) > 1 else pieces[0][1]
    return whole.T if pieces[0][0].transposed else whole


def _shards(sizes: Mapping[str, int], max_shard_bytes: int) -> list[list[str]]:
    """Names in the model's order, split where a shard would grow too large."""
    shards: list[list[str]] = [[]]
    size = 0
    for name, grown in sizes.items():
        if shards[-1] and size + grown > max_shard_bytes:
            shards.append([])
            size = 0
        shards[-1].append(name)
        size += grown
    return shards


# Reading.


def empty_model(config: ModelConfig) -> CausalLM:
    """A model of this shape that takes no memory (on the meta device)."""
    with torch.device("meta"), _WithoutInitialization():
        return CausalLM(config)


class _WithoutInitialization(TorchFunctionMode):
    """Layers created inside skip the initialization of their weights.

    Meta tensors need none, and to find that out torch imports all of its compiler, which takes
    longer than reading a small model.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", None) == "torch.nn.init":
            return kwargs.get("tensor")
        return func(*args, **kwargs)


def model_of(
    config: ModelConfig, tensors: Mapping[str, Tensor], device: torch.device | str = "cpu"
) -> CausalLM:
    """The model with these tensors themselves, not copies, as its parameters.

    A head among the tensors becomes the model's own, as for an adapter that unties it.
    """
    config = replace(
        config, tie_word_embeddings=config.tie_word_embeddings and _HEAD not in tensors
    )
    model = empty_model(config)
    model.load_state_dict(
        {name: tensor.to(device) for name, tensor in tensors.items()}, strict=False, assign=True
    )
    if config.tie_word_embeddings:
        # Assigning replaced the embedding's parameter; the head must share the new one.
        model.lm_head.weight = model.model.embed_tokens.weight
    return model


def tensor_names(folder: Path) -> list[str]:
    """The names of all tensors, from the files' headers."""
    names: list[str] = []
    for path in _weight_files(folder):
        with open_weights(path, "cpu") as file:
            names += file.keys()
    return names


def weights_hash(path: Path) -> str:
    """The SHA-256 of a model's weights: of a GGUF file, or of a folder's one file.

    For several files, the hash of the list of their hashes.
    """
    files = _weight_files(path) if path.is_dir() else [path]
    hashes = [file_hash(file) for file in files]
    return hashes[0] if len(files) == 1 else hashlib.sha256("\n".join(hashes).encode()).hexdigest()


def read_weights(
    folder: Path, model: CausalLM, device: torch.device | str, extra: Set[str] = frozenset()
) -> dict[str, Tensor]:
    """The model's tensors, checked by name, type and shape before the first is read.

    Tensors of the files named in `extra` are returned as they are, under these names.

    Raises `UserError` naming the tensor that is missing, unknown, or of the wrong type or shape.
    """
    config = model.config
    # A tied head is one parameter with two names, of which this keeps the first.
    wanted: dict[str, list[tuple[str, Stored]]] = {}
    shapes = {name: list(parameter.shape) for name, parameter in model.named_parameters()}
    for name in shapes:
        stored = place_in_file(config, name)
        wanted.setdefault(stored.name, []).append((name, stored))
    missing, tensors = set(wanted) - extra, {}
    # Files of a bare decoder omit the decoder's prefix.
    prefixes = ("", "transformer." if config.family.weights else "model.")
    embedding = place_in_file(config, _EMBEDDING).name
    if _shards_differ(folder):
        say(
            f"Warning: {folder} holds {WEIGHTS} and, by {INDEX}, other weights in shards; the one "
            "file is read, as in transformers: remove the files that you do not mean"
        )
    tied_head: Tensor | None = None
    for path in _weight_files(folder):
        with open_weights(path, device) as file:
            for name in file.keys():  # noqa: SIM118 (not a dictionary)
                if name in extra:
                    tensors[name] = file.get_tensor(name)
                    continue
                known = next((p + name for p in prefixes if p + name in wanted), None)
                if known is None and re.search(config.family.ignored, name):
                    continue
                tied = known is None and name == _HEAD
                parts = wanted[embedding] if tied else wanted.get(str(known), [])
                shape = shape_in_file(parts, shapes) if parts else None
                _check(path, name, file.get_slice(name), shape)
                if tied:
                    tied_head = file.get_tensor(name)
                    continue
                if known not in missing:
                    raise UserError(
                        f"{path}: tensor {name} is there twice, or as {known} as well, and one "
                        "would replace the other; save the model again with one of the two"
                    )
                tensors.update(split_parts(file.get_tensor(name), parts))
                missing.discard(str(known))
    if tied_head is not None and missing == {embedding}:
        # Of two names for one tensor some programs save the last.
        return tensors | {_EMBEDDING: tied_head}
    if missing:
        raise UserError(
            f"{folder}: the weights lack {listed(sorted(missing))}, which {CONFIG} requires; "
            "download or save the folder again"
        )
    if tied_head is not None and not torch.equal(tied_head, tensors[_EMBEDDING]):
        raise UserError(
            f"{folder}: {_HEAD} differs from the embedding that {CONFIG} ties it to; "
            'set "tie_word_embeddings": false there'
        )
    return tensors


def shape_in_file(
    parts: list[tuple[str, Stored]], shapes: Mapping[str, Sequence[int]]
) -> list[int]:
    """The shape of a file's tensor that holds these tensors of ours."""
    outputs = sum(shapes[name][0] for name, _ in parts)
    shape = [outputs, *shapes[parts[0][0]][1:]]
    return shape[::-1] if parts[0][1].transposed else shape


def split_parts(whole: Tensor, parts: list[tuple[str, Stored]]) -> dict[str, Tensor]:
    """Splits a file's tensor into those of our model."""
    [(name, stored), *more] = parts
    if not more and not stored.transposed:
        return {name: whole}
    pieces = (whole.T if stored.transposed else whole).chunk(len(parts))
    return {name: piece.contiguous() for (name, _), piece in zip(parts, pieces, strict=True)}


def _check(path: Path, name: str, found: Any, expected: list[int] | None) -> None:
    if expected is None:
        raise UserError(
            f"{path}: tensor {name[:200]} is not part of the model that {CONFIG} describes; "
            f"check that {CONFIG} belongs to these weights"
        )
    if found.get_shape() != expected:
        raise UserError(
            f"{path}: tensor {name} has shape {found.get_shape()}, but {CONFIG} requires "
            f"{expected}; check that both come from the same model"
        )
    if found.get_dtype() not in FLOATS:
        raise UserError(
            f"{path}: tensor {name} is of type {found.get_dtype()}, but weights are read as "
            f"{', '.join(FLOATS)}; save the model in one of these"
        )


def _weight_files(folder: Path) -> list[Path]:
    """The weight files of a folder; if it has both one file and shards, the one file, as in
    transformers.

    Saving a model again with another number of files leaves the old ones behind.
    """
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    if (folder / INDEX).is_file():
        return _indexed_files(folder)
    if pickles := sorted(folder.glob("pytorch_model*.bin")):
        raise UserError(
            f"{pickles[0]} is a pickle, which can run any code when opened, and is not read; "
            "save the model with safetensors (transformers: save_pretrained) and load that"
        )
    if is_sealed(folder / "run.json"):
        raise UserError(f"{folder / WEIGHTS} is missing; rerun the command that wrote it")
    raise UserError(
        f"{folder} has a {CONFIG} but no {WEIGHTS}; download the weights as well (weights that "
        "exist only as pickles must be saved as safetensors first)"
    )


def _indexed_files(folder: Path) -> list[Path]:
    weight_map = read_json_object(folder / INDEX).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise UserError(f"{folder / INDEX}: no weight_map; download the folder again")
    # Checked against the folder's file list: a foreign index must not point outside.
    there = {path.name for path in folder.iterdir() if path.is_file()}
    names = sorted({str(name) for name in weight_map.values()})
    for name in names:
        if name not in there:
            raise UserError(
                f"{folder / INDEX} names {shorten(name)}, which is not in the folder; "
                "download it as well"
            )
    return [folder / name for name in names]


def _shards_differ(folder: Path) -> bool:
    """Whether a complete set of shards with other weights exists next to the one file."""
    if not ((folder / WEIGHTS).is_file() and (folder / INDEX).is_file()):
        return False
    try:
        with open_weights(folder / WEIGHTS) as one:
            left = set(one.keys())
            for path in _indexed_files(folder):
                with open_weights(path) as shard:
                    for name in shard.keys():  # noqa: SIM118 (not a dictionary)
                        if name not in left:
                            return True
                        ours, other = one.get_tensor(name), shard.get_tensor(name)
                        if ours.dtype != other.dtype or not torch.equal(ours, other):
                            return True
                        left.discard(name)
            return bool(left)
    except UserError:  # the shards are incomplete
        return False


@contextmanager
def open_weights(path: Path, device: torch.device | str = "cpu") -> Iterator[Any]:
    """Open a safetensors file; raises `UserError` if it is damaged."""
    with path.open("rb"):  # raises the OS error if the file cannot be read
        pass
    try:
        with safe_open(path, framework="pt", device=str(device)) as file:
            yield file
    except SafetensorError as error:
        made = is_sealed(path.with_name("run.json"))
        remedy = "rerun the command that wrote it" if made else "download or save it again"
        raise UserError(f"{path} is damaged ({error}); {remedy}") from None


def listed(names: Iterable[str]) -> str:
    """The first few names, and the number of the others."""
    names = list(names)
    rest = f" and {len(names) - _MAX_LISTED} more" if len(names) > _MAX_LISTED else ""
    return ", ".join(names[:_MAX_LISTED]) + rest
