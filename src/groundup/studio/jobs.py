"""Commands that the studio started: each a separate process, with its arguments, log and exit code.

A process belongs to no terminal, so neither Ctrl-C in the studio's terminal nor the end of the
studio ends it; a later studio finds it again by its record, even a studio of a parent folder.
Records and logs are in the cache, by the run's folder, and not among the runs: a folder of runs
from elsewhere must not decide what is started here, or which process is stopped.
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
from groundup.runs.request import utc_now

# The size of a log's end that a page shows.
_TAIL_BYTES = 20_000
_WIDTH = 76
# The exit codes after Ctrl-C and SIGTERM: the command's, or the signal's if no command had begun.
_STOPPED = frozenset({130, 143, -signal.SIGINT, -signal.SIGTERM})


@dataclass(frozen=True)
class Job:
    """A command that was started for the run at `path`; `arguments` follow `groundup`.

    `command` is its name, `values` are those of its form, and `here` is the folder in which it was
    started, to which the names in its arguments are relative. `code` is its exit code, None while
    it runs and if nobody saw its end.
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
        """The end of its output since it was last started."""
        try:
            with open(self.log, "rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, size - _TAIL_BYTES))
                text = file.read().decode("utf-8", errors="replace")
        except OSError:
            return ""
        return printable(text.rpartition(f"{_start_line(self.arguments)}\n")[2])

    def complaint(self) -> str:
        """Why it failed, in its own words."""
        lines = [line for line in self.said().splitlines() if line.strip()]
        errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
        if self.code is not None and self.code < 0 and not errors:
            return f"it was ended by signal {-self.code}, as by a kill or for want of memory"
        said = "\n".join(errors or lines[-3:])
        return said or f"it ended with exit code {self.code} and wrote nothing"


def command_lines(arguments: Sequence[str]) -> str:
    """The command as a user writes it in a shell; a long one has a line per option."""
    parts = [shlex.quote(word) for word in ("groundup", *arguments)]
    line = " ".join(parts)
    if len(line) <= _WIDTH or sys.platform == "win32":
        return line
    return "".join(
        f" \\\n  {part}" if part.startswith("--") else f" {part}" for part in parts
    ).removeprefix(" ")


def _start_line(arguments: Sequence[str]) -> str:
    """The line of a log where a command begins."""
    return f"$ groundup {shlex.join(arguments)}"


class Jobs:
    """The commands that were started for runs below `root`, in the folder `here`."""

    def __init__(self, root: Path, here: Path) -> None:
        self.root, self.here = Path(os.path.realpath(root)), here
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._stopping = set[int]()
        self._writing = threading.Lock()

    def of(self, path: str) -> Job | None:
        """The command that was last started for the run at that path."""
        try:
            file = self._file(path, "json")
            return self._job(read_json_object(file), file.with_suffix(".log"))
        except UserError:  # none, or a damaged record
            return None

    def alive(self) -> list[Job]:
        """All commands that are running, including those of an earlier studio."""
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
        """Start `groundup ARGUMENTS` for the run at that path; its output goes to its log.

        Raises `UserError` if there is no room for its record, or if it cannot be started.
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
            file.write(f"{_start_line(arguments)}\n".encode("utf-8", errors="backslashreplace"))
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
            # Without a record, nobody could stop it.
            child.kill()
            child.wait()
            raise UserError(
                f"the command was ended, as its record cannot be written ({error}); make room in "
                f"{self._folder}, or start it in a terminal"
            ) from None
        self._children[path] = child
        # Not a thread of a pool: those are waited for when the studio ends.
        threading.Thread(target=self._watch, args=(job, child), daemon=True).start()
        return job

    def stop(self, job: Job, at_once: bool = False) -> None:
        """Do what Ctrl-C does or, `at_once`, a second Ctrl-C: it ends without saving."""
        if job.pid in self._stopping and not at_once:
            return
        self._stopping.add(job.pid)
        with suppress(ProcessLookupError, psutil.Error):
            if sys.platform == "win32":
                psutil.Process(job.pid).send_signal(signal.CTRL_BREAK_EVENT)
            else:
                os.killpg(job.pid, signal.SIGINT)  # with its children, as a terminal does

    # Processes.

    def _spawned(self, arguments: Sequence[str], log: int) -> subprocess.Popen[bytes]:
        environment = {name: one for name, one in os.environ.items() if name != "GROUNDUP_API_KEY"}
        # -P: no file in its working folder replaces a library.
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
            # A command that was started since has a record of its own there.
            known = self.of(job.path) if code is not None else None
            if known is not None and known.pid != job.pid:
                return
            line: dict[str, Any] = {"folder": str(self.root / job.path), "command": job.command}
            line |= {"values": dict(job.values), "arguments": list(job.arguments)}
            line |= {"here": job.here, "pid": job.pid, "created": job.created}
            line |= {"code": code, "time": utc_now()}
            write_json(self._file(job.path, "json"), line, sync=False)

    def _job(self, known: dict[str, Any], log: Path) -> Job | None:
        """The job of a record; None if its run is elsewhere, or the record is damaged."""
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
    """Whether that very process runs; another program may have its pid by now."""
    try:
        found = psutil.Process(pid)
        # Clocks are adjusted meanwhile, but pids are not reused so soon.
        return abs(found.create_time() - created) < 5 and found.status() != psutil.STATUS_ZOMBIE
    except (psutil.Error, OverflowError):
        return False
