"""`label`: vote between two answers at the keyboard."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Group, Parameter

from groundup.app.commands.options import (
    Device,
    Mine,
    ModelFolder,
    SamplingOptions,
    checked,
    with_parts,
)
from groundup.app.recipe_folder import find_model
from groundup.data.files import ROW_KINDS
from groundup.errors import UserError
from groundup.train import ranges

_VOTES = Group("Prompts and votes", sort_key=5)
_SAMPLING = Group(
    "Sampling (default: generation_config.json's settings if it samples, else temperature 0.7)",
    sort_key=10,
)


@checked
def label(
    model: ModelFolder,
    other: Annotated[
        Path | None,
        Parameter(help="the model to compare it with (default: two answers of the same one)"),
    ] = None,
    /,
    *,
    prompts: Annotated[
        Path,
        Parameter(
            group=_VOTES,
            help=f"a .txt file with one prompt per line, or a {ROW_KINDS} file with rows of prompt "
            "or messages",
        ),
    ],
    out: Annotated[
        Path,
        Parameter(group=_VOTES, help="the log of votes; the same command continues it"),
    ] = Path("votes.jsonl"),
    who: Annotated[
        str | None,
        Parameter(group=_VOTES, help="whose votes these are (default: your name on this machine)"),
    ] = None,
    append: Annotated[
        bool,
        Parameter(
            negative="",
            show_default=False,
            group=_VOTES,
            help="append to a log that already holds votes on other models",
        ),
    ] = False,
    device: Device = "cpu",
    sampling: Annotated[SamplingOptions, _SAMPLING],
    seed: Annotated[
        ranges.Seed, Parameter(group=_SAMPLING, help="seed of the answers and their sides")
    ] = 0,
    mine: Mine = None,
) -> None:
    """Choose the better of two answers without seeing which model wrote them."""
    if who is not None and not who.strip():
        raise UserError("--who is empty; give a name, or leave it out")
    sources = (model, model if other is None else other)
    folders = [find_model(source) for source in sources]
    from groundup.align.label.log import login
    from groundup.app.label import label as run

    with with_parts(mine):
        run(
            [str(source) for source in sources],
            folders,
            prompts,
            out,
            who=(who or login()).strip(),
            seed=seed,
            append=append,
            device=device,
            **sampling.model_dump(),
        )
