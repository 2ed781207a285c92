"""The training loop, shared by all training stages on PyTorch.

    for each step:  batches from the stream  ->  loss  ->  gradients  ->  one update

A stage is a stream of batches and a loss. Everything that every run needs is done here, once:
resuming bit-identically, skipping the update when a gradient is not finite, saving, logging, and a
clean stop on Ctrl-C.

On a CPU a resumed run gives the same bits because no random state outlives a step: the global
generator is seeded from (seed, step), data streams are pure functions of the step, and all other
state is in the checkpoint.
"""

from __future__ import annotations

import hashlib
import math
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn

from groundup.errors import UserError
from groundup.runs import ranks
from groundup.runs.console import Bar, say
from groundup.runs.folder import Run
from groundup.train import checkpoint
from groundup.train.batch import B, Loss, LossFunction, Stream, TrainingBatch, trained_tokens
from groundup.train.optim import Optimizer
from groundup.train.plan import TrainPlan

# A single bad step may come from unusual data; this many in a row mean that the run diverged.
BAD_STEPS_ALLOWED = 5


class Interrupted(KeyboardInterrupt):
    """The run was stopped by Ctrl-C or the signal `number`; it was saved and can be resumed."""

    def __init__(self, message: str, number: int = signal.SIGINT) -> None:
        super().__init__(message)
        self.number = number


class _NonFinite(Exception):
    """A step that cannot be taken: its loss or gradient is not finite, or no token has a weight."""


def fit(
    model: nn.Module,
    stream: Stream[B],
    loss: LossFunction[B],
    optimizer: Optimizer,
    run: Run,
    plan: TrainPlan,
    callback: Callable[[int, bool], bool | None] = lambda step, last: None,
    *,
    seed: int = 0,
) -> int:
    """Train `model` to the end of the schedule, from the newest checkpoint in `run` if any.

    `callback(step, last)` is called before the first step and after each step with the number of
    steps done, to evaluate or to sample. It must not change weights or generators, and ends
    training early by returning True. Returns the number of steps done.

    Raises `Interrupted` on Ctrl-C after saving, and `UserError` when the loss stays non-finite or
    the disk is full. A `UserError` of the stream is raised again after saving. Ctrl-C when nothing
    is left to train sets `run.stopped_by`.
    """
    steps, folder = plan.steps, run.folder / "checkpoints"
    start, tokens, bad = _resume(run, stream, optimizer, steps)
    saved = done = start
    save_due = False
    model.train()
    if start == 0:
        callback(0, False)
    with _stop_signal() as stopped, Bar(run.stage, steps, start) as bar:
        for step in range(start, steps):
            started = time.perf_counter()
            # Each process of a run has its own random numbers, for example for dropout.
            torch.manual_seed(step_seed(seed, step * ranks.size() + ranks.rank()))
            fault = ""
            try:
                facts = _update(model, stream, loss, optimizer, plan, step)
                bad = 0
            except _NonFinite as error:
                optimizer.clear()
                bad, fault = bad + 1, str(error)
                facts = {"skipped": fault, "tokens": 0, "flops": 0.0}
            except UserError as error:
                # A stream may fail for outside reasons, such as a reward that calls a service.
                # The steps before it are kept.
                if not (step and stream.can_save(step)):
                    raise
                if saved < step:
                    _save(run, step, stream, optimizer, tokens, bad)
                raise UserError(
                    f"{error}; saved at step {step} of {steps} in {folder}, and the same command "
                    "continues from there"
                ) from None
            done = step + 1
            read, seconds = facts.pop("tokens"), time.perf_counter() - started
            tokens += read
            _log(run, plan, done, tokens, read, facts.pop("flops"), seconds, facts)
            # A shorter run whose steps are all bad has diverged as well.
            if bad >= min(BAD_STEPS_ALLOWED, steps):
                raise UserError(_diverged(run, done, fault, bad))
            bar.advance(done, facts.get("loss", math.nan), read, seconds)
            if callback(done, done == steps):
                break
            stopping = ranks.any_of(stopped() > 0)
            # A rollout stream can be saved only between rollouts, so a save may have to wait.
            save_due = save_due or stopping or done % plan.save_every == 0
            saves = save_due and done < steps and stream.can_save(done)
            if saves:
                _save(run, done, stream, optimizer, tokens, bad)
                saved, save_due = done, False
            if stopping and saves:
                raise Interrupted(
                    f"stopped; saved at step {saved} of {steps} in {folder}. "
                    "The same command continues from there.",
                    stopped() or signal.SIGINT,
                )
        if ranks.any_of(stopped() > 0):
            run.stopped_by = stopped() or signal.SIGINT
    model.eval()
    return done


def step_seed(seed: int, step: int) -> int:
    """Return the seed for all randomness inside one step; seeds of adjacent steps are unrelated."""
    digest = hashlib.blake2b(f"{seed}/{step}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def _update(
    model: nn.Module,
    stream: Stream[B],
    loss: LossFunction[B],
    optimizer: Optimizer,
    plan: TrainPlan,
    step: int,
) -> dict[str, Any]:
    """Take one optimizer step and return its metrics for the log."""
    device = next(model.parameters()).device
    batches = stream.at(step, model)
    # The whole step's weight is known before its first forward pass, so the mean is taken once.
    weight = sum(batch.weight for batch in batches)
    if weight <= 0:
        raise _NonFinite("no token of this step is trained on")
    sums: dict[str, tuple[float, float]] = {}
    fault = ""
    for batch in _share(batches):
        result = loss(model, batch.to(device))
        total = float(result.total.detach())
        if not math.isfinite(total):
            fault = f"the loss is {total}"
            break
        (result.total / weight).backward()  # type: ignore[no-untyped-call]
        _add(sums, result)
    if ranks.any_of(bool(fault)):
        raise _NonFinite(fault or "the loss of another process is not finite")
    sums = _all_reduce(optimizer, sums)
    norm = optimizer.gradient_norm()
    if not math.isfinite(float(norm)):
        raise _NonFinite(f"the gradient norm is {float(norm)}")
    optimizer.clip(norm, plan.gradient_clip)
    scale = plan.schedule(step)
    optimizer.step(scale, plan.warmup_steps)
    return {
        **{name: total / max(count, 1e-9) for name, (total, count) in sums.items()},
        "learning_rate": optimizer.rates.matrices * scale,
        "gradient_norm": float(norm),
        "tokens": sum(batch.tokens for batch in batches),
        "flops": sum(_flops(batch, plan) for batch in batches),
    }


def _flops(batch: TrainingBatch, plan: TrainPlan) -> float:
    """Return the FLOPs of a micro-batch; tokens that are not trained on skip the head.

    Parts without gradients skip the backward pass, which is two thirds of the FLOPs, or half with
    an adapter, whose frozen matrices have no weight gradients.
    """
    backward = 2 / 3 if plan.adapter == "none" else 1 / 2

    def full(part: TrainingBatch) -> float:
        untrained = part.tokens - trained_tokens(part)
        return part.tokens * plan.flops_per_token - untrained * plan.head_flops

    without_gradients = sum(map(full, getattr(batch, "without_gradients", ())))
    return full(batch) - backward * without_gradients


def _share(batches: Sequence[B]) -> Sequence[B]:
    """Return this rank's micro-batches; there must be at least one."""
    if len(batches) < ranks.size():
        raise UserError(
            f"a step has {len(batches)} micro-batches for {ranks.size()} processes; "
            "give a smaller --micro-rows, more --rows, or fewer processes"
        )
    return ranks.share(batches)


def _all_reduce(
    optimizer: Optimizer, sums: dict[str, tuple[float, float]]
) -> dict[str, tuple[float, float]]:
    """Sum gradients and metrics over all ranks."""
    if ranks.size() == 1:
        return sums
    masters = optimizer.masters.values()
    counts = torch.tensor([float(master.grad is not None) for master in masters])
    ranks.all_reduce([counts])
    for master, processes in zip(masters, counts.tolist(), strict=True):
        # A parameter without a gradient on any rank, such as an unused expert, is not updated.
        if master.grad is None and processes:
            master.grad = torch.zeros_like(master)
    ranks.all_reduce([master.grad for master in masters if master.grad is not None])
    # Different kinds of batches have different metrics, and a rank may have no batch of a kind.
    names = ranks.union(sums)
    rows = [sums.get(name, (0.0, 0.0)) for name in names]
    table = torch.tensor(rows, dtype=torch.float64)
    ranks.all_reduce([table])
    return {name: (row[0], row[1]) for name, row in zip(names, table.tolist(), strict=True)}


def _add(sums: dict[str, tuple[float, float]], result: Loss) -> None:
    for name, (total, count) in result.metrics.items():
        before = sums.get(name, (0.0, 0.0))
        sums[name] = (before[0] + total, before[1] + count)


def _log(
    run: Run,
    plan: TrainPlan,
    step: int,
    tokens: int,
    read: int,
    flops: float,
    seconds: float,
    facts: dict[str, Any],
) -> None:
    run.log(
        "metrics.jsonl",
        kind="train",
        step=step,
        tokens=tokens,
        **facts,
        seconds=seconds,
        tokens_per_second=read / seconds,
        flops_per_second=flops / seconds,
        peak_share=flops / seconds / plan.peak_flops,
    )
    run.heartbeat(step=step, steps=plan.steps)


def _resume(run: Run, stream: Stream[B], optimizer: Optimizer, steps: int) -> tuple[int, int, int]:
    found = checkpoint.load_newest(run.folder / "checkpoints", say)
    if found is not None and found.step > steps:
        raise UserError(
            f"{run.folder / 'checkpoints'} holds step {found.step}, but {run.folder / 'plan.json'} "
            f"has {steps} steps: they belong to two runs; restore the plan, or choose another --out"
        )
    # Without a checkpoint, the evaluation before the first step is also dropped and repeated.
    run.cut_back(found.step if found else -1)
    if found is None:
        return 0, 0, 0
    optimizer.restore(found.tensors["model"], found.tensors["optimizer"])
    stream.restore(found.tensors["stream"])
    say(f"{run.stage}: continuing from step {found.step}")
    return found.step, found.counters["tokens"], found.counters["bad"]


def _save(
    run: Run, step: int, stream: Stream[B], optimizer: Optimizer, tokens: int, bad: int
) -> None:
    if not ranks.is_first():
        return
    tensors: dict[str, dict[str, Tensor]] = {
        "model": {name: master.detach() for name, master in optimizer.masters.items()},
        "optimizer": optimizer.state(),
        "stream": stream.state(),
    }
    checkpoint.save(run.folder / "checkpoints", step, tensors, {"tokens": tokens, "bad": bad})


def _diverged(run: Run, step: int, fault: str, bad: int) -> str:
    return (
        f"{run.stage} diverged at step {step}: {fault}, {bad} times in a row. These "
        f"steps did not touch the weights. Start again with a lower learning rate and another "
        f"--out; {run.folder / 'metrics.jsonl'} shows where it began"
    )


@contextmanager
def _stop_signal() -> Iterator[Callable[[], int]]:
    """Handle Ctrl-C and SIGTERM: yield a function that returns the signal received, 0 for none.

    Services and clusters stop programs by SIGTERM. The loop checks between steps; a second signal
    raises `Interrupted` at once. Ignored signals stay ignored.
    """
    received = 0

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal received
        if received:
            raise Interrupted("stopped", number)
        received = number
        say("stopping as soon as the run can be saved …")

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    # None is a handler not installed by Python, which could not be restored.
    handled = [number for number, old in before.items() if old not in (signal.SIG_IGN, None)]
    try:
        for number in handled:
            signal.signal(number, handle)
    except ValueError:  # not the main thread: the main thread handles signals
        yield lambda: 0
        return
    try:
        yield lambda: received
    finally:
        for number in handled:
            signal.signal(number, before[number])
