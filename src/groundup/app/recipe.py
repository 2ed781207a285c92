"""A recipe is a whole journey in one TOML file.

    [base]                      a table is a run, and its name is the folder
    stage = "pretrain"          what it does (default: the table's name)
    from = "tokenizer"          an earlier table, a folder or pack:name (default: the table before)
    data = "data"               further inputs by name; everything else is a setting of the stage

It is read and checked as a whole before anything runs. Then table after table runs in its own
folder under one `out`; what is finished is skipped and what is half-finished goes on, so that the
same command always brings the journey to its end.
"""

from __future__ import annotations

import re
import shlex
import shutil
import sys
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from groundup.app.settings import configured, known_names
from groundup.app.stages import INPUTS, STAGES, Stage
from groundup.data.packs.manifest import find_set
from groundup.errors import UserError
from groundup.formats.locate import (
    GGUF_SUFFIX,
    HUB,
    PACK,
    check_named,
    holds_model,
    is_named,
    locate,
)
from groundup.runs.console import say
from groundup.runs.files import is_kept, write_text
from groundup.runs.folder import is_finished, lock_folder
from groundup.train.ranges import check_text

_FILE = "recipe.toml"
_COPY = f".{_FILE}.copy"
_TABLE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


@dataclass(frozen=True)
class Table:
    """One run of a recipe.

    `settings` are what the recipe sets of the stage's own; `inputs` where its inputs lie: the name
    of an earlier table, an absolute path, or a model's name (`pack:smollm2`, `hub:owner/name`).
    """

    name: str
    stage: Stage
    settings: Mapping[str, Any]
    inputs: Mapping[str, str | tuple[str, ...]]

    def config(self, out: Path) -> BaseModel:
        """The stage's config with `out` as the folder of the whole recipe. Raises `UserError`."""
        inputs = {
            field: _placed(out, at) if isinstance(at, str) else [_placed(out, one) for one in at]
            for field, at in self.inputs.items()
        }
        values = {**self.settings, **inputs, "out": str(out / self.name)}
        return configured(self.stage.config, values, lambda field: f"[{self.name}] {field}")


def _placed(out: Path, at: str) -> str:
    """Where an input lies once the recipe's folder is known; a model that is named stays so."""
    # Under pathlib, `out / path` is `path` itself where that is absolute.
    return at if is_named(at) else str(out / at)


@dataclass(frozen=True)
class Recipe:
    """A recipe that has been read and found sound; `text` is the file as it was written."""

    name: str
    text: str
    tables: tuple[Table, ...]

    @property
    def chat_table(self) -> Table | None:
        """The table whose model one talks to: the last that was taught to answer."""
        return next((table for table in reversed(self.tables) if table.stage.chats), None)


# Reading.


def shipped() -> tuple[str, ...]:
    """Names of the recipes that come with the package."""
    files = resources.files("groundup.app.recipes").iterdir()
    return tuple(sorted(f.name.removesuffix(".toml") for f in files if f.name.endswith(".toml")))


def read_recipe(source: Path | str) -> Recipe:
    """The recipe in a file, or one that comes with the package by its name.

    Folders in it are relative to the file's own. Raises `UserError` for all that would not run:
    the syntax, unknown tables and settings, wrong values, inputs that are not there or do not fit.
    """
    path = Path(source)
    check_text("the recipe's name", path)
    if str(source) in shipped() and not path.is_file():
        text = (resources.files("groundup.app.recipes") / f"{source}.toml").read_text(
            encoding="utf-8"
        )
        return _recipe(str(source), text, Path())
    return _recipe(path.stem, _read(path), path.parent)


def _read(path: Path) -> str:
    if path.is_dir():
        raise UserError(f"{str(path)!r} is a folder; give the recipe's .toml file")
    try:
        return path.read_bytes().decode("utf-8")
    except FileNotFoundError:
        raise UserError(
            f"there is no recipe file {str(path)!r}; "
            f"{known_names(str(path), shipped(), 'the recipes that come with groundup are')}"
        ) from None
    except UnicodeDecodeError as error:
        raise UserError(
            f"{str(path)!r} is not text in UTF-8 (byte {error.start}); a recipe is a TOML file"
        ) from None
    except OSError as error:
        raise UserError(
            f"{str(path)!r} cannot be read ({error.strerror}); check its name and permissions"
        ) from None


def _recipe(name: str, text: str, folder: Path) -> Recipe:
    try:
        contents = tomllib.loads(text)
    except RecursionError:
        raise UserError(
            f"recipe {name!r} is not a recipe: nested too deeply; write tables of plain settings"
        ) from None
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"recipe {name!r} is not valid TOML: {error}; correct that place") from None
    if not contents:
        raise UserError(f"recipe {name!r} is empty; give it a table, such as [tokenizer]")
    tables: list[Table] = []
    for title, values in contents.items():
        if not isinstance(values, dict):
            raise UserError(
                f"{title} in recipe {name!r} stands in no table of its own; put settings under "
                "the table that they belong to, such as [base]"
            )
        later = tuple(contents)[tuple(contents).index(title) + 1 :]
        tables += _table(title, values, {table.name: table for table in tables}, later, folder)
    return Recipe(name, text, tuple(tables))


def _table(
    title: str,
    values: Mapping[str, Any],
    earlier: Mapping[str, Table],
    later: tuple[str, ...],
    folder: Path,
) -> list[Table]:
    """The table, after those that its packs stand for; checked."""
    if not _TABLE_NAME.fullmatch(title):
        raise UserError(
            f"[{title}] cannot name a folder; use letters, digits, '-' and '_', such as [base]"
        )
    stage = _stage(title, values)
    if "out" in values:
        raise UserError(f"[{title}] sets out, but its folder is the table's name; leave out away")
    inputs = _inputs(title, stage, values, earlier)
    packs: dict[str, Table] = {}
    found: dict[str, str | tuple[str, ...]] = {}
    for field, named in inputs.items():
        several = (named,) if isinstance(named, str) else tuple(named)
        at = tuple(
            _locate(_Reference(title, field, one), earlier, later, folder, packs) for one in several
        )
        found[field] = at[0] if isinstance(named, str) else at
    settings = {k: v for k, v in values.items() if k not in {"stage", "from", *inputs}}
    table = Table(title, stage, settings, found)
    table.config(Path())
    for pack in settings.get("packs", ()):
        find_set(pack)
    return [*packs.values(), table]


def _stage(title: str, values: Mapping[str, Any]) -> Stage:
    name = values.get("stage", title)
    if isinstance(name, str) and name in STAGES:
        return STAGES[name]
    known = known_names(str(name), STAGES, "the stages are")
    if "stage" in values:
        raise UserError(f"[{title}] stage={name!r} is not a stage; {known}")
    raise UserError(f'[{title}] is not a stage; add stage = "…" to it, or rename it: {known}')


def _inputs(
    title: str, stage: Stage, values: Mapping[str, Any], earlier: Mapping[str, Table]
) -> dict[str, Any]:
    """The inputs that are named, and the main one from `from` or the table before."""
    # What is neither a name nor names is left to the config, which says so best.
    inputs = {
        field: values[field]
        for field in stage.inputs
        if isinstance(values.get(field), str)
        or (isinstance(values.get(field), list) and all(isinstance(v, str) for v in values[field]))
    }
    start = stage.start
    if "from" in values:
        if start is None:
            remedy = f"name {stage.inputs[0]}" if stage.inputs else "leave it away"
            raise UserError(f"[{title}] has from, but {stage.name} starts from nothing; {remedy}")
        if start in values:
            raise UserError(f"[{title}] has both from and {start}, which are the same; keep one")
        if not isinstance(values["from"], str):
            raise UserError(
                f"[{title}] from={values['from']!r} must be text in quotes: an earlier table, a "
                "folder or pack:name"
            )
        inputs[start] = values["from"]
    elif start is not None and start not in values:
        if not earlier:
            raise UserError(
                f"[{title}] is the first table, so nothing is there for {stage.name} to start "
                f'from; add from = "…" with the folder of a {start}'
            )
        inputs[start] = tuple(earlier)[-1]
    return inputs


@dataclass(frozen=True)
class _Reference:
    """What a table says of one of its inputs."""

    title: str
    field: str
    named: str

    def __str__(self) -> str:
        return f'[{self.title}] {self.field} = "{self.named}"'


def _locate(
    reference: _Reference,
    earlier: Mapping[str, Table],
    later: tuple[str, ...],
    folder: Path,
    packs: dict[str, Table],
) -> str:
    """The table's name or the absolute path that is meant; a pack becomes a table in `packs`."""
    named, wanted = reference.named, INPUTS[reference.field]
    if named in earlier:
        makes = earlier[named].stage.makes
        if makes not in wanted:
            fitting = [name for name, table in earlier.items() if table.stage.makes in wanted]
            raise UserError(
                f"{reference} does not fit: [{named}] makes a {makes}, and a {wanted[0]} is "
                f"needed; {f'name {_either(fitting)}' if fitting else 'add such a table above'}"
            )
        return named
    if wanted == ("model",) and is_named(named):
        try:
            check_named(named)
        except UserError as error:
            raise UserError(f"{reference} does not fit: {error}") from None
        return named
    if "data" in wanted and named.startswith(HUB):
        return named
    if named.startswith(PACK):
        pack = find_set(named.removeprefix(PACK)).name
        if "data" not in wanted:
            raise UserError(
                f"{reference} does not fit: a pack is data, and a {wanted[0]} is needed"
            )
        name = f"pack-{pack}"
        if name not in earlier:
            packs[name] = Table(name, STAGES["data"], {"packs": [pack]}, {})
        return name
    if named == reference.title or named in later:
        raise UserError(f"{reference} is not above it; a table starts from one that came before")
    check_text(f"[{reference.title}] {reference.field}", Path(named))
    try:
        path = (folder / named).expanduser().absolute()
    except RuntimeError:  # a home that nobody has
        raise UserError(f"{reference} begins with the home of nobody; write it in full") from None
    if named in shipped() and not path.exists():
        # A journey that comes along makes a folder of its own name.
        command = named if named == "quickstart" else f"run {named}"
        raise UserError(f"{reference} is not there yet; make it first: groundup {command}")
    if not named or not path.exists():
        raise UserError(
            f"{reference} is neither a table above nor there as a folder; "
            f"{known_names(named, earlier, 'tables above are') if earlier else 'check its name'}"
        )
    return str(find_model(path) if wanted == ("model",) else path)


def _either(names: list[str]) -> str:
    return " or ".join(f'"{name}"' for name in names)


# Running.


def run_recipe(recipe: Recipe, out: Path, minutes: float | None = None) -> Path:
    """Run every table in its folder under `out` and return `out`.

    With `minutes` the tables are planned to take that long on this machine; without, a folder that
    was begun with a plan goes on with it. Raises `UserError` for an `out` that holds anything else,
    or that another process is working in.
    """
    with _claimed(recipe, out):
        if minutes is not None or is_kept(out / "plan.json"):
            from groundup.app.plan import plan_recipe  # measures the machine, which needs torch

            recipe = plan_recipe(recipe, out, minutes)
        for number, table in enumerate(recipe.tables, start=1):
            _say_heading(f"[{number}/{len(recipe.tables)}] {table.name}", table, out)
            try:
                # A finished stage looks whether its inputs are still the ones it was made from.
                table.stage.run(_fetched(table).config(out))
            except KeyboardInterrupt as stopped:
                message = str(stopped) or "stopped. The same command goes on from there."
                raise KeyboardInterrupt(message) from None
    _say_farewell(recipe, out)
    return out


def _fetched(table: Table) -> Table:
    """The table with the models that are only named downloaded, if they are not there yet."""
    inputs = {
        field: (_here(at) if isinstance(at, str) else tuple(map(_here, at)))
        if INPUTS[field] == ("model",)
        else at
        for field, at in table.inputs.items()
    }
    return replace(table, inputs=inputs)


def _here(at: str) -> str:
    return str(locate(at)) if is_named(at) else at


def _say_heading(title: str, table: Table, out: Path) -> None:
    folder, stage = out / table.name, table.stage.name
    what = title if table.name == stage else f"{title} ({stage})"
    if is_finished(folder):
        say(f"{what}: finished before")
    elif folder.exists():
        say(f"\n{what}: begun before, going on")
    else:
        say(f"\n{what}")


@contextmanager
def _claimed(recipe: Recipe, out: Path) -> Iterator[None]:
    """Hold `out` for this recipe and this process."""
    if out.exists() and not out.is_dir():
        raise UserError(f"{str(out)!r} is a file; choose another folder with --out")
    _refuse_foreign(recipe, out)
    try:
        out.mkdir(parents=True, exist_ok=True)
        lock = lock_folder(out)
    except OSError as error:
        raise UserError(
            f"{str(out)!r} cannot be written ({error.strerror}); choose another folder with --out"
        ) from None
    with lock:
        _refuse_foreign(recipe, out)
        if not _is_begun(out):
            write_text(out / _COPY, recipe.text)
            write_text(out / _FILE, recipe.text)
        begun = _parsed(out / _FILE)
        if begun is None or _difference(begun, tomllib.loads(recipe.text)):
            write_text(out / _FILE, recipe.text)
            say(f"{out / _FILE} was damaged or gone and is written anew")
        yield


def _refuse_foreign(recipe: Recipe, out: Path) -> None:
    if _is_begun(out):
        # Of a damaged file the copy says what it was.
        found = _begun(out), _parsed(out / _COPY)
        differences = [_difference(one, tomllib.loads(recipe.text)) for one in found if one]
        if all(differences):
            difference = differences[0]
            raise UserError(
                f"{str(out)!r} was begun with another recipe ({difference}); choose another folder "
                "with --out, or change the recipe back"
            )
        return
    others = sorted(p.name for p in out.iterdir() if p.name[0] != ".") if out.is_dir() else []
    if others:
        raise UserError(
            f"{str(out)!r} holds other files ({', '.join(others[:3])}) and no recipe's output; "
            "choose another folder with --out"
        )


def _is_begun(out: Path) -> bool:
    return (out / _FILE).is_file() or (out / _COPY).is_file()


def _begun(out: Path) -> dict[str, dict[str, Any]]:
    """The recipe that `out` was begun with."""
    for file in (out / _FILE, out / _COPY):
        tables = _parsed(file)
        if tables is not None:
            return tables
    raise UserError(
        f"{str(out / _FILE)!r} is not a recipe; put the one back that the folder was begun with, "
        "or choose another folder with --out"
    )


def _parsed(file: Path) -> dict[str, dict[str, Any]] | None:
    """The tables of a recipe, or None for what is none."""
    try:
        found = tomllib.loads(file.read_bytes().decode("utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return found if found and all(isinstance(one, dict) for one in found.values()) else None


def _difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """The first thing in which two recipes differ, in words; empty if nothing does."""
    if list(old) != list(new):
        return f"its tables were {', '.join(old)}"
    for title in old:
        for key in sorted(old[title].keys() | new[title].keys()):
            if old[title].get(key) != new[title].get(key):
                was = repr(old[title][key]) if key in old[title] else "not set"
                return f"[{title}] {key} was {was}"
    return ""


def _say_farewell(recipe: Recipe, out: Path) -> None:
    say("")
    for table in recipe.tables:
        if table.stage.makes == "report":
            say(farewell(table.stage, out / table.name))
    models = [table.stage for table in recipe.tables if table.stage.makes == "model"]
    if recipe.chat_table is not None:
        say(farewell(recipe.chat_table.stage, out))
    elif models:
        say(farewell(models[-1], out))


def farewell(stage: Stage, folder: Path) -> str:
    """What one can do with what a stage has made in `folder`."""
    typed = shlex.quote(str(folder))
    if stage.chats:
        return f"Talk to it:  {_program()} chat {typed}"
    if stage.makes == "model":
        return f'Try it:      {_program()} generate {typed} "The history of"'
    if stage.makes == "report":
        return f"Report:      {folder / 'report.html'}"
    return f"Done:        {folder}"


def _program() -> str:
    """How this program is called from here: a virtual environment may not be active."""
    if shutil.which("groundup"):
        return "groundup"
    script = Path(sys.executable).with_name("groundup")
    known = f"{script}" if script.is_file() else f"{sys.executable} -m groundup"
    return known.removeprefix(f"{Path.cwd()}/")


# Finding.


def find_model(path: Path | str) -> Path:
    """The model that `path` means: a model, by its name or where it lies, or a recipe's output.

    Of a recipe's models it is the last that was taught to answer, else the last; of those, one that
    is finished. Raises `UserError` when there is none.
    """
    check_text("the model's name", Path(path))
    path = locate(path)
    if holds_model(path) or (path.is_file() and path.suffix == GGUF_SUFFIX):
        return path
    if not path.exists():
        raise UserError(f"there is no model folder {str(path)!r}; check its name")
    if not path.is_dir():
        raise UserError(f"{str(path)!r} is a file, not a model folder; give the folder around it")
    if not _is_begun(path):
        inside = sorted(p.name for p in path.glob("*") if holds_model(p))
        remedy = f"give one inside it: {', '.join(inside)}" if inside else "check its name"
        raise UserError(f"the folder {str(path)!r} holds no model (config.json); {remedy}")
    tables = _begun(path)
    stages = {title: STAGES.get(str(table.get("stage", title))) for title, table in tables.items()}
    models = [
        (stage.chats, place, title)
        for place, (title, stage) in enumerate(stages.items())
        if stage is not None and holds_model(path / title)
    ]
    if not models:
        raise UserError(
            f"the recipe in {str(path)!r} has no finished model yet; "
            "start the command that began it again, and it goes on"
        )
    return path / max(models)[2]
