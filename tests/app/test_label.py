"""Blind comparison through its public command: votes, kills, undo, and the resulting data."""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from groundup.align.label.comparison import comparisons
from groundup.align.label.ratings import result, result_table
from groundup.app.cli import main
from groundup.data.records import read_preferences, read_votes
from groundup.data.votes import Vote, valid_votes
from groundup.formats.folder import save_model
from groundup.learn.own import Own
from groundup.learn.road import find
from groundup.lm.config import ModelConfig
from groundup.lm.model import CausalLM
from groundup.report.terminal import in_terminal
from groundup.runs.files import file_hash
from groundup.text.bpe import train_bpe
from groundup.text.rows import Message
from groundup.text.template import CHATML
from groundup.text.tokenizer import Tokenizer
from preloaded import Process
from pseudo_terminal import Terminal

PROMPTS = [
    f"How {word} is the sea?" for word in ("wide", "deep", "cold", "blau 日本", "old", "big")
]
Voted = Callable[..., str]


TOKENIZER = Tokenizer.from_bpe(train_bpe(["The sea is wide. "] * 4, 300), CHATML)


def save_tiny(folder: Path, seed: int, *, ends: bool = False) -> Path:
    """A model with random answers that come at once; with or without an end."""
    config = ModelConfig.of(width=64, depth=1, vocab_size=320, context=256)
    tiny = CausalLM(replace(config, tie_word_embeddings=not ends))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in tiny.named_parameters():
            parameter.normal_("norm" in name, 0.2, generator=generator)
            if ends and name.endswith(("o_proj.weight", "down_proj.weight")):
                parameter.zero_()  # so that what follows a token depends on it alone
        if ends:  # letters alone, and an end after any of them
            letters = [TOKENIZER.encode(letter)[0] for letter in "bcfgjklmnopqruvxyz"]
            embeddings = tiny.model.embed_tokens.weight
            embeddings[:, :2] = 1.0
            embeddings[TOKENIZER.encode("\n"), 0] = -1.0
            tiny.head[:, 0], tiny.head[:, 1] = 0.0, -5.0
            tiny.head[letters, 1] = 0.0
            tiny.head[TOKENIZER.im_end] = 0.0
            tiny.head[TOKENIZER.im_end, 0] = 0.7
    save_model(folder, tiny, TOKENIZER, card="tiny")
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    for seed, name in enumerate(("one", "two", "three")):
        save_tiny(folder / name, seed)
        save_tiny(folder / f"ending-{name}", seed + 1, ends=True)
    return folder


@pytest.fixture
def room(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with prompts and two models."""
    for name in ("one", "two", "three"):
        (tmp_path / name).symlink_to(models / name)
    (tmp_path / "prompts.txt").write_text("\n".join(PROMPTS) + "\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def ending(room: Path, models: Path) -> None:
    """The same with models whose answers end, so that votes on them make pairs."""
    for name in ("one", "two"):
        (room / name).unlink()
        (room / name).symlink_to(models / f"ending-{name}")


def words(*more: str, models: tuple[str, ...] = ("one", "two")) -> list[str]:
    prompts = [] if "--prompts" in more else ["--prompts", "prompts.txt"]
    return ["label", *models, *prompts, "--max-new-tokens", "12", *more]


@pytest.fixture
def voted(room: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Voted:
    """Run the command with these lines as its input; return its output."""

    def run(typed: str, *more: str, code: int = 0, **options: Any) -> str:
        capsys.readouterr()
        lines = "".join(f"{key}\n" for key in typed.split(" ") if key)
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(lines.encode())))
        assert main(words(*more, **options)) == code
        shown = capsys.readouterr()
        assert "Traceback" not in shown.err
        return shown.err if code else shown.out

    return run


def letters(text: str) -> str:
    """Random text after its control characters are made harmless."""
    return "".join(letter for letter in text if letter.isalnum())


def logged(path: str = "votes.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def test_votes_are_for_the_side_that_was_shown(voted: Voted) -> None:
    shown = voted("l right 1 → l r")
    lines = logged()
    assert [line["prompt"] for line in lines] == PROMPTS
    sides = [line["choice"] == line["left"] for line in lines]
    assert sides == [True, False, True, False, True, False]
    screens = re.split(r"── prompt \d of 6 ─+", shown)[1:]
    for line, screen in zip(lines, screens, strict=True):
        heads, body = screen.split("RIGHT", 1)
        assert line["prompt"] in heads
        rows = [row.split(" │") for row in body.split("← left")[0].splitlines() if " │" in row]
        for side, place in ((line["left"], 0), ({"a": "b", "b": "a"}[line["left"]], 1)):
            said = "".join(row[place].strip() for row in rows).removesuffix("(cut)")
            assert letters(said) == letters(line[side])
        # Blind: nothing reveals the models before the end.
        assert "one" not in heads.replace("prompt", "")


def test_sides_are_random_and_reproducible() -> None:
    prompts = [(Message("user", f"Question {number}"),) for number in range(2000)]
    drawn = comparisons(prompts, {"temperature": 0.7}, seed=0)
    assert 0.46 < sum(one.left == "a" for one in drawn) / len(drawn) < 0.54
    assert len({one.id for one in drawn}) == len({one.seeds for one in drawn}) == 2000
    assert comparisons(prompts, {"temperature": 0.7}, seed=0) == drawn
    # A prompt keeps its sides with any other prompts; another seed or setting changes them.
    assert comparisons(prompts[500:], {"temperature": 0.7}, seed=0) == drawn[500:]
    for others in (comparisons(prompts, {}, 0), comparisons(prompts, {"temperature": 0.7}, 1)):
        assert 0.4 < sum(a.left == b.left for a, b in zip(drawn, others, strict=True)) / 2000 < 0.6
    # A prompt that is there twice gets two other answers.
    one, other = comparisons(prompts[:1] * 2, {}, 0)
    assert one.id != other.id and not set(one.seeds) & set(other.seeds)


@pytest.mark.usefixtures("ending")
def test_models_are_revealed_only_at_the_end(voted: Voted) -> None:
    shown = voted("l r t b s q")
    head, _, tail = shown.partition("  quit")
    assert not re.search(r"\b(one|two)\b", head.split("── prompt", 1)[1])
    assert re.search(r"^one ", tail, re.M) and re.search(r"^two ", tail, re.M)
    assert "4 votes (1 skipped)" in tail and "Still to vote on: 1 prompt" in tail
    assert "Left was chosen in 50% of 2 votes" in tail
    assert "groundup dpo one --data votes.jsonl" in tail and "cut" not in tail
    choices = [line["choice"] for line in logged()]
    assert choices[2:] == ["tie", "both bad", "skip"] and {*choices[:2]} <= {"a", "b"}


def test_the_users_ratings_rate_the_models(room: Path, voted: Voted) -> None:
    exercise, own = find("preferences"), Own(room / "my_groundup")
    own.open(exercise)
    code = (exercise.folder / "solution.py").read_text(encoding="utf-8")
    heard = "\n_plain = ratings\n\n\ndef ratings(wins):\n    print('mine')\n"
    own.file(exercise).write_text(f"{code}{heard}    return _plain(wins)\n", encoding="utf-8")
    own.checked(exercise, True, file_hash(own.file(exercise)))
    assert "mine\n" not in voted("l r t q")
    assert "mine\n" in voted("l r q", "--mine")


def test_a_vote_records_person_time_and_prompt(
    voted: Voted, capsys: pytest.CaptureFixture[str]
) -> None:
    voted("l l l l l l", "--who", "ann", "--seed", "3", "--temperature", "0.9")
    for line in logged():
        assert line["who"] == "ann" and line["when"].endswith("+00:00")
        assert line["models"] == ["one", "two"] and line["hashes"][0] != line["hashes"][1]
        # The records are enough to sample the answers again.
        for name, model, seed in zip("ab", line["models"], line["seeds"], strict=True):
            options = ["--chat", "--temperature", "0.9", "--max-new-tokens", "12"]
            assert main(["generate", model, line["prompt"], *options, "--seed", str(seed)]) == 0
            assert capsys.readouterr().out.strip() == line[name]


def test_a_stopped_session_continues(voted: Voted) -> None:
    whole = voted("l r t l r b", "--out", "whole.jsonl")
    voted("l r q")
    shown = voted("t l")  # and the input ends
    assert "prompt 3 of 6" in shown and "prompt 2 of 6" not in shown
    assert "already voted on 2" in shown
    last = voted("r b")
    assert "Still to vote on" not in last + whole
    for ours, theirs in zip(logged(), logged("whole.jsonl"), strict=True):
        assert ours | {"when": ""} == theirs | {"when": ""}
    # Everything is voted: it shows the result again, and asks nothing.
    again = voted("l l l")
    assert "── prompt" not in again and "one " in again
    assert len(logged()) == 6


def test_a_log_of_an_earlier_release_is_continued(voted: Voted) -> None:
    voted("l q")
    voted("l q", "--presence-penalty", "0.5", "--out", "other.jsonl")
    [line], [other] = logged(), logged("other.jsonl")
    sampling = {
        "temperature": 0.5,
        "top_k": 0,
        "top_p": 0.9,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "max_new_tokens": 12,
        "stop": [],
        "seed": 0,
        "stop_ids": [],
        "ignore_eos": False,
        "min_new_tokens": 0,
    }
    before = {"hashes": line["hashes"], "sampling": [sampling] * 2}
    asked = [(Message("user", PROMPTS[0]),)]
    assert comparisons(asked, before, seed=0)[0].id == line["id"] != other["id"]


def test_undo_removes_vote_after_vote_across_sessions(voted: Voted) -> None:
    shown = voted("u l r u u r t q")
    assert "you have no vote to take back" in shown
    places = [int(place) for place in re.findall(r"prompt (\d) of", shown)]
    assert places == [1, 1, 2, 3, 2, 1, 2, 3]
    votes = valid_votes(read_votes(Path("votes.jsonl")).rows)
    assert [one.choice == one.left for one in votes] == [False, False]
    assert votes[1].choice == "tie"
    lines = [line["choice"] for line in logged()]
    assert lines.count("undo") == 2 and len(lines) == 6  # lines are only appended
    shown = voted("undo l q")
    assert [int(place) for place in re.findall(r"prompt (\d) of", shown)] == [3, 2, 3]
    votes = valid_votes(read_votes(Path("votes.jsonl")).rows)
    assert [one.choice == one.left for one in votes] == [False, True]


def test_other_keys_change_nothing(voted: Voted) -> None:
    shown = voted("x lefty 本 l q")
    assert shown.count("is not a key") == 3 and "'本'" in shown
    assert len(logged()) == 1


@pytest.mark.parametrize("after", [1, 3])
def test_kill_9_loses_no_vote_and_a_torn_line_is_dropped(
    voted: Voted, room: Path, after: int
) -> None:
    at = Terminal(*words(), columns=80)
    for key in "lrt"[:after]:
        at.wait_for("q quit")
        at.send(key)
    # The next pair is shown only after the vote is on disk.
    at.wait_for(f"prompt {after + 1} of")
    at.process.send_signal(signal.SIGKILL)
    assert at.leave() == -signal.SIGKILL
    assert len(logged()) == after
    whole = Path("votes.jsonl").read_bytes()
    with open("votes.jsonl", "ab") as file:
        file.write(whole[: 200 + after])
    shown = voted("l l l l l l")
    assert "torn" in shown and f"already voted on {after}" in shown
    assert Path("votes.jsonl").read_bytes().startswith(whole)
    assert len(logged()) == 6 == len({line["id"] for line in logged()})


@pytest.mark.parametrize("length", [1, 5, 12, 100])
def test_a_log_with_only_a_torn_line(voted: Voted, length: int) -> None:
    voted("l q", "--out", "other.jsonl")
    Path("votes.jsonl").write_bytes(Path("other.jsonl").read_bytes()[:length])
    assert "torn" in voted("l q")
    assert len(logged()) == 1


PAIR = '{"prompt": "x1", "chosen": "a", "rejected": "b"}'


@pytest.mark.parametrize("content", [PAIR, f"{PAIR}\n{PAIR}", f"{PAIR}\n{PAIR[:30]}"])
def test_a_file_of_pairs_is_not_a_log_and_does_not_change(voted: Voted, content: str) -> None:
    Path("votes.jsonl").write_text(content)
    assert "is not a log of votes" in voted("l q", code=2)
    assert Path("votes.jsonl").read_text() == content


def test_a_last_vote_without_its_line_break_is_kept(voted: Voted) -> None:
    voted("l r q")
    whole = Path("votes.jsonl").read_bytes()
    Path("votes.jsonl").write_bytes(whole[:-1])
    assert "torn" not in voted("l q")
    assert Path("votes.jsonl").read_bytes().startswith(whole)
    assert len(logged()) == 3


@pytest.mark.usefixtures("ending")
def test_two_answers_of_one_model_make_pairs_and_no_rating(voted: Voted) -> None:
    shown = voted("l r l r l r", models=("one",))
    assert all(line["a"] != line["b"] for line in logged())
    assert "All answers are one's." in shown and "rating" not in shown
    assert len(read_preferences(Path("votes.jsonl")).rows) == 6
    # The same, spelled out.
    shown = voted("", models=("one", "one"))
    assert "── prompt" not in shown and len(logged()) == 6


def test_a_vote_on_a_cut_answer_is_kept_and_makes_no_pair(
    voted: Voted, room: Path, models: Path
) -> None:
    (room / "ends").symlink_to(models / "ending-one")
    shown = voted("l r t q", models=("one", "ends"))
    assert [line["ended"] for line in logged()] == [[False, True]] * 3
    assert shown.count("(cut)") == 4  # and in the fourth pair, of which there is no vote
    assert "2 votes on an answer that was cut make no pair" in shown
    assert "learns from" not in shown
    # Another start knows it, too: what is taken back is shown as it was, and written as it was.
    shown = voted("u u q", models=("one", "ends"))
    again = shown.split("prompt 3 of")[1].split("prompt 4 of")[0]
    assert again.count("(cut)") == 2 and logged()[-1]["ended"] == [False, True]
    assert not read_preferences(Path("votes.jsonl")).rows


@pytest.mark.usefixtures("ending")
def test_the_suggested_commands_quote_the_log_for_the_shell(
    voted: Voted, room: Path, models: Path
) -> None:
    (room / "my model").symlink_to(models / "ending-three")
    out = "my votes.jsonl"
    shown = voted("l q", "--out", out, models=("my model", "one"))
    assert "groundup dpo 'my model' --data 'my votes.jsonl' learns from 1 pair" in shown


def test_identical_answers_are_not_shown(voted: Voted, room: Path, models: Path) -> None:
    shutil.copytree(models / "one", room / "copy")
    config = json.loads((room / "copy" / "config.json").read_text())
    (room / "copy" / "config.json").write_text(json.dumps(config | {"note": "another file"}))
    shown = voted("l", "--temperature", "0", models=("one", "copy"))
    assert "6 prompts had the same answer twice" in shown and not Path("votes.jsonl").exists()


def test_several_people_and_models_share_a_log(voted: Voted) -> None:
    voted("l l l l l l", "--who", "ann")
    shown = voted("r r r r r r", "--who", "bob")
    assert "12 votes" in shown and "50%" in shown
    voted("l l l l l l", "--append", models=("two", "three"))
    shown = voted("l r l r l r", "--append", models=("one", "three"))
    found = result(read_votes(Path("votes.jsonl")).rows)
    assert found.votes == 24 and [one.model for one in found.models] == ["one", "two", "three"]
    assert sum(one.wins for one in found.models) == sum(one.losses for one in found.models) == 24
    for one in found.models:
        assert re.search(rf"^{one.model} +{one.wins} +{one.ties} +{one.losses} ", shown, re.M)
    # The first is what the others are compared with.
    assert found.models[0].rating is None and None not in [m.rating for m in found.models[1:]]


@pytest.mark.parametrize("columns", [50, 80, 200])
def test_the_table_names_the_winning_model(columns: int) -> None:
    """For paths of any length; they may differ in their end or their folder."""
    folder = "/home/ann/projects/a-very-long-name-of-a-project/tiny-model/runs"
    for names, shown in (
        ((f"{folder}/sft-2026-11-30-a", f"{folder}/dpo-2026-11-30-b"), ("sft-2026", "dpo-2026")),
        ((f"{folder}/sft", f"{folder}/old/sft"), ("runs/sft", "old/sft")),
        (("sft", "runs/sft"), ("sft", "runs/sft")),
    ):
        votes = [
            Vote(
                (Message("user", str(place)),), "x", "y", "a" if place % 3 else "tie",
                who="me", when="", id=str(place), models=names, hashes=("1", "2"),
            )
            for place in range(20)
        ]  # fmt: skip
        terminal = Console(width=columns, file=io.StringIO())
        terminal.print(in_terminal(result_table(result(votes))))
        assert isinstance(terminal.file, io.StringIO)
        written = terminal.file.getvalue()
        rows = [line.split() for line in written.splitlines() if line[:1].strip()]
        [first, second] = [row[0] for row in rows if row[1:2] in (["13"], ["0"])]
        assert first.startswith(shown[0]) and second.startswith(shown[1])
        assert "…" not in written


def test_votes_on_one_prompt_are_resampled_together() -> None:
    """Twenty who agree on each of five prompts have little more information than one."""
    votes = [
        Vote(
            (Message("user", str(prompt)),), "x", "y", "b" if prompt == 4 else "a",
            who=str(voter), when="", id=str(prompt), models=("one", "two"),
        )
        for prompt in range(5)
        for voter in range(20)
    ]  # fmt: skip
    for one in result(votes).models:
        assert (one.share.items, one.share.groups) == (100, 5)
        assert one.share.estimate == pytest.approx(0.8 if one.model == "one" else 0.2)
        assert one.share.high - one.share.low >= 0.5  # votes taken one by one: 0.16
    # Of one prompt alone the voters are told apart, and are one group all the same.
    alone = result(votes[:10] + [replace(vote, choice="b") for vote in votes[10:20]])
    assert alone.models[0].share.groups == 1
    assert alone.models[0].share.low < 0.4 < 0.6 < alone.models[0].share.high


@pytest.mark.parametrize("choices", ["a", "aaa", "ttt", "aaab"])
def test_the_rating_of_few_votes_has_the_bounds_of_their_share(choices: str) -> None:
    """Unanimous votes have no bootstrap spread, but are uncertain all the same."""
    names = {"t": "tie"}
    votes = [
        Vote(
            (Message("user", str(place)),), "x", "y", names.get(one, one),
            who="me", when="", id=str(place), models=("one", "two"),
        )
        for place, one in enumerate(choices)
    ]  # fmt: skip
    _, second = result(votes).models
    assert second.rating is not None and second.rating.low < second.rating.high < math.inf
    for end in ("low", "estimate", "high"):
        share = 1 / (1 + 10 ** (-getattr(second.rating, end) / 400))
        assert share == pytest.approx(getattr(second.share, end))


@pytest.mark.usefixtures("ending")
def test_prompts_may_be_conversations(voted: Voted) -> None:
    turns = [("user", "Hi."), ("assistant", "Yes?"), ("user", "Wie tief?")]
    rows: list[dict[str, Any]] = [
        {"messages": [{"role": role, "content": text} for role, text in turns]},
        {"prompt": "sea " * 300},
        {"prompt": [{"role": "user", "content": "How wide?"}], "chosen": "x", "rejected": "y"},
    ]
    Path("talks.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    shown = voted("l r", "--prompts", "talks.jsonl")
    assert "assistant: Yes?" in shown and "user: Wie tief?" in shown
    pairs = read_preferences(Path("votes.jsonl")).rows
    assert [len(pair.prompt) for pair in pairs] == [3, 1]


def test_a_prompt_that_a_model_cannot_read_is_named_and_left_out(
    room: Path,
) -> None:
    Path("long.txt").write_text("Is it wide?\n" + "sea " * 300 + "\nIs it deep?\n")
    command = [sys.executable, "-m", "groundup", *words("--prompts", "long.txt")]
    code, said = Process(command, typed="l\nr\n").communicate()
    assert code == 0 and "long.txt, line 2: the prompt has" in said
    assert len(logged()) == 2 and "Still to vote on" not in said


@pytest.mark.usefixtures("ending")
def test_dpo_learns_from_the_log(
    voted: Voted, room: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    voted("l r t s l r")
    options = ["--steps", "2", "--rows", "2", "--micro-rows", "2", "--evaluations", "1"]
    options += ["--compile", "off", "--threads", "1", "--dtype", "float32", "--out", "aligned"]
    assert main(["dpo", "one", "--data", "votes.jsonl", *options]) == 0
    said = capsys.readouterr().out
    assert "4 pairs of 6 votes; left out: tie: 1, skip: 1" in " ".join(said.split())
    assert (room / "aligned" / "config.json").is_file()


# Wrong user input.


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--prompts", "none.txt"], "there is no file 'none.txt'"),
        (["--prompts", "empty.txt"], "empty"),
        (["--prompts", "blank.txt"], "white space"),
        (["--temperature", "-1"], "--temperature=-1"),
        (["--out", "prompts.txt"], "is what this command reads"),
        (["--out", "none/votes.jsonl"], "mkdir -p none"),
        (["--out", "one"], "is a folder"),
        (["--out", "notes.txt"], "is not a log of votes"),
        (["--out", "votes"], "--out=votes must end in .jsonl"),
        (["--out", "rows.jsonl"], "line 1: no 'prompt'"),
        (["--who", " "], "--who is empty"),
        (["--seed", "-1"], "--seed=-1"),
    ],
)
def test_errors_are_one_sentence(voted: Voted, more: list[str], told: str) -> None:
    Path("empty.txt").write_text("")
    Path("blank.txt").write_text("\n \n")
    Path("notes.txt").write_text("my only notes")
    Path("rows.jsonl").write_text('{"text": "x"}\n')
    said = voted("l", *more, code=2)
    assert told in said and said.count("\n") == 1, said
    assert Path("notes.txt").read_text() == "my only notes"
    assert Path("rows.jsonl").read_text() == '{"text": "x"}\n'
    assert not Path("votes.jsonl").exists()


def test_a_log_of_other_models_is_not_continued_by_accident(voted: Voted, models: Path) -> None:
    voted("l q")
    before = Path("votes.jsonl").read_bytes()
    said = voted("l", models=("one", "three"), code=2)
    assert "holds votes on one and two, not on one and three" in said and "--append" in said
    # The same name, and other weights behind it.
    Path("two").unlink()
    Path("two").symlink_to(models / "three")
    assert "earlier weights of one and two" in voted("l", code=2)
    assert Path("votes.jsonl").read_bytes() == before


def test_a_damaged_line_is_named(voted: Voted) -> None:
    voted("l l q")
    lines = Path("votes.jsonl").read_text().splitlines(keepends=True)
    Path("votes.jsonl").write_text(lines[0][:40] + "\n" + lines[1])
    said = voted("l", code=2)
    assert "line 1: not JSON" in said and "correct that line" in said


def test_one_model_at_temperature_zero_has_nothing_to_compare(voted: Voted) -> None:
    said = voted("l", "--temperature", "0", models=("one",), code=2)
    assert "temperature=0" in said and "0.7" in said


def test_help_says_that_answers_are_sampled(capsys: pytest.CaptureFixture[str]) -> None:
    """A model that is greedy by default is sampled here, and nowhere else."""
    defaults = {"label": "else temperature 0.7)", "chat": "else the most likely token)"}
    for command, told in defaults.items():
        assert main([command, "--help"]) == 0
        shown = " ".join(capsys.readouterr().out.partition("\nArguments\n")[2].split())
        assert shown.count("Sampling (default: ") == 1 and told in shown
        assert shown.index(told) < shown.index("--temperature") < shown.index("--seed")


def test_prompts_are_required(voted: Voted, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["label", "one", "two"]) == 2
    assert "--prompts is missing: a .txt file" in capsys.readouterr().err


@pytest.mark.long
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no full disk to offer")
def test_a_full_disk_is_reported(room: Path) -> None:
    # As little as a file may grow: some votes fit, the next does not.
    limited = "ulimit -f 1; exec " + " ".join([sys.executable, "-m", "groundup", *words()])
    typed = "l\n" * 6
    done = subprocess.run(
        ["bash", "-c", limited], input=typed, capture_output=True, text=True, env=os.environ
    )
    assert done.returncode == 2 and "'votes.jsonl' cannot be used" in done.stderr
    assert done.stderr.count("\n") == 1 and "Traceback" not in done.stderr


def test_a_log_locked_by_another_process(voted: Voted) -> None:
    at = Terminal(*words(), columns=80)
    at.wait_for("q quit")
    assert "another process is writing votes.jsonl" in voted("l", code=2)
    assert at.leave() == 0


# At a terminal.


def test_single_keys_at_a_terminal(room: Path) -> None:
    at = Terminal(*words("--who", "ann"), columns=80)
    shown = at.wait_for("q quit")
    assert max(map(len, shown.replace("\r", "").split("\n"))) <= 80
    for key in ("\x1b[D", "\x1bOC", "T"):
        at.send(key)
        at.wait_for("q quit")
    at.send("\x1b[A")  # an arrow that means nothing
    for key in "xyzw":  # a key that is read together with the previous one is ignored
        time.sleep(1)
        at.send(key)
        with contextlib.suppress(AssertionError):
            shown = at.wait_for(f"'{key}' is not a key.*q quit", seconds=60)
            break
    else:
        pytest.fail(at.seen)
    assert "prompt" not in shown
    at.send("ll")  # keys that are pressed together are one vote
    at.wait_for("prompt 5 of")
    at.wait_for("q quit")
    assert at.leave() == 0
    choices = [(line["choice"] == line["left"], line["choice"]) for line in logged()]
    assert [side for side, _ in choices] == [True, False, False, True]
    assert choices[2][1] == "tie"


def test_ctrl_c_ends_without_revealing_the_models(room: Path) -> None:
    at = Terminal(*words(), columns=80)
    at.wait_for("q quit")
    at.send("l")
    at.wait_for("q quit")
    at.send("\x03")
    shown = at.wait_for("the same command continues from here")
    assert "rating" not in shown and at.leave() == 130
    assert len(logged()) == 1
