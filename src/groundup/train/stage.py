"""What pre-training, fine-tuning and alignment do alike with a transformer: plan, train, keep.

A stage brings its stream and its loss; this page turns its settings into a plan, hands everything
to `fit`, and leaves a model folder behind.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from groundup.errors import UserError
from groundup.lm.config import ModelConfig
from groundup.lm.model import CausalLM
from groundup.runs import ranks
from groundup.runs.console import say
from groundup.runs.folder import Run
from groundup.train import checkpoint
from groundup.train.batch import B, Batch, LossFunction, Stream
from groundup.train.config import TrainingConfig
from groundup.train.device import (
    COMPILE_FROM_MINUTES,
    EXPECTED_PEAK_SHARE,
    Compute,
    has_compiler,
    has_fast_bfloat16,
    matmul_peak,
    peak_memory,
    prepare,
    refuse_inexact,
    require_memory,
    reset_peak_memory,
    resolve,
    resolve_device,
    use_threads,
)
from groundup.train.early_stopping import Best
from groundup.train.loop import Rhythm, fit
from groundup.train.optim import Optimizer, Rates
from groundup.train.plan import Training, TrainPlan, resolved, uses_muon

# Micro-batches before the clock counts: the first one compiles and takes memory from the kernel,
# the second still takes some. Then so many are timed, fewer where they are slow.
_WARM, _TIMED, _TIMED_SECONDS = 2, 5, 12.0
# Of a step's tokens, all are held at once: ids, targets, positions and segments of 8 bytes, weights
# of 4, and all of them twice while rows are made one batch.
_BYTES_PER_TOKEN = 72


@dataclass(frozen=True)
class Pace:
    """What training takes here: seconds for a token's passes, and for an optimizer step."""

    token: float
    update: float

    def tokens_per_second(self, tokens_per_step: float) -> float:
        """Tokens a second in steps of so many tokens."""
        return tokens_per_step / (self.token * tokens_per_step + self.update)


def measure_pace(
    model: CausalLM, compute: Compute, batches: Iterable[B], loss: LossFunction[B], *, muon: bool
) -> Pace:
    """Time the passes of these micro-batches, and steps of the very optimizer at a rate of zero.

    The run's own batches are to be timed: of theirs only the trained tokens reach the head, which
    is a fifth of a small model's work, and short rows cost little attention. Weights stay.
    """
    prepare(model, compute)
    model.train()
    optimizer = Optimizer(model, Rates(0.0, 0.0, 0.0), muon=muon)
    device = torch.device(compute.device)
    costs, spent, began = list[float](), 0.0, time.perf_counter()
    for place, batch in enumerate(batches):
        start = time.perf_counter()
        total = loss(model, batch.to(device)).total
        total.backward()  # type: ignore[no-untyped-call]
        float(total.detach())  # a GPU is waited for
        seconds = time.perf_counter() - start
        if place < _WARM and start - began < _TIMED_SECONDS:
            continue
        spent += seconds
        costs.append(seconds / max(1, batch.tokens))
        if len(costs) == _TIMED or spent > _TIMED_SECONDS:
            break
    update = 0.0
    for _ in range(2):  # the first makes the moments
        start = time.perf_counter()
        norm = optimizer.gradient_norm()
        optimizer.clip(norm, float(norm) + 1)
        optimizer.step_at_rest()
        update = time.perf_counter() - start
    optimizer.release()
    return Pace(sorted(costs)[len(costs) // 2], update)


def random_batches(shape: ModelConfig, *, context: int, rows: int) -> Iterator[Batch]:
    """Full rows of random tokens, all trained, for as long as anybody wants them."""
    while True:
        ids = torch.randint(3, shape.vocab_size, (rows, context + 1))
        plain = Batch.of(ids[:, :-1])
        yield Batch(
            plain.input_ids,
            ids[:, 1:].contiguous(),
            torch.ones(rows, context),
            plain.position_ids.contiguous(),
            plain.segment_ids,
        )


def micro_batches(stream: Stream[B], model: CausalLM) -> Iterator[B]:
    """A stream's micro-batches, step after step."""
    return (batch for step in itertools.count() for batch in stream.at(step, model))


def training_memory(
    shape: ModelConfig,
    training: Training,
    compute: Compute,
    *,
    context: int,
    micro_rows: int,
    gradient_checkpointing: bool = False,
) -> int:
    """Bytes that training takes at its peak, roughly: weights, optimizer state, activations."""
    width = 2 if compute.dtype == "bfloat16" else 4
    # What is trained has a master, a gradient and two moments in float32.
    stored = 1 if training.adapter == "qlora" else width
    state = training.trained_parameters * 4 * 4 + training.parameters * stored
    block = (14 * shape.hidden_size + 4 * shape.intermediate_size) + (
        2 * shape.num_attention_heads * context
    )
    per_token = block * shape.num_hidden_layers
    if gradient_checkpointing:
        per_token = shape.hidden_size * shape.num_hidden_layers + block
    return state + micro_rows * context * per_token * width + 500_000_000


def check_memory(
    shape: ModelConfig,
    training: Training,
    compute: Compute,
    *,
    context: int,
    micro_rows: int,
    gradient_checkpointing: bool = False,
) -> None:
    """Refuse a plan that would not fit before anything is allocated."""
    if compute.device == "cpu":
        need = training_memory(
            shape,
            training,
            compute,
            context=context,
            micro_rows=micro_rows,
            gradient_checkpointing=gradient_checkpointing,
        )
        require_memory(
            need,
            f"training {shape.parameters / 1e6:.1f} M parameters with micro_rows={micro_rows} of "
            f"context={context}",
            "lower --micro-rows or --context, take a smaller model (--depth), or add "
            "--gradient-checkpointing",
        )


def training_disk(training: Training) -> int:
    """Bytes that a run writes, roughly: one checkpoint more than are kept, and the model."""
    masters_and_moments = 3 * 4
    return training.trained_parameters * (masters_and_moments * (checkpoint.KEPT + 1) + 4)


def whole(shape: ModelConfig, context: int, rates: tuple[float, float], why_rates: str) -> Training:
    """All of a model of this shape is trained."""
    return Training(
        parameters=shape.parameters,
        trained_parameters=shape.parameters,
        flops_per_token=shape.flops_per_token(context),
        rates=rates,
        why_rates=why_rates,
    )


def planned(
    config: TrainingConfig,
    run: Run,
    shape: ModelConfig,
    training: Training,
    model: Callable[[], CausalLM],
    stream: Stream[B],
    loss: LossFunction[B],
    *,
    hf_config: dict[str, Any],
    rows_per_epoch: int,
    context: int,
    tokens_per_step: int | None = None,
    most_passes: float | None = None,
    layout: dict[str, float] | None = None,
    reasons: dict[str, str] | None = None,
) -> TrainPlan:
    """The run's plan: read if it was begun before, else resolved, shown and written.

    `model` gives one to measure the speed with on batches of `stream`, where minutes are to become
    steps. A step reads `tokens_per_step`, all that its rows can hold if that is not said. Minutes
    that would make more than `most_passes` are not used up. The shape stands in the plan as
    `hf_config`, in Hugging Face's words.
    """
    use_threads(config)
    with ranks.first_alone():
        plan = run.resolved(TrainPlan.from_json)
        if plan is not None:
            now = resolve(config, compile_by_default=plan.compute.compile)
            refuse_inexact(plan.compute, now, config.allow_inexact_resume)
            return replace(plan, compute=now)
        micro_rows = config.micro(context)
        step_tokens = tokens_per_step or config.rows * context
        minutes = config.minutes
        if minutes is None:
            steps = config.steps or math.ceil(config.epochs * rows_per_epoch / config.rows)
            minutes = expected_minutes(training, steps * config.rows * context)
        compute = resolve(config, compile_by_default=minutes >= COMPILE_FROM_MINUTES)
        check_memory(
            shape,
            training,
            compute,
            context=context,
            micro_rows=micro_rows,
            gradient_checkpointing=config.gradient_checkpointing,
        )
        what = f"training {training.trained_parameters / 1e6:.1f} M parameters"
        require_memory(
            config.rows * context * _BYTES_PER_TOKEN,
            f"a step of rows={config.rows} of context={context}",
            "lower --rows or --context",
        )
        checkpoint.require_space(run.folder, training_disk(training), what, None)
        speed = None
        if config.steps is None and config.minutes is not None:
            measured = model()
            measured.set_gradient_checkpointing(config.gradient_checkpointing)
            pace = measure_pace(
                measured,
                compute,
                micro_batches(stream, measured),
                loss,
                muon=uses_muon(config, training),
            )
            speed = pace.tokens_per_second(step_tokens / ranks.size()) * ranks.size()
        plan = resolved(
            config,
            compute,
            training,
            context=context,
            rows_per_epoch=rows_per_epoch,
            tokens_per_step=step_tokens,
            tokens_per_second=speed,
            most_passes=most_passes,
            layout=layout,
            reasons=(reasons or {}) | _why_eager(config, compute),
        )
        run.plan(plan.to_json() | {"model": hf_config}, TrainPlan.from_json)
        show(run.stage, plan)
        return plan


def _why_eager(config: TrainingConfig, compute: Compute) -> dict[str, str]:
    """The reason, where a run that might have been compiled is not."""
    if compute.compile or config.compile != "auto":
        return {}
    if not has_compiler():
        return {"compile": "eager, as no C++ compiler is on the PATH; install g++ or clang"}
    why = f"eager, as compiling pays from {COMPILE_FROM_MINUTES:g} minutes on"
    return {"compile": f"{why}; change with --compile on"}


def expected_minutes(training: Training, tokens: int) -> float:
    """Roughly how long training on so many tokens takes here: is compiling worth its time?"""
    device = resolve_device("auto")
    dtype = torch.bfloat16 if has_fast_bfloat16(device) else torch.float32
    speed = matmul_peak(device, dtype) * EXPECTED_PEAK_SHARE
    return tokens * training.flops_per_token / speed / 60


def show(stage: str, plan: TrainPlan) -> None:
    """Say what will be done and why, before it is done."""
    some = ""
    if plan.adapter != "none" and plan.trained_parameters is not None:
        some = f"{plan.trained_parameters / 1e6:.2f} M of them trained ({plan.adapter}), "
    say(
        f"{stage}: {plan.parameters / 1e6:.1f} M parameters, {some}{plan.steps} steps of "
        f"{plan.tokens_per_step:,} tokens, {plan.compute.dtype} on {plan.compute.device} with "
        f"{plan.compute.threads} threads, {'compiled' if plan.compute.compile else 'eager'}"
    )
    for name, reason in plan.reasons.items():
        say(f"  {name}: {reason}")


def train(
    config: TrainingConfig,
    run: Run,
    plan: TrainPlan,
    model: CausalLM,
    stream: Stream[B],
    loss: LossFunction[B],
    *,
    evaluate: Callable[[int], dict[str, Any]],
    save: Callable[[], None],
    baseline: bool = True,
    snapshots: bool = False,
) -> Path:
    """Train by the plan, evaluating on the way, and leave in the run's folder what `save` writes.

    `evaluate(step)` says how good the model is by now; with `baseline` it is asked before the first
    step too. With `config.patience` its held-out measure decides when to end and what is kept.
    """
    prepare(model, plan.compute)
    model.set_gradient_checkpointing(config.gradient_checkpointing)
    reset_peak_memory(plan.compute.device)
    optimizer = Optimizer(model, plan.rates, muon=plan.muon)
    best = Best(run, optimizer, config.patience)

    def observe(step: int, last: bool) -> bool:
        """Evaluate when it is time; whether training is to end here."""
        if snapshots and run.writes and _is_power_of_four(step):
            _snapshot(run.folder / "snapshots" / f"step-{step}", model)
        if not last and (step % plan.evaluate_every or (step == 0 and not baseline)):
            return False
        _require_finite(run, optimizer, step)
        begun = time.perf_counter()
        model.eval()
        found = evaluate(step)
        model.train()
        seconds = time.perf_counter() - begun
        run.log("metrics.jsonl", kind="evaluation", step=step, seconds=seconds, **found)
        return ranks.as_the_first(run.writes and best.ends_training(step))

    rhythm = Rhythm(
        schedule=plan.schedule,
        gradient_clip=plan.gradient_clip,
        save_every=plan.save_every,
        seed=config.seed,
        flops_per_token=plan.flops_per_token,
        peak_flops=plan.peak_flops,
    )
    step = fit(model, stream, loss, optimizer, run, rhythm, observe)
    ranks.leave()
    if not run.writes:
        return run.folder
    facts = {"peak_memory_bytes": peak_memory(plan.compute.device), **best.restored()}
    optimizer.hand_over()
    last_good = checkpoint.newest(run.folder / "checkpoints")
    trained = plan.trained_parameters or plan.parameters
    checkpoint.require_space(run.folder, 4 * trained, "the finished model", last_good)
    save()
    run.finish(step=step, steps=plan.steps, **facts)
    # Not before: a run that is killed while it saves needs them once more.
    best.path.unlink(missing_ok=True)
    return run.folder


def _require_finite(run: Run, optimizer: Optimizer, step: int) -> None:
    """Weights that are no numbers cannot be measured, and must not be kept as a model."""
    for name, master in optimizer.masters.items():
        if not bool(torch.isfinite(master.detach()).all()):
            cause = (
                "the model that it started from has them"
                if step == 0
                else ("the run diverged: start again with a lower learning rate and another --out")
            )
            raise UserError(
                f"{run.stage}, step {step}: weights of {name} are infinite or not numbers; {cause}"
            )


def _is_power_of_four(step: int) -> bool:
    return step > 0 and step & (step - 1) == 0 and step.bit_length() % 2 == 1


def _snapshot(folder: Path, model: CausalLM) -> None:
    """Weights alone, in the compute type, for whoever wants to watch a head form."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = dict(model.named_parameters())
    checkpoint.write_tensors(folder / "model.safetensors", tensors, {"format": "pt"})
