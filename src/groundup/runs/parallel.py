"""Work of Python's own on all cores: threads share one interpreter, so each core has a process."""

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
# Tasks for each process: more than one, as they take different times.
_TASKS = 3


def on_all_cores(function: Callable[[S], T], tasks: Sequence[S]) -> list[T]:
    """What `function` returns for each task, in their order.

    One task is done by this process, as is everything where there is one core or a system that
    lends no semaphores. Else the function, tasks and what is returned travel between processes, so
    they must be picklable. What the function raises is raised here; UserError if a process is
    killed. Ctrl-C ends the processes in the middle of their tasks.
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
    begun = list[Future[T]]()
    try:
        with _interrupts_held():
            begun += [executor.submit(function, task) for task in tasks]
        return [one.result() for one in begun]
    except KeyboardInterrupt:
        # Else the end of this process waits for theirs, and a task may take minutes.
        executor.shutdown(kill_workers=True)
        raise
    except BrokenProcessPool as error:
        raise UserError(
            "a process that shared the work was killed, most likely for want of memory; free some, "
            "or set LOKY_MAX_CPU_COUNT=1 to work in one process"
        ) from error
    finally:
        # Those that wait, where another one raised; after the shutdown, which cancels by itself.
        for one in begun:
            one.cancel()


class Terminated(KeyboardInterrupt):
    """SIGTERM, which ends a command as Ctrl-C does, and by its own number."""

    number = signal.SIGTERM


@contextlib.contextmanager
def terminable() -> Iterator[None]:
    """Within it SIGTERM is raised as `Terminated`, unless somebody else has a use for it.

    A process that just dies of it leaves semaphores to loky, which warns of them.
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
    """Whether this thread may say what a signal does."""
    return threading.current_thread() is threading.main_thread()


def _terminate(number: int, frame: FrameType | None) -> None:
    raise Terminated("stopped")


def in_parts(count: int, least: int) -> list[range]:
    """The numbers below `count` in ranges for all cores, each of `least` numbers or more."""
    parts = max(1, min(_TASKS * loky.cpu_count(), count // least))
    bounds = [count * part // parts for part in range(parts + 1)]
    return [range(*pair) for pair in itertools.pairwise(bounds)]


@contextlib.contextmanager
def _interrupts_held() -> Iterator[None]:
    """Hold Ctrl-C back, and SIGTERM where it is raised: a process half begun would complain.

    Processes that begin now never see Ctrl-C, as this one will end them.
    """
    held = hasattr(signal, "pthread_sigmask")
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT}) if held else None
    came = list[int]()
    is_raised = _in_main_thread() and signal.getsignal(signal.SIGTERM) is _terminate
    if is_raised:
        signal.signal(signal.SIGTERM, lambda number, frame: came.append(number))
    try:
        yield
    finally:
        if is_raised:
            signal.signal(signal.SIGTERM, _terminate)
        if before is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
    if came:
        raise Terminated("stopped")


def _end_with(parent: int) -> None:
    """Let this process end when its parent does, even by a kill, of which nobody tells it."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
