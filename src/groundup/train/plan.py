"""A training run's plan: everything derived, resolved once, with the reason for each value.

The first start writes it to plan.json; every later start reads it and measures nothing, so that a
budget of minutes never becomes a check of the clock and a resumed run takes the very same steps.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import TypeAdapter, ValidationError

from groundup.errors import UserError
from groundup.train.config import TrainingConfig
from groundup.train.device import Compute, matmul_peak
from groundup.train.optim import Rates
from groundup.train.schedule import Schedule

# Training takes this share of a stage's minutes; evaluations, samples and saves take the rest.
TRAINING_SHARE = 0.92
# A step is saved about this often: what a kill may cost.
SAVE_SECONDS = 60.0


@dataclass(frozen=True)
class TrainPlan:
    """What `fit` will do and why."""

    steps: int
    warmup_steps: int
    decay_steps: int
    save_every: int
    evaluate_every: int
    tokens_per_step: int
    rates: Rates
    muon: bool
    gradient_clip: float
    compute: Compute
    parameters: int
    flops_per_token: float
    peak_flops: float
    tokens_per_second: float | None
    reasons: dict[str, str] = field(default_factory=dict)
    micro_rows: int | None = None
    trained_parameters: int | None = None
    adapter: str = "none"
    # How a stage lays its data out, where it decides that itself.
    layout: dict[str, float] | None = None

    @property
    def schedule(self) -> Schedule:
        return Schedule(self.steps, self.warmup_steps, self.decay_steps)

    def to_json(self) -> dict[str, Any]:
        plan: dict[str, Any] = _ADAPTER.dump_python(self, mode="json")
        return plan

    @classmethod
    def from_json(cls, plan: Mapping[str, Any]) -> TrainPlan:
        """What `to_json` wrote. Raises `UserError` for what is no plan."""
        known = {name: plan[name] for name in cls.__dataclass_fields__ if name in plan}
        try:
            found = _ADAPTER.validate_python(known)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise UserError(f"plan.json is no plan ({where}: {first['msg']})") from None
        counts = (found.steps, found.save_every, found.evaluate_every, found.tokens_per_step)
        if min(counts) < 1 or min(found.warmup_steps, found.decay_steps) < 0:
            raise UserError("plan.json is no plan: steps must be at least 1")
        return found


_ADAPTER = TypeAdapter(TrainPlan)


@dataclass(frozen=True)
class Training:
    """What is trained, as far as a plan must know it."""

    parameters: int
    trained_parameters: int
    flops_per_token: float
    # Peak learning rates of matrices and of embeddings and gains, unless the user says others.
    rates: tuple[float, float]
    why_rates: str
    adapter: str = "none"
    lora_plus: float = 1.0


def resolved(
    config: TrainingConfig,
    compute: Compute,
    training: Training,
    *,
    context: int,
    rows_per_epoch: int,
    tokens_per_step: int,
    tokens_per_second: float | None,
    most_passes: float | None = None,
    layout: dict[str, float] | None = None,
    reasons: dict[str, str],
) -> TrainPlan:
    """Fill in every value that follows from the settings and the measured speed."""
    steps, why = _steps(config, tokens_per_step, rows_per_epoch, tokens_per_second, most_passes)
    save_every, evaluate_every = config.save_every, max(1, -(-steps // config.evaluations))
    reasons = reasons | {"steps": why}
    if save_every is None:
        seconds_per_step = tokens_per_step / tokens_per_second if tokens_per_second else 1.0
        save_every = max(1, round(SAVE_SECONDS / seconds_per_step))
        reasons |= {"save_every": "about once a minute; change with --save-every"}
    matrices, embeddings = training.rates
    if config.learning_rate is None:
        reasons |= {"learning_rate": f"{matrices:.2g}, {training.why_rates}"}
    return TrainPlan(
        steps=steps,
        warmup_steps=round(steps * config.warmup),
        decay_steps=round(steps * config.decay),
        save_every=save_every,
        evaluate_every=evaluate_every,
        tokens_per_step=tokens_per_step,
        rates=Rates(
            matrices=config.learning_rate or matrices,
            embeddings=config.embedding_learning_rate or embeddings,
            gains=config.embedding_learning_rate or embeddings,
            weight_decay=config.weight_decay,
            lora_plus=training.lora_plus,
        ),
        muon=uses_muon(config, training),
        gradient_clip=config.gradient_clip,
        compute=compute,
        parameters=training.parameters,
        flops_per_token=training.flops_per_token,
        peak_flops=matmul_peak(compute.device, compute.torch_dtype),
        tokens_per_second=tokens_per_second,
        reasons=reasons,
        micro_rows=config.micro(context),
        trained_parameters=training.trained_parameters,
        adapter=training.adapter,
        layout=layout,
    )


def uses_muon(config: TrainingConfig, training: Training) -> bool:
    """Whether Muon trains the matrices; the thin ones of an adapter are AdamW's."""
    return config.optimizer == "muon" and training.adapter == "none"


def _steps(
    config: TrainingConfig,
    tokens_per_step: int,
    rows_per_epoch: int,
    tokens_per_second: float | None,
    most_passes: float | None,
) -> tuple[int, str]:
    if config.steps is not None:
        return config.steps, "as given"
    if config.minutes is not None and tokens_per_second is not None:
        seconds = config.minutes * 60 * TRAINING_SHARE
        steps = max(1, round(seconds * tokens_per_second / tokens_per_step))
        why = (
            f"{config.minutes:.3g} minutes at {tokens_per_second:,.0f} tokens a second measured "
            f"here, {tokens_per_step:,} tokens a step; change with --minutes or --steps"
        )
        most = (
            steps if most_passes is None else math.ceil(most_passes * rows_per_epoch / config.rows)
        )
        if most < steps:
            return max(1, most), (
                f"{most_passes:g} passes over the data are enough, so that not all of "
                f"{config.minutes:.3g} minutes are used; change with --steps"
            )
        return steps, why
    return max(1, round(config.epochs * rows_per_epoch / config.rows)), (
        f"{config.epochs:g} passes over {rows_per_epoch:,} rows; change with --epochs or --steps"
    )
