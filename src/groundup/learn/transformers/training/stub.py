"""The loss of a language model, the schedule of its learning rate, and bits per byte."""

import math

import torch
from torch import Tensor


def cross_entropy(logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """The weighted sum of -log softmax(logits)[target], in nats.

    logits: (tokens, vocabulary); targets: (tokens,), integers; weights: (tokens,). Result: ().
    """
    raise NotImplementedError


def schedule(step: int, steps: int, warmup: int, decay: int) -> float:
    """What the learning rate is multiplied by at `step`, counted from 0."""
    raise NotImplementedError


def bits_per_byte(nats: list[float], sizes: list[int]) -> float:
    """What the model paid for all texts together; sizes are in bytes."""
    raise NotImplementedError
