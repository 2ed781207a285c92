"""Blind votes in the studio, in the same log as the terminal's."""

from __future__ import annotations

import asyncio
import html
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.app.test_label import save_tiny
from tests.serve.test_page import NODE
from tests.studio.conftest import Show, looked, opened
from tests.studio.test_runs import read

from groundup.align.label.log import vote_log
from groundup.align.label.ratings import result, result_table
from groundup.app.cli import main
from groundup.data.records import read_preferences, read_votes
from groundup.data.votes import valid_votes
from groundup.formats.folder import save_model
from groundup.lm.config import ModelConfig
from groundup.lm.model import CausalLM
from groundup.report.page import ballot_script
from groundup.report.table import Row
from groundup.runs.files import write_sealed
from groundup.runs.folder import Run
from groundup.runs.request import read_run
from groundup.serve.admission import Admission
from groundup.serve.worker import Served
from groundup.studio.server import Studio
from groundup.studio.vote_pages import HELDOUT, Asked
from groundup.text.bpe import train_bpe
from groundup.text.template import CHATML
from groundup.text.tokenizer import Tokenizer
from groundup.train.config import TrainingConfig

PROMPTS = [f"How {word} is the sea?" for word in ("wide", "deep", "cold", "blau 日本")]


def answering_run(folder: Path, seed: int, *, ends: bool = True) -> None:
    """A finished run whose model answers with random text."""
    traits = {"reads": "conversations", "chats": True, "measure": "nats_per_token"}
    with Run.open(folder, "sft", TrainingConfig(out=folder), None, traits) as run:
        save_tiny(folder, seed, ends=ends)
        run.finish()


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    for seed, name in enumerate(("alpha", "omega", "third"), 1):
        answering_run(root / name, seed)
    return root


@pytest.fixture
def root(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with three models and prompts; commands are run in its parent."""
    monkeypatch.setenv("GROUNDUP_CACHE", str(tmp_path / "cache"))
    shutil.copytree(models, tmp_path / "runs")
    (tmp_path / "runs" / "prompts.txt").write_text("\n".join(PROMPTS) + "\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "runs"


FORM = {
    "model": "alpha",
    "other": "omega",
    "typed": "\r\n".join(PROMPTS),
    "who": "ann",
    "log": "votes.jsonl",
    "max_new_tokens": "12",
}


@dataclass
class Voter:
    """A user with a browser without scripts."""

    client: httpx.Client
    at: str = ""

    def begin(self, **form: str) -> None:
        answer = self.client.post("/vote", data=FORM | form)
        assert answer.status_code == 303, read_text(answer)
        self.at = answer.headers["location"]

    def look(self) -> str:
        """The next pair, or the end."""
        until = time.monotonic() + 120
        while time.monotonic() < until:
            answer = self.client.get(self.at, follow_redirects=True)
            assert answer.status_code == 200, read_text(answer)
            if "refresh" not in answer.headers:
                return answer.text
            time.sleep(0.05)
        raise AssertionError("the answers do not come")

    def choose(self, choice: str, page: str = "") -> httpx.Response:
        page = page or self.look()
        fields = dict(re.findall(r'<input type="hidden" name="(\w+)" value="(\w*)">', page))
        return self.client.post(self.at, data=fields | {"choice": choice})

    def result(self) -> str:
        return self.client.get(f"{self.at}/result").text

    def answers(self) -> str:
        """The models of the answers."""
        return self.client.get(f"{self.at}/answers").text


@pytest.fixture
def voter(root: Path, show: Show) -> Voter:
    return Voter(show(root))


def read_text(answer: httpx.Response) -> str:
    body = re.sub(r"<style>.*?</style>", "", answer.text, flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", body)).split())


def logged(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def sides(page: str) -> list[str]:
    found = re.findall(r'<div class="said" dir="auto">(.*?)</div>', page, re.DOTALL)
    return [html.unescape(one) for one in found]


def at_terminal(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    typed: str,
    out: str = "runs/votes.jsonl",
) -> str:
    """The output of `groundup label` for these keys, models, prompts and person."""
    lines = "".join(f"{key}\n" for key in typed.split())
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(lines.encode())))
    command = ["label", "runs/alpha", "runs/omega", "--prompts", "runs/prompts.txt"]
    command += ["--out", out, "--who", "ann", "--max-new-tokens", "12"]
    capsys.readouterr()
    assert main(command) == 0
    return capsys.readouterr().out


def test_a_user_votes_blind_and_sees_the_terminals_table(root: Path, voter: Voter) -> None:
    assert 'href="/vote"' in voter.client.get("/").text
    assert 'href="/vote?model=alpha"' in voter.client.get("/runs/alpha").text
    voter.begin()
    for place, choice in enumerate(("left", "right", "tie", "both bad"), 1):
        page = voter.look()
        assert f"<h1>Prompt {place} of 4</h1>" in page and PROMPTS[place - 1] in page
        assert "alpha" not in page and "omega" not in page
        answer = voter.choose(choice, page)
        assert (answer.status_code, answer.headers["location"]) == (303, voter.at)
        line = logged(root / "votes.jsonl")[-1]
        right = {"a": "b", "b": "a"}[line["left"]]
        assert sides(page) == [line[line["left"]], line[right]]
        given = {"left": line["left"], "right": right}.get(choice, choice)
        assert line["choice"] == given and line["who"] == "ann"
        assert line["models"] == ["alpha", "omega"] and line["ended"] == [True, True]
    page = voter.look()
    assert "<h1>What the votes say</h1>" in page and "4 votes" in page
    assert "groundup dpo runs/alpha --data runs/votes.jsonl" in page and "2 pairs" in page
    assert f'href="{voter.at}/answers"' in page
    page = voter.answers()
    votes = read_votes(root / "votes.jsonl").rows
    for row in result_table(result(votes)).rows:
        assert isinstance(row, Row)
        [shown] = re.findall(rf'<tr><th scope="row">{row.title}.*?</tr>', page)
        assert [one.value for one in row.cells if one] == re.findall(r"<td>([^<]*)", shown)
    for line in logged(root / "votes.jsonl"):
        names = [("left", "a" if line["left"] == "a" else "b")]
        assert f"{names[0][0]}: {line['models']['ab'.index(names[0][1])]}" in page
    assert page.count("✓ chosen") == 2
    assert len(read_preferences(root / "votes.jsonl").rows) == 2


def test_terminal_and_page_continue_each_others_log(
    root: Path,
    voter: Voter,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    at_terminal(monkeypatch, capsys, "l r l r", "whole.jsonl")
    voter.begin()  # the prompts are typed, and are those of the file
    voter.choose("left")
    voter.choose("right")
    said = at_terminal(monkeypatch, capsys, "l q")
    assert "already voted on 2" in said and "prompt 3 of 4" in said and "prompt 2 of" not in said
    assert "<h1>Prompt 4 of 4</h1>" in voter.look()
    # Another studio, which knows of nothing, and the file.
    other = Voter(voter.client)
    other.begin(typed="", file="prompts.txt")
    assert other.at != voter.at
    other.choose("right")
    page = other.look()
    assert "What the votes say" in page
    assert "groundup label runs/alpha runs/omega --prompts runs/prompts.txt" in page
    assert "── prompt" not in at_terminal(monkeypatch, capsys, "l l")
    # Both together wrote what the terminal alone would have written.
    whole = logged(root.parent / "whole.jsonl")
    for ours, theirs in zip(logged(root / "votes.jsonl"), whole, strict=True):
        same = {"models": 0, "when": 0}
        assert ours | same == theirs | same


def test_the_command_at_the_end_continues_the_same_votes_at_temperature_0(
    voter: Voter, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    voter.begin(typed="", file="prompts.txt", temperature="0")
    count = 0
    while "<h1>Prompt" in (page := voter.look()):
        voter.choose("left", page)
        count += 1
    assert count
    [command] = re.findall(r"groundup label [^<]+", page)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"q\n")))
    capsys.readouterr()
    assert main(shlex.split(html.unescape(command))[1:]) == 0
    said = capsys.readouterr().out
    assert f"runs/votes.jsonl: {count} votes" in said and "── prompt" not in said


def test_undo_removes_vote_after_vote(root: Path, voter: Voter) -> None:
    voter.begin()
    assert 'value="undo"' not in voter.look()
    first = voter.look()
    for choice in ("left", "right"):
        voter.choose(choice)
    page = voter.look()
    voter.choose("undo", page)
    voter.choose("undo", page)  # sent twice, it is one
    assert "<h1>Prompt 2 of 4</h1>" in voter.look()
    voter.choose("undo")
    assert sides(voter.look()) == sides(first)
    votes = valid_votes(read_votes(root / "votes.jsonl").rows)
    assert votes == [] and len(logged(root / "votes.jsonl")) == 4  # lines are only appended
    for choice in ("right", "right", "right", "right"):
        voter.choose(choice)
    assert 'value="undo"' in voter.look(), "at the end, too"
    voter.choose("undo")
    assert "<h1>Prompt 4 of 4</h1>" in voter.look()


def test_no_votes_are_possible_after_the_models_are_revealed(
    root: Path,
    voter: Voter,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    voter.begin()
    first, at = voter.look(), voter.at
    voter.choose("left", first)
    second, stopped = voter.look(), voter.result()
    # As the ratings after one vote tell whose answer it was for, they are told with the answers.
    assert not re.search("left: (alpha|omega)|✓ chosen|<table", stopped)
    assert "Undo the last vote" in stopped and 'value="undo"' in second
    told = voter.answers()
    assert "✓ chosen" in told and "<table" in told and "undo" not in told.lower()
    before = (root / "votes.jsonl").read_bytes()
    pages = [(first, "left"), (first, "right"), (first, "skip"), (stopped, "undo")]
    for page, choice in [*pages, (second, "undo")]:
        answer = voter.choose(choice, page)
        assert answer.status_code == 409 and "were revealed" in read_text(answer)
        assert f'href="{at}"' in answer.text
    assert (root / "votes.jsonl").read_bytes() == before
    for page in (voter.look(), voter.result()):
        assert 'value="undo"' not in page
    # What is voted on after it can be taken back until it is told, too.
    voter.choose("right", second)
    voter.choose("undo", voter.result())
    assert "<h1>Prompt 2 of 4</h1>" in voter.look() and len(logged(root / "votes.jsonl")) == 3
    # It was told to ann of this log, whatever else she compares in it, and to nobody else.
    voter.begin(typed="\r\n".join(PROMPTS[:2]))
    assert voter.at != at and 'value="undo"' not in voter.look()
    for other in ({"who": "bob"}, {"log": "other.jsonl"}):
        voter.begin(**other)
        assert "<h1>Prompt 1 of 4</h1>" in voter.look()
    # What the terminal takes back all the same is not asked here again.
    at_terminal(monkeypatch, capsys, "u q")
    voter.begin()
    assert voter.at == at
    assert "<h1>Prompt 2 of 4</h1>" in voter.look()
    assert voter.choose("left", first).status_code == 409
    for _ in range(3):
        voter.choose("tie")
    page = voter.look()
    assert "<h1>What the votes say</h1>" in page and "The vote on 1 prompt was taken back" in page


def test_showing_ratings_reveals_all_votes_of_their_log(voter: Voter) -> None:
    voter.begin(typed=PROMPTS[0])
    voter.choose("left")
    page, at = voter.look(), voter.at
    voter.begin(typed=PROMPTS[1])
    voter.look()
    assert "<table" in voter.answers()
    voter.at = at
    assert voter.choose("undo", page).status_code == 409


def test_no_page_before_the_end_reveals_the_sides(root: Path, voter: Voter) -> None:
    voter.begin()
    pages = list[str]()
    for choice in ("left", "right", "tie", "skip"):
        pages += [voter.look(), voter.result()]
        voter.choose(choice)
    pages.append(voter.look())
    ids = [line["id"] for line in logged(root / "votes.jsonl")]
    assert len(set(ids)) == 4 and not [one for one in ids for page in pages if one in page]


def test_a_repeated_choice_counts_once_and_a_different_one_counts(root: Path, voter: Voter) -> None:
    voter.begin()
    page = voter.look()
    for choice in ("left", "left", "tie"):
        assert voter.choose(choice, page).status_code == 303
    assert len(logged(root / "votes.jsonl")) == 2
    [vote] = valid_votes(read_votes(root / "votes.jsonl").rows)
    assert vote.choice == "tie"
    for choice in ("quit", "a", ""):
        assert voter.choose(choice, page).status_code == 400
    unknown = {"choice": "left", "comparison": "0" * 16}
    assert voter.client.post(voter.at, data=unknown).status_code == 400
    assert len(logged(root / "votes.jsonl")) == 2


def test_two_answers_of_one_model_make_pairs(root: Path, voter: Voter) -> None:
    voter.begin(other="")
    for _ in PROMPTS:
        voter.choose("left")
    page = voter.look()
    assert "All answers are alpha&#39;s." in page and "<table>" not in page + voter.answers()
    assert len(read_preferences(root / "votes.jsonl").rows) == 4


def test_answers_are_escaped(root: Path, voter: Voter) -> None:
    voter.begin(typed="<script>alert(1)</script>", who="<b>ann</b>")
    page = voter.look()
    assert "<script>alert" not in page and "&lt;script&gt;alert(1)" in page
    assert "<b>ann" not in page
    voter.choose("left", page)
    assert "<script>alert" not in voter.look()


def test_held_out_conversations_of_a_data_run_are_used(root: Path, voter: Voter) -> None:
    folder = root / "data"
    with Run.open(folder, "data", TrainingConfig(out=folder), None, {}) as run:
        (folder / HELDOUT).parent.mkdir()
        turns = [("user", "Hi."), ("assistant", "Yes?"), ("user", "How {} is it?")]
        rows = [
            {
                "messages": [{"role": r, "content": c.format(n)} for r, c in turns]
                + [{"role": "assistant", "content": "the right answer"}]
            }
            for n in range(100)
        ]
        (folder / HELDOUT).write_text("".join(json.dumps(row) + "\n" for row in rows))
        run.finish()
    form = voter.client.get("/vote").text
    assert '<option value="data" selected>' in form
    voter.begin(typed="", data="data")
    page = voter.look()
    assert "<h1>Prompt 1 of 20</h1>" in page and "How 0 is it?" in page and "Yes?" in page
    assert "the right answer" not in page
    voter.choose("left", page)
    assert "How 5 is it?" in voter.look()


def test_a_prompt_that_a_model_cannot_read_is_named(voter: Voter) -> None:
    voter.begin(typed="How wide?\n" + "sea " * 300)
    voter.choose("left")
    page = voter.look()
    assert "1 prompt cannot be asked" in page and "the prompt has" in page


# Rejected starts.


@pytest.mark.parametrize(
    ("form", "told"),
    [
        ({"typed": " \r\n "}, "there are no prompts; type some"),
        ({"typed": "", "file": "none.txt"}, "there is no file"),
        ({"typed": "", "file": "../secret.txt"}, "must be a file below"),
        ({"typed": "", "file": "link.txt"}, "must be a file below"),
        ({"typed": "", "file": ".env"}, "must be a file below"),
        ({"typed": "x" * 20_001}, "type fewer, or put them into a file"),
        ({"log": "notes.txt"}, "is not a log of votes"),
        ({"log": "rows.jsonl"}, "line 1: no 'prompt'"),
        ({"log": "alpha/model.safetensors"}, "is what this command reads"),
        ({"log": "votes"}, "must end in .jsonl"),
        ({"log": "none/votes.jsonl"}, "mkdir -p"),
        ({"log": "../votes.jsonl"}, "must be a file below"),
        ({"log": "link.txt"}, "must be a file below"),
        ({"log": "/etc/votes.jsonl"}, "must be a file below"),
        ({"log": "x" * 300 + ".jsonl"}, "must be a file below"),
        ({"log": "a\u0001.jsonl"}, "must be a file below"),
        ({"model": "../alpha"}, "there is no model"),
        ({"other": "nobody"}, "there is no model"),
        ({"who": " "}, "write a name"),
        ({"temperature": "warm"}, "must be a number"),
        ({"temperature": "-1"}, "temperature=-1"),
        ({"temperature": "0", "other": ""}, "temperature=0"),
        ({"max_new_tokens": "1.5"}, "must be a whole number"),
        ({"seed": "-1"}, "seed=-1"),
    ],
)
def test_errors_are_shown_with_the_submitted_values(
    root: Path, voter: Voter, form: dict[str, str], told: str
) -> None:
    (root / "notes.txt").write_text("my only notes")
    (root / "rows.jsonl").write_text('{"text": "x"}\n')
    (root / ".env").write_text("the secret")
    (root.parent / "secret.txt").write_text("the secret")
    (root / "link.txt").symlink_to(root.parent / "secret.txt")
    before = {path: path.read_bytes() for path in root.parent.rglob("*") if path.is_file()}
    answer = voter.client.post("/vote", data=FORM | form)
    assert answer.status_code == 400 and told in read_text(answer)
    assert "the secret" not in answer.text
    kept = FORM | form
    assert re.search(f'name="log" [^>]*value="{re.escape(kept["log"])}"', answer.text)
    after = {path: path.read_bytes() for path in root.parent.rglob("*") if path.is_file()}
    assert after == before, "nothing is written"


def test_a_log_of_other_models_is_not_continued_by_accident(root: Path, voter: Voter) -> None:
    voter.begin()
    voter.choose("left")
    before = (root / "votes.jsonl").read_bytes()
    answer = voter.client.post("/vote", data=FORM | {"other": "third"})
    said = read_text(answer)
    assert answer.status_code == 400 and "holds votes on alpha and omega" in said
    assert "tick that it may hold votes on other models" in said and "--" not in said
    assert (root / "votes.jsonl").read_bytes() == before
    voter.begin(other="third", append="on")
    voter.choose("left")
    assert [line["models"][1] for line in logged(root / "votes.jsonl")] == ["omega", "third"]


def test_foreign_origins_cannot_vote(root: Path, voter: Voter, show: Show) -> None:
    voter.begin()
    page = voter.look()
    foreign = {"Origin": "http://evil.example"}
    for path in ("/vote", voter.at):
        assert voter.client.post(path, data=FORM, headers=foreign).status_code == 403
    keyed = show(root, api_key="right")
    for path in ("/vote", voter.at, "/vote.js"):
        assert keyed.get(path).status_code == 401
    assert not (root / "votes.jsonl").exists()
    assert voter.choose("left", page).status_code == 303


def test_on_a_shared_studio_nobody_can_name_files(root: Path, show: Show) -> None:
    (root / "secret.txt").write_text("the secret")
    voter = Voter(show(root, is_local=False))

    def offered(page: str) -> list[str]:
        return [name for name in ("typed", "file", "log") if f'name="{name}"' in page]

    assert offered(voter.client.get("/vote").text) == ["typed"]
    assert offered(voter.client.post("/vote", data=FORM | {"typed": " "}).text) == ["typed"]
    before = set(root.rglob("*"))
    for form in (
        {"typed": "", "file": "secret.txt"},
        {"file": "none.txt"},
        {"log": "other.jsonl"},
        {"log": "alpha/votes.jsonl"},
        {"log": "../votes.jsonl"},
    ):
        answer = voter.client.post("/vote", data=FORM | form)
        assert answer.status_code == 403 and "--api-key" in read_text(answer), form
        assert "the secret" not in answer.text
    assert set(root.rglob("*")) == before
    voter.begin()
    voter.choose("left")
    assert len(logged(root / "votes.jsonl")) == 1

    keyed = show(root, is_local=False, api_key="right")
    keyed.auth = ("me", "right")
    assert offered(keyed.get("/vote").text) == ["typed", "file", "log"]
    Voter(keyed).begin(typed="", file="prompts.txt", log="other.jsonl")


def test_an_unknown_page_or_changed_weights_explain_how_to_continue(
    root: Path, voter: Voter, show: Show
) -> None:
    voter.begin()
    voter.choose("left")
    save_tiny(root / "omega", 9, ends=True)
    for at, status, why in (
        (voter.at, 400, "holds votes on earlier weights of alpha and omega"),
        ("/vote/0123456789abcdef", 404, "begin again with the same values"),
    ):
        answer = show(root).get(at)
        assert answer.status_code == status and why in read_text(answer)
        assert '<a href="/vote">' in answer.text


def test_a_restarted_studio_continues_with_the_form(root: Path, voter: Voter, show: Show) -> None:
    voter.begin()
    voter.choose("left")
    second = voter.look()
    anew = Voter(show(root), voter.at)
    # A page from before: its answers are not drawn yet, and it leads back to them.
    late = anew.choose("left", second)
    assert late.status_code == 400 and f'href="{voter.at}"' in late.text
    page = anew.look()
    assert "<h1>Prompt 2 of 4</h1>" in page and sides(page) == sides(second)
    anew.choose("right", page)
    assert len(logged(root / "votes.jsonl")) == 2
    # The form leads there, too, and starts with the submitted values if requested.
    form = anew.client.get("/vote").text
    assert f'<a href="{voter.at}">Continue with alpha and omega (ann, votes.jsonl)</a>' in form
    assert PROMPTS[3] not in form
    again = f"/vote?like={voter.at.removeprefix('/vote/')}"
    assert html.escape(again) in anew.result()
    assert PROMPTS[3] in anew.client.get(again).text


def test_two_answers_of_one_model_are_requested_again_from_the_form(
    root: Path, voter: Voter
) -> None:
    described = read_run(root / "omega")
    described["parents"] = {"model": {"path": str(root / "alpha")}}
    write_sealed(root / "omega" / "run.json", described)

    def other(about: str) -> list[str]:
        form = voter.client.get(f"/vote?{about}").text.split('name="other"')[1]
        return re.findall(r'<option value="([^"]*)" selected>', form.split("</select>")[0])

    voter.begin(model="omega", other="")
    assert other(f"like={voter.at.removeprefix('/vote/')}") == [""]
    assert other("model=omega") == ["alpha"]


def test_revealed_results_stay_final_after_a_restart(root: Path, voter: Voter, show: Show) -> None:
    voter.begin()
    voter.choose("left")
    voter.look()
    voter.answers()
    anew = Voter(show(root), voter.at)
    assert 'value="undo"' not in anew.look() + anew.result()
    anew.begin(typed=PROMPTS[0])  # in another form, of the same log and person
    assert "<h1>What the votes say</h1>" in anew.look()
    assert "Undo the last vote" not in anew.result()


def test_on_a_shared_studio_nobody_sees_others_input(root: Path, voter: Voter, show: Show) -> None:
    voter.begin(typed="", file="prompts.txt")
    for page in (show(root, is_local=False).get("/vote"), show(root).get("/vote")):
        listed = "Continue with alpha and omega" in page.text
        assert listed == ('name="file"' in page.text)
    # Nor is a record a way to read a file.
    assert show(root, is_local=False).get(voter.at).status_code == 403


def test_a_file_of_prompts_may_be_a_pattern(root: Path, voter: Voter) -> None:
    voter.begin(typed="", file="pro*.txt")
    assert "<h1>Prompt 1 of 4</h1>" in voter.look()
    (root / "prose.txt").write_text("What?\n")
    for pattern, told in (
        ("pro*.txt", "matches 2 files"),
        ("none*", "matches nothing"),
        ("../*.txt", "must be a file below"),
        ("/etc/*", "must be a file below"),
        ("a\0/*", "must be a file below"),
    ):
        answer = voter.client.post("/vote", data=FORM | {"typed": "", "file": pattern})
        assert answer.status_code == 400 and told in read_text(answer)
        assert 'class="field wrong"' in answer.text


# The log is next to others.


def test_a_log_locked_by_another_process(root: Path, voter: Voter) -> None:
    voter.begin()
    page = voter.look()
    with vote_log(root / "votes.jsonl"):
        answer = voter.choose("left", page)
        assert answer.status_code == 409 and f'href="{voter.at}"' in answer.text
        said = read_text(answer)
        assert "Another process is writing" in said and "choose another log" in said
        assert sides(voter.look()) == sides(page), "it can be read"
    assert voter.choose("left", page).status_code == 303
    assert len(logged(root / "votes.jsonl")) == 1


def test_a_torn_last_line_is_dropped(root: Path, voter: Voter) -> None:
    voter.begin()
    voter.choose("left")
    whole = (root / "votes.jsonl").read_bytes()
    with open(root / "votes.jsonl", "ab") as file:
        file.write(whole[:200])
    assert "<h1>Prompt 2 of 4</h1>" in voter.look()
    voter.choose("right")
    assert (root / "votes.jsonl").read_bytes().startswith(whole)
    assert len(logged(root / "votes.jsonl")) == 2


# While answers are drawn.


def test_a_user_sees_progress_and_others_are_not_blocked(root: Path, show: Show) -> None:
    may_load, begun = threading.Event(), threading.Event()

    def open(name: str, folder: Path) -> Served:
        begun.set()
        assert may_load.wait(60)
        return opened(name, folder)

    voter = Voter(show(root, open))
    voter.begin()
    try:
        waiting = voter.client.get(voter.at)
        assert begun.wait(60)
        assert waiting.headers["refresh"] and "The models are being loaded" in read_text(waiting)
        assert "alpha" in read(voter.client, "/"), "the server answers meanwhile"
    finally:
        may_load.set()
    assert "<h1>Prompt 1 of 4</h1>" in voter.look()


def test_a_retrained_model_is_another_one(root: Path, voter: Voter) -> None:
    voter.begin()
    save_tiny(root / "omega", 9, ends=True)
    until = time.monotonic() + 60
    while (answer := voter.client.get(voter.at)).status_code == 200:
        assert time.monotonic() < until
        time.sleep(0.05)
    assert answer.status_code == 400 and "Omega has changed or is gone" in read_text(answer)


def test_rewritten_identical_weights_are_continued_with(root: Path, voter: Voter) -> None:
    voter.begin()
    before = voter.at
    os.utime(root / "omega" / "model.safetensors", (1, 1))
    until = time.monotonic() + 60
    while (answer := voter.client.get(voter.at)).status_code == 200:
        assert time.monotonic() < until
        time.sleep(0.05)
    assert answer.status_code == 400 and "begin again" in read_text(answer)
    voter.begin()
    assert voter.at == before and "<h1>Prompt 1 of 4</h1>" in voter.look()


def test_answers_are_generated_ahead_while_a_user_reads(root: Path, voter: Voter) -> None:
    voter.begin(typed="\n".join(f"How wide is number {n}?" for n in range(12)))
    for place in range(1, 13):
        page = voter.look()
        assert f"<h1>Prompt {place} of 12</h1>" in page
        voter.choose("skip", page)
    assert "No votes yet." in voter.look()
    assert [line["choice"] for line in logged(root / "votes.jsonl")] == ["skip"] * 12


def test_a_stopped_studio_generates_nothing_more(root: Path) -> None:
    text = "The sea is wide, and the ship sails over the sea. "
    tokenizer = Tokenizer.from_bpe(train_bpe([text] * 4, 300), CHATML)
    config = ModelConfig.of(width=64, depth=1, vocab_size=320, context=1_000_000)
    traits = {"reads": "conversations", "chats": True, "measure": "nats_per_token"}
    with Run.open(root / "long", "sft", TrainingConfig(out=root / "long"), None, traits) as run:
        save_model(root / "long", CausalLM(config), tokenizer, card="")
        run.finish()
    asked = Asked("long", typed="How?", who="ann", max_new_tokens=1_000_000)  # for an hour

    async def vote() -> None:
        studio = Studio(root, Admission(), opened, looked)
        votes = await studio._voting._votes()
        key = await votes.begin(asked)
        while not (found := await votes.position(key)).voting.ended[1]:
            await asyncio.sleep(0.02)
        await studio.stop()
        again = await votes.position(key)
        assert again.shown is None and again.todo and found.voting.drawing is None

    asyncio.run(vote())


# Keys.

BROWSER = """
const heard = {};
const buttons = [["left", "1 l ArrowLeft"], ["undo", "u"]].map(([name, keys]) => ({
  dataset: { keys }, click() { pressed.push(name); },
}));
const pressed = [];
let now = 0;
globalThis.performance = { now: () => now };
globalThis.document = {
  querySelector: selector =>
    selector !== "form.ballot" ? null : { querySelectorAll: () => buttons },
};
globalThis.addEventListener = (name, does) => { heard[name] = does; };
const submit = () => {
  let goes = true;
  heard.submit({ preventDefault() { goes = false; } });
  return goes;
};
const press = (key, more = {}) =>
  heard.keydown({ key, target: {}, preventDefault() {}, ...more });
"""


@NODE
def test_keys_press_the_buttons() -> None:
    steps = """
      press("1");  // nobody has read anything yet
      now = 5000;
      for (const key of ["1", "L", "ArrowLeft", "u", "x", "Enter"]) press(key);
      for (const one of ["repeat", "altKey", "ctrlKey", "metaKey"]) press("1", { [one]: true });
      press("1", { target: { closest: () => ({}) } });  // it is written into a field
      console.log(JSON.stringify(pressed));
    """
    assert in_browser(steps) == ["left", "left", "left", "undo"]


@NODE
def test_a_ballot_is_sent_once_on_a_double_click() -> None:
    steps = """
      const went = [submit()];  // the second click of two, which comes on the next page
      now = 399;
      went.push(submit());
      now = 5000;
      went.push(submit(), submit());
      heard.pageshow();  // of a page that the browser has kept
      went.push(submit());
      console.log(JSON.stringify(went));
    """
    assert in_browser(steps) == [False, False, True, False, True]


@NODE
def test_a_double_click_on_the_last_ballot_follows_no_link_of_the_next_page() -> None:
    steps = """
      const click = on => {
        let goes = true;
        const target = { closest: selector => selector === "a, button" && on };
        heard.click({ target, preventDefault() { goes = false; } });
        return goes;
      };
      const went = [click(true), click(false)];  // what is no link or button does as it does
      now = 400;
      console.log(JSON.stringify([...went, click(true)]));
    """
    assert in_browser(steps) == [False, True, True]


def in_browser(steps: str) -> Any:
    done = subprocess.run(
        ["node", "-e", f"{BROWSER}\n{ballot_script()}\n{steps}"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
