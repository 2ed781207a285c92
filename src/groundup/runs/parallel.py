"""Pure Python work on all cores: threads share one interpreter lock, so each core has a process."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from typing import TypeVar

import loky
from loky.process_executor import BrokenProcessPool

from groundup.errors import UserError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType

S = TypeVar("S")
T = TypeVar("T")
# Tasks per process: more than one, because tasks take different times.
_TASKS = 3


def on_all_cores(function: Callable[[S], T], tasks: Sequence[S]) -> list[T]:
    """Return `function(task)` for each task, in order.

    This process does the work itself if there is one task or one core, or if the system provides no
    semaphores. Otherwise the function, the tasks and the results must be picklable. Exceptions of
    the function are raised here, and `UserError` if a process is killed. Ctrl-C ends the processes
    in the middle of their tasks.
    """
    workers = min(loky.cpu_count(), len(tasks))
    if workers > 1:
        try:
            executor = loky.get_reusable_executor(
                workers, initializer=_end_with, initargs=(os.getpid(),)
            )
        except OSError:
            workers = 1
    if workers < 2:
        return [function(task) for task in tasks]
    futures = list[Future[T]]()
    try:
        with _interrupts_held():
            futures += [executor.submit(function, task) for task in tasks]
        return [future.result() for future in futures]
    except KeyboardInterrupt:
        # Otherwise this process waits at its end for the workers, whose tasks may take minutes.
        executor.shutdown(kill_workers=True)
        raise
    except BrokenProcessPool as error:
        raise UserError(
            "a process that shared the work was killed, most likely for lack of memory; free some "
            "memory, or set LOKY_MAX_CPU_COUNT=1 to work in one process"
        ) from error
    finally:
        # Cancel waiting tasks after one has raised; the shutdown above cancels them itself.
        for future in futures:
            future.cancel()


class Terminated(KeyboardInterrupt):
    """SIGTERM, which ends a command like Ctrl-C, but with its own signal number."""

    number = signal.SIGTERM


@contextlib.contextmanager
def terminable() -> Iterator[None]:
    """Raise SIGTERM as `Terminated` within the block, unless it has another handler.

    With the default action the process would leave semaphores behind, and loky warns about them.
    """
    if not _in_main_thread() or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    try:
        signal.signal(signal.SIGTERM, _terminate)
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _in_main_thread() -> bool:
    """Whether this thread may set signal handlers."""
    return threading.current_thread() is threading.main_thread()


def _terminate(number: int, frame: FrameType | None) -> None:
    raise Terminated("stopped")


def split_range(count: int, least: int) -> list[range]:
    """Split range(count) into parts for all cores, each of at least `least` numbers."""
    parts = max(1, min(_TASKS * loky.cpu_count(), count // least))
    bounds = [count * part // parts for part in range(parts + 1)]
    return [range(*pair) for pair in itertools.pairwise(bounds)]


@contextlib.contextmanager
def _interrupts_held() -> Iterator[None]:
    """Delay Ctrl-C, and SIGTERM within `terminable`: a half-started worker would print an error.

    Workers that start here never see Ctrl-C, because this process ends them.
    """
    can_block = hasattr(signal, "pthread_sigmask")
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT}) if can_block else None
    received = list[int]()
    is_raised = _in_main_thread() and signal.getsignal(signal.SIGTERM) is _terminate
    if is_raised:
        signal.signal(signal.SIGTERM, lambda number, frame: received.append(number))
    try:
        yield
    finally:
        if is_raised:
            signal.signal(signal.SIGTERM, _terminate)
        if before is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
    if received:
        raise Terminated("stopped")


def _end_with(parent: int) -> None:
    """End this process when its parent ends, even if the parent is killed."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
