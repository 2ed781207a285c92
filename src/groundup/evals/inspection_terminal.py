"""What `groundup data inspect` prints.

Trained tokens are green and masked ones dim. On a terminal without colours trained ones are
underlined, and in what goes to a file or a pipe they stand in brackets.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.padding import Padding
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from groundup.data.inspection import InspectedRow, Inspection, histogram, quantiles, remarks
from groundup.evals.inspection_page import (
    bin_title,
    example_title,
    facts,
    per_cent,
    reasons,
    shortened,
)
from groundup.runs.console import console
from groundup.text.token_view import Token

# So many tokens of an example from its beginning and from its end, and so many reasons.
_FIRST, _LAST = 300, 100
_REASONS = 8
# Longer lines are hard to read, however wide the terminal is.
_WIDEST = 100
_BAR = 36


@contextmanager
def encoding_bar(rows: int, on: Console = console) -> Iterator[Callable[[int], None]]:
    """A bar over the rows that are being encoded; gives what to call with the number done."""
    columns = (TextColumn("encoding"), BarColumn(bar_width=24), MofNCompleteColumn())
    bar = Progress(
        *columns, TimeRemainingColumn(), console=on, disable=not on.is_terminal, transient=True
    )
    task = bar.add_task("", total=rows)
    with bar:
        yield lambda done: bar.update(task, completed=done)


def say_inspection(title: str, tokenizer: str, found: Inspection, on: Console = console) -> None:
    """Print everything, in lines no wider than are easy to read."""
    width = min(_WIDEST, on.width)

    def show(what: Text | Table, indent: int = 2) -> None:
        if isinstance(what, Table):
            on.print(Padding(what, (0, 0, 0, indent), expand=False), soft_wrap=False, width=width)
            return
        for line in what.wrap(on, width - indent):
            line.rstrip()
            on.print(Text(" " * indent).append_text(line), soft_wrap=True)

    show(
        Text.assemble((title, "bold"), f", as {tokenizer} reads it in {found.context:,} tokens"), 0
    )
    show(_heading("Rows"), 0)
    show(_facts_table(found))
    show(_heading("Sources"), 0)
    show(_source_table(found))
    if len(found.lengths):
        show(_heading("Tokens of a row"), 0)
        show(_quantile_line(found))
        show(_bars(found, width, on))
    for number, remark in enumerate(remarks(found)):
        if not number:
            show(_heading("To know"), 0)
        show(Text(remark))
    for heading, said in reasons(found):
        show(_heading(heading), 0)
        for reason in said[:_REASONS]:
            show(Text(reason))
        if (left := len(said) - _REASONS) > 0:
            show(Text(f"… and {left:,} more; a page (--html) has them"))
    manner = _Manner.of(on)
    for number, example in enumerate(found.examples):
        if not number:
            show(_heading("As the model sees it"), 0)
            show(manner.legend())
        show(_heading(example_title(example)), 0)
        show(manner.drawn(example, on))


def _heading(text: str) -> Text:
    return Text(f"\n{text}", style="bold")


def _facts_table(found: Inspection) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    for justify in ("left", "right", "left"):
        table.add_column(justify=justify)
    for name, number, note in facts(found):
        table.add_row(name, number, Text(note, style="dim"))
    return table


def _source_table(found: Inspection) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("source")
    table.add_column("kind")
    for name in ("training", "validation", "tokens", "trained"):
        table.add_column(name, justify="right")
    for one in found.sources:
        counts = [f"{count:,}" for count in (one.rows, one.heldout, one.tokens)]
        table.add_row(Text(one.source), f"{one.kind}s", *counts, per_cent(one.trained, one.tokens))
    return table


def _quantile_line(found: Inspection) -> Text:
    parts = [f"{name} {value:,.0f}" for name, value in quantiles(found).items()]
    return Text(" · ".join(parts))


def _bars(found: Inspection, width: int, on: Console) -> Table:
    """One line for each bin; what is cut has another colour and another letter."""
    kept_mark, cut_mark = ("#", "x") if on.options.ascii_only else ("█", "▒")
    bins = histogram(found)
    most = max(one.rows for one in bins)
    room = max(8, min(_BAR, width - 34))
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    for justify in ("right", "right", "left"):
        table.add_column(justify=justify, no_wrap=True)
    for one in bins:
        length = max(1, round(room * one.rows / most)) if one.rows else 0
        cut = round(length * one.cut / one.rows) if one.rows else 0
        bar = Text(kept_mark * (length - cut), style="cyan")
        bar.append(cut_mark * cut, style="yellow")
        table.add_row(bin_title(one), f"{one.rows:,}", bar)
    return table


# Token by token.


@dataclass(frozen=True)
class _Manner:
    """How to tell tokens apart: a style for each, and brackets where no style is to be seen."""

    trained: str
    masked: str
    control: str = "bold"
    brackets: tuple[str, str] = ("", "")

    @staticmethod
    def of(on: Console) -> _Manner:
        if on.color_system is None:
            ascii_only = on.options.ascii_only
            return _Manner("", "", "", ("[[", "]]") if ascii_only else ("⟦", "⟧"))
        if on.no_color:
            return _Manner("underline", "")
        return _Manner("green", "dim")

    def legend(self) -> Text:
        legend = Text()
        legend.append("trained".join(self.brackets), self.trained)
        legend.append("  ").append("masked", self.masked)
        if self.control:
            legend.append("  ").append("control token", self.control)
        return legend

    def drawn(self, example: InspectedRow, on: Console) -> Text:
        """The example as text, with everything that says what its tokens are."""
        drawn = Text()
        line_end = "\n" if on.options.ascii_only else "↵\n"
        for trained, run in itertools.groupby(
            shortened(example.tokens, _FIRST, _LAST), _is_trained
        ):
            style = self.trained if trained else self.masked
            drawn.append(self.brackets[0] if trained else "", style)
            for one in run:
                if isinstance(one, str):
                    drawn.append(f"\n-- {one} --\n", "yellow")
                    continue
                text = one.text.replace("\n", line_end)
                drawn.append(text, f"{style} {self.control}" if one.is_control else style)
            drawn.append(self.brackets[1] if trained else "", style)
        drawn.rstrip()
        return drawn


def _is_trained(shown: Token | str) -> bool:
    return not isinstance(shown, str) and shown.is_trained
