"""The content of a folder that a run reads: its files and their hash."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from groundup.errors import UserError
from groundup.runs.files import file_hash, is_sealed, read_json_object, require_file

# A folder's hash covers weights, tokenizers and texts, not a run's description of itself.
_CONTENT = frozenset(
    {".safetensors", ".txt", ".md", ".jsonl", ".json", ".ndjson", ".csv", ".tsv", ".parquet"}
)
_LOGS = frozenset(
    {"metrics.jsonl", "samples.jsonl", "README.md", "reference.safetensors", "best.safetensors"}
)
_ASIDE = frozenset({"checkpoints", "snapshots", "tokens"})
_DESCRIPTIONS = ("run.json", ".run.json.copy")
# A run's description of itself, such as times and speeds, which any start may rewrite.
_OF_THE_RUN = frozenset({"run.json", "plan.json", "status.json"})


def folder_hash(folder: Path) -> str:
    """Return one hash of the content of a model, tokenizer or data folder."""
    return _hash_of((name, file_hash(path)) for name, path in files_of(folder))


def content_hash(path: Path) -> str:
    """Return the hash of a run's input: a folder, or a file such as a GGUF model."""
    return folder_hash(path) if path.is_dir() else file_hash(path)


def recorded_hashes(path: Path) -> frozenset[str]:
    """Return the hashes that a run may have recorded for an input file or folder.

    Earlier versions included a run's description of itself in the folder's hash.
    """
    if not path.is_dir():
        return frozenset({file_hash(path)})
    hashes = {name: file_hash(file) for name, file in _files(path)}
    todays = ((name, hashes[name]) for name, _ in files_of(path))
    return frozenset({_hash_of(todays), _hash_of(hashes.items())})


def same_as(path: Path) -> Callable[[Mapping[str, Any]], bool]:
    """Return a test whether a parent recorded in run.json is this file or folder as it is now."""
    hashes, more = recorded_hashes(path), more_hashes(path)
    # Runs of earlier versions record fewer hashes.
    return lambda parent: (
        parent.get("sha256") in hashes
        and all(parent.get(part, now) == now for part, now in more.items())
    )


def files_of(folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield the files of a folder's content, each with its path in the folder."""
    # Without a run, files of these names are a user's data.
    aside = _OF_THE_RUN if is_sealed(folder / "run.json") else frozenset[str]()
    return ((name, path) for name, path in _files(folder) if name not in aside)


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield the files of a folder except logs, caches and other runs inside it."""
    others = runs_inside(folder)
    for path in sorted(folder.rglob("*")):
        if not others.isdisjoint(path.parents):
            continue
        parts = path.relative_to(folder).parts
        kept = path.name not in _LOGS and not _ASIDE.intersection(parts)
        if path.suffix.lower() in _CONTENT and kept and path.is_file():
            yield "/".join(parts), path


def runs_inside(folder: Path) -> frozenset[Path]:
    """Return the folders of other runs inside, at any depth; they are not part of its content."""
    found = (path.parent for name in _DESCRIPTIONS for path in folder.rglob(name))
    return frozenset(found) - {folder}


def _hash_of(files: Iterable[tuple[str, str]]) -> str:
    """Return the hash of (name, hash) pairs of files."""
    whole = hashlib.sha256()
    for name, of_file in files:
        # A name need not be UTF-8.
        whole.update(f"{name} {of_file}\n".encode(errors="surrogateescape"))
    return whole.hexdigest()


def more_hashes(path: Path) -> dict[str, str | None]:
    """Return hashes of what `folder_hash` does not cover, None for what the folder does not have.

    They are separate because earlier runs recorded the folder's hash alone.
    """
    if not path.is_dir():
        return {}
    below = [f"{input_hash('base', one)} {_template_hash(one)}" for one in bases(path)]
    base = hashlib.sha256("\n".join(below).encode()).hexdigest() if below else None
    return {"chat_template": _template_hash(path), "base": base}


def _template_hash(folder: Path) -> str | None:
    template = folder / "chat_template.jinja"
    return file_hash(template) if template.is_file() else None


def bases(folder: Path) -> list[Path]:
    """Return the base folders of an adapter, down to a full model, as far as they are local."""
    found = [folder]
    while (base := _base(found[-1])) is not None and not any(map(base.samefile, found)):
        found.append(base)
    return found[1:]


def _base(folder: Path) -> Path | None:
    """Return the base of an adapter's folder; None if it is a name on the hub, not a local path."""
    described, weights = folder / "adapter_config.json", folder / "adapter_model.safetensors"
    if not described.is_file() or any(folder.glob("model*.safetensors")):
        return None
    stated: list[object] = []
    with contextlib.suppress(UserError):  # loading the adapter reports the damage
        stated = [
            _metadata(weights).get("base"),
            read_json_object(described).get("base_model_name_or_path"),
        ]
    names = [name for name in stated if isinstance(name, str) and name]
    places = [place for name in names for place in (folder / name, Path(name))]
    return next((place for place in places if os.path.exists(place)), None)


def _metadata(path: Path) -> Mapping[str, str]:
    """Return the metadata of a safetensors file, empty if it is damaged or missing."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            return file.metadata() or {}
    except (SafetensorError, OSError):
        return {}


def input_hash(name: str, path: Path) -> str:
    """Return the hash of the input `name` of a run. Raises `UserError` if it is not there."""
    if not path.exists():
        raise UserError(f"there is no {name} {str(path)!r}; check the path")
    if not path.is_dir():
        require_file(path)
    return content_hash(path)
