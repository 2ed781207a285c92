"""Tables of the report as data: rows of cells, whatever they are shown with.

A table's rows are what was measured and its columns the models, so that it stays narrow where there
are many sources, and a new measure is one more row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from groundup.evals.compared import says_nothing
from groundup.report.estimate import BySource, Estimate

Mark = Literal["", "reached", "missed", "open"]


@dataclass(frozen=True)
class Cell:
    """A number as it is shown, with its interval, and whether an aim is reached."""

    value: str
    interval: str = ""
    mark: Mark = ""


@dataclass(frozen=True)
class Row:
    """What was measured, a note on it, and a cell for each column; None is shown as a dash."""

    title: str
    cells: Sequence[Cell | None]
    note: str = ""


@dataclass(frozen=True)
class Part:
    """A heading between the rows of a table."""

    title: str


@dataclass(frozen=True)
class Column:
    """A model, or with `base` what needs no training."""

    title: str
    note: str = ""
    base: bool = False


@dataclass(frozen=True)
class Table:
    """Rows under their columns. `left_out` names the rows that say nothing, with their number."""

    columns: Sequence[Column]
    rows: Sequence[Row | Part]
    left_out: Sequence[str] = ()


Shown = Callable[[Estimate], Cell]


def number(digits: int = 3) -> Shown:
    """Shows a measured number with that many digits."""

    def shown(found: Estimate) -> Cell:
        low, high = (f"{end:.{digits}f}" for end in (found.low, found.high))
        return Cell(f"{found.estimate:.{digits}f}", f"{low} – {high}")

    return shown


def percent(found: Estimate) -> Cell:
    """Shows a share as a percentage."""
    return Cell(f"{100 * found.estimate:.1f} %", f"{100 * found.low:.1f} – {100 * found.high:.1f}")


def plain(value: float, as_percent: bool) -> Cell:
    """A number without an interval, such as chance."""
    return Cell(f"{100 * value:.1f} %" if as_percent else f"{value:.3f}")


def by_source(
    models: Mapping[str, BySource],
    baselines: Mapping[str, BySource],
    names: Mapping[str, str],
    shown: Shown,
    *,
    share: bool,
    chance: bool = False,
    items: str = "",
) -> Table:
    """Sources down, models and then baselines across; with `chance` what guessing reaches last.

    `items` is what a source was measured on, to be counted under its name.
    """
    sources = list(dict.fromkeys(source for found in models.values() for source in found))
    rows: list[Row] = []
    left_out = []
    for source in sources:
        found = [one[source] for one in models.values() if source in one]
        title = names.get(source, source)
        if share and says_nothing(found):
            left_out.append(nothing_said(title, found))
            continue
        cells = [
            shown(one[source]) if source in one else None
            for one in (*models.values(), *baselines.values())
        ]
        if chance:
            level = found[0].chance
            cells.append(None if level is None else plain(level, as_percent=share))
        rows.append(Row(title, cells, f"{found[0].items:,} {items}" if items else ""))
    columns = [Column(name) for name in models]
    columns += [Column(name, base=True) for name in baselines]
    if chance:
        columns.append(Column("chance", base=True))
    return Table(columns, rows, left_out)


def nothing_said(title: str, found: Sequence[Estimate]) -> str:
    """A row that is left out, with the number that all models have."""
    return f"{title} ({100 * found[0].estimate:.0f} %)"
