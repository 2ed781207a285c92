"""The training speed of a model on this machine, measured on the run's own batches."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import nn

from groundup.train.batch import B, Batch, LossFunction, Stream
from groundup.train.device import Compute, prepare
from groundup.train.optim import Optimizer, Rates

# Untimed warm-up micro-batches: the first one compiles and allocates memory, the second allocates a
# little more. Then `_TIMED` are timed, fewer if they are slow, and more for a long run (a hundredth
# of it, at most 4 s), so that a short burst of another program matters less.
_WARM, _TIMED, _TIMED_SECONDS = 2, 5, 12.0
_LONG_SHARE, _LONG_SECONDS = 0.01, 4.0
_UPDATES = 4


@dataclass(frozen=True)
class Pace:
    """Seconds for the passes of one token and for one optimizer update on this machine."""

    token: float
    update: float

    def tokens_per_second(self, tokens_per_step: float, making: float = 0.0) -> float:
        """Return tokens per second in steps of this size, with `making` seconds before each."""
        return tokens_per_step / (self.token * tokens_per_step + self.update + making)


def measure_pace(
    model: nn.Module,
    compute: Compute,
    batches: Iterable[B],
    loss: LossFunction[B],
    *,
    muon: bool,
    gradient_checkpointing: bool = False,
    minutes: float = 0.0,
) -> Pace:
    """Time the passes of these micro-batches, and optimizer steps at a learning rate of zero.

    `batches` should be the run's own: only trained tokens reach the head, which is a fifth of a
    small model's work, and short rows need little attention. The weights stay unchanged. A run of
    many `minutes` is timed for longer.
    """
    prepare(model, compute, gradient_checkpointing=gradient_checkpointing)
    model.train()
    optimizer = Optimizer(model, Rates(0.0, 0.0, 0.0), muon=muon)
    device = torch.device(compute.device)
    least = min(_LONG_SHARE * 60 * minutes, _LONG_SECONDS)
    costs, spent, began = list[float](), 0.0, time.perf_counter()
    for place, batch in enumerate(batches):
        start = time.perf_counter()
        total = loss(model, batch.to(device)).total
        total.backward()  # type: ignore[no-untyped-call]
        float(total.detach())  # waits for a GPU
        seconds = time.perf_counter() - start
        if place < _WARM and start - began < _TIMED_SECONDS:
            continue
        spent += seconds
        costs.append(seconds / max(1, batch.tokens))
        if (len(costs) >= _TIMED and spent >= least) or spent > _TIMED_SECONDS:
            break
    updates = list[float]()
    for _ in range(_UPDATES):  # the first one creates the moments
        start = time.perf_counter()
        norm = optimizer.gradient_norm()
        optimizer.clip(norm, float(norm) + 1)
        optimizer.step_at_rest()
        updates.append(time.perf_counter() - start)
    update = sorted(updates[1:])[(len(updates) - 1) // 2]
    optimizer.release()
    return Pace(sorted(costs)[len(costs) // 2], update)


def random_batches(vocab_size: int, *, context: int, rows: int) -> Iterator[Batch]:
    """Yields endless batches of full rows of random tokens, all with weight 1."""
    while True:
        ids = torch.randint(3, vocab_size, (rows, context + 1))
        plain = Batch.of(ids[:, :-1])
        yield Batch(
            plain.input_ids,
            ids[:, 1:].contiguous(),
            torch.ones(rows, context),
            plain.position_ids.contiguous(),
            plain.segment_ids,
        )


def micro_batches(stream: Stream[B], model: nn.Module, steps: int | None = None) -> Iterator[B]:
    """Yield a stream's micro-batches, step after step, endlessly.

    After `steps` steps it starts again from the first, since a stream may have no more.
    """
    numbers = itertools.count() if steps is None else itertools.cycle(range(steps))
    return (batch for step in numbers for batch in stream.at(step, model))
