"""The current state of every run below a folder: its inputs, its progress, its measures.

Everything is read from the run's own files while another process may be writing them: small files
whole, logs from their end. Links are not followed, so nothing outside the folder is shown.
"""

from __future__ import annotations

import os
import platform
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from statistics import fmean, median
from typing import Any, Literal

import psutil

from groundup.errors import UserError, shorten
from groundup.formats.locate import CONFIG, holds_model
from groundup.report.history import History, heldout_names
from groundup.runs.console import printable
from groundup.runs.files import is_count, is_number, is_sealed, read_json_object, read_sealed
from groundup.runs.folder import has_begun, is_metric, missing_files, read_status
from groundup.runs.growing import last_lines
from groundup.runs.request import read_run
from groundup.serve.admission import BadRequest

State = Literal["running", "done", "stopped", "started", "damaged"]
# The limits of the search: a home folder by mistake must not be searched for minutes.
_MAX_DEPTH, _MAX_RUNS, _MAX_FOLDERS = 6, 500, 20_000
# Folders in which runs keep parts of themselves, and in which other programs keep many files.
_PASSED = frozenset({"checkpoints", "snapshots", "tokens", "node_modules", "__pycache__"})
# A folder is searched again after this many seconds, and after this many times the last search's
# duration; the size of a folder is counted again after the last of these numbers of seconds.
_LOOK_SECONDS, _LOOK_SHARE, _SIZE_SECONDS = 3.0, 20, 60.0
# Heartbeats come about once a second, but seldom during an evaluation.
_HEARTBEAT_SECONDS = 30
# Before its first heartbeat, a run reads its inputs.
_STARTING_SECONDS = 60
# The end of a log, some hundred steps, and the most of a log that is searched for an evaluation.
_END_BYTES, _MAX_BYTES = 2**16, 2**23
# The files that are read to list a run.
_KEPT = ("run.json", "plan.json", "status.json")
_READ = (*_KEPT, *(f".{name}.copy" for name in _KEPT), "metrics.jsonl")


@dataclass(frozen=True)
class Latest:
    """The last measures of a training run: loss, held-out measure, and seconds per step.

    They are over the steps at the log's end, some hundred: the loss is the mean of their last
    tenth, and the time is the median of all.
    """

    loss: float | None = None
    heldout: float | None = None
    measure: str = ""
    step_seconds: float | None = None


@dataclass(frozen=True)
class Run:
    """A run folder; `path` is relative to the folder that is shown, with / between parts.

    `why` says what is damaged, or why it is not known whether the run is finished.
    """

    path: str
    folder: Path
    history: History
    status: Mapping[str, Any]
    state: State
    why: str = ""
    measured: Callable[[History], Latest] = field(default=lambda _: Latest(), repr=False)

    @cached_property
    def latest(self) -> Latest:
        """Its last measures; the log is read when they are first needed."""
        return self.measured(self.history)

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def label(self) -> str:
        """Its name in pages and requests; the folder's own name if it is the one that is shown."""
        return self.path or self.name

    @property
    def group(self) -> str:
        """The folder that holds it, together with the other runs of a recipe."""
        return self.path.rpartition("/")[0]

    @property
    def stage(self) -> str:
        return self.history.stage if self.history.run else ""

    @property
    def steps(self) -> tuple[int, int] | None:
        """The steps that are done, and the planned ones; None if nothing is trained."""
        done, planned = self.status.get("step"), self.status.get("steps")
        return (done, planned) if is_count(done) and is_count(planned) and planned else None

    @property
    def seconds_left(self) -> float | None:
        """The time for the remaining steps at the latest pace, without evaluations."""
        if self.state != "running" or self.steps is None or self.latest.step_seconds is None:
            return None
        return (self.steps[1] - self.steps[0]) * self.latest.step_seconds

    @property
    def begun(self) -> datetime | None:
        return _time(self.history.run.get("started"))

    @property
    def heard(self) -> datetime | None:
        """The time of its last heartbeat."""
        return _time(self.status.get("time"))

    @cached_property
    def holds_model(self) -> bool:
        """Whether it holds a finished model that continues texts; a reward model does not."""
        if self.state != "done" or not holds_model(self.folder):
            return False
        try:
            architectures = read_json_object(self.folder / CONFIG).get("architectures")
        except UserError:  # an adapter for a base that lies elsewhere
            return not (self.folder / CONFIG).exists()
        return not isinstance(architectures, list) or any(
            "CausalLM" in str(one) or "LMHead" in str(one) for one in architectures
        )

    def file(self, name: str) -> Path | None:
        """A file of the run, to be shown as it is; None for a link, which may lead elsewhere."""
        path = self.folder / name
        return path if is_own_file(path) else None


class Runs:
    """The runs below a folder. Results are replaced and never changed, for several threads."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self._folders: dict[str, Path] = {}
        self._looked = self._look_at = 0.0
        self.cut = False
        """Whether there is more below the folder than was searched."""
        self._finding = threading.Lock()
        self._latest: dict[Path, tuple[object, int, int, Latest]] = {}
        self._sizes: dict[Path, tuple[float, State, int]] = {}

    def all(self) -> dict[str, Run]:
        """Every run by its path, in its current state."""
        self._look()
        runs = {path: self._run(path, folder) for path, folder in self._folders.items()}
        return {path: run for path, run in runs.items() if run is not None}

    def get(self, path: str) -> Run | None:
        """Return the run with this path, or None."""
        if path not in self._folders and time.monotonic() > self._looked + 1:
            self._look_at = 0.0
        self._look()
        return self._run(path, self._folders[path]) if path in self._folders else None

    def require(self, path: str) -> Run:
        """Return the run with this path.

        Raises `BadRequest` (404) when there is none: a path is looked up among the runs, so an
        address can name no other folder.
        """
        run = self.get(path)
        if run is None:
            raise BadRequest(
                f"there is no run {shorten(path)} below {self.root}; it may have been moved",
                status=404,
            )
        return run

    def models(self) -> dict[str, Path]:
        """The folders of all models that continue texts: first those that chat, newest first."""
        found = [run for run in self.all().values() if run.holds_model]
        found.sort(key=lambda run: (run.history.chats, str(run.status.get("time"))), reverse=True)
        return {run.label: run.folder for run in found}

    def parents(self, run: Run) -> dict[str, tuple[str, str | None]]:
        """A run's inputs by name: the path as recorded, and that of the run shown here, if any."""
        found = {}
        paths = {folder: path for path, folder in self._folders.items()}
        for name, described in run.history.run.get("parents", {}).items():
            said = described["path"]
            at = Path(os.path.realpath(run.history.beside(said)))
            # A run may have read only a part of some data.
            near = next((one for one in (at, *at.parents) if one in paths), None)
            found[name] = (said, None if near in (None, run.folder) else paths[near])
        return found

    def size(self, run: Run) -> int:
        """The bytes of a run's folder, counted again now and then, and when its state changes."""
        until, state, size = self._sizes.get(run.folder, (0.0, "started", 0))
        if until < time.monotonic() or state != run.state:
            size = _bytes(run.folder)
            self._sizes[run.folder] = (time.monotonic() + _SIZE_SECONDS, run.state, size)
        return size

    # The search.

    def _look(self) -> None:
        with self._finding:
            begun = time.monotonic()
            if begun < self._look_at:
                return
            found, cut = dict[str, Path](), False
            for looked, (path, folder) in enumerate(_folders(self.root, "", _MAX_DEPTH)):
                if looked > _MAX_FOLDERS or len(found) >= _MAX_RUNS:
                    cut = True
                    break
                if is_sealed(folder / "run.json"):
                    found[path] = folder
            there = frozenset(found.values())
            for known in (self._latest, self._sizes):
                for folder in known.keys() - there:
                    known.pop(folder, None)
            self._folders, self.cut, self._looked = found, cut, time.monotonic()
            self._look_at = self._looked + max(_LOOK_SECONDS, _LOOK_SHARE * (self._looked - begun))

    def _run(self, path: str, folder: Path) -> Run | None:
        """The run in that folder; None if it is gone by now."""
        if not is_sealed(folder / "run.json"):
            return None
        if (other := _other_than_file(folder)) is not None:
            why = f"{other} is a link or no file that can be read; put the file itself in its place"
            return Run(path, folder, History(folder, {}, {}), {}, "damaged", why)
        status = read_status(folder) or {}
        try:
            described = read_run(folder)
        except UserError as error:
            return Run(path, folder, History(folder, {}, {}), status, "damaged", str(error))
        try:
            plan = read_sealed(folder / "plan.json", dict)
        except UserError:
            plan = {}
        history = History(folder, described, plan)
        state, why = _state(folder, status, described.get("started"))
        return Run(path, folder, history, status, state, why, self._measured)

    def _measured(self, history: History) -> Latest:
        """The measures at the end of metrics.jsonl, read again when it has changed."""
        log = history.folder / "metrics.jsonl"
        nothing = (None, 0, 0, Latest())
        try:
            stat = log.stat()
            # A run that resumes from an earlier step or begins again rewrites its log.
            file = (history.run.get("started"), stat.st_ino)
            known, when, size, latest = self._latest.get(history.folder, nothing)
            if known != file or stat.st_size < size:
                _, when, size, latest = nothing
            if (when, size) != (stat.st_mtime_ns, stat.st_size):
                lines = list(filter(is_metric, last_lines(log, _END_BYTES)))
                new = stat.st_size - size
                if new > _END_BYTES and all(line["kind"] != "evaluation" for line in lines):
                    most = min(_MAX_BYTES, new + 2**13)
                    lines = [*filter(is_metric, last_lines(log, most, b'"evaluation"')), *lines]
                latest = _latest(lines, history.measure, latest)
                self._latest[history.folder] = (file, stat.st_mtime_ns, stat.st_size, latest)
        except OSError:  # nothing is trained yet, or ever
            return Latest()
        return latest


def is_place(path: str) -> bool:
    """Whether a run at that path below the folder would be shown."""
    parts = path.split("/")
    return len(parts) <= _MAX_DEPTH and not any(
        part.startswith(".") or part in _PASSED for part in parts
    )


def is_own_file(path: Path) -> bool:
    """Whether it is a file that can be read, and not a link, which may lead elsewhere."""
    return os.path.isfile(path) and not os.path.islink(path) and os.access(path, os.R_OK)


def _other_than_file(folder: Path) -> str | None:
    """The name of a file that is read for each run but is none, such as a link."""
    there = (name for name in _READ if os.path.lexists(folder / name))
    return next((name for name in there if not is_own_file(folder / name)), None)


def _folders(folder: Path, path: str, depth: int) -> Iterator[tuple[str, Path]]:
    """A folder and the folders below it, by name, each with its path."""
    yield path, folder
    try:
        with os.scandir(folder) as found:
            below = sorted(
                one.name
                for one in found
                if one.is_dir(follow_symlinks=False)
                and not one.name.startswith(".")
                and one.name not in _PASSED
                # No address can name these, or bytes that are not text.
                and "\n" not in one.name
                and one.name == one.name.encode(errors="ignore").decode()
            )
    except OSError:  # it cannot be read, or is gone
        return
    for name in below if depth else ():
        # Virtual environments are skipped.
        if not os.path.exists(folder / name / "pyvenv.cfg"):
            yield from _folders(folder / name, f"{path}/{name}".lstrip("/"), depth - 1)


def _state(folder: Path, status: Mapping[str, Any], started: object) -> tuple[State, str]:
    goes_on = "the same command continues from what it saved"
    match status.get("state"):
        case "finished":
            lost = missing_files(folder)
            if not lost:
                return "done", ""
            return "damaged", f"{lost[0].name} is gone or cut short; the same command redoes it"
        case "running" if _lives(status):
            return "running", ""
        case "running":
            return "stopped", f"it ended unexpectedly, as by a kill or a power cut; {goes_on}"
        case "stopped":
            why = status.get("why")
            why = printable(why) if isinstance(why, str) else ""
            if has_begun(folder):
                return "stopped", f"{why}; {goes_on}" if why else goes_on
            return "stopped", "it ended before its first step" + f": {why}" * bool(why)
    if (folder / "status.json").exists():
        why = "status.json is damaged, so it is not known whether the run is finished"
        return "damaged", f"{why}; {goes_on}"
    return ("running" if _is_near(_time(started), _STARTING_SECONDS) else "started"), ""


def _is_near(time: datetime | None, seconds: float) -> bool:
    """Whether a time is less than this many seconds from now; clocks may differ."""
    return time is not None and abs((datetime.now(UTC) - time).total_seconds()) < seconds


def _lives(status: Mapping[str, Any]) -> bool:
    """Whether the process of a heartbeat still runs: by its pid, or elsewhere by its last one.

    Runs of earlier versions do not say on which machine they ran.
    """
    heard, pid, host = _time(status.get("time")), status.get("pid"), status.get("host")
    if heard is None:
        return False
    is_near = _is_near(heard, _HEARTBEAT_SECONDS)
    if host is None and is_near:
        return True
    if host not in (None, platform.node()) or not is_count(pid):
        return is_near
    try:
        process = psutil.Process(pid)
        # Another program may have the pid by now. Heartbeats are rounded down to seconds.
        is_older = process.create_time() < heard.timestamp() + 1
        name = process.name().lower()
        is_ours = host is not None or "python" in name or "groundup" in name
        return is_older and is_ours and process.status() != psutil.STATUS_ZOMBIE
    except (psutil.Error, OverflowError):
        return False


def _latest(lines: list[dict[str, Any]], measure: str | None, before: Latest) -> Latest:
    trained = [line for line in lines if line["kind"] == "train"]
    losses = [line["loss"] for line in trained if line.get("loss") is not None]
    # A single step is noisy, and the first steps of a short run have other losses.
    loss = fmean(losses[-max(1, len(losses) // 10) :]) if losses else before.loss
    pace = median(line["seconds"] for line in trained) if trained else before.step_seconds
    found = (
        (line[key], name)
        for line in reversed(lines)
        for key, name in heldout_names(measure).items()
        if line["kind"] == "evaluation" and is_number(line.get(key))
    )
    heldout, name = next(found, (before.heldout, before.measure))
    return Latest(loss, heldout, name, pace)


def _time(said: object) -> datetime | None:
    """A time as runs write it; None for anything else."""
    try:
        found = datetime.fromisoformat(str(said))
        # In local time, which the first and the last day may not have.
        return (found if found.tzinfo is not None else found.replace(tzinfo=UTC)).astimezone()
    except (ValueError, OverflowError):
        return None


def _bytes(folder: Path) -> int:
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(place, name)).st_size
            except OSError:  # gone meanwhile
                continue
    return total
