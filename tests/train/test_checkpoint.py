"""Checkpoints survive kills, full disks and flipped bits."""

from __future__ import annotations

import json
import resource
import shutil
from collections import namedtuple
from pathlib import Path

import pytest
import torch
from torch import Tensor

from groundup.errors import UserError
from groundup.runs.files import file_hash
from groundup.train import checkpoint

Usage = namedtuple("Usage", "total used free")


def tensors(step: int) -> dict[str, dict[str, Tensor]]:
    return {
        "model": {"weight": torch.full((40, 30), float(step)), "half": torch.ones(3).bfloat16()},
        "optimizer": {"step/weight": torch.tensor(float(step)), "ids": torch.arange(step)},
        "stream": {},
    }


def save(folder: Path, step: int) -> Path:
    return checkpoint.save(folder, step, tensors(step), {"tokens": 100 * step, "bad": 0})


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def unheard(text: str) -> None:
    raise AssertionError(f"nothing was to be said, but: {text}")


def test_a_checkpoint_round_trips(tmp_path: Path) -> None:
    save(tmp_path, 7)
    found = checkpoint.load_newest(tmp_path, unheard)
    assert found is not None
    assert found.step == 7 and found.counters == {"tokens": 700, "bad": 0}
    assert found.tensors.keys() == tensors(7).keys()
    for name, group in tensors(7).items():
        assert found.tensors[name].keys() == group.keys()
        for key, value in group.items():
            loaded = found.tensors[name][key]
            assert loaded.dtype == value.dtype and torch.equal(loaded, value)


def test_without_a_checkpoint_there_is_none(tmp_path: Path) -> None:
    assert checkpoint.load_newest(tmp_path / "never", unheard) is None
    assert checkpoint.newest(tmp_path / "never") is None


def test_two_are_kept_and_the_newest_is_loaded(tmp_path: Path) -> None:
    for step in (3, 9, 10):
        save(tmp_path, step)
    assert checkpoint.steps(tmp_path) == [9, 10]
    found = checkpoint.load_newest(tmp_path, unheard)
    assert found is not None and found.step == 10


def test_the_manifest_has_each_files_hash_and_size(tmp_path: Path) -> None:
    folder = save(tmp_path, 4)
    manifest = json.loads((folder / "manifest.json").read_text())
    files = {path.name: path for path in folder.glob("*.safetensors")}
    assert manifest["files"].keys() == files.keys()
    for name, path in files.items():
        facts = {"sha256": file_hash(path), "bytes": path.stat().st_size}
        assert manifest["files"][name] == facts


@pytest.mark.parametrize("written", [0, 1, 2, 3])
def test_a_kill_between_files_keeps_the_old_one(tmp_path: Path, written: int) -> None:
    save(tmp_path, 3)
    whole = save(tmp_path / "elsewhere", 6)
    partial = tmp_path / ".step-6.partial"
    partial.mkdir()
    for path in sorted(whole.glob("*.safetensors"))[:written]:
        shutil.copy(path, partial)
    found = checkpoint.load_newest(tmp_path, unheard)
    assert found is not None and found.step == 3
    # The next save replaces it, at any step, and leaves no other files.
    save(tmp_path, 5)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["elsewhere", "step-3", "step-5"]


def every_file(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("place", [0.0, 0.3, 0.6, 0.99])
def test_any_changed_byte_is_detected_and_the_previous_one_is_used(
    tmp_path: Path, place: float
) -> None:
    for name in every_file(save(tmp_path / "names", 1)):
        folder = tmp_path / name
        save(folder, 3)
        newest = save(folder, 6)
        data = bytearray((newest / name).read_bytes())
        data[int(place * len(data))] ^= 1
        (newest / name).write_bytes(data)
        said: list[str] = []
        found = checkpoint.load_newest(folder, said.append)
        assert found is not None and found.step == 3, name
        assert len(said) == 1 and "step-6" in said[0] and "damaged" in said[0]
        # It is removed: its step will be reached and saved again.
        assert checkpoint.steps(folder) == [3]


@pytest.mark.parametrize("harm", ["cut", "missing", "no manifest"])
def test_truncated_and_missing_files_are_detected(tmp_path: Path, harm: str) -> None:
    save(tmp_path, 3)
    newest = save(tmp_path, 6)
    path = newest / ("manifest.json" if harm == "no manifest" else "optimizer.safetensors")
    if harm == "cut":
        path.write_bytes(path.read_bytes()[:-1])
    else:
        path.unlink()
    said: list[str] = []
    found = checkpoint.load_newest(tmp_path, said.append)
    assert found is not None and found.step == 3 and len(said) == 1


def test_if_all_are_damaged_none_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for step in (3, 6):
        (save(tmp_path, step) / "model.safetensors").write_bytes(b"")
    for rank, left in (("1", [3, 6]), ("0", [])):  # only the first process removes them
        for name, value in {"RANK": rank, "WORLD_SIZE": "2", "MASTER_ADDR": "here"}.items():
            monkeypatch.setenv(name, value)
        said: list[str] = []
        assert checkpoint.load_newest(tmp_path, said.append) is None
        assert len(said) == 2 and checkpoint.steps(tmp_path) == left


def test_a_full_disk_is_reported_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path, 3)
    before = bytes_of(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**9, 10**9 - 4000, 4000))
    with pytest.raises(UserError, match=r"step 6 .*MB.*the checkpoint at step 3 is untouched"):
        save(tmp_path, 6)
    assert bytes_of(tmp_path) == before


def test_a_failed_write_keeps_the_last_good_one(tmp_path: Path) -> None:
    save(tmp_path, 3)
    before = bytes_of(tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    # The kernel refuses to let a file grow past this, as a full disk would.
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(
            UserError, match=r"step 6 .* failed .* step 3 is untouched; raise .*ulimit -f"
        ):
            checkpoint.save(tmp_path, 6, {"model": {"w": torch.zeros(200_000)}}, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert bytes_of(tmp_path) == before
    save(tmp_path, 6)
    assert checkpoint.steps(tmp_path) == [3, 6]
