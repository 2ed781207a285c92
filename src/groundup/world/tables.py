"""Reads the tables of the world: plain text files that anybody can read and edit.

A table is `tables/NAME.txt`. A line in brackets begins a section, and a line that begins with `#`
is a comment. Every other line is a row of cells separated by bars; a line that begins with a space
continues the row before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from groundup.errors import UserError

TableRow = tuple[str, ...]
Table = Sequence[TableRow]


def page(name: str) -> Mapping[str, Table]:
    """The sections of the table `tables/NAME.txt` by their headings."""
    path = Path(__file__).with_name("tables") / f"{name}.txt"
    return sections(path.read_text("ascii"), path.name)


def sections(text: str, name: str) -> Mapping[str, Table]:
    """The sections of a table; UserError with the name and the line of a mistake."""
    found: dict[str, list[TableRow]] = {}
    heading = ""
    for where, line in _joined(text, name):
        if line[0] == "[":
            heading = line[1:-1]
            _require(line[-1] == "]", f"{where}: a heading ends with ]")
            _require(
                heading not in found, f"{where}: [{heading}] is a heading of this table already"
            )
            found[heading] = []
        else:
            row = tuple(line.split(" | "))
            _require(bool(found), f"{where}: a row stands before the first heading")
            _require(
                "|" not in "".join(row), f"{where}: a bar needs a space and a cell on both sides"
            )
            _require(line.count("{") == line.count("}"), f"{where}: a brace is not closed")
            found[heading].append(row)
    return found


def _joined(text: str, name: str) -> list[tuple[str, str]]:
    """Every heading and row, on one line, with its file and line number."""
    found: list[tuple[str, str]] = []
    may_go_on = False
    for number, line in enumerate(text.splitlines(), 1):
        where, words = f"{name}, line {number}", " ".join(line.split())
        if words and line[0] == " ":
            _require(may_go_on, f"{where}: there is no row to continue")
            where, before = found.pop()
            found.append((where, f"{before} {words}"))
        else:
            may_go_on = bool(words) and words[0] not in "#["
            if words and words[0] != "#":
                found.append((where, words))
    return found


def _require(holds: bool, mistake: str) -> None:
    if not holds:
        raise UserError(f"tables/{mistake}")


def cells(table: Table) -> TableRow:
    """All cells of a table, row by row."""
    return tuple(cell for row in table for cell in row)


def labelled(table: Table) -> dict[str, TableRow]:
    """The rows by their first cells; UserError if two are equal."""
    found = {label: tuple(rest) for label, *rest in table}
    if len(found) < len(table):
        raise UserError(f"a label stands twice among {[row[0] for row in table]}; rename one")
    return found
