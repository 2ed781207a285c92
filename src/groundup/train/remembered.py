"""What `groundup doctor` found out about this machine, kept in the cache for later commands.

Only what was measured to gain is in use, and only what changes no bit of a result: the environment
that a command starts itself anew with. Without a doctor, or on another machine, with another
processor or PyTorch, the constants of `train.config` hold. Torch-free: it is read before anything.
"""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from groundup.errors import UserError
from groundup.runs.cache import cache_folder
from groundup.runs.files import read_json_object, write_json
from groundup.train.config import ENVIRONMENT

SCHEMA = 1
# What a doctor may set, and to what: anything else in the file is nobody's.
CHOICES: Mapping[str, tuple[str, ...]] = {
    "GOMP_SPINCOUNT": ("", "1000", "10000", "100000"),
    "GLIBC_TUNABLES": ("", "glibc.malloc.hugetlb=1"),
}


def identity() -> dict[str, Any]:
    """By what a machine is known again: processor, cores, memory to the gigabyte, torch."""
    # Late: commands that train nothing do without.
    from importlib.metadata import PackageNotFoundError, version

    import psutil

    try:
        torch = version("torch")
    except PackageNotFoundError:
        torch = ""
    return {
        "system": platform.system(),
        "processor": processor(),
        "cores": os.cpu_count() or 1,
        "memory_gb": round(psutil.virtual_memory().total / 1e9),
        "python": platform.python_version(),
        "torch": torch,
    }


@cache
def processor() -> str:
    """The processor's name; on Linux as /proc/cpuinfo has it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.startswith(("model name", "Model")):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def record() -> Path:
    """The file for this very machine: a cache folder may be shared by several."""
    name = hashlib.sha256(repr(sorted(identity().items())).encode()).hexdigest()[:16]
    return cache_folder() / "machines" / f"{name}.json"


def remember(found: Mapping[str, Any]) -> Path | None:
    """Keep what a doctor found; return the file, or None where it cannot be written."""
    path = record()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, {"schema": SCHEMA, "machine": identity(), **found})
    except OSError:
        return None
    return path


def forget() -> bool:
    """Take back what was found; return whether there was anything."""
    path = record()
    if not path.is_file():
        return False
    path.unlink()
    return True


def remembered() -> dict[str, Any] | None:
    """What was found on this machine; None where nothing was, or where it cannot be read."""
    path = record()
    if not path.is_file():
        return None
    try:
        found = read_json_object(path)
    except UserError:
        return None
    return found if found.get("schema") == SCHEMA else None


def environment() -> dict[str, str]:
    """The variables that a command which trains starts itself anew with.

    Those of `train.config`, with what was chosen here in their place; what was chosen to be left
    unset is not among them.
    """
    found = remembered() or {}
    chosen = found.get("environment")
    chosen = chosen if isinstance(chosen, dict) else {}
    known = {name: value for name, value in chosen.items() if value in CHOICES.get(name, ())}
    return {name: value for name, value in {**ENVIRONMENT, **known}.items() if value != ""}
