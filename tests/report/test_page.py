"""Pages as data: complete, in order, and with foreign text escaped."""

from __future__ import annotations

import html as markup
import re
from pathlib import Path

import pytest

from groundup.report.claim import Claim
from groundup.report.estimate import Estimate
from groundup.report.figure import Plot
from groundup.report.page import (
    Answer,
    Bar,
    Bars,
    Block,
    Box,
    Claims,
    Dialogue,
    Fold,
    Heading,
    Headline,
    Headlines,
    Listing,
    Note,
    Page,
    Plots,
    Section,
    Span,
    Spans,
    claims_by_mark,
    html,
    write_page,
    written,
)
from groundup.report.plots import panels
from groundup.report.table import Cell, Column, Part, Row, Table
from pages import assert_self_contained

EVIL = "<script>alert('1')</script>"


def plot(width: float = 3.0) -> Plot:
    figure, [[axes]] = panels(width=width, height=2)
    axes.plot([0, 1], [0, 1])
    return Plot("line", f"A line {EVIL}", figure)


def every_block() -> list[Block]:
    claim = Claim(EVIL, Estimate(1, 0.5, 2, 9, 9), EVIL, "above", what=EVIL)
    row = Row(EVIL, [Cell(EVIL, EVIL, EVIL, "yes")], EVIL)
    table = Table([Column(EVIL, EVIL)], [Part(EVIL), row], [EVIL], EVIL, EVIL, [EVIL])
    answer = Answer(EVIL, EVIL, EVIL, Answer(EVIL, EVIL))
    return [
        EVIL,
        Note(EVIL),
        Box(EVIL, [EVIL]),
        Heading(EVIL, "no"),
        Claims([claim]),
        table,
        Plots([plot(), plot(9.0)]),
        Listing(EVIL),
        Headlines([Headline(EVIL, EVIL, EVIL, EVIL, "not significant", [(EVIL, EVIL)] * 2)]),
        Dialogue([(EVIL, EVIL)], [answer, answer]),
        Bars([Bar(EVIL, 3, 0.5, 0.25)]),
        Spans([Span(EVIL, "t c", EVIL), EVIL]),
    ]


def page(*sections: Section, contents: bool = False) -> Page:
    return Page(EVIL, EVIL, EVIL, [EVIL], sections, contents)


def test_every_block_is_shown_as_text_and_the_page_is_self_contained() -> None:
    blocks = every_block()
    made = html(page(Section("One", "one", [*blocks, Fold(EVIL, blocks)]), contents=True))
    assert_self_contained(made)
    shown = markup.unescape(re.sub("<[^>]+>", "", made[made.index("<body>") :]))
    # Twice each block: as it is, and folded.
    assert shown.count(EVIL) >= 2 * 28
    assert '<a href="#one">' in made and '<section id="one">' in made


def test_a_table_has_its_cells() -> None:
    row = Row("sea", [Cell("1.5", "1 to 2", "+0.5", "yes"), None], "deep", base=True)
    table = Table([Column("first", "small", base=True), Column("second")], [Part("part"), row])
    made = html(page(Section("One", "one", [table])))
    assert '<th scope="col" class="base">first<span class="i">small</span></th>' in made
    assert '<tr class="part"><th scope="rowgroup" colspan="3"><span>part</span></th></tr>' in made
    assert '<tr class="base"><th scope="row">sea<span class="i">deep</span></th>' in made
    assert '1.5<span class="i">1 to 2</span><span class="change yes">+0.5</span>' in made
    assert '<td><span class="none">–</span></td>' in made
    # For who hears the page: no empty heading, one main part, and what each table is of.
    assert "<thead><tr><td></td><th" in made and made.count("<main>") == 1
    assert 'role="region" aria-label="One"' in made


def test_the_contents_come_first_and_pictures_have_descriptions() -> None:
    made = html(Page("t", "h", "l", ["First"], [Section("One", "one", ["One"])], contents=True))
    assert made.index("<nav") < made.index("<p>First</p>")
    figure, [[axes]] = panels()
    axes.set_title("Depth")
    axes.plot([1, 2], [30, 40], label="sea")
    made = html(page(Section("One", "one", [Plots([Plot("depth", "How deep.", figure)])])))
    assert (
        'alt="Depth: sea from 30 at 1 to 40 at 2"></div><figcaption>How deep.</figcaption>' in made
    )


def test_prose_has_code_and_bold_and_no_other_markup() -> None:
    made = html(page(Section("One", "one", ["Say `<b>` and **not** <i>."])))
    assert "<p>Say <code>&lt;b&gt;</code> and <strong>not</strong> &lt;i&gt;.</p>" in made


def test_claims_that_are_not_significant_say_why() -> None:
    """The first has an interval on both sides, the second five groups that agree."""
    untold = [
        Claim("It is better", Estimate(1, low, 2, groups, groups), "points", "above")
        for low, groups in ((-0.5, 9), (0.5, 5))
    ]
    *_, fold = claims_by_mark(untold)
    assert isinstance(fold, Fold) and fold.blocks == [Claims(untold)]
    why = "the interval allows both, or the groups are too few"
    assert fold.title == f"Not significant (2): {why}"


PROSE = """# What came of it
{count} models on {day:.4}.

## The sea {#sea}
How deep it is.
[depths]
> In {settings[unit]}.
### Its color
[colors]

## The land {#land}
! Nobody was there.
[heights]
"""


def words(blocks: dict[str, list[Block]]) -> Page:
    values = {"count": 3, "day": "2026-11-26", "settings": {"unit": "metres"}}
    return written(PROSE, "title", blocks, values)


def test_prose_and_blocks_make_a_page() -> None:
    made = words({"depths": ["3"], "colors": ["blue", "green"], "heights": ["9"]})
    assert (made.heading, made.lead) == ("What came of it", "3 models on 2026.")
    sea, land = made.sections
    assert (sea.title, sea.anchor) == ("The sea", "sea")
    shown = ["How deep it is.", "3", Note("In metres."), Heading("Its color"), "blue", "green"]
    assert sea.blocks == shown
    assert land.blocks == [Box("Nobody was there."), "9"]


def test_missing_measurements_are_left_out() -> None:
    made = words({"depths": ["3"], "colors": [], "heights": []})
    (sea,) = made.sections
    assert sea.blocks == ["How deep it is.", "3", Note("In metres.")]
    assert words({"depths": [], "colors": ["blue"], "heights": []}).sections == []


def test_a_block_named_in_prose_must_exist() -> None:
    with pytest.raises(KeyError, match="depths"):
        words({"colors": [], "heights": []})


def test_half_a_surrogate_is_written_as_a_question_mark(tmp_path: Path) -> None:
    write_page(tmp_path / "page.html", page(Section("One", "one", ["half \ud83d of it"])))
    assert "half ? of it" in (tmp_path / "page.html").read_text(encoding="utf-8")
