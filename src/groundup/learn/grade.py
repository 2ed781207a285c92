"""A check of the learner's part: judged in a process of its own, limited in time and memory."""

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

# Whole trials take a second or two; what takes so long does not end.
SECONDS = 10.0
# Beyond what Python and its libraries take: the trials' arrays are small.
MEMORY = 2 << 30
# Loading torch on a busy laptop takes its time, and wrong answers are tried too.
_WALL = 180.0
# By SIGKILL the system ends what takes too much memory.
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
    """Judge the file `path`; each call of the part may take `seconds`.

    Raises `UserError` where there is no such file, or an empty one.
    """
    if path.is_dir():
        raise UserError(f"{path} is a folder where your file should be; move it away")
    if not path.is_file() or not path.stat().st_size:
        command = f"groundup learn {exercise.number}{Own(path.parent).option}"
        state = "is empty" if path.is_file() else "is not there"
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
            "inputs, or for what closes or takes away standard output."
        )
    elif status < 0:
        line = (
            f"The part's process was ended by signal {-status}, a crash: look for an array far "
            "larger than the inputs, or a library called with what it does not take."
        )
    else:
        line = (
            f"The part ended its process with exit status {status}: look for os._exit; a function "
            "returns instead."
        )
    return Verdict("differs", lines=(line,))


def _verdict(found: dict[str, Any]) -> Verdict:
    return Verdict(**{**found, "lines": tuple(found["lines"])})
