"""Atomic writes, checked readers, and overwriting rules."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import random
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from full_disks import may_mount, small_disk
from groundup.errors import UserError
from groundup.runs.files import (
    atomic_write,
    describe_os_error,
    errors_naming,
    is_count,
    is_number,
    is_unused,
    lock,
    os_error,
    read_json_object,
    read_lines,
    read_sealed,
    temporary_folder,
    writable,
    write_json,
    write_sealed,
    write_text,
)
from mutations import mutated_bytes


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


# Writing.


def test_a_file_is_replaced_as_a_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")
    for failure in (ValueError("x"), KeyboardInterrupt(), OSError(errno.EIO, "x")):
        with pytest.raises(type(failure)), atomic_write(path) as partial:
            partial.write_text("half")
            raise failure
        assert path.read_text() == "old" and names(tmp_path) == {"a.txt"}
    write_text(path, "new")
    assert path.read_text() == "new"


def test_files_of_every_library_have_the_permissions_of_the_mask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        with atomic_write(tmp_path / "a") as partial:
            save_file({"x": torch.zeros(2)}, partial)
        write_text(tmp_path / "b", "x")
    finally:
        os.umask(before)
    modes = {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("a", "b")}
    assert modes == {0o640}


def test_a_private_file_stays_private(tmp_path: Path) -> None:
    for path in (tmp_path / "a", tmp_path / "b"):
        path.write_text("old")
        path.chmod(0o600)
    write_text(tmp_path / "a", "new")
    with temporary_folder(tmp_path) as aside:
        write_text(aside / "b", "new")
    for path in (tmp_path / "a", tmp_path / "b"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600 and path.read_text() == "new"


def test_a_link_at_the_temporary_name_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("victim")
    (tmp_path / ".a.partial").symlink_to("victim")
    write_text(tmp_path / "a", "new")
    assert names(tmp_path) == {"a", "victim"} and not (tmp_path / "a").is_symlink()
    assert (tmp_path / "a").read_text() == "new" and (tmp_path / "victim").read_text() == "victim"


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to("real")
    write_text(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "real").read_text() == "new"


def test_half_a_surrogate_pair_is_escaped(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"x": "\ud800 ü"})
    assert read_json_object(tmp_path / "a.json") == {"x": "\ud800 ü"}


def test_files_that_belong_together_appear_together(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    with pytest.raises(ValueError), temporary_folder(folder) as aside:
        write_text(aside / "a", "x")
        raise ValueError
    assert not folder.exists()
    with temporary_folder(folder, last="a") as aside:
        write_text(aside / "a", "old")
        write_text(aside / "model-1", "old")
    write_text(folder / "mine", "mine")
    with pytest.raises(ValueError), temporary_folder(folder, replaces=["a", "model*"]) as aside:
        write_text(aside / "a", "new")
        raise ValueError
    assert names(folder) == {"a", "model-1", "mine"} and (folder / "a").read_text() == "old"
    with temporary_folder(folder, replaces=["a", "model*"]) as aside:
        write_text(aside / "a", "new")
    assert names(folder) == {"a", "mine"} and (folder / "a").read_text() == "new"


def test_one_process_at_a_time_writes_files_that_belong_together(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    with temporary_folder(folder) as aside:
        write_text(aside / "a", "first")
        with pytest.raises(UserError, match=r"is writing to .*out; wait"), temporary_folder(folder):
            pytest.fail("both write to one place")
        write_text(aside / "b", "first")
    assert names(folder) == {"a", "b"} and (folder / "a").read_text() == "first"


def test_a_folder_where_a_process_was_killed_while_writing_is_unused(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    killed = (
        "import os, sys; from pathlib import Path\n"
        "from groundup.runs.files import temporary_folder\n"
        "with temporary_folder(Path(sys.argv[1])) as aside:\n"
        "    (aside / 'a').write_text('half'); os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", killed, str(folder)])
    assert done.returncode == -signal.SIGKILL and names(folder) > set()
    assert is_unused(folder) and is_unused(tmp_path / "new")
    with temporary_folder(folder) as aside:
        write_text(aside / "b", "whole")
    assert names(folder) == {"b"} and not is_unused(folder)


def numpy_file(path: Path) -> None:
    np.zeros(300_000).tofile(path)


def numpy_save(path: Path) -> None:
    np.save(path.open("wb"), np.zeros(300_000))


def safetensors_file(path: Path) -> None:
    save_file({"x": torch.zeros(300_000)}, path)


def text_file(path: Path) -> None:
    with path.open("w") as file:
        for _ in range(300_000):
            file.write("words ")


@pytest.mark.parametrize("write", [numpy_file, numpy_save, safetensors_file, text_file])
def test_a_full_disk_names_the_file(tmp_path: Path, write: Callable[[Path], None]) -> None:
    if not may_mount():
        pytest.skip("needs the right to mount; test_full_disk tests this with a limit")
    with small_disk(tmp_path / "disk", 2**19) as disk:
        path = disk.folder / "a.bin"
        with pytest.raises(OSError) as error, atomic_write(path) as partial:
            write(partial)
        assert error.value.errno == errno.ENOSPC and error.value.filename == str(path)
        assert "No space left on device" in describe_os_error(error.value)
        assert names(disk.folder) == set()


def test_library_errors_are_recognized_by_the_systems_message() -> None:
    rust = os_error(RuntimeError("I/O error: No space left on device (os error 28)"))
    assert rust is not None and rust.errno == errno.ENOSPC
    older = 'IoError(Os { code: 28, kind: StorageFull, message: "No space left on device" })'
    rust = os_error(RuntimeError(f"Error while serializing: {older}"))
    assert rust is not None and rust.errno == errno.ENOSPC
    python = os_error(RuntimeError("cannot write: [Errno 30] Read-only file system"))
    assert python is not None and python.errno == errno.EROFS
    assert os_error(ValueError("28")) is None
    with pytest.raises(OSError) as error, errors_naming(Path("a")):
        raise RuntimeError("cannot: Read-only file system (os error 30)")
    assert error.value.filename == "a" and error.value.errno == errno.EROFS
    with pytest.raises(PermissionError) as denied, errors_naming(Path("a")):
        raise PermissionError(errno.EACCES, "Permission denied", "b")
    assert denied.value.filename == "b"
    with pytest.raises(UserError), errors_naming(Path("a")):
        raise UserError("said (os error 28)")


@pytest.mark.parametrize(
    "error", [OSError(), OSError("odd"), OSError(28, "x"), OSError(5, "", b"\xff")]
)
def test_every_error_is_one_sentence(error: OSError) -> None:
    said = describe_os_error(error)
    assert "\n" not in said and "None" not in said and ";" in said


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_distinguished_from_a_busy_one(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(handle: int, operation: int) -> None:
        raise OSError(number, os.strerror(number))  # as NFS and Lustre answer without locks

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(OSError) as error:
        lock(tmp_path / ".lock", "busy")
    assert error.value.errno == number and error.value.filename == str(tmp_path / ".lock")
    said = describe_os_error(error.value)
    assert "choose a place on a local disk" in said and "does not support locks" in said


# Overwriting rules.


def test_files_that_may_be_overwritten(tmp_path: Path) -> None:
    mine, other = tmp_path / "mine.txt", tmp_path / "other.txt"
    for path in (mine, other):
        path.write_text("x")
    (tmp_path / "hard").hardlink_to(mine)
    (tmp_path / "soft").symlink_to(mine)
    inside = tmp_path / "folder"
    inside.mkdir()
    for path in (mine, tmp_path / "hard", tmp_path / "soft", inside / ".." / "mine.txt"):
        with pytest.raises(UserError, match="is what this command reads"):
            writable(path, "--out", inputs=[mine], force=True)
    with pytest.raises(UserError, match="--force"):
        writable(other, "--out", inputs=[mine])
    with pytest.raises(UserError, match="mkdir -p"):
        writable(tmp_path / "no" / "a", "--out", force=True)
    with pytest.raises(UserError, match="is a folder"):
        writable(inside, "--out", force=True)
    with pytest.raises(UserError, match="device"):
        writable(Path(os.devnull), "--out", force=True)
    writable(other, "--out", inputs=[mine], force=True)
    writable(other, "--out", inputs=[mine], ours=lambda path: path == other)
    writable(tmp_path / "new", "--out", inputs=[mine])


# Reading.

BAD = [
    b"",
    b"null",
    b"[]",
    b"3",
    b'"x"',
    b"{",
    b"\xff\xfe",
    bytes(50),
    b"[" * 10**5,
    b'{"a":' * 10**5,
]


@pytest.mark.parametrize("content", BAD)
def test_non_json_objects_are_rejected(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(UserError):
        read_json_object(tmp_path / "a.json")


def test_non_files_are_rejected(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "gone", tmp_path / ("x" * 300)):
        with pytest.raises(UserError):
            read_json_object(path)


KEPT: dict[str, Any] = {"steps": 240, "rate": 0.01, "reasons": {"steps": "as given, ü"}, "x": None}


def test_any_damage_to_a_sealed_file_is_detected_and_repaired(tmp_path: Path) -> None:
    """Every bit, once."""
    path = tmp_path / "plan.json"
    write_sealed(path, KEPT)
    whole, said = path.read_bytes(), []
    source = random.Random(0)
    for place in range(len(whole) * 8):
        damaged = bytearray(whole)
        damaged[place // 8] ^= 1 << place % 8
        path.write_bytes(damaged)
        assert read_sealed(path, dict) == KEPT, damaged
    for _ in range(200):
        path.write_bytes(mutated_bytes(source, whole))
        assert read_sealed(path, dict, said.append) == KEPT
    path.unlink()
    assert read_sealed(path, dict, said.append) == KEPT and path.read_bytes() == whole
    assert said and all(str(path) in one for one in said)


def test_a_file_damaged_twice_is_rejected_and_an_edit_without_a_seal_is_accepted(
    tmp_path: Path,
) -> None:
    path = tmp_path / "plan.json"
    write_sealed(path, KEPT)
    path.write_text(json.dumps(KEPT | {"steps": 3}))
    assert read_sealed(path, dict)["steps"] == 3
    for file in tmp_path.iterdir():
        file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(UserError, match=r"plan\.json"):
        read_sealed(path, dict)


def test_complete_lines_of_a_log_are_read(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    lines = [
        b'{"step": 1}',
        b"[]",
        b'{"step": "1"}',
        b"\xff",
        b"[" * 10**5,
        b'{"step": 2}',
        b'{"st',
    ]
    path.write_bytes(b"\n".join(lines))
    assert [line["step"] for line in read_lines(path)] == [1, 2]


def test_numbers_of_json() -> None:
    assert all(map(is_number, [0, -1, 0.5, float("inf"), 10**20]))
    assert not any(map(is_number, [True, None, "1", [1], 10**400]))
    assert all(map(is_count, [0, 2**62]))
    assert not any(map(is_count, [True, -1, 1.0, 2**63, "1"]))
