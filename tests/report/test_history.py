"""A run's records are understood from any working directory."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from tests.conftest import CallsOf

from groundup.report import history
from groundup.report.history import History, lineage
from groundup.runs.content import folder_hash


@pytest.mark.parametrize("standing", ["one", "other", "."])
def test_a_parent_is_the_folder_given_at_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, standing: str
) -> None:
    """Another project has a folder of the same name."""
    for project in ("one", "other"):
        (tmp_path / project / "base").mkdir(parents=True)
        (tmp_path / project / "base" / "model.safetensors").write_text(project)
    base = tmp_path / "one" / "base"
    parents = {"model": {"path": "base", "sha256": folder_hash(base)}}
    run = History(tmp_path / "one" / "sft", {"stage": "sft", "parents": parents}, {})
    monkeypatch.chdir(tmp_path / standing)
    assert run.parent is not None and run.parent.resolve() == base


def test_a_file_in_a_neighboring_folder_is_found_from_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = tmp_path / "moved" / "data" / "documents" / "train.jsonl"
    text.parent.mkdir(parents=True)
    text.write_text("{}")
    run = History(tmp_path / "moved" / "sft", {"stage": "sft", "parents": {}}, {})
    monkeypatch.chdir(tmp_path)
    assert run.beside("quickstart/data/documents/train.jsonl") == text
    # What is nowhere is called as it would be, beside the run.
    assert run.beside("quickstart/other/nothing.jsonl") == tmp_path / "moved" / "nothing.jsonl"


def test_of_two_files_of_one_name_the_right_one_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after copying a whole recipe folder, seen from the parent of both."""
    for project in ("first", "copy"):
        (tmp_path / project / "data").mkdir(parents=True)
        (tmp_path / project / "data" / "train.jsonl").write_text("{}")
    named = "first/data/train.jsonl"
    parents = {"replay": {"path": named, "sha256": hashlib.sha256(b"{}").hexdigest()}}
    run = History(tmp_path / "copy" / "sft", {"stage": "sft", "parents": parents}, {})
    monkeypatch.chdir(tmp_path)
    assert run.beside(named) == tmp_path / "copy" / "data" / "train.jsonl"
    # A different file by now, which had not been read before.
    (tmp_path / "copy" / "data" / "train.jsonl").write_text("[]")
    assert run.beside(named) == Path(named)


def test_a_folder_being_written_is_compared_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for project in ("first", "copy"):
        (tmp_path / project / "base").mkdir(parents=True)
        for name in ("run.json", "status.json"):
            (tmp_path / project / "base" / name).write_text("{}")
    weights = [tmp_path / project / "base" / "model.safetensors" for project in ("first", "copy")]
    weights[0].write_text("trained")
    hashed = folder_hash(tmp_path / "first" / "base")
    parents = {"model": {"path": "first/base", "sha256": hashed}}
    run = History(tmp_path / "copy" / "sft", {"stage": "sft", "parents": parents}, {})
    monkeypatch.chdir(tmp_path)
    assert run.parent == Path("first/base")
    weights[1].write_text("trained")
    (tmp_path / "copy" / "base" / "status.json").write_text('{"state": "finished"}')
    assert run.parent == tmp_path / "copy" / "base"


def test_a_parent_with_the_hash_of_an_earlier_version_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It covered the run's description of itself."""
    for project in ("one", "other"):
        base = tmp_path / project / "base"
        base.mkdir(parents=True)
        (base / "model.safetensors").write_text(project)
        (base / "run.json").write_text("{}")
    base, whole = tmp_path / "one" / "base", hashlib.sha256()
    for name in ("model.safetensors", "run.json"):
        content = hashlib.sha256((base / name).read_bytes()).hexdigest()
        whole.update(f"{name} {content}\n".encode())
    parents = {"model": {"path": "base", "sha256": whole.hexdigest()}}
    run = History(tmp_path / "one" / "sft", {"stage": "sft", "parents": parents}, {})
    monkeypatch.chdir(tmp_path / "other")
    assert run.parent is not None and run.parent.resolve() == base


def test_a_run_without_a_plan_still_has_its_lineage(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its data is in run.json; its cost is left out, and the file is named."""
    run = {"stage": "pretrain", "parents": {"data": {"path": "data"}}}
    (tmp_path / "run.json").write_text(json.dumps(run))
    (tmp_path / "metrics.jsonl").write_text("")
    [found] = lineage(tmp_path)
    assert found.run["parents"] == run["parents"] and found.plan == {}
    assert "plan.json" in capsys.readouterr().out


def test_a_lineage_reads_metrics_only_on_request(tmp_path: Path, calls_of: CallsOf) -> None:
    """The lineage needs no metrics of any step."""
    for name, parents in (("base", {}), ("sft", {"model": {"path": "base"}})):
        (tmp_path / name).mkdir()
        run = {"stage": name, "parents": parents}
        (tmp_path / name / "run.json").write_text(json.dumps(run))
        (tmp_path / name / "plan.json").write_text("{}")
        step = {"kind": "train", "step": 1, "tokens": 10, "seconds": 2.0, "loss": 2.0}
        (tmp_path / name / "metrics.jsonl").write_text(json.dumps(step) + "\n")
    read = calls_of(history, "read_metrics")
    runs = lineage(tmp_path / "sft")
    assert [one.stage for one in runs] == ["base", "sft"] and read == []
    assert [one.costs()["tokens"] for one in runs] == [10, 10]
    assert runs[0].evaluations == [] and len(read) == 2
