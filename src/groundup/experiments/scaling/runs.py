"""The runs of the experiment: the sizes and tokens of each budget.

Budgets are planned once from a few seconds of measurement and written down; each run has its own
folder, so that a stopped experiment resumes. The sizes of a budget surround the one with the tokens
per parameter that were best in the budget before; if the best size is at the edge, one more is
tried beyond it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from groundup.errors import UserError
from groundup.experiments.config import ScalingLawConfig
from groundup.experiments.scaling.source import (
    CONTEXT,
    VOCABULARY,
    Source,
    SourceStream,
    heldout_loss,
)
from groundup.experiments.transformers.models import transformer
from groundup.formats.hf_config import config_to_hf
from groundup.lm.config import ModelConfig
from groundup.lm.model import CausalLM
from groundup.pretrain.stage import RATES, new_model
from groundup.runs.console import say
from groundup.runs.files import is_number, read_lines
from groundup.train.batch import Batch
from groundup.train.config import TrainingConfig
from groundup.train.device import resolve
from groundup.train.loss import next_token_loss
from groundup.train.pace import Pace, measure_pace, micro_batches
from groundup.train.plan import Trained
from groundup.train.stage import Job, run_stage

# Depth and width, from small to large.
SIZES = (
    *((1, 32), (2, 32)),
    *((1, 64), (2, 64), (1, 128), (2, 128), (3, 128), (2, 192), (3, 192), (4, 192), (3, 256)),
    *((4, 256), (5, 256), (4, 320), (5, 320), (6, 320), (5, 384), (6, 384), (7, 384), (8, 384)),
)
# FLOPs of each budget relative to the smallest, and of the predicted run relative to the largest.
BUDGETS, TIMES = (1.0, 2.5, 6.25, 15.6), 4.0
_QUICK_BUDGETS = (1.0, 2.0, 4.0)
_QUICK_FLOPS = 4e9
PER_BUDGET = 5
# The initial guess for the smallest budget: tokens per parameter of the best size.
FIRST_RATIO = 12.0
# Small batches, since a run of a small budget has few steps (Porian et al. 2024, section 4).
_ROWS, _QUICK_ROWS, _HELDOUT_ROWS = 8, 4, 512
# The share of the minutes for planned runs; runs beyond the edge and the report take the rest.
_SHARE = 0.75


@dataclass(frozen=True)
class Trial:
    """One run: a size, its tokens and its results."""

    depth: int
    width: int
    parameters: int
    steps: int
    tokens: int
    flops: float
    loss: float
    seconds: float


def shape(size: tuple[int, int]) -> ModelConfig:
    """The model of a depth and a width; below width 64 it has one head of that size."""
    depth, width = size
    if width >= 64:
        return ModelConfig.of(width=width, depth=depth, vocab_size=VOCABULARY, context=CONTEXT)
    return transformer(width=width, depth=depth, heads=1, vocab_size=VOCABULARY, context=CONTEXT)


def budgets(config: ScalingLawConfig, source: Source) -> list[float]:
    """The FLOPs of the budgets, ending with the predicted run's, so that the minutes suffice."""
    factors = _QUICK_BUDGETS if config.quick else BUDGETS
    factors = (*factors, TIMES * factors[-1])
    if config.quick:
        return [_QUICK_FLOPS * one for one in factors]
    say("measuring how fast models of these sizes train …")
    paces = {
        size: _pace(config, source, size) for size in (SIZES[0], SIZES[3], SIZES[6], SIZES[11])
    }
    seconds = config.minutes * 60 * _SHARE
    low, high = 1e8, 1e18
    for _ in range(60):
        middle = float(np.sqrt(low * high))
        if _all_seconds(middle, factors, paces) > seconds:
            high = middle
        else:
            low = middle
    return [low * one for one in factors]


def _pace(config: ScalingLawConfig, source: Source, size: tuple[int, int]) -> Pace:
    model = new_model(shape(size), 0)
    settings = TrainingConfig.model_validate(_settings(config, Path("unused"), 1))
    stream = SourceStream(source, _ROWS, _ROWS, 0)
    compute = resolve(settings, compile_by_default=False)
    return measure_pace(model, compute, micro_batches(stream, model), next_token_loss, muon=True)


def _all_seconds(
    flops: float, factors: Sequence[float], paces: dict[tuple[int, int], Pace]
) -> float:
    """Seconds of all planned runs, at the pace of the nearest measured size."""
    total = 0.0
    for number, factor in enumerate(factors):
        chosen = sizes_about(factor * flops, FIRST_RATIO)
        for size in chosen if number < len(factors) - 1 else [chosen[len(chosen) // 2]]:
            tokens = tokens_of(size, factor * flops)
            own = shape(size)
            near = min(paces, key=lambda one: abs(np.log(shape(one).parameters / own.parameters)))
            larger = own.flops_per_token(CONTEXT) / shape(near).flops_per_token(CONTEXT)
            updates = tokens / (_ROWS * CONTEXT) * paces[near].update
            total += tokens * paces[near].token * larger + updates
    return total


def tokens_of(size: tuple[int, int], flops: float) -> int:
    """The training tokens of a model of this size for these FLOPs, including head and scores."""
    return max(1, round(flops / shape(size).flops_per_token(CONTEXT)))


def sizes_about(flops: float, ratio: float) -> list[tuple[int, int]]:
    """A budget's sizes, around the one that has `ratio` tokens per parameter."""
    off = [abs(np.log(tokens_of(one, flops) / shape(one).parameters / ratio)) for one in SIZES]
    first = int(np.clip(int(np.argmin(off)) - PER_BUDGET // 2, 0, len(SIZES) - PER_BUDGET))
    return list(SIZES[first : first + PER_BUDGET])


def budget_runs(
    config: ScalingLawConfig, source: Source, number: int, flops: float, ratio: float
) -> list[Trial]:
    """Train the sizes of a budget, and one more beyond the edge if the best is there."""
    tried = {size: train(config, source, number, size, flops) for size in sizes_about(flops, ratio)}
    for _ in range(2):
        best = min(tried, key=lambda size: tried[size].loss)
        at = SIZES.index(best)
        beyond = [SIZES[n] for n in (at - 1, at + 1) if 0 <= n < len(SIZES)]
        more = [size for size in beyond if size not in tried]
        if not more:
            break
        tried[more[0]] = train(config, source, number, more[0], flops)
    return [tried[size] for size in SIZES if size in tried]


def best_ratio(trials: Sequence[Trial]) -> float:
    """Tokens per parameter of the best run."""
    best = min(trials, key=lambda one: one.loss)
    return best.tokens / best.parameters


def train(
    config: ScalingLawConfig, source: Source, number: int, size: tuple[int, int], flops: float
) -> Trial:
    """Train one size with these FLOPs, unless it is already trained."""
    model_shape = shape(size)
    rows = _QUICK_ROWS if config.quick else _ROWS
    steps = max(2, round(tokens_of(size, flops) / (rows * CONTEXT)))
    out = config.out / "runs" / f"{number}-{size[0]}x{size[1]}"
    settings = TrainingConfig.model_validate(_settings(config, out, steps))
    heldout = 32 if config.quick else _HELDOUT_ROWS

    def evaluate(model: CausalLM, step: int) -> dict[str, Any]:
        found = heldout_loss(
            model, next_token_loss, source, heldout, config.seed, model.like.device
        )
        return {"heldout_loss": found}

    job: Job[Batch, CausalLM] = Job(
        settings,
        Trained.whole(model_shape, CONTEXT, RATES, "which suits small models"),
        model=lambda: new_model(model_shape, config.seed),
        stream=lambda _: SourceStream(source, rows, rows, config.seed),
        loss=next_token_loss,
        evaluate=evaluate,
        save=lambda model, plan: None,
        context=CONTEXT,
        rows_per_epoch=rows * steps,
        model_config=config_to_hf(model_shape),
    )
    run_stage(settings, "scaling", {}, lambda run: job)
    lines = read_lines(out / "metrics.jsonl") if (out / "metrics.jsonl").is_file() else []
    losses = [line["heldout_loss"] for line in lines if is_number(line.get("heldout_loss"))]
    if not losses:
        raise UserError(
            f"{out / 'metrics.jsonl'} has no held-out loss, which the run wrote last; remove "
            f"{out}, and the same command trains it again"
        )
    tokens = steps * rows * CONTEXT
    return Trial(
        *size,
        model_shape.parameters,
        steps,
        tokens,
        float(tokens * model_shape.flops_per_token(CONTEXT)),
        losses[-1],
        sum(line.get("seconds", 0.0) for line in lines if line.get("kind") == "train"),
    )


def _settings(config: ScalingLawConfig, out: Path, steps: int) -> dict[str, Any]:
    rows = _QUICK_ROWS if config.quick else _ROWS
    return {
        "out": out,
        "seed": config.seed,
        "rows": rows,
        "micro_rows": rows,
        "steps": steps,
        "weight_decay": 0.1,
        "evaluations": 1,
        "threads": config.threads,
    }
