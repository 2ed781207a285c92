"""The first plan of a recipe: made, shown, written to plan.json, and read on every later start."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from groundup.app.plan.values import (
    MIN_STAGE_SECONDS,
    Line,
    filled,
    planned_lines,
    settings_of,
)
from groundup.app.recipe import Recipe
from groundup.app.recipe_folder import FILE
from groundup.errors import UserError
from groundup.runs.console import counted, say
from groundup.runs.files import is_number, is_sealed, read_sealed, write_sealed
from groundup.runs.folder import has_begun
from groundup.train.device import Machine, measure

SCHEMA = 1


def plan_recipe(recipe: Recipe, out: Path, minutes: float | None) -> Recipe:
    """Return the recipe with every open value filled in, from `out`/plan.json if it exists.

    Raises `UserError` for a damaged or missing plan, and for other `minutes` than it was made for.
    """
    path = out / "plan.json"
    plan = _written(path, recipe, out)
    if plan is not None:
        if minutes is not None and plan["minutes"] != minutes:
            raise UserError(
                f"{out} was planned for {plan['minutes']:g} minutes, not {minutes:g}; "
                "give the same --minutes to continue, or another --out"
            )
        say(f"plan: as written in {path}")
        return filled(recipe, plan["settings"])
    if minutes is None:  # the plan was lost before any stage began
        raise UserError(f"{path} is damaged; give --minutes again, the time that it may take")
    machine = measure(seconds=1.0)
    lines, seconds, speeds = planned_lines(recipe, out, minutes, machine)
    settings = settings_of(lines)
    planned = filled(recipe, settings)
    write_sealed(
        path,
        {
            "schema": SCHEMA,
            "minutes": minutes,
            "machine": vars(machine),
            "seconds": seconds,
            "whole_seconds": max(minutes * 60, sum(seconds.values())),
            "tokens_per_second": speeds,
            "settings": settings,
            "reasons": {f"{line.table}.{line.setting}": line.reason for line in lines},
        },
    )
    _show(lines, machine, minutes)
    say(_how_to_change(recipe, out, minutes))
    whole = sum(seconds.values())
    if whole > 1.1 * minutes * 60:
        say(
            f"{minutes:g} minutes are too few: stages that do not train take most of them, and a "
            f"model learns nothing in less than {MIN_STAGE_SECONDS:.0f} s of training; it will "
            f"take about {whole / 60:.1f} minutes"
        )
    return planned


def _written(path: Path, recipe: Recipe, out: Path) -> dict[str, Any] | None:
    """Return the written plan, or None.

    Raises `UserError` if it is lost after a stage has begun: a new plan would have other numbers.
    """
    if not is_sealed(path):
        if begun := [table.name for table in recipe.tables if has_begun(out / table.name)]:
            raise UserError(
                f"{path} does not exist, and {out / begun[0]} has begun: put the plan back, leave "
                "out --minutes if there was none, or choose another folder with --out"
            )
        return None
    try:
        return read_sealed(path, checked, say)
    except UserError as error:
        begun = [table.name for table in recipe.tables if (out / table.name).exists()]
        if begun or path.is_dir():
            raise UserError(
                f"{error}; without it {out} cannot be continued: put it back, or choose another "
                "folder with --out"
            ) from None
        return None


def checked(plan: dict[str, Any]) -> dict[str, Any]:
    settings = plan.get("settings")
    tables = settings.values() if isinstance(settings, dict) else [None]
    if not is_number(plan.get("minutes")) or not all(isinstance(one, dict) for one in tables):
        raise UserError("plan.json is not a plan")
    return plan


def _show(lines: list[Line], machine: Machine, minutes: float) -> None:
    say(
        f"plan for {minutes:g} minutes on {counted(machine.cores, 'core')}, "
        f"{machine.memory_bytes / 1e9:.0f} GB free: "
        f"{machine.bfloat16_flops / 1e9:,.0f} GFLOP/s in bfloat16, "
        f"{machine.float32_flops / 1e9:,.0f} in float32"
    )
    for line in lines:
        say(f"  {line.table}.{line.setting} = {line.value}")
        say(f"      {line.reason}")


def _how_to_change(recipe: Recipe, out: Path, minutes: float) -> str:
    """How to set a value: recipes that come with groundup are changed in a copy."""
    place, file = f"a copy of {out / FILE}", "COPY"
    if recipe.file is not None:
        place, file = str(recipe.file), shlex.quote(str(recipe.file))
    run = f"groundup run {file} --minutes {minutes:g} --out FOLDER"
    return f"To change a value, set it in {place} and run: {run}"
