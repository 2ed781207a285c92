"""Win rates measured elsewhere, read as they are."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from groundup.errors import UserError
from groundup.evals.values.suite.wins import reward_wins, vote_wins


def vote(
    choice: str, prompt: str, models: tuple[str, str] = ("runs/sft", "runs/dpo"), **more: Any
) -> str:
    row = {"prompt": prompt, "a": "yes", "b": "no", "choice": choice, "who": "me", "when": "now"}
    return json.dumps(row | {"models": list(models)} | more) + "\n"


def test_votes_count_for_the_author_of_the_preferred_answer(tmp_path: Path) -> None:
    log = tmp_path / "votes.jsonl"
    lines = [
        *(vote("a", f"p{i}", id=f"1{i}") for i in range(6)),
        # The other way round, the second answer is that of the same model.
        *(vote("b", f"q{i}", ("runs/dpo", "runs/sft"), id=f"2{i}") for i in range(2)),
        *(vote("b", f"r{i}", id=f"3{i}") for i in range(4)),
        vote("skip", "s", id="4"),
        vote("both bad", "t", id="5"),
        vote("a", "u", ("runs/sft", "runs/sft"), id="6"),
        # Taken back, and so of no account.
        vote("a", "v", id="7"),
        vote("undo", "v", id="7"),
    ]
    log.write_text("".join(lines))
    (one,) = vote_wins(log)
    assert (one["model"], one["other"]) == ("dpo", "sft") and "1 person" in one["judge"]
    found = one["wins"]
    assert found["estimate"] == pytest.approx(4.5 / 13) and found["chance"] == 0.5
    assert found["low"] < 4 / 13 < 5 / 13 < found["high"]


@pytest.mark.parametrize("choice", ["tie", "both bad"])
def test_neither_is_half_a_win_as_in_the_labeler(tmp_path: Path, choice: str) -> None:
    log = tmp_path / "votes.jsonl"
    log.write_text(vote(choice, "p", id="1") + vote("a", "q", id="2"))
    (one,) = vote_wins(log)
    assert one["wins"]["estimate"] == pytest.approx(0.25)  # of dpo


def test_models_of_one_name_are_distinguished(tmp_path: Path) -> None:
    log = tmp_path / "votes.jsonl"
    both = ("runs/a/sft", "runs/b/sft")
    log.write_text("".join(vote("a", f"p{i}", both, id=f"{i}") for i in range(3)))
    (one,) = vote_wins(log)
    assert {one["model"], one["other"]} == {"a/sft", "b/sft"}


def test_votes_without_model_names_are_reported(tmp_path: Path) -> None:
    log = tmp_path / "votes.jsonl"
    log.write_text(
        vote("a", "p", id="1").replace('"models": ["runs/sft", "runs/dpo"]', '"models": []')
    )
    with pytest.raises(UserError, match="groundup label"):
        vote_wins(log)


def test_wins_by_a_reward_are_read_from_the_comparison(tmp_path: Path) -> None:
    wins: dict[str, Any] = {"estimate": 0.7, "low": 0.6, "high": 0.8, "chance": 0.5}
    wins |= {"items": 40, "groups": 40}
    models = {
        "sft": {"judge": {}, "judge: wins against sft": wins},
        "ppo": {"judge": {}, "judge: wins against sft": wins, "tokens": 3.0},
    }
    (tmp_path / "result.json").write_text(json.dumps({"models": models}))
    (one,) = reward_wins(tmp_path)
    assert (one["model"], one["other"], one["wins"]["estimate"]) == ("ppo", "sft", 0.7)
    assert one["judge"] == "by its judge"
    ends: list[dict[str, Any]] = [{"estimate": "x"}, {"low": None}, {"high": math.inf}]
    all_ends = [{}, *(wins | end for end in ends)]
    by_ends = [{"models": {"ppo": {"judge: wins against sft": one}}} for one in all_ends]
    for broken in ({}, {"models": []}, *by_ends):
        (tmp_path / "result.json").write_text(json.dumps(broken))
        with pytest.raises(UserError, match="eval rewards"):
            reward_wins(tmp_path)
