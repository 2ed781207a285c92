"""3.5 Training it: loss, schedule, bits per byte

The lesson: groundup learn 3.5        Check it: groundup learn check 3.5
"""

import math

import torch
from torch import Tensor


def cross_entropy(logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """The weighted sum of -log softmax(logits)[target], in nats.

    logits: (tokens, vocabulary); targets: (tokens,), integers; weights: (tokens,). Result: ().
    """
    raise NotImplementedError


def schedule(step: int, steps: int, warmup: int, decay: int) -> float:
    """The factor of the learning rate at `step`, counted from 0."""
    raise NotImplementedError


def bits_per_byte(nats: list[float], sizes: list[int]) -> float:
    """The loss in bits per byte over all texts together; sizes are in bytes."""
    raise NotImplementedError
