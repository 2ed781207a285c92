"""Puts the learner's loss, schedule and bits per byte into training and evaluation."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

import numpy as np
from torch import Tensor

from groundup.evals import perplexity
from groundup.evals.by_source import source_groups
from groundup.learn.plain import all_replaced, plain_path
from groundup.learn.small import losses
from groundup.report.estimate import POOLED
from groundup.train import loss
from groundup.train.optim import Schedule

USED_BY = (
    "pre-training and fine-tuning: their loss (all logits at once, so take few --micro-rows), the "
    "learning rate of every stage, and bits per byte"
)


@contextmanager
def swap(part: ModuleType) -> Iterator[None]:
    """The head is not computed for tokens of weight 0, as in the product."""

    def linear_cross_entropy(
        hidden: Tensor,
        head: Tensor,
        targets: Tensor,
        weights: Tensor,
        trained: Tensor | None = None,
    ) -> Tensor:
        if trained is None:
            trained = weights.nonzero()[:, 0]
        logits = (hidden[trained] @ head.T).float()
        total: Tensor = part.cross_entropy(logits, targets[trained], weights[trained])
        return total

    ours = Schedule.__call__

    def scale(self: Schedule, step: int) -> float:
        if self.decay_shape != "linear" or self.decay_to:  # which the part does not know
            return ours(self, step)
        return float(part.schedule(step, self.steps, self.warmup_steps, self.decay_steps))

    def per_byte(self: perplexity.Bits) -> float:
        at = source_groups(self.sources)[POOLED]
        nats = (self.bits[at] * math.log(2)).tolist()
        return float(part.bits_per_byte(nats, self.bytes[at].tolist()))

    with (
        plain_path(),
        all_replaced(
            (loss, "linear_cross_entropy", linear_cross_entropy),
            (Schedule, "__call__", scale),
            (perplexity.Bits, "per_byte", per_byte),
        ),
    ):
        yield


def try_it() -> list[float]:
    """The loss of a small model with its gradients, a schedule, and bits per byte."""
    paid = perplexity.Bits(np.array([8.0, 20.0]), np.array([4.0, 16.0]), ["text"] * 2)
    return [*losses(), *(Schedule(8, 3, 4)(step) for step in range(8)), paid.per_byte()]
