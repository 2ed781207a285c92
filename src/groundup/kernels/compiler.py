"""Compiles C files into a shared library with the system's compiler.

Compiling takes a few seconds and is done once. The library is kept in the cache folder, under a
name that ends in its hash, because loading an incomplete library would crash the process. A library
that another user may have written is not loaded. Without a compiler plain PyTorch is used, and one
line says so.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import functools
import hashlib
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch

# Without these flags, loops with conditions or conversions are not vectorized.
_VECTORS = ("-fno-math-errno", "-fno-trapping-math")
_COMPILE = ("-O3", "-march=native", "-fopenmp", "-fPIC", *_VECTORS)
# No string of our C files holds one of these.
_COMMENT = re.compile(rb"/\*.*?\*/|//[^\n]*", re.DOTALL)
# Seconds to compile one file, which takes a few on an idle machine.
_TIMEOUT = 600


def compiled(pages: Sequence[Path], *flags: str) -> ctypes.CDLL | None:
    """Load these C files as one library, compiled for this processor unless it is in the cache.

    `pages` includes the headers. Returns None if the library cannot be built.
    """
    try:
        found = _library(pages, flags)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        _warn(_reason(error))
        return None
    # Clang's threads would spin until the next call and slow down PyTorch's threads.
    if hasattr(found, "kmp_set_blocktime"):
        found.kmp_set_blocktime(0)
    return found


def _library(pages: Sequence[Path], flags: Sequence[str]) -> ctypes.CDLL:
    from groundup.runs.cache import cache_folder

    sources = tuple(_code(page) for page in pages)
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
    # Libraries of a compiler that was removed stay usable.
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


def _code(page: Path) -> list[bytes]:
    """Return a C file's lines without comments, because another comment makes no other library."""
    lines = _COMMENT.sub(b" ", page.read_bytes()).splitlines()
    return [code for line in lines if (code := line.strip())]


def _remove_leftovers(folder: Path) -> None:
    """Remove the files of killed compilers, which are older than any running one."""
    for aside in folder.glob(f"{tempfile.gettempprefix()}*"):
        with contextlib.suppress(OSError):
            if time.time() - aside.stat().st_mtime > 2 * _TIMEOUT:
                shutil.rmtree(aside)


def _is_private(path: Path) -> bool:
    """Whether only this user or root may have written it."""
    facts = path.stat()
    return facts.st_uid in (0, _user()) and not facts.st_mode & 0o022


def _user() -> int:
    return os.getuid() if hasattr(os, "getuid") else 0  # the owner of all files on Windows


def _link(command: Sequence[str], new: Path) -> None:
    """Link a library with PyTorch's OpenMP, because two thread pools would compete.

    If that library does not load, because the compiler needs another OpenMP (GNU's and clang's
    differ), it is linked with the compiler's own.
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


# The reason for each library that could not be built.
_reasons: list[str] = []


def unavailable_reason() -> str | None:
    """Return why this process has no C kernels; None if it has them or did not need them."""
    return _reasons[0] if _reasons else None


@functools.cache
def _warn(reason: str) -> None:
    """Report once on standard error that there are no C kernels."""
    from groundup.runs import ranks

    _reasons.append(reason)
    if ranks.is_first():
        print(f"groundup continues without its C kernels, more slowly: {reason}", file=sys.stderr)


def _reason(error: Exception) -> str:
    """Describe why the library could not be built, and the remedy."""
    from groundup.runs.cache import cache_folder
    from groundup.runs.files import describe_os_error

    remedy = "set CC to another compiler"
    if isinstance(error, FileNotFoundError):
        return f"there is no {error.filename!r}; install gcc or clang, or {remedy}"
    if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        cache, refused = cache_folder(), Path(str(error.filename))
        if cache in (refused, *refused.parents) or refused in cache.parents:
            return f"{cache} cannot be written; set GROUNDUP_CACHE to a folder that can be"
    if isinstance(error, OSError):
        return describe_os_error(error)
    if isinstance(error, subprocess.TimeoutExpired):
        return f"{error.cmd[0]!r} took more than {_TIMEOUT} seconds; {remedy}"
    if isinstance(error, subprocess.CalledProcessError):
        lines = error.stderr.decode(errors="replace").splitlines()
        message = next((line for line in lines if "error" in line.lower()), "")
        why = message if 0 < len(message) <= 200 else f"exit code {error.returncode}"
        return f"{error.cmd[0]!r} cannot compile them ({why}); {remedy}"
    return f"CC={os.environ['CC']!r} cannot be read ({error}); {remedy}"


def _hash(identity: object) -> str:
    return hashlib.sha256(repr(identity).encode()).hexdigest()[:32]


def _program(word: str) -> tuple[str, int, int] | None:
    """Return a program's path, size and modification time, which identify its version."""
    if (found := shutil.which(word)) is None:
        return None
    path = Path(found).resolve()
    facts = path.stat()
    return str(path), facts.st_size, facts.st_mtime_ns


def _processor() -> str:
    """Return what `-march=native` depends on, because several machines may share a cache."""
    return " ".join(sorted(cpu_flags())) or f"{platform.machine()} {platform.processor()}"


@functools.cache
def cpu_flags() -> frozenset[str]:
    """Return the processor's features by Linux's names; empty on other systems."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.startswith(("flags", "Features")):
                    return frozenset(line.split(":")[1].split())
    except OSError:
        pass
    return frozenset()
