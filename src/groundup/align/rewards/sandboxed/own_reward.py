"""In a process of its own: a person's reward function, `module:function` of the current folder.

This file imports nothing of groundup.
"""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any


def answer(question: Mapping[str, Any]) -> dict[str, Any]:
    """The function's values as text, or `failed`: why there are none."""
    module, _, name = question["function"].partition(":")
    try:
        function = _function(module, name)
        given = [question["prompts"], question["completions"], question["rows"]]
        found = function(*given[: _takes(function)])
        values = found.tolist() if hasattr(found, "tolist") else list(found)
        return {"values": [_written(value) for value in values]}
    except BaseException as error:
        return {"failed": f"{type(error).__name__}: {error}"[:300]}


def _written(value: Any) -> str:
    """A number as Python writes it, also one of NumPy's or torch's; anything else as it shows."""
    try:
        return repr(value if isinstance(value, str) else float(value))
    except (TypeError, ValueError, OverflowError):
        return repr(value)


@lru_cache
def _function(module: str, name: str) -> Callable[..., Any]:
    sys.path.insert(0, os.getcwd())
    found: Callable[..., Any] = getattr(importlib.import_module(module), name)
    return found


def _takes(function: Callable[..., Any]) -> int:
    """Whether the function wants the rows, too: 3, else 2."""
    kinds = [one.kind for one in inspect.signature(function).parameters.values()]
    if inspect.Parameter.VAR_POSITIONAL in kinds:
        return 3
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return min(3, sum(kind in positional for kind in kinds))
