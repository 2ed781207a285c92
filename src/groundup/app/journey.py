"""Run a recipe: its folder, its tables in order, and its models.

Everything is written under one folder `out`, whose recipe.toml records the recipe it was started
with. Finished stages are skipped and unfinished ones are resumed.
"""

from __future__ import annotations

import shlex
import shutil
import sys
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import Any

from groundup.app.recipe import Recipe, Table
from groundup.app.recipe_folder import COPY, FILE, begun_with, is_begun, read_tables, runs_of
from groundup.app.stages import INPUTS, REWARDS, STAGES, Stage
from groundup.errors import UserError
from groundup.formats.locate import is_named, locate
from groundup.runs.console import say
from groundup.runs.files import is_sealed, write_text
from groundup.runs.folder import has_begun, is_finished, lock_folder, refuse_broken_link
from groundup.runs.request import read_run


def run_recipe(recipe: Recipe, out: Path, minutes: float | None = None) -> Path:
    """Run every table in its own folder under `out` and return `out`.

    With `minutes` the tables are planned to take that long on this machine; without, a folder that
    was started with a plan continues with it. Raises `UserError` for an `out` that contains
    anything else, or that another process is using.
    """
    # Imported late: every start of the command loads this module.
    from groundup.align.rewards.verifiers import module_search_path

    begun = monotonic()
    beside = None if recipe.file is None else recipe.file.parent
    with _claimed(recipe, out), module_search_path(beside):
        is_planned = is_sealed(out / "plan.json")
        # A resumed journey is not timed.
        is_timed = minutes is not None and not is_planned
        if is_timed or is_planned:
            # Measuring the machine needs torch.
            from groundup.app.plan import plan_recipe, replan

            recipe = plan_recipe(recipe, out, minutes)
        for number, table in enumerate(recipe.tables, start=1):
            title = f"[{number}/{len(recipe.tables)}] {table.name}"
            was_finished = is_finished(out / table.name)
            if not was_finished:
                _print_heading(title, table, out)
            try:
                if is_timed:
                    table = replan(recipe, out, table, monotonic() - begun)
                # A finished stage only checks that its inputs have not changed.
                table.stage.run(_fetched(table).config(out))
            except KeyboardInterrupt as stopped:
                message = str(stopped) or "stopped. The same command continues from there."
                raise KeyboardInterrupt(message) from None
            if was_finished:
                _print_heading(title, table, out)
    _print_next_steps(recipe, out)
    return out


def _fetched(table: Table) -> Table:
    """The table with paths for models that are given by name, downloading them if needed."""
    inputs = {
        field: (_local(at) if isinstance(at, str) else tuple(map(_local, at)))
        if INPUTS[field] == ("model",)
        else at
        for field, at in table.inputs.items()
    }
    return replace(table, inputs=inputs)


def _local(at: str) -> str:
    return str(locate(at)) if is_named(at) else at


def _print_heading(title: str, table: Table, out: Path) -> None:
    folder, stage = out / table.name, table.stage.name
    what = title if table.name == stage else f"{title} ({stage})"
    if is_finished(folder):
        say(f"{what}: already finished")
    elif folder.exists():
        say(f"\n{what}: resuming")
    else:
        say(f"\n{what}")


@contextmanager
def _claimed(recipe: Recipe, out: Path) -> Iterator[None]:
    """Lock `out` for this recipe and this process."""
    if out.exists() and not out.is_dir():
        raise UserError(f"{str(out)!r} is a file; choose another folder with --out")
    refuse_broken_link(out)
    _refuse_foreign(recipe, out)
    try:
        out.mkdir(parents=True, exist_ok=True)
        lock = lock_folder(out)
    except OSError as error:
        raise UserError(
            f"{str(out)!r} cannot be written ({error.strerror}); choose another folder with --out"
        ) from None
    try:
        _refuse_foreign(recipe, out)
        if not is_begun(out):
            write_text(out / COPY, recipe.text)
            write_text(out / FILE, recipe.text)
        tables = tomllib.loads(recipe.text)
        begun = read_tables(out / FILE)
        if begun is None or list(begun.items()) != list(tables.items()):
            changed = begun is not None and not _difference(begun, tables, out)
            if changed:
                write_text(out / COPY, recipe.text)
            write_text(out / FILE, recipe.text)
            why = "stages that have not begun changed" if changed else "it was damaged or missing"
            say(f"{out / FILE} is rewritten: {why}")
        yield
    finally:
        lock.release()


def _refuse_foreign(recipe: Recipe, out: Path) -> None:
    if is_begun(out):
        # If the file is damaged, the copy has its contents.
        found = begun_with(out), read_tables(out / COPY)
        differences = [_difference(one, tomllib.loads(recipe.text), out) for one in found if one]
        if all(differences):
            difference = differences[0]
            raise UserError(
                f"{str(out)!r} was started with another recipe ({difference}); choose another "
                "folder with --out, or undo the change: only stages that have not begun may change"
            )
        return
    others = sorted(p.name for p in out.iterdir() if p.name[0] != ".") if out.is_dir() else []
    if others:
        raise UserError(
            f"{str(out)!r} contains other files ({', '.join(others[:3])}) and no recipe's output; "
            "choose another folder with --out"
        )


def _difference(old: Mapping[str, Any], new: Mapping[str, Any], out: Path) -> str:
    """Describe the first difference of two recipes; empty if there is none.

    Tables without a begun run in `out` may be changed, added and removed.
    """
    for title in old:
        both = {*runs_of(title, old[title]), *runs_of(title, new.get(title, old[title]))}
        if not any(has_begun(out / run) for run in both):
            continue
        if title not in new:
            return f"[{title}] was there"
        was, now = _explicit(title, old), _explicit(title, new)
        for key in sorted(was.keys() | now.keys()):
            if was.get(key) != now.get(key):
                said = repr(was[key]) if key in was else "not set"
                by_option = f"as with --seed {said}" if key in was else "as without --seed"
                how = f", {by_option}" if key == "seed" else ""
                return f"[{title}] {key} was {said}{how}"
    return ""


def _explicit(title: str, tables: Mapping[str, Any]) -> dict[str, Any]:
    """A table's settings, with an implicit `from` (the table before it) made explicit."""
    values, titles = dict(tables[title]), list(tables)
    stage, place = STAGES.get(str(values.get("stage", title))), titles.index(title)
    if stage is not None and stage.start not in (None, *values) and place:
        values.setdefault("from", titles[place - 1])
    return values


def _print_next_steps(recipe: Recipe, out: Path) -> None:
    say("")
    for table in recipe.tables:
        if table.stage.makes == "report":
            say(next_step(table.stage, out / table.name))
    if recipe.file is None:  # a recipe that comes with groundup: probably a new user
        say(f"Learn how:   {_program()} learn")
    models = [table.stage for table in recipe.tables if table.stage.makes == "model"]
    if recipe.chat_table is not None:
        say(next_step(recipe.chat_table.stage, out))
    elif models:
        say(next_step(models[-1], out))


def next_step(stage: Stage, folder: Path) -> str:
    """Return the line that says how to use what a stage has made in `folder`."""
    typed = shlex.quote(str(folder))
    # A soup's run records whether its models chat.
    traits = read_run(folder)["traits"] if is_sealed(folder / "run.json") else {}
    if stage.chats or traits.get("chats"):
        return f"Talk to it:  {_program()} chat {typed}"
    if stage.makes == "model":
        return f'Try it:      {_program()} generate {typed} "The history of"'
    if stage.makes in REWARDS:
        return f"Use it:      {_program()} ppo MODEL --reward {typed} --prompts DATA"
    if stage.makes == "report":
        return f"Report:      {folder / 'report.html'}"
    return f"Done:        {folder}"


def _program() -> str:
    """Return the command that starts this program: its virtual environment may not be active."""
    if shutil.which("groundup"):
        return "groundup"
    script = Path(sys.executable).with_name("groundup")
    known = f"{script}" if script.is_file() else f"{sys.executable} -m groundup"
    return known.removeprefix(f"{Path.cwd()}/")
