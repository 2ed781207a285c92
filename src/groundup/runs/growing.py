"""Reading logs that another process is still writing: only the new lines, or only the last ones."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from groundup.runs.files import errors_naming, log_line

# Log lines contain times, so this many bytes identify a log.
_COMPARED = 2**10


class GrowingLog:
    """The lines of a .jsonl log, each read once: a call reads only what the log gained since."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read = 0
        self._last = b""
        self._lines: list[dict[str, Any]] = []

    def lines(self) -> list[dict[str, Any]]:
        """Return all complete lines so far, in the form of `read_lines`.

        A run that resumes or starts again replaces its log; the new log gets a new list.
        """
        with errors_naming(self._path), open(self._path, "rb") as file:
            file.seek(self._read - len(self._last))
            # Inode numbers do not identify files: a new one may get that of a removed one.
            if file.read(len(self._last)) != self._last:
                self._read, self._last, self._lines = 0, b"", []
                file.seek(0)
            new, end, _ = file.read().rpartition(b"\n")
        self._read += len(new) + len(end)
        self._last = (self._last + new + end)[-_COMPARED:]
        self._lines += filter(None, map(log_line, new.split(b"\n")))
        return self._lines


def last_lines(path: Path, most_bytes: int, having: bytes = b"") -> list[dict[str, Any]]:
    """Return the complete lines in the last `most_bytes` of a .jsonl log that contain `having`."""
    with errors_naming(path), open(path, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - most_bytes))
        content = file.read()
    first = 0 if size <= most_bytes else 1  # line 0 is cut off
    lines = (line for line in content.split(b"\n")[first:-1] if having in line)
    return list(filter(None, map(log_line, lines)))
