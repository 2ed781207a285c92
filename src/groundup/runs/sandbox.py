"""A process of its own for code that is not trusted: limited in time and memory, killed if silent.

    Sandbox(script, limits).ask(question) -> answer          both JSON objects, a line each

`script` is a page with a function `answer(question) -> dict`. What the code prints goes nowhere.
With `isolated` the process sees no environment worth reading. With `no_effects`, by an audit hook
(PEP 578), code in Python may neither start processes, nor write, move or delete files, nor use the
network, nor trace or monitor other code; nor may whatever else runs there write bytes into a file,
by a limit of the system. That stops accidents and cheap tricks, as a model finds them under
reinforcement learning. It is no wall: a library in C or Rust raises no events, and through one code
can still make, empty or delete files, and whoever attacks the interpreter itself can do the rest.
Run code of such people in a container.

This file is also that process, as a script: it imports nothing of groundup.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

# No answer has as many bytes; without an end of the line, code could fill the asker's memory.
_LONGEST = 2**26
# What the process says before it takes a question; anything else is why it cannot.
_READY = b"ready\n"


@dataclass(frozen=True)
class Limits:
    """What each question may take; None is no limit.

    Processor time is what condemns code that works: a busy machine condemns no honest one. The
    clock's time is for code that waits.
    """

    wall_seconds: float
    cpu_seconds: float | None = None
    memory_bytes: int | None = None
    isolated: bool = True
    no_effects: bool = False
    """Whether processes, files and network are forbidden as well."""


class Sandbox:
    """The process, started when first needed and then kept until `close` or a failure."""

    def __init__(self, script: Path, limits: Limits) -> None:
        self._script, self._limits = script, limits
        self._process: subprocess.Popen[bytes] | None = None
        self._ready = False
        self._lock = threading.Lock()
        self.exit_status: int | None = None
        """Of a process that ended without an answer, below 0 a signal; None where time was up."""

    def ask(self, question: Mapping[str, Any]) -> dict[str, Any] | None:
        """Send one line and read one; None where the process died or stayed silent.

        What JSON does not know, such as a date from Parquet, is sent as text. Raises `UserError`
        where the process ends before it takes a question: no code is to blame for that.
        """
        with self._lock:
            process = self._running()
            assert process.stdin is not None and process.stdout is not None
            begun = time.monotonic()
            alarm = threading.Timer(self._limits.wall_seconds, _kill, [process])
            alarm.start()
            # What the code may write into the pipe by itself is no answer.
            id = secrets.token_hex()
            told = b""
            try:
                if not self._ready:
                    told = process.stdout.readline(_LONGEST)
                    self._ready = told == _READY
                    if not told:
                        process.wait()  # it ends; the alarm ends what does not
                written = json.dumps({"id": id, "question": question}, default=str)
                process.stdin.write(written.encode() + b"\n")
                process.stdin.flush()
                line = process.stdout.readline(_LONGEST)
            except OSError:
                line = b""
            finally:
                alarm.cancel()
            in_time = time.monotonic() - begun < self._limits.wall_seconds
            with contextlib.suppress(ValueError, KeyError, TypeError, RecursionError):
                if line.endswith(b"\n") and line.startswith(f'{{"id": "{id}"'.encode()):
                    answer: dict[str, Any] = json.loads(line)["answer"]
                    return answer
            ready = self._ready
            self.close()
            self.exit_status = process.returncode if in_time else None
            if in_time and not ready:
                raise _not_started(told, process.returncode)
            return None

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            self.close()
            self._ready = False
            kept = ("PATH", "PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "SYSTEMROOT")
            env = {name: os.environ[name] for name in kept if name in os.environ}
            self._process = subprocess.Popen(
                # -P: this folder's own file names must not shadow the standard library's.
                [
                    sys.executable,
                    "-P",
                    __file__,
                    str(self._script),
                    json.dumps(asdict(self._limits)),
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=env if self._limits.isolated else None,
                start_new_session=True,  # so that whatever it starts ends with it
            )
            # Nothing else ends it where nobody closes this, at the program's end at the latest.
            self._end = weakref.finalize(self, _end, self._process)
        return self._process

    def close(self) -> None:
        """End the process and all that it has started."""
        if self._process is not None:
            self._end()
            self._process = None


def _not_started(told: bytes, status: int) -> Exception:
    from groundup.errors import UserError  # which the process itself has no need of

    reason = told.decode(errors="replace").strip() or f"exit status {status}"
    return UserError(
        "the process that runs code which is not trusted cannot start on this machine "
        f"({reason}); check that the limits of the system and {sys.executable} allow it"
    )


def _end(process: subprocess.Popen[bytes]) -> None:
    _kill(process)
    process.communicate()


def _kill(process: subprocess.Popen[bytes]) -> None:
    if hasattr(os, "killpg"):
        with contextlib.suppress(OSError):  # it has ended
            os.killpg(process.pid, signal.SIGKILL)
    process.kill()


# In the process.


def _serve(script: str, limits: Mapping[str, Any]) -> None:
    """Be the process: take the limits, then answer line by line."""
    # Answers have a descriptor of their own, for the code may print.
    answers = os.fdopen(os.dup(1), "w", encoding="ascii", errors="backslashreplace")
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, 1)
    questions = os.fdopen(os.dup(0), encoding="ascii")
    os.dup2(nowhere, 0)
    try:
        answer = _answer_of(script)
        _limit_memory(limits["memory_bytes"])
        if limits["no_effects"]:
            _forbid_effects()
    except Exception as error:
        print(f"{type(error).__name__}: {error}".splitlines()[0], file=answers, flush=True)
        raise
    print(_READY.decode(), end="", file=answers, flush=True)
    for line in questions:
        # The parent ends what waits, a little earlier, unless it was killed itself.
        _limit_time(limits["cpu_seconds"], limits["wall_seconds"] + 5)
        asked = json.loads(line)
        written = json.dumps({"id": asked["id"], "answer": answer(asked["question"])})
        _limit_time(None, None)
        print(written, file=answers, flush=True)


def _answer_of(script: str) -> Callable[[Any], Any]:
    spec = importlib.util.spec_from_file_location("sandboxed", script)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["sandboxed"] = module
    spec.loader.exec_module(module)
    answer: Callable[[Any], Any] = module.answer
    return answer


def _limit_memory(most: int | None) -> None:
    """Cap the address space, where the system can: macOS has the limit and refuses to set it."""
    if most is None:
        return
    try:
        import resource
    except ImportError:
        return
    for limit, value in ((resource.RLIMIT_AS, most), (resource.RLIMIT_CORE, 0)):
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(limit, (value, value))


def _limit_time(cpu_seconds: float | None, wall_seconds: float | None) -> None:
    """Let the system end this process after so many seconds; None takes it back.

    The signals keep their default action: a handler in Python would wait for a long C call to
    return.
    """
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_PROF, cpu_seconds or 0.0)
        signal.setitimer(signal.ITIMER_REAL, wall_seconds or 0.0)


# What code that only computes has no need of. Imports list folders, and NumPy's sets variables of
# its process and opens the interpreter as a library, in which it looks for nothing. A function that
# traces or monitors others could let them jump over lines.
_EFFECTS = (
    *("os.", "subprocess.", "socket.", "shutil.", "ctypes.", "signal.", "pty.", "resource."),
    *("sys.settrace", "sys.setprofile", "sys.monitoring.", "sqlite3."),
)
# What starts processes and writes files raising no event: modules, and functions of `os`.
_UNHEARD = ("_posixsubprocess", "_posixshmem", "_dbm", "_gdbm", "readline")
_UNHEARD_OF_OS = ("mkfifo", "mknod")
_HARMLESS = ("os.listdir", "os.scandir", "os.walk", "os.fwalk", "os.putenv", "os.unsetenv")
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


def _forbid_effects() -> None:
    """Refuse processes, the network, and changes of files from now on: no hook is ever removed."""

    def refuse(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(arguments[2], int) and arguments[2] & _WRITING:
            raise PermissionError("files may not be written here")
        if event == "import" and arguments[0] in _UNHEARD:
            raise ImportError(f"{arguments[0]} is not allowed here")
        if event == "ctypes.dlopen" and arguments == (None,):
            return
        if event.startswith(_EFFECTS) and event not in _HARMLESS:
            raise PermissionError(f"{event} is not allowed here")

    for name in _UNHEARD:
        sys.modules.pop(name, None)
    vars(subprocess).pop("_fork_exec", None)
    for module in (os, sys.modules[os.name]):  # posix, whose functions `os` has, too
        for name in _UNHEARD_OF_OS:
            vars(module).pop(name, None)
    with contextlib.suppress(ImportError):
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))  # pipes and devices are no such files
    sys.addaudithook(refuse)


if __name__ == "__main__":
    _serve(sys.argv[1], json.loads(sys.argv[2]))
