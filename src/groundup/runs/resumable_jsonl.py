"""A JSON Lines output file that can be continued after an interruption.

The settings it was started with are stored next to it (`FILE.run.json`); it is only continued with
the same settings. Each line has the `index` of its input, so lines may come in any order.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from io import RawIOBase
from pathlib import Path
from typing import Any

from groundup.errors import UserError
from groundup.runs.files import (
    errors_naming,
    is_count,
    locked,
    read_json_object,
    writable,
    write_json,
)


@contextlib.contextmanager
def resumable_lines(
    out: Path | None,
    begun_with: Mapping[str, Any],
    *,
    inputs: Sequence[Path] = (),
    force: bool = False,
) -> Iterator[tuple[Callable[[str], None], frozenset[int]]]:
    """Yield a function that writes a line at once, and the indices of the lines already written.

    Raises `UserError` for a file that another command has started or is writing, and for one of the
    `inputs`. With `force` a file that another command has started is overwritten.
    """
    if out is None:
        yield write, frozenset()
        return
    about = out.with_name(f"{out.name}.run.json")
    # Whether an existing file may be continued is checked below.
    writable(out, "--out", inputs=inputs, force=True)
    writable(about, "the side file of --out", inputs=inputs, force=force, ours=_is_ours)
    # Unbuffered, so that each line reaches the system when it is written.
    with locked(out), open(out, "ab", buffering=0) as file:
        finished = frozenset[int]()
        try:
            if out.stat().st_size:
                _require_same(out, about, begun_with)
                finished = _finished(out)
            else:
                write_json(about, begun_with)
        except UserError:
            if not force:
                raise
            file.truncate(0)
            write_json(about, begun_with)
        except OSError:
            if not out.stat().st_size:
                out.unlink()  # it was created just now
            raise
        with errors_naming(out):
            yield lambda line: _write_whole(file, line.encode()), finished


def write(text: str) -> None:
    """Write to standard output at once."""
    sys.stdout.write(text)
    sys.stdout.flush()


def _write_whole(file: RawIOBase, line: bytes) -> None:
    while line:
        line = line[file.write(line) or 0 :]


def _is_ours(about: Path) -> bool:
    try:
        return {"schema", "model", "prompts"} <= read_json_object(about).keys()
    except UserError:
        return False


def _require_same(out: Path, about: Path, begun_with: Mapping[str, Any]) -> None:
    try:
        before = read_json_object(about)
    except UserError:
        raise UserError(
            f"{out} already exists, and without an intact {about.name} its settings are unknown; "
            "choose another --out, or pass --force to overwrite it"
        ) from None
    for name, value in begun_with.items():
        if before.get(name) == value:
            continue
        if name in ("model", "prompts"):
            what = f"from another {'model' if name == 'model' else 'file of prompts'}"
        else:
            what = f"with {name}={before.get(name)!r}, not {name}={value!r}"
        raise UserError(
            f"{out} was begun {what}; choose another --out, give the settings it was begun with to "
            "continue it, or pass --force to overwrite it"
        )


def _finished(out: Path) -> frozenset[int]:
    """Return the indices of complete lines; an incomplete last line is removed from the file."""
    content = out.read_bytes()
    whole = content.rfind(b"\n") + 1
    indices = set[int]()
    for number, line in enumerate(content[:whole].split(b"\n")[:-1], 1):
        try:
            index = json.loads(line)["index"]
        except (ValueError, TypeError, KeyError, RecursionError):
            index = None
        if not is_count(index) or index in indices:
            raise UserError(
                f"{out}, line {number} was not written by this command, so the file cannot be "
                "continued; choose another --out, or pass --force to overwrite it"
            )
        indices.add(index)
    if whole < len(content):
        os.truncate(out, whole)
    return frozenset(indices)
