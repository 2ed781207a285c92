"""run.json: how a run was begun, and whether a second start asks for the same."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pydantic import BaseModel

from groundup import __version__
from groundup.deprecated import current_settings
from groundup.errors import UserError
from groundup.runs.console import say
from groundup.runs.content import input_hash, more_hashes, recorded_hashes
from groundup.runs.files import read_sealed

SCHEMA = 1
_VERSIONED = ("groundup", "torch", "numpy", "safetensors", "tokenizers")
# A run's location does not change what it computes.
_FREE_FIELDS = frozenset({"out", "allow_inexact_resume"})
# These change only the last bits, and may change when the user allows it.
_INEXACT_FIELDS = frozenset({"device", "dtype", "compile", "threads"})
user_parts: ContextVar[Mapping[str, str]] = ContextVar("user_parts", default=MappingProxyType({}))
"""User code that replaces groundup's own (`--mine`): its name and its file's SHA-256."""


def described(
    stage: str,
    config: BaseModel,
    parents: Mapping[str, Path],
    traits: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Return what run.json says of a run that begins now."""
    return {
        "schema": SCHEMA,
        "stage": stage,
        "traits": dict(traits or {}),
        "config": config.model_dump(mode="json"),
        "parents": {
            name: {"path": str(path), "sha256": input_hash(name, path), **more_hashes(path)}
            for name, path in parents.items()
        },
        **environment_facts(_VERSIONED),
        "git": _git_revision(),
        "started": utc_now(),
        # Only if there are any, so that run.json stays the same without them.
        **({"mine": dict(parts)} if (parts := user_parts.get()) else {}),
    }


def read_run(folder: Path, *, restore: bool = False) -> dict[str, Any]:
    """Return run.json: stage, traits, config, and parents with the `path` of each.

    Raises `UserError` if it is missing, or damaged without a copy.
    """
    path = folder / "run.json"

    def checked(found: dict[str, Any]) -> dict[str, Any]:
        found = {"config": {}, "parents": {}, "traits": {}, **found}
        if isinstance(found["config"], dict):
            found["config"] = current_settings(found["config"])
        if not (
            isinstance(found.get("stage"), str)
            and isinstance(found["config"], dict)
            and isinstance(found["parents"], dict)
            and isinstance(found["traits"], dict)
            and all(
                isinstance(one, dict) and _is_path(one.get("path"), path)
                for one in found["parents"].values()
            )
        ):
            raise UserError(
                f"{path} does not describe how the run was begun; restore it, or choose another "
                "folder"
            )
        found["traits"] = _TRAITS.get(found["stage"], {}) | found["traits"]
        return found

    return read_sealed(path, checked, say if restore else None)


# Traits of stages whose runs were written by version 0.1, which did not record them.
_TRAITS: dict[str, dict[str, Any]] = {
    "pretrain": {"reads": "documents", "chats": False, "measure": "bits_per_byte"},
    "sft": {"reads": "conversations", "chats": True, "measure": "heldout_loss"},
    "dpo": {"reads": "preferences", "chats": True, "measure": "preference_loss"},
}


def started_at(described: Mapping[str, Any]) -> datetime | None:
    """Return when the run was begun; None if run.json has no valid date."""
    try:
        return datetime.fromisoformat(described["started"])
    except (KeyError, TypeError, ValueError):
        return None


def _is_path(value: object, named_by: Path) -> bool:
    """Raises `UserError` for a path that only this process cannot name."""
    if not isinstance(value, str) or "\0" in value or len(value) >= 4096:
        return False
    try:
        value.encode(errors="surrogateescape")
    except UnicodeEncodeError:  # half a character
        return False
    try:
        os.fsencode(value)
    except UnicodeEncodeError:
        raise UserError(
            f"{named_by} names {value!r}, and Python writes paths as {sys.getfilesystemencoding()} "
            "here: set LC_ALL=C.UTF-8 and unset PYTHONUTF8"
        ) from None
    return True


def default_settings(config: BaseModel) -> dict[str, Any]:
    """Return defaults for settings that did not exist yet when a run was begun."""
    fields = type(config).model_fields.items()
    values = {name: field.default for name, field in fields if not field.is_required()}
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in values.items()
        if isinstance(value, bool | int | float | str | dict | tuple)
    }


def require_same(
    folder: Path, have: dict[str, Any], want: dict[str, Any], defaults: Mapping[str, Any]
) -> None:
    """Raise `UserError` if `have`, the run.json in a folder, is of another run than `want`."""
    if have["stage"] != want["stage"]:
        raise UserError(
            f"{folder} holds a run of {have['stage']}, not of {want['stage']}; choose another --out"
        )
    if have.get("mine", {}) != want.get("mine", {}):
        begun, now = (", ".join(one.get("mine", {})) or "none" for one in (have, want))
        same = " as they were" if begun == now else ""
        raise UserError(
            f"{folder} was begun with these parts of your own (--mine): {begun}{same}; now they "
            f"are: {now}; choose another --out, or give the same parts to continue it"
        )
    have = have | {"parents": _by_todays_hash(have["parents"], want["parents"])}
    allowed = want["config"].get("allow_inexact_resume")  # None for stages that do not train
    free = _FREE_FIELDS | _INEXACT_FIELDS if allowed else _FREE_FIELDS
    keys = sorted(have["config"].keys() | want["config"].keys())
    # Machine-dependent settings last: they say least about whether it is another run.
    for key in sorted(keys, key=lambda key: key in _INEXACT_FIELDS):
        old, new = have["config"].get(key, defaults.get(key)), want["config"].get(key)
        # Changed content at the same path, or at one moved with the run, is reported below.
        same = _named(old, _hashes(have)) == _named(new, _hashes(want)) or (
            _named(old, _places(have)) == _named(new, _places(want))
        )
        if key not in free and old != new and not same:
            inexact = key in _INEXACT_FIELDS and allowed is not None
            raise UserError(
                f"{folder} was begun with {key}={old!r}, not {key}={new!r}; "
                "choose another --out, or give the same settings to continue it"
                + (", or pass --allow-inexact-resume" if inexact else "")
            )
    for name, parent in want["parents"].items():
        # Runs of earlier versions record fewer parents and fewer hashes of each.
        begun = have["parents"].get(name)
        if begun is None:
            continue
        if begun.get("sha256") != parent["sha256"]:
            from groundup.runs.cache import hub_source  # late: only this sentence needs it

            there = hub_source("datasets", Path(begun["path"]))
            raise UserError(
                f"{folder} was begun from another {name} than {parent['path']} is now; "
                "choose another --out, or "
                + (f"give {there}" if there else "restore what it was begun from")
            )
        for part in ("chat_template", "base"):
            if begun.get(part, parent.get(part)) != parent.get(part):
                raise UserError(
                    f"{folder} was begun from another {part} of {name} than {parent['path']} has "
                    "now; choose another --out, or restore what it was begun from"
                )


def _by_todays_hash(
    begun: Mapping[str, dict[str, Any]], now: Mapping[str, dict[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Return a run's parents, with today's hash where the recorded one still matches."""
    found = dict(begun)
    for name, parent in now.items():
        recorded = begun.get(name, {}).get("sha256")
        if recorded != parent["sha256"] and recorded in recorded_hashes(Path(parent["path"])):
            found[name] = begun[name] | {"sha256": parent["sha256"]}
    return found


_REVISION = re.compile(r"^(hub:[^/@]+/[^/@]+)@[^/]+")


def _named(value: Any, names: Mapping[str, Any]) -> Any:
    """Replace parents' paths in a setting by `names`: paths may be spelled in several ways."""
    if isinstance(value, list):
        return [_named(one, names) for one in value]
    # Whether another revision of the hub has the same files is told by their hash.
    return names.get(value, _REVISION.sub(r"\1", value)) if isinstance(value, str) else value


def _hashes(run: Mapping[str, Any]) -> dict[str, Any]:
    return {parent["path"]: parent.get("sha256") for parent in run["parents"].values()}


def _places(run: Mapping[str, Any]) -> dict[str, Any]:
    """Return the path of each parent relative to the run's folder."""
    out = str(run["config"].get("out", "."))
    paths = [parent["path"] for parent in run["parents"].values()]
    return {path: os.path.relpath(path or ".", out) for path in paths}


def utc_now() -> str:
    """Return the time in UTC, to the second, in ISO 8601."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def environment_facts(packages: Iterable[str]) -> dict[str, Any]:
    """Return the versions of Python and of these packages, and the machine."""
    ours = {"groundup": __version__}  # may run from its source without being installed
    versions = {name: ours.get(name) or version(name) for name in packages}
    return {
        "versions": {"python": platform.python_version()} | versions,
        "machine": {"system": platform.platform(), "cores": os.cpu_count()},
    }


def _git_revision() -> str | None:
    """Return the git revision of the checkout that this package runs from, if any."""
    here = Path(__file__).resolve().parent
    if not (here.parents[2] / ".git").exists():
        return None
    try:
        done = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, check=False
        )
    except FileNotFoundError:  # no git here
        return None
    return done.stdout.strip() or None
