"""The loss of a language model, the schedule of its learning rate, and bits per byte."""

import math

from torch import Tensor


def cross_entropy(logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """The weighted sum of -log softmax(logits)[target], in nats.

    logits: (tokens, vocabulary); targets: (tokens,), integers; weights: (tokens,). Result: ().
    """
    # log_softmax takes away each row's maximum first, so that no exp overflows.
    said = logits.log_softmax(-1).gather(-1, targets[:, None])[:, 0]
    return -(weights * said).sum()


def schedule(step: int, steps: int, warmup: int, decay: int) -> float:
    """The factor of the learning rate at `step`, counted from 0."""
    rising = (step + 1) / warmup if warmup else 1.0
    falling = (steps - step) / decay if decay else 1.0
    return min(rising, 1.0, falling)


def bits_per_byte(nats: list[float], sizes: list[int]) -> float:
    """The loss in bits per byte over all texts together; sizes are in bytes."""
    return sum(nats) / math.log(2) / sum(sizes)
