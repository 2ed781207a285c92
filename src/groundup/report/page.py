"""Pages as data: sections of blocks, rendered to one self-contained HTML file.

Modules that measure describe their pages with these classes and contain no HTML. A page needs no
other file: plots are embedded and fonts are the reader's. Text from a model or a data set is shown
as text, never as markup. In prose, `code` and **bold** are rendered as such.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TypeAlias

import jinja2
from markupsafe import Markup, escape

from groundup.report.claim import Claim, Outcome
from groundup.report.figure import Plot
from groundup.report.form import Ballot, Form
from groundup.report.table import Mark, Table
from groundup.runs.files import write_bytes

PAGE = "report.html"
_BEGINNING = 72  # characters of an answer that is collapsed


@dataclass(frozen=True)
class Note:
    """A paragraph in small print."""

    text: str


@dataclass(frozen=True)
class Box:
    """A highlighted box: a sentence and a list of points."""

    text: str
    points: Sequence[str] = ()


@dataclass(frozen=True)
class Heading:
    """A heading within a section."""

    text: str
    mark: Mark = ""


@dataclass(frozen=True)
class Claims:
    """Claims with their test results."""

    claims: Sequence[Claim]


@dataclass(frozen=True)
class Plots:
    """Plots, side by side where they fit."""

    plots: Sequence[Plot]


@dataclass(frozen=True)
class Listing:
    """Preformatted text, such as commands."""

    text: str


@dataclass(frozen=True)
class Fold:
    """Collapsed blocks under a title."""

    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Headline:
    """One large number, a tested verdict on it, and its values over the models."""

    title: str
    value: str
    unit: str
    word: str
    outcome: Outcome
    course: Sequence[tuple[str, str]]

    def to_json(self) -> dict[str, object]:
        return vars(self) | {"course": dict(self.course)}


@dataclass(frozen=True)
class Headlines:
    """Large numbers side by side."""

    headlines: Sequence[Headline]


def shortened(text: str, room: int) -> str:
    """Return the first words of a text, or its first letters where a word fills half the room."""
    if len(text) <= room:
        return text
    cut = text[: room - 2]
    space = cut.rfind(" ")
    return (cut[:space] if space > len(cut) // 2 else cut) + " …"


@dataclass(frozen=True)
class Answer:
    """An answer to a prompt; `folded` is the reason to collapse it behind its beginning.

    `drawn` is a second, sampled answer, shown paler.
    """

    who: str
    text: str
    folded: str | None = None
    drawn: Answer | None = None

    @property
    def beginning(self) -> str:
        """The first words in one line, for an answer that is collapsed."""
        return shortened(" ".join(self.text.split()), _BEGINNING)


@dataclass(frozen=True)
class Dialogue:
    """A prompt, turn by turn as (who, text), and the answers to it side by side."""

    turns: Sequence[tuple[str, str]]
    answers: Sequence[Answer]


@dataclass(frozen=True)
class Bar:
    """A bar of a bar chart: its count, and its plain and hatched parts relative to the longest."""

    title: str
    count: int
    share: float
    hatched: float


@dataclass(frozen=True)
class Bars:
    """A bar chart with a row of text for each bar."""

    bars: Sequence[Bar]


@dataclass(frozen=True)
class Span:
    """A displayed token: its text, its kind as a CSS class, and its ids."""

    text: str
    kind: str
    ids: str


@dataclass(frozen=True)
class Spans:
    """A sequence of tokens; a string between them is a remark on a separate line."""

    spans: Sequence[Span | str]


@dataclass(frozen=True)
class Links:
    """Links, side by side: a text and an address each."""

    links: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Live:
    """Settings of a page that refreshes itself: the address of `live.js`, and the interval."""

    script: str
    seconds: float


_Text: TypeAlias = str | Note | Box | Heading | Listing | Claims | Links
_Shown: TypeAlias = Table | Headlines | Dialogue | Bars | Spans | Form | Ballot
# A string, because a fold contains blocks itself.
Block: TypeAlias = "_Text | _Shown | Plots | Fold"


@dataclass(frozen=True)
class Section:
    """A section of a page with its heading, and the anchor for the table of contents."""

    title: str
    anchor: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Page:
    """A page: its browser title, heading, lead, opening and sections.

    `generator` identifies pages of ours. A `live` page may change while it is open.
    """

    title: str
    heading: str
    lead: str
    opening: Sequence[Block]
    sections: Sequence[Section]
    contents: bool = False
    generator: str = "groundup"
    live: Live | None = None
    script: str = ""
    """The address of an additional script, such as that of `ballot_script`."""


def live_script() -> str:
    """Return the script that refreshes a live page."""
    return (Path(__file__).parent / "live.js").read_text(encoding="utf-8")


def ballot_script() -> str:
    """Return the script that presses the buttons of a ballot by keys."""
    return (Path(__file__).parent / "ballot.js").read_text(encoding="utf-8")


def written(
    text: str,
    title: str,
    blocks: Mapping[str, Sequence[Block]],
    values: Mapping[str, object],
    *,
    opening: Sequence[Block] = (),
    contents: bool = False,
) -> Page:
    """Return a page from its prose, in which `{name}` is one of the `values`, as in `str.format`.

        # heading                       followed by the lead on the next line
        ## title {#anchor}              a section; ### is a heading within one
        [name]                          the `blocks` of that name
        > text, ! text, text            a note, a box, a paragraph

    A section, or the part under a heading, is left out if its first named blocks are empty.
    """
    top, *parts = re.split(r"^## ", text, flags=re.MULTILINE)
    heading, lead = top.removeprefix("# ").strip().split("\n", 1)
    sections = []
    for part in parts:
        head, body = part.split("\n", 1)
        name, _, anchor = head.removesuffix("}").partition(" {#")
        first, *more = (
            _blocks(one, blocks, values) for one in re.split(r"^(?=### )", body, flags=re.M)
        )
        if first is not None:
            rest = [block for one in more for block in one or ()]
            sections.append(Section(name, anchor, [*first, *rest]))
    return Page(title, heading, lead.strip().format_map(values), opening, sections, contents)


_KINDS: Mapping[str, type[Heading | Note | Box]] = {"###": Heading, ">": Note, "!": Box}


WORSE_AND_BETTER: Mapping[Mark, str] = {"no": "Worse", "yes": "Better"}


def claims_by_mark(
    tested: Sequence[Claim], titles: Mapping[Mark, str] = WORSE_AND_BETTER
) -> list[Block]:
    """Return the claims under the titles of their marks, with undecided ones collapsed."""
    blocks = list[Block]()
    for mark, title in titles.items():
        some = [one for one in tested if one.mark == mark]
        blocks.append(Heading(f"{title} ({len(some)})", mark))
        blocks.append(Claims(some) if some else Note("No significant difference."))
    if untold := [one for one in tested if one.mark == "open"]:
        why = "the interval allows both, or the groups are too few"
        title = f"Not significant ({len(untold)}): {why}"
        blocks.append(Fold(title, [Claims(untold)]))
    return blocks if tested else []


def _blocks(
    text: str, blocks: Mapping[str, Sequence[Block]], values: Mapping[str, object]
) -> list[Block] | None:
    """Return the blocks of a part of the prose; None if its first named blocks are empty."""
    found: list[Block] = []
    is_first = True
    for line in filter(None, text.split("\n")):
        if named := re.fullmatch(r"\[(\w+)\]", line):
            if is_first and not blocks[named[1]]:
                return None
            found += blocks[named[1]]
            is_first = False
            continue
        kind, _, words = line.partition(" ")
        if kind in _KINDS:
            found.append(_KINDS[kind](words.format_map(values)))
        else:
            found.append(line.format_map(values))
    return found


def html(page: Page) -> str:
    """Render the page as one HTML file; all text is escaped."""
    return _environment().get_template("page.html.jinja").render(page=page)


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["prose"] = prose
    environment.filters["kind"] = lambda block: type(block).__name__.lower()
    environment.filters["picture"] = _picture
    environment.filters["unbroken"] = _unbroken
    return environment


def script_page(template: str, data: object, **values: object) -> str:
    """Return a self-contained page that JavaScript draws from `data`, embedded as JSON.

    `template` is a file in this folder.
    """
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    # Escaped, so that no text can end the script element or start a comment.
    text = text.replace("<", "\\u003c").replace("\u2028", " ").replace("\u2029", " ")
    return _environment().get_template(template).render(data=Markup(text), **values)


def prose(text: str) -> Markup:
    """Render `code` and **bold**, and escape everything else."""
    shown = str(escape(text))
    shown = re.sub(r"`([^`]+)`", r"<code>\1</code>", shown)
    return Markup(re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", shown))


def _unbroken(title: str) -> str:
    """Join a trailing arrow, which shows the better direction, to the title's last word."""
    return re.sub(r" (?=[↑↓]$)", "\N{NO-BREAK SPACE}", title)


def _picture(plot: Plot) -> str:
    code = base64.b64encode(plot.svg).decode("ascii")
    return f"data:image/svg+xml;base64,{code}"


def write_page(path: Path, page: Page) -> None:
    """Write a page atomically. Characters that UTF-8 cannot encode become '?'."""
    write_bytes(path, html(page).encode("utf-8", errors="replace"))


def is_made_by(path: Path, generator: str) -> bool:
    """Whether a file is a page written by this generator."""
    with open(path, "rb") as file:
        return f'<meta name="generator" content="{generator}">'.encode() in file.read(4096)
