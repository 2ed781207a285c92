"""A check of the learner's part, in a process of its own, limited in time and memory."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from groundup.errors import UserError
from groundup.learn import sandboxed
from groundup.learn.exercise import Exercise
from groundup.learn.judge import Verdict
from groundup.learn.own import Own
from groundup.runs.sandbox import Limits, Sandbox

# All trials together take a second or two; a call that takes this long does not end.
SECONDS = 10.0
# In addition to the memory of Python and its libraries: the trials' arrays are small.
MEMORY = 2 << 30
# Loading torch on a busy laptop is slow, and the known wrong answers are tried too.
_WALL = 180.0
# The system ends a process that takes too much memory with SIGKILL.
_KILLED = -9


def grade(
    exercise: Exercise,
    path: Path,
    *,
    seed: int = 0,
    seconds: float = SECONDS,
    memory_bytes: int = MEMORY,
    wall_seconds: float = _WALL,
) -> Verdict:
    """Check the file `path`; each call of the part may take `seconds`.

    Raises `UserError` if the file does not exist or is empty.
    """
    if path.is_dir():
        raise UserError(f"{path} is a folder where your file should be; move it away")
    if not path.is_file() or not path.stat().st_size:
        command = f"groundup learn {exercise.number}{Own(path.parent).option}"
        state = "is empty" if path.is_file() else "does not exist"
        raise UserError(f"{path} {state}; {command} writes it, with the lesson")
    question = {
        "exercise": exercise.number,
        "file": str(path.resolve()),
        "seed": seed,
        "seconds": seconds,
        "memory_bytes": memory_bytes,
    }
    sandbox = Sandbox(Path(sandboxed.__file__), Limits(wall_seconds=wall_seconds))
    begun = time.monotonic()
    try:
        found = sandbox.ask(question)
    finally:
        sandbox.close()
    if found is not None:
        return _verdict(found)
    status = sandbox.exit_status
    if time.monotonic() - begun >= wall_seconds:
        line = (
            f"The part took longer than {wall_seconds:.0f} s and was ended: look for a loop that "
            "does not end."
        )
    elif status is None or status == _KILLED:
        line = (
            "The part's process was ended or gave no answer: look for an array far larger than the "
            "inputs, or for code that closes or redirects standard output."
        )
    elif status < 0:
        line = (
            f"The part's process was ended by signal {-status}, a crash: look for an array far "
            "larger than the inputs, or a library call with invalid arguments."
        )
    else:
        line = (
            f"The part ended its process with exit status {status}: look for os._exit; a function "
            "should return instead."
        )
    return Verdict("differs", lines=(line,))


def _verdict(found: dict[str, Any]) -> Verdict:
    return Verdict(**{**found, "lines": tuple(found["lines"])})
