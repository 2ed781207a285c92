"""CSV and TSV files of spreadsheets, data frames and databases, and damaged ones."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from groundup.data import records
from groundup.data.dataset import load_dataset
from groundup.data.files import csv_rows
from groundup.errors import UserError
from groundup.text.rows import BadRow, Conversation, Document, Message


def rows(content: str | bytes, name: str = "a.csv") -> list[tuple[int, dict[str, str | None]]]:
    content = content.encode() if isinstance(content, str) else content
    return [
        (line, str(row) if isinstance(row, BadRow) else dict(row))
        for line, row in csv_rows(content, Path(name))
    ]


CELLS = st.text(
    st.characters(codec="utf-8", exclude_characters="\r\0"), min_size=1, max_size=12
).filter(str.strip)


@given(
    st.lists(st.lists(CELLS, min_size=2, max_size=2), min_size=1, max_size=6),
    st.sampled_from(",;\t|"),
    st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    st.sampled_from(["\r\n", "\n"]),
)
def test_files_written_by_python_are_read(
    table: list[list[str]], delimiter: str, quoting: int, end: str
) -> None:
    out = io.StringIO()
    writer = csv.writer(out, delimiter=delimiter, quoting=quoting, lineterminator=end)
    writer.writerows([["prompt", "completion"], *table])
    found = rows(out.getvalue())
    assert [list(row.values()) for _, row in found] == table
    # Each row has the number of the line that it begins on.
    lines = out.getvalue().split("\n")
    assert all(lines[line - 1] for line, _ in found)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ('a,b\n1,"x, y"\n', [(2, {"a": "1", "b": "x, y"})]),
        ('a,b\n1,"say ""hi"""\n', [(2, {"a": "1", "b": 'say "hi"'})]),
        ('a,b\n"1\n\n2",3\n4,5', [(2, {"a": "1\n\n2", "b": "3"}), (5, {"a": "4", "b": "5"})]),
        ("a;b\n1;2,5\n", [(2, {"a": "1", "b": "2,5"})]),
        ("sep=|\na|b\n1|2\n", [(3, {"a": "1", "b": "2"})]),
        ("\n\na , b\n1,2\n\n,\n3,4\n", [(4, {"a": "1", "b": "2"}), (7, {"a": "3", "b": "4"})]),
        (",a,b\n0,1,2\n", [(2, {"a": "1", "b": "2"})]),
        ("a\rx\ry", [(2, {"a": "x"}), (3, {"a": "y"})]),
        ("a,b\r\n1,\r\n", [(2, {"a": "1", "b": None})]),
        ('a,b\n5" pipe,1\n', [(2, {"a": '5" pipe', "b": "1"})]),
        ('a, b\n"x", "y, z"\n', [(2, {"a": "x", "b": "y, z"})]),
        ('"a";  "b"\n "x, y";  "1\n;2"\n', [(2, {"a": "x, y", "b": "1\n;2"})]),
        ('a|b\nx| "say ""hi"""\n', [(2, {"a": "x", "b": 'say "hi"'})]),
        # A blank before anything but a quote belongs to the cell, and so does quoted text.
        ('a, b, c\n x,  y, "z"\n', [(2, {"a": " x", "b": "  y", "c": "z"})]),
        ('a,b\n", "" x, y\n z", "\n  1"\n', [(2, {"a": ', " x, y\n z', "b": "\n  1"})]),
        ('a,b\n1, "no" he said\n', [(2, {"a": "1", "b": ' "no" he said'})]),
        ("sep= \na b c\n1  2\n", [(3, {"a": "1", "b": None, "c": "2"})]),
        ("a,b\n", []),
        ("\n \n", []),
    ],
)
def test_dialects(content: str, expected: list[tuple[int, dict[str, str]]]) -> None:
    assert rows(content) == expected


def test_tabs_separate_cells_and_quotes_may_be_literal() -> None:
    content = 'a\tb\n"x\ty"\tz\n"Hello" he said\t1\n"open\t2\n'
    assert rows(content, "a.tsv") == [
        (2, {"a": "x\ty", "b": "z"}),
        (3, {"a": '"Hello" he said', "b": "1"}),
        (4, {"a": '"open', "b": "2"}),
    ]


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (b"1,2,3", "3 cells but the header has 2"),
        (b"1", "1 cell but the header has 2"),
        (b'"1,2', "never closed"),
        (b'"1" x,2', "closes too early"),
        (b"caf\xe9,2", "not UTF-8: byte 0xe9"),
    ],
)
@pytest.mark.parametrize("after", [b"3,4\n5,6", b'"3",4\n5,6\n'])
def test_a_bad_row_does_not_affect_others(bad: bytes, reason: str, after: bytes) -> None:
    before, found, *others = rows(b"a,b\n1,2\n" + bad + b"\n" + after)
    assert before == (2, {"a": "1", "b": "2"})
    assert found[0] == 3 and (reason in found[1] or ("quote" in found[1] and b'"' in bad))
    assert others == [(4, {"a": "3", "b": "4"}), (5, {"a": "5", "b": "6"})]


@pytest.mark.parametrize(
    ("content", "told"),
    [("a,b,a\n1,2,3\n", "two columns called 'a'"), ('"a,b\n1,2\n', "names no columns")],
)
def test_rejects_an_invalid_header(content: str, told: str) -> None:
    with pytest.raises(UserError, match=told):
        rows(content)


@given(st.binary(max_size=60) | st.text('a,";\t\n ', max_size=40).map(str.encode))
def test_random_bytes_give_no_traceback(content: bytes) -> None:
    assume(not content.startswith((b"\xff\xfe", b"\xfe\xff")) and b"\0" not in content)
    try:
        found = rows(content)
    except UserError:
        return
    assert [line for line, _ in found] == sorted({line for line, _ in found})


def test_many_stray_quotes_are_read_fast() -> None:
    assert len(rows('a,b\n"x,1\n' + "y,2\n" * 20_000)) == 20_001
    assert len(rows("a,b\n" + '"x,1\ny,2\n' * 5_000)) > 5_000


def test_every_reader_takes_csv(tmp_path: Path) -> None:
    def file(name: str, content: str) -> Path:
        (tmp_path / name).write_text(f"\ufeff{content}", encoding="utf-8")
        return tmp_path / name

    talks = file(
        "talks.csv",
        'Prompt;completion;system\n"Hi;\nyou";Hello;\nBye;Ciao;Be brief.\nWhat?;;\n',
    )
    own = load_dataset([talks], columns={"prompt": "Prompt"}, validation=0, refuse=False)
    assert [len(row.messages) for row in own.train if isinstance(row, Conversation)] == [2, 3]
    assert [(bad.line, "is empty" in bad.reason) for bad in own.bad] == [(5, True)]
    texts = load_dataset([file("t.csv", 'text\n"One, two"\nThree\n')], validation=0)
    assert [row.text for row in texts.train if isinstance(row, Document)] == ["One, two", "Three"]
    pairs = records.read_preferences(file("p.tsv", "prompt\tchosen\trejected\nHi?\tYes\tNo\n"))
    assert (pairs.rows[0].chosen, pairs.rows[0].rejected) == ("Yes", "No")
    asked = records.read_prompts(
        file("q.csv", "id,prompt,temperature,max_new_tokens,seed\n007,Hi?,0.5,8,\n")
    )
    assert asked.rows[0].id == "007"
    assert dict(asked.rows[0].settings) == {"temperature": 0.5, "max_new_tokens": 8, "seed": None}
    for cell in ("42", "007", "1_000", "Infinity"):
        of = file("a.csv", f"prompt,answer\nWhich code?,{cell}\n")
        assert records.read_prompts(of, answered=True).rows[0].settings == {"answer": cell}
    of = file("a.csv", "prompt,completion,label,target\nWhich?,This.,1,3\nWhich?,That.,0,3\n")
    right, wrong = (one.settings for one in records.read_prompts(of, answered=True).rows)
    assert (right["answer"], right["target"]) == ("This.", 3) and "answer" not in wrong
    pairs = file("p.csv", "prompt,chosen,rejected,label\nHi?,Yes,No,0\n")
    assert records.read_prompts(pairs, answered=True).rows[0].settings["answer"] == "Yes"
    of = file("w.jsonl", '{"instruction": "q", "output": "bad", "label": false}\n')
    assert "answer" not in records.read_prompts(of, answered=True).rows[0].settings
    listed = file("m.csv", 'messages\n"[{""role"": ""user"", ""content"": ""a""}, {""role"": '
                  '""assistant"", ""content"": ""b""}]"\n')  # fmt: skip
    assert len(records.read_conversations(listed).rows[0].messages) == 2
    for content, told in (
        ("Hi?,Hello\nBye,Ciao\n", "first line"),
        ("prompt,completion\n", "no lines"),
        ("prompt,completion\nHi,there,you\nBye,now,then\n", "line 2: it has 3 cells"),
    ):
        with pytest.raises(UserError, match=told):
            load_dataset([file("bad.csv", content)])


USER = {"role": "user", "content": "p\nq"}
GOOD, BAD = ({"role": "assistant", "content": said} for said in ("good", "bad"))


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": [USER], "chosen": [GOOD], "rejected": [BAD]},
        {"chosen": [USER, GOOD], "rejected": [USER, BAD]},
        {"prompt": "p\nq", "chosen": [USER, GOOD], "rejected": [USER, BAD]},
    ],
)
def test_turns_in_cells_are_read_like_json(row: dict[str, Any], tmp_path: Path) -> None:
    """As trl formats pairs, and as pandas and spreadsheets store them."""
    cells = {
        name: value if isinstance(value, str) else json.dumps(value) for name, value in row.items()
    }
    found = []
    for name, read in (
        ("preferences", records.read_preferences),
        ("unpaired", records.read_unpaired_preferences),
        ("prompts", lambda path: records.read_prompts(path, answered=True)),
    ):
        lists, table = tmp_path / "a.jsonl", tmp_path / "a.csv"
        lists.write_text(json.dumps(row))
        with table.open("w", newline="") as file:
            csv.writer(file).writerows([cells.keys(), cells.values()])
        as_lists, in_cells = read(lists).rows, read(table).rows
        if name == "prompts":
            assert in_cells[0].asked == (Message("user", "p\nq"),)
            assert in_cells[0].settings["answer"] == "good"
        else:
            assert in_cells == as_lists and in_cells, name
        found.append(in_cells)
    assert found[0][0].chosen == "good" and len(found[1]) == 2


def test_prompts_and_labeled_answers_may_be_turns_in_cells(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    with path.open("w", newline="") as file:
        rows = [[json.dumps([USER]), json.dumps([GOOD]), True]]
        csv.writer(file).writerows([("prompt", "completion", "label"), *rows])
    asked = (Message("user", "p\nq"),)
    [said] = records.read_conversations(path).rows
    assert said.messages == (*asked, Message("assistant", "good"))
    [labeled] = records.read_unpaired_preferences(path).rows
    assert (labeled.prompt, labeled.completion, labeled.label) == (asked, "good", True)
    assert records.read_prompts(path).rows[0].messages == asked


@pytest.mark.parametrize(
    "said",
    ["[1, 2]", "[]", "[a]", '[{"name": "Ann", "role": "user"}]', '[{"role": "x", "content": "y"}]'],
)
def test_another_list_is_plain_text(said: str, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"prompt": said, "completion": said}))
    assert [turn.content for turn in records.read_conversations(path).rows[0].messages] == [
        said
    ] * 2
    assert records.read_prompts(path).rows[0].text == said
