"""The output of `groundup data inspect`: an HTML page, and the same in the terminal.

Trained and masked tokens differ in color, and trained ones are underlined on terminals without
color. In files and pipes trained tokens are in brackets.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.progress import MofNCompleteColumn
from rich.text import Text

from groundup.data.inspection import Bin, InspectedRow, Inspection, histogram, quantiles, remarks
from groundup.report.page import (
    Bar,
    Bars,
    Block,
    Box,
    Heading,
    Note,
    Page,
    Section,
    Span,
    Spans,
    is_made_by,
    write_page,
)
from groundup.report.table import Cell, Column, Row, Table
from groundup.report.terminal import bars_in_terminal, in_terminal
from groundup.runs.console import console, progress
from groundup.text.token_view import Token

# Identifies the page as ours.
_GENERATOR = "groundup data inspect"
# Maximum numbers of tokens shown from the start and the end of an example, on a page and in the
# terminal, and of reasons; conversations are shorter.
_ON_PAGE, _IN_TERMINAL = (1500, 500), (300, 100)
_REASONS_ON_PAGE, _REASONS_IN_TERMINAL = 500, 8
# The number of truncated tokens shown, enough to recognize the text.
_CUT_SHOWN = 40
# Longer lines are hard to read, however wide the terminal.
_WIDEST = 100
_BAR = 36


def write_inspection(path: Path, title: str, tokenizer: str, found: Inspection) -> None:
    """Write the page atomically."""
    write_page(path, inspection_page(title, tokenizer, found))


def is_inspection(path: Path) -> bool:
    """Whether a file is such a page, and may be overwritten."""
    return is_made_by(path, _GENERATOR)


def inspection_page(title: str, tokenizer: str, found: Inspection) -> Page:
    """Counts, lengths, rows set aside with reasons, and the first rows token by token."""
    said = remarks(found)
    opening: list[Block] = [Box("**To know before training**", said)] if said else []
    sections = [Section("Rows", "rows", [facts(found)])]
    if found.sources:
        sections.append(Section("Sources", "sources", [sources(found)]))
    if len(found.lengths):
        middle = " · ".join(f"{name} {value:,.0f}" for name, value in quantiles(found).items())
        note = f"{middle}. Left of a bar is the number of training rows of that many tokens."
        if found.is_cut.any():
            note += " Hatched: longer than the context, and cut to it."
        sections.append(Section("Tokens of a row", "tokens", [Bars(bars(found)), Note(note)]))
    for heading, why in reasons(found):
        blocks: list[Block] = [Box("", why[:_REASONS_ON_PAGE])]
        if (left := len(why) - _REASONS_ON_PAGE) > 0:
            blocks.append(Note(f"… and {left:,} more."))
        sections.append(Section(heading, heading.lower().replace(" ", "-"), blocks))
    if found.examples:
        kinds = {"t": "trained", "m": "masked", "m c": "control token"}
        kinds |= {"t c": "control token, trained"}
        legend: list[Span | str] = []
        for kind, name in kinds.items():
            legend += [Span(name, kind, ""), Span("  ", "", "")]
        note = (
            "The exact tokens, one after another; ↵ is a line break, and a token shows its id "
            "under the mouse. The model reads all of them, and learns to predict the trained ones."
        )
        shown: list[Block] = [Spans(legend), Note(note)]
        for one in found.examples:
            spans = [_span(token) for token in shortened(one.tokens, *_ON_PAGE)]
            shown += [Heading(example_title(one)), Spans(spans)]
        sections.append(Section("As the model sees it", "examples", shown))
    lead = f"As {tokenizer} reads it, in {found.context:,} tokens of context."
    name = f"groundup data inspect: {title}"
    return Page(name, title, lead, opening, sections, generator=_GENERATOR)


def _span(token: Token | str) -> Span | str:
    if isinstance(token, str):
        return token
    kind = "t" if token.is_trained else "m"
    kind += (" c" if token.is_control else "") + (" x" if token.is_cut else "")
    return Span(token.text.replace("\n", "↵\n"), kind, " ".join(map(str, token.ids)))


# Shared by page and terminal.


def facts(found: Inspection) -> Table:
    """The counts: a name, a number and an explanation."""
    empty, cut = int(found.has_no_target.sum()), int(found.is_cut.sum())
    rows = [
        ("training rows", found.rows, ""),
        ("validation rows", found.heldout, f"held out {_held_out_by(found)}"),
        ("duplicates", found.duplicates, "left out"),
        ("bad lines", len(found.bad), "set aside"),
        ("refused rows", len(found.refused), "by the tokenizer or its template, set aside"),
        ("truncated rows", cut, f"{per_cent(cut, found.rows)}, cut at {found.context:,} tokens"),
        ("rows without answer", empty, "no trained token is left, set aside"),
        ("tokens", found.tokens, "read in one pass; the last of a row is only predicted"),
        ("trained tokens", found.trained, f"{per_cent(found.trained, found.tokens)} of them"),
    ]
    always = {"training rows", "validation rows", "tokens", "trained tokens"}
    shown = [
        Row(name, [Cell(f"{count:,}"), Cell(note if count else "")])
        for name, count, note in rows
        if count or name in always or name == "truncated rows"
    ]
    return Table([Column(""), Column("", words=True)], shown)


def _held_out_by(found: Inspection) -> str:
    by_hash = "by a hash of their content"
    as_it_came = "by the data's own split, such as files called validation"
    if found.hashed in (0, found.heldout):
        return by_hash if found.hashed else as_it_came
    return f"{as_it_came}; {found.hashed:,} of them {by_hash}"


def sources(found: Inspection) -> Table:
    """The counts per source."""
    columns = [Column("kind", words=True)]
    columns += [Column(name) for name in ("training", "validation", "tokens", "trained")]
    rows = []
    for one in found.sources:
        counts = [f"{count:,}" for count in (one.rows, one.heldout, one.tokens)]
        cells = [f"{one.kind}s", *counts, per_cent(one.trained, one.tokens)]
        rows.append(Row(one.source, [Cell(cell) for cell in cells]))
    return Table(columns, rows, corner="source")


def bars(found: Inspection) -> list[Bar]:
    """The lengths of rows; truncated rows are hatched."""
    bins = histogram(found)
    most = max(one.rows for one in bins)
    return [
        Bar(bin_title(one), one.rows, (one.rows - one.cut) / most, one.cut / most) for one in bins
    ]


def per_cent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "–"


def shortened(tokens: Sequence[Token], first: int, last: int) -> list[Token | str]:
    """The tokens within the context, shortened in the middle, and some beyond it.

    Texts between the tokens report omitted tokens and the end of the context.
    """
    kept = [token for token in tokens if not token.is_cut]
    cut = [token for token in tokens if token.is_cut]
    shown: list[Token | str] = list(kept)
    if left_out := kept[first:-last]:
        shown[first:-last] = [f"… {_count(left_out):,} tokens …"]
    if cut:
        shown += [f"the context ends here, and {_count(cut):,} tokens are cut", *cut[:_CUT_SHOWN]]
    return shown


def bin_title(one: Bin) -> str:
    return f"{one.low:,} and more" if one.high is None else f"{one.low:,} – {one.high:,}"


def reasons(found: Inspection) -> list[tuple[str, list[str]]]:
    """The reasons why lines and rows are set aside, if any."""
    said = [
        ("Bad lines", [str(line) for line in found.bad]),
        ("Refused rows", [f"training row {place + 1}: {why}" for place, why in found.refused]),
    ]
    return [(heading, reasons) for heading, reasons in said if reasons]


def example_title(example: InspectedRow) -> str:
    trained = _count(token for token in example.tokens if token.is_trained)
    pieces = f", the first of {example.pieces} pieces" if example.pieces > 1 else ""
    return (
        f"Row {example.number} ({example.kind}, {example.source}): "
        f"{_count(example.tokens):,} tokens, {trained:,} of them trained{pieces}"
    )


def _count(tokens: Iterable[Token]) -> int:
    return sum(len(token.ids) for token in tokens)


# The terminal.


@contextmanager
def encoding_bar(rows: int, on: Console = console) -> Iterator[Callable[[int], None]]:
    """A progress bar over the rows being encoded; gives a function to call with the number done."""
    bar = progress(MofNCompleteColumn(), on=on)
    task = bar.add_task("encoding", total=rows)
    with bar:
        yield lambda done: bar.update(task, completed=done)


def say_inspection(title: str, tokenizer: str, found: Inspection, on: Console = console) -> None:
    """Print everything, in lines of readable width."""
    width = min(_WIDEST, on.width)

    def show(what: RenderableType, indent: int = 2) -> None:
        if not isinstance(what, Text):
            on.print(Padding(what, (0, 0, 0, indent), expand=False), soft_wrap=False, width=width)
            return
        for line in what.wrap(on, width - indent):
            line.rstrip()
            on.print(Text(" " * indent).append_text(line), soft_wrap=True)

    show(
        Text.assemble((title, "bold"), f", as {tokenizer} reads it in {found.context:,} tokens"), 0
    )
    show(_heading("Rows"), 0)
    show(in_terminal(facts(found)))
    show(_heading("Sources"), 0)
    show(in_terminal(sources(found)))
    if len(found.lengths):
        show(_heading("Tokens of a row"), 0)
        show(Text(" · ".join(f"{name} {n:,.0f}" for name, n in quantiles(found).items())))
        room = max(8, min(_BAR, width - 34))
        show(bars_in_terminal(bars(found), room, ascii_only=on.options.ascii_only))
    for number, remark in enumerate(remarks(found)):
        if not number:
            show(_heading("To know"), 0)
        show(Text(remark))
    for heading, said in reasons(found):
        show(_heading(heading), 0)
        for reason in said[:_REASONS_IN_TERMINAL]:
            show(Text(reason))
        if (left := len(said) - _REASONS_IN_TERMINAL) > 0:
            show(Text(f"… and {left:,} more; see the page (--html)"))
    manner = _TokenStyle.of(on)
    for number, example in enumerate(found.examples):
        if not number:
            show(_heading("As the model sees it"), 0)
            show(manner.legend())
        show(_heading(example_title(example)), 0)
        show(manner.drawn(example, on))


def _heading(text: str) -> Text:
    return Text(f"\n{text}", style="bold")


# Examples, token by token.


@dataclass(frozen=True)
class _TokenStyle:
    """How tokens are distinguished: a style for each, or brackets where no style is visible."""

    trained: str
    masked: str
    control: str = "bold"
    brackets: tuple[str, str] = ("", "")

    @staticmethod
    def of(on: Console) -> _TokenStyle:
        if on.color_system is None:
            ascii_only = on.options.ascii_only
            return _TokenStyle("", "", "", ("[[", "]]") if ascii_only else ("⟦", "⟧"))
        if on.no_color:
            return _TokenStyle("underline", "")
        return _TokenStyle("green", "dim")

    def legend(self) -> Text:
        legend = Text()
        legend.append("trained".join(self.brackets), self.trained)
        legend.append("  ").append("masked", self.masked)
        if self.control:
            legend.append("  ").append("control token", self.control)
        return legend

    def drawn(self, example: InspectedRow, on: Console) -> Text:
        """The example as text, with notes about its tokens."""
        drawn = Text()
        line_end = "\n" if on.options.ascii_only else "↵\n"
        for trained, run in itertools.groupby(
            shortened(example.tokens, *_IN_TERMINAL), _is_trained
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
