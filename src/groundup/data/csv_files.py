"""Rows of a .csv or .tsv file: its first line names the columns (RFC 4180)."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from pathlib import Path

from groundup.errors import UserError
from groundup.text.rows import BadRow, Json

CSV_SUFFIXES = (".csv", ".tsv")
# What parts cells, the usual one first: spreadsheets write a semicolon where the comma is decimal.
_DELIMITERS = ",;\t|"
# A text may be longer than the csv module expects.
_LONGEST_CELL = 2**31 - 1
# Excel may say itself what parts them.
_SAID = re.compile(r"sep=(.)\s*")


def csv_rows(content: bytes, path: Path) -> Iterator[tuple[int, Json | BadRow]]:
    """The rows of a file's `content`, each with the line that it begins on.

    Cells may hold line breaks within quotes; an empty cell is None, as where a row of JSON has no
    such field. A row that does not fit its header or whose quotes do not, or that is not UTF-8, is
    a BadRow, and reading goes on after it. Raises UserError for a header that names two columns
    alike.
    """
    # Bytes that are no UTF-8 become surrogates, which no valid text has.
    text = content.decode("utf-8", "surrogateescape").replace("\r\n", "\n").replace("\r", "\n")
    lines = text.split("\n")
    first = next((place for place, line in enumerate(lines) if line.strip()), len(lines))
    if first == len(lines):
        return
    if said := _SAID.fullmatch(lines[first]):
        delimiter, first = said.group(1), first + 1
    else:
        delimiter = "\t" if path.suffix == ".tsv" else _delimiter(lines, first)
    names: list[str] | None = None
    place = first
    while place < len(lines):
        if not lines[place].strip(" "):
            place += 1
            continue
        cells, end = _record(lines, place, delimiter)
        if names is None:
            names = _header(cells, path)
        elif isinstance(cells, BadRow) or any(map(str.strip, cells)):
            yield place + 1, _row(names, cells)
        place = end


def _delimiter(lines: list[str], first: int) -> str:
    """The one that parts the header into most columns."""

    def columns(delimiter: str) -> int:
        try:
            return len(_cells(lines, first, delimiter)[0])
        except csv.Error:
            return 0

    return max(_DELIMITERS, key=columns)


def _record(lines: list[str], place: int, delimiter: str) -> tuple[list[str] | BadRow, int]:
    """The cells of the record that begins on that line, and the line after it."""
    try:
        return _cells(lines, place, delimiter)
    except csv.Error as error:
        # In files parted by tabs a quote is often nothing but a quote.
        if delimiter == "\t":
            return lines[place].split("\t"), place + 1
        # The quote that is wrong may have swallowed what follows, which is read anew.
        never = "is opened and never closed" if "end of data" in str(error) else "closes too early"
        return BadRow(f'a quote {never}; write "" for a quote within a quoted cell'), place + 1


def _cells(lines: list[str], place: int, delimiter: str) -> tuple[list[str], int]:
    limit = csv.field_size_limit(_LONGEST_CELL)
    try:
        following = (f"{lines[number]}\n" for number in range(place, len(lines)))
        reader = csv.reader(following, delimiter=delimiter, strict=True)
        return next(reader), place + reader.line_num
    finally:
        csv.field_size_limit(limit)


def _header(cells: list[str] | BadRow, path: Path) -> list[str]:
    if isinstance(cells, BadRow):
        raise UserError(f"the first line of {str(path)!r} names no columns: {cells}")
    names = [name.strip() for name in cells]
    for name in names:
        if name and names.count(name) > 1:
            raise UserError(f"{str(path)!r} has two columns called {name!r}; rename one of them")
    return names


def _row(names: list[str], cells: list[str] | BadRow) -> Json | BadRow:
    if isinstance(cells, BadRow):
        return cells
    if len(cells) != len(names):
        return BadRow(
            f"it has {len(cells)} {'cell' if len(cells) == 1 else 'cells'} and the header has "
            f"{len(names)}; a cell that holds what "
            "parts cells must stand in quotes"
        )
    for name, cell in zip(names, cells, strict=True):
        try:
            cell.encode()
        except UnicodeEncodeError as error:
            byte = ord(cell[error.start]) - 0xDC00
            return BadRow(f"not UTF-8: byte {byte:#04x} in {name!r}; save the file as UTF-8")
    found = dict(zip(names, (cell if cell.strip() else None for cell in cells), strict=True))
    found.pop("", None)  # the row's number, as tables of data frames are written
    return found
