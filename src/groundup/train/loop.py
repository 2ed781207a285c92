"""The training loop: the only one.

    for each step:  batches from the stream  ->  loss  ->  gradients  ->  one update

A stage is a stream of batches and a loss; everything a run owes its owner is done here, once:
resuming with the same bits, stopping before a bad gradient touches the weights, saving, logging,
leaving in good order on Ctrl-C.

On a CPU bits are the same because nothing random outlives a step: the global generator is seeded
afresh from (seed, step), data streams are pure functions of the step, and the rest is in the
checkpoint.
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

# One bad step may be a freak of the data; this many in a row are a diverged run.
BAD_STEPS_ALLOWED = 5


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, or another signal of this `number`: the run was saved and can go on."""

    def __init__(self, message: str, number: int = signal.SIGINT) -> None:
        super().__init__(message)
        self.number = number


class _Bad(Exception):
    """A loss or gradient that is not finite."""


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
    """Train `model` until the schedule ends, from the newest checkpoint in `run` if there is one.

    `callback(step, last)` is called before the first step and after each with the number of steps
    done, to evaluate or to sample; it must leave weights and generators alone, and ends training
    early when it says True. Returns the steps done. Raises `Interrupted` after saving on
    Ctrl-C, and `UserError` when the loss stays non-finite or the disk is full, and after saving
    what the stream raises. A Ctrl-C after which nothing is left to train sets `run.stopped_by`.
    """
    steps, folder = plan.steps, run.folder / "checkpoints"
    start, tokens, bad = _resume(run, stream, optimizer, steps)
    saved = done = start
    owed = False
    model.train()
    if start == 0:
        callback(0, False)
    with _stop_signal() as stopped, Bar(run.stage, steps, start) as bar:
        for step in range(start, steps):
            begun = time.perf_counter()
            # Each process of a run draws numbers of its own, dropout's for example.
            torch.manual_seed(step_seed(seed, step * ranks.size() + ranks.rank()))
            fault = ""
            try:
                facts = _update(model, stream, loss, optimizer, plan, step)
                bad = 0
            except _Bad as error:
                optimizer.clear()
                bad, fault = bad + 1, str(error)
                facts = {"skipped": fault, "tokens": 0, "flops": 0.0}
            except UserError as error:
                # What a stream makes may fail by what is not of this run, as a reward that asks a
                # service does: what was learned before is kept.
                if not (step and stream.can_save(step)):
                    raise
                if saved < step:
                    _save(run, step, stream, optimizer, tokens, bad)
                raise UserError(
                    f"{error}; saved at step {step} of {steps} in {folder}, and the same command "
                    "continues from there"
                ) from None
            done = step + 1
            read, seconds = facts.pop("tokens"), time.perf_counter() - begun
            tokens += read
            _log(run, plan, done, tokens, read, facts.pop("flops"), seconds, facts)
            # A run of fewer steps than that, all of them bad, has learned nothing either.
            if bad >= min(BAD_STEPS_ALLOWED, steps):
                raise UserError(_diverged(run, done, fault, bad))
            bar.advance(done, facts.get("loss", math.nan), read, seconds)
            if callback(done, done == steps):
                break
            asked = ranks.any_of(stopped() > 0)
            # A rollout stream can be saved between rollouts only: then at the next such place.
            owed = owed or asked or done % plan.save_every == 0
            saves = owed and done < steps and stream.can_save(done)
            if saves:
                _save(run, done, stream, optimizer, tokens, bad)
                saved, owed = done, False
            if asked and saves:
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
    """A seed for everything random inside one step; neighbors are unrelated."""
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
    """Take one optimizer step; return what is logged of it."""
    device = next(model.parameters()).device
    batches = stream.at(step, model)
    # The whole step's weight is known before its first forward pass: a mean is taken once.
    weight = sum(batch.weight for batch in batches)
    if weight <= 0:
        raise _Bad("no token of this step is trained on")
    sums: dict[str, tuple[float, float]] = {}
    fault = ""
    for batch in _own(batches):
        result = loss(model, batch.to(device))
        total = float(result.total.detach())
        if not math.isfinite(total):
            fault = f"the loss is {total}"
            break
        (result.total / weight).backward()  # type: ignore[no-untyped-call]
        _add(sums, result)
    if ranks.any_of(bool(fault)):
        raise _Bad(fault or "the loss of another process is not finite")
    sums = _summed(optimizer, sums)
    norm = optimizer.gradient_norm()
    if not math.isfinite(float(norm)):
        raise _Bad(f"the gradient norm is {float(norm)}")
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
    """Operations of a micro-batch: tokens that are not trained on spare the head.

    What is read without gradients spares the backward pass: two thirds, or half under an adapter,
    whose frozen matrices have no gradients of their own.
    """
    backward = 2 / 3 if plan.adapter == "none" else 1 / 2

    def whole(part: TrainingBatch) -> float:
        untrained = part.tokens - trained_tokens(part)
        return part.tokens * plan.flops_per_token - untrained * plan.head_flops

    spared = sum(map(whole, getattr(batch, "without_gradients", ())))
    return whole(batch) - backward * spared


def _own(batches: Sequence[B]) -> Sequence[B]:
    """Return this rank's micro-batches; there must be at least one."""
    if len(batches) < ranks.size():
        raise UserError(
            f"a step has {len(batches)} micro-batches and {ranks.size()} processes are to share "
            "them; give a smaller --micro-rows, more --rows, or fewer processes"
        )
    return ranks.share(batches)


def _summed(
    optimizer: Optimizer, sums: dict[str, tuple[float, float]]
) -> dict[str, tuple[float, float]]:
    """Sum gradients and metrics over all ranks."""
    if ranks.size() == 1:
        return sums
    masters = optimizer.masters.values()
    found = torch.tensor([float(master.grad is not None) for master in masters])
    ranks.all_reduce([found])
    for master, processes in zip(masters, found.tolist(), strict=True):
        # What has no gradient anywhere, such as an expert without tokens, takes no step.
        if master.grad is None and processes:
            master.grad = torch.zeros_like(master)
    ranks.all_reduce([master.grad for master in masters if master.grad is not None])
    # Batches of different kinds have different metrics, and a rank may lack one of the kinds.
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
            f"{run.folder / 'checkpoints'} holds step {found.step}, and {run.folder / 'plan.json'} "
            f"has {steps} steps: they are of two runs; put back the plan, or choose another --out"
        )
    # What was measured before the first step is measured again.
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


def _diverged(run: Run, step: int, what: str, bad: int) -> str:
    return (
        f"{run.stage} diverged at step {step}: {what}, {bad} times in a row. These "
        f"steps did not touch the weights. Start again with a lower learning rate and another "
        f"--out; {run.folder / 'metrics.jsonl'} shows where it began"
    )


@contextmanager
def _stop_signal() -> Iterator[Callable[[], int]]:
    """Turn Ctrl-C and SIGTERM, by which services and clusters stop a program, into a question the
    loop asks between steps: which signal came, 0 for none. A second one ends at once. What is
    ignored stays ignored."""
    asked = 0

    def ask(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            raise Interrupted("stopped", number)
        asked = number
        say("stopping as soon as the run can be saved …")

    before = {one: signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)}
    # None is a handler that is not Python's, and could not be put back.
    heard = [one for one, handler in before.items() if handler not in (signal.SIG_IGN, None)]
    try:
        for one in heard:
            signal.signal(one, ask)
    except ValueError:  # not the main thread: whoever started it handles signals
        yield lambda: 0
        return
    try:
        yield lambda: asked
    finally:
        for one in heard:
            signal.signal(one, before[one])
