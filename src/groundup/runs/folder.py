"""A run folder: the output of one stage, how it was made, and a lock for its writer.

    run.json        the request: config, seed, versions, git revision, parents, machine
    plan.json       what was resolved from it, once
    metrics.jsonl   one line a step, flushed at once;  samples.jsonl  samples during training
    status.json     the heartbeat: the current state
    checkpoints/    see `checkpoint`

Every start opens the folder the same way. A finished run is left unchanged, an interrupted one is
continued, and another run's folder and a second process in the same folder are refused.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import ContextVar, Token
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType
from typing import IO, TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel

from groundup import __version__
from groundup.deprecated import current_settings
from groundup.errors import UserError
from groundup.runs import ranks
from groundup.runs.console import counted, say
from groundup.runs.files import (
    LOCK,
    errors_naming,
    file_hash,
    is_number,
    is_sealed,
    lock,
    read_damaged_lines,
    read_json_object,
    read_lines,
    read_sealed,
    require_file,
    write_json,
    write_lines,
    write_sealed,
)

if TYPE_CHECKING:
    from filelock import FileLock

T = TypeVar("T")
SCHEMA = 1
_VERSIONED = ("groundup", "torch", "numpy", "safetensors", "tokenizers")
# A run's location does not change what it computes.
_FREE_FIELDS = frozenset({"out", "allow_inexact_resume"})
# These change only the last bits, and may change when the user allows it.
_INEXACT_FIELDS = frozenset({"device", "dtype", "compile", "threads"})
# A folder's hash covers weights, tokenizers and texts, not a run's description of itself.
_CONTENT = frozenset(
    {".safetensors", ".txt", ".md", ".jsonl", ".json", ".ndjson", ".csv", ".tsv", ".parquet"}
)
_LOGS = frozenset(
    {"metrics.jsonl", "samples.jsonl", "README.md", "reference.safetensors", "best.safetensors"}
)
_ASIDE = frozenset({"checkpoints", "snapshots", "tokens"})
_DESCRIPTIONS = ("run.json", ".run.json.copy")
# The files that a finished stage must still have.
_PARTS = frozenset({".safetensors", ".json", ".jsonl"})
# A run's description of itself, such as times and speeds, which any start may rewrite.
_OF_THE_RUN = frozenset({"run.json", "plan.json", "status.json"})
user_parts: ContextVar[Mapping[str, str]] = ContextVar("user_parts", default=MappingProxyType({}))
"""User code that replaces groundup's own (`--mine`): its name and its file's SHA-256."""
run_started: ContextVar[datetime | None] = ContextVar("run_started", default=None)
"""When the open run was first started; a run resumed on a later day takes this as today's date."""


class Run:
    """An open run folder. Use it as a context manager: the lock is held until it closes."""

    def __init__(self, folder: Path, stage: str, lock: FileLock | None) -> None:
        self.folder, self.stage, self._lock = folder, stage, lock
        self._files: dict[str, IO[str]] = {}
        self._last_beat = 0.0
        self._last_facts: dict[str, Any] = {}
        self._lost_its_plan = False
        self._clock: Token[datetime | None] | None = None
        # The signal that asked for a stop when only finishing was left; 0 for none.
        self.stopped_by = 0
        # Whether a finished run makes lost parts again.
        self.repairs = False

    @classmethod
    def open(
        cls,
        folder: Path,
        stage: str,
        config: BaseModel,
        parents: Mapping[str, Path] | None = None,
        traits: Mapping[str, Any] | None = None,
    ) -> Run:
        """Create `folder` for this config, or continue it if it was begun with the same one.

        `traits` describes the stage for other modules; it is written to run.json unchanged. If
        several processes share a run, only rank 0 writes.

        Raises `UserError` in a script that is imported for its reward function: it would start
        itself endlessly.
        """
        if name := os.environ.get("GROUNDUP_IMPORTS_REWARD"):
            raise UserError(
                f"{name} is imported for its reward and runs a stage; put the reward in a file of "
                'its own, or guard what runs with `if __name__ == "__main__":`'
            )
        if not ranks.is_first():
            with ranks.rank_zero_first():
                return cls(folder, stage, None)
        with ranks.rank_zero_first():
            wanted = _description(stage, config, parents or {}, traits)
            return cls._opened(folder, wanted, _defaults(config))

    @classmethod
    def _opened(cls, folder: Path, wanted: dict[str, Any], defaults: Mapping[str, Any]) -> Run:
        if folder.exists() and not folder.is_dir():
            raise UserError(f"{folder} is a file, but a run needs a folder; choose another --out")
        refuse_broken_link(folder)
        described = folder / "run.json"
        if folder.is_dir() and any(folder.iterdir()) and not is_sealed(described):
            # A first start that was killed here leaves at most these files.
            ours = {LOCK, "..run.json.copy.partial", ".run.json.partial"}
            left = [path.name for path in folder.iterdir() if path.name not in ours]
            if left:
                raise UserError(
                    f"{folder} already holds other files ({left[0]}, …) and no run.json; "
                    "choose another --out or empty it yourself"
                )
        # Another program's run.json may hold anything; ours has a lock file next to it.
        known = (folder / LOCK).exists()
        folder.mkdir(parents=True, exist_ok=True)
        run = cls(folder, wanted["stage"], lock_folder(folder))
        try:
            if not is_sealed(described) or not _continues(folder, wanted, defaults, known):
                write_sealed(described, wanted)
            _restore(folder / "plan.json")
            _restore(folder / "status.json")
            if lost := missing_files(folder):
                say(f"{lost[0]} is gone or cut short: it is made again")
                run.repairs = True
            elif read_status(folder) is None and (status := _lost_status(folder)):
                say(
                    f"{status} is damaged or missing, so it is unknown whether this run was "
                    "finished: it continues from its last checkpoint, or else from its first step"
                )
        except BaseException:
            run.close()
            raise
        return run

    def __enter__(self) -> Run:
        self._clock = run_started.set(_started(read_run(self.folder)))
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._clock is not None:
            run_started.reset(self._clock)
        if kind is not None and not self.finished:
            # A full disk may be the reason for the stop, and that error must reach the user.
            with contextlib.suppress(OSError):
                self.status("stopped", **(self._last_facts or self._steps_before()))
        self.close()

    def _steps_before(self) -> dict[str, Any]:
        """The step and the number of steps of the last start, if its status names them."""
        status = read_status(self.folder) or {}
        return {name: status[name] for name in ("step", "steps") if name in status}

    def close(self) -> None:
        for file in self._files.values():
            with contextlib.suppress(OSError):  # a failed flush was already reported
                file.close()
        self._files.clear()
        if self._lock is not None:
            self._lock.release()

    @property
    def writes(self) -> bool:
        """Whether this process writes to the folder."""
        return self._lock is not None

    @property
    def finished(self) -> bool:
        return is_finished(self.folder)

    def finish(self, **facts: Any) -> None:
        """Record that this stage is done, and its files; later starts skip it."""
        if self.writes and not self.finished:
            self.status("finished", parts=_parts(self.folder), **facts)

    def status(self, state: str, **facts: Any) -> None:
        # A repaired run keeps its old status: earlier versions included it in the folder's hash.
        if not self.writes or (self.repairs and state != "finished"):
            return
        line = {"schema": SCHEMA, "state": state, "pid": os.getpid(), "time": utc_now(), **facts}
        path = self.folder / "status.json"
        if state == "finished":  # recorded nowhere else; the next heartbeat replaces a lost one
            write_sealed(path, line)
        else:
            write_json(path, line, sync=False)

    def heartbeat(self, **facts: Any) -> None:
        """Refresh status.json, at most once a second."""
        self._last_facts = facts
        if time.monotonic() - self._last_beat > 1.0:
            self._last_beat = time.monotonic()
            self.status("running", **facts)

    def plan(self, plan: Mapping[str, Any]) -> None:
        """Write the plan; later starts read it with `resolved`."""
        if self.writes:
            write_sealed(self.folder / "plan.json", {"schema": SCHEMA, **plan})

    def write(self, name: str, values: Mapping[str, Any]) -> None:
        """Write a JSON file of these values into the folder."""
        if self.writes:
            write_json(self.folder / name, values)

    @property
    def planned(self) -> bool:
        return is_sealed(self.folder / "plan.json")

    def resolved(self, check: Callable[[dict[str, Any]], T]) -> T | None:
        """Return `check` of the written plan, or None if there is none.

        Raises `UserError` if the plan is lost and checkpoints were already trained by it.
        """
        path = self.folder / "plan.json"
        is_trained_by = any((self.folder / "checkpoints").glob("step-*"))
        if not self.planned and not is_trained_by:
            return None
        try:
            return read_sealed(path, check, say if self.writes else None)
        except UserError as error:
            if path.is_dir() or is_trained_by:
                raise UserError(
                    f"{error}; training by this plan cannot be continued without it: put "
                    "the file back, or choose another --out"
                ) from None
            if not self._lost_its_plan:
                say(f"{path} is damaged, and no checkpoint depends on it: it is made again")
            self._lost_its_plan = True
            return None

    def log(self, file: str, **values: Any) -> None:
        """Append a line to metrics.jsonl or samples.jsonl and flush it."""
        if not self.writes:
            return
        if file not in self._files:
            path = self.folder / file
            self._files[file] = open(path, "a", encoding="utf-8")  # noqa: SIM115 (kept open)
        with errors_naming(self.folder / file):
            self._files[file].write(json.dumps({"schema": SCHEMA, **values}) + "\n")
            self._files[file].flush()

    def cut_back(self, step: int) -> None:
        """Drop lines logged after `step`, and damaged lines.

        Damaged lines before the last kept line are counted and reported; later ones are written
        again or were cut off by a kill.
        """
        if not self.writes:
            return
        for name in ("metrics.jsonl", "samples.jsonl"):
            path = self.folder / name
            if not path.exists():
                continue
            assert name not in self._files, "cut back before logging"
            kept, lost, since = list[dict[str, Any]](), 0, 0
            for line in read_damaged_lines(path):
                if line is None:
                    since += 1
                elif line["step"] <= step:
                    kept.append(line)
                    lost, since = lost + since, 0
            write_lines(path, kept)
            if lost:
                say(f"{path}: {counted(lost, 'damaged line')} up to step {step} cannot be restored")


def is_finished(folder: Path) -> bool:
    """Whether the stage in this folder is finished and its files are still there."""
    return missing_files(folder) == []


def read_status(folder: Path) -> dict[str, Any] | None:
    """Return status.json, of a finished run from its copy if damaged; None if it is unreadable."""
    try:
        return read_sealed(folder / "status.json", dict)
    except UserError:
        return None


def _lost_status(folder: Path) -> Path | None:
    """Return the path of a status that must have existed: the file or a finished model is there."""
    path = folder / "status.json"
    return path if path.exists() or any(folder.glob("*model*.safetensors")) else None


def missing_files(folder: Path) -> list[Path] | None:
    """Return a finished stage's files that are missing or truncated; None if it is unfinished."""
    status = read_status(folder)
    if status is None or status.get("state") != "finished":
        return None
    parts = status.get("parts")
    if not isinstance(parts, dict):  # from an earlier version: only a model's weights are known
        is_model = (folder / "config.json").is_file()
        weights = [path.name for path in folder.glob("*.safetensors")] or ["model.safetensors"]
        parts = dict.fromkeys(weights) if is_model else {}
    return [
        folder / name
        for name, size in parts.items()
        # A foreign status may name paths outside the folder.
        if ".." in Path(name).parts
        or Path(name).is_absolute()
        or not _is_whole(folder / name, size)
    ]


def _is_whole(path: Path, size: object) -> bool:
    """Whether a file has its recorded size, or was replaced by another intact file."""
    if not os.path.isfile(path):
        return False
    try:
        if path.stat().st_size == size:
            return True
        if path.suffix == ".safetensors":
            # Imported here because an intact folder does not need this library.
            from safetensors import SafetensorError, safe_open

            try:
                with safe_open(path, framework="np"):
                    return True
            except SafetensorError:
                return False
        content = path.read_bytes()
        json.loads(content.rstrip().split(b"\n")[-1] if path.suffix == ".jsonl" else content)
        return True
    except (OSError, ValueError, RecursionError):
        return False


def _parts(folder: Path) -> dict[str, int]:
    """Return the size of each file of a finished stage, by its path in the folder."""
    return {name: path.stat().st_size for name, path in _content(folder) if path.suffix in _PARTS}


# The files of a start that failed before doing any work, for example on bad data.
_OF_A_START = frozenset({LOCK, ".run.json.copy", "run.json", "status.json", "data.json"})


def has_begun(folder: Path) -> bool:
    """Whether the stage in this folder has done work, which depends on its settings."""
    there = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    return bool(there - _OF_A_START) or is_finished(folder)


# The numbers that reports take from a line of metrics.jsonl: the required and the optional ones.
_NEEDED = {"train": ("tokens", "seconds"), "evaluation": ()}
_MEASURED = (
    *("tokens", "seconds", "loss", "learning_rate", "peak_share", "tokens_per_second"),
    "flops_per_second",
    *("bits_per_byte", "heldout_loss", "heldout_accuracy", "preference_loss"),
)


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Return the valid lines of metrics.jsonl, each with a `kind` and its numbers."""
    return [line for line in read_lines(path) if is_metric(line)]


def is_metric(line: Mapping[str, Any]) -> bool:
    """Whether a line of metrics.jsonl has a known `kind`, all required numbers and valid ones."""
    kind = line.get("kind")
    numbers = {name: line[name] for name in _MEASURED if line.get(name) is not None}
    return (
        isinstance(kind, str)
        and kind in _NEEDED
        and all(map(is_number, numbers.values()))
        and all(name in numbers for name in _NEEDED[kind])
    )


def runs_inside(folder: Path) -> frozenset[Path]:
    """Return the folders of other runs inside, at any depth; they are not part of its content."""
    found = (path.parent for name in _DESCRIPTIONS for path in folder.rglob(name))
    return frozenset(found) - {folder}


def folder_hash(folder: Path) -> str:
    """Return one hash of the content of a model, tokenizer or data folder."""
    return _hash_of((name, file_hash(path)) for name, path in _content(folder))


def content_hash(path: Path) -> str:
    """Return the hash of a run's input: a folder, or a file such as a GGUF model."""
    return folder_hash(path) if path.is_dir() else file_hash(path)


def recorded_hashes(path: Path) -> frozenset[str]:
    """Return the hashes that a run may have recorded for an input file or folder.

    Earlier versions included a run's description of itself in the folder's hash.
    """
    if not path.is_dir():
        return frozenset({file_hash(path)})
    hashes = {name: file_hash(file) for name, file in _files(path)}
    todays = ((name, hashes[name]) for name, _ in _content(path))
    return frozenset({_hash_of(todays), _hash_of(hashes.items())})


def same_as(path: Path) -> Callable[[Mapping[str, Any]], bool]:
    """Return a test whether a parent recorded in run.json is this file or folder as it is now."""
    hashes, more = recorded_hashes(path), _more_hashes(path)
    # Runs of earlier versions record fewer hashes.
    return lambda parent: (
        parent.get("sha256") in hashes
        and all(parent.get(part, now) == now for part, now in more.items())
    )


def _hash_of(files: Iterable[tuple[str, str]]) -> str:
    """Return the hash of (name, hash) pairs of files."""
    whole = hashlib.sha256()
    for name, of_file in files:
        whole.update(f"{name} {of_file}\n".encode())
    return whole.hexdigest()


def _content(folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield the files of a folder's content, each with its path in the folder."""
    # Without a run, files of these names are a user's data.
    aside = _OF_THE_RUN if is_sealed(folder / "run.json") else frozenset[str]()
    return ((name, path) for name, path in _files(folder) if name not in aside)


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield the files of a folder except logs, caches and other runs inside it."""
    others = runs_inside(folder)
    for path in sorted(folder.rglob("*")):
        if not others.isdisjoint(path.parents):
            continue
        parts = path.relative_to(folder).parts
        kept = path.name not in _LOGS and not _ASIDE.intersection(parts)
        if path.suffix.lower() in _CONTENT and kept and path.is_file():
            yield "/".join(parts), path


def refuse_broken_link(folder: Path) -> None:
    if folder.is_symlink() and not folder.exists():
        raise UserError(
            f"{folder} is a link to {str(folder.readlink())!r}, which is not there; "
            "make that folder, or choose another --out"
        )


def lock_folder(folder: Path) -> FileLock:
    """Lock the folder for this process; the kernel releases the lock however the process ends."""
    return lock(folder / LOCK, f"working in {folder}")


def _continues(
    folder: Path, wanted: dict[str, Any], defaults: Mapping[str, Any], known: bool
) -> bool:
    """Whether this run was begun in the folder. Raises `UserError` if another one was.

    A start that failed before doing any work, for example on bad data, may be replaced.
    """
    try:
        _require_same(folder, read_run(folder, restore=True), wanted, defaults)
    except UserError:
        if not known or has_begun(folder):
            raise
        return False
    return True


def _restore(path: Path) -> None:
    """Restore a damaged or lost plan or status from its copy, in finished runs as well.

    Errors are left to the readers of the file.
    """
    if is_sealed(path) and not path.is_dir():
        with contextlib.suppress(UserError):
            read_sealed(path, dict, say)


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
                isinstance(one, dict) and _is_path(one.get("path"))
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


def _started(described: Mapping[str, Any]) -> datetime | None:
    """Return when the run was begun; None if run.json has no valid date."""
    try:
        return datetime.fromisoformat(described["started"])
    except (KeyError, TypeError, ValueError):
        return None


def _is_path(value: object) -> bool:
    if not isinstance(value, str) or "\0" in value or len(value) >= 4096:
        return False
    try:
        os.fsencode(value)
    except UnicodeEncodeError:  # a lone surrogate
        return False
    return True


def _description(
    stage: str,
    config: BaseModel,
    parents: Mapping[str, Path],
    traits: Mapping[str, Any] | None,
) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "stage": stage,
        "traits": dict(traits or {}),
        "config": config.model_dump(mode="json"),
        "parents": {
            name: {"path": str(path), "sha256": _content_hash(name, path), **_more_hashes(path)}
            for name, path in parents.items()
        },
        **environment_facts(_VERSIONED),
        "git": _git_revision(),
        "started": utc_now(),
        # Only if there are any, so that run.json stays the same without them.
        **({"mine": dict(parts)} if (parts := user_parts.get()) else {}),
    }


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


def _content_hash(name: str, path: Path) -> str:
    if not path.exists():
        raise UserError(f"there is no {name} {str(path)!r}; check the path")
    if not path.is_dir():
        require_file(path)
    return content_hash(path)


def _more_hashes(path: Path) -> dict[str, str | None]:
    """Return hashes of what `folder_hash` does not cover, None for what the folder does not have.

    They are separate because earlier runs recorded the folder's hash alone.
    """
    if not path.is_dir():
        return {}
    below = [f"{_content_hash('base', one)} {_template_hash(one)}" for one in bases(path)]
    base = hashlib.sha256("\n".join(below).encode()).hexdigest() if below else None
    return {"chat_template": _template_hash(path), "base": base}


def _template_hash(folder: Path) -> str | None:
    template = folder / "chat_template.jinja"
    return file_hash(template) if template.is_file() else None


def bases(folder: Path) -> list[Path]:
    """Return the base folders of an adapter, down to a full model, as far as they are local."""
    found = [folder]
    while (base := _base(found[-1])) is not None and not any(map(base.samefile, found)):
        found.append(base)
    return found[1:]


def _base(folder: Path) -> Path | None:
    """Return the base of an adapter's folder; None if it is a name on the hub, not a local path."""
    described, weights = folder / "adapter_config.json", folder / "adapter_model.safetensors"
    if not described.is_file() or any(folder.glob("model*.safetensors")):
        return None
    stated: list[object] = []
    with contextlib.suppress(UserError):  # loading the adapter reports the damage
        stated = [
            _metadata(weights).get("base"),
            read_json_object(described).get("base_model_name_or_path"),
        ]
    names = [name for name in stated if isinstance(name, str) and name]
    places = [place for name in names for place in (folder / name, Path(name))]
    return next((place for place in places if os.path.exists(place)), None)


def _metadata(path: Path) -> Mapping[str, str]:
    """Return the metadata of a safetensors file, empty if it is damaged or missing."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            return file.metadata() or {}
    except (SafetensorError, OSError):
        return {}


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


def _defaults(config: BaseModel) -> dict[str, Any]:
    """Return defaults for settings that did not exist yet when a run was begun."""
    fields = type(config).model_fields.items()
    values = {name: field.default for name, field in fields if not field.is_required()}
    return {
        name: value
        for name, value in values.items()
        if isinstance(value, bool | int | float | str | dict)
    }


def _require_same(
    folder: Path, have: dict[str, Any], want: dict[str, Any], defaults: Mapping[str, Any]
) -> None:
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
            raise UserError(
                f"{folder} was begun from another {name} than {parent['path']} is now; "
                "choose another --out, or restore what it was begun from"
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


def _named(value: Any, names: Mapping[str, Any]) -> Any:
    """Replace parents' paths in a setting by `names`: paths may be spelled in several ways."""
    if isinstance(value, list):
        return [_named(one, names) for one in value]
    return names.get(value, value) if isinstance(value, str) else value


def _hashes(run: Mapping[str, Any]) -> dict[str, Any]:
    return {parent["path"]: parent.get("sha256") for parent in run["parents"].values()}


def _places(run: Mapping[str, Any]) -> dict[str, Any]:
    """Return the path of each parent relative to the run's folder."""
    out = str(run["config"].get("out", "."))
    paths = [parent["path"] for parent in run["parents"].values()]
    return {path: os.path.relpath(path or ".", out) for path in paths}
