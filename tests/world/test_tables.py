"""Table files: their contents, and errors for malformed ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from groundup.errors import UserError
from groundup.world import tables
from groundup.world.tables import cells, labelled, sections

PAGE = """# About the page.

[colours]
# One after the other.
red | dark blue
green

[a story]
begin | It was {day}.
      | One
        day it rained.
end   | The end.
"""


def test_a_table_is_sections_of_rows_of_cells() -> None:
    found = sections(PAGE, "page")
    assert list(found) == ["colours", "a story"]
    assert found["colours"] == [("red", "dark blue"), ("green",)]
    assert cells(found["colours"]) == ("red", "dark blue", "green")
    assert labelled(found["a story"]) == {
        "begin": ("It was {day}.", "One day it rained."),
        "end": ("The end.",),
    }


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("red", "page, line 1: a row stands before the first heading"),
        ("[a\nred", "page, line 1: a heading ends with ]"),
        ("[a]\nred\n[a]", r"page, line 3: \[a\] is a heading of this table already"),
        ("[a]\n | red", "page, line 2: there is no row to continue"),
        ("[a]\nred\n\n | blue", "page, line 4: there is no row to continue"),
        ("[a]\nred | | blue", "page, line 2: a bar needs a space and a cell"),
        ("[a]\nred |\n\n[b]", "page, line 2: a bar needs a space and a cell"),
        ("[a]\nred|blue", "page, line 2: a bar needs a space and a cell"),
        ("[a]\nred {thing", "page, line 2: a brace is not closed"),
    ],
)
def test_a_malformed_table_is_rejected(text: str, fault: str) -> None:
    with pytest.raises(UserError, match=fault):
        sections(text, "page")


def test_a_label_is_unique() -> None:
    with pytest.raises(UserError, match="a label stands twice among"):
        labelled([("a", "1"), ("b",), ("a", "2")])


def test_every_table_explains_itself() -> None:
    files = Path(tables.__file__).with_name("tables").glob("*.txt")
    pages = {path.stem: path.read_text("ascii") for path in files if path.stem != "README"}
    assert len(pages) == 9
    for name, text in pages.items():
        assert text.startswith("# ")
        assert tables.page(name)
