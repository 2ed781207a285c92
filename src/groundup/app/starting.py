"""The stages' forms in the studio, and the checks of the commands that forms make.

A form is built from the same config as the command, in the order and groups of --help, and its
values are parsed by the command line itself. A recipe is only parsed to be shown. It is checked,
which imports a user's own reward, when a user requests its command or starts it.
"""

from __future__ import annotations

import re
import threading
import tomllib
from collections.abc import Mapping, Sequence
from functools import cache, partial
from itertools import takewhile
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from cyclopts import CycloptsError
from pydantic.fields import FieldInfo

from groundup.app.cli import app, parse_error
from groundup.app.commands.options import help_text, option_name
from groundup.app.commands.stages import fields, group, located
from groundup.app.recipe import read_recipe, shipped, shipped_text
from groundup.app.recipe_folder import FILE, read_tables, runs_of
from groundup.app.settings import configured
from groundup.app.stages import EXPERIMENTS, INPUTS, RESUMES, STAGES, Stage
from groundup.errors import UserError
from groundup.studio.commands import RECIPE, Command, Recipes, Setting, Step, as_text, named_from
from groundup.train import ranges

# Common settings, shown after the required ones.
_LEADING = ("out", "minutes", "steps", "epochs", "learning_rate", "adapter", "seed")
# Group titles by what a stage makes.
_TITLES: Mapping[str, str] = {
    "data": "Make data",
    "tokenizer": "Make a tokenizer",
    "model": "Train a model",
    "reward": "Train a judge of answers",
    "guard": "Train a judge of answers",
    "report": "Measure",
    "results": "Measure",
}
_reading = threading.Lock()
_OPTIONS = ("minutes", "out", "seed")
# Limits on the files that are read as possible recipes: number, bytes, characters shown.
_MAX_FILES, _MAX_BYTES, _MAX_LETTERS = 200, 2**18, 240


@cache
def commands() -> dict[str, Command]:
    """All commands that a form can start, by name: recipes, stages, then experiments."""
    stages = {name: _command(stage, _TITLES[stage.makes]) for name, stage in STAGES.items()}
    experiments = {name: _command(one, "Experiments") for name, one in EXPERIMENTS.items()}
    return {"run": _recipe_command()} | stages | experiments


def _command(stage: Stage, title: str) -> Command:
    settings = [
        _setting(stage, name, field)
        for name, field in fields(stage)
        if name not in stage.config.unused
    ]
    places = {name: place for place, name in enumerate(_LEADING)}
    settings.sort(
        key=lambda one: (
            not one.required,
            places.get(one.name, len(places)),
            group(stage, one.name).sort_key,
        )
    )
    return Command(
        name=stage.name,
        subcommand=stage.command,
        help=stage.help,
        notes=stage.more,
        group=title,
        makes=stage.makes,
        start=stage.start,
        settings=settings,
        resumes=RESUMES in stage.more,
        check=partial(_check, stage),
    )


def _setting(stage: Stage, name: str, field: FieldInfo) -> Setting:
    types = set(_parts(field.annotation))
    choices = [one for each in types if get_origin(each) is Literal for one in get_args(each)]
    required = field.is_required()
    return Setting(
        name=name,
        option=option_name(name),
        help=help_text(field),
        group=str(group(stage, name).name),
        type=(
            "flag"
            if bool in types and dict not in types
            else "list"
            if tuple in types and dict not in types
            else "table"
            if dict in types
            else "text"
        ),
        default="" if required else as_text(field.default),
        choices=[str(one) for one in choices],
        accepts=INPUTS.get(name, ()),
        required=required and name != "out",
        leading=required or name in _LEADING,
        positional=name == stage.positional,
    )


def _parts(annotation: Any) -> list[Any]:
    """A union's members; for a generic type, the type and its origin."""
    origin = get_origin(annotation)
    if origin in (Union, UnionType):
        return [part for one in get_args(annotation) for part in _parts(one)]
    return [annotation] if origin is None else [annotation, origin]


def _check(stage: Stage, arguments: Sequence[str]) -> Path:
    """The folder that a command would write. Raises `UserError` for wrong arguments.

    Nothing is downloaded: errors that depend on data or a model are left to the command.
    """
    given = _parsed(arguments)
    given.pop("mine", None)
    return configured(stage.config, located(stage, given, fetch=False), option_name).out


def _parsed(arguments: Sequence[str]) -> dict[str, Any]:
    try:
        with _reading:
            _, bound, _ = app.parse_args(list(arguments))
    except CycloptsError as error:
        # The form replaces the --help that the terminal's message points to.
        raise UserError(parse_error(error, arguments).partition(" See: groundup ")[0]) from None
    bound.apply_defaults()
    return dict(bound.arguments)


# Recipes.


def _recipe_command() -> Command:
    helps = {
        one.name.lstrip("-").lower(): one.parameter.help or ""
        for one in app["run"].assemble_argument_collection()
    }
    recipe = Setting(
        RECIPE,
        "RECIPE",
        helps[RECIPE],
        "",
        "text",
        accepts=(RECIPE,),
        required=True,
        leading=True,
        positional=True,
    )
    rest = [
        Setting(name, option_name(name), helps[name], "", "text", leading=True) for name in _OPTIONS
    ]
    return Command(
        name="run",
        subcommand="run",
        help="Run a whole recipe: all of its stages in order.",
        notes=[RESUMES],
        group="Run a whole recipe",
        makes=RECIPE,
        start=None,
        settings=[recipe, *rest],
        resumes=True,
        check=_check_recipe,
        recipes=Recipes(_recipes, _steps),
    )


def _check_recipe(arguments: Sequence[str]) -> Path:
    """The folder that a recipe would run in. Raises `UserError` for an invalid recipe."""
    given = _parsed(arguments)
    ranges.check("--minutes", given["minutes"], ranges.Minutes | None, "or leave it out")
    ranges.check("--seed", given["seed"], ranges.Seed | None, "or leave it out")
    found = read_recipe(given[RECIPE], given["seed"])
    return given["out"] or Path(found.name)


def _recipes(root: Path | None) -> dict[str, str]:
    """Recipes that come with groundup and recipe files in and near `root`, with their purposes."""
    found = {name: _purpose(shipped_text(name), name) for name in shipped()}
    if root is None:
        return found
    here = Path.cwd()
    for file in sorted([*root.glob("*.toml"), *root.glob("[!.]*/*.toml")])[:_MAX_FILES]:
        # The copy in a recipe's output folder is for resuming it.
        if file.name != FILE and not file.name.startswith(".") and _tables(file):
            name = named_from(file, here)
            found[name] = _purpose(file.read_text(encoding="utf-8-sig"), name)
    return found


def _purpose(text: str, name: str) -> str:
    """The first sentence of a recipe's leading comment, else the names of its runs."""
    lines = takewhile(lambda line: re.match("# *[^# ]", line), text.splitlines())
    said = " ".join(line.removeprefix("#").strip() for line in lines).replace("`", "")
    said = re.split(rf":? *groundup (?:run )?{re.escape(Path(name).stem)}|\. (?=[A-Z])", said)[0]
    return _line(said) if said else ", ".join(tomllib.loads(text))


def _steps(source: str) -> list[Step]:
    """The runs of a recipe, given by its name, its file or its output folder."""
    path = Path(source)
    if source in shipped() and not path.is_file():
        tables = tomllib.loads(shipped_text(source))
    else:
        tables = _tables(path / FILE if path.is_dir() else path) if source else {}
    steps = []
    for title, table in tables.items():
        settings = {
            name: as_text(value) for name, value in table.items() if name not in ("stage", "seeds")
        }
        said = _line(", ".join(f"{name} {value}" for name, value in settings.items()))
        stage = str(table.get("stage", title))
        steps += [Step(name, stage, said) for name in runs_of(title, table)]
    return steps


def _tables(file: Path) -> dict[str, dict[str, Any]]:
    """The tables of a recipe's file; none for other files, links and large files."""
    try:
        is_small = not file.is_symlink() and file.is_file() and file.stat().st_size < _MAX_BYTES
    except (OSError, ValueError):
        return {}
    tables = read_tables(file) if is_small else None
    known = [str(table.get("stage", title)) in STAGES for title, table in (tables or {}).items()]
    return tables if tables and all(known) else {}


def _line(text: str) -> str:
    return text if len(text) <= _MAX_LETTERS else f"{text[:_MAX_LETTERS]} …"
