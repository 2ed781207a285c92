"""A file of JSON lines that grows and can be gone on with after whatever stopped it.

Beside the file stands what it was begun with (`FILE.run.json`); with anything else it is not
continued. Each line has the `index` of what it belongs to, so they may come in any order.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from io import RawIOBase
from pathlib import Path
from typing import Any

from groundup.errors import UserError
from groundup.runs.files import write_json


@contextlib.contextmanager
def growing(
    out: Path | None, begun_with: Mapping[str, Any]
) -> Iterator[tuple[Callable[[str], None], frozenset[int]]]:
    """What writes a line at once, and the indices of those that are there already.

    Raises `UserError` for a file that another command has begun or is writing.
    """
    if out is None:
        yield write, frozenset()
        return
    if out.is_dir():
        raise UserError(f"--out={out} is a folder; name a file in it, such as {out}/out.jsonl")
    out.parent.mkdir(parents=True, exist_ok=True)
    # Without a buffer, so that a line is on its way to disk when it is written.
    with open(out, "ab", buffering=0) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError(
                f"another process is writing {out}; wait for it to end, or choose another --out"
            ) from None
        about = out.with_name(f"{out.name}.run.json")
        if out.stat().st_size:
            _require_same(out, about, begun_with)
        else:
            write_json(about, begun_with)
        yield lambda line: _write_whole(file, line.encode()), _finished(out)


def write(text: str) -> None:
    """Write to standard output at once."""
    sys.stdout.write(text)
    sys.stdout.flush()


def _write_whole(file: RawIOBase, line: bytes) -> None:
    while line:
        line = line[file.write(line) or 0 :]


def _require_same(out: Path, about: Path, begun_with: Mapping[str, Any]) -> None:
    try:
        before = json.loads(about.read_bytes())
    except (OSError, ValueError):
        raise UserError(
            f"{out} is there already, and without {about.name} nobody knows what it was begun "
            "with; choose another --out"
        ) from None
    for name, value in begun_with.items():
        if before.get(name) == value:
            continue
        if name in ("model", "prompts"):
            what = f"from another {'model' if name == 'model' else 'file of prompts'}"
        else:
            what = f"with {name}={before.get(name)!r}, not {name}={value!r}"
        raise UserError(
            f"{out} was begun {what}; choose another --out, or give what it was begun with to "
            "continue it"
        )


def _finished(out: Path) -> frozenset[int]:
    """The indices that have their line; a last line that a kill tore is cut off."""
    content = out.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        os.truncate(out, whole)
    indices = []
    for number, line in enumerate(content[:whole].split(b"\n")[:-1], 1):
        try:
            indices.append(int(json.loads(line)["index"]))
        except (ValueError, TypeError, KeyError):
            raise UserError(
                f"{out}, line {number} is no completion of ours, so the file cannot be continued; "
                "choose another --out"
            ) from None
    return frozenset(indices)
