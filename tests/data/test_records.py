"""Users' files: good rows are read, bad lines set aside, unusable files rejected."""

from __future__ import annotations

import builtins
import bz2
import gzip
import json
import lzma
import os
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundup.data import files, records
from groundup.data.dataset import load_dataset
from groundup.data.split import split
from groundup.errors import UserError
from groundup.text.rows import Message, Preference


def _lines(path: Path, *lines: object) -> Path:
    content = (line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines)
    path.write_bytes(b"\n".join(content) + b"\n")
    return path


def test_three_shapes_of_conversations(tmp_path: Path) -> None:
    path = _lines(
        tmp_path / "own.jsonl",
        {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]},
        {"prompt": "a", "completion": "b", "source": "mine", "group": "g"},
        {
            "prompt": [{"role": "user", "content": "a"}],
            "completion": [{"role": "assistant", "content": "b"}],
        },
    )
    found = records.read_conversations(path)
    said = (Message("user", "a"), Message("assistant", "b"))
    assert [row.messages for row in found.rows] == [said] * 3
    assert [row.source for row in found.rows] == ["own", "mine", "own"]
    assert found.rows[1].group == "g" and not found.bad


GOOD: dict[str, Any] = {"prompt": "p", "chosen": "good", "rejected": "bad"}


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"{", "not JSON"),
        (b"[1]", "JSON object"),
        (b"[" * 100_000, "not JSON"),
        (b'{"prompt": ' + b"9" * 5_000 + b"}", "more than 4,300 digits; write it in quotes"),
        (b'{"prompt": "caf\xe9"}', "not UTF-8 at byte 15"),
        (b'{"prompt": "\\ud83d", "chosen": "a", "rejected": "b"}', "surrogate"),
        ({"prompt": "p", "chosen": "a"}, "no 'rejected'"),
        ({"prompt": "p", "chosen": 1, "rejected": "b"}, "must be a string, not int"),
        ({"prompt": " ", "chosen": "a", "rejected": "b"}, "empty"),
        ({"prompt": "p", "chosen": "a", "rejected": "a"}, "the same"),
        ({"prompt": [], "chosen": "a", "rejected": "b"}, "at least one"),
        ({"prompt": ["x"], "chosen": "a", "rejected": "b"}, "message 1"),
        ({"prompt": [{"role": "robot", "content": "x"}]}, "role 'robot'"),
        ({"prompt": [{"role": "assistant", "content": "x"}]}, "end with the user's turn"),
    ],
)
def test_a_bad_line_is_set_aside_with_its_number_and_reason(
    tmp_path: Path, line: object, reason: str
) -> None:
    path = _lines(tmp_path / "pairs.jsonl", *[GOOD] * 5, b"", line, *[GOOD] * 5)
    found = records.read_preferences(path)
    assert len(found.rows) == 10
    (bad,) = found.bad
    assert bad.line == 7 and bad.file == str(path) and reason in bad.reason
    assert "line 7" in str(bad)


@pytest.mark.parametrize("suffix", [".jsonl", ".json"])
@pytest.mark.parametrize(
    ("row", "name"),
    [
        ('{"prompt": "p", "completion": "c", "prompt": "q"}', "prompt"),
        ('{"messages": [{"role": "user", "content": "a", "role": "system"}]}', "role"),
    ],
)
def test_a_row_with_a_repeated_key_is_set_aside(
    tmp_path: Path, suffix: str, row: str, name: str
) -> None:
    rows = [*['{"prompt": "p", "completion": "c"}'] * 12, row]
    path = tmp_path / f"a{suffix}"
    path.write_text("\n".join(rows) if suffix == ".jsonl" else f"[{', '.join(rows)}]")
    found = records.read_conversations(path)
    (bad,) = found.bad
    assert len(found.rows) == 12 and bad.line == 13
    assert bad.reason == f"the key {name!r} stands more than once in an object; keep one of them"


def test_a_file_with_too_many_bad_lines_is_rejected(tmp_path: Path) -> None:
    path = _lines(tmp_path / "pairs.jsonl", *[GOOD] * 17, b"x", b"y", b"z")
    with pytest.raises(UserError, match=r"3 of 20 lines .* line 18: not JSON"):
        records.read_preferences(path)
    assert len(records.read_preferences(_lines(path, *[GOOD] * 18, b"x", b"y")).bad) == 2
    with pytest.raises(UserError, match="1 of 1"):
        records.read_preferences(_lines(path, b"x"))


def test_choices_and_refusals(tmp_path: Path) -> None:
    good = {"prompt": "q", "options": ["a", "b"], "answer": 1}
    path = _lines(
        tmp_path / "c.jsonl", *[good] * 20, {**good, "answer": 2}, {**good, "answer": True}
    )
    found = records.read_choices(path)
    assert found.rows[0].options == ("a", "b") and [bad.line for bad in found.bad] == [21, 22]
    path = _lines(
        tmp_path / "r.jsonl", {"prompt": "p", "kind": "benign"}, {"prompt": "p", "kind": "x"}
    )
    assert "harmful or benign" in records.read_refusals(path).bad[0].reason


def test_written_rows_are_read_again(tmp_path: Path) -> None:
    pair = records.Preference((Message("user", "p\u2028q"),), "a", "b 😀", "s", "g")
    assert files.write_json_lines(tmp_path / "p.jsonl", [pair]) == 1
    assert records.read_preferences(tmp_path / "p.jsonl").rows == (pair,)


@given(st.binary(max_size=300))
def test_random_bytes_give_no_traceback(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    path = tmp_path_factory.mktemp("any") / "any.jsonl"
    path.write_bytes(content)
    for read in (records.read_conversations, records.read_documents, records.read_choices):
        with pytest.raises(UserError):
            read(path)
    try:
        files.read_text(path)
    except UserError as error:
        assert "\n" not in str(error).replace(str(path), "")


def test_text_files(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xef\xbb\xbfone\r\ntwo\r")
    assert files.read_text(path) == "one\ntwo\n"
    for content, said in (
        (b"", "is empty"),
        (b" \n", "white space"),
        (b"a\x00b", "binary"),
        ("añ".encode("utf-16"), "UTF-16"),
        (b"one\ntw\xf6", "byte 0xf6 at offset 6, line 2.*iconv"),
    ):
        path.write_bytes(content)
        with pytest.raises(UserError, match=said):
            files.read_text(path)
    with pytest.raises(UserError, match=r"did you mean 'a\.txt'"):
        files.read_text(tmp_path / "aa.txt")
    with pytest.raises(UserError, match="folder"):
        files.read_text(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match=r"a pipe or a device, .* write it to a file"):
        files.read_text(tmp_path / "pipe")


@pytest.mark.parametrize(
    ("suffix", "compressed", "command"),
    [
        (".gz", gzip.compress, "gunzip -k"),
        (".bz2", bz2.compress, "bunzip2 -k"),
        (".xz", lzma.compress, "unxz -k"),
        (".zst", lambda content: b"\x28\xb5\x2f\xfd" + content, "unzstd"),
    ],
)
def test_compressed_files_are_refused_with_the_command_that_unpacks_them(
    tmp_path: Path, suffix: str, compressed: Callable[[bytes], bytes], command: str
) -> None:
    content = compressed(json.dumps(GOOD).encode())
    said = f"is compressed; unpack it .{command} "
    for name in (f"my rows.jsonl{suffix}", "named_otherwise.jsonl"):
        path = tmp_path / name
        path.write_bytes(content)
        for read in (files.read_text, records.read_preferences, lambda path: load_dataset([path])):
            with pytest.raises(UserError, match=said) as refused:
                read(path)
            assert shlex.quote(str(path)) in str(refused.value)


def test_a_json_file_may_be_one_list_with_its_indices_as_lines(tmp_path: Path) -> None:
    row = {"instruction": "a", "input": "", "output": "b"}
    path = tmp_path / "alpaca.json"
    path.write_text(json.dumps([row, "no row", row], indent=2))
    found = records.read_conversations(path)
    assert len(found.rows) == 2 and found.rows[0].source == "alpaca"
    assert (found.bad[0].line, found.bad[0].reason) == (2, "must be a JSON object, not str")
    # A row a line is read from such a file too; a list in JSON Lines is one bad line.
    path.write_text(json.dumps(row) + "\n" + json.dumps(row))
    assert len(records.read_conversations(path).rows) == 2
    with pytest.raises(UserError, match="line 1: must be a JSON object, not list"):
        records.read_conversations(_lines(tmp_path / "alpaca.jsonl", [row]))
    for content, said in (
        ("[{}, ", "is not JSON"),
        ("[" * 100_000, "nested"),
        ("[]", "no lines"),
        (
            f"[{'9' * 5_000}]",
            "not JSON .a whole number has more than 4,300 digits; write it in",
        ),
    ):
        path.write_text(content)
        with pytest.raises(UserError, match=said):
            records.read_conversations(path)


@pytest.mark.parametrize(("content", "what"), [([GOOD, GOOD], "list"), (GOOD, "object")])
def test_a_jsonl_line_with_a_list_or_object_suggests_another_suffix(
    tmp_path: Path, content: object, what: str
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(content, indent=2))
    message = rf"^'.*rows\.jsonl' is one {what}, and a \.jsonl file .*; call it \.json$"
    with pytest.raises(UserError, match=message):
        records.read_preferences(path)
    assert records.read_preferences(path.rename(tmp_path / "rows.json")).rows


def test_an_invalid_json_line_has_one_line_number(tmp_path: Path) -> None:
    path = _lines(tmp_path / "pairs.jsonl", *[GOOD] * 9, b'{"prompt": "a" "b"}')
    (bad,) = records.read_preferences(path).bad
    assert bad.reason == "not JSON: Expecting ',' delimiter at column 16"


def test_own_rows_are_held_out_by_their_hash(tmp_path: Path) -> None:
    rows = [GOOD | {"prompt": f"p {n}", "chosen": c} for n in range(200) for c in ("a", "b")]
    first = split(_lines(tmp_path / "a.jsonl", *rows), "-", records.read_preferences)
    train, heldout = ([row.prompt for row in side.rows] for side in first)
    assert len(train) + len(heldout) == 400 and 4 <= len(heldout) <= 40
    # Two answers to one question are on one side, in any order and with any other rows.
    assert not set(train) & set(heldout)
    again = split(_lines(tmp_path / "b.jsonl", *rows[::-3]), "-", records.read_preferences)
    assert {row.prompt for row in again[1].rows} <= set(heldout)
    alone = split(_lines(tmp_path / "c.jsonl", GOOD, GOOD), "-", records.read_preferences)
    assert [len(side.rows) for side in alone] == [1, 0]
    assert "1 duplicate removed" in alone[0].remark


def test_votes_of_several_people_are_not_duplicates(tmp_path: Path) -> None:
    vote = {"prompt": "p", "a": "x", "b": "y", "choice": "a"}
    path = _lines(tmp_path / "v.jsonl", *(vote | {"who": who} for who in ("Ann", "Bo", "Cy")))
    assert [len(side.rows) for side in split(path, "-", records.read_preferences)] == [3, 0]


def _pair(tmp_path: Path, **row: object) -> Preference:
    (found,) = records.read_preferences(_lines(tmp_path / "pair.jsonl", row)).rows
    return found


USER, GOOD_ANSWER = {"role": "user", "content": "p"}, {"role": "assistant", "content": "good"}
BAD_ANSWER = {"role": "assistant", "content": "bad"}


def test_the_system_prompt_of_a_pair_comes_first(tmp_path: Path) -> None:
    asked = (Message("system", "Be kind."), Message("user", "p"))
    found = _pair(tmp_path, system="Be kind.", prompt="p", chosen="good", rejected="bad")
    assert found.prompt == asked
    found = _pair(tmp_path, system="Be kind.", prompt=[USER], chosen="good", rejected="bad")
    assert found.prompt == asked


@pytest.mark.parametrize("row", [{}, {"prompt": "p"}, {"prompt": [USER]}])
def test_answers_may_be_conversations_that_share_the_prompt(
    tmp_path: Path, row: dict[str, object]
) -> None:
    """As in UltraFeedback, and in trl without a prompt."""
    found = _pair(tmp_path, **row, chosen=[USER, GOOD_ANSWER], rejected=[USER, BAD_ANSWER])
    assert found.prompt == (Message("user", "p"),)
    assert (found.chosen, found.rejected) == ("good", "bad")
    other = {"role": "user", "content": "another"}
    for chosen, rejected, reason in (
        ([USER, GOOD_ANSWER], [other, BAD_ANSWER], "differ before the last answer"),
        ([USER, GOOD_ANSWER], [USER, GOOD_ANSWER, USER], "differ before the last answer"),
        ([GOOD_ANSWER, USER], [GOOD_ANSWER, other], "must end with the assistant's answer"),
    ):
        with pytest.raises(UserError, match=reason):
            _pair(tmp_path, **row, chosen=chosen, rejected=rejected)
    with pytest.raises(UserError, match="'prompt' differs"):
        _pair(tmp_path, prompt="q", chosen=[USER, GOOD_ANSWER], rejected=[USER, BAD_ANSWER])


TURN = {"role": "user", "content": "sure?"}


@pytest.mark.parametrize("asked", ["p", [USER]])
def test_answers_may_continue_the_prompt(tmp_path: Path, asked: object) -> None:
    """As in trl's conversational format; the last answer is the preferred one."""
    first = {"role": "assistant", "content": "first"}
    found = _pair(
        tmp_path,
        prompt=asked,
        chosen=[first, TURN, GOOD_ANSWER],
        rejected=[first, TURN, BAD_ANSWER],
    )
    assert [(turn.role, turn.content) for turn in found.prompt] == [
        ("user", "p"),
        ("assistant", "first"),
        ("user", "sure?"),
    ]
    assert (found.chosen, found.rejected) == ("good", "bad")
    # One of them may hold the prompt, and a system is said once.
    whole = [USER, first, TURN, GOOD_ANSWER]
    other = _pair(
        tmp_path, prompt=asked, system="s", chosen=whole, rejected=[first, TURN, BAD_ANSWER]
    )
    assert other.prompt == (Message("system", "s"), *found.prompt)
    for chosen, rejected, reason in (
        ([first, TURN, GOOD_ANSWER], [BAD_ANSWER, TURN, GOOD_ANSWER], "differ before the last"),
        ([first, TURN, GOOD_ANSWER], [BAD_ANSWER], "differ before the last answer"),
        ([first, TURN], [first, TURN], "must end with the assistant's answer"),
    ):
        with pytest.raises(UserError, match=reason):
            _pair(tmp_path, prompt=asked, chosen=chosen, rejected=rejected)


def test_a_later_answer_is_no_reference_for_the_prompt(tmp_path: Path) -> None:
    first = {"role": "assistant", "content": "first"}
    sides = {"chosen": [first, TURN, GOOD_ANSWER], "rejected": [first, TURN, BAD_ANSWER]}
    rows = [{"prompt": [USER], **sides}, {"prompt": "p", "chosen": "good", "rejected": "bad"}]
    path = _lines(tmp_path / "a.jsonl", *rows)
    later, answered = records.read_prompts(path, answered=True).rows
    assert later.asked == answered.asked == (Message("user", "p"),)
    assert "answer" not in later.settings and answered.settings["answer"] == "good"


def test_pairs_of_hh_rlhf_are_read(tmp_path: Path) -> None:
    before = "\n\nHuman: What is red?\n\nAssistant: A color.\n\nHuman: Name two\n\nmore.  "
    good, bad = f"{before}\n\nAssistant: Blue\nand green.", f"{before}\n\nAssistant: Human: no."
    found = _pair(tmp_path, chosen=good, rejected=bad)
    assert [(turn.role, turn.content) for turn in found.prompt] == [
        ("user", "What is red?"),
        ("assistant", "A color."),
        ("user", "Name two\n\nmore."),
    ]
    assert (found.chosen, found.rejected) == ("Blue\nand green.", "Human: no.")
    labeled = records.read_unpaired_preferences(tmp_path / "pair.jsonl").rows
    assert [(row.prompt, row.completion) for row in labeled] == [
        (found.prompt, found.chosen),
        (found.prompt, found.rejected),
    ]
    [asked] = records.read_prompts(tmp_path / "pair.jsonl", answered=True).rows
    assert asked.asked == found.prompt and asked.settings["answer"] == found.chosen
    with pytest.raises(UserError, match="differ before the last answer"):
        _pair(tmp_path, chosen=good, rejected=bad.replace("red", "blue"))
    with pytest.raises(UserError, match="message 4: the assistant's answer is empty"):
        _pair(tmp_path, chosen=good, rejected=f"{before}\n\nAssistant: ")
    with pytest.raises(UserError, match="must end with the assistant's answer"):
        _pair(tmp_path, chosen=before, rejected=before)
    # With a prompt they are conversation turns.
    assert _pair(tmp_path, prompt="p", chosen=good, rejected=bad).chosen == good


@pytest.mark.parametrize(
    ("chosen", "rejected"),
    [
        ("The sky is blue.", "The sky is green."),
        ("Q\n\nHuman: a\n\nAssistant: b", "Q\n\nHuman: a\n\nAssistant: c"),
        ([GOOD_ANSWER], [BAD_ANSWER]),
        ([USER, GOOD_ANSWER], "bad"),
    ],
)
def test_a_pair_without_a_prompt_lists_the_supported_forms(
    tmp_path: Path, chosen: object, rejected: object
) -> None:
    with pytest.raises(UserError) as refused:
        _pair(tmp_path, chosen=chosen, rejected=rejected)
    told = str(refused.value)
    assert "no 'prompt'; it has ['chosen', 'rejected']" in told and "\n" not in told
    assert "{role, content}" in told and r"'\n\nHuman:'" in told


def test_labels_are_true_and_false_or_1_and_0(tmp_path: Path) -> None:
    rows = [{"prompt": "p", "completion": f"c{n}", "label": n} for n in (0, 1, 0.0, 1.0)]
    found = records.read_unpaired_preferences(_lines(tmp_path / "a.jsonl", *rows)).rows
    assert [row.label for row in found] == [False, True, False, True]
    (tmp_path / "a.csv").write_text("prompt,completion,label\np,c,0\np,d,1\n")
    found = records.read_unpaired_preferences(tmp_path / "a.csv").rows
    assert [row.label for row in found] == [False, True]
    with pytest.raises(UserError, match="must be true or false, or 1 or 0, not 2"):
        records.read_unpaired_preferences(_lines(tmp_path / "b.jsonl", rows[0] | {"label": 2}))


def test_an_answer_labeled_false_is_no_example(tmp_path: Path) -> None:
    rows = [{"prompt": f"p{n}", "completion": "c", "label": True} for n in range(20)]
    rows[0]["label"] = 1
    for label in (False, 0, 0.0):
        bad = {"prompt": "q", "completion": "d", "label": label}
        path = _lines(tmp_path / "a.jsonl", *rows, bad)
        found = records.read_rows(path, records.conversation_or_document)
        assert len(found.rows) == 20 and "groundup kto learns from" in found.bad[0].reason
        assert len(records.read_unpaired_preferences(path).rows) == 21
    (tmp_path / "a.csv").write_text("prompt,completion,label\np,c,1\np,d,0\n")
    found = records.read_rows(tmp_path / "a.csv", records.conversation_or_document)
    assert [row.messages[-1].content for row in found.rows] == ["c"]


@pytest.mark.parametrize("indent", [None, 2])
def test_an_object_around_the_rows_is_reported(tmp_path: Path, indent: int | None) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"version": 1, "data": [GOOD, GOOD]}, indent=indent))
    with pytest.raises(UserError, match="one object, not rows; the rows seem to be under 'data'"):
        records.read_preferences(path)
    # A row is a row over several lines as well.
    path.write_text(json.dumps(GOOD, indent=indent))
    assert len(records.read_preferences(path).rows) == 1


def test_lines_with_the_same_fault_are_told_once(tmp_path: Path) -> None:
    """Such as all of a file whose columns have other names."""
    named = {"question": "a", "chosen": "b", "rejected": "c"}
    _lines(tmp_path / "pairs.jsonl", named, named, {**GOOD, "rejected": ""}, named)
    with pytest.raises(UserError) as told:
        records.read_preferences(tmp_path / "pairs.jsonl")
    said = str(told.value)
    assert said.startswith("4 of 4 lines of ") and said.count("--columns prompt=question") == 1
    assert re.findall(r"line (\d+): ", said) == ["1", "3"]


def test_a_stage_may_have_no_held_out_rows_of_a_kind(tmp_path: Path) -> None:
    (tmp_path / "conversations").mkdir()
    _lines(tmp_path / "conversations" / "train.jsonl", {"prompt": "a", "completion": "b"})
    (tmp_path / "conversations" / "heldout.jsonl").write_text("")
    sides = split(tmp_path, "conversations", records.read_conversations)
    assert [len(side.rows) for side in sides] == [1, 0]


def test_a_stage_without_a_kind_is_no_folder_of_files(tmp_path: Path) -> None:
    (tmp_path / "conversations").mkdir()
    _lines(tmp_path / "conversations" / "train.jsonl", {"prompt": "a", "completion": "b"})
    with pytest.raises(UserError, match=r"no preferences/train\.jsonl, .* or files of rows"):
        split(tmp_path, "preferences", records.read_preferences)


def test_a_too_long_file_name_gives_no_traceback() -> None:
    with pytest.raises(UserError, match="check the path"):
        files.read_text(Path("x" * 5000))


def test_parquet(tmp_path: Path) -> None:
    import pyarrow as arrow
    from pyarrow import parquet

    path = tmp_path / "pairs.parquet"
    parquet.write_table(arrow.Table.from_pylist([GOOD, GOOD, {**GOOD, "chosen": None}]), path)
    found = records.read_preferences(path)
    assert len(found.rows) == 2 and found.bad[0].line == 3
    path.write_bytes(b"PAR1 but not really")
    with pytest.raises(UserError, match="Parquet"):
        records.read_preferences(path)


def test_a_parquet_column_without_a_python_type_is_named(tmp_path: Path) -> None:
    import pyarrow as arrow
    from pyarrow import parquet

    path = tmp_path / "a.parquet"
    for column in (
        arrow.array([10**18], arrow.timestamp("us")),
        arrow.array([b"\xff"], arrow.binary()).view(arrow.string()),
        arrow.array([1], arrow.timestamp("s", tz="Europe/Nowhere")),
    ):
        parquet.write_table(arrow.table({"text": ["a"], "odd": column}), path)
        with pytest.raises(UserError, match="values in the column 'odd' that cannot be read"):
            records.read_documents(path)


def test_duplicate_parquet_columns_are_reported_as_in_csv(tmp_path: Path) -> None:
    import pyarrow as arrow
    from pyarrow import parquet

    path = tmp_path / "a.parquet"
    columns = [arrow.array([word]) for word in ("a", "b", "c")]
    table = arrow.Table.from_arrays(columns, names=["prompt", "prompt", "completion"])
    parquet.write_table(table, path)
    with pytest.raises(UserError, match="has two columns called 'prompt'; rename one of them"):
        records.read_conversations(path)


def test_parquet_without_pyarrow_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def without_pyarrow(name: str, *rest: Any, **named: Any) -> Any:
        if name.startswith("pyarrow"):
            raise ImportError(name)
        return real(name, *rest, **named)

    (tmp_path / "p.parquet").write_bytes(b"PAR1")
    monkeypatch.setattr(builtins, "__import__", without_pyarrow)
    with pytest.raises(UserError, match=r"pip install .*\[parquet\]"):
        records.read_preferences(tmp_path / "p.parquet")
