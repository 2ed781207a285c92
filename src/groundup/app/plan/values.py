"""The values that a recipe leaves open: sizes, steps and prompts that suit minutes and machine."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self, cast

from groundup.align.config import RolloutConfig
from groundup.app.plan.seconds import (
    STAGE_SECONDS,
    eval_scale,
    fixed_seconds,
    pairs_table,
)
from groundup.app.recipe import Recipe, Table
from groundup.data.config import TokenizerConfig
from groundup.evals.config import EvalConfig
from groundup.formats.load import load_tokenizer
from groundup.formats.locate import TOKENIZER
from groundup.lm.config import ModelConfig
from groundup.pretrain.config import PretrainConfig
from groundup.pretrain.shape import model_shape
from groundup.pretrain.stage import new_model
from groundup.runs.console import counted, say
from groundup.text.tokenizer import Tokenizer
from groundup.train.config import UNTRAINED, TrainingConfig, Traits
from groundup.train.device import (
    COMPILE_FROM_MINUTES,
    Compute,
    Machine,
    resolve,
    resolve_device,
)
from groundup.train.loss import next_token_loss
from groundup.train.pace import measure_pace, random_batches
from groundup.train.plan import TRAINING_SHARE

# How much of the small world to make per minute on a machine of _WORLD_FLOPS, so that training
# reads all the text once; and the maximum, since rows are held in memory. A model as large as the
# time can feed reads tokens in proportion to the square root of the FLOPs.
_WORLD_MEGABYTES, _WORLD_CONVERSATIONS, _WORLD_PREFERENCES = 0.8, 3_000, 1_300
_MAX_MEGABYTES, _MAX_CONVERSATIONS, _MAX_PREFERENCES = 120.0, 300_000, 60_000
_WORLD_FLOPS = 1e12
# Prompts whose answers are compared, per minute on such a machine.
_COMPARED_PROMPTS, MIN_PROMPTS, MAX_PROMPTS = 300, 200, 20_000
# The largest share of the training time that answering and learning from the pairs may take, except
# for the fewest prompts. In 15 minutes on a slow machine it was almost half, and base learned too
# little.
_COMPARED_SHARE = 1 / 3
# The first compilation, during the measurement of the speed.
_COMPILE_SECONDS = 30.0
# Of finding how long fine-tuning and its pairs take, which depend on each other.
_ROUNDS = 16
# Vocabulary sizes below these minutes: each embedding must be seen often enough to be learned, and
# the output layer takes a third of a small model's time.
_VOCABULARIES = {5: 2_048, 45: 4_096}
# A shorter training stage learns nothing useful: after 5 s no answer ends, so none is preferred.
MIN_STAGE_SECONDS = 20.0


@dataclass(frozen=True)
class Line:
    """One derived value: what it is, why, and how to change it."""

    table: str
    setting: str
    value: Any
    reason: str


def settings_of(lines: list[Line]) -> dict[str, dict[str, Any]]:
    """The values by table and setting."""
    settings: dict[str, dict[str, Any]] = {}
    for line in lines:
        settings.setdefault(line.table, {})[line.setting] = line.value
    return settings


def filled(recipe: Recipe, settings: Mapping[str, Mapping[str, Any]]) -> Recipe:
    """Return the recipe with planned settings where its author set none."""
    tables = tuple(
        replace(table, settings={**settings.get(table.name, {}), **table.settings})
        for table in recipe.tables
    )
    return replace(recipe, tables=tables)


def planned_lines(
    recipe: Recipe, out: Path, minutes: float, machine: Machine
) -> tuple[list[Line], dict[str, float], dict[str, float]]:
    """Return the planned values, each table's seconds, and its model's tokens per second."""
    sizes = _Sizes.of(minutes, _world_flops(machine))
    lines = [line for table in recipe.tables for line in _fixed_lines(table, out, minutes, sizes)]
    given, recipe = recipe, filled(recipe, settings_of(lines))
    fixed = fixed_seconds(recipe, out, minutes, {})
    training = [t for t in recipe.tables if _traits(t).share > 0 and not pairs_table(t, recipe)]
    if not training:
        return lines, fixed, {}
    compute = compute_for(training[0], out, minutes)
    whole = minutes * 60 - (_COMPILE_SECONDS if compute.compile else 0.0)
    least = MIN_STAGE_SECONDS * len(training)
    shares = {table.name: _traits(table).share for table in training}
    all_shares = sum(shares.values())
    left = max(whole - sum(fixed.values()), least)
    # The size and speed of each table's model, if this recipe trains it from scratch.
    shape_lines, speeds = dict[str, list[Line]](), dict[str, float]()
    for table in recipe.tables:
        speed = next((speeds[name] for name in _models(table) if name in speeds), None)
        config = table.config(out)
        if isinstance(config, PretrainConfig) and table in training:
            seconds = left * shares[table.name] / all_shares
            shape_lines[table.name], speed = _model_lines(
                table, config, compute, recipe, out, seconds, machine
            )
        if speed is not None:
            speeds[table.name] = speed
    # At these speeds the other tables take longer on a slow machine.
    trained = 0.0
    for _ in range(_ROUNDS):
        lines = [_fewer_prompts(line, recipe, fixed, left, sizes) for line in lines]
        recipe = filled(given, settings_of(lines))
        fixed = fixed_seconds(recipe, out, minutes, speeds, trained)
        left = max(whole - sum(fixed.values()), least)
        last = training[-1].name
        trained = left * shares[last] / all_shares * TRAINING_SHARE * speeds.get(last, 0.0)
    for table in training:
        config = cast(TrainingConfig, table.config(out))
        seconds = left * shares[table.name] / all_shares
        lines.append(_compile_line(table, compute))
        lines += shape_lines.get(table.name, [])
        lines += _length_lines(table, config, speeds.get(table.name), seconds, all_shares)
        fixed[table.name] += seconds
    return lines, fixed, speeds


def _fewer_prompts(
    line: Line, recipe: Recipe, fixed: Mapping[str, float], left: float, sizes: _Sizes
) -> Line:
    """The number of prompts to compare that takes its share of the training time at most.

    `fixed` are the seconds of each table for the number in `line`, `left` those of the others that
    train. Other lines are returned as they are.
    """
    table = next(one for one in recipe.tables if one.name == line.table)
    if table.stage.name != "best-of-n":
        return line
    compared = [table, *(one for one in recipe.tables if pairs_table(one, recipe) is table)]
    seconds = sum(fixed[one.name] - STAGE_SECONDS for one in compared)
    most = round(line.value * _COMPARED_SHARE * (seconds + left) / seconds)
    prompts = max(MIN_PROMPTS, min(sizes.prompts, most))
    return replace(line, value=prompts)


@dataclass(frozen=True)
class _Sizes:
    """How much of the small world is made, and the number of prompts whose answers are compared."""

    megabytes: float
    conversations: int
    preferences: int
    prompts: int

    @classmethod
    def of(cls, minutes: float, flops: float) -> Self:
        scale = minutes * min(1.0, math.sqrt(flops / _WORLD_FLOPS))
        return cls(
            min(_MAX_MEGABYTES, max(0.5, round(_WORLD_MEGABYTES * scale, 1))),
            min(_MAX_CONVERSATIONS, max(1_000, round(_WORLD_CONVERSATIONS * scale))),
            min(_MAX_PREFERENCES, max(300, round(_WORLD_PREFERENCES * scale))),
            min(MAX_PROMPTS, max(MIN_PROMPTS, round(_COMPARED_PROMPTS * scale))),
        )


def _fixed_lines(table: Table, out: Path, minutes: float, sizes: _Sizes) -> list[Line]:
    scale = eval_scale(minutes)
    if table.stage.name == "data":
        reason = "as much of the small world as training can read in this time"
        return [
            Line(table.name, name, value, reason)
            for name, value in (
                ("world_megabytes", sizes.megabytes),
                ("world_conversations", sizes.conversations),
                ("world_preferences", sizes.preferences),
            )
            if name not in table.settings
        ]
    if table.stage.name == "best-of-n" and "questions" not in table.settings:
        reason = (
            "prompts whose answers are compared: as many as suit the minutes and take a third of "
            "the training at most; set it in the recipe"
        )
        return [Line(table.name, "questions", sizes.prompts, reason)]
    if table.stage.name == "tokenizer" and "vocab_size" not in table.settings:
        for least, vocab_size in _VOCABULARIES.items():
            if minutes < least:
                reason = (
                    "a small vocabulary suits a model trained for minutes; set it in the recipe"
                )
                return [Line(table.name, "vocab_size", vocab_size, reason)]
    return eval_lines(table, out, scale) if table.stage.name == "eval" else []


def eval_lines(table: Table, out: Path, scale: float) -> list[Line]:
    """The evaluation's default sizes times `scale`, where the recipe sets none."""
    if scale == 1:
        return []
    config = cast(EvalConfig, table.config(out))
    reason = f"{scale:.0%} of the default, so that evaluation does not take longer than training"
    return [
        Line(table.name, name, max(least, round(getattr(config, name) * scale)), reason)
        for name, least in (
            ("bytes_per_source", 16_384),
            ("questions", 40),
            ("refusal_prompts", 10),
            ("pairs", 100),
            ("conversations", 15),
        )
        if name not in table.settings
    ]


def _model_lines(
    table: Table,
    config: PretrainConfig,
    compute: Compute,
    recipe: Recipe,
    out: Path,
    seconds: float,
    machine: Machine,
) -> tuple[list[Line], float]:
    """Depth and width of a model for these seconds, and its training speed."""
    timed = config.model_copy(update={"minutes": seconds / 60})
    vocab_size = vocab_size_of(recipe, out, table.inputs["tokenizer"])
    shape, reasons = model_shape(timed, vocab_size, machine.peak(compute.dtype))
    say(
        "measuring how fast this machine trains a model of "
        f"{counted(shape.num_hidden_layers, 'layer')} of width {shape.hidden_size} …"
    )
    speed = training_speed(config, shape, compute, seconds)
    values = {"depth": shape.num_hidden_layers, "width": shape.hidden_size}
    return [
        Line(table.name, name, value, _in_recipe(name, reasons[name]))
        for name, value in values.items()
        if name in reasons
    ], speed


def _in_recipe(name: str, reason: str) -> str:
    """The reason that `pretrain` gives, with its option replaced by the recipe's setting."""
    return reason.replace(f"change with --{name}", f"set {name} in the recipe")


def _compile_line(table: Table, compute: Compute) -> Line:
    if compute.compile:
        reason = (
            'over 5 minutes, and a C++ compiler is available; set compile = "off" in the recipe'
        )
    elif compute.kernels != "none":
        reason = "groundup's own kernels are used, so compiling would gain nothing"
    else:
        reason = "the run is too short, its layers do not suit compiling, or there is no compiler"
    return Line(table.name, "compile", "on" if compute.compile else "off", reason)


def _length_lines(
    table: Table, config: TrainingConfig, speed: float | None, seconds: float, whole: float
) -> list[Line]:
    """How long a stage trains, unless the recipe sets it: in steps if its model's speed is known,
    else in minutes, which the stage itself converts to steps.
    """
    lines: list[Line] = []
    given = (config.steps, config.minutes, getattr(config, "iterations", None))
    is_set = any(one is not None for one in given) or "epochs" in table.settings
    if speed is None or isinstance(config, RolloutConfig):
        if not is_set:
            lines.append(_minutes_line(table, seconds, whole))
        return lines
    if config.rows is None:
        rows = TrainingConfig.model_fields["rows"].default
        config = config.model_copy(update={"rows": rows})
        reason = "the default, since data and time are ample; set rows in the recipe"
        lines.append(Line(table.name, "rows", rows, reason))
    if not is_set:
        lines.append(_steps_line(table, config, speed, seconds, whole))
    return lines


def _minutes_line(table: Table, seconds: float, whole: float) -> Line:
    share = _traits(table).share / whole
    return Line(
        table.name,
        "minutes",
        max(0.001, round(seconds / 60, 3)),
        f"{share:.0%} of the training time; the stage measures its model's speed and plans its "
        "steps from it; set steps or minutes in the recipe",
    )


def _steps_line(
    table: Table, config: TrainingConfig, speed: float, seconds: float, whole: float
) -> Line:
    context = config.context if isinstance(config, PretrainConfig) else 256
    tokens = config.rows * context
    traits = _traits(table)
    steps = max(1, round(seconds * TRAINING_SHARE * traits.in_steps * speed / tokens))
    share = traits.share / whole
    return Line(
        table.name,
        "steps",
        steps,
        f"{seconds:.0f} s ({share:.0%} of the training time) at a measured {speed:,.0f} tokens per "
        f"second, {tokens:,} per step; set steps in the recipe",
    )


def compute_for(table: Table, out: Path, minutes: float) -> Compute:
    """Dtype, kernels and compile mode of a table in a recipe of so many minutes."""
    config = cast(TrainingConfig, table.config(out))
    compute = resolve(config, compile_by_default=minutes >= COMPILE_FROM_MINUTES)
    fit = not isinstance(config, PretrainConfig) or config.compiles
    return replace(compute, compile=compute.compile and fit)


def training_speed(
    config: PretrainConfig, shape: ModelConfig, compute: Compute, seconds: float
) -> float:
    """Tokens per second of a stage that trains such a model for `seconds`."""
    pace = measure_pace(
        new_model(shape, 0),
        compute,
        random_batches(shape.vocab_size, context=config.context, rows=config.micro(config.context)),
        next_token_loss,
        muon=config.optimizer == "muon",
        minutes=seconds / 60,
    )
    return pace.tokens_per_second(config.rows * config.context)


def vocab_size_of(recipe: Recipe, out: Path, source: str | tuple[str, ...]) -> int:
    """The vocabulary size of a table's tokenizer or model, or of one outside the recipe."""
    at = source if isinstance(source, str) else source[0]
    table = next((one for one in recipe.tables if one.name == at), None)
    if table is None:
        folder = Path(at)
        own = (folder / TOKENIZER).is_file()
        return (Tokenizer.load(folder) if own else load_tokenizer(at)).vocab_size
    config = table.config(out)
    if isinstance(config, TokenizerConfig):
        return config.vocab_size
    # A model has the tokenizer that it was made with.
    before = table.inputs.get("tokenizer") or _models(table)[0]
    return vocab_size_of(recipe, out, before)


def _models(table: Table) -> tuple[str, ...]:
    """The models that a table's model is made from."""
    named = [table.inputs.get(field, ()) for field in ("model", "models")]
    return tuple(one for at in named for one in ((at,) if isinstance(at, str) else at))


def _traits(table: Table) -> Traits:
    """Return the traits of a table's stage; a stage that does not train has a share of 0."""
    config = table.stage.config
    return config.traits if issubclass(config, TrainingConfig) else UNTRAINED


def _world_flops(machine: Machine) -> float:
    """FLOP/s for sizing the small world; an accelerator counts as at least the fastest CPU."""
    if resolve_device("auto") != "cpu":
        return _WORLD_FLOPS
    return max(machine.float32_flops, machine.bfloat16_flops)
