"""The environment of a command: its three streams, Ctrl-C and the size of the terminal.

Any of them may be missing, full, closed or absurd, and none of that may end in a traceback. This
module is loaded first and imports next to nothing, so that Ctrl-C is handled from the start.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import io
import os
import select
import signal
import sys

# Avoids the import of `typing`.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType
    from typing import Any

INTERRUPTED = 130
# The range of widths that help and tables are laid out in.
_NARROWEST, _WIDEST = 40, 1000


class OutputError(Exception):
    """Standard output cannot be written: its reader has closed it, or its disk is full.

    It is not an `OSError`, so that code which handles errors of its own files does not catch it.
    """

    def __init__(self, reason: OSError) -> None:
        super().__init__(
            f"standard output cannot be written ({reason.strerror}); "
            "redirect it elsewhere, or free some space"
        )
        self.reader_left = reason.errno == errno.EPIPE


@functools.cache  # once
def prepare() -> None:
    """Prepare this process for a command: signals, streams, terminal size."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _leave)
    # `restart` leaves it blocked, so that Python's startup is not interrupted.
    if hasattr(signal, "pthread_sigmask"):  # not on Windows
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    _open_streams()
    for name in ("COLUMNS", "LINES"):
        _limit_size(name)


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Within the block, Ctrl-C raises `KeyboardInterrupt` in a prepared process; outside, it ends
    the process.
    """
    if signal.getsignal(signal.SIGINT) is not _leave:
        yield
        return
    try:
        signal.signal(signal.SIGINT, _interrupt)
        yield
    finally:
        signal.signal(signal.SIGINT, _leave)


def is_own() -> bool:
    """Whether the command is what this process was started for.

    If a notebook runs it within its own process (`%run -m groundup`), signals, streams and the
    process are the notebook's.
    """
    words, started = sys.argv[1:], sys.orig_argv
    return started[-len(words) :] == words if words else "groundup" in started[-1]


def restart() -> None:
    """Restart this command with the current environment."""
    sys.stdout.flush()
    if signal.getsignal(signal.SIGINT) is _leave and hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    # orig_argv[0] may be a bare "python"; the rest is right for scripts and -m alike.
    try:
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
    except OSError:  # this user may not execute that Python: continue without a restart
        if hasattr(signal, "pthread_sigmask"):
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def discard_output() -> None:
    """Discard everything that is still to be written to standard output."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)


# Ctrl-C.


def _leave(number: int, frame: FrameType | None) -> None:
    """End at once: nothing has begun yet."""
    with contextlib.suppress(OSError):
        os.write(2, b"\nstopped\n")
    os._exit(INTERRUPTED)


def _interrupt(number: int, frame: FrameType | None) -> None:
    # An interrupted import leaves half-initialized modules, which raise errors at exit.
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            _leave(number, frame)
        frame = frame.f_back
    raise KeyboardInterrupt


# Streams.


class _Descriptor(io.FileIO):
    """Standard output or standard error; failures of the former raise `OutputError`."""

    def __init__(self, number: int) -> None:
        super().__init__(number, "w", closefd=False)
        self._number = number

    def write(self, data: Any) -> int:
        try:
            # None means that a non-blocking descriptor, which some parents pass on, is full.
            while (written := super().write(data)) is None:
                select.select([], [self._number], [])
        except OSError as error:
            if self._number == 1:
                raise OutputError(error) from None
            return memoryview(data).nbytes  # nowhere left to report it
        return written


def _open_streams() -> None:
    """Open all three streams; a closed one becomes the null device, so that no other file gets its
    descriptor.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    if sys.stdin is None:
        sys.stdin = open(0, closefd=False)  # noqa: SIM115 (open to the end)
    sys.stdout = _written(1, sys.stdout)
    sys.stderr = _written(2, sys.stderr)


def _written(number: int, before: Any) -> io.TextIOWrapper:
    at_once = bool(before and getattr(before, "write_through", False))
    raw = _Descriptor(number)
    return io.TextIOWrapper(
        raw if at_once else io.BufferedWriter(raw),
        encoding=before.encoding if before else "utf-8",
        # A character that the terminal cannot show becomes a question mark, not a traceback.
        errors="replace",
        line_buffering=number == 2 or raw.isatty(),
        write_through=at_once,
    )


# The terminal.


def _limit_size(name: str) -> None:
    """Remove an absurd width or height from the environment, or limit it to a sensible range."""
    if name not in os.environ:
        with contextlib.suppress(OSError, AttributeError):
            # An unknown width is 0, for which callers use 80.
            if name == "COLUMNS" and 0 < os.get_terminal_size(1).columns < _NARROWEST:
                os.environ[name] = str(_NARROWEST)
        return
    given = os.environ[name]
    if not (given.isascii() and given.isdigit() and int(given[:9])):
        del os.environ[name]
        return
    least = _NARROWEST if name == "COLUMNS" else 10
    os.environ[name] = str(min(max(int(given[:9]), least), _WIDEST))
