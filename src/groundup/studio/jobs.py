"""Commands that the studio has started: each a process of its own, with its arguments, log and end.

A process belongs to no terminal, so that neither Ctrl-C in the studio's own nor the end of the
studio ends it; a later studio finds it again by its record, also a studio of a folder around.
Records and logs lie in the cache, by the run's folder, and not among the runs: a folder of runs
that comes from elsewhere cannot say what is to be started here, or which process to stop.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from groundup.errors import UserError
from groundup.runs.cache import cache_folder
from groundup.runs.console import printable
from groundup.runs.files import is_count, is_number, locked, read_json_object, write_json
from groundup.runs.folder import utc_now

# Of a log, as much as is read on a page.
_TAIL_BYTES = 20_000
_WIDTH = 76
# What Ctrl-C and SIGTERM end with: told by the command, or by the signal where it had none begun.
_STOPPED = frozenset({130, 143, -signal.SIGINT, -signal.SIGTERM})


@dataclass(frozen=True)
class Job:
    """A command that was started for the run at `path`; `arguments` stand behind `groundup`.

    `command` is its name, `values` what its form had, and `here` the folder that it was started in,
    from where its arguments name others. `code` is what it ended with, None while it runs and where
    nobody was there to see its end.
    """

    path: str
    command: str
    values: Mapping[str, str]
    arguments: tuple[str, ...]
    here: str
    log: Path
    pid: int
    created: float
    code: int | None = None
    lives: bool = False
    asked_to_stop: bool = False

    @property
    def failed(self) -> bool:
        return self.code is not None and self.code != 0 and self.code not in _STOPPED

    def said(self) -> str:
        """The end of what it wrote, since it was started last."""
        try:
            with open(self.log, "rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, size - _TAIL_BYTES))
                text = file.read().decode("utf-8", errors="replace")
        except OSError:
            return ""
        return printable(text.rpartition(f"{_begun(self.arguments)}\n")[2])

    def complaint(self) -> str:
        """Why it failed, in its own words."""
        lines = [line for line in self.said().splitlines() if line.strip()]
        errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
        said = "\n".join(errors or lines[-3:])
        return said or f"it ended with exit code {self.code} and wrote nothing"


def command_lines(arguments: Sequence[str]) -> str:
    """The command as a person writes it in a shell: a long one with an option to a line."""
    parts = [shlex.quote(word) for word in ("groundup", *arguments)]
    line = " ".join(parts)
    if len(line) <= _WIDTH or sys.platform == "win32":
        return line
    return "".join(
        f" \\\n  {part}" if part.startswith("--") else f" {part}" for part in parts
    ).removeprefix(" ")


def _begun(arguments: Sequence[str]) -> str:
    """What stands in a log where a command begins."""
    return f"$ groundup {shlex.join(arguments)}"


class Jobs:
    """The commands that were started for runs below `root`; `here` is where they are run."""

    def __init__(self, root: Path, here: Path) -> None:
        self.root, self.here = Path(os.path.realpath(root)), here
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._stopping = set[int]()
        self._writing = threading.Lock()

    def of(self, path: str) -> Job | None:
        """The command that was started last for the run at that path."""
        try:
            file = self._file(path, "json")
            return self._job(read_json_object(file), file.with_suffix(".log"))
        except UserError:  # none, or a damaged record
            return None

    def alive(self) -> list[Job]:
        """All that run now, also those that an earlier studio has started."""
        found = []
        with suppress(UserError, OSError):
            for file in sorted(self._folder.glob("*.json")):
                with suppress(UserError):
                    job = self._job(read_json_object(file), file.with_suffix(".log"))
                    found += [job] if job is not None and job.lives else []
        return found

    def start(
        self, path: str, command: str, values: Mapping[str, str], arguments: Sequence[str]
    ) -> Job:
        """Start `groundup WORDS` for the run at that path; what it writes goes to its log.

        Raises `UserError` where there is no room for its record, or it cannot be started.
        """
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with locked(self._file(path, "json"), "folder"):
                return self._started(path, command, values, arguments)
        except (OSError, ValueError) as error:
            raise UserError(
                f"the command cannot be started here ({error}); start it in a terminal"
            ) from None

    def _started(
        self, path: str, command: str, values: Mapping[str, str], arguments: Sequence[str]
    ) -> Job:
        known = self.of(path)
        if known is not None and known.lives:
            raise UserError(f"{path} has been started meanwhile; go back to its page")
        log = self._file(path, "log")
        with open(log, "ab") as file:
            file.write(f"{_begun(arguments)}\n".encode("utf-8", errors="backslashreplace"))
            file.flush()
            child = self._spawned(arguments, file.fileno())
        created = 0.0
        with suppress(psutil.Error):  # it has ended already
            created = psutil.Process(child.pid).create_time()
        here = str(self.here)
        job = Job(
            path, command, dict(values), tuple(arguments), here, log, child.pid, created, lives=True
        )
        try:
            self._record(job, None)
        except (OSError, UserError) as error:
            # What no record tells of, nobody could stop.
            child.kill()
            child.wait()
            raise UserError(
                f"the command was ended, as nothing can be kept of it ({error}); make room in "
                f"{self._folder}, or start it in a terminal"
            ) from None
        self._children[path] = child
        # No thread of a pool: those are waited for when the studio ends.
        threading.Thread(target=self._watch, args=(job, child), daemon=True).start()
        return job

    def stop(self, job: Job, at_once: bool = False) -> None:
        """Do what Ctrl-C does, or a second Ctrl-C: it ends at once, whatever is not saved."""
        if job.pid in self._stopping and not at_once:
            return
        self._stopping.add(job.pid)
        with suppress(ProcessLookupError, psutil.Error):
            if sys.platform == "win32":
                psutil.Process(job.pid).send_signal(signal.CTRL_BREAK_EVENT)
            else:
                os.killpg(job.pid, signal.SIGINT)  # with all that it has started, as a terminal

    # Processes.

    def _spawned(self, arguments: Sequence[str], log: int) -> subprocess.Popen[bytes]:
        environment = {name: one for name, one in os.environ.items() if name != "GROUNDUP_API_KEY"}
        # -P: no file of the folder that it runs in takes the place of a library.
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "groundup", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=self.here,
            env=environment | {"PYTHONUNBUFFERED": "1"},
            start_new_session=True,
            creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
        )

    def _watch(self, job: Job, child: subprocess.Popen[bytes]) -> None:
        code = child.wait()
        with suppress(UserError, OSError):
            self._record(job, code)

    # Records.

    @property
    def _folder(self) -> Path:
        return cache_folder() / "studio"

    def _file(self, path: str, suffix: str) -> Path:
        name = hashlib.sha256(os.fsencode(self.root / path)).hexdigest()[:24]
        return self._folder / f"{name}.{suffix}"

    def _record(self, job: Job, code: int | None) -> None:
        with self._writing:
            # What was started anew since has a record of its own there.
            known = self.of(job.path) if code is not None else None
            if known is not None and known.pid != job.pid:
                return
            line: dict[str, Any] = {"folder": str(self.root / job.path), "command": job.command}
            line |= {"values": dict(job.values), "arguments": list(job.arguments)}
            line |= {"here": job.here, "pid": job.pid, "created": job.created}
            line |= {"code": code, "time": utc_now()}
            write_json(self._file(job.path, "json"), line, sync=False)

    def _job(self, known: dict[str, Any], log: Path) -> Job | None:
        """The job of a record; None for one of a run elsewhere, or that is damaged."""
        folder, command, values = known.get("folder"), known.get("command"), known.get("values")
        arguments, pid, created = known.get("arguments"), known.get("pid"), known.get("created")
        code, here = known.get("code"), known.get("here")
        if not (
            isinstance(folder, str)
            and self.root in Path(folder).parents
            and isinstance(command, str)
            and isinstance(values, dict)
            and all(isinstance(one, str) for one in values.values())
            and isinstance(arguments, list)
            and all(isinstance(word, str) for word in arguments)
            and isinstance(here, str)
            and is_count(pid)
            and is_number(created)
        ):
            return None
        path = Path(folder).relative_to(self.root).as_posix()
        child = self._children.get(path)
        if child is not None and child.pid == pid:
            code = child.poll()
            lives = code is None
        else:
            lives = code is None and _lives(pid, created)
        asked = pid in self._stopping and lives
        code = code if isinstance(code, int) else None
        return Job(
            path, command, values, tuple(arguments), here, log, pid, created, code, lives, asked
        )


def _lives(pid: int, created: float) -> bool:
    """Whether that very process runs; another program may have its number by now."""
    try:
        found = psutil.Process(pid)
        # Clocks are put right meanwhile, and no number is given out again so soon.
        return abs(found.create_time() - created) < 5 and found.status() != psutil.STATUS_ZOMBIE
    except (psutil.Error, OverflowError):
        return False
