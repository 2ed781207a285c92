"""From what a form says to a command: the settings of a stage, and the words that they amount to.

A form is another way to write `groundup STAGE …`. What is typed in it becomes the words of that
command, which the command line itself reads and judges, and so nothing is decided twice.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from groundup.errors import UserError

How = Literal["line", "flag", "several", "table"]


@dataclass(frozen=True)
class Setting:
    """A field of a stage's config: `option` is its name at the command line, `said` what it is.

    `choices` are all that it may be, where they can be named; `accepts` is what may lie in the
    folder that it names, where it names one. One that `leads` is among those that matter first.
    """

    name: str
    option: str
    said: str
    group: str
    how: How
    default: str = ""
    choices: Sequence[str] = ()
    accepts: Sequence[str] = ()
    required: bool = False
    leads: bool = False
    positional: bool = False


@dataclass(frozen=True)
class Kind:
    """A kind of step that can be started: a row of the stage table, with its config's settings.

    `start` is the input that it goes on from, where it has one. One that `resumes` saves what it
    has when it is stopped, and the same command goes on from there. `check` reads the words of its
    command and returns the folder that they would write. It raises `UserError` for all that is
    wrong with them.
    """

    name: str
    command: str
    help: str
    more: Sequence[str]
    group: str
    makes: str
    start: str | None
    settings: Sequence[Setting]
    resumes: bool
    check: Callable[[Sequence[str]], Path]

    def input_for(self, made: str) -> Setting | None:
        """The setting that takes what another stage made; its start, where that does."""
        fitting = [one for one in self.settings if made in one.accepts]
        # What a stage needs is meant before what it may have.
        fitting.sort(key=lambda one: (one.name != self.start, not one.positional, not one.required))
        return fitting[0] if fitting else None


YES, NO, OUT = "yes", "no", "out"


def words(kind: Kind, typed: Mapping[str, str]) -> list[str]:
    """The words of a command, in which what was left empty is left out.

    Raises `UserError` for what is no list or no yes or no.
    """
    given = {name: text.strip() for name, text in typed.items() if text.strip()}
    order = sorted(kind.settings, key=lambda one: (not one.positional, one.name == OUT))
    found = kind.command.split()
    for one in order:
        if one.name in given:
            found += _words(one, given[one.name])
    return found


def _words(one: Setting, text: str) -> list[str]:
    if one.how == "flag":
        return _switch(one, text)
    if one.how == "line":
        return _valued(one, [_at_home(one, text)])
    parts = _split(one, text)
    if one.how == "several":
        return _valued(one, [_at_home(one, part) for part in parts])
    found = []
    for part in parts:
        name, has_value, value = part.partition("=")
        if not name or not has_value:
            raise UserError(
                f"{one.option}={part!r} must be a name, '=' and its value, such as name=0.5; "
                f"give {one.said}"
            )
        found += _optional(f"{one.option}.{name}", value.split(","))
    return found


def _at_home(one: Setting, text: str) -> str:
    """The name of a folder with what ~ stands for, as a terminal would give it to the command."""
    return os.path.expanduser(text) if one.accepts else text


def _switch(one: Setting, text: str) -> list[str]:
    if text not in (YES, NO):
        raise UserError(f"{one.option}={text!r} must be {YES} or {NO}; or leave it out: {one.said}")
    if text == one.default or (text == NO and not one.default):
        return []
    return [one.option if text == YES else f"--no-{one.option.removeprefix('--')}"]


def _valued(one: Setting, values: Sequence[str]) -> list[str]:
    if one.positional and not any(value.startswith("-") for value in values):
        return [*values]
    return _optional(one.option, values)


def _optional(option: str, values: Sequence[str]) -> list[str]:
    # What begins with a dash would be read as another option.
    if any(value.startswith("-") for value in values):
        return [f"{option}={value}" for value in values]
    return [option, *values]


def _split(one: Setting, text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError:
        raise UserError(
            f"{one.option}={text!r} has a quotation mark that is not closed; close it, or write a "
            "name with spaces or quotation marks in quotation marks"
        ) from None


# What a run was started with, as it would be typed.


def typed(value: object) -> str:
    """A value of a config as a form has it."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return YES if value else NO
    if isinstance(value, list | tuple):
        return shlex.join(map(str, value))
    if isinstance(value, Mapping):
        return shlex.join(f"{name}={_inner(one)}" for name, one in value.items())
    return str(value)


def _inner(value: object) -> str:
    if isinstance(value, list | tuple):
        return ",".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def typed_again(
    kind: Kind, config: Mapping[str, Any], found: Callable[[str], str]
) -> dict[str, str]:
    """What would be typed for such a config: all but the defaults.

    `found` says where a folder or file lies by now that the config names.
    """
    again = {}
    for one in kind.settings:
        value = config.get(one.name)
        if one.accepts and isinstance(value, str):
            value = found(value)
        elif one.accepts and isinstance(value, list):
            value = [found(str(part)) for part in value]
        text = typed(value)
        if text and text != one.default:
            again[one.name] = text
    return again


# Folders, as a person would name them where the studio was started.


def as_typed(folder: Path, here: Path) -> str:
    """The name of a folder seen from `here`, where it lies below, and else the whole of it."""
    return str(folder.relative_to(here) if folder.is_relative_to(here) else folder)


def below(root: Path, here: Path, text: str, is_shown: Callable[[str], bool]) -> str:
    """The path, below the root, of the folder that a run is to write.

    Raises `UserError` for one that lies elsewhere, also by way of a link, and for one whose runs
    are not shown.
    """
    root = Path(os.path.realpath(root))
    try:
        folder = Path(os.path.realpath(here / Path(text).expanduser()))
    except (RuntimeError, ValueError):  # the home of nobody, a zero byte
        raise UserError(f"--out={text!r} is no folder's name; name one below {root}") from None
    if root not in folder.parents:
        raise UserError(
            f"--out={text!r} does not lie below {root}, the folder that is shown here; name one "
            f"in it, such as {as_typed(root / folder.name, here)}"
        )
    path = folder.relative_to(root).as_posix()
    if not is_shown(path) or not text.isprintable():
        raise UserError(
            f"--out={text!r} would not be shown here: a name in it begins with a dot or is one "
            "that runs keep things under, such as tokens, or it lies more than six folders deep; "
            "choose another name"
        )
    return path


def free_path(taken: Callable[[str], bool], group: str, name: str) -> str:
    """A path in that group which nothing has yet: sft, sft-2, …"""
    first = f"{group}/{name}".lstrip("/")
    names = (first, *(f"{first}-{number}" for number in range(2, 10_000)))
    return next(one for one in names if not taken(one))


def blamed(kind: Kind, message: str) -> Iterator[tuple[str, str]]:
    """The settings that a message names at the beginning of its lines, each with its line."""
    names: Iterable[Setting] = kind.settings
    for line in message.splitlines():
        said = line.split("=")[0].split(" ")[0].removeprefix("Invalid")
        for one in names:
            if said in (one.option, one.name, one.name.upper()):
                yield one.name, line
