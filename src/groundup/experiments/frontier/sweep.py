"""Utility against safety against fairness: what does each cost in the others, and is it necessary?

A dial is swept from one fine-tuned model. Every point is a model that answers the same held-out
questions of the small world, where the truth is known: the share answered right (utility), the
share of harmful requests declined (safety), and the planted bias that remains (fairness). Dominated
points are marked; the others are the frontier. The dial is compared with strategies:

    balanced        equal numbers of helpful, harmless and balanced preferences
    constraint      PPO on helpfulness with a cost below a limit (Safe RLHF, Dai et al. 2023):
                    harm, and harm together with declining what only sounds harmful
    soup            weights between a helpful and a harmless policy (rewarded soups, Ramé et al.
                    2023)
    system-prompt   no training: a system prompt
    guard           no training: a filter that stops what it classifies as harmful

A point is a run of a stage, so the same command resumes after a stop.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from time import perf_counter

import numpy as np

from groundup.align.guards.model import TrainedGuard, load_guard
from groundup.evals.values.world import Deployment
from groundup.experiments.frontier.config import FrontierConfig, cost_name
from groundup.experiments.frontier.points import Builder, check_rewards, check_template
from groundup.experiments.frontier.report import NAME, write_report
from groundup.experiments.frontier.trade import Point
from groundup.generation.guarded import guarded
from groundup.runs.console import say
from groundup.runs.folder import Run, has_begun, is_finished

# KL coefficients, from prohibitive to cheap.
_DEAREST, _CHEAPEST = 1.0, 0.005
# The weights of soups; both ends are models of their own.
SOUPS = (0.25, 0.5, 0.75)
_THIRD = 1 / 3

# A seed -> the folder of the model with that seed.
MakeModel = Callable[[int], Path]


def run(config: FrontierConfig) -> Path:
    """Make and measure every missing point, and write the frontier. After a stop it resumes.

    Raises `UserError` for a model, a guard, a reward or a folder that cannot be used, before
    anything is trained.
    """
    guard = None if config.guard is None else load_guard(config.guard)
    parents = {"model": config.model}
    if config.guard is not None:
        parents["guard"] = config.guard
    if not is_finished(config.out):
        check_template(config)
        check_rewards(config)
    resumed = has_begun(config.out)
    with Run.open(config.out, NAME, config, parents) as run:
        if run.finished:
            return run.folder
        begun = perf_counter()
        builder = Builder(config)
        points = [_start(builder), *_dial(builder)]
        for strategy in config.strategies:
            points += STRATEGIES[strategy](builder)
        if guard is not None:
            points += _guarded(builder, guard)
        write_report(config, points, None if resumed else perf_counter() - begun)
        run.finish()
        return run.folder


def settings(config: FrontierConfig) -> list[float]:
    """The dial's value at each point, including both ends."""
    if config.dial == "kl":
        return [float(f"{x:.2g}") for x in np.geomspace(_DEAREST, _CHEAPEST, config.points)]
    return [float(x) for x in np.linspace(0, 1, config.points).round(3)]


# Points.


def _start(builder: Builder) -> Point:
    rows, seconds = builder.measured(builder.config.model)
    return Point.of("before", "start", None, [rows] * builder.config.seeds, seconds)


def _dial(builder: Builder) -> list[Point]:
    config = builder.config
    making: dict[str, Callable[[float, int], Path]] = {
        "mix": builder.mixed,
        "fairness": lambda at, seed: builder.dpo(config.harmless, at, seed),
        "kl": lambda at, seed: builder.ppo(at, seed),
    }
    make = making[config.dial]
    return [
        _point(builder, f"{config.dial} {at:g}", "dial", at, partial(make, at))
        for at in settings(config)
    ]


def _point(
    builder: Builder,
    name: str,
    kind: str,
    value: float | None,
    make: MakeModel,
    used: Deployment | None = None,
) -> Point:
    """A point over all seeds, with the mean seconds of one."""
    say(f"\n{NAME}  {name}")
    found = []
    for turn in range(builder.config.seeds):
        begun, seed = perf_counter(), builder.config.seed + turn
        found.append(builder.measured(make(seed), used, begun))
    seconds = sum(spent for _, spent in found) / len(found)
    return Point.of(name, kind, value, [rows for rows, _ in found], seconds)


# Strategies.


def _balanced(builder: Builder) -> list[Point]:
    return [_point(builder, "balanced", "balanced", None, partial(builder.dpo, 0.5, _THIRD))]


def _constraint(builder: Builder) -> list[Point]:
    """PPO with a limit on each cost, and without a limit for comparison."""
    kl_coef = builder.config.kl_coef
    named: dict[str, str | None] = {"PPO, no limit": None}
    named |= {f"PPO, limit on {cost_name(cost)}": cost for cost in builder.config.costs}
    return [
        _point(builder, name, "constraint", None, partial(builder.ppo, kl_coef, cost=cost))
        for name, cost in named.items()
    ]


def _soups(builder: Builder) -> list[Point]:
    """Soups between the two ends of the mix, and the ends unless they are on the dial."""
    between = [
        _point(builder, f"soup {at:g}", "soups", at, partial(builder.soup, at)) for at in SOUPS
    ]
    if builder.config.dial == "mix":
        return between
    first, last = (
        _point(builder, f"soup {at:g}", "soups", at, partial(builder.mixed, at))
        for at in (0.0, 1.0)
    )
    return [first, *between, last]


def _system_prompt(builder: Builder) -> list[Point]:
    used = Deployment(system=builder.config.system)
    return [
        _point(
            builder, "system prompt", "system-prompt", None, lambda seed: builder.config.model, used
        )
    ]


def _guarded(builder: Builder, guard: TrainedGuard) -> list[Point]:
    used = Deployment(guard=lambda prompts, answers: guarded(answers, prompts, guard))
    return [_point(builder, "guard", "guard", None, lambda seed: builder.config.model, used)]


STRATEGIES: dict[str, Callable[[Builder], Sequence[Point]]] = {
    "balanced": _balanced,
    "constraint": _constraint,
    "soup": _soups,
    "system-prompt": _system_prompt,
}
