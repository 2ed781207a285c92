"""Checkpoints that survive a power cut.

A checkpoint is written into a new directory, every file is synced, then one rename commits it:
before the rename it does not exist, afterwards it is complete. `manifest.json` holds the SHA-256 of
each file and of itself, so later damage is detected and the previous checkpoint is used. Tensors
are stored as safetensors; nothing is pickled.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from groundup.errors import UserError
from groundup.runs import ranks
from groundup.runs.files import (
    atomic_write,
    file_hash,
    read_json_object,
    remedy,
    seal,
    sync_folder,
    write_json,
)

# Two, so that one is left if the other is damaged.
KEPT = 2
SCHEMA = 1


@dataclass(frozen=True)
class Checkpoint:
    """The state after `step` optimizer steps."""

    step: int
    counters: dict[str, Any]
    tensors: dict[str, dict[str, Tensor]]


def save(
    folder: Path, step: int, tensors: Mapping[str, Mapping[str, Tensor]], counters: dict[str, Any]
) -> Path:
    """Commit `folder`/step-N, one safetensors file for each entry of `tensors`, and drop old ones.

    Raises `UserError` when it cannot be written, such as on a full disk; earlier checkpoints stay
    unchanged.
    """
    final = folder / f"step-{step}"
    folder.mkdir(parents=True, exist_ok=True)
    need = sum(t.numel() * t.element_size() for group in tensors.values() for t in group.values())
    require_space(folder, need, f"a checkpoint at step {step}", newest(folder))
    for unfinished in folder.glob(".step-*.partial"):  # left by a kill during a save
        shutil.rmtree(unfinished, ignore_errors=True)
    partial = folder / f".step-{step}.partial"
    try:
        partial.mkdir()
        files = {}
        for name, group in tensors.items():
            path = partial / f"{name}.safetensors"
            write_tensors(path, group)
            files[path.name] = {"sha256": file_hash(path), "bytes": path.stat().st_size}
        manifest = {"schema": SCHEMA, "step": step, "counters": counters, "files": files}
        write_json(partial / "manifest.json", manifest | {"sha256": seal(manifest)})
        sync_folder(partial)
        _remove(final)
        os.rename(partial, final)
        sync_folder(folder)
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(
            f"writing a checkpoint at step {step} into {folder} failed ({reason}); "
            f"{_last_checkpoint(newest(folder))}; {remedy(error)}"
        ) from error
    finally:  # also after Ctrl-C
        shutil.rmtree(partial, ignore_errors=True)
    for old in steps(folder)[:-KEPT]:
        shutil.rmtree(folder / f"step-{old}", ignore_errors=True)
    return final


def write_tensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None
) -> None:
    """Write one safetensors file atomically. Raises `OSError` that names the file."""
    with atomic_write(path) as partial:
        save_file({name: t.detach().contiguous() for name, t in tensors.items()}, partial, metadata)


def load_newest(folder: Path, say: Callable[[str], None]) -> Checkpoint | None:
    """Return the newest undamaged checkpoint, or None. Rank 0 removes damaged ones."""
    for step in reversed(steps(folder)):
        path = folder / f"step-{step}"
        fault = _fault(path)
        if fault is None:
            manifest = read_json_object(path / "manifest.json")
            tensors = {Path(name).stem: load_file(path / name) for name in manifest["files"]}
            return Checkpoint(step, manifest["counters"], tensors)
        say(f"checkpoint {path} is damaged ({fault}); trying the one before it")
        if ranks.is_first():
            _remove(path)
    return None


def steps(folder: Path) -> list[int]:
    """Return the steps of the committed checkpoints, oldest first."""
    names = (path.name.removeprefix("step-") for path in folder.glob("step-*"))
    return sorted(int(name) for name in names if name.isdecimal())


def newest(folder: Path) -> int | None:
    found = steps(folder)
    return found[-1] if found else None


def require_space(folder: Path, need: int, what: str, last_good: int | None) -> None:
    """Raise `UserError` if the disk has less than `need` bytes and a tenth more free."""
    free = shutil.disk_usage(folder).free
    if free < need * 1.1:
        raise UserError(
            f"{what} needs {need * 1.1 / 1e6:,.0f} MB and the disk of {folder} has "
            f"{free / 1e6:,.0f} MB free; {_last_checkpoint(last_good)}; "
            "make room and start the same command again"
        )


def _last_checkpoint(last_good: int | None) -> str:
    if last_good is None:
        return "no checkpoint has been written yet"
    return f"the checkpoint at step {last_good} is untouched"


def _fault(path: Path) -> str | None:
    try:
        manifest = read_json_object(path / "manifest.json")
    except UserError:
        return "manifest.json cannot be read"
    if manifest.pop("sha256", None) != seal(manifest):
        return "the bytes of manifest.json changed"
    for name, facts in manifest["files"].items():
        file = path / name
        if not file.is_file():
            return f"{name} is missing"
        if file.stat().st_size != facts["bytes"] or file_hash(file) != facts["sha256"]:
            return f"the bytes of {name} changed"
    return None


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
