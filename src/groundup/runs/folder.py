"""A run folder: the output of one stage, how it was made, and a lock for its writer.

    run.json        the request: config, seed, versions, git revision, parents, machine (`request`)
    plan.json       what was resolved from it, once
    metrics.jsonl   one line a step, flushed at once;  samples.jsonl  samples during training
    status.json     the heartbeat: the current state
    checkpoints/    see `checkpoint`

Every start opens the folder the same way. A finished run is left unchanged, an interrupted one is
continued, and another run's folder and a second process in the same folder are refused.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import time
from collections.abc import Callable, Mapping
from contextvars import ContextVar, Token
from datetime import datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel

from groundup.deprecated import renamed
from groundup.errors import UserError
from groundup.runs import ranks
from groundup.runs.console import counted, say
from groundup.runs.content import files_of
from groundup.runs.files import (
    LOCK,
    errors_naming,
    is_number,
    is_sealed,
    lock,
    read_damaged_lines,
    read_lines,
    read_sealed,
    write_json,
    write_lines,
    write_sealed,
)
from groundup.runs.request import (
    SCHEMA,
    default_settings,
    described,
    read_run,
    require_same,
    started_at,
    utc_now,
)

if TYPE_CHECKING:
    from filelock import FileLock

T = TypeVar("T")
# The files that a finished stage must still have.
_PARTS = frozenset({".safetensors", ".json", ".jsonl"})
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
            wanted = described(stage, config, parents or {}, traits)
            return cls._opened(folder, wanted, default_settings(config))

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
        self._clock = run_started.set(started_at(read_run(self.folder)))
        if not self.finished:
            self.status("running", **self._steps_before())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: object
    ) -> None:
        if self._clock is not None:
            run_started.reset(self._clock)
        if kind is not None and not self.finished:
            # A full disk may be the reason for the stop, and that error must reach the user.
            with contextlib.suppress(OSError):
                why = {"why": str(error)} if isinstance(error, UserError) else {}
                self.status("stopped", **(self._last_facts or self._steps_before()), **why)
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
        if state == "running":  # others may read the folder, and must know whose pid it is
            line["host"] = platform.node()
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
    return {name: path.stat().st_size for name, path in files_of(folder) if path.suffix in _PARTS}


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
        require_same(folder, read_run(folder, restore=True), wanted, defaults)
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


if not TYPE_CHECKING:  # names that have moved to `content` and `request`

    def __getattr__(name: str) -> object:
        return renamed(__name__, name)
