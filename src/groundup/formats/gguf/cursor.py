"""Reading a GGUF header from its first byte to its last, never past the file's end.

Every count and length is compared with what is left of the file before anything is made of it.
"""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from groundup.errors import UserError
from groundup.formats.gguf.types import ARRAY, BOOL, FLOAT32, NUMBERS, STRING

# Far above what any model has. Without a bound, a large file of tiny entries would cost a Python
# object for each, many times its own size.
MOST_ENTRIES = 65_536
_MOST_STRINGS = 4_000_000
MOST_NAME_BYTES = 65_535  # the format's own bound
_DEPTH = 3  # arrays of arrays; llama.cpp writes none at all


class Cursor:
    """A place in the file that only moves forward, and never past the end."""

    def __init__(self, path: Path, data: mmap.mmap) -> None:
        self.path, self._data = path, data
        self.at, self.end = 0, len(data)
        self._strings_left = _MOST_STRINGS

    def fail(self, why: str) -> NoReturn:
        raise UserError(f"{self.path} is damaged: {why}; download it again")

    def take(self, size: int) -> bytes:
        if size > self.end - self.at:
            self.fail(f"it ends {size - (self.end - self.at):,} bytes before its header does")
        taken = self._data[self.at : self.at + size]
        self.at += size
        return taken

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "little")

    def check_count(self, count: int, least_bytes: int, what: str, most: int) -> None:
        """Whether `count` things of at least `least_bytes` can be in what is left of the file."""
        if count * least_bytes > self.end - self.at:
            self.fail(f"it claims {count:,} {what}, more than its {self.end:,} bytes can hold")
        if count > most:
            raise UserError(
                f"{self.path} has {count:,} {what}; at most {most:,} are read: "
                "no model has as many, so check where the file comes from"
            )

    def string(self, what: str, most: int | None = None) -> str:
        return self.strings(1, what, most)[0]

    def strings(self, count: int, what: str, most: int | None = None) -> list[str]:
        """Read `count` strings; this loop is where a vocabulary's quarter of a million goes by."""
        self.check_count(count, 8, what, self._strings_left)
        self._strings_left -= count
        data, at, end = self._data, self.at, self.end
        found = []
        for _ in range(count):
            size = int.from_bytes(data[at : at + 8], "little")
            at += 8
            if size > end - at or (most is not None and size > most):
                self.fail(f"{what[:80]!r} has a text of {size:,} bytes, which is too many")
            try:
                found.append(data[at : at + size].decode("utf-8"))
            except UnicodeDecodeError:
                self.fail(f"{what[:80]!r} has a text that is not UTF-8")
            at += size
        self.at = at
        return found

    def value(self, kind: int, name: str, depth: int = 0) -> Any:
        """Read one metadata value of type number `kind`."""
        if kind == STRING:
            return self.string(name)
        if kind == ARRAY:
            return self._array(name, depth)
        if kind not in NUMBERS:
            self.fail(f"{name[:80]!r} has the unknown type {kind}")
        value = np.frombuffer(self.take(NUMBERS[kind].itemsize), NUMBERS[kind])[0]
        if kind == BOOL:
            return bool(self._truth(np.array([value]), name)[0])
        if kind == FLOAT32:
            # The decimal that a person wrote: 1e-5 and not 9.999999747378752e-06.
            return float(str(value))
        return value.item()

    def _array(self, name: str, depth: int) -> Any:
        kind, count = self.number(4), self.number(8)
        if depth == _DEPTH:
            self.fail(f"{name[:80]!r} has arrays within arrays {_DEPTH} deep")
        if kind == STRING:
            return self.strings(count, name)
        if kind == ARRAY:
            self.check_count(count, 4 + 8, f"arrays in {name[:80]!r}", self._strings_left)
            self._strings_left -= count
            return [self._array(name, depth + 1) for _ in range(count)]
        if kind not in NUMBERS:
            self.fail(f"{name[:80]!r} is an array of the unknown type {kind}")
        size = NUMBERS[kind].itemsize
        self.check_count(count, size, f"numbers in {name[:80]!r}", self.end)
        # NumPy does not look at nothing: an empty array may stand at the very end.
        values = np.frombuffer(self._data, NUMBERS[kind], count, self.at if count else 0)
        self.at += count * size
        return self._truth(values, name) if kind == BOOL else values

    def _truth(self, values: npt.NDArray[Any], name: str) -> npt.NDArray[np.bool_]:
        if values.size and values.max() > 1:
            self.fail(f"{name[:80]!r} is neither true nor false")
        return values.astype(bool)
