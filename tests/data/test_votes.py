"""Votes: required fields, valid votes, and the pairs they make."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from groundup.data.records import (
    Records,
    read_conversations,
    read_preferences,
    read_unpaired_preferences,
    read_votes,
)
from groundup.data.split import split
from groundup.data.votes import valid_votes
from groundup.errors import UserError
from groundup.text.rows import Message


def line(choice: str, id: str = "", who: str = "ann", **changes: object) -> dict[str, object]:
    vote = {"prompt": f"How deep is {id}?", "a": "Deep.", "b": "Blue.", "choice": choice}
    vote |= {"who": who, "when": "2026-01-02T03:04:05+00:00"}
    return vote | ({"id": id} if id else {}) | changes


def written(folder: Path, *lines: Mapping[str, object]) -> Path:
    path = folder / "votes.jsonl"
    path.write_text("".join(json.dumps(one, ensure_ascii=False) + "\n" for one in lines))
    return path


def test_decided_votes_make_pairs_and_others_are_counted(tmp_path: Path) -> None:
    talk = [
        {"role": "user", "content": "Hi."},
        {"role": "assistant", "content": "Yes?"},
        {"role": "user", "content": "Und das Meer?"},
    ]
    path = written(
        tmp_path,
        line("a", "1"),
        line("b", "2"),
        line("tie", "3"),
        line("both bad", "4"),
        line("skip", "5"),
        line("skip", "6"),
        line("a", "7", b=" "),
        line("a", "8", b="Deep."),
        line("b", "9", prompt=talk, b="Blau, ä日本🙂"),
    )
    found = read_preferences(path)
    assert [(one.prompt[-1].content, one.chosen, one.rejected) for one in found.rows] == [
        ("How deep is 1?", "Deep.", "Blue."),
        ("How deep is 2?", "Blue.", "Deep."),
        ("Und das Meer?", "Blau, ä日本🙂", "Deep."),
    ]
    assert [turn.role for turn in found.rows[2].prompt] == ["user", "assistant", "user"]
    assert not found.bad
    for words in ("3 pairs of 9 votes", "tie: 1", "both bad: 1", "skip: 2"):
        assert words in found.remark
    assert "without words: 1" in found.remark and "same answer twice: 1" in found.remark


@pytest.mark.parametrize("read", [read_preferences, read_unpaired_preferences])
def test_a_cut_answer_makes_no_pair(tmp_path: Path, read: Callable[[Path], Records[Any]]) -> None:
    """Its last word would be learned as the end."""
    path = written(
        tmp_path,
        line("a", "1", ended=[True, True]),
        line("a", "2", ended=[False, True]),
        line("b", "3", ended=[False, True]),
        line("b", "4", ended=[False, False]),
        line("tie", "5", ended=[False, True]),
        line("b", "6"),  # of a log that does not say
    )
    found = read(path)
    assert {one.prompt[-1].content for one in found.rows} == {"How deep is 1?", "How deep is 6?"}
    assert "2 pairs of 6 votes" in found.remark and not found.bad
    assert "an answer that was cut: 3" in found.remark and "tie: 1" in found.remark


@pytest.mark.parametrize(
    ("choices", "said"),
    [
        (["a"], "1 pair of 1 vote"),
        (["a", "skip"], "1 pair of 2 votes"),
        (["skip"], "0 pairs of 1 vote"),
    ],
)
@pytest.mark.parametrize("read", [read_preferences, read_unpaired_preferences])
def test_the_remark_uses_singular_and_plural(
    tmp_path: Path, read: Callable[[Path], Records[Any]], choices: list[str], said: str
) -> None:
    path = written(tmp_path, *(line(one, str(place)) for place, one in enumerate(choices)))
    assert read(path).remark.split(";")[0] == f"{path}: {said}"


def test_the_latest_vote_of_each_person_counts(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        line("a", "1"),
        line("a", "2"),
        line("b", "1", who="bob"),
        line("b", "1"),  # another mind
        line("undo", "2"),
        line("undo", "3"),  # of nothing
    )
    votes = valid_votes(read_votes(path).rows)
    assert [(one.id, one.who, one.choice) for one in votes] == [
        ("1", "bob", "b"),
        ("1", "ann", "b"),
    ]
    assert [one.chosen for one in read_preferences(path).rows] == ["Blue.", "Blue."]


def test_the_six_fields_are_sufficient(tmp_path: Path) -> None:
    path = written(tmp_path, line("a"), line("a"), line("b"))
    assert len(valid_votes(read_votes(path).rows)) == len(read_preferences(path).rows) == 3


def test_pairs_may_be_mixed_with_votes(tmp_path: Path) -> None:
    pair = {"prompt": "Is it wet?", "chosen": "Yes.", "rejected": "No."}
    found = read_preferences(written(tmp_path, line("b", "1"), pair, line("skip", "2")))
    assert {(one.chosen, one.rejected) for one in found.rows} == {
        ("Yes.", "No."),
        ("Blue.", "Deep."),
    }


def test_labeled_answers_may_be_mixed_with_votes(tmp_path: Path) -> None:
    labeled = {"prompt": "Is it wet?", "completion": "No.", "label": False}
    path = written(tmp_path, line("b", "1"), labeled, line("skip", "2"))
    found = read_unpaired_preferences(path)
    assert {(one.completion, one.label) for one in found.rows} == {
        ("No.", False),
        ("Blue.", True),
        ("Deep.", False),
    }
    assert "1 pair of 2 votes" in found.remark and not found.bad


def test_the_remark_is_kept_with_training_data(tmp_path: Path) -> None:
    path = written(tmp_path, *(line("a", str(i)) for i in range(9)), line("tie", "9"))
    train, heldout = split(path, "preferences", read_preferences)
    assert "tie: 1" in train.remark and len(train.rows) + len(heldout.rows) == 9
    assert heldout.rows and not heldout.remark


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"choice": "left"}, "'choice' must be one of a, b, tie"),
        ({"a": 5}, "'a' must be a string"),
        ({"prompt": ""}, "'prompt' is empty"),
        ({"left": "c"}, "'left' must be a or b"),
        ({"seeds": [1]}, "'seeds' must be two values"),
        ({"models": "x"}, "'models' must be two values"),
        ({"ended": [True, 1]}, "'ended' must be two values"),
        ({"prompt": [{"role": "assistant", "content": "x"}]}, "must end with the user's turn"),
    ],
)
def test_rejects_invalid_votes(tmp_path: Path, change: Mapping[str, object], told: str) -> None:
    good = [line("a", str(i)) for i in range(19)]
    found = read_votes(written(tmp_path, *good, line("a", "19") | change))
    assert len(found.rows) == 19 and found.bad[0].line == 20
    assert told in found.bad[0].reason


def test_a_vote_round_trips(tmp_path: Path) -> None:
    more = {"left": "b", "models": ["x", "y"], "hashes": ["1", "2"], "seeds": [3, 2**40]}
    more["ended"] = [True, False]
    path = written(tmp_path, line("a", "1", **more), line("undo", "1", **more))
    votes = read_votes(path).rows
    assert written(tmp_path, *(one.to_json() for one in votes)) == path
    assert read_votes(path).rows == votes
    assert votes[0].prompt == (Message("user", "How deep is 1?"),)


def test_reading_votes_as_conversations_explains_their_use(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="groundup dpo"):
        read_conversations(written(tmp_path, line("a", "1"), line("b", "2"), line("a", "3")))
