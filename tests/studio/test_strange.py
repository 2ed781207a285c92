"""Folders with unexpected contents: links, pipes, unusual names."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from tests.studio.conftest import Show
from tests.studio.test_runs import read, rows, step, training

from groundup.runs.files import read_json_object, write_json, write_sealed
from groundup.runs.request import read_run
from groundup.studio.runs import Runs


def trained_run(folder: Path) -> None:
    with training(folder) as run:
        run.plan({"steps": 2})
        step(run, 1, 2.0)
        run.finish()


_READ = ("run.json", "plan.json", "status.json")


@pytest.mark.parametrize("name", [*_READ, *(f".{one}.copy" for one in _READ), "metrics.jsonl"])
def test_a_link_instead_of_a_runs_file_is_not_followed(
    tmp_path: Path, show: Show, name: str
) -> None:
    trained_run(tmp_path / "shown" / "base")
    trained_run(tmp_path / "shown" / "other")
    path = tmp_path / "shown" / "base" / name
    secret = json.loads(path.read_text())
    for at in (secret.get("config"), secret):
        if at is not None:
            at["secret"] = "the secret"
    if name == "metrics.jsonl":
        secret["loss"] = 77.0
    secret["state"], secret["step"] = "running", 33_333
    secret.pop("sha256", None)
    (tmp_path / "secret").write_text(json.dumps(secret) + "\n")
    path.unlink()
    path.symlink_to(tmp_path / "secret")
    if name.startswith("."):  # a copy counts where the file is damaged
        (path.parent / name.removeprefix(".").removesuffix(".copy")).write_text("{")
    client = show(tmp_path / "shown")
    for page in ("/", "/runs/base"):
        said = read(client, page)
        assert f"{name} is a link" in said and "damaged" in said
        assert "the secret" not in said and "33,333" not in said and "77.0" not in said
    assert "data:image/svg" not in client.get("/runs/base").text
    assert Runs(tmp_path / "shown").all()["other"].state == "done"


@pytest.mark.parametrize("name", ["run.json", "status.json", "plan.json", "metrics.jsonl"])
def test_a_pipe_does_not_block(tmp_path: Path, show: Show, name: str) -> None:
    trained_run(tmp_path / "base")
    (tmp_path / "base" / name).unlink()
    os.mkfifo(tmp_path / "base" / name)
    assert f"{name} is a link or no file" in read(show(tmp_path), "/")


@pytest.mark.parametrize("part", ["pipe", "../other.json", "absolute"])
def test_parts_are_searched_in_the_runs_own_folder(tmp_path: Path, part: str) -> None:
    trained_run(tmp_path / "base")
    os.mkfifo(tmp_path / "base" / "pipe")
    (tmp_path / "other.json").write_text("{}")
    named = str(tmp_path / "other.json") if part == "absolute" else part
    status = read_json_object(tmp_path / "base" / "status.json")
    del status["sha256"]
    write_sealed(tmp_path / "base" / "status.json", status | {"parts": {named: 2}})
    run = Runs(tmp_path).all()["base"]
    assert run.state == "damaged" and "gone or cut short" in run.why


def test_an_unreadable_folder_does_not_hide_others(
    tmp_path: Path, show: Show, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained_run(tmp_path / "shown" / "base")
    (tmp_path / "shown" / "locked").mkdir()
    locked = str(tmp_path / "shown" / "locked")

    def refusing(name: str) -> Any:
        """The system's error for users who are not administrators."""
        real = getattr(os, name)

        def asked(path: Any = ".", *rest: Any, **more: Any) -> Any:
            inside = isinstance(path, str | Path) and str(path).startswith(f"{locked}/")
            if inside or (name == "scandir" and str(path) == locked):
                raise PermissionError(errno.EACCES, "Permission denied", path)
            return real(path, *rest, **more)

        return asked

    for name in ("stat", "lstat", "scandir"):
        monkeypatch.setattr(os, name, refusing(name))
    assert "base" in read(show(tmp_path / "shown"), "/")


def test_an_unreadable_log_is_reported(
    tmp_path: Path, show: Show, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained_run(tmp_path / "base")
    trained_run(tmp_path / "other")
    with training(tmp_path / "wrote") as run:
        run.log("samples.jsonl", step=1, prompt="The", text="a text")
    real = os.access
    hidden = {tmp_path / "base" / "metrics.jsonl", tmp_path / "wrote" / "samples.jsonl"}
    monkeypatch.setattr(os, "access", lambda path, mode: path not in hidden and real(path, mode))
    client = show(tmp_path)
    assert "metrics.jsonl is a link or no file that can be read" in read(client, "/runs/base")
    assert "a text" not in read(client, "/runs/wrote")
    assert Runs(tmp_path).all()["other"].state == "done"


def test_names_without_a_valid_address_are_left_out(trained: Path, show: Show) -> None:
    for name in (b"bad\xff", b"two\nlines"):
        shutil.copytree(
            trained / "journey" / "sft", os.fsdecode(os.fsencode(trained) + b"/" + name)
        )
    client = show(trained)
    assert "journey" in read(client, "/")
    listed = client.get("/v1/models").json()["data"]
    assert [one["id"] for one in listed] == ["journey/sft", "journey/pretrain"]


@pytest.mark.parametrize(
    "named", ["a" * 300, "loop", "\ud800", "\udcff", "/", "..", "", "x/" * 2000 + "x"]
)
def test_a_missing_parent_does_not_hide_a_run(tmp_path: Path, named: str) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    trained_run(tmp_path / "base")
    described = read_json_object(tmp_path / "base" / "run.json")
    del described["sha256"]
    described["parents"] = {"model": {"path": named, "sha256": "0"}}
    write_sealed(tmp_path / "base" / "run.json", described)
    trained_run(tmp_path / "other")
    assert sorted(rows(tmp_path)) == ["base", "other"]


@pytest.mark.parametrize(
    "started", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "9999-99-99", 7, None]
)
def test_an_invalid_time_does_not_hide_a_run(tmp_path: Path, show: Show, started: object) -> None:
    trained_run(tmp_path / "base")
    described = read_json_object(tmp_path / "base" / "run.json") | {"started": started}
    for name in ("run.json", ".run.json.copy"):
        del (one := dict(described))["sha256"]
        write_json(tmp_path / "base" / name, one)
    assert read_run(tmp_path / "base")["started"] == started
    client = show(tmp_path)
    assert "base" in read(client, "/") and "base" in read(client, "/runs/base")
