"""The module that `grade` runs in a process of its own: it loads and judges the learner's file.

The part's printed output is kept for the learner. A part that computes too long is interrupted, and
one that requests too much memory gets a `MemoryError`. If neither stops it, the parent process
(`runs.sandbox`) ends it.
"""

from __future__ import annotations

import contextlib
import io
import signal
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from types import FrameType
from typing import Any

from groundup.learn.exercise import importable, module_of
from groundup.learn.judge import TimeLimitExceeded, Verdict, judge, own_line, sentence
from groundup.learn.road import find

_MAX_PRINTED = 4000
# Multiple of the time limit: a part that sleeps or waits for input uses no processor time.
_WAITS = 6


def answer(question: Mapping[str, Any]) -> dict[str, Any]:
    """Judge the file named in a question; see `grade`."""
    exercise = find(question["exercise"])
    for page in ("grader", "seam") if exercise.has_seam else ("grader",):
        exercise.page(page)  # so that its imports do not count as the part's memory
    path = Path(question["file"])
    _limit_memory(question["memory_bytes"])
    printed = io.StringIO()

    def limit() -> contextlib.AbstractContextManager[object]:
        return _interrupted_after(question["seconds"])

    with (
        importable(path.parent),
        contextlib.redirect_stdout(printed),
        contextlib.redirect_stderr(printed),
    ):
        try:
            with limit():
                part = module_of(path, exercise.name)
        except SyntaxError as error:
            where = f" in line {error.lineno}" if error.lineno is not None else ""
            line = f"The file is not valid Python: {error.msg}{where}"
            text = (error.text or "").strip()
            verdict = Verdict("differs", lines=(f"{line}: {text}" if text else line,))
        except (Exception, SystemExit, KeyboardInterrupt, TimeLimitExceeded) as error:
            said = "it does not end" if isinstance(error, TimeLimitExceeded) else sentence(error)
            line = f"The file cannot be imported: {said}"
            where = own_line(error, str(path))
            verdict = Verdict("differs", lines=(line, f"  {where}") if where else (line,))
        else:
            try:
                verdict = judge(exercise, part, question["seed"], limit)
            except (SystemExit, KeyboardInterrupt):
                line = "The part ends the program (exit, quit …); a function should return instead."
                verdict = Verdict("differs", lines=(line,))
    text = printed.getvalue()
    if len(text) > _MAX_PRINTED:
        text = f"{text[:_MAX_PRINTED]}…\n"
    return asdict(replace(verdict, printed=text))


@contextlib.contextmanager
def _interrupted_after(seconds: float) -> Iterator[None]:
    """Raise `TimeLimitExceeded` in the running code after `seconds`, if the system has alarms.

    The limit is on this process's processor time, since on a busy machine a correct part has to
    wait for its turn. A part that only waits is interrupted after `_WAITS` times as long.
    """
    if not hasattr(signal, "setitimer"):
        yield
        return

    computed, begun = time.process_time(), time.monotonic()

    def ring(number: int, frame: FrameType | None) -> None:
        waited = time.monotonic() - begun
        if time.process_time() - computed >= seconds or waited >= _WAITS * seconds:
            raise TimeLimitExceeded

    before = signal.signal(signal.SIGALRM, ring)
    # The alarm repeats, since an `except:` in the part may swallow the first.
    outer = signal.setitimer(signal.ITIMER_REAL, seconds, 0.5)  # the alarm of the whole process
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, *outer)
        signal.signal(signal.SIGALRM, before)


def _limit_memory(more: int) -> None:
    """Allow this process `more` bytes beyond its current memory, if the system can."""
    try:
        import resource

        import psutil
    except ImportError:
        return
    most = psutil.Process().memory_info().vms + more
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
