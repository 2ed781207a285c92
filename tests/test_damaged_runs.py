"""Run folders after damage by failing disks: recovered, or refused in one sentence."""

from __future__ import annotations

import contextlib
import functools
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from conftest import Workshop, forget_finished
from groundup.app.cli import main
from groundup.runs.content import folder_hash
from groundup.runs.folder import is_finished
from miniature import write_miniature
from mutations import mutated_bytes, mutation_for

SHORT = {"steps": 8, "save_every": 3, "evaluations": 2}
STORY = ("run.json", "plan.json", "status.json", "metrics.jsonl", "samples.jsonl")
# Stages with more state to continue from.
MORE = {
    "pretrain": ("tokens/train.json", "tokens/train.npy", "tokens/heldout.offsets.npy"),
    "sft": ("data.json",),
    "dpo": ("reference.safetensors",),
}
MODEL = ("config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json")


def _flip(whole: bytes) -> bytes:
    place = len(whole) // 2
    return whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :]


CONTENTS: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda whole: b"",
    "null": lambda whole: b"null",
    "list": lambda whole: b"[]",
    "number": lambda whole: b"1e999",
    "object": lambda whole: b"{}",
    "cut": lambda whole: whole[: len(whole) // 2],
    "torn": lambda whole: whole[:-2],
    "flipped": _flip,
    "binary": lambda whole: bytes(range(256)) * 4,
    "zeros": lambda whole: bytes(len(whole)),
    "deep": lambda whole: b"[" * 100_000,
    "wrong": lambda whole: b'{"stage": [], "state": {}, "step": "x", "parents": 3, "config": []}',
    "kinds": lambda whole: b'{"stage": "sft", "parents": {"model": 3}, "steps": "x", "kind": []}',
}
WAYS = (*CONTENTS, "missing", "folder")


def damage(path: Path, way: str) -> None:
    if way in CONTENTS:
        before = path.read_bytes() if path.exists() else b'{"step": 1}\n'  # DPO draws no samples
        path.write_bytes(CONTENTS[way](before))
        return
    path.unlink(missing_ok=True)
    if way == "folder":
        path.mkdir()


@pytest.fixture(scope="module")
def short_run(
    workshop: Workshop, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Path]:
    """A stage's run, created on first use; tests damage only copies of it."""

    @functools.cache
    def made(stage: str) -> Path:
        folder = tmp_path_factory.mktemp("whole") / "run"
        assert main(command(workshop, stage, folder)) == 0
        return folder

    return made


@pytest.fixture(params=["pretrain", "sft", "dpo"])
def whole(request: pytest.FixtureRequest, short_run: Callable[[str], Path]) -> tuple[str, Path]:
    """A short run that has finished."""
    return request.param, short_run(request.param)


def command(workshop: Workshop, stage: str, out: Path) -> list[str]:
    return workshop.command(stage, out, **SHORT)[3:]


def interrupted(folder: Path, to: Path) -> Path:
    """The run as a kill near its end leaves it."""
    shutil.copytree(folder, to)
    forget_finished(to)
    for name in (*MODEL, "model.safetensors", "README.md"):
        (to / name).unlink()
    (to / "status.json").write_text('{"schema": 1, "state": "running", "step": 6, "steps": 8}')
    return to


def continues(
    workshop: Workshop, stage: str, folder: Path, like: Path, capsys: pytest.CaptureFixture[str]
) -> int:
    """Start a run again and return the exit code. It must end with the same bits, or in one
    line."""
    kept = {p: p.read_bytes() for p in (folder / "checkpoints").rglob("*") if p.is_file()}
    capsys.readouterr()
    code = main(command(workshop, stage, folder))
    said = capsys.readouterr().err
    if code == 2:
        assert said.startswith("error: ") and said.count("\n") == 1, said
        assert all(path.read_bytes() == content for path, content in kept.items()), "lost"
    else:
        assert code == 0
        assert (folder / "model.safetensors").read_bytes() == (
            like / "model.safetensors"
        ).read_bytes()
    return code


# Each file is damaged in each way in one of the stages.
STAGES = ("pretrain", "sft", "dpo")
DAMAGES = [(name, way) for way in WAYS for name in STORY]
CASES = [(STAGES[i % 3], name, way) for i, (name, way) in enumerate(DAMAGES)]


@pytest.mark.every(4)
@pytest.mark.parametrize(("whole", "name", "way"), CASES, ids=str, indirect=["whole"])
def test_an_interrupted_run_continues_to_the_same_bits(
    whole: tuple[str, Path],
    workshop: Workshop,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
    way: str,
) -> None:
    stage, like = whole
    folder = interrupted(like, tmp_path / "run")
    damage(folder / name, way)
    code = continues(workshop, stage, folder, like, capsys)
    # Files with a copy and derived files are repaired, unless a folder stands in their place.
    assert code == (2 if way == "folder" else 0)


@pytest.mark.parametrize("way", ["empty", "cut", "flipped", "missing"])
def test_derived_files_are_recreated(
    whole: tuple[str, Path],
    workshop: Workshop,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    way: str,
) -> None:
    stage, like = whole
    for name in MORE[stage]:
        folder = interrupted(like, tmp_path / name.replace("/", "-"))
        damage(folder / name, way)
        assert continues(workshop, stage, folder, like, capsys) == 0, name


def test_files_lost_with_their_copy_are_refused(
    whole: tuple[str, Path],
    workshop: Workshop,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    stage, like = whole
    for name in ("run.json", "plan.json"):
        for way in ("cut", "list", "missing"):
            folder = interrupted(like, tmp_path / f"{name}-{way}")
            damage(folder / name, way)
            damage(folder / f".{name}.copy", way)
            assert continues(workshop, stage, folder, like, capsys) == 2
    # A plan can be made again if nothing has been trained with it.
    folder = interrupted(like, tmp_path / "fresh")
    shutil.rmtree(folder / "checkpoints")
    for name in ("plan.json", ".plan.json.copy"):
        damage(folder / name, "cut")
    assert continues(workshop, stage, folder, like, capsys) == 0


@pytest.mark.parametrize("way", ["missing", "empty", "cut"])
def test_lost_files_of_a_finished_run_are_recreated(
    whole: tuple[str, Path],
    workshop: Workshop,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    way: str,
) -> None:
    stage, like = whole
    for name in ("model.safetensors", "tokenizer.json"):
        folder = tmp_path / name
        shutil.copytree(like, folder)
        damage(folder / name, way)
        assert not is_finished(folder)
        assert main(["generate", str(folder), "The"]) == 2
        if name == "model.safetensors":
            assert "rerun the command that wrote it" in capsys.readouterr().err
        assert continues(workshop, stage, folder, like, capsys) == 0
        # Runs that started from it continue: it is the same to the byte.
        assert folder_hash(folder) == folder_hash(like)
        assert is_finished(folder)


def test_a_finished_run_finds_its_best_weights_again(workshop: Workshop, tmp_path: Path) -> None:
    out = tmp_path / "run"
    settings = SHORT | {"patience": 1, "evaluations": 4, "learning_rate": 0.3}
    words = workshop.command("sft", out, **settings)[3:]
    assert main(words) == 0
    before = folder_hash(out)
    (out / "model.safetensors").unlink()
    assert main(words) == 0
    assert folder_hash(out) == before


# Commands that read another run.


@pytest.fixture(scope="module")
def journey(workshop: Workshop, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data, base and SFT in one folder."""
    folder = tmp_path_factory.mktemp("journey")
    shutil.copytree(workshop.data, folder / "data")
    shutil.copytree(workshop.finished("pretrain"), folder / "pretrain")
    shutil.copytree(workshop.finished("sft"), folder / "sft")
    return folder


READERS = {
    "chat": ["chat", "sft", "--max-new-tokens", "3"],
    "generate": ["generate", "sft", "The sea", "--max-new-tokens", "3"],
    "sft": ["sft", "sft", "--data", "data", "--steps", "1", "--rows", "2", "--threads", "1"],
    "report": [
        *(
            "eval",
            "report",
            "sft",
            "--data",
            "data",
            "--ngram-orders",
            "2",
            "--bytes-per-source",
            "2048",
        ),
        *("--conversations", "1", "--pairs", "2", "--threads", "1"),
    ],
    "tuning": [
        *(
            "eval",
            "tuning",
            "pretrain",
            "sft",
            "--data",
            "data/conversations/train.jsonl",
        ),
        *("--threads", "1"),
    ],
    "export": ["export", "sft"],
}
# Those that take no more than a second or two.
QUICK_READERS = ["chat", "generate"]
READ = [f"{stage}/{name}" for stage in ("sft", "pretrain") for name in (*STORY, "README.md")]
READ += [f"sft/{name}" for name in MODEL] + ["data/data.json", "data/documents/heldout.jsonl"]
READ += ["data/conversations/train.jsonl", "pretrain/tokens/train.json", "sft/data.json"]


def exit_code_of_reader(
    reader: str, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> int:
    """Run one reader in the folder; check its output and return the exit code."""
    typed: Iterator[str] = iter(["What is the sea?", "/quit"])
    monkeypatch.setattr("builtins.input", lambda prompt="": next(typed))
    monkeypatch.chdir(folder)
    capsys.readouterr()
    words = list(READERS[reader])
    if reader in ("sft", "report", "tuning", "export"):
        shutil.rmtree(folder / "out", ignore_errors=True)
        words += ["--out", "out"]
    code = main(words)
    said = capsys.readouterr().err
    assert code in (0, 2), said
    if code == 2:
        told = [line for line in said.splitlines() if line.startswith("error: ")]
        assert len(told) == 1 and "Traceback" not in said, said
    return code


def swept(
    journey: Path,
    readers: list[str],
    cases: list[tuple[str, str]],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for file, way in cases:
        path = journey / file
        before = path.read_bytes()
        damage(path, way)
        try:
            for reader in readers:
                code = exit_code_of_reader(reader, journey, capsys, monkeypatch)
                if file.endswith(STORY) and reader in ("chat", "generate", "report", "export"):
                    assert code == 0, f"{reader} needs no {file} ({way})"
        finally:
            if path.is_dir():
                path.rmdir()
            path.write_bytes(before)


def test_readers_of_a_damaged_run_skip_the_damage_or_report_it(
    journey: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = random.Random(1)
    cases = [(file, source.choice(WAYS)) for file in READ for _ in range(2)]
    swept(journey, ["chat"], cases, capsys, monkeypatch)
    swept(journey, ["report", "sft"], cases[::9], capsys, monkeypatch)


@pytest.mark.long
@pytest.mark.parametrize("way", WAYS)
def test_all_readers_of_a_damaged_run(
    journey: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    place = WAYS.index(way)
    cases = [(file, way) for file in READ[place % 3 :: 3]]
    swept(journey, QUICK_READERS, cases, capsys, monkeypatch)
    swept(journey, list(READERS), [(READ[place], way)], capsys, monkeypatch)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(2))
def test_random_damage(
    journey: Path,
    whole: tuple[str, Path],
    workshop: Workshop,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    seed: int,
) -> None:
    source = random.Random(seed)
    stage, like = whole
    for number in range(5):
        folder = interrupted(like, tmp_path / str(number))
        for name in source.choices([*STORY, *MORE[stage]], k=source.choice([1, 1, 2, 4])):
            path = folder / name
            if not path.exists():
                continue
            path.write_bytes(mutated_bytes(source, path.read_bytes()))
        continues(workshop, stage, folder, like, capsys)
        shutil.rmtree(folder)
    for _ in range(5):
        path = journey / source.choice(READ)
        before = path.read_bytes()
        path.write_bytes(mutation_for(path.name, source)(source, before))
        try:
            for reader in QUICK_READERS:
                exit_code_of_reader(reader, journey, capsys, monkeypatch)
        finally:
            path.write_bytes(before)


# Recipes.

RECIPE = ["run", "mine.toml", "--minutes", "1", "--out", "out"]


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a recipe and its runs."""
    folder = tmp_path_factory.mktemp("begun")
    write_miniature(folder)
    (folder / "mine.toml").write_text('[tokenizer]\nfrom = "sea.txt"\nvocab_size = 320\n')
    with contextlib.chdir(folder):
        assert main(RECIPE) == 0
    return folder


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ["recipe.toml", "plan.json"])
def test_a_recipe_run_continues_after_its_recipe_changed(
    begun: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    way: str,
) -> None:
    monkeypatch.chdir(begun)
    path = begun / "out" / name
    before = path.read_bytes()
    damage(path, way)
    capsys.readouterr()
    code = main(RECIPE)
    said = capsys.readouterr().err
    if way == "folder":
        assert code == 2 and said.count("\n") == 1 and ("recipe" in said or name in said)
    else:
        assert code == 0, said
        assert path.read_bytes() == before
    for words in (["chat", "out"], ["export", "out"]):
        assert main(words) == 2  # it contains no model, whatever its recipe says
    assert "Traceback" not in capsys.readouterr().err
    if path.is_dir():
        path.rmdir()
    path.write_bytes(before)
