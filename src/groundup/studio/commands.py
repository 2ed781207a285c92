"""From a form to a command: the settings of a stage, and the arguments that they become.

A form is another way to write `groundup STAGE …`. Its values become the arguments of that command,
which the command line itself parses and checks, so that nothing is decided twice. What a shell
would do first, to patterns and ~, is done here.
"""

from __future__ import annotations

import glob
import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from groundup.errors import UserError, shorten

YES, NO, OUT, RECIPE = "yes", "no", "out", "recipe"


@dataclass(frozen=True)
class Setting:
    """A setting of a command: `option` is its name on the command line, `help` describes it.

    `choices` are all its values, if they can be listed; `accepts` are the kinds of folders or files
    that it may name, if it names any. A `leading` setting matters to most users.
    """

    name: str
    option: str
    help: str
    group: str
    type: Literal["text", "flag", "list", "table"]
    default: str = ""
    choices: Sequence[str] = ()
    accepts: Sequence[str] = ()
    required: bool = False
    leading: bool = False
    positional: bool = False


@dataclass(frozen=True)
class Step:
    """A table of a recipe: its name, its stage, and its other settings in a line."""

    name: str
    stage: str
    settings: str


@dataclass(frozen=True)
class Recipes:
    """What is known of recipes without running anything of them.

    `found` returns the built-in recipes and, for a folder, the files in and near it, each with its
    purpose; `steps` returns the tables of a recipe by its name or file, and none for anything else.
    """

    found: Callable[[Path | None], Mapping[str, str]]
    steps: Callable[[str], Sequence[Step]]


@dataclass(frozen=True)
class Command:
    """A command that can be started: a stage with its config's settings, or a whole recipe.

    `subcommand` follows `groundup`. `start` is the input that it continues from, if there is one. A
    command that `resumes` saves its state when it is stopped, and the same command continues from
    there. `check` parses the arguments and returns the folder that they would write; it raises
    `UserError` for anything wrong with them. `recipes` belong to the command that runs them.
    """

    name: str
    subcommand: str
    help: str
    notes: Sequence[str]
    group: str
    makes: str
    start: str | None
    settings: Sequence[Setting]
    resumes: bool
    check: Callable[[Sequence[str]], Path]
    recipes: Recipes | None = None

    def input_for(self, made: str) -> Setting | None:
        """The setting that takes what another stage made; its start, if that does."""
        fitting = [one for one in self.settings if made in one.accepts]
        # A required input is meant before an optional one.
        fitting.sort(key=lambda one: (one.name != self.start, not one.positional, not one.required))
        return fitting[0] if fitting else None


def arguments(command: Command, values: Mapping[str, str], expand: bool = True) -> list[str]:
    """The arguments after `groundup`, without the values that were left empty.

    Raises `UserError` for an invalid list or switch, and for a pattern of files that matches none
    or, without `expand`, for any pattern.
    """
    given = {name: text.strip() for name, text in values.items() if text.strip()}
    order = sorted(command.settings, key=lambda one: (not one.positional, one.name == OUT))
    found = command.subcommand.split()
    for one in order:
        if one.name in given:
            found += _argument(one, given[one.name], expand)
    return found


def _argument(one: Setting, text: str, expand: bool) -> list[str]:
    if one.type == "flag":
        return _switch(one, text)
    if one.type == "text":
        named = _expanded(one, text, expand)
        if len(named) > 1:
            raise UserError(
                f"{one.option}={shorten(text)} matches {len(named)} names, such as {named[0]} and "
                f"{named[1]}; give one"
            )
        return _valued(one, named)
    parts = _split(one, text)
    if one.type == "list":
        return _valued(one, [name for part in parts for name in _expanded(one, part, expand)])
    found = []
    for part in parts:
        name, has_value, value = part.partition("=")
        if not name or not has_value:
            raise UserError(
                f"{one.option}={part!r} must be a name, '=' and its value, such as name=0.5; "
                f"give {one.help}"
            )
        found += _optional(f"{one.option}.{name}", value.split(","))
    return found


def _expanded(one: Setting, text: str, expand: bool) -> list[str]:
    """The names of files and folders that a shell would make of ~ and of a pattern."""
    if not one.accepts:
        return [text]
    text = os.path.expanduser(text)
    # A file may have such a name, and so may a function or a model elsewhere.
    if not glob.has_magic(text) or os.path.lexists(text):
        return [text]
    if not expand:
        raise UserError(
            f"{one.option}={shorten(text)} is a pattern, and a studio that is open to everyone "
            "searches no folder; name the files, or start the studio with --api-key"
        )
    found = [] if "\0" in text else sorted(glob.glob(text))
    if not found:
        raise UserError(
            f"{one.option}={shorten(text)} matches nothing in {Path.cwd()}; name what is there, "
            "or another pattern"
        )
    return found


def _switch(one: Setting, text: str) -> list[str]:
    if text not in (YES, NO):
        raise UserError(f"{one.option}={text!r} must be {YES} or {NO}; or leave it out: {one.help}")
    if text == one.default or (text == NO and not one.default):
        return []
    return [one.option if text == YES else f"--no-{one.option.removeprefix('--')}"]


def _valued(one: Setting, values: Sequence[str]) -> list[str]:
    if one.positional and not any(value.startswith("-") for value in values):
        return [*values]
    return _optional(one.option, values)


def _optional(option: str, values: Sequence[str]) -> list[str]:
    # A value that begins with a dash would be read as another option.
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


# The settings of a run, as a form has them.


def as_text(value: object) -> str:
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


def values_of(
    command: Command, config: Mapping[str, Any], found: Callable[[str], str]
) -> dict[str, str]:
    """The values of a form for such a config, without the defaults.

    `found` returns the current place of a folder or file that the config names.
    """
    again = {}
    for one in command.settings:
        value = config.get(one.name)
        if one.accepts and isinstance(value, str):
            value = found(value)
        elif one.accepts and isinstance(value, list):
            value = [found(str(part)) for part in value]
        text = as_text(value)
        if text and text != one.default:
            again[one.name] = text
    return again


# Folders, as a user would name them where the studio was started.


def named_from(folder: Path, here: Path) -> str:
    """The name of a folder relative to `here`, if it is below that, else its whole path."""
    return str(folder.relative_to(here) if folder.is_relative_to(here) else folder)


def below(root: Path, here: Path, text: str, is_shown: Callable[[str], bool]) -> str:
    """The path, below the root, of the folder that a run is to write.

    Raises `UserError` for a folder elsewhere, also by way of a link, and for one whose runs are not
    shown.
    """
    root = Path(os.path.realpath(root))
    try:
        folder = Path(os.path.realpath(here / Path(text).expanduser()))
    except (RuntimeError, ValueError):  # an unknown user's home, a zero byte
        raise UserError(f"--out={text!r} is no folder's name; name one below {root}") from None
    if root not in folder.parents:
        raise UserError(
            f"--out={text!r} is not below {root}, the folder that is shown here; name one "
            f"in it, such as {named_from(root / folder.name, here)}"
        )
    path = folder.relative_to(root).as_posix()
    if not is_shown(path) or not text.isprintable():
        raise UserError(
            f"--out={text!r} would not be shown here: a name in it begins with a dot or is one "
            "that runs use for their parts, such as tokens, or it is more than six folders deep; "
            "choose another name"
        )
    return path


def free_path(taken: Callable[[str], bool], group: str, name: str) -> str:
    """An unused path in that group: sft, sft-2, …"""
    first = f"{group}/{name}".lstrip("/")
    names = (first, *(f"{first}-{number}" for number in range(2, 10_000)))
    return next(one for one in names if not taken(one))
