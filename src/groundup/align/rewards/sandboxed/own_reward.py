"""Runs in a separate process: a user's reward function, `module:function` in their folder.

A parameter called `prompts`, `completions` or `rows` is given these, at any position. Another one
is given the argument at its position in f(prompts, completions, rows), but the rows only if it has
no default. A function of `completions` and any keyword is called as trl calls it: with keywords
only, one of them for every column of the rows.

This file imports nothing of groundup.
"""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from collections.abc import Callable, Mapping, Set
from functools import lru_cache
from types import ModuleType
from typing import Any

_GIVEN = ("prompts", "completions", "rows")
# Iterables that hold no number for each completion in order.
_NO_LISTS = (Mapping, Set, str, bytes, bytearray)


def answer(question: Mapping[str, Any]) -> dict[str, Any]:
    """The function's values as text, or the reason why there are none.

    `missing` says why the module cannot be imported; `known` are its functions, if this one is not
    among them; `refused` says why it cannot be called; `failed` is what it raised, `returned` what
    it returned instead of a list. A question without completions calls nothing.
    """
    name, _, wanted = question["function"].partition(":")
    try:
        module = _module(name, tuple(question["places"]))
    except BaseException as error:  # a user's module may raise anything
        return {"missing": _said(error)}
    try:
        function = getattr(module, wanted, None)
        if not callable(function):
            public = (one for one in vars(module).items() if not one[0].startswith("_"))
            return {"known": [one for one, value in public if callable(value)]}
        given = {one: question.get(one, []) for one in _GIVEN}
        try:
            positional, keywords = _arguments(function, given)
        except (TypeError, ValueError) as reason:
            return {"refused": str(reason)[:300]}
        if "completions" not in question:
            return {}
        found = function(*positional, **keywords)
        if isinstance(found, _NO_LISTS) or hasattr(found, "columns"):
            return {"returned": f"a value of type {type(found).__name__}"}
        values = found.tolist() if hasattr(found, "tolist") else list(found)
        return {"values": [_written(value) for value in values]}
    except BaseException as error:
        return {"failed": _said(error)}


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"[:300]


def _written(value: Any) -> str:
    """A number as Python writes it, including NumPy's and torch's; anything else as its repr."""
    try:
        return repr(value if isinstance(value, str) else float(value))
    except (TypeError, ValueError, OverflowError):
        return repr(value)


@lru_cache
def _module(name: str, places: tuple[str, ...]) -> ModuleType:
    sys.path[:0] = places
    os.environ["GROUNDUP_IMPORTS_REWARD"] = name  # read when a run is opened
    try:
        return importlib.import_module(name)
    finally:
        del os.environ["GROUNDUP_IMPORTS_REWARD"]


def _arguments(
    function: Callable[..., Any], given: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The positional and keyword arguments that the function is called with.

    Raises TypeError for a function that takes no completions or requires other arguments, and
    ValueError for one in C that has no signature.
    """
    signature = inspect.signature(function)
    takes = signature.parameters
    takes_any = any(one.kind is one.VAR_KEYWORD for one in takes.values())
    if takes_any and ("completions" in takes or len(takes) == 1):
        names = dict.fromkeys(name for row in given["rows"] for name in row)
        return (), {name: [row.get(name) for row in given["rows"]] for name in names} | given
    bound = signature.bind_partial()
    left = {name: value for name, value in given.items() if name not in takes}
    for place, (name, one) in enumerate(takes.items()):
        by_place = one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)
        meant = _GIVEN[place] if by_place and place < len(_GIVEN) else None
        is_needed = one.default is one.empty
        if name in given:
            bound.arguments[name] = given[name]
        elif meant in left and (is_needed or meant != "rows"):
            bound.arguments[name] = left.pop(meant)
        elif one.kind is one.VAR_POSITIONAL:
            bound.arguments[name] = tuple(left.values())
            left = {}
        elif is_needed and one.kind is not one.VAR_KEYWORD:
            raise TypeError(f"its parameter {name!r} is none of {', '.join(_GIVEN)}")
    if "completions" in left:
        raise TypeError("it takes no completions")
    return bound.args, bound.kwargs
