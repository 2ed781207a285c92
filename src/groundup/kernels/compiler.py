"""Pages in C as a library, compiled by the system's own compiler.

They are compiled once, which takes a few seconds, and kept in the cache folder, under names that
end in their hashes: a process that runs half a library is killed. One that another user may have
written there is not loaded. Where there is no compiler all goes on without them, in PyTorch's own
words, and one line says so.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch

# Without them loops with conditions or conversions are not computed in vectors.
_VECTORS = ("-fno-math-errno", "-fno-trapping-math")
_COMPILE = ("-O3", "-march=native", "-fopenmp", "-fPIC", *_VECTORS)
# Seconds for one page, which takes a few where nothing else runs.
_TIMEOUT = 600


def compiled(pages: Sequence[Path], *flags: str) -> ctypes.CDLL | None:
    """Load these pages as one library, compiled for this processor unless it is in the cache.

    Headers among them are what the others include. Returns None where it cannot be had.
    """
    try:
        found = _library(pages, flags)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        _tell(_reason(error))
        return None
    # Clang's threads would spin until the next call, where PyTorch's are to compute meanwhile.
    if hasattr(found, "kmp_set_blocktime"):
        found.kmp_set_blocktime(0)
    return found


def _library(pages: Sequence[Path], flags: Sequence[str]) -> ctypes.CDLL:
    from groundup.runs.cache import cache_folder

    sources = tuple(page.read_bytes() for page in pages)
    compiler = shlex.split(os.environ.get("CC", "")) or ["cc"]
    name = _hash((sources, compiler, _COMPILE, flags, torch.__version__, _processor()))
    folder = cache_folder() / "kernels"
    programs = [_program(word) for word in compiler]
    made = f"{name}-{_hash(programs)}"
    folder.mkdir(0o755, parents=True, exist_ok=True)
    private = _is_private(folder)
    if not private and (facts := folder.stat()).st_uid == _user():
        folder.chmod(facts.st_mode & 0o755)
        private = True
    # A compiler that is gone has left what it made.
    known = folder.glob(f"{made if any(programs) else name}-*.so") if private else ()
    for file in sorted(known, key=lambda path: path.stat().st_mtime, reverse=True):
        with contextlib.suppress(OSError):
            if _is_private(file) and file.stem.endswith(f"-{_hash(file.read_bytes())}"):
                return ctypes.CDLL(str(file))
    _remove_leftovers(folder)
    with tempfile.TemporaryDirectory(dir=folder if private else None) as aside:
        units = {page: Path(aside, f"{page.stem}.o") for page in pages if page.suffix == ".c"}
        for page, unit in units.items():
            _run([*compiler, *_COMPILE, *flags, "-c", str(page), "-o", str(unit)])
        new = Path(aside, "new.so")
        _link([*compiler, "-shared", *map(str, units.values()), "-lm"], new)
        if not private:
            return ctypes.CDLL(str(new))
        new.chmod(0o755)
        file = new.replace(folder / f"{made}-{_hash(new.read_bytes())}.so")
    return ctypes.CDLL(str(file))


def _remove_leftovers(folder: Path) -> None:
    """Remove what a compiler that was killed has left: nobody compiles for so long."""
    for aside in folder.glob(f"{tempfile.gettempprefix()}*"):
        with contextlib.suppress(OSError):
            if time.time() - aside.stat().st_mtime > 2 * _TIMEOUT:
                shutil.rmtree(aside)


def _is_private(path: Path) -> bool:
    """Whether this user or root alone may have written it."""
    facts = path.stat()
    return facts.st_uid in (0, _user()) and not facts.st_mode & 0o022


def _user() -> int:
    return os.getuid() if hasattr(os, "getuid") else 0  # as files on Windows have it


def _link(command: Sequence[str], new: Path) -> None:
    """Link a library with PyTorch's own threads, for a second set of them fights with the first.

    Where PyTorch has none that the compiler knows how to call (GNU's and clang's differ), with the
    compiler's. One that does not load is not kept.
    """
    ours = sorted(Path(torch.__file__).parent.glob("lib/libgomp*"))[:1]
    for openmp in (*ours, "-fopenmp"):
        _run([*command, str(openmp), "-o", str(new)])
        try:
            ctypes.CDLL(str(new))
        except OSError:
            if openmp == "-fopenmp":
                raise
            continue
        return


def _run(command: Sequence[str]) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=_TIMEOUT)


# Why there is no library, of each that was asked for in vain.
_reasons: list[str] = []


def why_none() -> str | None:
    """Why this process has no pages in C; None where it has them, or did not ask."""
    return _reasons[0] if _reasons else None


@functools.cache
def _tell(reason: str) -> None:
    """Say once, and not among what is printed for programs, that there are no pages in C."""
    from groundup.runs import ranks

    _reasons.append(reason)
    if ranks.is_first():
        print(f"groundup goes on without its kernels in C, more slowly: {reason}", file=sys.stderr)


def _reason(error: Exception) -> str:
    """Why there are none, and the remedy."""
    from groundup.runs.cache import cache_folder
    from groundup.runs.files import in_words

    remedy = "set CC to another compiler"
    if isinstance(error, FileNotFoundError):
        return f"there is no {error.filename!r}; install gcc or clang, or {remedy}"
    if isinstance(error, PermissionError):
        cache, refused = cache_folder(), Path(str(error.filename))
        if cache in (refused, *refused.parents) or refused in cache.parents:
            return f"{cache} cannot be written; set GROUNDUP_CACHE to a folder that can be"
    if isinstance(error, OSError):
        return in_words(error)
    if isinstance(error, subprocess.TimeoutExpired):
        return f"{error.cmd[0]!r} took more than {_TIMEOUT} seconds; {remedy}"
    if isinstance(error, subprocess.CalledProcessError):
        lines = error.stderr.decode(errors="replace").splitlines()
        said = next((line for line in lines if "error" in line.lower()), "")
        why = said if 0 < len(said) <= 200 else f"exit code {error.returncode}"
        return f"{error.cmd[0]!r} cannot compile them ({why}); {remedy}"
    return f"CC={os.environ['CC']!r} cannot be read ({error}); {remedy}"


def _hash(identity: object) -> str:
    return hashlib.sha256(repr(identity).encode()).hexdigest()[:32]


def _program(word: str) -> tuple[str, int, int] | None:
    """Path, size and time of a program, by which an updated one is known."""
    if (found := shutil.which(word)) is None:
        return None
    path = Path(found).resolve()
    facts = path.stat()
    return str(path), facts.st_size, facts.st_mtime_ns


def _processor() -> str:
    """What `-march=native` depends on: a cache may be shared by several machines."""
    return " ".join(sorted(cpu_flags())) or f"{platform.machine()} {platform.processor()}"


@functools.cache
def cpu_flags() -> frozenset[str]:
    """What the processor can do, by Linux's names; nothing where Linux is not."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.startswith(("flags", "Features")):
                    return frozenset(line.split(":")[1].split())
    except OSError:
        pass
    return frozenset()
