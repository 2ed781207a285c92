"""A page as data, and the one way to write it: sections of blocks, whole in one HTML file.

Whoever measures says what stands on its page, in these words, and nothing of HTML. A page needs
nothing but itself: plots are inside, fonts are the reader's own, and whatever a model or a data set
says stands there as text, never as markup. In prose, `code` and **bold** are set as such.
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


@dataclass(frozen=True)
class Note:
    """A paragraph in small letters."""

    text: str


@dataclass(frozen=True)
class Box:
    """What is to be seen first: a sentence, and points."""

    text: str
    points: Sequence[str] = ()


@dataclass(frozen=True)
class Heading:
    """A heading within a section."""

    text: str
    mark: Mark = ""


@dataclass(frozen=True)
class Claims:
    """Claims with how their tests came out."""

    claims: Sequence[Claim]


@dataclass(frozen=True)
class Plots:
    """Plots side by side, as far as they fit."""

    plots: Sequence[Plot]


@dataclass(frozen=True)
class Listing:
    """Text whose lines are kept, as commands are."""

    text: str


@dataclass(frozen=True)
class Fold:
    """Blocks behind a line that unfolds them."""

    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Headline:
    """One large number, a word on it that a test stands behind, and its course over models."""

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


@dataclass(frozen=True)
class Answer:
    """What somebody says to a prompt; with a reason to fold it away behind its beginning.

    `drawn` is a second answer, set paler.
    """

    who: str
    text: str
    folded: str | None = None
    drawn: Answer | None = None

    @property
    def beginning(self) -> str:
        """The first words, for the line that unfolds."""
        if len(self.text) <= 70:
            return self.text
        return self.text[:70].rsplit(" ", 1)[0] + " …"


@dataclass(frozen=True)
class Dialogue:
    """A prompt, turn by turn as (who, text), and the answers to it side by side."""

    turns: Sequence[tuple[str, str]]
    answers: Sequence[Answer]


@dataclass(frozen=True)
class Bar:
    """A line of a bar chart: its count, and the shares of the longest bar, one of them hatched."""

    title: str
    count: int
    share: float
    hatched: float


@dataclass(frozen=True)
class Bars:
    """A bar chart whose lines are rows of text."""

    bars: Sequence[Bar]


@dataclass(frozen=True)
class Span:
    """A token as it is shown: its text, its kind in letters of the style sheet, and its ids."""

    text: str
    kind: str
    ids: str


@dataclass(frozen=True)
class Spans:
    """Tokens one after another; a string between them is a remark on a line of its own."""

    spans: Sequence[Span | str]


@dataclass(frozen=True)
class Links:
    """Where to go from here, side by side: words, and the address that they lead to."""

    links: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Live:
    """A page that a server makes anew: the address of `live.js`, which looks again."""

    script: str
    seconds: float


_Text: TypeAlias = str | Note | Box | Heading | Listing | Claims | Links
_Shown: TypeAlias = Table | Headlines | Dialogue | Bars | Spans | Form | Ballot
# As text, for a fold holds blocks itself.
Block: TypeAlias = "_Text | _Shown | Plots | Fold"


@dataclass(frozen=True)
class Section:
    """A part of a page under a heading, with the anchor by which the contents lead to it."""

    title: str
    anchor: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Page:
    """A page: what a browser calls it, its heading and lead, an opening, and its sections.

    `generator` is by which a page of ours is known again. One that is `live` may change while it is
    looked at.
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
    """The address of a script that makes it more handy, such as that of `ballot_script`."""


def live_script() -> str:
    """What a live page looks again with."""
    return (Path(__file__).parent / "live.js").read_text(encoding="utf-8")


def ballot_script() -> str:
    """What presses the buttons of a ballot by keys."""
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
    """A page from its prose, in which `{name}` is one of the `values`, as in `str.format`.

        # heading                       and in the next line the lead
        ## title {#anchor}              a section; ### is a heading within one
        [name]                          the `blocks` of that name
        > text, ! text, text            a note, a box, a paragraph

    A section, or what stands under a heading, is left out where its first named blocks are none.
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
    """The claims under the titles of their marks and, folded away, what cannot be told; or none."""
    blocks = list[Block]()
    for mark, title in titles.items():
        some = [one for one in tested if one.mark == mark]
        blocks.append(Heading(f"{title} ({len(some)})", mark))
        blocks.append(Claims(some) if some else Note("Nothing, as far as can be told."))
    if untold := [one for one in tested if one.mark == "open"]:
        why = "the interval allows both, or the groups are too few"
        title = f"Cannot be told ({len(untold)}): {why}"
        blocks.append(Fold(title, [Claims(untold)]))
    return blocks if tested else []


def _blocks(
    text: str, blocks: Mapping[str, Sequence[Block]], values: Mapping[str, object]
) -> list[Block] | None:
    """What a piece of prose stands for; None where its first named blocks are none."""
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
    """The page as one file; what is no text of ours is escaped."""
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


def drawn_html(template: str, data: object, **values: object) -> str:
    """A page that JavaScript draws from `data`, which stands in it as JSON; whole in itself.

    `template` is a file of this folder; nothing of a text is in the page but as text.
    """
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    # No text can end the script's element, nor begin a comment.
    text = text.replace("<", "\\u003c").replace("\u2028", " ").replace("\u2029", " ")
    return _environment().get_template(template).render(data=Markup(text), **values)


def prose(text: str) -> Markup:
    """Text with `code` and **bold**, and nothing else of it as markup."""
    shown = str(escape(text))
    shown = re.sub(r"`([^`]+)`", r"<code>\1</code>", shown)
    return Markup(re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", shown))


def _unbroken(title: str) -> str:
    """The title with the arrow at its end, which says what is better, kept on its last line."""
    return re.sub(r" (?=[↑↓]$)", "\N{NO-BREAK SPACE}", title)


def _picture(plot: Plot) -> str:
    code = base64.b64encode(plot.svg).decode("ascii")
    return f"data:image/svg+xml;base64,{code}"


def write_page(path: Path, page: Page) -> None:
    """Write a page; a reader sees the old one or the whole new one.

    What UTF-8 cannot hold, as half of a surrogate pair, becomes '?'.
    """
    write_bytes(path, html(page).encode("utf-8", errors="replace"))


def is_made_by(path: Path, generator: str) -> bool:
    """Whether a file is a page of this command."""
    with open(path, "rb") as file:
        return f'<meta name="generator" content="{generator}">'.encode() in file.read(4096)
