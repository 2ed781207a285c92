"""Commands never overwrite their input or foreign files, and create no unexpected folders."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import Workshop, forget_finished
from groundup.app.cli import main
from groundup.errors import UserError
from groundup.runs.files import writable

Words = Callable[[Path], list[str]]


@pytest.fixture
def mine(tmp_path: Path, workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's folder: data, prompts, notes, a project, a model from elsewhere."""
    folder = tmp_path / "mine"
    (folder / "project").mkdir(parents=True)
    rows = (workshop.data / "conversations" / "train.jsonl").read_text()
    (folder / "data.jsonl").write_text(rows)
    (folder / "asked.txt").write_text("The sea\nThe snow\n")
    (folder / "notes.html").write_text("<p>groundup data inspect made no such page</p>")
    (folder / "project" / "run.json").write_text('{"scripts": {"test": "x"}}')
    (folder / "ollama").mkdir()
    (folder / "ollama" / "Modelfile").write_text("FROM ./my.gguf\n")
    (folder / "ollama" / "my.gguf").write_text("weights")
    shutil.copytree(workshop.finished("sft"), folder / "theirs")
    forget_finished(folder / "theirs")
    for name in ("run.json", ".run.json.copy", ".lock"):
        (folder / "theirs" / name).unlink()
    (folder / "soft.jsonl").symlink_to("data.jsonl")
    (folder / "hard.jsonl").hardlink_to(folder / "data.jsonl")
    monkeypatch.chdir(folder)
    return folder


def everything(folder: Path) -> dict[str, bytes | None]:
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


def inspect(workshop: Workshop, html: str, *more: str) -> list[str]:
    model = str(workshop.finished("pretrain"))
    return ["data", "inspect", "data.jsonl", "--model", model, "--html", html, *more]


def generate(workshop: Workshop, out: str, *more: str) -> list[str]:
    model = str(workshop.finished("pretrain"))
    words = ["generate", model, "--prompts", "asked.txt", "--max-new-tokens", "3"]
    return [*words, "--out", out, *more]


SAME = ["data.jsonl", "./data.jsonl", "project/../data.jsonl", "soft.jsonl", "hard.jsonl"]


@pytest.mark.parametrize("force", [[], ["--force"]])
@pytest.mark.parametrize("html", SAME)
def test_a_page_does_not_overwrite_its_data(
    mine: Path, workshop: Workshop, html: str, force: list[str]
) -> None:
    before = everything(mine)
    assert main(inspect(workshop, html, *force)) == 2
    assert everything(mine) == before


@pytest.mark.parametrize(
    "html", ["notes.html", "new/page.html", "project", "asked.txt", "/dev/null"]
)
def test_a_page_does_not_overwrite_other_files(
    mine: Path, workshop: Workshop, html: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = everything(mine)
    assert main(inspect(workshop, html)) == 2
    said = capsys.readouterr().err
    assert everything(mine) == before and html in said and said.count("\n") == 1
    assert Path("/dev/null").is_char_device()


def test_a_page_replaces_our_pages_and_others_with_force(mine: Path, workshop: Workshop) -> None:
    assert main(inspect(workshop, "page.html")) == 0
    first = (mine / "page.html").read_bytes()
    assert main(inspect(workshop, "page.html", "--examples", "1")) == 0
    assert (mine / "page.html").read_bytes() != first
    assert main(inspect(workshop, "notes.html", "--force")) == 0
    assert b"<table" in (mine / "notes.html").read_bytes()


@pytest.mark.parametrize("force", [[], ["--force"]])
@pytest.mark.parametrize("out", ["asked.txt", "new/out.jsonl", "project", "/dev/null", "MODEL"])
def test_completions_do_not_overwrite_prompts_models_and_devices(
    mine: Path, workshop: Workshop, out: str, force: list[str]
) -> None:
    model = workshop.finished("pretrain")
    out = out.replace("MODEL", str(model / "config.json"))
    before, of_model = everything(mine), everything(model)
    assert main(generate(workshop, out, *force)) == 2
    assert everything(mine) == before and everything(model) == of_model
    assert not Path("/dev/null.run.json").exists()


def test_completions_overwrite_a_foreign_file_only_with_force(
    mine: Path, workshop: Workshop
) -> None:
    before = everything(mine)
    for out in ("data.jsonl", "notes.html"):
        assert main(generate(workshop, out)) == 2
    (mine / "a.jsonl.run.json").write_text('{"mine": 1}')
    assert main(generate(workshop, "a.jsonl")) == 2
    (mine / "a.jsonl.run.json").unlink()
    assert everything(mine) == before
    assert main(generate(workshop, "notes.html", "--force")) == 0
    rows = [json.loads(line) for line in (mine / "notes.html").read_text().splitlines()]
    assert [row["index"] for row in rows] == [0, 1]
    # It continues its own file; with other settings it needs confirmation.
    assert main(generate(workshop, "notes.html")) == 0
    assert main(generate(workshop, "notes.html", "--seed", "7")) == 2
    assert main(generate(workshop, "notes.html", "--seed", "7", "--force")) == 0


@pytest.mark.parametrize("about", ["[]", "{", "", "null", '{"model": 3}', "[" * 10**5])
def test_a_damaged_side_file_does_not_allow_overwriting_completions(
    mine: Path, workshop: Workshop, about: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(generate(workshop, "out.jsonl")) == 0
    (mine / "out.jsonl.run.json").write_text(about)
    before = everything(mine)
    capsys.readouterr()
    assert main(generate(workshop, "out.jsonl")) == 2
    assert everything(mine) == before and capsys.readouterr().err.count("\n") == 1
    assert main(generate(workshop, "out.jsonl", "--force")) == 0


@pytest.mark.parametrize("line", ['{"index": 1e999}', '{"index": null}', "[]", '{"a":' * 10**5])
def test_damaged_completions_are_not_lost(
    mine: Path, workshop: Workshop, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(generate(workshop, "out.jsonl")) == 0
    with (mine / "out.jsonl").open("a") as file:
        file.write(f'{line}\n{{"torn')
    before = everything(mine)
    capsys.readouterr()
    assert main(generate(workshop, "out.jsonl")) == 2
    assert everything(mine) == before and capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("to", ["gguf", "hf"])
def test_an_export_replaces_only_an_export(mine: Path, workshop: Workshop, to: str) -> None:
    before = everything(mine)
    base = workshop.finished("pretrain")
    for out in ("ollama", "theirs", "project", ".", "data.jsonl", str(base), str(base.parent)):
        assert main(["export", str(base), "--to", to, "--out", out]) == 2, out
    for out in (str(base), str(base.parent), "project"):  # a run's folder, and the model's own
        assert main(["export", str(base), "--to", to, "--out", out, "--force"]) == 2, out
    assert everything(mine) == before
    for _ in range(2):
        assert main(["export", str(base), "--to", to, "--out", "new"]) == 0
    assert main(["export", str(base), "--to", to, "--out", "theirs", "--force"]) == 0


@pytest.mark.parametrize(
    "words",
    [
        ["tokenizer", "asked.txt", "--vocab-size", "320"],
        ["data", "build", "--packs", "world", "--world-megabytes", "0.1"],
        ["experiment", "initialisation", "--quick"],
        ["sft", "MODEL", "--data", "data.jsonl", "--steps", "1"],
        ["eval", "report", "MODEL", "--data", "asked.txt"],
    ],
    ids=lambda words: words[0],
)
def test_stages_do_not_write_into_a_foreign_folder(
    mine: Path, workshop: Workshop, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    words = [str(workshop.finished("pretrain")) if word == "MODEL" else word for word in words]
    before = everything(mine)
    for out in ("project", ".", "theirs", "ollama", "data.jsonl", "soft.jsonl"):
        capsys.readouterr()
        assert main([*words, "--out", out]) == 2, out
        assert capsys.readouterr().err.count("\n") == 1
        assert {k: v for k, v in everything(mine).items() if not k.endswith(".lock")} == before


def test_a_folder_is_rejected_as_an_output_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is a folder; name a file in it"):
        writable(tmp_path, "--html")
