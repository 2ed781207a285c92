"""The steps of every training stage: open its folder, plan, train, evaluate, save the model.

A stage provides a `Job`: a model, a stream of batches, a loss, a measure and a way to save. Nothing
here depends on which stage it is, and no stage has its own loop.
"""

from __future__ import annotations

import math
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import nn

from groundup.errors import UserError
from groundup.kernels.library import use_kernels
from groundup.runs import ranks
from groundup.runs.folder import Run
from groundup.train import checkpoint
from groundup.train.batch import B, LossFunction, Stream
from groundup.train.config import TrainingConfig
from groundup.train.device import (
    COMPILE_FROM_MINUTES,
    Compute,
    peak_memory,
    prepare,
    refuse_inexact,
    require_own_gpu,
    reset_peak_memory,
    resolve,
    resolve_device,
    restoring_torch,
    use_threads,
)
from groundup.train.early_stopping import EarlyStopping
from groundup.train.loop import Interrupted, fit
from groundup.train.optim import Optimizer
from groundup.train.plan import (
    Trained,
    TrainPlan,
    expected_minutes,
    print_outcome,
    print_plan,
    require_resources,
    resolve_plan,
    run_memory,
    sampling_memory,
    training_disk,
    training_memory,
    uses_muon,
)

M = TypeVar("M", bound=nn.Module)


@dataclass(frozen=True)
class Job(Generic[B, M]):
    """The model, data, loss, measure and saving of one stage.

    `config` has the stage's settings, with its own decisions filled in. `model()` returns the model
    with its initial weights, `stream(steps)` the batches of a run of `steps` steps (None while only
    the speed is measured). `evaluate(model, step)` returns the metrics at a step. `save(model,
    plan)` writes the model folder; `plan.steps` is the number of steps that its weights took.
    """

    config: TrainingConfig
    trained: Trained
    model: Callable[[], M]
    stream: Callable[[int | None], Stream[B]]
    loss: LossFunction[B]
    evaluate: Callable[[M, int], dict[str, Any]]
    save: Callable[[M, TrainPlan], None]
    # The most tokens in a row, and the rows in one pass over the data.
    context: int
    rows_per_epoch: int
    # The model's config.json, which is written to the plan.
    model_config: Mapping[str, Any]
    # Average tokens of a step (default: as many as its rows can hold).
    tokens_per_step: int | None = None
    # The most passes over the data that a budget of minutes is used for.
    most_passes: float | None = None
    # Passes over the most-read part of the data in a number of steps, if parts are read unequally.
    passes: Callable[[int], float] | None = None
    # The stage's own decisions about its data, with reasons, for the plan.
    layout: dict[str, float] | None = None
    reasons: dict[str, str] = field(default_factory=dict)
    # Called with the plan before the first step, to report its consequences.
    announce: Callable[[TrainPlan], None] = lambda plan: None
    # Seconds to make a step's batches, given the seconds of training on one token.
    making: Callable[[float], float] = lambda seconds: 0.0
    evaluates_first: bool = False
    # Steps with an evaluation in addition to the plan's.
    evaluates_at: Sequence[int] = ()
    snapshots: bool = False
    # Whether a first batch exists without training, to compare the fast model with the plain one.
    replays: bool = True


def run_stage(
    config: TrainingConfig,
    stage: str,
    parents: Mapping[str, Path],
    prepare_job: Callable[[Run], Job[B, M]],
) -> Path:
    """Run the training stage of this name unless it is finished; return its run folder.

    `parents` are the folders that it reads, by role. Raises `UserError` for settings, data or a
    folder that cannot be used, and while another thread of this process trains.
    """
    started = time.perf_counter()
    with (
        _alone(stage),
        torch.inference_mode(False),
        torch.enable_grad(),
        restoring_torch(),
        Run.open(config.out, stage, config, parents, asdict(config.traits)) as run,
    ):
        if run.finished:
            return run.folder
        try:
            job = prepare_job(run)
            prepared = time.perf_counter() - started
            plan = make_plan(run, job)
            if _forecasting.get():
                raise _Planned(_forecast(job, plan, prepared))
            job.announce(plan)
            return train(run, job, plan)
        finally:
            use_kernels("none")  # later code in this process must not depend on this stage


_training = threading.RLock()


@contextmanager
def _alone(stage: str) -> Iterator[None]:
    """Kernels, random numbers and the number of CPU threads are those of the whole process."""
    if not _training.acquire(blocking=False):
        raise UserError(
            f"{stage} cannot begin, because another thread of this process trains, and both would "
            "draw the same random numbers; wait for it, or give each a process of its own"
        )
    try:
        yield
    finally:
        _training.release()


@dataclass(frozen=True)
class Forecast:
    """The estimated time of a run, from its plan and a few seconds of measurement.

    All times are in seconds: `preparing` until the plan is made, `training` for all steps, and
    `evaluating` and `saving` between them. `passes` are passes over the most-read part of the data.
    """

    plan: TrainPlan
    trained: Trained
    context: int
    preparing: float
    training: float
    evaluating: float
    saving: float
    passes: float

    @property
    def seconds(self) -> float:
        """Seconds from the first step to the finished model."""
        return self.training + self.evaluating + self.saving


def forecast(start: Callable[[], object]) -> Forecast:
    """Plan the stage that `start` would run and estimate its time; nothing is trained.

    Its folder must be disposable. Raises `UserError` for a stage that cannot be estimated.
    """
    token = _forecasting.set(True)
    try:
        start()
    except _Planned as planned:
        return planned.forecast
    finally:
        _forecasting.reset(token)
    raise UserError("this stage has no steps to plan; plan one that trains, such as sft")


class _Planned(Exception):
    """Ends a stage after planning, when only a forecast was requested."""

    def __init__(self, found: Forecast) -> None:
        super().__init__("planned")
        self.forecast = found


_forecasting: ContextVar[bool] = ContextVar("forecasting", default=False)
# Speed of hashing, writing and syncing a checkpoint, in bytes per second.
_SAVE_SPEED = 3e8


def _forecast(job: Job[B, M], plan: TrainPlan, prepared: float) -> Forecast:
    """Estimate the time of the planned steps, evaluations and checkpoints."""
    assert plan.tokens_per_second is not None
    model = job.model()
    prepare(model, plan.compute, gradient_checkpointing=job.config.gradient_checkpointing)
    model.eval()
    each = []
    for _ in range(2):  # the first evaluation also loads and allocates
        started = time.perf_counter()
        job.evaluate(model, 0)
        each.append(time.perf_counter() - started)
    evaluations = -(-plan.steps // plan.evaluate_every) + job.evaluates_first
    parameters = plan.trained_parameters or plan.parameters
    saves = (plan.steps - 1) // plan.save_every
    written = saves * 12 * parameters + 4 * parameters
    if job.snapshots:
        width = plan.compute.torch_dtype.itemsize
        written += width * parameters * plan.steps.bit_length()
    return Forecast(
        plan,
        job.trained,
        job.context,
        prepared,
        plan.steps * plan.tokens_per_step / plan.tokens_per_second,
        evaluations * each[-1] + each[0] - each[-1],
        written / _SAVE_SPEED,
        job.passes(plan.steps)
        if job.passes is not None
        else plan.steps * job.config.rows / job.rows_per_epoch,
    )


def make_plan(run: Run, job: Job[B, M]) -> TrainPlan:
    """Return the run's plan: read from an earlier start, or else resolved and written."""
    # Imported here because only a starting run needs them.
    from groundup.train.faithful import agrees_with_plain, in_pytorch
    from groundup.train.pace import measure_pace, micro_batches

    config = job.config
    use_threads(config)
    require_own_gpu(resolve_device(config.device))
    with ranks.rank_zero_first():
        plan = run.resolved(TrainPlan.from_json)
        if plan is not None:
            compiled = plan.compute.compile
            now = _compute(job, compile_by_default=compiled, planned=plan.compute)
            refuse_inexact(plan.compute, now, config.allow_inexact_resume)
            return replace(plan, compute=now)
        minutes, steps = config.minutes, config.steps
        if minutes is None:
            steps = steps or math.ceil(config.epochs * job.rows_per_epoch / config.rows)
            tokens = steps * config.rows * job.context
            eager = resolve(config, compile_by_default=False)
            minutes = expected_minutes(job.trained, tokens, eager)
        compute = _compute(job, compile_by_default=minutes >= COMPILE_FROM_MINUTES)
        only_planned = _forecasting.get()
        require_resources(config, job.trained, compute, job.context, only_planned=only_planned)
        what = f"training {job.trained.trained_parameters / 1e6:.1f} M parameters"
        width = compute.torch_dtype.itemsize
        snapshots = width if job.snapshots else 0
        need = training_disk(job.trained, snapshots=snapshots, steps=steps)
        checkpoint.require_space(run.folder, need, what, None)
        reasons = job.reasons
        if compute != in_pytorch(compute) and job.replays:
            model = job.model()
            batch = next(micro_batches(job.stream(None), model))
            saving = config.gradient_checkpointing
            if not agrees_with_plain(
                model, batch, job.loss, compute, gradient_checkpointing=saving
            ):
                compute = in_pytorch(compute)
                reasons = reasons | {
                    "compile": "eager, as this compiler gets the model's gradients wrong"
                }
        tokens_per_step = job.tokens_per_step or config.rows * job.context
        speed = peak = None
        if _forecasting.get() and not job.replays:
            raise UserError(
                f"{run.stage} learns from answers that its model samples during training, which "
                "cannot be timed in advance; plan the stages before it"
            )
        if _forecasting.get() or (config.steps is None and config.minutes is not None):
            model = job.model()
            reset_peak_memory(compute.device)
            pace = measure_pace(
                model,
                compute,
                micro_batches(job.stream(None), model, config.steps),
                job.loss,
                muon=uses_muon(config, job.trained),
                gradient_checkpointing=config.gradient_checkpointing,
                minutes=config.minutes or 0.0,
            )
            own = tokens_per_step / ranks.size()
            speed = pace.tokens_per_second(own, job.making(pace.token)) * ranks.size()
            peak = peak_memory(compute.device)
        else:
            reset_peak_memory(compute.device)
            held = peak_memory(compute.device)
            peak = training_memory(config, job.trained, compute, job.context, held)
            if job.replays:
                peak += run_memory(config, job.trained, compute, job.context)
            else:
                peak += sampling_memory(job.trained, compute)
        plan = resolve_plan(
            config,
            compute,
            job.trained,
            context=job.context,
            rows_per_epoch=job.rows_per_epoch,
            tokens_per_step=tokens_per_step,
            tokens_per_second=speed,
            most_passes=job.most_passes,
            layout=job.layout,
            peak_memory=peak,
            snapshots=snapshots,
            written=sum(one.stat().st_size for one in run.folder.rglob("*") if one.is_file()),
            replays=job.replays,
            reasons=reasons,
        )
        run.plan(plan.to_json() | {"model": job.model_config})
        print_plan(run.stage, plan)
        return plan


def _compute(
    job: Job[B, M], *, compile_by_default: bool, planned: Compute | None = None
) -> Compute:
    compute = resolve(job.config, compile_by_default=compile_by_default, planned=planned)
    return replace(compute, compile=compute.compile and job.trained.shape.compiles)


def train(run: Run, job: Job[B, M], plan: TrainPlan) -> Path:
    """Train by the plan, evaluate on the way, and save the model into the run's folder.

    With `patience` the job's held-out measure decides when to end and which weights are kept.
    """
    config, model = job.config, job.model()
    prepare(model, plan.compute, gradient_checkpointing=config.gradient_checkpointing)
    reset_peak_memory(plan.compute.device)
    optimizer = Optimizer(model, plan.rates, muon=plan.muon)
    early_stopping = EarlyStopping(run, optimizer, config)
    with ranks.rank_zero_first():
        if run.repairs and config.patience is not None and not early_stopping.path.exists():
            # The best weights were deleted when it finished; only training again recovers them.
            shutil.rmtree(run.folder / "checkpoints", ignore_errors=True)

    def after_step(step: int, last: bool) -> bool:
        """Evaluate if due; return whether training ends here."""
        if job.snapshots and run.writes and _is_power_of_two(step):
            _write_snapshot(run.folder / "snapshots" / f"step-{step}", model)
        due = step % plan.evaluate_every == 0 and (step > 0 or job.evaluates_first)
        due = due or step in job.evaluates_at
        if not (last or due):
            return False
        _require_finite(run, optimizer, step)
        started = time.perf_counter()
        model.eval()
        found = job.evaluate(model, step)
        model.train()
        seconds = time.perf_counter() - started
        run.log("metrics.jsonl", kind="evaluation", step=step, seconds=seconds, **found)
        return ranks.broadcast_flag(run.writes and early_stopping.ends_training(step))

    resumed = checkpoint.newest(run.folder / "checkpoints") is not None
    stream, started = job.stream(plan.steps), time.perf_counter()
    step = fit(model, stream, job.loss, optimizer, run, plan, after_step, seed=config.seed)
    ranks.destroy()
    stop = Interrupted(
        f"stopped; {run.folder} is finished, and the same command continues from there.",
        run.stopped_by,
    )
    if not run.writes:
        if run.stopped_by:
            raise stop
        return run.folder
    facts: dict[str, Any] = {
        "peak_memory_bytes": peak_memory(plan.compute.device),
        **early_stopping.restored(),
    }
    optimizer.write_back()
    last_good = checkpoint.newest(run.folder / "checkpoints")
    parameters = plan.trained_parameters or plan.parameters
    checkpoint.require_space(run.folder, 4 * parameters, "the finished model", last_good)
    # The saved plan has the steps that the kept weights took, which may be fewer than planned.
    job.save(model, replace(plan, steps=facts.get("best_step", step)))
    if not resumed:  # a resumed run did not time its first part
        facts["seconds"] = time.perf_counter() - started
        print_outcome(run.stage, plan, facts["seconds"], facts["peak_memory_bytes"])
    run.finish(step=step, steps=plan.steps, **facts)
    # Deleted last: a run that is killed while it saves needs them again.
    early_stopping.path.unlink(missing_ok=True)
    if run.stopped_by:
        raise stop
    return run.folder


def _require_finite(run: Run, optimizer: Optimizer, step: int) -> None:
    """Raise `UserError` for non-finite weights, which cannot be evaluated and must not be saved."""
    for name, master in optimizer.masters.items():
        if not bool(torch.isfinite(master.detach()).all()):
            raise UserError(
                f"{run.stage}, step {step}: weights of {name} are infinite or NaN; the run "
                "diverged: start again with a lower learning rate and another --out"
            )


def _is_power_of_two(step: int) -> bool:
    return step > 0 and step & (step - 1) == 0


def _write_snapshot(folder: Path, model: nn.Module) -> None:
    """Write weights only, in the compute dtype, for studying how the model develops."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = dict(model.named_parameters())
    checkpoint.write_tensors(folder / "model.safetensors", tensors, {"format": "pt"})
