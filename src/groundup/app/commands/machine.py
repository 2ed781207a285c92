"""`doctor` and `plan`: examine this machine, and estimate a run on it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from groundup.app.commands.options import Force, checked
from groundup.app.recipe_folder import find_data, find_model
from groundup.formats.locate import is_named
from groundup.runs.console import say
from groundup.runs.files import writable, write_json
from groundup.train import ranges


@checked
def doctor(
    *,
    quick: Annotated[
        bool,
        Parameter(negative="", show_default=False, help="only show the machine: try no settings"),
    ] = False,
    forget: Annotated[
        bool,
        Parameter(negative="", show_default=False, help="delete the saved settings, and exit"),
    ] = False,
    json: Annotated[Path | None, Parameter(help="also write the results to this file")] = None,
    force: Force = False,
) -> None:
    """Show what this machine has, what each setting gains, and what would be faster."""
    from groundup.train import remembered

    if json is not None:
        writable(json, "--json", force=force)
    if forget:
        what = (
            "saved settings are deleted"
            if remembered.delete_settings()
            else "no settings were saved"
        )
        say(f"{what}; commands use groundup's defaults")
        return
    from groundup.app.doctor import examine

    found = examine(quick=quick)
    if json is not None:
        write_json(json, found)


@checked
def plan(
    *,
    stage: Annotated[
        str, Parameter(help="the stage to plan: one that trains on rows, such as sft or dpo")
    ] = "pretrain",
    minutes: Annotated[
        ranges.Minutes | None, Parameter(help="minutes that training may take (default: no limit)")
    ] = None,
    steps: Annotated[
        ranges.Steps | None, Parameter(help="optimizer steps (default: the stage's)")
    ] = None,
    tokens: Annotated[
        ranges.Amount | None,
        Parameter(help="tokens to read (default: from minutes, steps or the model's size)"),
    ] = None,
    depth: Annotated[
        ranges.Depth | None, Parameter(help="layers of a new model (default: the stage's)")
    ] = None,
    width: Annotated[
        ranges.Width | None,
        Parameter(help="features per token of a new model (default: the stage's)"),
    ] = None,
    params: Annotated[
        ranges.Amount | None, Parameter(help="approximate parameters of a new model")
    ] = None,
    vocab_size: Annotated[
        ranges.VocabSize, Parameter(help="vocabulary of a new model, without --data")
    ] = 4_096,
    context: Annotated[
        ranges.Context | None, Parameter(help="tokens per row (default: the stage's)")
    ] = None,
    rows: Annotated[
        ranges.Rows | None, Parameter(help="rows per step (default: the stage's)")
    ] = None,
    model: Annotated[Path | None, Parameter(help="the model that training starts from")] = None,
    data: Annotated[
        tuple[Path, ...],
        Parameter(
            negative="",
            consume_multiple=True,
            show_default=False,
            help="the data of the run (optional for pretrain)",
        ),
    ] = (),
    tokenizer: Annotated[Path | None, Parameter(help="the tokenizer's folder, with data")] = None,
    set: Annotated[
        tuple[str, ...],
        Parameter(
            negative="",
            consume_multiple=True,
            show_default=False,
            help="other settings of the stage, NAME=VALUE as in a recipe: adapter=lora",
        ),
    ] = (),
    machine: Annotated[
        Path | None, Parameter(help="plan for the machine in this file (groundup doctor --json)")
    ] = None,
    law: Annotated[
        Path | None,
        Parameter(help="a folder of groundup scaling fit, to predict the loss of a new model"),
    ] = None,
    json: Annotated[Path | None, Parameter(help="also write the plan to this file")] = None,
    force: Force = False,
) -> None:
    """Estimate a run's time, memory, disk, tokens, FLOPs and loss."""
    if json is not None:
        writable(json, "--json", force=force)
    located = None if model is None else find_model(model)
    data = tuple(one if is_named(one) else find_data(one) for one in data)
    from groundup.app.forecast import PlanRequest, plan_run

    request = PlanRequest(
        stage, minutes, steps, tokens, depth, width, params, vocab_size, context, rows, located,
        data, tokenizer, set,
    )  # fmt: skip
    plan_run(request, machine=machine, law=law, json=json)
