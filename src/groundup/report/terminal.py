"""Terminal output: tables, bars, and untrusted text on one safe line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import rich.table
from rich.text import Text

from groundup.report.page import Bar, shortened
from groundup.report.table import DASH, Cell, Mark, Part, Table

_STYLES: Mapping[Mark, str] = {"": "", "yes": "green", "no": "red", "open": "dim"}


def in_terminal(table: Table) -> rich.table.Table:
    """Return the table for a terminal: titles left, numbers right, baselines dim."""
    drawn = rich.table.Table(
        title=table.title or None,
        title_justify="left",
        box=None,
        pad_edge=False,
        padding=(0, 2, 0, 0),
        header_style="dim",
        show_header=any(table.heads),
    )
    # Titles are wrapped, never cut: paths and names may differ only at their ends.
    drawn.add_column(Text(table.corner), overflow="fold")
    for column, head in zip(table.columns, table.heads[1:], strict=True):
        drawn.add_column(Text(head), justify="left" if column.words else "right", overflow="fold")
    for row in table.rows:
        if isinstance(row, Part):
            drawn.add_row(Text(row.title, style="bold"))
            continue
        cells = [Text(DASH) if cell is None else _drawn(cell) for cell in row.cells]
        title = Text(row.title)
        title.append(f"\n{row.note}" if row.note else "", "dim")
        drawn.add_row(title, *cells, style="dim" if row.base else None)
    return drawn


def _drawn(cell: Cell) -> Text:
    """Return the value, with its change or else its note on a separate line."""
    drawn = Text(cell.value, style="" if cell.change else _STYLES[cell.mark])
    if below := cell.change or cell.note:
        drawn.append(f"\n{below}", _STYLES[cell.mark] if cell.change else "dim")
    return drawn


def bars_in_terminal(bars: Sequence[Bar], room: int, *, ascii_only: bool) -> rich.table.Table:
    """Return one line for each bar; hatched parts have another color and character."""
    full, hatched = ("#", "x") if ascii_only else ("█", "▒")
    drawn = rich.table.Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    for justify in ("right", "right", "left"):
        drawn.add_column(justify=justify, no_wrap=True)
    for one in bars:
        total = one.share + one.hatched
        length = max(1, round(room * total)) if one.count else 0
        cut = round(length * one.hatched / total) if one.count else 0
        line = Text(full * (length - cut), style="cyan")
        line.append(hatched * cut, style="yellow")
        drawn.add_row(one.title, f"{one.count:,}", line)
    return drawn


_JOINERS = "\u200c\u200d"  # between letters of Persian and Hindi, and between parts of an emoji


def one_line(text: str, room: int = 64) -> str:
    """Return untrusted text as one short line without control characters."""
    shown = "".join(one if one.isprintable() or one in _JOINERS else " " for one in text)
    return shortened(" ".join(shown.split()), room)
