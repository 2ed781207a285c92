"""A cache of rows, so that a sweep measures nothing twice: one file per model and task.

A file is named by the hash of everything that its rows depend on: the model's weights, shape,
tokenizer and adapter; the task with its version, the hashes of its sets and its items, and their
number; whether the model chats; and how it was computed. The file contains this key and is sealed
with its SHA-256, so that damage is detected and the rows are measured again. A failure of the cache
costs time and nothing else.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from groundup.data.packs.manifest import PackSet, find_pack
from groundup.errors import UserError
from groundup.evals.values.task import Row, Task
from groundup.runs.console import say
from groundup.runs.files import describe_os_error, lock, read_json_object, seal, write_json

SCHEMA = 1
# Rows are small; only a count of millions could come near this.
_MAX_BYTES = 256 * 2**20


def pack_hashes(task: Task) -> dict[str, str]:
    """The SHA-256 of the archives that a task reads; generated sets have none."""
    packs = [find_pack(name) for name in task.packs]
    return {one.name: one.archive.sha256 for one in packs if isinstance(one, PackSet)}


@dataclass(frozen=True)
class RowCache:
    """Rows by their keys, in the files of a folder."""

    folder: Path

    def read(self, key: Mapping[str, Any]) -> Sequence[Row] | None:
        """The rows of a key; None if there are none or they are damaged."""
        path = self._path(key)
        if not path.is_file():
            return None
        try:
            found = read_json_object(path, _MAX_BYTES)
            said, rows = found.pop("sha256", None), found.get("rows")
            if said != seal(found) or found.get("key") != key or not isinstance(rows, list):
                raise UserError(f"{path} is not what was written")
        except UserError:
            say(f"values  {path} is damaged; {key['task']} is measured again")
            return None
        return rows

    def write(self, key: Mapping[str, Any], rows: Sequence[Row]) -> None:
        """Store the rows atomically; another process may store the same."""
        path, content = self._path(key), {"schema": SCHEMA, "key": dict(key), "rows": list(rows)}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            held = lock(path.with_suffix(".lock"), f"keeping {path}")
        except UserError:  # another process is storing the same rows
            return
        except OSError as error:
            say(f"values  rows are not kept: {describe_os_error(error)}")
            return
        try:
            write_json(path, {**content, "sha256": seal(content)})
        except OSError as error:
            say(f"values  rows are not kept: {describe_os_error(error)}")
        finally:
            held.release()

    def _path(self, key: Mapping[str, Any]) -> Path:
        name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
        return self.folder / str(key["task"]) / f"{name[:32]}.json"
