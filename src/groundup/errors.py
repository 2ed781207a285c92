"""Exceptions for wrong input, and helpers for their messages."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable


class UserError(Exception):
    """A wrong input: the message names the value, the rule it breaks and the remedy.

    The command line prints only the message and exits with code 2. Library callers catch it like
    any exception. Internal invariants use `assert`, never this class.
    """


class CheckFailed(Exception):
    """A requested comparison found a difference: the input is valid, but the check fails.

    The command line prints the message and exits with code 1.
    """


def shorten(value: object) -> str:
    """Return `repr(value)` for a message, cut to 120 characters."""
    try:
        text = repr(value)
    except (RecursionError, ValueError):  # deeply nested, or a number of thousands of digits
        return f"{type(value).__name__} without end"
    return text if len(text) <= 120 else f"{text[:119]}…"


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name most similar to an unknown one; names that start with it come first."""
    # Imported here because every start of the command loads this module.
    import difflib

    others = [other for other in known if other != name]
    if completions := [other for other in others if name and other.startswith(name)]:
        return completions[0]
    return next(iter(difflib.get_close_matches(name, others, n=1, cutoff=0.5)), None)


def known_names(name: str, known: Collection[str], introduction: str) -> str:
    """Return a hint for an unknown name: the nearest known one, and all of them."""
    all_names = f"{introduction} {', '.join(known) or 'none'}"
    if (near := nearest(name, known)) is None:
        return all_names
    return f"did you mean {near!r}? {all_names[0].upper()}{all_names[1:]}"


def installing(extra: str) -> str:
    """Return the command that adds an extra to the current installation, whatever its source."""
    # Imported here because every start of the command loads this module.
    import json
    from importlib.metadata import PackageNotFoundError, distribution
    from urllib.parse import unquote, urlparse

    place, editable = "groundup", ""
    try:
        # pip writes this file when a package is installed from a folder (PEP 610).
        origin = json.loads(distribution("groundup").read_text("direct_url.json") or "{}")
        url = urlparse(origin.get("url", ""))
        if url.scheme == "file" and "dir_info" in origin:
            place = unquote(url.path)
            editable = "--editable " if origin["dir_info"].get("editable") else ""
    except (PackageNotFoundError, ValueError, OSError):
        pass
    return f"{sys.executable} -m pip install {editable}'{place}[{extra}]'"
