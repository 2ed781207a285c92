"""`doctor` and `plan`: what this machine has, and what a run would take on it."""

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
        Parameter(negative="", show_default=False, help="only say what is here: try no settings"),
    ] = False,
    forget: Annotated[
        bool,
        Parameter(negative="", show_default=False, help="take back what was chosen, and end"),
    ] = False,
    json: Annotated[Path | None, Parameter(help="write what was found here as well")] = None,
    force: Force = False,
) -> None:
    """Say what this machine has, what each setting gains, and what would be faster."""
    from groundup.train import remembered

    if json is not None:
        writable(json, "--json", force=force)
    if forget:
        what = "what was chosen here is taken back" if remembered.forget() else "nothing was chosen"
        say(f"{what}; commands run with groundup's constants")
        return
    from groundup.app.doctor import examine

    found = examine(quick=quick)
    if json is not None:
        write_json(json, found)


@checked
def plan(
    *,
    stage: Annotated[
        str, Parameter(help="what is to be run: a stage that trains on rows, such as sft or dpo")
    ] = "pretrain",
    minutes: Annotated[
        ranges.Minutes | None, Parameter(help="minutes that training may take (default: no limit)")
    ] = None,
    steps: Annotated[
        ranges.Steps | None, Parameter(help="optimizer steps (default: as the stage)")
    ] = None,
    tokens: Annotated[
        ranges.Amount | None,
        Parameter(help="tokens to read (default: from minutes, steps or the model's size)"),
    ] = None,
    depth: Annotated[
        ranges.Depth | None, Parameter(help="layers of a new model (default: as the stage)")
    ] = None,
    width: Annotated[
        ranges.Width | None,
        Parameter(help="features per token of a new model (default: as the stage)"),
    ] = None,
    params: Annotated[
        ranges.Amount | None, Parameter(help="parameters of a new model, nearly")
    ] = None,
    vocab_size: Annotated[
        ranges.VocabSize, Parameter(help="vocabulary of a new model, without --data")
    ] = 4_096,
    context: Annotated[
        ranges.Context | None, Parameter(help="tokens of a row (default: as the stage)")
    ] = None,
    rows: Annotated[
        ranges.Rows | None, Parameter(help="rows of a step (default: as the stage)")
    ] = None,
    model: Annotated[Path | None, Parameter(help="the model that is to be trained on")] = None,
    data: Annotated[
        tuple[Path, ...],
        Parameter(
            negative="",
            consume_multiple=True,
            show_default=False,
            help="the data of the run (pretrain is planned without, too)",
        ),
    ] = (),
    tokenizer: Annotated[Path | None, Parameter(help="the tokenizer's folder, with data")] = None,
    set: Annotated[
        tuple[str, ...],
        Parameter(
            negative="",
            consume_multiple=True,
            show_default=False,
            help="more of the stage's settings, NAME=VALUE as in a recipe: adapter=lora",
        ),
    ] = (),
    machine: Annotated[
        Path | None, Parameter(help="plan for the machine of this file (groundup doctor --json)")
    ] = None,
    law: Annotated[
        Path | None,
        Parameter(help="the folder of groundup scaling fit, for the loss of a new model"),
    ] = None,
    json: Annotated[Path | None, Parameter(help="write the plan here as well")] = None,
    force: Force = False,
) -> None:
    """Say what a run would take: time, memory, disk, tokens, FLOPs, loss."""
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
