"""Tables as data: rows of cells, rendered on pages, in the terminal and in Markdown.

Rows are measures and columns are models, so that a table with many sources stays narrow and a new
measure is one more row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import floor, inf, isclose, log10
from typing import Any, Literal

from groundup.maths.intervals import Interval
from groundup.report.estimate import BySource, Estimate
from groundup.runs.console import three_digits

Mark = Literal["", "yes", "no", "open"]
"""The result of a test: better, worse, or open if the data does not decide."""
DASH = "–"


@dataclass(frozen=True)
class Cell:
    """A value, a note in small print such as its interval, and a change from something else.

    `mark` belongs to the change or, without one, to the value. The value links to `href`, and a
    `share` from 0 to 1 is drawn as a bar below it.
    """

    value: str
    note: str = ""
    change: str = ""
    mark: Mark = ""
    href: str = ""
    share: float | None = None

    @staticmethod
    def of(text: str) -> Cell:
        """Return a cell from text whose second line is the note."""
        value, _, note = text.partition("\n")
        return Cell(value, note)

    @property
    def text(self) -> str:
        return "\n".join(part for part in (self.value, self.note, self.change) if part)


@dataclass(frozen=True)
class Row:
    """A measure with a cell for each column; None is shown as a dash.

    `base` marks a baseline. The title links to `href` and is indented by `depth`.
    """

    title: str
    cells: Sequence[Cell | None]
    note: str = ""
    base: bool = False
    href: str = ""
    depth: int = 0


@dataclass(frozen=True)
class Part:
    """A heading between the rows of a table."""

    title: str


@dataclass(frozen=True)
class Column:
    """The head of a column; `base` marks a baseline, `words` a column of text, not numbers."""

    title: str
    note: str = ""
    base: bool = False
    words: bool = False


@dataclass(frozen=True)
class Table:
    """Columns and rows; `corner` is the head of the row titles.

    `left_out` names omitted rows that do not distinguish models, with their number.
    """

    columns: Sequence[Column]
    rows: Sequence[Row | Part]
    left_out: Sequence[str] = ()
    title: str = ""
    corner: str = ""
    remarks: Sequence[str] = ()

    def __post_init__(self) -> None:
        rows = [row for row in self.rows if isinstance(row, Row)]
        assert all(len(row.cells) == len(self.columns) for row in rows), self.title

    @property
    def lines(self) -> list[list[str]]:
        """The rows as text, titles first; the second line of a cell is its note."""
        return [
            [
                Cell(row.title, row.note).text,
                *("" if cell is None else cell.text for cell in row.cells),
            ]
            for row in self.rows
            if isinstance(row, Row)
        ]

    @property
    def heads(self) -> list[str]:
        """The columns as text, the corner first."""
        return [self.corner, *(Cell(one.title, one.note).text for one in self.columns)]

    def to_json(self) -> dict[str, Any]:
        """Return every cell as text; `baselines` are the titles of baseline rows."""
        is_base = [row.base for row in self.rows if isinstance(row, Row)]
        return {
            "title": self.title,
            "columns": self.heads,
            "rows": self.lines,
            "remarks": list(self.remarks),
            "baselines": [line[0] for line, base in zip(self.lines, is_base, strict=True) if base],
        }


def text_table(
    title: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[str | Cell]],
    remarks: Sequence[str] = (),
    baselines: Sequence[str] = (),
) -> Table:
    """Return a table of text; the first column has the rows' titles, second lines are notes.

    `baselines` are the titles of baseline rows.
    """
    heads = [Cell.of(column) for column in columns]
    made: list[Row | Part] = []
    for first, *others in rows:
        cells = [one if isinstance(one, Cell) else Cell.of(one) for one in others]
        name = first if isinstance(first, Cell) else Cell.of(first)
        made.append(Row(name.value, cells, name.note, base=first in baselines))
    assert sum(isinstance(row, Row) and row.base for row in made) >= len(set(baselines)), title
    return Table(
        [Column(head.value, head.note) for head in heads[1:]],
        made,
        title=title,
        corner=heads[0].text,
        remarks=tuple(remarks),
    )


# Cells.


def listing(names: Sequence[str]) -> str:
    """Join names for a sentence: `utility, safety and fairness`."""
    *firsts, last = names
    return f"{', '.join(firsts)} and {last}" if firsts else last


def decimals(value: float) -> int:
    """Return the decimals that show three significant digits of a small number; at least 3."""
    return max(3, 2 - floor(log10(value))) if 0 < value < inf else 3


def ends(value: Interval, shown: Callable[[float], str]) -> str:
    """Format the ends of an interval; empty for one of zero width.

    Drawing a single group or equal values shows no spread, but does not make the number certain.
    """
    if isclose(value.low, value.high):
        return ""
    return f"{shown(value.low)} to {shown(value.high)}"


def number(value: Interval, digits: int = 3) -> Cell:
    """Return a number with its interval."""

    def shown(one: float) -> str:
        return f"{one:z,.{digits}f}"

    return Cell(shown(value.estimate), ends(value, shown))


def percent(share: Interval) -> Cell:
    """Return a share as a percentage, with its interval."""
    return Cell(f"{100 * share.estimate:.1f} %", ends(share, lambda one: f"{100 * one:.1f}"))


def points(change: Interval) -> Cell:
    """Return the change of a share in percentage points, with its interval."""

    def shown(one: float) -> str:
        return f"{100 * one:+.1f}"

    return Cell(shown(change.estimate), ends(change, shown))


def plain(value: float, as_percent: bool) -> Cell:
    """Return a number without an interval, such as chance."""
    return Cell(f"{100 * value:.1f} %" if as_percent else f"{value:.3f}")


def in_bytes(size: float) -> str:
    """Format bytes in a readable unit: 12.1 MB."""
    for unit, one in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= 0.9995 * one:
            return f"{three_digits(size / one)} {unit}"
    return f"{size:.0f} bytes"


def short_number(value: float) -> str:
    """Format 1500000 as 1.5 M."""
    if abs(value) >= 0.9995e15:
        return f"{value:.3g}"
    for size, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        # A number that would round to a thousand of a unit uses the next unit.
        if abs(value) >= 0.9995 * size:
            return f"{three_digits(value / size)} {letter}"
    return f"{value:.3g}"


# Whole tables.


def is_uninformative(found: Sequence[Estimate]) -> bool:
    """Whether a share is uninformative: 0 for every model, or 1 for all of several models."""
    shares = {one.estimate for one in found}
    return shares == {0.0} or (shares == {1.0} and len(found) > 1)


def informative(models: Mapping[str, BySource]) -> dict[str, BySource]:
    """Return each model's shares at informative sources, which `source_table` shows."""
    sources = dict.fromkeys(source for found in models.values() for source in found)
    kept = {s for s in sources if not is_uninformative([o[s] for o in models.values() if s in o])}
    return {
        name: {source: one for source, one in found.items() if source in kept}
        for name, found in models.items()
    }


def omitted_row(title: str, found: Sequence[Estimate]) -> str:
    """Describe an omitted row, with the number that all models have."""
    return f"{title} ({100 * found[0].estimate:.0f} %)"


def source_table(
    models: Mapping[str, BySource],
    baselines: Mapping[str, BySource],
    names: Mapping[str, str],
    shown: Callable[[Estimate], Cell],
    *,
    share: bool,
    chance: bool = False,
    items: str = "",
) -> Table:
    """Return a table with sources as rows, and models, baselines and `chance` as columns.

    `items` is the noun for a source's items, whose number is shown under its name.
    """
    sources = list(dict.fromkeys(source for found in models.values() for source in found))
    shown_of = informative(models) if share else models
    rows: list[Row] = []
    left_out = []
    for source in sources:
        found = [one[source] for one in models.values() if source in one]
        name = names.get(source, source)
        if not any(source in one for one in shown_of.values()):
            left_out.append(omitted_row(name, found))
            continue
        cells = [
            shown(one[source]) if source in one else None
            for one in (*models.values(), *baselines.values())
        ]
        if chance:
            level = found[0].chance
            cells.append(None if level is None else plain(level, as_percent=share))
        rows.append(Row(name, cells, f"{found[0].items:,} {items}" if items else ""))
    columns = [Column(name) for name in models]
    columns += [Column(name, base=True) for name in baselines]
    if chance:
        columns.append(Column("chance", base=True))
    return Table(columns, rows, left_out)


def markdown(table: Table) -> str:
    """Return the table in GitHub's Markdown, with small print in brackets."""

    def line(cells: Sequence[str]) -> str:
        flat = (_one_line(cell).replace("|", "\\|") for cell in cells)
        return f"| {' | '.join(flat)} |"

    lines = [f"## {table.title}", "", line(table.heads)]
    lines += ["|" + " --- |" * len(table.heads), *map(line, table.lines)]
    for remark in table.remarks:
        lines += ["", remark]
    return "\n".join(lines) + "\n"


def _one_line(cell: str) -> str:
    first, *more = cell.split("\n")
    return f"{first} ({', '.join(more)})" if more else first
