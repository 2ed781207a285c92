"""`quickstart` and `run`: run a recipe from beginning to end."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from groundup.app.commands.options import checked
from groundup.app.journey import run_recipe
from groundup.app.recipe import read_recipe
from groundup.runs.files import is_sealed
from groundup.train import ranges

QUICKSTART_MINUTES = 15.0

_Seed = Annotated[
    ranges.Seed | None,
    Parameter(help="seed of every table of the recipe that sets none (default: 0)"),
]


@checked
def quickstart(
    *,
    minutes: Annotated[
        ranges.Minutes | None,
        Parameter(help="time it may take, without downloads (default: 15, or as it was started)"),
    ] = None,
    out: Annotated[Path, Parameter(help="folder for all outputs")] = Path("quickstart"),
    seed: _Seed = None,
) -> None:
    """Run the quickstart's recipe, planned for this machine."""
    _journey("quickstart", out, minutes, seed)


@checked
def run(
    recipe: Annotated[
        str, Parameter(help="a .toml file, or the name of a recipe that comes with groundup")
    ],
    /,
    *,
    minutes: Annotated[
        ranges.Minutes | None,
        Parameter(help="plan sizes and steps for this time (default: as the recipe says)"),
    ] = None,
    out: Annotated[
        Path | None, Parameter(help="folder for all outputs (default: the recipe's name)")
    ] = None,
    seed: _Seed = None,
) -> None:
    """Run a recipe file, or one that comes with groundup."""
    _journey(recipe, out, minutes, seed)


def _journey(source: str, out: Path | None, minutes: float | None, seed: int | None) -> None:
    recipe = read_recipe(source, seed)
    out = Path(recipe.name) if out is None else out
    if minutes is None and source == "quickstart" and not is_sealed(out / "plan.json"):
        minutes = QUICKSTART_MINUTES
    run_recipe(recipe, out, minutes)
