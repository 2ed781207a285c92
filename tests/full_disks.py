"""Disks without room: a real one where this process may mount it, else a limit on files' sizes."""

from __future__ import annotations

import contextlib
import functools
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Disk:
    """A folder that takes so many bytes; commands that write there are run by `run`."""

    folder: Path
    size: int
    is_mounted: bool

    def run(self, words: Sequence[object], **environment: str) -> subprocess.CompletedProcess[str]:
        """`groundup WORDS` as a process of its own, at the limit where there is no real disk."""
        return subprocess.run(
            [sys.executable, "-m", "groundup", *map(str, words)],
            capture_output=True,
            text=True,
            env=os.environ | environment,
            timeout=300,
            preexec_fn=None if self.is_mounted else self._limit,
        )

    def fill(self, leave: int = 0) -> None:
        """Write until so many bytes are left."""
        if self.is_mounted:
            free = shutil.disk_usage(self.folder).free - leave
            (self.folder / ".ballast").write_bytes(bytes(max(0, free)))

    def _limit(self) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (self.size, self.size))


@functools.cache
def may_mount() -> bool:
    with tempfile.TemporaryDirectory() as folder:
        try:
            with mounted(Path(folder), 2**16):
                return True
        except (OSError, subprocess.CalledProcessError):
            return False


@contextlib.contextmanager
def mounted(folder: Path, size: int) -> Iterator[None]:
    words = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(folder)]
    subprocess.run(words, check=True, capture_output=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True, capture_output=True)


@contextlib.contextmanager
def small_disk(folder: Path, size: int) -> Iterator[Disk]:
    """A disk of so many bytes at `folder`; without the right to mount, files of at most so many."""
    folder.mkdir(parents=True, exist_ok=True)
    if not may_mount():
        yield Disk(folder, size, is_mounted=False)
        return
    with mounted(folder, size):
        yield Disk(folder, size, is_mounted=True)
