"""The training loop: forward pass, loss, backward pass, optimizer step.

    history = train(
        model, minibatches((x, y), 32, rng), loss, AdamW(model.parameters(), 1e-3), steps=1000
    )

`batches` can be any iterable, and `loss(model, batch)` returns a single number for a batch, so the
same loop trains a perceptron, a recurrent network and a GPT.
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
    """Measurements of a training: one entry per step in each list."""

    losses: list[float] = field(default_factory=list)
    """The loss of each batch, before its step."""
    learning_rates: list[float] = field(default_factory=list)
    gradient_norms: list[float] = field(default_factory=list)
    """The total norm of all parameters' gradients, before clipping."""
    seconds: list[float] = field(default_factory=list)
    """Training time so far, without evaluations."""
    evaluations: dict[int, float] = field(default_factory=dict)
    """The results of `evaluate`, by the number of steps taken."""

    @property
    def diverged(self) -> bool:
        """Whether the training ended at a loss that is not finite."""
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
    """Train `model` for `steps` steps of one batch each, and return the measurements.

    The learning rate of step t = 0, 1, ... is `optimizer.lr` times `schedule(t)`. `clip` is the
    largest gradient norm. `evaluate(model)` is called after every `evaluate_every` steps and after
    the last, in evaluation mode and without recording. Training stops early at a loss that is not
    finite, from which it cannot recover: see `History.diverged`. Errors: `ValueError` if there are
    fewer batches than steps.
    """
    if steps < 1 or evaluate_every < 1:
        raise ValueError(f"steps={steps} and evaluate_every={evaluate_every} must be at least 1")
    history, stream, factor = History(), iter(batches), schedule or constant()
    spent = 0.0
    model.train()
    for step in range(steps):
        started = perf_counter()
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
        spent += perf_counter() - started

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
    """Yield endless batches of `size` random rows, the same rows of each array.

    In every epoch each row occurs once, in a new random order. Batches are always full: if `size`
    does not divide the number of rows, a batch has the end of an epoch and the start of the next.
    Errors: `ValueError` for no arrays, different numbers of rows, no rows, and a size below 1.
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
