"""Tables as data, and the same at the terminal and as JSON."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from groundup.maths.intervals import Interval
from groundup.report.estimate import Estimate
from groundup.report.page import Bar
from groundup.report.table import (
    Cell,
    Column,
    Part,
    Row,
    Table,
    in_bytes,
    informative,
    number,
    percent,
    plain,
    points,
    short_number,
    source_table,
    text_table,
)
from groundup.report.terminal import bars_in_terminal, in_terminal, one_line


def printed(what: object, width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width, highlight=False)
    console.print(what)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_text_and_cells_make_one_table() -> None:
    heights = [Estimate(1.9, 1.8, 2.0, 9, 9), Estimate(1.0, 0.5, 1.5, 9, 9)]
    table = text_table(
        "Heights",
        ("who", "metres\n95 %"),
        [("guess", "1.5"), ("tall\nvery", number(heights[0], 1)), ("half", percent(heights[1]))],
        ("Measured twice.",),
        ("guess",),
    )
    assert table.to_json() == {
        "title": "Heights",
        "columns": ["who", "metres\n95 %"],
        "rows": [
            ["guess", "1.5"],
            ["tall\nvery", "1.9\n1.8 to 2.0"],
            ["half", "100.0 %\n50.0 to 150.0"],
        ],
        "remarks": ["Measured twice."],
        "baselines": ["guess"],
    }


def test_rows_have_a_cell_for_each_column() -> None:
    with pytest.raises(AssertionError, match="short"):
        Table([Column("a"), Column("b")], [Row("row", [None])], title="short")
    with pytest.raises(AssertionError, match="nobody"):
        text_table("nobody", ("a", "b"), [("x", "1")], baselines=("y",))


def test_cells_show_their_values() -> None:
    change = Estimate(-0.031, -0.05, 0.012, 9, 9)
    assert points(change) == Cell("-3.1", "-5.0 to +1.2")
    assert plain(0.25, as_percent=True) == Cell("25.0 %") and plain(2, False) == Cell("2.000")
    assert number(Estimate(-0.001, -0.004, 0.07, 9, 9), 2) == Cell("0.00", "0.00 to 0.07")
    numbers = (999, 999.4, 999.6, 1_500_000, 999_600, 999_999_999, -1_500, 2e15, 0.01234)
    said = ["999", "999", "1 k", "1.5 M", "1 M", "1 G", "-1.5 k", "2e+15", "0.0123"]
    assert [short_number(value) for value in numbers] == said
    assert Cell("1", "2", "3").text == "1\n2\n3"


def test_sources_are_rows_and_uninformative_ones_are_left_out() -> None:
    def one(value: float) -> Estimate:
        return Estimate(value, 0, 1, 1234, 9, chance=0.5)

    models = {"a": {"sea": one(0.2), "sun": one(0.0)}, "b": {"sea": one(0.4), "sun": one(0.0)}}
    table = source_table(
        models,
        {"counting": {"sea": one(0.3)}},
        {"sea": "the sea"},
        percent,
        share=True,
        chance=True,
        items="questions",
    )
    assert table.left_out == ["sun (0 %)"]
    (row,) = table.rows
    assert isinstance(row, Row) and (row.title, row.note) == ("the sea", "1,234 questions")
    assert [cell and cell.value for cell in row.cells] == ["20.0 %", "40.0 %", "30.0 %", "50.0 %"]
    assert [column.base for column in table.columns] == [False, False, True, True]
    # The plot next to it draws the shown values.
    assert informative(models) == {"a": {"sea": one(0.2)}, "b": {"sea": one(0.4)}}


def test_the_terminal_shows_every_cell_and_no_control_characters() -> None:
    rows = [
        Part("depths"),
        Row("[red]sea", [Cell("1.5", "1 to 2"), Cell("1.7", "1 to 3", "+0.2", "no")], "deep"),
        Row("sun", [None, Cell("0")]),
    ]
    said = printed(in_terminal(Table([Column("[b]first"), Column("second")], rows, corner="what")))
    for part in ("what", "[b]first", "second", "depths", "[red]sea", "deep", "1 to 2", "–"):
        assert part in said
    # A change says more than the interval of the value, and there is room for one of them.
    assert "+0.2" in said and "1 to 3" not in said


def test_bars_are_as_long_as_their_shares() -> None:
    bars = [Bar("1 – 2", 8, 1.0, 0.0), Bar("3 – 4", 4, 0.25, 0.25), Bar("5 – 6", 0, 0.0, 0.0)]
    lines = printed(bars_in_terminal(bars, 20, ascii_only=True)).splitlines()
    assert [line.count("#") for line in lines] == [20, 5, 0]
    assert [line.count("x") for line in lines] == [0, 5, 0]


def test_foreign_text_is_one_short_line() -> None:
    assert one_line("a\x1b[31m\nb\tc") == "a [31m b c"
    shown = one_line("word " * 30)
    assert shown.endswith(" …") and len(shown) <= 64


def test_an_interval_without_a_width_is_not_shown() -> None:
    """A single group, or many equal ones, give no interval."""
    for shown in (number, percent, points):
        assert shown(Estimate(0.25, 0.2, 0.3, 8, 8)).note
        assert "to" not in shown(Estimate(0.25, 0.25, 0.25, 1, 1)).text
    assert number(Interval(3.7, 3.7, 3.7 + 1e-15)).note == ""
    sole = Estimate(0.3, 0.3, 0.3, 1, 1)
    assert source_table({"a": {"sea": sole}}, {}, {}, number, share=False).lines == [
        ["sea", "0.300"]
    ]


@pytest.mark.parametrize("width", [80, 60, 40])
def test_no_letter_of_a_table_is_cut_at_any_width(width: int) -> None:
    """Headers may differ only at their end."""
    heads = ("group", "rejection", "rejection-random", "rejection-worst", "rejection-median")
    cells = ("all prompts", "1.234\n0.100 to 0.678", "2.345", "3.456", "4.567")
    said = printed(in_terminal(text_table("Groups", heads, [cells])), width)
    whole = "".join(("Groups", *heads, *cells))
    assert sorted("".join(said.split())) == sorted("".join(whole.split()))


def test_bytes_have_a_readable_unit() -> None:
    shown = {0: "0 bytes", 999: "999 bytes", 4_050: "4.05 kB", 267_000: "267 kB"}
    shown |= {999_400: "999 kB", 999_600: "1 MB", 892_187_034: "892 MB", 70_000_000_000: "70 GB"}
    assert {size: in_bytes(size) for size in shown} == shown
