"""Runs that are started, stopped and continued from the studio's pages."""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx
import psutil
import pytest
from tests.conftest import Workshop
from tests.studio.conftest import Show

from groundup.app.cli import app
from groundup.app.settings import configured
from groundup.app.stages import EXPERIMENTS, STAGES
from groundup.app.starting import commands
from groundup.errors import UserError
from groundup.runs.files import read_json_object, write_sealed
from groundup.runs.folder import is_finished, read_status
from groundup.runs.request import read_run, utc_now
from groundup.studio.commands import NO, YES, arguments, as_text, below, values_of
from groundup.studio.jobs import Job, Jobs, command_lines
from groundup.studio.runs import is_place

# As long as a busy machine takes for some steps of a tiny model.
PATIENCE = 120
TINY = {"depth": "1", "width": "64", "context": "64", "micro_rows": "2", "save_every": "3"}
TINY |= {"compile": "off", "threads": "1", "dtype": "float32"}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working folder with its own cache; runs are shown and started in `runs`."""
    monkeypatch.setenv("GROUNDUP_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    yield tmp_path
    for job in Jobs(tmp_path / "runs", tmp_path).alive():  # of a test that failed
        os.kill(job.pid, signal.SIGKILL)


def until(done: Callable[[], Any]) -> None:
    end = time.monotonic() + PATIENCE
    while not done():
        assert time.monotonic() < end
        time.sleep(0.05)


def tiny(workshop: Workshop, out: str, **more: str) -> dict[str, str]:
    """The form of a tiny pre-training."""
    inputs = {"data": str(workshop.data), "tokenizer": str(workshop.tokenizer)}
    return {"stage": "pretrain", **inputs, **TINY, "out": out, **more}


def box(page: httpx.Response) -> str:
    found = re.search(r'<div class="honest">(.*?)</div>', page.text, re.DOTALL)
    return "" if found is None else html.unescape(re.sub(r"<[^>]+>", " ", found[1]))


# A run's life.


@pytest.mark.long
def test_a_run_is_started_stopped_by_a_later_studio_and_continued(
    workshop: Workshop, show: Show, here: Path
) -> None:
    client, out = show(here / "runs"), here / "runs" / "base"
    # Steps so slow that there is time to stop between them.
    form = tiny(workshop, "runs/base", steps="30", rows="64")
    started = client.post("/start", data=form | {"start": "on"})
    assert (started.status_code, started.headers["location"]) == (303, "/runs/base")
    # There may be no run yet, but there is its page.
    page = client.get("/runs/base").text
    assert 'id="stop"' in page and "--micro-rows 2" in page

    # Of two tabs, or two studios, only one starts it.
    for other in (Jobs(here / "runs", here), Jobs(here / "runs", here / "elsewhere")):
        with pytest.raises(UserError, match="started meanwhile"):
            other.start("base", "pretrain", {}, ["--version"])
    # One at a time, unless the user confirms.
    second = client.post("/start", data=tiny(workshop, "runs/other", steps="1"))
    assert second.status_code == 400 and "base is running" in box(second)
    assert 'name="beside"' in second.text and not (here / "runs" / "other").exists()

    # Processes outlive the studio: another one finds it, and stops it.
    later = show(here / "runs")
    until(lambda: (read_status(out) or {}).get("step", 0) >= 1)
    assert later.post("/stop", data={"run": "base"}).headers["location"] == "/runs/base"
    until(lambda: (read_status(out) or {})["state"] == "stopped")
    assert list((out / "checkpoints").glob("step-*")) and not is_finished(out)
    until(lambda: 'id="continue"' in later.get("/runs/base").text)
    page = later.get("/runs/base").text
    assert 'id="stop"' not in page and "The command failed" not in page

    assert later.post("/continue", data={"run": "base"}).headers["location"] == "/runs/base"
    until(lambda: is_finished(out))
    until(lambda: "Continue from here" in later.get("/runs/base").text)
    page = later.get("/runs/base").text
    assert not {'id="stop"', 'id="continue"'} & set(re.findall(r'id="\w+"', page))
    steps = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert sum(line["kind"] == "train" for line in steps) == 30


def test_a_commands_error_is_shown_and_can_be_corrected(
    workshop: Workshop, show: Show, here: Path
) -> None:
    client = show(here / "runs")
    (here / "bad.jsonl").write_text('{"text": 3}\n')
    form = {
        "stage": "tokenizer",
        "data": "bad.jsonl",
        "vocab_size": "320",
        "out": "runs/vocabulary",
    }
    first = client.post("/start", data=form)
    if first.status_code == 303:  # it took longer than a form waits
        until(lambda: "failed" in box(client.get("/runs/vocabulary")))
        first = client.get("/runs/vocabulary")
    assert "bad.jsonl" in box(first) and "error:" not in box(first)
    again = client.get("/start?stage=tokenizer&again=vocabulary")
    assert 'value="bad.jsonl"' in again.text and 'value="320"' in again.text

    form |= {"data": str(workshop.data), "again": "vocabulary"}
    assert client.post("/start", data=form).status_code == 303
    until(lambda: is_finished(here / "runs" / "vocabulary"))
    until(lambda: "Continue from here" in client.get("/runs/vocabulary").text)
    page = client.get("/runs/vocabulary").text
    assert "failed" not in page and "/start?stage=pretrain&amp;from=vocabulary" in page


# Input.


@pytest.mark.parametrize(
    ("more", "said", "field"),
    [
        ({"steps": "x"}, "--steps='x' must be a whole number", "steps"),
        ({"steps": "0"}, "--steps=0 must be at least 1", "steps"),
        ({"data": ""}, "--data", "data"),
        ({"tokenizer": "nowhere"}, "--tokenizer=nowhere does not exist", "tokenizer"),
        ({"warmup": "0.6"}, "warmup=0.6 and decay=0.5", "warmup"),
        ({"mixture": "world"}, "--mixture='world' must be a name", "mixture"),
        ({"gradient_checkpointing": "maybe"}, "must be yes or no", "gradient_checkpointing"),
        ({"out": "elsewhere"}, "is not below", "out"),
        ({"out": "runs"}, "is not below", "out"),
        ({"out": "runs/../../x"}, "is not below", "out"),
        ({"out": "runs/.hidden"}, "would not be shown", "out"),
        ({"out": "runs/a/b/c/d/e/f/g"}, "would not be shown", "out"),
        ({"out": "runs/link/x"}, "is not below", "out"),
        ({"out": "runs/taken"}, "holds something already", "out"),
        ({"out": "runs/x\0"}, "is no folder's name", "out"),
    ],
)
def test_bad_settings_start_nothing_and_are_kept(
    workshop: Workshop, show: Show, here: Path, more: dict[str, str], said: str, field: str
) -> None:
    (here / "taken").mkdir()
    (here / "runs" / "link").symlink_to(here / "taken")
    (here / "runs" / "taken").mkdir()
    (here / "runs" / "taken" / "mine.txt").touch()
    form = tiny(workshop, "runs/base", steps="1", prompt='"><script>', start="on") | more
    page = show(here / "runs").post("/start", data=form)
    assert page.status_code == 400
    assert said in box(page)
    [wrong] = re.findall(r'<div class="field wrong">.*?name="(\w+)"', page.text, re.DOTALL)
    assert wrong == field
    # The input is still there, also in folded parts, and is escaped.
    kept = dict(re.findall(r'<input [^>]*name="(\w+)"[^>]* value="([^"]*)"', page.text))
    assert kept["prompt"] == "&#34;&gt;&lt;script&gt;" and "<script>" not in page.text
    assert kept["width"] == "64" and kept["out"] == form["out"]
    assert not (here / "cache").exists()
    assert {one.name for one in (here / "runs").iterdir()} == {"link", "taken"}


def test_a_form_shows_its_command_and_starts_nothing(
    workshop: Workshop, show: Show, here: Path
) -> None:
    form = tiny(workshop, "", data="my file.txt", tokenizer=str(workshop.tokenizer), show="on")
    (here / "my file.txt").write_text("the sea")
    page = show(here / "runs").post("/start", data=form)
    assert page.status_code == 200
    [command] = re.findall(r"<pre>(.*?)</pre>", page.text, re.DOTALL)
    assert html.unescape(command) == (
        f"groundup pretrain \\\n  --data 'my file.txt' \\\n  --tokenizer {workshop.tokenizer} \\\n"
        "  --depth 1 \\\n  --width 64 \\\n  --context 64 \\\n  --micro-rows 2 \\\n"
        "  --save-every 3 \\\n  --dtype float32 \\\n  --compile off \\\n  --threads 1 \\\n"
        "  --out runs/pretrain"
    )
    assert not (here / "cache").exists() and not list((here / "runs").iterdir())


def test_every_stage_has_a_form_of_all_its_settings(show: Show, here: Path) -> None:
    client = show(here / "runs")
    choice = client.get("/start").text
    for name, stage in (STAGES | EXPERIMENTS).items():
        assert f'href="/start?stage={name}"' in choice
        page = client.get(f"/start?stage={name}").text
        fields = re.findall(r'<(?:input|select) id="field-(\w+)"', page)
        shown = set(stage.config.model_fields) - stage.config.unused
        assert sorted(fields) == sorted(shown)
        plain = html.unescape(page).lower()
        for field in shown:
            assert (stage.config.model_fields[field].description or "?").lower() in plain
    leading = client.get("/start?stage=sft").text.split("<details")[0]
    assert re.findall(r'id="field-(\w+)"', leading) == [
        *("model", "data", "out", "minutes", "steps", "epochs", "learning_rate", "adapter", "seed")
    ]


def test_a_run_is_offered_to_the_stages_that_accept_it(trained: Path, show: Show) -> None:
    shutil.rmtree(trained.parent / "runs")
    client = show(trained)
    page = client.get("/runs/journey/sft").text
    section = page.split('id="next"')[1].split("</section>")[0]
    taking = {name for name, one in commands().items() if one.input_for("model") is not None}
    assert set(re.findall(r"stage=([\w-]+)&amp;from=journey%2Fsft", section)) == taking
    assert {"dpo", "reward", "eval"} <= taking and not {"data", "tokenizer"} & taking
    form = client.get("/start?stage=dpo&from=journey/sft").text
    kept = dict(re.findall(r'<input [^>]*name="(\w+)"[^>]* value="([^"]*)"', form))
    assert kept["model"] == "shown/journey/sft" and kept["out"] == "shown/journey/dpo"
    # A reward model is offered to what takes one, and a tokenizer's page says the same of it.
    assert (
        "stage=pretrain&amp;from=journey%2Ftokenizer" in client.get("/runs/journey/tokenizer").text
    )
    refused = client.get("/start?stage=tokenizer&from=journey/sft")
    assert refused.status_code == 400 and "cannot continue from" in box(refused)


def test_a_run_is_restarted_with_its_settings(trained: Path, show: Show) -> None:
    form = show(trained).get("/start?stage=sft&like=journey/sft").text
    kept = dict(re.findall(r'<input [^>]*name="(\w+)"[^>]* value="([^"]*)"', form))
    config = read_run(trained / "journey" / "sft")["config"]
    assert kept["steps"] == str(config["steps"]) and kept["out"] == "shown/journey/sft-2"


def test_a_run_with_odd_settings_hides_nothing(trained: Path, show: Show) -> None:
    folder = trained / "journey" / "pretrain"
    described = read_run(folder)
    described["config"] |= {"data": "x" * 5000, "tokenizer": "\0", "steps": {"a": [1, None]}}
    described["config"] |= {"mixture": [{}], "prompt": "<script>", "depth": ["'"], "seed": None}
    write_sealed(folder / "run.json", described)
    client = show(trained)
    for path in ("/runs/journey/pretrain", "/start?stage=pretrain&like=journey/pretrain"):
        page = client.get(path)
        assert page.status_code == 200 and "<script>" not in page.text
    shown = client.get("/start?stage=pretrain&again=journey/pretrain").text
    assert "&lt;script&gt;" in shown


@pytest.mark.parametrize("stage", ["pretrain", "sft", "dpo"])
def test_the_arguments_of_a_run_are_its_settings(workshop: Workshop, stage: str) -> None:
    folder, command = workshop.finished(stage), commands()[stage]
    config = read_run(folder)["config"]
    given = arguments(command, values_of(command, config, str) | {"out": str(folder)})
    _, bound, _ = app.parse_args(given)
    bound.apply_defaults()
    bound.arguments.pop("mine")
    found = configured(STAGES[stage].config, bound.arguments)
    assert found.model_dump(mode="json") == config
    assert command.check(given) == folder


def test_typed_values_never_become_other_options() -> None:
    command = commands()["sft"]
    given = arguments(
        command,
        {
            "model": "--help",
            "data": "a.jsonl 'b c.jsonl' --out=/etc --version",
            "steps": "--out=/etc",
            "mixture": "world=0.5 'harm-*=0.1'",
            "double_quant": NO,
            "use_dora": YES,
            "use_rslora": NO,
            "out": "x",
        },
    )
    assert given == [
        *("sft", "--model=--help"),
        *("--data=a.jsonl", "--data=b c.jsonl", "--data=--out=/etc", "--data=--version"),
        *("--steps=--out=/etc", "--mixture.world", "0.5", "--mixture.harm-*", "0.1"),
        *("--use-dora", "--no-double-quant", "--out", "x"),
    ]
    with pytest.raises(UserError, match="must be a whole number"):
        command.check(given)
    with pytest.raises(UserError, match="quotation mark that is not closed"):
        arguments(command, {"data": "it's"})


def test_values_are_formatted_as_they_are_parsed() -> None:
    assert as_text(None) == "" and as_text(True) == YES and as_text(0.5) == "0.5"
    assert as_text(["a", "b c"]) == "a 'b c'"
    assert as_text({"world": [0.7, 0.15], "thinking": False}) == "world=0.7,0.15 thinking=false"


def test_a_long_command_has_one_option_per_line() -> None:
    assert command_lines(["sft", "a b", "--steps", "3"]) == "groundup sft 'a b' --steps 3"
    long = command_lines(["sft", "model", "--data", "x" * 70, "--out", "y"])
    assert long == f"groundup sft model \\\n  --data {'x' * 70} \\\n  --out y"


def test_output_folders_are_below_the_root(tmp_path: Path) -> None:
    root = tmp_path / "runs"
    (tmp_path / "way").symlink_to(root)
    for text in ("runs/a/b", "runs/../runs/a/b", "way/a/b", str(root / "a" / "b")):
        assert below(root, tmp_path, text, is_place) == "a/b"
    assert below(tmp_path / "way", tmp_path, "runs/a", is_place) == "a"


# Access.


def test_foreign_origins_start_and_stop_nothing(workshop: Workshop, show: Show, here: Path) -> None:
    client, form = show(here / "runs"), tiny(workshop, "runs/base", steps="1")
    for headers in (
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:1"},
        {"sec-fetch-site": "cross-site", "sec-fetch-dest": "document"},
        {"sec-fetch-site": "same-site", "sec-fetch-dest": "document"},
        {"host": "evil.example"},
    ):
        for path in ("/start", "/stop", "/continue", "/vote", "/look"):
            assert client.post(path, data=form, headers=headers).status_code == 403, headers
    # Nor does a user who only follows a link.
    for path in ("/start", "/stop", "/continue"):
        followed = client.get(path, params=form | {"start": "on", "run": "base"})
        assert followed.status_code in (200, 405)
    assert not (here / "cache").exists() and not list((here / "runs").iterdir())


def test_beyond_this_machine_a_key_is_required(workshop: Workshop, show: Show, here: Path) -> None:
    form = tiny(workshop, "runs/base", steps="1")
    open_to_all = show(here / "runs", is_local=False)
    page = open_to_all.get("/start?stage=pretrain")
    assert "without a key" in box(page) and 'name="start"' not in page.text
    assert open_to_all.post("/start", data=form | {"show": "on"}).status_code == 200
    refused = open_to_all.post("/start", data=form)
    assert refused.status_code == 403 and "--api-key" in box(refused)

    keyed = show(here / "runs", is_local=False, api_key="sesame")
    assert keyed.post("/start", data=form).status_code == 401
    known = ("me", "sesame")
    assert 'name="start"' in keyed.get("/start?stage=pretrain", auth=known).text
    # Refused for its settings, and not for who asks.
    assert keyed.post("/start", data=form | {"steps": "x"}, auth=known).status_code == 400
    assert not (here / "cache").exists()


def test_only_runs_started_here_are_stopped(workshop: Workshop, show: Show, here: Path) -> None:
    workshop.finished("pretrain")
    client = show(workshop.folder)
    for path in ("/stop", "/continue"):
        refused = client.post(path, data={"run": "pretrain"})
        assert refused.status_code == 400 and "was not started here" in box(refused)


def test_a_record_of_another_process_is_ignored(here: Path) -> None:
    jobs = Jobs(here / "runs", here)
    job = jobs.start("base", "tokenizer", {}, ["--version"])
    until(lambda: jobs.of("base") is not None and not jobs.alive())
    ended = jobs.of("base")
    assert ended is not None and ended.code == 0 and re.match(r"\d+\.", ended.said())
    [record] = (here / "cache").rglob("*.json")
    known = json.loads(record.read_text())
    # This process has the number by now, or the file holds anything.
    record.write_text(json.dumps(known | {"pid": os.getpid(), "code": None}))
    later = Jobs(here / "runs", here)
    found = later.of("base")
    assert found is not None and not found.lives and not later.alive()
    for damaged in ("{", "{}", json.dumps(known | {"arguments": [3]}), json.dumps([known])):
        record.write_text(damaged)
        assert later.of("base") is None and later.alive() == []
    assert job.path == "base"


def test_a_run_started_in_another_folder_is_continued_there(
    workshop: Workshop, show: Show, here: Path
) -> None:
    shutil.copytree(workshop.finished("pretrain"), here / "runs" / "base")
    status = here / "runs" / "base" / "status.json"
    write_sealed(status, (read_status(status.parent) or {}) | {"state": "stopped"})
    elsewhere = Jobs(here / "runs", here / "runs")
    elsewhere.start("base", "pretrain", {}, ["--version"])
    until(lambda: not elsewhere.alive())
    client = show(here / "runs")
    refused = client.post("/continue", data={"run": "base"})
    assert refused.status_code == 400 and f"was started in {here / 'runs'}" in box(refused)
    page = client.get("/runs/base").text
    assert 'id="continue"' not in page and "again=base" in page


def test_a_killed_run_is_not_running(workshop: Workshop, show: Show, here: Path) -> None:
    """Its heartbeat is unchanged; the end of its process is on record."""
    jobs = Jobs(here / "runs", here)
    job = jobs.start("base", "pretrain", {}, ["--version"])
    until(lambda: not jobs.alive())
    shutil.copytree(workshop.finished("pretrain"), here / "runs" / "base")
    status = here / "runs" / "base" / "status.json"
    beating = (read_status(status.parent) or {}) | {"state": "running", "time": utc_now()}
    client = show(here / "runs")
    write_sealed(status, beating | {"pid": os.getpid()})
    page = client.get("/runs/base").text
    assert "It was not started from this page" in page and f"kill -INT {os.getpid()}" in page
    write_sealed(status, beating | {"pid": os.getpid(), "host": "elsewhere"})
    page = show(here / "runs").get("/runs/base").text
    assert "It runs on elsewhere" in page and "kill -INT" not in page
    write_sealed(status, beating | {"pid": job.pid})
    page = client.get("/runs/base").text
    assert "It was not started" not in page and 'id="continue"' in page


def test_a_second_stop_requires_confirmation(here: Path) -> None:
    counting = """
import signal, time
told = []
signal.signal(signal.SIGINT, lambda *_: told.append(1) or print(len(told), flush=True))
print(0, flush=True)
while len(told) < 2:
    time.sleep(0.01)
"""
    child = subprocess.Popen(
        [sys.executable, "-c", counting], stdout=subprocess.PIPE, start_new_session=True
    )
    assert child.stdout is not None and child.stdout.readline() == b"0\n"
    jobs = Jobs(here / "runs", here)
    job = Job("base", "pretrain", {}, (), str(here), here / "log", child.pid, 0.0, lives=True)
    jobs.stop(job)
    assert child.stdout.readline() == b"1\n"
    jobs.stop(job)
    time.sleep(0.2)
    assert child.poll() is None
    jobs.stop(job, at_once=True)
    assert child.stdout.read() == b"2\n" and child.wait() == 0
    child.stdout.close()


def test_a_killed_command_is_no_sentence_of_its_model(here: Path) -> None:
    log = here / "log"
    job = Job("base", "pretrain", {}, (), str(here), log, 1, 0.0, code=-9)
    log.write_text("groundup\nI am a small model.\n")
    assert job.complaint() == "it was ended by signal 9, as by a kill or for want of memory"
    log.write_text("groundup\nerror: there is no data\n")
    assert job.complaint() == "there is no data"


def test_a_command_that_cannot_be_recorded_is_ended(here: Path) -> None:
    jobs = Jobs(here / "runs", here)
    jobs.start("base", "pretrain", {}, ["--version"])
    until(lambda: not jobs.alive())
    [record] = (here / "cache").rglob("*.json")
    until(lambda: read_json_object(record)["code"] is not None)  # its last entry
    record.unlink()
    record.mkdir()
    (record / "full").touch()
    with pytest.raises(UserError, match="its record cannot be written"):
        jobs.start("base", "pretrain", {}, ["doctor"])
    assert not [one for one in psutil.Process().children() if "doctor" in one.cmdline()]


def test_patterns_match_files_as_in_a_terminal(here: Path, show: Show) -> None:
    for name in ("b.txt", "a.txt", "with space.txt", ".hidden.txt", "[x].md", "q.md"):
        (here / name).write_text("the sea")
    command = commands()["sft"]

    def data(text: str, **more: Any) -> list[str]:
        return arguments(command, {"data": text, "out": "x"}, **more)[2:-2]

    assert data("*.txt q.md") == ["a.txt", "b.txt", "with space.txt", "q.md"]
    assert data("'[x].md'") == ["[x].md"], "a file of that name, as of a run that had it"
    assert data("?.md") == ["q.md"] and data("hub:owner/name") == ["hub:owner/name"]
    with pytest.raises(UserError, match=r"--data='\*\.csv' matches nothing in .*; name"):
        data("*.csv")
    with pytest.raises(UserError, match=r"is a pattern, and a studio that is open"):
        data("*.txt", expand=False)
    with pytest.raises(UserError, match=r"matches 3 names, such as a.txt and b.txt; give one"):
        arguments(command, {"model": "*.txt", "out": "x"})
    # Names of data sets in a table are patterns of the stage's own.
    assert arguments(command, {"mixture": "*=0.5"}) == ["sft", "--mixture.*", "0.5"]

    form = {"stage": "tokenizer", "data": "*.csv", "out": "runs/x", "show": "on"}
    page = show(here / "runs").post("/start", data=form)
    assert page.status_code == 400 and "matches nothing" in box(page)
    assert re.findall(r'<div class="field wrong">.*?name="(\w+)"', page.text, re.DOTALL) == ["data"]
    open_to_all = show(here / "runs", is_local=False)
    listed = open_to_all.post("/start", data=form | {"data": "*.txt"})
    assert listed.status_code == 400 and "a.txt" not in listed.text


# Recipes.

STEPS = """# Two vocabularies: groundup run two
[first]
stage = "tokenizer"
data = "{data}"
vocab_size = 320

[second]
stage = "pretrain"
tokenizer = "first"
data = "{data}"
steps = 40
rows = 64
depth = 1
width = 64
context = 64
micro_rows = 2
save_every = 2
compile = "off"
threads = 1
dtype = "float32"
"""


@pytest.mark.long
def test_a_recipe_is_chosen_started_stopped_and_continued(
    workshop: Workshop, show: Show, here: Path
) -> None:
    two = here / "runs" / "two.toml"
    two.write_text(STEPS.format(data=workshop.data), encoding="utf-8-sig")  # as some editors do
    (here / "runs" / "other.toml").write_text('[tool.ruff]\nselect = ["E"]\n')
    client, out = show(here / "runs"), here / "runs" / "two"
    assert 'href="/start?stage=run"' in client.get("/start").text
    chosen = client.get("/start?stage=run").text
    for name in ("quickstart", "alignment", "runs/two.toml"):
        link = f"/start?{urlencode({'stage': 'run', 'recipe': name})}"
        assert f'href="{html.escape(link)}"' in chosen
    assert "Two vocabularies" in chosen and "other.toml" not in chosen
    form = client.get("/start?stage=run&recipe=runs/two.toml").text
    assert "vocab_size 320" in form and 'value="runs/two"' in form

    data = {"stage": "run", "recipe": "runs/two.toml", "out": "runs/two"}
    shown = client.post("/start", data=data | {"show": "on"})
    assert "groundup run runs/two.toml --out runs/two" in shown.text and not out.exists()
    by_pattern = data | {"recipe": "runs/tw*.toml", "out": "", "show": "on"}
    shown = client.post("/start", data=by_pattern)
    assert "groundup run runs/two.toml --out runs/run" in shown.text
    assert client.post("/start", data=data).headers["location"] == "/runs/two"
    assert 'href="/runs/two">two is running' in client.get("/").text
    until(lambda: (read_status(out / "second") or {}).get("step", 0) >= 1)
    # It is one command, and stopped from the page of its run, too; a second start is asked about.
    page = client.get("/runs/two/second").text
    assert 'name="run" value="two"' in page and 'href="/runs/two">Its recipe' in page
    assert "not started from this page" not in page
    busy = box(client.post("/start", data=data | {"out": "runs/more"}))
    assert "two is running" in busy and "second" not in busy
    assert "1 of 2 runs done" in client.get("/runs/two").text
    assert client.post("/stop", data={"run": "two"}).headers["location"] == "/runs/two"
    until(lambda: (read_status(out / "second") or {})["state"] == "stopped")
    until(lambda: 'id="continue"' in client.get("/runs/two/second").text)
    assert 'id="continue"' in client.get("/runs/two").text

    assert client.post("/continue", data={"run": "two"}).status_code == 303
    until(lambda: is_finished(out / "second"))
    until(lambda: "2 of 2 runs done" in client.get("/runs/two").text)
    until(lambda: "running" not in client.get("/runs/two").text.split("<table>")[0])
    page = client.get("/runs/two").text
    assert 'id="continue"' not in page and 'id="stop"' not in page


def test_a_built_in_recipe_is_shown_before_it_has_a_run(show: Show, here: Path) -> None:
    jobs = Jobs(here / "runs", here)
    jobs.start("mine", "run", {"recipe": "quickstart"}, ["--version"])
    until(lambda: not jobs.alive())
    page = show(here / "runs").get("/runs/mine").text
    assert "Runs of this recipe" in page and "not begun" in page


def test_an_invalid_recipe_starts_nothing(show: Show, here: Path) -> None:
    client = show(here / "runs")
    (here / "runs" / "bad.toml").write_text('[sft]\nsteps = "many"\n')
    (here / "bomb.toml").write_text("# x\n" * 2**17)
    os.mkfifo(here / "pipe.toml")
    for more, said in (
        ({"recipe": ""}, "RECIPE is missing"),
        ({"recipe": "nowhere"}, "there is no recipe file 'nowhere'"),
        ({"recipe": "runs/bad.toml"}, "sft has nothing to start from"),
        ({"recipe": "quickstart", "minutes": "-1"}, "--minutes=-1 must be"),
        ({"recipe": "quickstart", "out": "elsewhere"}, "is not below"),
        ({"recipe": "*.toml"}, "matches 2 names"),
        ({"recipe": "x" * 300}, "give a shorter one"),
        ({"recipe": "\0"}, "holds a zero byte"),
    ):
        page = client.post("/start", data={"stage": "run"} | more)
        assert page.status_code == 400 and said in box(page), more
    # A link alone reads only the listed files.
    for name in ("pipe.toml", "bomb.toml", "/dev/zero", "../x", "\0", "x" * 300):
        page = client.get("/start", params={"stage": "run", "recipe": name})
        assert page.status_code == 200 and "Recipes" in page.text
    assert not (here / "cache").exists()
    open_to_all = show(here / "runs", is_local=False)
    for chosen in ("", "runs/bad.toml"):  # nor can everybody see the files there
        page = open_to_all.get("/start", params={"stage": "run", "recipe": chosen}).text
        assert "stage=run&amp;recipe=quickstart" in page and "stage=run&amp;recipe=runs" not in page
    for name in ("runs/bad.toml", "bomb.toml"):
        form = {"stage": "run", "recipe": name, "show": "on"}
        refused = open_to_all.post("/start", data=form)
        assert refused.status_code == 400 and "no built-in recipe" in refused.text


def test_a_recipe_started_in_a_terminal_is_shown(trained: Path, show: Show) -> None:
    folder = trained / "journey"
    text = '[tokenizer]\ndata = "x"\n[pretrain]\n[sft]\n[dpo]\n'
    (folder / "recipe.toml").write_text(text)
    plan = {"minutes": 3, "settings": {"sft": {"steps": 7}}, "reasons": {"sft.steps": "by a watch"}}
    (folder / "plan.json").write_text(json.dumps(plan))
    client = show(trained)
    page = client.get("/runs/journey").text
    assert "3 of 4 runs done" in page and "not begun" in page and "by a watch" in page
    assert 'href="/start?stage=run&amp;again=journey"' in page
    assert 'href="/runs/journey">Its recipe' in client.get("/runs/journey/sft").text
    status = folder / "sft" / "status.json"
    ended = read_status(folder / "sft") or {}
    write_sealed(status, ended | {"state": "running", "time": utc_now(), "pid": os.getpid()})
    page = client.get("/runs/journey").text
    assert f"kill -INT {os.getpid()}" in page and "again=journey" not in page
    write_sealed(status, ended)
    form = client.get("/start?stage=run&again=journey").text
    assert 'name="again" value="journey"' in form and 'value="shown/journey"' in form
    for anything in (
        "{",
        "[]",
        '{"reasons": [], "settings": 3}',
        '{"reasons": {"a": 1}, "settings": {}}',
    ):
        (folder / "plan.json").write_text(anything)
        assert client.get("/runs/journey").status_code == 200
    # Links lead nowhere, and no other folder is named.
    (folder / "recipe.toml").rename(trained.parent / "elsewhere.toml")
    (folder / "recipe.toml").symlink_to(trained.parent / "elsewhere.toml")
    assert client.get("/runs/journey").status_code == 404
    for path in ("/runs/%2e%2e%2f", "/runs//etc", "/runs/journey/none"):
        assert client.get(path).status_code == 404


def test_a_studio_of_a_parent_folder_stops_runs_started_inside(here: Path, show: Show) -> None:
    (here / "runs" / "near").mkdir()
    near, around = Jobs(here / "runs" / "near", here), Jobs(here / "runs", here)
    beside = Jobs(here / "runs" / "other", here)
    job = near.start("base", "serve", {}, ["studio", str(here), "--port", "0"])
    assert [one.path for one in around.alive()] == ["near/base"] and not beside.alive()
    assert around.of("near/base") is not None and beside.of("../near/base") is None
    until(lambda: "Ctrl-C" in job.said())
    client = show(here / "runs")
    assert "near/base is starting" in client.get("/").text
    assert client.post("/stop", data={"run": "near/base"}).status_code == 303
    until(lambda: not around.alive() and not near.alive())


def test_a_tilde_is_the_home_as_in_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    command = commands()["sft"]
    found = arguments(command, {"model": "~/base", "data": "~/a '~/b c'", "out": "x"})
    assert {"/home/me/base", "/home/me/a", "/home/me/b c"} <= set(found)
