"""A separate process for untrusted code, with time and memory limits; it is killed on a timeout.

    Sandbox(script, limits).ask(question) -> answer          both JSON objects, a line each

`script` is a module with a function `answer(question) -> dict`. Its output is discarded. With
`isolated` the process gets only a few environment variables. With `no_effects` an audit hook
(PEP 578) forbids Python code to start processes, to write, move or delete files, to use the
network, and to trace or monitor other code; a system limit forbids any code to write bytes into a
file. That stops accidents and simple tricks, such as a model finds under reinforcement learning. It
is not a security boundary: C and Rust libraries raise no audit events, so through them code can
still create, empty or delete files, and an attack on the interpreter itself can do more. Run
hostile code in a container.

This file is also the script of that process, so it imports nothing from groundup.
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

# Answers are shorter; without a limit, an endless line would fill the caller's memory.
_LONGEST = 2**26
# The process sends this before it takes a question, or else the reason why it cannot.
_READY = b"ready\n"


@dataclass(frozen=True)
class Limits:
    """Limits of each question; None is no limit.

    CPU time limits code that computes, so a busy machine does not fail correct code. Wall-clock
    time limits code that waits.
    """

    wall_seconds: float
    cpu_seconds: float | None = None
    memory_bytes: int | None = None
    isolated: bool = True
    no_effects: bool = False
    """Whether starting processes, writing files and using the network are forbidden as well."""


class Sandbox:
    """The process, started on first use and kept until `close` or a failure."""

    def __init__(self, script: Path, limits: Limits) -> None:
        self._script, self._limits = script, limits
        self._process: subprocess.Popen[bytes] | None = None
        self._ready = False
        self._lock = threading.Lock()
        self.exit_status: int | None = None
        """Exit status of a process that gave no answer, -N for signal N; None after a timeout."""

    def ask(self, question: Mapping[str, Any]) -> dict[str, Any] | None:
        """Send one line and read one; None if the process died or gave no answer in time.

        Values that JSON lacks, such as a date from Parquet, are sent as text. Raises `UserError` if
        the process ends before it takes a question, which is not the fault of the tested code.
        """
        with self._lock:
            process = self._running()
            assert process.stdin is not None and process.stdout is not None
            begun = time.monotonic()
            alarm = threading.Timer(self._limits.wall_seconds, _kill, [process])
            alarm.start()
            # A secret id, so that nothing the code writes into the pipe passes for an answer.
            id = secrets.token_hex()
            greeting = b""
            try:
                if not self._ready:
                    greeting = process.stdout.readline(_LONGEST)
                    self._ready = greeting == _READY
                    if not greeting:
                        process.wait()  # it is ending; if not, the alarm kills it
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
                raise _not_started(greeting, process.returncode)
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
                start_new_session=True,  # so that processes it starts end with it
            )
            # Ends the process when nobody calls `close`, at program exit at the latest.
            self._end = weakref.finalize(self, _end, self._process)
        return self._process

    def close(self) -> None:
        """End the process and all processes that it has started."""
        if self._process is not None:
            self._end()
            self._process = None


def _not_started(greeting: bytes, status: int) -> Exception:
    from groundup.errors import UserError  # not needed in the process itself

    reason = greeting.decode(errors="replace").strip() or f"exit status {status}"
    return UserError(
        "the process that runs untrusted code cannot start on this machine "
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
    """Main loop of the process: apply the limits, then answer line by line."""
    # Answers use a separate descriptor, because the code may print.
    answers = os.fdopen(os.dup(1), "w", encoding="ascii", errors="backslashreplace")
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 1)
    questions = os.fdopen(os.dup(0), encoding="ascii")
    os.dup2(null, 0)
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
        # The parent kills a waiting process a little earlier, unless it was killed itself.
        _limit_time(limits["cpu_seconds"], limits["wall_seconds"] + 5)
        request = json.loads(line)
        response = json.dumps({"id": request["id"], "answer": answer(request["question"])})
        _limit_time(None, None)
        print(response, file=answers, flush=True)


def _answer_of(script: str) -> Callable[[Any], Any]:
    spec = importlib.util.spec_from_file_location("sandboxed", script)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["sandboxed"] = module
    spec.loader.exec_module(module)
    answer: Callable[[Any], Any] = module.answer
    return answer


def _limit_memory(most: int | None) -> None:
    """Limit the address space where the system supports it; macOS refuses to set this limit."""
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
    """Let the system end this process after these seconds; None removes the limit.

    The signals keep their default action: a Python handler would wait until a long C call returns.
    """
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_PROF, cpu_seconds or 0.0)
        signal.setitimer(signal.ITIMER_REAL, wall_seconds or 0.0)


# Audit events that computing does not need. Exceptions: imports list folders, and importing NumPy
# sets environment variables and opens the interpreter as a library without looking anything up in
# it. Tracing and monitoring functions could make other code skip lines.
_EFFECTS = (
    *("os.", "subprocess.", "socket.", "shutil.", "ctypes.", "signal.", "pty.", "resource."),
    *("sys.settrace", "sys.setprofile", "sys.monitoring.", "sqlite3."),
)
# Modules and functions of `os` that start processes or write files without an audit event.
_UNAUDITED_MODULES = ("_posixsubprocess", "_posixshmem", "_dbm", "_gdbm", "readline")
_UNAUDITED_OS_FUNCTIONS = ("mkfifo", "mknod")
_HARMLESS = ("os.listdir", "os.scandir", "os.walk", "os.fwalk", "os.putenv", "os.unsetenv")
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


def _forbid_effects() -> None:
    """Refuse processes, network and file changes from now on; audit hooks cannot be removed."""

    def refuse(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(arguments[2], int) and arguments[2] & _WRITING:
            raise PermissionError("files may not be written here")
        if event == "import" and arguments[0] in _UNAUDITED_MODULES:
            raise ImportError(f"{arguments[0]} is not allowed here")
        if event == "ctypes.dlopen" and arguments == (None,):
            return
        if event.startswith(_EFFECTS) and event not in _HARMLESS:
            raise PermissionError(f"{event} is not allowed here")

    for name in _UNAUDITED_MODULES:
        sys.modules.pop(name, None)
    vars(subprocess).pop("_fork_exec", None)
    for module in (os, sys.modules[os.name]):  # posix, whose functions `os` re-exports
        for name in _UNAUDITED_OS_FUNCTIONS:
            vars(module).pop(name, None)
    with contextlib.suppress(ImportError):
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))  # does not affect pipes and devices
    sys.addaudithook(refuse)


if __name__ == "__main__":
    _serve(sys.argv[1], json.loads(sys.argv[2]))
