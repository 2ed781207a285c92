"""What a command meets outside itself: its three streams, Ctrl-C, the size of the terminal.

Any of them may be missing, full, closed or absurd, and none of that may end in a traceback. This
page is loaded before everything else and imports next to nothing, so that Ctrl-C finds it ready.
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

# As `typing` has it, which this page does without.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType
    from typing import Any

INTERRUPTED = 130
# What help and tables can be laid out in, and the widest that anybody looks at.
_NARROWEST, _WIDEST = 40, 1000


class OutputError(Exception):
    """Standard output cannot be written: its reader has left, or its disk is full.

    It is no `OSError`, for those who look after a file of theirs must not mistake it for theirs.
    """

    def __init__(self, reason: OSError) -> None:
        super().__init__(
            f"standard output cannot be written ({reason.strerror}); "
            "send it somewhere else, or make room there"
        )
        self.reader_left = reason.errno == errno.EPIPE


@functools.cache  # once
def prepare() -> None:
    """Make this process ready for a command; before that, Ctrl-C ends it at once."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _leave)
    # A restart hands it over blocked, so that Python's own start is not interrupted.
    if hasattr(signal, "pthread_sigmask"):  # not on Windows
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    _open_streams()
    for name in ("COLUMNS", "LINES"):
        _limit_size(name)


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Within it Ctrl-C is a `KeyboardInterrupt`, in a prepared process; outside it ends it."""
    if signal.getsignal(signal.SIGINT) is not _leave:
        yield
        return
    try:
        signal.signal(signal.SIGINT, _interrupt)
        yield
    finally:
        signal.signal(signal.SIGINT, _leave)


def restart() -> None:
    """Start this very command anew, with the environment as it now is."""
    sys.stdout.flush()
    if signal.getsignal(signal.SIGINT) is _leave and hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    # The first word may be a bare "python"; what follows it is right for scripts and -m alike.
    try:
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
    except OSError:  # a Python that this user may not start: then it goes on as it is
        if hasattr(signal, "pthread_sigmask"):
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def discard_output() -> None:
    """Let what is still to be written to standard output go nowhere."""
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
    # Modules whose import is cut in two are half made, and complain of it on the way out.
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            _leave(number, frame)
        frame = frame.f_back
    raise KeyboardInterrupt


# Streams.


class _Descriptor(io.FileIO):
    """Standard output or standard error, whose failures say whose they are."""

    def __init__(self, number: int) -> None:
        super().__init__(number, "w", closefd=False)
        self._number = number

    def write(self, data: Any) -> int:
        try:
            # None says that a descriptor that does not wait, as some parents leave it, is full.
            while (written := super().write(data)) is None:
                select.select([], [self._number], [])
        except OSError as error:
            if self._number == 1:
                raise OutputError(error) from None
            return memoryview(data).nbytes  # there is nobody to tell
        return written


def _open_streams() -> None:
    """All three streams, open: a closed one is the null device's, and no other file gets its
    number."""
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
        # A terminal that cannot show a character shows a question mark, not a traceback.
        errors="replace",
        line_buffering=number == 2 or raw.isatty(),
        write_through=at_once,
    )


# The terminal.


def _limit_size(name: str) -> None:
    """Take an absurd width or height out of the environment, or bring it to a sensible one."""
    if name not in os.environ:
        with contextlib.suppress(OSError, AttributeError):
            # A width that is not known is 0, which whoever asks makes 80 of.
            if name == "COLUMNS" and 0 < os.get_terminal_size(1).columns < _NARROWEST:
                os.environ[name] = str(_NARROWEST)
        return
    given = os.environ[name]
    if not (given.isascii() and given.isdigit() and int(given[:9])):
        del os.environ[name]
        return
    least = _NARROWEST if name == "COLUMNS" else 10
    os.environ[name] = str(min(max(int(given[:9]), least), _WIDEST))
