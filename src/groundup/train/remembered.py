"""Settings that `groundup doctor` found for this machine, kept in the cache for later commands.

Only settings that were measured to be faster are used, and only those that change no bit of a
result: the environment variables with which a command restarts itself. Without a doctor's record,
or with another machine, processor or PyTorch, the constants of `train.config` apply. This module
does not import torch, because it is used before anything else.
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
# The variables that the doctor may set, and their allowed values; others in the file are ignored.
CHOICES: Mapping[str, tuple[str, ...]] = {
    "GOMP_SPINCOUNT": ("", "1000", "10000", "100000"),
    "GLIBC_TUNABLES": ("", "glibc.malloc.hugetlb=1"),
}


def identity() -> dict[str, Any]:
    """Return what identifies a machine: processor, cores, memory to the gigabyte, torch."""
    # Imported here because commands that do not train do not need them.
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
    """Return the processor's name; on Linux from /proc/cpuinfo."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.startswith(("model name", "Model")):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def settings_file() -> Path:
    """Return the file for this machine: several machines may share a cache folder."""
    name = hashlib.sha256(repr(sorted(identity().items())).encode()).hexdigest()[:16]
    return cache_folder() / "machines" / f"{name}.json"


def save_settings(found: Mapping[str, Any]) -> Path | None:
    """Store the doctor's findings; return the file, or None if it cannot be written."""
    path = settings_file()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, {"schema": SCHEMA, "machine": identity(), **found})
    except OSError:
        return None
    return path


def delete_settings() -> bool:
    """Delete the stored findings; return whether there were any."""
    path = settings_file()
    if not path.is_file():
        return False
    path.unlink()
    return True


def saved_settings() -> dict[str, Any] | None:
    """Return the findings for this machine; None if there are none or they cannot be read."""
    path = settings_file()
    if not path.is_file():
        return None
    try:
        found = read_json_object(path)
    except UserError:
        return None
    return found if found.get("schema") == SCHEMA else None


def environment() -> dict[str, str]:
    """Return the environment variables with which a training command restarts itself.

    The doctor's choices replace those of `train.config`; variables that it leaves unset are absent.
    """
    found = saved_settings() or {}
    chosen = found.get("environment")
    chosen = chosen if isinstance(chosen, dict) else {}
    known = {name: value for name, value in chosen.items() if value in CHOICES.get(name, ())}
    return {name: value for name, value in {**ENVIRONMENT, **known}.items() if value != ""}
