"""In the sandbox: does a program keep the assertions that were written for it?

This file imports nothing of groundup. The program and each assertion run as files of their own,
from a folder that the parent has made.
"""

from __future__ import annotations

import runpy
from collections.abc import Mapping
from typing import Any


def answer(question: Mapping[str, Any]) -> dict[str, Any]:
    """How many of the files in `tests` run through after `program`."""
    try:
        names = runpy.run_path(question["program"])
    except BaseException:  # whatever a stranger's program raises, the end of the process included
        return {"passed": 0}
    return {"passed": sum(_holds(test, names) for test in question["tests"])}


def _holds(test: str, names: Mapping[str, Any]) -> bool:
    try:
        runpy.run_path(test, init_globals=dict(names))
    except BaseException:
        return False
    return True
