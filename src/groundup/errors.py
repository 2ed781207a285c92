"""What a person gave us that cannot work, said in one clear sentence."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable


class UserError(Exception):
    """A wrong input: the message names the value, the rule it breaks and the remedy.

    The command line prints the message alone and exits with code 2; library callers catch it
    like any exception. Our own broken invariants are `assert`s and never this class.
    """


class CheckFailed(Exception):
    """Something was compared as asked, and differs: no wrong input, but no success either.

    The command line prints the message and exits with code 1.
    """


def shorten(value: object) -> str:
    """A value as a message shows it: a stranger's may be endless."""
    try:
        text = repr(value)
    except (RecursionError, ValueError):  # nested deeply, or a number of thousands of digits
        return f"{type(value).__name__} without end"
    return text if len(text) <= 120 else f"{text[:119]}…"


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that is most like an unknown one, if any is: first what it begins."""
    # Late: every start of the command loads this page.
    import difflib

    others = [one for one in known if one != name]
    if begun := [one for one in others if name and one.startswith(name)]:
        return begun[0]
    return next(iter(difflib.get_close_matches(name, others, n=1, cutoff=0.5)), None)


def known_names(name: str, known: Collection[str], introduction: str) -> str:
    """Return a hint for an unknown name: the nearest known one, and all of them."""
    everything = f"{introduction} {', '.join(known) or 'none'}"
    if (near := nearest(name, known)) is None:
        return everything
    return f"did you mean {near!r}? {everything[0].upper()}{everything[1:]}"


def installing(extra: str) -> str:
    """The command that adds an extra to this very installation, wherever it came from."""
    # Late: every start of the command loads this page.
    import json
    from importlib.metadata import PackageNotFoundError, distribution
    from urllib.parse import unquote, urlparse

    place, editable = "groundup", ""
    try:
        # Written by pip where a package came from a folder (PEP 610).
        origin = json.loads(distribution("groundup").read_text("direct_url.json") or "{}")
        url = urlparse(origin.get("url", ""))
        if url.scheme == "file" and "dir_info" in origin:
            place = unquote(url.path)
            editable = "--editable " if origin["dir_info"].get("editable") else ""
    except (PackageNotFoundError, ValueError, OSError):
        pass
    return f"{sys.executable} -m pip install {editable}'{place}[{extra}]'"
