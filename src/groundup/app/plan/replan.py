"""The plan of a table that is about to begin, adjusted to the time left and the speed so far."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from groundup.app.plan.first import checked
from groundup.app.plan.seconds import (
    STAGE_SECONDS,
    eval_scale_for,
    fixed_seconds,
    pairs_table,
)
from groundup.app.plan.values import (
    MAX_PROMPTS,
    MIN_PROMPTS,
    Line,
    compute_for,
    eval_lines,
    settings_of,
    training_speed,
    vocab_size_of,
)
from groundup.app.recipe import Recipe, Table
from groundup.pretrain.config import PretrainConfig
from groundup.pretrain.shape import model_shape
from groundup.runs.console import say
from groundup.runs.files import is_number, read_json_object, read_sealed, write_sealed
from groundup.train.plan import TRAINING_SHARE

# The factor by which replanning may change a stage's length: a slowdown by another program may be
# temporary, and each method has a length that suits it.
_MAX_CHANGE = 2.0
# Repeated timings differ by up to a fifth on machines that are fast only for seconds.
_FASTER = 1.25


@dataclass(frozen=True)
class _Pace:
    """How many times as fast as planned the steps are, and how that is known, for a reason."""

    faster: float = 1.0
    known_by: str = ""


def replan(recipe: Recipe, out: Path, table: Table, elapsed: float) -> Table:
    """Return a table that is about to begin, with its length adjusted to the time left.

    `elapsed` seconds have passed since the start. The remaining training stages, and comparing
    answers and learning from the pairs, share the time left in proportion to their planned seconds,
    at the measured speed of the last finished one; after training, as many prompts are compared as
    there is time for, and the final evaluation takes the rest. The new values are written to
    `out`/plan.json before use.
    """
    plan = read_sealed(out / "plan.json", checked)
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
        seconds = planned[table.name] - STAGE_SECONDS
        flexible = [
            name
            for name in rest
            if name in trained or _follows_prompts(name, plan, recipe, rest, trained)
        ]
        training = sum(planned[name] - STAGE_SECONDS for name in flexible)
        pace = _since_planned(recipe, out, table, plan, seconds, before)
        spare -= _more_seconds(recipe, out, plan, rest, pace)
        wanted = seconds + spare * seconds / training
        lines = _other_steps(table, plan, wanted, pace)
        new = old | settings_of(lines).get(table.name, {})
        # Seconds at the planned speed, from which the next stage computes the actual speed.
        planned[table.name] = STAGE_SECONDS + seconds * new["steps"] / old["steps"]
    elif "questions" in old and table.stage.name == "best-of-n" and before == trained:
        pace = _since_planned(recipe, out, table, plan, 0.0, before)
        lines = _other_prompts(recipe, out, table, plan, rest, whole - elapsed, pace)
        new = old | settings_of(lines).get(table.name, {})
    elif table.stage.name == "eval" and len(rest) == 1:
        wanted = planned[table.name] - STAGE_SECONDS + spare
        pace = _since_planned(recipe, out, table, plan, 0.0, before)
        speed = pace.faster * plan.get("tokens_per_second", {}).get(table.name, math.inf)
        scale = eval_scale_for(wanted, table, out, speed)
        lines = eval_lines(replace(table, settings=own), out, scale)
        new = settings_of(lines).get(table.name, {})
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


def _follows_prompts(
    name: str, plan: Mapping[str, Any], recipe: Recipe, rest: list[str], trained: list[str]
) -> bool:
    """Whether a table takes longer the more prompts are compared, whose number will be replanned:
    if it was planned, and all training by steps is over by then."""
    table = next(one for one in recipe.tables if one.name == name)
    compared = pairs_table(table, recipe) or table
    if compared.stage.name != "best-of-n" or compared.name not in rest:
        return False
    is_planned = "questions" in plan["settings"].get(compared.name, {})
    return is_planned and not set(trained) & set(rest[rest.index(compared.name) :])


def _more_seconds(
    recipe: Recipe, out: Path, plan: Mapping[str, Any], rest: list[str], pace: _Pace
) -> float:
    """How much longer `rest` takes at this pace than at the planned one, apart from its steps."""
    planned, trained = plan.get("tokens_per_second", {}), _tuning_tokens(plan)
    found = list[dict[str, float]]()
    for faster in (1.0, pace.faster):
        speeds = {name: speed * faster for name, speed in planned.items()}
        found.append(fixed_seconds(recipe, out, plan["minutes"], speeds, trained * faster))
    before, now = found
    return sum(now[name] - before[name] for name in rest)


def _tuning_tokens(plan: Mapping[str, Any]) -> float:
    """The tokens of the last planned training, at the planned speed; 0 without one."""
    planned = plan.get("tokens_per_second", {})
    tuned = [name for name in planned if "steps" in plan["settings"].get(name, {})][-1:]
    seconds = sum(plan["seconds"][name] - STAGE_SECONDS for name in tuned)
    return float(sum(seconds * TRAINING_SHARE * planned[name] for name in tuned))


def _since_planned(
    recipe: Recipe,
    out: Path,
    table: Table,
    plan: Mapping[str, Any],
    seconds: float,
    before: list[str],
) -> _Pace:
    """Return the pace of the steps since the plan was made.

    The last finished stage in `before` determines it. Without one, the model is timed again, since
    another program may have slowed the first measurement, and the geometric mean of both counts: a
    machine may be fast for seconds only. A slower result is ignored, because that may be temporary
    too.
    """
    if before:
        took = read_json_object(out / before[-1] / "status.json").get("seconds")
        if not is_number(took) or took <= 0:
            return _Pace()
        faster = (plan["seconds"][before[-1]] - STAGE_SECONDS) / took
        return _Pace(faster, f", and {before[-1]} ran {faster:.2f} times as fast as planned")
    config, planned = table.config(out), plan.get("tokens_per_second", {}).get(table.name)
    if not is_number(planned) or not isinstance(config, PretrainConfig):
        return _Pace()
    compute = compute_for(table, out, plan["minutes"])
    if compute.compile:  # compiling again would take longer than it saves
        return _Pace()
    vocab_size = vocab_size_of(recipe, out, table.inputs["tokenizer"])
    shape, _ = model_shape(config, vocab_size, 0.0)
    faster = training_speed(config, shape, compute, seconds) / planned
    if faster < _FASTER:
        return _Pace()
    mean = math.sqrt(faster)
    return _Pace(
        mean,
        f", at {mean:.2f} times the planned speed, since a second timing was {faster:.2f} times as "
        "fast as the first",
    )


def _other_steps(table: Table, plan: Mapping[str, Any], wanted: float, pace: _Pace) -> list[Line]:
    """The steps that take `wanted` seconds at this pace."""
    steps = plan["settings"][table.name]["steps"]
    change = wanted / (plan["seconds"][table.name] - STAGE_SECONDS) * pace.faster
    found = max(1, round(steps * min(_MAX_CHANGE, max(1 / _MAX_CHANGE, change))))
    if found == steps:
        return []
    reason = (
        f"{steps:,} in the first plan; {max(0.0, wanted):.0f} s are left for it{pace.known_by}; "
        "set steps in the recipe"
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
    pace: _Pace,
) -> list[Line]:
    """The prompts to compare if `rest` has `left` seconds, at this pace."""
    prompts = plan["settings"][table.name]["questions"]
    speeds = {name: one * pace.faster for name, one in plan.get("tokens_per_second", {}).items()}
    now = fixed_seconds(recipe, out, plan["minutes"], speeds, _tuning_tokens(plan))
    learned = [one.name for one in recipe.tables if pairs_table(one, recipe) == table]
    seconds = sum(now[name] - STAGE_SECONDS for name in (table.name, *learned))
    wanted = seconds + left - sum(now[name] for name in rest)
    change = min(_MAX_CHANGE, max(1 / _MAX_CHANGE, wanted / seconds))
    found = min(MAX_PROMPTS, max(MIN_PROMPTS, round(prompts * change)))
    if found == prompts:
        return []
    reason = (
        f"{prompts:,} in the first plan; {max(0.0, wanted):.0f} s are left for the answers and "
        f"learning from them{pace.known_by}; set questions in the recipe"
    )
    say(f"plan: {table.name}.questions = {found:,}\n      {reason}")
    return [Line(table.name, "questions", found, reason)]
