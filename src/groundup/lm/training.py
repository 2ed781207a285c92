"""What pre-training, fine-tuning and alignment do alike with a transformer: plan, train, keep.

A stage brings its stream and its loss; this page turns its settings into a plan, hands everything
to `fit`, and leaves a model folder behind.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from groundup.lm.config import ModelConfig
from groundup.lm.hub import save_model
from groundup.lm.model import CausalLM
from groundup.text.tokenizer import Tokenizer
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
    prepare,
    refuse_inexact,
    require_memory,
    resolve,
    resolve_device,
    use_threads,
)
from groundup.train.loop import Rhythm, fit
from groundup.train.loss import next_token_loss
from groundup.train.optim import Optimizer
from groundup.train.plan import TrainPlan, resolved
from groundup.train.progress import say
from groundup.train.run import Run

# Timed micro-batches after one that warms caches (and compiles); the median is taken.
_TIMED = 5
# Muon's and AdamW's step, logging and the stream take about this share beside the passes.
_STEP_OVERHEAD = 1.12


def measure_speed(config: ModelConfig, compute: Compute, *, context: int, micro_rows: int) -> float:
    """Training tokens a second of a model of this shape here, on random tokens."""
    model = CausalLM(config)
    model.initialise(0)
    prepare(model, compute)
    ids = torch.randint(3, config.vocab_size, (micro_rows, context + 1))
    plain = Batch.of(ids[:, :-1])
    batch = Batch(
        plain.input_ids,
        ids[:, 1:].contiguous(),
        torch.ones(micro_rows, context),
        plain.position_ids.contiguous(),
        plain.segment_ids,
    ).to(torch.device(compute.device))
    seconds = []
    for _ in range(_TIMED + 1):
        start = time.perf_counter()
        next_token_loss(model, batch).total.backward()  # type: ignore[no-untyped-call]
        seconds.append(time.perf_counter() - start)
    median = sorted(seconds[1:])[_TIMED // 2]
    return micro_rows * context / median / _STEP_OVERHEAD


def training_memory(config: ModelConfig, compute: Compute, *, context: int, micro_rows: int) -> int:
    """Bytes that training takes at its peak, roughly: weights, optimizer state, activations."""
    width = 2 if compute.dtype == "bfloat16" else 4
    state = config.parameters * (4 * 4 + width)  # masters, gradients, two moments, and the weights
    per_token = config.num_hidden_layers * (
        14 * config.hidden_size + 4 * config.intermediate_size
    ) + (2 * config.num_hidden_layers * config.num_attention_heads * context)
    return state + micro_rows * context * per_token * width + 500_000_000


def training_disk(config: ModelConfig) -> int:
    """Bytes that a run writes, roughly: one checkpoint more than are kept, and the model."""
    masters_and_moments = 3 * 4
    return config.parameters * (masters_and_moments * (checkpoint.KEPT + 1) + 4)


def planned(
    config: TrainingConfig,
    run: Run,
    shape: ModelConfig,
    *,
    rows_per_epoch: int,
    context: int,
    reasons: dict[str, str] | None = None,
) -> TrainPlan:
    """The run's plan: read if it was begun before, else resolved, shown and written."""
    use_threads(config)
    if run.planned:
        plan = TrainPlan.from_json(run.plan({}))
        now = resolve(config, compile_by_default=plan.compute.compile)
        refuse_inexact(plan.compute, now, config.allow_inexact_resume)
        return replace(plan, compute=now)
    tokens_per_step = config.rows * context
    minutes = config.minutes
    if minutes is None:
        steps = config.steps or math.ceil(config.epochs * rows_per_epoch / config.rows)
        minutes = expected_minutes(shape, context, steps * tokens_per_step)
    compute = resolve(config, compile_by_default=minutes >= COMPILE_FROM_MINUTES)
    check_memory(shape, compute, context=context, micro_rows=config.micro_rows)
    what = f"training {shape.parameters / 1e6:.1f} M parameters"
    checkpoint.require_space(run.folder, training_disk(shape), what, None)
    speed = None
    if config.steps is None and config.minutes is not None:
        speed = measure_speed(shape, compute, context=context, micro_rows=config.micro_rows)
    plan = resolved(
        config,
        compute,
        context=context,
        rows_per_epoch=rows_per_epoch,
        tokens_per_second=speed,
        parameters=shape.parameters,
        flops_per_token=shape.flops_per_token(context),
        reasons=(reasons or {}) | _why_eager(config, compute),
    )
    run.plan(plan.to_json() | {"model": shape.to_hf()})
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


def expected_minutes(shape: ModelConfig, context: int, tokens: int) -> float:
    """Roughly how long training on so many tokens takes here: is compiling worth its time?"""
    device = resolve_device("auto")
    dtype = torch.bfloat16 if has_fast_bfloat16(device) else torch.float32
    speed = matmul_peak(device, dtype) * EXPECTED_PEAK_SHARE
    return tokens * shape.flops_per_token(context) / speed / 60


def show(stage: str, plan: TrainPlan) -> None:
    """Say what will be done and why, before it is done."""
    say(
        f"{stage}: {plan.parameters / 1e6:.1f} M parameters, {plan.steps} steps of "
        f"{plan.tokens_per_step:,} tokens, {plan.compute.dtype} on {plan.compute.device} with "
        f"{plan.compute.threads} threads, {'compiled' if plan.compute.compile else 'eager'}"
    )
    for name, reason in plan.reasons.items():
        say(f"  {name}: {reason}")


def train(
    run: Run,
    plan: TrainPlan,
    model: CausalLM,
    tokenizer: Tokenizer,
    stream: Stream[B],
    loss: LossFunction[B],
    *,
    seed: int,
    card: str,
    evaluate: Callable[[int], dict[str, Any]],
    snapshots: bool = False,
) -> Path:
    """Train by the plan, evaluating on the way, and leave the model in the run's folder."""
    prepare(model, plan.compute)
    optimizer = Optimizer(model, plan.rates, muon=plan.muon)

    def observe(step: int, last: bool) -> None:
        if snapshots and _is_power_of_four(step):
            _snapshot(run.folder / "snapshots" / f"step-{step}", model)
        if last or step % plan.evaluate_every == 0:
            begun = time.perf_counter()
            model.eval()
            found = evaluate(step)
            model.train()
            seconds = time.perf_counter() - begun
            run.log("metrics.jsonl", kind="evaluation", step=step, seconds=seconds, **found)

    rhythm = Rhythm(
        schedule=plan.schedule,
        gradient_clip=plan.gradient_clip,
        save_every=plan.save_every,
        seed=seed,
        flops_per_token=plan.flops_per_token,
        peak_flops=plan.peak_flops,
    )
    fit(model, stream, loss, optimizer, run, rhythm, observe)
    optimizer.hand_over(model)
    last_good = checkpoint.newest(run.folder / "checkpoints")
    checkpoint.require_space(run.folder, 4 * plan.parameters, "the finished model", last_good)
    save_model(run.folder, model, tokenizer, card=card)
    run.finish(step=plan.steps, steps=plan.steps)
    return run.folder


def _is_power_of_four(step: int) -> bool:
    return step > 0 and step & (step - 1) == 0 and step.bit_length() % 2 == 1


def _snapshot(folder: Path, model: CausalLM) -> None:
    """Weights alone, in the compute type, for whoever wants to watch a head form."""
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / "model.safetensors.partial"
    checkpoint.write_tensors(partial, dict(model.named_parameters()), {"format": "pt"})
    partial.replace(folder / "model.safetensors")


def check_memory(config: ModelConfig, compute: Compute, *, context: int, micro_rows: int) -> None:
    """Refuse a plan that would not fit before anything is allocated."""
    if compute.device == "cpu":
        need = training_memory(config, compute, context=context, micro_rows=micro_rows)
        require_memory(
            need,
            f"training {config.parameters / 1e6:.1f} M parameters with micro_rows={micro_rows} of "
            f"context={context}",
            "lower --micro-rows, --context or --depth",
        )
