"""The runs of the experiment: which sizes and tokens for each budget, trained and kept.

Budgets are planned once from a few seconds of measurement and written down; a run is a folder of
its own, so that a stopped experiment goes on where it was. Within a budget the sizes lie about the
one that was best in the budget before, as far as FLOPs go, and where the best is at the edge one
more is tried beyond it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from groundup.experiments.config import ScalingLawConfig
from groundup.experiments.scaling.source import (
    CONTEXT,
    VOCABULARY,
    Source,
    SourceStream,
    heldout_loss,
)
from groundup.formats.hf_config import config_to_hf
from groundup.lm.config import ModelConfig
from groundup.lm.model import CausalLM
from groundup.pretrain.stage import RATES, fresh
from groundup.runs.console import say
from groundup.runs.files import read_lines
from groundup.train.batch import Batch
from groundup.train.config import TrainingConfig
from groundup.train.device import resolve
from groundup.train.loss import next_token_loss
from groundup.train.pace import Pace, measure_pace, micro_batches
from groundup.train.plan import Trained
from groundup.train.stage import Job, run_stage

# Depth and width, from the smallest on.
SIZES = (
    *((1, 32), (2, 32)),
    *((1, 64), (2, 64), (1, 128), (2, 128), (3, 128), (2, 192), (3, 192), (4, 192), (3, 256)),
    *((4, 256), (5, 256), (4, 320), (5, 320), (6, 320), (5, 384), (6, 384), (7, 384), (8, 384)),
)
# FLOPs of each budget against the smallest, and of the run that is predicted against the largest.
BUDGETS, TIMES = (1.0, 2.5, 6.25, 15.6), 4.0
_QUICK_BUDGETS = (1.0, 2.0, 4.0)
_QUICK_FLOPS = 4e9
PER_BUDGET = 5
# Where nothing is known yet: tokens a parameter of the best size of the smallest budget.
FIRST_RATIO = 12.0
# Small steps, for a run of a small budget has few of them (Porian et al. 2024, section 4).
_ROWS, _QUICK_ROWS, _HELDOUT_ROWS = 8, 4, 512
# Of the minutes, what the planned runs may take; runs beyond the edge and the pages take the rest.
_SHARE = 0.75


@dataclass(frozen=True)
class Trial:
    """One run: a size, its tokens, and what it came to."""

    depth: int
    width: int
    parameters: int
    steps: int
    tokens: int
    flops: float
    loss: float
    seconds: float

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def shape(size: tuple[int, int]) -> ModelConfig:
    """The model of a depth and a width; below 64 features with one head of as many."""
    depth, width = size
    if width >= 64:
        return ModelConfig.of(width=width, depth=depth, vocab_size=VOCABULARY, context=CONTEXT)
    return ModelConfig(
        vocab_size=VOCABULARY,
        hidden_size=width,
        intermediate_size=3 * width,
        num_hidden_layers=depth,
        num_attention_heads=1,
        num_key_value_heads=1,
        head_dim=width,
        max_position_embeddings=CONTEXT,
    )


def budgets(config: ScalingLawConfig, source: Source) -> list[float]:
    """The FLOPs of the budgets, the predicted run's last: as many as the minutes hold here."""
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
    model = fresh(shape(size), 0)
    settings = TrainingConfig.model_validate(_settings(config, Path("unused"), 1))
    stream = SourceStream(source, _ROWS, _ROWS, 0)
    compute = resolve(settings, compile_by_default=False)
    return measure_pace(model, compute, micro_batches(stream, model), next_token_loss, muon=True)


def _all_seconds(
    flops: float, factors: Sequence[float], paces: dict[tuple[int, int], Pace]
) -> float:
    """Seconds of all planned runs, at the pace of the measured size that is nearest."""
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
    """The tokens that so many FLOPs train a model of this size on, head and scores counted."""
    return max(1, round(flops / shape(size).flops_per_token(CONTEXT)))


def sizes_about(flops: float, ratio: float) -> list[tuple[int, int]]:
    """As many sizes as a budget has, about the one that has `ratio` tokens a parameter."""
    off = [abs(np.log(tokens_of(one, flops) / shape(one).parameters / ratio)) for one in SIZES]
    first = int(np.clip(int(np.argmin(off)) - PER_BUDGET // 2, 0, len(SIZES) - PER_BUDGET))
    return list(SIZES[first : first + PER_BUDGET])


def budget_runs(
    config: ScalingLawConfig, source: Source, number: int, flops: float, ratio: float
) -> list[Trial]:
    """Train the sizes of a budget, one more beyond an edge that is best."""
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
    """Tokens a parameter of the best run."""
    best = min(trials, key=lambda one: one.loss)
    return best.tokens / best.parameters


def train(
    config: ScalingLawConfig, source: Source, number: int, size: tuple[int, int], flops: float
) -> Trial:
    """Train one size with so many FLOPs, or find it trained."""
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
        model=lambda: fresh(model_shape, config.seed),
        stream=lambda _: SourceStream(source, rows, rows, config.seed),
        loss=next_token_loss,
        evaluate=evaluate,
        save=lambda model, plan: None,
        context=CONTEXT,
        rows_per_epoch=rows * steps,
        model_config=config_to_hf(model_shape),
    )
    run_stage(settings, "scaling", {}, lambda run: job)
    lines = read_lines(out / "metrics.jsonl")
    tokens = steps * rows * CONTEXT
    return Trial(
        *size,
        model_shape.parameters,
        steps,
        tokens,
        float(tokens * model_shape.flops_per_token(CONTEXT)),
        [line["heldout_loss"] for line in lines if "heldout_loss" in line][-1],
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
