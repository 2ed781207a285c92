"""Python in a process of its own that begins in a moment, where it takes seconds otherwise.

A server has loaded PyTorch and the stages, and a process is a fork of it: with its own pid, folder,
environment and exit code, to be killed and stopped as any other. What Python itself does at its end
(`atexit`) it leaves out.
"""

from __future__ import annotations

import contextlib
import functools
import multiprocessing
import os
import runpy
import sys
import tempfile
from collections.abc import Mapping, Sequence
from multiprocessing.context import BaseContext
from multiprocessing.forkserver import ensure_running
from pathlib import Path

from groundup.app.stages import STAGES
from groundup.train.config import ENVIRONMENT


@functools.cache  # once
def server() -> BaseContext:
    """It has what a C library reads of its environment before Python starts.

    It lacks lm-eval, which imports pandas and Hugging Face's hub.
    On Linux alone: what Apple's libraries have begun does not outlive a fork, so that a process
    begins anew there.
    """
    if sys.platform != "linux":
        return multiprocessing.get_context("spawn")
    found = multiprocessing.get_context("forkserver")
    modules = {one.module for one in STAGES.values()} - {"groundup.evals.harness_run"}
    found.set_forkserver_preload(["groundup.app.cli", *sorted(modules)])
    before = dict(os.environ)
    os.environ.update(ENVIRONMENT)
    for name in ("COLUMNS", "LINES"):  # rich reads them once; readline sets them for C alone
        os.environ.pop(name, None)
        os.unsetenv(name)
    ensure_running()
    _replace_environment(before)
    return found


class Process:
    """`python -m MODULE …`, `python -c CODE …` or `python FILE …`, begun in this folder.

    It reads `typed` to its end, or is at the given terminal (`/dev/pts/…`). Keywords change its
    environment.
    """

    def __init__(
        self, command: Sequence[str], typed: str = "", terminal: str | None = None, **changes: str
    ) -> None:
        assert command[0] == sys.executable
        self._typed, self._said = (
            tempfile.NamedTemporaryFile("w+", encoding="utf-8")  # noqa: SIM115 (open to the end)
            for _ in range(2)
        )
        self._typed.write(typed)
        self._typed.flush()
        environment = os.environ | ENVIRONMENT | changes
        streams = terminal or self._typed.name, terminal or self._said.name
        given = (list(command), environment, os.getcwd(), *streams)
        self._process = server().Process(target=_become, args=given)
        self._process.start()

    def poll(self) -> int | None:
        """The exit code, as `subprocess.Popen` reports it."""
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            assert self._process.pid is not None
            with contextlib.suppress(ProcessLookupError):  # it has ended since
                os.kill(self._process.pid, number)

    def said(self) -> str:
        """The output until now."""
        return Path(self._said.name).read_text(encoding="utf-8")

    def communicate(self, timeout: float = 300) -> tuple[int, str]:
        """Wait for the end; return the exit code and all output."""
        self._process.join(timeout)
        code = self.poll()
        with self._typed, self._said:
            self._said.seek(0)
            said = self._said.read()
        if code is None:
            self._process.kill()
            raise TimeoutError(f"it has not ended in {timeout:.0f} s, and said:\n{said}")
        return code, said


def _become(
    command: list[str], environment: Mapping[str, str], folder: str, typed: str, said: str
) -> None:
    _replace_environment(environment)
    os.chdir(folder)
    if typed == said:
        os.setsid()  # so that the terminal becomes its own, and sends it Ctrl-C
    for name, flags, numbers in ((typed, os.O_RDONLY, [0]), (said, os.O_WRONLY, [1, 2])):
        file = os.open(name, flags | os.O_APPEND)
        for number in numbers:
            os.dup2(file, number)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115 (open to the end)
    sys.orig_argv[:] = command
    match command[1:]:
        case ["-m", module, *words]:
            sys.argv[1:], sys.path[0] = words, folder
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        case ["-c", code, *words]:
            sys.argv[:], sys.path[0] = ["-c", *words], folder
            exec(code, {"__name__": "__main__"})
        case [file, *words]:
            sys.argv[:], sys.path[0] = [file, *words], os.path.dirname(file)
            runpy.run_path(file, run_name="__main__")


def _replace_environment(environment: Mapping[str, str]) -> None:
    os.environ.clear()
    os.environ.update(environment)
