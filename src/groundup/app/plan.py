"""Turn minutes into a plan: how a recipe spends its time on this machine, and why.

A short measurement finds how fast the machine multiplies matrices and trains a model of the chosen
size. The time of stages with a fixed cost (reading data, evaluating) is subtracted; the training
stages share the rest. The plan is printed with the reason for every value and written to plan.json
next to the recipe; later starts read that file and measure nothing. A machine may become slower, so
the process that made the plan checks the clock before each table and plans it again (`replan`).
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self, cast

from groundup.align.config import RolloutConfig
from groundup.app.recipe import Recipe, Table
from groundup.app.recipe_folder import FILE
from groundup.data.config import TokenizerConfig
from groundup.errors import UserError
from groundup.evals.config import EvalConfig
from groundup.evals.models import compute_of
from groundup.formats.load import load_tokenizer
from groundup.formats.locate import TOKENIZER
from groundup.lm.config import ModelConfig
from groundup.pretrain.config import PretrainConfig
from groundup.pretrain.shape import model_shape
from groundup.pretrain.stage import new_model
from groundup.runs.console import counted, say
from groundup.runs.files import is_number, is_sealed, read_json_object, read_sealed, write_sealed
from groundup.runs.folder import has_begun
from groundup.text.tokenizer import Tokenizer
from groundup.train.config import UNTRAINED, TrainingConfig, Traits
from groundup.train.device import (
    COMPILE_FROM_MINUTES,
    Compute,
    Machine,
    measure,
    resolve,
    resolve_device,
)
from groundup.train.loss import next_token_loss
from groundup.train.pace import measure_pace, random_batches
from groundup.train.plan import TRAINING_SHARE

SCHEMA = 1
# Seconds on two cores, between a fast and a slow machine's: reading, cleaning and comparing 15 MB
# of packs; training a tokenizer on them; starting Python, preparing the data and compiling a stage
# whose kernels are cached.
_DATA_SECONDS, _TOKENIZER_SECONDS, _STAGE_SECONDS = 18.0, 6.0, 12.0
# Making, comparing and encoding one megabyte of the small world's text and its other rows.
_WORLD_SECONDS_PER_MEGABYTE = 3.0
# How much of the small world to make per minute on a machine of _WORLD_FLOPS, so that training
# reads all the text once; and the maximum, since rows are held in memory. A model as large as the
# time can feed reads tokens in proportion to the square root of the FLOPs.
_WORLD_MEGABYTES, _WORLD_CONVERSATIONS, _WORLD_PREFERENCES = 0.8, 3_000, 1_300
_MAX_MEGABYTES, _MAX_CONVERSATIONS, _MAX_PREFERENCES = 120.0, 300_000, 60_000
_WORLD_FLOPS = 1e12
# The first compilation, during the measurement of the speed.
_COMPILE_SECONDS = 30.0
# The eval stage at its default sizes for three models: the least seconds by dtype, and on a slow
# machine the tokens that training reads in this time (43 to 54 s at 37,000 tokens per second, and
# 97 s at 15,000 to 19,000). Short runs use smaller sizes. The share of it that any size takes: on
# that slow machine 58 s at a tenth of the sizes and at three tenths, 77 at six tenths.
_EVAL_SECONDS, _EVAL_TOKENS = {"float32": 85.0, "bfloat16": 43.0}, 1.7e6
_EVAL_LEAST_SHARE = 0.4
_EVAL_FULL_MINUTES, _MIN_EVAL_SCALE = 25.0, 0.1
# Prompts whose answers are compared, per minute on such a machine; the least seconds to answer one,
# and to learn once from its pairs; and those to read the fine-tuning data mixed in.
_COMPARED_PROMPTS, _MIN_PROMPTS, _MAX_PROMPTS = 300, 200, 20_000
_PROMPT_SECONDS, _PAIRS_SECONDS, _PTX_SECONDS = 0.009, 0.0018, 12.0
# The largest share of the training time that answering and learning from the pairs may take, except
# for the fewest prompts. In 15 minutes on a slow machine it was almost half, and base learned too
# little.
_COMPARED_SHARE = 1 / 3
# On a slow machine, the tokens that training reads in the time of answering one prompt.
_ANSWERS_TOKENS = 360
# And of learning once from its pairs: after endless fine-tuning, what an untrained model needs
# more, and the tokens of fine-tuning that halve this. In quickstarts it was 170 tokens after
# 2.8 million and 111 to 119 after 7.2 to 7.7 million.
_PAIRS_TOKENS, _UNTRAINED_PAIRS_TOKENS, _HALVING_TOKENS = 60, 300, 1.64e6
# Of finding how long fine-tuning and its pairs take, which depend on each other.
_ROUNDS = 16
# The factor by which pairs across prompts increase the number of pairs.
_ACROSS_PROMPTS = 1.3
# Vocabulary sizes below these minutes: each embedding must be seen often enough to be learned, and
# the output layer takes a third of a small model's time.
_VOCABULARIES = {5: 2_048, 45: 4_096}
# A shorter training stage learns nothing useful: after 5 s no answer ends, so none is preferred.
_MIN_STAGE_SECONDS = 20.0
# The factor by which replanning may change a stage's length: a slowdown by another program may be
# temporary, and each method has a length that suits it.
_MAX_CHANGE = 2.0
# Repeated timings differ by up to a fifth on machines that are fast only for seconds.
_FASTER = 1.25


@dataclass(frozen=True)
class Line:
    """One derived value: what it is, why, and how to change it."""

    table: str
    setting: str
    value: Any
    reason: str


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
        return _filled(recipe, plan["settings"])
    if minutes is None:  # the plan was lost before any stage began
        raise UserError(f"{path} is damaged; give --minutes again, the time that it may take")
    machine = measure(seconds=1.0)
    lines, seconds, speeds = _lines(recipe, out, minutes, machine)
    settings = _settings(lines)
    planned = _filled(recipe, settings)
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
            f"model learns nothing in less than {_MIN_STAGE_SECONDS:.0f} s of training; it will "
            f"take about {whole / 60:.1f} minutes"
        )
    return planned


def replan(recipe: Recipe, out: Path, table: Table, elapsed: float) -> Table:
    """Return a table that is about to begin, with its length adjusted to the time left.

    `elapsed` seconds have passed since the start. The remaining training stages share the time left
    in proportion to their planned seconds, at the measured speed of the last finished one; after
    them, as many prompts are compared as there is time for, and the final evaluation takes the
    rest. The new values are written to `out`/plan.json before use.
    """
    plan = read_sealed(out / "plan.json", _checked)
    planned, names = plan.get("seconds"), [one.name for one in recipe.tables]
    if not isinstance(planned, dict) or not all(is_number(planned.get(name)) for name in names):
        return table
    rest = names[names.index(table.name) :]
    whole = plan.get("whole_seconds", plan["minutes"] * 60)
    spare = whole - elapsed - sum(planned[name] for name in rest)
    old = plan["settings"].get(table.name, {})
    own = {name: value for name, value in table.settings.items() if name not in old}
    trained = [one.name for one in recipe.tables if "steps" in plan["settings"].get(one.name, {})]
    before = [name for name in trained if name not in rest]
    if table.name in trained:
        seconds = planned[table.name] - _STAGE_SECONDS
        training = sum(planned[name] - _STAGE_SECONDS for name in trained if name in rest)
        pace = _since_planned(recipe, out, table, plan, seconds, before)
        spare -= _more_seconds(recipe, out, plan, rest, pace[0])
        wanted = seconds + spare * seconds / training
        lines = _other_steps(table, plan, wanted, pace)
        new = old | _settings(lines).get(table.name, {})
        # Seconds at the planned speed, from which the next stage computes the actual speed.
        planned[table.name] = _STAGE_SECONDS + seconds * new["steps"] / old["steps"]
    elif "questions" in old and table.stage.name == "best-of-n" and before == trained:
        pace = _since_planned(recipe, out, table, plan, 0.0, before)
        lines = _other_prompts(recipe, out, table, plan, rest, whole - elapsed, pace)
        new = old | _settings(lines).get(table.name, {})
    elif table.stage.name == "eval" and len(rest) == 1:
        wanted = planned[table.name] - _STAGE_SECONDS + spare
        faster, _ = _since_planned(recipe, out, table, plan, 0.0, before)
        speed = faster * plan.get("tokens_per_second", {}).get(table.name, math.inf)
        scale = wanted / _eval_seconds(table, out, speed)
        scale = (scale - _EVAL_LEAST_SHARE) / (1 - _EVAL_LEAST_SHARE)
        scale = min(1.0, max(_MIN_EVAL_SCALE, scale))
        lines = _eval_lines(replace(table, settings=own), out, scale)
        new = _settings(lines).get(table.name, {})
        if new != old:
            say(
                f"plan: {table.name} measures {scale:.0%} of the default size\n"
                f"      {max(0.0, wanted):.0f} s are left for it"
            )
    else:
        return table
    plan["settings"][table.name] = new
    for name in old.keys() - new.keys():
        plan["reasons"].pop(f"{table.name}.{name}", None)
    plan["reasons"] |= {f"{line.table}.{line.setting}": line.reason for line in lines}
    write_sealed(out / "plan.json", plan)
    return replace(table, settings={**new, **own})


def _more_seconds(
    recipe: Recipe, out: Path, plan: Mapping[str, Any], rest: list[str], faster: float
) -> float:
    """How much longer `rest` takes, apart from its steps, at `faster` times the planned speed."""
    planned, trained = plan.get("tokens_per_second", {}), _tuning_tokens(plan)
    found = list[dict[str, float]]()
    for pace in (1.0, faster):
        speeds = {name: speed * pace for name, speed in planned.items()}
        found.append(_fixed_seconds(recipe, out, plan["minutes"], speeds, trained * pace))
    before, now = found
    return sum(now[name] - before[name] for name in rest)


def _tuning_tokens(plan: Mapping[str, Any]) -> float:
    """The tokens of the last planned training, at the planned speed; 0 without one."""
    planned = plan.get("tokens_per_second", {})
    tuned = [name for name in planned if "steps" in plan["settings"].get(name, {})][-1:]
    seconds = sum(plan["seconds"][name] - _STAGE_SECONDS for name in tuned)
    return float(sum(seconds * TRAINING_SHARE * planned[name] for name in tuned))


def _since_planned(
    recipe: Recipe,
    out: Path,
    table: Table,
    plan: Mapping[str, Any],
    seconds: float,
    before: list[str],
) -> tuple[float, str]:
    """Return how many times as fast as planned the steps are, and how that is known.

    The last finished stage in `before` determines it. Without one, the model is timed again, since
    another program may have slowed the first measurement, and the geometric mean of both counts: a
    machine may be fast for seconds only. A slower result is ignored, because that may be temporary
    too.
    """
    if before:
        took = read_json_object(out / before[-1] / "status.json").get("seconds")
        if not is_number(took) or took <= 0:
            return 1.0, ""
        faster = (plan["seconds"][before[-1]] - _STAGE_SECONDS) / took
        return faster, f", and {before[-1]} ran {faster:.2f} times as fast as planned"
    config, planned = table.config(out), plan.get("tokens_per_second", {}).get(table.name)
    if not is_number(planned) or not isinstance(config, PretrainConfig):
        return 1.0, ""
    compute = _compute(table, out, plan["minutes"])
    if compute.compile:  # compiling again would take longer than it saves
        return 1.0, ""
    vocab_size = _vocab_size(recipe, out, table.inputs["tokenizer"])
    shape, _ = model_shape(config, vocab_size, 0.0)
    faster = _speed(config, shape, compute, seconds) / planned
    if faster < _FASTER:
        return 1.0, ""
    mean = math.sqrt(faster)
    return mean, (
        f", at {mean:.2f} times the planned speed, since a second timing was {faster:.2f} times as "
        "fast as the first"
    )


def _other_steps(
    table: Table, plan: Mapping[str, Any], wanted: float, pace: tuple[float, str]
) -> list[Line]:
    """The steps that take `wanted` seconds at the pace that `_since_planned` returned."""
    steps, (faster, known_by) = plan["settings"][table.name]["steps"], pace
    change = wanted / (plan["seconds"][table.name] - _STAGE_SECONDS) * faster
    found = max(1, round(steps * min(_MAX_CHANGE, max(1 / _MAX_CHANGE, change))))
    if found == steps:
        return []
    reason = (
        f"{steps:,} in the first plan; {max(0.0, wanted):.0f} s are left for it{known_by}; set "
        "steps in the recipe"
    )
    say(f"plan: {table.name}.steps = {found:,}\n      {reason}")
    return [Line(table.name, "steps", found, reason)]


def _other_prompts(
    recipe: Recipe,
    out: Path,
    table: Table,
    plan: Mapping[str, Any],
    rest: list[str],
    left: float,
    pace: tuple[float, str],
) -> list[Line]:
    """The prompts to compare if `rest` has `left` seconds, at `_since_planned`'s pace."""
    prompts, (faster, known_by) = plan["settings"][table.name]["questions"], pace
    speeds = {name: one * faster for name, one in plan.get("tokens_per_second", {}).items()}
    now = _fixed_seconds(recipe, out, plan["minutes"], speeds, _tuning_tokens(plan))
    learned = [one.name for one in recipe.tables if _passes(one, recipe) == table]
    seconds = sum(now[name] - _STAGE_SECONDS for name in (table.name, *learned))
    wanted = seconds + left - sum(now[name] for name in rest)
    change = min(_MAX_CHANGE, max(1 / _MAX_CHANGE, wanted / seconds))
    found = min(_MAX_PROMPTS, max(_MIN_PROMPTS, round(prompts * change)))
    if found == prompts:
        return []
    reason = (
        f"{prompts:,} in the first plan; {max(0.0, wanted):.0f} s are left for the answers and "
        f"learning from them{known_by}; set questions in the recipe"
    )
    say(f"plan: {table.name}.questions = {found:,}\n      {reason}")
    return [Line(table.name, "questions", found, reason)]


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
        return read_sealed(path, _checked, say)
    except UserError as error:
        begun = [table.name for table in recipe.tables if (out / table.name).exists()]
        if begun or path.is_dir():
            raise UserError(
                f"{error}; without it {out} cannot be continued: put it back, or choose another "
                "folder with --out"
            ) from None
        return None


def _checked(plan: dict[str, Any]) -> dict[str, Any]:
    settings = plan.get("settings")
    tables = settings.values() if isinstance(settings, dict) else [None]
    if not is_number(plan.get("minutes")) or not all(isinstance(one, dict) for one in tables):
        raise UserError("plan.json is not a plan")
    return plan


def _traits(table: Table) -> Traits:
    """Return the traits of a table's stage; a stage that does not train has a share of 0."""
    config = table.stage.config
    return config.traits if issubclass(config, TrainingConfig) else UNTRAINED


def _settings(lines: list[Line]) -> dict[str, dict[str, Any]]:
    settings: dict[str, dict[str, Any]] = {}
    for line in lines:
        settings.setdefault(line.table, {})[line.setting] = line.value
    return settings


def _filled(recipe: Recipe, settings: Mapping[str, Mapping[str, Any]]) -> Recipe:
    """Return the recipe with planned settings where its author set none."""
    tables = tuple(
        replace(table, settings={**settings.get(table.name, {}), **table.settings})
        for table in recipe.tables
    )
    return replace(recipe, tables=tables)


def _lines(
    recipe: Recipe, out: Path, minutes: float, machine: Machine
) -> tuple[list[Line], dict[str, float], dict[str, float]]:
    """Return the planned values, each table's seconds, and its model's tokens per second."""
    sizes = _Sizes.of(minutes, _world_flops(machine))
    lines = [line for table in recipe.tables for line in _fixed_lines(table, out, minutes, sizes)]
    given, recipe = recipe, _filled(recipe, _settings(lines))
    fixed = _fixed_seconds(recipe, out, minutes, {})
    training = [t for t in recipe.tables if _traits(t).share > 0 and not _passes(t, recipe)]
    if not training:
        return lines, fixed, {}
    compute = _compute(training[0], out, minutes)
    whole = minutes * 60 - (_COMPILE_SECONDS if compute.compile else 0.0)
    least = _MIN_STAGE_SECONDS * len(training)
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
        recipe = _filled(given, _settings(lines))
        fixed = _fixed_seconds(recipe, out, minutes, speeds, trained)
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
    compared = [table, *(one for one in recipe.tables if _passes(one, recipe) is table)]
    seconds = sum(fixed[one.name] - _STAGE_SECONDS for one in compared)
    most = round(line.value * _COMPARED_SHARE * (seconds + left) / seconds)
    prompts = max(_MIN_PROMPTS, min(sizes.prompts, most))
    return replace(line, value=prompts)


def _models(table: Table) -> tuple[str, ...]:
    """The models that a table's model is made from."""
    named = [table.inputs.get(field, ()) for field in ("model", "models")]
    return tuple(one for at in named for one in ((at,) if isinstance(at, str) else at))


def _world_flops(machine: Machine) -> float:
    """FLOP/s for sizing the small world; an accelerator counts as at least the fastest CPU."""
    if resolve_device("auto") != "cpu":
        return _WORLD_FLOPS
    return max(machine.float32_flops, machine.bfloat16_flops)


def _fixed_seconds(
    recipe: Recipe,
    out: Path,
    minutes: float,
    speeds: Mapping[str, float],
    trained: float = 0.0,
) -> dict[str, float]:
    """The seconds of each table that do not depend on how long it trains.

    `speeds` are the training speeds of the tables' models in tokens per second, where known.
    `trained` is the number of tokens of fine-tuning: a model that has hardly trained answers at
    full length and seldom twice the same, so its pairs have more tokens.
    """
    pairs_tokens = _PAIRS_TOKENS + _UNTRAINED_PAIRS_TOKENS / (1 + trained / _HALVING_TOKENS)
    found = dict[str, float]()
    for table in recipe.tables:
        speed = speeds.get(table.name, math.inf)
        if table.stage.name == "data":
            megabytes = table.settings.get("world_megabytes", 0.0)
            found[table.name] = _DATA_SECONDS + _WORLD_SECONDS_PER_MEGABYTE * megabytes
        elif table.stage.name == "eval":
            scale = _eval_scale(minutes)
            found[table.name] = _STAGE_SECONDS + _eval_seconds(table, out, speed, scale)
        elif table.stage.name == "tokenizer":
            found[table.name] = _TOKENIZER_SECONDS
        else:
            found[table.name] = _STAGE_SECONDS + _passes_seconds(table, recipe, speed, pairs_tokens)
            if table.stage.name == "best-of-n":
                each = max(_PROMPT_SECONDS, _ANSWERS_TOKENS / speed)
                found[table.name] += each * _answered_prompts(table)
    return found


def _answered_prompts(table: Table) -> float:
    """The prompts of a best-of-n stage, in units of 4 answers of at most 96 tokens."""
    config = {name: field.default for name, field in table.stage.config.model_fields.items()}
    config |= table.settings
    return float(config["questions"] * config["n"] / 4 * config["max_new_tokens"] / 96)


def _passes(table: Table, recipe: Recipe) -> Table | None:
    """The best-of-n table on whose pairs a table trains for some epochs; None without one."""
    if "epochs" not in table.settings:
        return None
    compared = (one for one in recipe.tables if one.name == table.inputs.get("data"))
    return next((one for one in compared if one.stage.name == "best-of-n"), None)


def _passes_seconds(table: Table, recipe: Recipe, speed: float, pairs_tokens: float) -> float:
    """Seconds of a table's epochs on a best-of-n table's pairs; 0 if it has none."""
    compared = _passes(table, recipe)
    if compared is None:
        return 0.0
    each = max(_PAIRS_SECONDS, pairs_tokens / speed)
    seconds = float(table.settings["epochs"]) * _answered_prompts(compared) * each
    if compared.settings.get("across_prompts"):
        seconds *= _ACROSS_PROMPTS
    # A step reads the same number of rows of fine-tuning data.
    return 2 * seconds + _PTX_SECONDS if table.settings.get("ptx") else seconds


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
            min(_MAX_PROMPTS, max(_MIN_PROMPTS, round(_COMPARED_PROMPTS * scale))),
        )


def _eval_seconds(table: Table, out: Path, speed: float, scale: float = 1.0) -> float:
    """Seconds of the eval stage at `scale` times its default sizes.

    `speed` is the training speed of its models in tokens per second; infinite if unknown.
    """
    dtype = compute_of(cast(EvalConfig, table.config(out))).dtype
    whole = max(_EVAL_SECONDS[dtype], _EVAL_TOKENS / speed)
    return whole * (_EVAL_LEAST_SHARE + (1 - _EVAL_LEAST_SHARE) * scale)


def _eval_scale(minutes: float) -> float:
    return min(1.0, max(_MIN_EVAL_SCALE, minutes / _EVAL_FULL_MINUTES))


def _fixed_lines(table: Table, out: Path, minutes: float, sizes: _Sizes) -> list[Line]:
    scale = _eval_scale(minutes)
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
    return _eval_lines(table, out, scale) if table.stage.name == "eval" else []


def _eval_lines(table: Table, out: Path, scale: float) -> list[Line]:
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


def _compute(table: Table, out: Path, minutes: float) -> Compute:
    config = cast(TrainingConfig, table.config(out))
    compute = resolve(config, compile_by_default=minutes >= COMPILE_FROM_MINUTES)
    fit = not isinstance(config, PretrainConfig) or config.compiles
    return replace(compute, compile=compute.compile and fit)


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
    vocab_size = _vocab_size(recipe, out, table.inputs["tokenizer"])
    shape, reasons = model_shape(timed, vocab_size, machine.peak(compute.dtype))
    say(
        "measuring how fast this machine trains a model of "
        f"{counted(shape.num_hidden_layers, 'layer')} of width {shape.hidden_size} …"
    )
    speed = _speed(config, shape, compute, seconds)
    values = {"depth": shape.num_hidden_layers, "width": shape.hidden_size}
    return [
        Line(table.name, name, value, _in_recipe(name, reasons[name]))
        for name, value in values.items()
        if name in reasons
    ], speed


def _in_recipe(name: str, reason: str) -> str:
    """The reason that `pretrain` gives, with its option replaced by the recipe's setting."""
    return reason.replace(f"change with --{name}", f"set {name} in the recipe")


def _speed(config: PretrainConfig, shape: ModelConfig, compute: Compute, seconds: float) -> float:
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


def _vocab_size(recipe: Recipe, out: Path, source: str | tuple[str, ...]) -> int:
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
    return _vocab_size(recipe, out, before)


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
