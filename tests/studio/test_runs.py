"""The pages of runs: real folders, complete, growing, stopped and damaged."""

from __future__ import annotations

import html
import json
import os
import platform
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import httpx
import psutil
import pytest
from tests.conftest import CallsOf
from tests.studio.conftest import Show, looked, opened

from groundup.errors import UserError
from groundup.report.figure import Plot
from groundup.report.table import Row, Table
from groundup.runs import growing
from groundup.runs.files import read_json_object, read_lines, write_lines, write_sealed
from groundup.runs.folder import Run, read_metrics
from groundup.runs.request import utc_now
from groundup.serve.admission import Admission
from groundup.studio.pages import home_page
from groundup.studio.runs import Runs
from groundup.studio.server import Studio
from groundup.train.config import TrainingConfig


def read(client: httpx.Client, path: str) -> str:
    """The visible text of a page."""
    answer = client.get(path)
    assert answer.status_code == 200, answer.text
    body = re.sub(r"<style>.*?</style>|data:image[^\"]*", "", answer.text, flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", body)).split())


def rows(root: Path) -> dict[str, Row]:
    """The rows of the first page, by the names of the runs."""
    [table] = [one for one in home_page(Runs(root)).opening if isinstance(one, Table)]
    return {row.title: row for row in table.rows if isinstance(row, Row)}


def cells(row: Row) -> list[str]:
    return ["" if cell is None else cell.text for cell in row.cells]


def training(folder: Path, parents: dict[str, Path] | None = None) -> Run:
    """A run that trains, in this process."""
    traits = {"reads": "documents", "chats": False, "measure": "bits_per_byte"}
    return Run.open(folder, "pretrain", TrainingConfig(out=folder), parents, traits)


def step(run: Run, number: int, loss: float, steps: int = 40) -> None:
    line = {"tokens": 64 * number, "loss": loss, "seconds": 0.5, "learning_rate": 0.1}
    run.log("metrics.jsonl", kind="train", step=number, **line)
    run._last_beat = 0.0  # as if a second had gone by
    run.heartbeat(step=number, steps=steps)


def evaluation(run: Run, number: int, value: float) -> None:
    run.log("metrics.jsonl", kind="evaluation", step=number, seconds=0.1, bits_per_byte=value)


# All runs.


def test_runs_are_listed_below_their_parents(trained: Path, show: Show) -> None:
    found = rows(trained)
    assert [(name, row.depth) for name, row in found.items()] == [
        ("tokenizer", 0),
        ("pretrain", 1),
        ("sft", 2),
    ]
    state, steps, loss, heldout, size, *_ = cells(found["pretrain"])
    log = read_metrics(trained / "journey" / "pretrain" / "metrics.jsonl")
    [*_, before, last] = [line["loss"] for line in log if line["kind"] == "train"]
    [*_, measured] = [line for line in log if line["kind"] == "evaluation"]
    assert state == "done" and steps.startswith("24\nin ")
    assert loss == f"{(before + last) / 2:.3f}", "the mean of the last tenth of its steps"
    assert heldout == f"{measured['bits_per_byte']:.3f}\nbits per byte"
    whole = sum(
        path.stat().st_size
        for path in (trained / "journey" / "pretrain").rglob("*")
        if path.is_file()
    )
    assert size.startswith(f"{whole / 1e6:.3g} MB")
    # And so it is read, with nothing but what the server sends.
    said = read(show(trained), "/")
    assert loss in said and "3 runs below" in said


def test_an_empty_folder_says_what_to_do_first(tmp_path: Path, show: Show) -> None:
    said = read(show(tmp_path), "/")
    assert "Nothing was trained here yet" in said and "groundup quickstart" in said


def test_a_running_run_is_followed(tmp_path: Path, show: Show) -> None:
    client = show(tmp_path)
    with training(tmp_path / "base") as run:
        for number in (1, 2):
            step(run, number, 5.0 - number)
        said = read(client, "/")
        assert "1 running now" in said and "2 of 40" in said and "19 seconds left" in said
        assert "3.000" in said
        evaluation(run, 2, 2.125)
        step(run, 3, 1.75)
        said = read(client, "/")
        assert "3 of 40" in said and "1.750" in said and "2.125 bits per byte" in said
        page = client.get("/runs/base").text
        drawn = page.count("data:image/svg+xml")
        assert drawn == 2, "held out and loss"
        [first] = re.findall(r'alt="(base: loss[^"]*)"', page)
        assert "to 1.75 at" in first or "192" in first
        for number in range(4, 9):
            step(run, number, 1.0)
        [more] = re.findall(r'alt="(base: loss[^"]*)"', client.get("/runs/base").text)
        assert "512" in more and more != first
        # Hundreds of steps later what was held out before is still the last that was.
        for number in range(9, 800):
            step(run, number, 1.0, steps=1000)
        assert "2.125" in read(client, "/")
    assert "1 running now" in read(client, "/"), "the heartbeat is of a moment ago"


def test_curves_are_redrawn_when_there_is_more_to_see(tmp_path: Path) -> None:
    shown = Studio(tmp_path, Admission(), opened, looked)
    with training(tmp_path / "base") as run:

        def curves(until: int) -> list[Plot]:
            for number in range(len(read_lines(run.folder / "metrics.jsonl")), until):
                step(run, number + 1, 1.0, steps=200)
            found = shown._runs.get("base")
            assert found is not None
            return shown._curves(found)

        step(run, 1, 1.0)
        first = curves(100)
        assert curves(102) is first and curves(110) is not first
        assert first[0].svg is first[0].svg
        last = curves(112)
        run.finish()
    assert curves(112) is not last, "a finished run shows all of its steps"


def test_curves_belong_to_the_current_run(tmp_path: Path) -> None:
    """Retrained, with as many steps and with more, in a file with the same inode."""
    shown = Studio(tmp_path, Admission(), opened, looked)

    def drawn() -> list[Plot]:
        found = shown._runs.get("base")
        assert found is not None
        return shown._curves(found)

    with training(tmp_path / "base") as run:
        for number in range(1, 101):
            step(run, number, 2.0)
    log = tmp_path / "base" / "metrics.jsonl"
    before = drawn()
    assert "to 2 at" in before[0].in_words
    for steps, loss in ((100, 3.0), (101, 4.0)):
        lines = [line | {"loss": loss} for line in read_lines(log)]
        lines += [lines[-1] | {"step": 101}] * (steps - 100)
        log.write_text("".join(json.dumps(line) + "\n" for line in lines))
        assert f"to {loss:g} at" in drawn()[0].in_words


def test_held_out_numbers_belong_to_the_current_run(tmp_path: Path) -> None:
    runs = Runs(tmp_path)

    def train(started: str) -> Path:
        with training(tmp_path / "base") as run:
            described = read_json_object(run.folder / "run.json") | {"started": started}
            del described["sha256"]
            write_sealed(run.folder / "run.json", described)
            step(run, 1, 2.0)
        return run.folder / "metrics.jsonl"

    with open(train("2024-01-01T00:00:00Z"), "a") as file:
        line = {"kind": "evaluation", "step": 1, "seconds": 0.1, "bits_per_byte": 2.125}
        file.write(json.dumps(line) + "\n")
    assert runs.all()["base"].latest.heldout == 2.125
    # Truncated, which rewrites the log, and grown beyond it.
    log = tmp_path / "base" / "metrics.jsonl"
    first, *_ = read_lines(log)
    write_lines(log, [first | {"step": number} for number in range(1, 9)])
    assert runs.all()["base"].latest.heldout is None
    with open(log, "a") as file:
        file.write(json.dumps(line) + "\n")
    assert runs.all()["base"].latest.heldout == 2.125
    # Restarted, by chance in a file with the same inode.
    kept = log.stat().st_ino
    log.write_text("".join(json.dumps(first | {"step": n}) + "\n" for n in range(1, 20)))
    assert log.stat().st_ino == kept
    for name in ("run.json", ".run.json.copy", "status.json"):
        (tmp_path / "base" / name).unlink()
    described = tmp_path / "begun"
    with training(described):
        pass
    for name in ("run.json", ".run.json.copy"):
        shutil.copy(described / name, tmp_path / "base" / name)
    assert runs.all()["base"].latest.heldout is None


def test_a_long_log_is_read_from_its_end(tmp_path: Path, calls_of: CallsOf) -> None:
    with training(tmp_path / "base") as run:
        step(run, 1, 2.0)
        evaluation(run, 1, 2.125)
        whole = read_lines(run.folder / "metrics.jsonl")
    log = tmp_path / "base" / "metrics.jsonl"
    with open(log, "a") as file:
        file.writelines(json.dumps(whole[0] | {"step": n}) + "\n" for n in range(2, 4_000))
    found = Runs(tmp_path)
    parsed = calls_of(growing, "log_line")
    run = found.all()["base"]
    assert found.models() == {} and parsed == [], "nobody asked for what it measured"
    assert run.latest.heldout == 2.125 and run.latest.loss == 2.0
    assert 100 < len(parsed) < 1_000
    assert found.all()["base"].latest is run.latest


def test_a_stopped_or_killed_run_says_so(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), training(tmp_path / "stopped") as run:
        step(run, 3, 2.0)
        raise KeyboardInterrupt
    with training(tmp_path / "killed") as run:
        step(run, 3, 2.0)
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    status = tmp_path / "killed" / "status.json"
    said = read_json_object(status)
    long_ago = said | {"pid": ended.pid, "time": "2020-01-01T00:00:00Z"}
    status.write_text(json.dumps(long_ago))
    runs = Runs(tmp_path).all()
    assert {name: run.state for name, run in runs.items()} == {
        "stopped": "stopped",
        "killed": "stopped",
    }
    assert "continues from what it saved" in runs["stopped"].why
    assert "ended unexpectedly" in runs["killed"].why
    # A long evaluation has no heartbeat, and the process is there; or another one has its number.
    for pid, when, state in (
        (os.getpid(), "2999-01-01T00:00:00Z", "running"),
        (os.getpid(), "2020-01-01T00:00:00Z", "stopped"),
        (ended.pid, "2999-01-01T00:00:00Z", "stopped"),
    ):
        status.write_text(json.dumps(long_ago | {"pid": pid, "time": when}))
        assert Runs(tmp_path).all()["killed"].state == state


def test_a_run_that_has_just_begun_is_running(tmp_path: Path) -> None:
    """It may read its inputs for long. Earlier versions said so with their first heartbeat only."""
    with training(tmp_path / "base"):
        assert Runs(tmp_path).all()["base"].state == "running"
    status = tmp_path / "base" / "status.json"
    status.write_text(json.dumps(read_json_object(status) | {"time": "2999-01-01T00:00:00Z"}))
    assert Runs(tmp_path).all()["base"].state == "running"
    status.unlink()
    assert Runs(tmp_path).all()["base"].state == "running"
    described = read_json_object(tmp_path / "base" / "run.json")
    del described["sha256"]
    write_sealed(tmp_path / "base" / "run.json", described | {"started": "2024-01-01T00:00:00Z"})
    assert Runs(tmp_path).all()["base"].state == "started"


def test_a_process_is_looked_for_on_its_own_machine_only(tmp_path: Path) -> None:
    """A container's runs have low numbers, and folders are copied from other machines."""
    with training(tmp_path / "base") as run:
        step(run, 3, 2.0)
    status = tmp_path / "base" / "status.json"
    said = read_json_object(status)
    assert said["host"] == platform.node()
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    killed = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    killed.kill()
    while psutil.Process(killed.pid).status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.01)
    now, later, before = utc_now(), "2999-01-01T00:00:00Z", "2020-01-01T00:00:00Z"
    here, elsewhere, unknown = {"host": platform.node()}, {"host": "elsewhere"}, {"host": None}
    for pid, when, host, state in (
        (child.pid, now, here, "running"),
        (killed.pid, now, here, "stopped"),  # at once
        (child.pid, before, here, "stopped"),  # another program has its number
        (child.pid, now, elsewhere, "running"),
        (child.pid, later, elsewhere, "stopped"),
        (child.pid, later, unknown, "running"),
        (1, later, unknown, "stopped"),
    ):
        status.write_text(json.dumps(said | {"pid": pid, "time": when} | host))
        assert Runs(tmp_path).all()["base"].state == state, (pid, when, host)
    child.kill()
    child.wait()
    killed.wait()


def test_a_failed_run_says_why_and_whether_anything_is_saved(tmp_path: Path) -> None:
    for name, steps in (("early", 0), ("late", 3)):
        with pytest.raises(UserError), training(tmp_path / name) as run:
            for number in range(1, steps + 1):
                step(run, number, 2.0)
            raise UserError("row 3 of data.jsonl is not JSON")
    runs = Runs(tmp_path).all()
    assert {run.state for run in runs.values()} == {"stopped"}
    assert runs["early"].why == "it ended before its first step: row 3 of data.jsonl is not JSON"
    assert runs["late"].why.startswith("row 3 of data.jsonl is not JSON; the same command")


def test_the_size_of_a_run_is_counted_again_when_it_ends(tmp_path: Path) -> None:
    runs = Runs(tmp_path)
    with training(tmp_path / "base") as run:
        before = runs.size(Runs(tmp_path).all()["base"])
        (tmp_path / "base" / "weights.json").write_text("[" + "0, " * 9_999 + "0]")
        run.finish()
    assert runs.size(Runs(tmp_path).all()["base"]) > before + 9_999


def test_the_latest_metrics_average_several_steps(tmp_path: Path) -> None:
    with training(tmp_path / "base") as run:
        for number in range(1, 61):
            step(run, number, 9.0 if number <= 54 else 1.0 if number % 2 else 3.0)
    found = Runs(tmp_path).all()["base"].latest
    assert found.loss == 2.0 and found.step_seconds == 0.5


def test_damaged_runs_say_why_and_do_not_hide_others(trained: Path, show: Show) -> None:
    journey = trained / "journey"
    shutil.copytree(journey / "sft", journey / "lost")
    (journey / "lost" / "model.safetensors").unlink()
    shutil.copytree(journey / "sft", journey / "torn")
    for name in ("run.json", ".run.json.copy"):
        path = journey / "torn" / name
        path.write_bytes(path.read_bytes()[:100])
    shutil.copytree(journey / "sft", journey / "unsure")
    for name in ("status.json", ".status.json.copy"):
        (journey / "unsure" / name).write_text("{")
    (journey / "sft" / "metrics.jsonl").write_bytes(b"\xff{\n" * 9)
    for name in ("samples.jsonl", "plan.json", ".plan.json.copy", "README.md"):
        (journey / "sft" / name).write_bytes(b"[1, \xff\n")
    runs = Runs(trained).all()
    states = {name.removeprefix("journey/"): run.state for name, run in runs.items()}
    assert states == {
        **dict.fromkeys(("lost", "torn", "unsure"), "damaged"),
        **dict.fromkeys(("pretrain", "sft", "tokenizer"), "done"),
    }
    client = show(trained)
    said = read(client, "/")
    assert "model.safetensors is gone or cut short" in said
    assert "run.json is not JSON" in said and "status.json is damaged" in said
    for path in runs:
        assert client.get(f"/runs/{path}").status_code == 200, path


def test_a_run_that_names_itself_as_parent_is_shown(tmp_path: Path) -> None:
    for name, parent in (("one", "two"), ("two", "one"), ("self", "self")):
        with training(tmp_path / name) as run:
            described = read_json_object(run.folder / "run.json")
        del described["sha256"]
        described["parents"] = {"model": {"path": str(tmp_path / parent)}}
        write_sealed(run.folder / "run.json", described)
    assert sorted(rows(tmp_path)) == ["one", "self", "two"]


def test_foreign_folders_are_ignored(tmp_path: Path) -> None:
    for name in (".hidden/a", "venv/b", "shown/checkpoints/c", "shown/d", "a/b/c/d/e/f/g/too_deep"):
        with training(tmp_path / "root" / name):
            pass
    (tmp_path / "root" / "venv" / "pyvenv.cfg").touch()
    with training(tmp_path / "elsewhere"):
        pass
    (tmp_path / "root" / "link").symlink_to(tmp_path / "elsewhere")
    assert list(Runs(tmp_path / "root").all()) == ["shown/d"]


def test_new_runs_appear_and_deleted_ones_disappear(tmp_path: Path, show: Show) -> None:
    client = show(tmp_path)
    assert client.get("/runs/new").status_code == 404
    with training(tmp_path / "new"):
        pass
    until = time.monotonic() + 30
    while (status := client.get("/runs/new").status_code) == 404 and time.monotonic() < until:
        time.sleep(0.1)
    assert status == 200
    runs = Runs(tmp_path)
    assert list(runs.all()) == ["new"]
    shutil.rmtree(tmp_path / "new")
    assert runs.all() == {} and runs.get("new") is None


# One run.


def test_a_run_shows_its_lineage(trained: Path, show: Show) -> None:
    client = show(trained)
    page = client.get("/runs/journey/pretrain").text
    said = read(client, "/runs/journey/pretrain")
    assert page.count("data:image/svg+xml") == 2
    assert '<a href="/runs/journey/tokenizer">' in page and '<a href="/runs/journey/sft">' in page
    [sample, *_] = [
        json.loads(line)
        for line in (trained / "journey/pretrain/samples.jsonl").read_text().splitlines()
    ]
    assert " ".join(sample["text"].split()) in said
    assert f"after step {sample['step']}" in said
    described = read_json_object(trained / "journey/pretrain/run.json")
    assert described["versions"]["torch"] in said and "learning_rate" in said
    assert "as given" in said, "the reason of its number of steps"
    assert "A Box of Paints" in said, "its model card"


def test_a_runs_text_is_escaped(tmp_path: Path, show: Show) -> None:
    bad = "<script>alert(1)</script><img src=x onerror=alert(2)>"
    with training(tmp_path / "a <b>&\"'#?%") as run:
        step(run, 1, 2.0)
        run.log("samples.jsonl", step=1, prompt=bad, text=bad)
        run.plan({"steps": 1, bad: bad, "reasons": {bad: bad}})
        (run.folder / "README.md").write_text(bad)
    client = show(tmp_path)
    [address] = re.findall(r'href="(/runs/[^"]*)"', client.get("/").text)
    for path in ("/", address):
        page = client.get(path).text
        assert "<script>" not in page and "<img src=x" not in page and "a <b>" not in page
    assert page.count(html.escape(bad, quote=False)) >= 5


def test_a_report_is_shown_in_a_sandbox(trained: Path, show: Show) -> None:
    report = trained / "journey" / "sft" / "report.html"
    report.write_text("<script>alert(1)</script>measured")
    client = show(trained)
    assert 'href="/report/journey/sft"' in client.get("/runs/journey/sft").text
    shown = client.get("/report/journey/sft")
    assert shown.text.endswith("measured")
    policy = shown.headers["content-security-policy"]
    assert "sandbox" in policy and "script-src" not in policy and "default-src 'none'" in policy
    assert client.get("/report/journey/pretrain").status_code == 404


# Access.


def raw(client: httpx.Client, target: str, host: str = "127.0.0.1") -> bytes:
    """A response to a raw path, which clients would normalize."""
    at = urlparse(str(client.base_url))
    assert at.hostname is not None and at.port is not None
    with socket.create_connection((at.hostname, at.port), timeout=20) as connection:
        asked = f"GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
        connection.sendall(asked.encode())
        return b"".join(iter(lambda: connection.recv(2**16), b""))


@pytest.mark.parametrize(
    "target",
    [
        *("/runs/../secret", "/runs/journey/../../secret", "/runs/%2e%2e/secret"),
        *("/runs/..%2fsecret", "/runs//etc", "/runs/journey/sft/../../../secret"),
        *("/report/../secret", "/report/..%2fsecret", "/report/journey/link", "/runs/journey%00"),
    ],
)
def test_files_outside_the_folder_are_not_served(trained: Path, show: Show, target: str) -> None:
    shutil.copytree(trained / "journey" / "sft", trained.parent / "secret")
    (trained.parent / "secret" / "report.html").write_text("the secret")
    (trained / "journey" / "link").symlink_to(trained.parent / "secret")
    answer = raw(show(trained), target)
    assert b" 404 " in answer.splitlines()[0] and b"the secret" not in answer


def test_linked_files_are_not_served(trained: Path, show: Show) -> None:
    secret = trained.parent / "secret"
    secret.write_text("the secret")
    for name in ("report.html", "README.md", "data.json"):
        path = trained / "journey" / "sft" / name
        path.unlink(missing_ok=True)
        path.symlink_to(secret)
    client = show(trained)
    assert "the secret" not in client.get("/runs/journey/sft").text
    assert client.get("/report/journey/sft").status_code == 404


def test_foreign_hosts_are_rejected(trained: Path, show: Show) -> None:
    client = show(trained)
    for path in ("/", "/runs/journey/sft", "/talk", "/live.js", "/v1/models"):
        assert b" 403 " in raw(client, path, host="evil.example").splitlines()[0], path
    form = {"model": "journey/sft", "text": "The sea"}
    answer = client.post("/look", data=form, headers={"Origin": "http://evil.example"})
    assert answer.status_code == 403
    assert client.post("/").status_code == 405 and client.get("/nowhere").status_code == 404


def test_a_key_is_required_everywhere(trained: Path, show: Show) -> None:
    client = show(trained, api_key="a secret key")
    for path in (
        *("/", "/runs/journey/sft", "/report/journey/sft", "/talk", "/v1/models"),
        *("/start", "/start?stage=dpo&from=journey/sft"),
    ):
        refused = client.get(path)
        assert refused.status_code == 401 and "journey" not in refused.text, path
        wrong = client.get(path, auth=("anybody", "a wrong key"))
        assert wrong.status_code == 401
        # As a browser sends what it asked a person for, and as programs send it.
        bearer = {"Authorization": "Bearer a secret key"}
        known = 404 if path.startswith("/report") else 200
        assert client.get(path, auth=("anybody", "a secret key")).status_code == known
        assert client.get(path, headers=bearer).status_code == known
    assert client.get("/").headers["www-authenticate"].startswith("Basic ")


@pytest.mark.parametrize(
    "path",
    ["/", "/runs/journey/pretrain", "/start", "/start?stage=sft&from=journey/pretrain", "/nowhere"],
)
def test_pages_need_only_this_server(trained: Path, show: Show, path: str) -> None:
    client = show(trained)
    answer = client.get(path)
    policy: Any = dict(
        rule.split(" ", 1) for rule in answer.headers["content-security-policy"].split("; ")
    )
    assert policy["default-src"] == "'none'" and policy["script-src"] == "'self'"
    assert policy["frame-ancestors"] == "'none'" and policy["form-action"] == "'self'"
    # Only the refresh script; no inline script, and nothing from elsewhere.
    scripts = re.findall(r"<script[^>]*>", answer.text)
    assert set(scripts) <= {'<script src="/live.js" defer>'}
    assert not re.findall(r'\son\w+="|(?:src|href)="(?:https?:)?//', answer.text)
    script = client.get("/live.js")
    assert script.headers["content-type"].startswith("text/javascript")


def test_pages_do_not_import_torch(trained: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from groundup.app.commands import studio as command\n"
        "from groundup.serve.admission import Admission\n"
        "from groundup.studio.server import Studio\n"
        "from groundup.studio.pages import home_page\n"
        "shown = Studio(Path(sys.argv[1]), Admission(), None, None)\n"
        "print(len(home_page(shown._runs).opening), 'torch' in sys.modules)"
    )
    command = [sys.executable, "-c", code, str(trained)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("2 False\n", "")
