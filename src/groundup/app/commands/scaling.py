"""`scaling fit`: fit a scaling law to a table of training runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from groundup.app.commands.options import checked
from groundup.train import ranges


@checked
def scaling_fit(
    table: Annotated[
        Path, Parameter(help="CSV, JSON Lines or a JSON array with one row per training run")
    ],
    /,
    *,
    parameters: Annotated[
        str | None, Parameter(help="the column of parameters (default: found by its name)")
    ] = None,
    tokens: Annotated[
        str | None, Parameter(help="the column of tokens (default: found by its name)")
    ] = None,
    loss: Annotated[
        str | None, Parameter(help="the column of losses (default: found by its name)")
    ] = None,
    flops: Annotated[
        str | None, Parameter(help="the column of FLOPs (default: found, else 6 N D)")
    ] = None,
    drop: Annotated[
        ranges.Shown | None,
        Parameter(help="leave out this many runs of the highest loss (default: outliers)"),
    ] = None,
    bootstraps: Annotated[
        ranges.Drawings, Parameter(help="bootstrap samples of the rows, for the intervals")
    ] = 500,
    seed: Annotated[ranges.Seed, Parameter(help="seed of the bootstrap")] = 0,
    out: Annotated[Path, Parameter(help="folder for the page and the numbers")] = Path("scaling"),
) -> None:
    """Fit L = E + A/N^α + B/D^β, and the best size for every budget."""
    from groundup.pretrain.scaling.report import fit_table

    asked = {"parameters": parameters, "tokens": tokens, "loss": loss, "flops": flops}
    columns = {name: column for name, column in asked.items() if column is not None}
    fit_table(table, out, columns=columns, bootstraps=bootstraps, seed=seed, highest_left_out=drop)
