"""Disks without room: a real one where this process may mount it, else a limit on files' sizes."""

from __future__ import annotations

import contextlib
import functools
import resource
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Disk:
    """A folder on a disk that can be filled up."""

    folder: Path
    is_mounted: bool

    @contextlib.contextmanager
    def left(self, size: int) -> Iterator[None]:
        """Only so many bytes are left; without a disk of its own, no file gets longer than that."""
        if self.is_mounted:
            ballast = self.folder / ".ballast"
            ballast.write_bytes(bytes(max(0, shutil.disk_usage(self.folder).free - size)))
            try:
                yield
            finally:
                ballast.unlink()
        else:
            before = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
            try:
                yield
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, before)


@functools.cache
def may_mount() -> bool:
    with tempfile.TemporaryDirectory() as folder:
        try:
            with _mounted(Path(folder), 2**16):
                return True
        except (OSError, subprocess.CalledProcessError):
            return False


@contextlib.contextmanager
def _mounted(folder: Path, size: int) -> Iterator[None]:
    words = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(folder)]
    subprocess.run(words, check=True, capture_output=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True, capture_output=True)


@contextlib.contextmanager
def small_disk(folder: Path, size: int, *, mount: bool | None = None) -> Iterator[Disk]:
    """A disk of so many bytes at `folder`, a real one where that may be (or as `mount` says)."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (may_mount() if mount is None else mount):
        yield Disk(folder, is_mounted=False)
        return
    with _mounted(folder, size):
        yield Disk(folder, is_mounted=True)
