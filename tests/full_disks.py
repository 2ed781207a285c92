"""Full disks: a mounted one if this process may mount, else a limit on file sizes."""

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
    """A folder on a disk that can be filled."""

    folder: Path
    is_mounted: bool

    @contextlib.contextmanager
    def left(self, size: int) -> Iterator[None]:
        """Leave only `size` bytes; without a mounted disk, no file can become larger than that."""
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
def read_only(folder: Path) -> Iterator[Path]:
    """A folder where nobody may write, not even root; only where `may_mount`."""
    folder.mkdir(parents=True, exist_ok=True)
    with _mounted(folder, 2**16):
        words = ["mount", "-o", "remount,ro", str(folder)]
        subprocess.run(words, check=True, capture_output=True)
        yield folder


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
    """A disk of `size` bytes at `folder`, mounted if that is possible (or as `mount` says)."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (may_mount() if mount is None else mount):
        yield Disk(folder, is_mounted=False)
        return
    with _mounted(folder, size):
        yield Disk(folder, is_mounted=True)
