"""Logs that others are still writing, read for who looks on: only what is new, or only the end."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from groundup.runs.files import log_line, naming


class GrowingLog:
    """The lines of a .jsonl log, each read once: a look costs what was written since the last."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: tuple[int, int] | None = None
        self._read = 0
        self._lines: list[dict[str, Any]] = []

    def lines(self) -> list[dict[str, Any]]:
        """All whole lines that are there by now, as `read_lines` has them."""
        with naming(self._path), open(self._path, "rb") as file:
            now = os.fstat(file.fileno())
            # A run that goes on writes its log anew, up to where it goes on.
            if (now.st_dev, now.st_ino) != self._file or now.st_size < self._read:
                self._file, self._read, self._lines = (now.st_dev, now.st_ino), 0, []
            file.seek(self._read)
            new, end, _ = file.read().rpartition(b"\n")
        self._read += len(new) + len(end)
        self._lines += filter(None, map(log_line, new.split(b"\n")))
        return self._lines


def last_lines(path: Path, most_bytes: int) -> list[dict[str, Any]]:
    """The last whole lines of a .jsonl log, as far as so many bytes hold them."""
    with naming(path), open(path, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - most_bytes))
        content = file.read()
    first = 0 if size <= most_bytes else 1  # which is cut
    lines = content.split(b"\n")[first:-1]
    return list(filter(None, map(log_line, lines)))
