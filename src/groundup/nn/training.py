"""Training, which is one loop: predict, compare, differentiate, step.

    history = train(
        model, minibatches((x, y), 32, rng), loss, AdamW(model.parameters(), 1e-3), steps=1000
    )

`batches` is any stream of anything, and `loss(model, batch)` is one number for one batch of it, so
the same loop trains a perceptron, a recurrent network and a GPT.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from math import inf, isfinite
from time import perf_counter
from typing import TypeVar

import numpy as np

from groundup.maths.arrays import Array
from groundup.maths.tensor import Tensor, no_grad
from groundup.nn.module import Module
from groundup.nn.optim import Optimizer, clip_grad_norm_
from groundup.nn.schedule import Schedule, constant

M = TypeVar("M", bound=Module)
Batch = TypeVar("Batch")


@dataclass
class History:
    """What was measured: one entry per step in each list."""

    losses: list[float] = field(default_factory=list)
    """The loss of each batch, before its step."""
    learning_rates: list[float] = field(default_factory=list)
    gradient_norms: list[float] = field(default_factory=list)
    """Over all parameters, before clipping."""
    seconds: list[float] = field(default_factory=list)
    """Spent on training so far, without evaluations."""
    evaluations: dict[int, float] = field(default_factory=dict)
    """The values of `evaluate`, by the number of steps taken."""

    @property
    def diverged(self) -> bool:
        """Whether the training ended at a loss that is no finite number."""
        return bool(self.losses) and not isfinite(self.losses[-1])


def train(
    model: M,
    batches: Iterable[Batch],
    loss: Callable[[M, Batch], Tensor],
    optimizer: Optimizer,
    *,
    steps: int,
    schedule: Schedule | None = None,
    clip: float | None = None,
    evaluate: Callable[[M], float] | None = None,
    evaluate_every: int = 100,
) -> History:
    """Take `steps` steps down the loss, one batch each, and tell how it went.

    The learning rate of step t = 0, 1, ... is `optimizer.lr` times `schedule(t)`. `clip` is the
    largest gradient norm. `evaluate(model)` is asked after each `evaluate_every` steps and after
    the last, in evaluation mode and off the tape. Training stops early at a loss that is not
    finite, since no later step could mend it: see `History.diverged`. Errors: `ValueError` if the
    batches end before the steps do.
    """
    if steps < 1 or evaluate_every < 1:
        raise ValueError(f"steps={steps} and evaluate_every={evaluate_every} must be at least 1")
    history, stream, factor = History(), iter(batches), schedule or constant()
    spent = 0.0
    model.train()
    for step in range(steps):
        begun = perf_counter()
        try:
            batch = next(stream)
        except StopIteration:
            raise ValueError(f"the batches ended after {step} of {steps} steps") from None
        value = loss(model, batch)
        history.losses.append(value.item())
        if history.diverged:
            break
        optimizer.zero_grad()
        value.backward()
        norm = clip_grad_norm_(optimizer.weights, inf if clip is None else clip)
        optimizer.step(factor(step))
        spent += perf_counter() - begun

        history.learning_rates.append(optimizer.lr * factor(step))
        history.gradient_norms.append(norm)
        history.seconds.append(spent)
        done = step + 1
        if evaluate is not None and (done % evaluate_every == 0 or done == steps):
            model.eval()
            with no_grad():
                history.evaluations[done] = float(evaluate(model))
            model.train()
    return history


def minibatches(
    arrays: Sequence[Array], size: int, rng: np.random.Generator
) -> Iterator[tuple[Array, ...]]:
    """Stream the same `size` random rows of each array, without an end.

    Rows come in epochs: each comes once before any comes again, in an order that is new each time.
    A batch is always full, so that where `size` does not divide the rows, one holds the end of an
    epoch and the start of the next. Errors: `ValueError` for no arrays, other numbers of rows in
    one than in another, no rows, and a size below 1.
    """
    rows = {len(array) for array in arrays}
    if len(rows) != 1 or 0 in rows or size < 1:
        raise ValueError(
            f"batches of size={size} from arrays of {[len(array) for array in arrays]} rows"
        )
    return _shuffled(arrays, size, rng)


def _shuffled(
    arrays: Sequence[Array], size: int, rng: np.random.Generator
) -> Iterator[tuple[Array, ...]]:
    waiting = np.empty(0, dtype=np.int64)
    while True:
        while len(waiting) < size:
            waiting = np.concatenate([waiting, rng.permutation(len(arrays[0]))])
        rows, waiting = waiting[:size], waiting[size:]
        yield tuple(array[rows] for array in arrays)
