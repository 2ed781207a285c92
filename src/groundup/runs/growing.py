"""Logs that others are still writing, read for who looks on: only what is new, or only the end."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from groundup.runs.files import log_line, naming

# Lines of one log say when they were written, or how long it took: so many bytes tell them apart.
_COMPARED = 2**10


class GrowingLog:
    """The lines of a .jsonl log, each read once: a look costs what was written since the last."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read = 0
        self._last = b""
        self._lines: list[dict[str, Any]] = []

    def lines(self) -> list[dict[str, Any]]:
        """All whole lines that are there by now, as `read_lines` has them.

        A list of its own for each log that stands there: a run that goes on, or is begun anew,
        writes another.
        """
        with naming(self._path), open(self._path, "rb") as file:
            file.seek(self._read - len(self._last))
            # Files' numbers do not tell them apart: the next one may get that of one removed.
            if file.read(len(self._last)) != self._last:
                self._read, self._last, self._lines = 0, b"", []
                file.seek(0)
            new, end, _ = file.read().rpartition(b"\n")
        self._read += len(new) + len(end)
        self._last = (self._last + new + end)[-_COMPARED:]
        self._lines += filter(None, map(log_line, new.split(b"\n")))
        return self._lines


def last_lines(path: Path, most_bytes: int, having: bytes = b"") -> list[dict[str, Any]]:
    """The last whole lines of a .jsonl log in which something stands, as far as so many bytes
    hold them."""
    with naming(path), open(path, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - most_bytes))
        content = file.read()
    first = 0 if size <= most_bytes else 1  # which is cut
    lines = (line for line in content.split(b"\n")[first:-1] if having in line)
    return list(filter(None, map(log_line, lines)))
