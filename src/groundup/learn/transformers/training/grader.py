"""Grades loss, schedule and bits per byte by `groundup.train` and `groundup.evals.perplexity`."""

import random
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import torch
from torch import Tensor

from groundup.evals.perplexity import Bits
from groundup.learn.exercise import Trial, calls
from groundup.train.loss import linear_cross_entropy
from groundup.train.optim import Schedule

_trial = partial(Trial, rtol=1e-4, atol=1e-5)


def trials(seed: int) -> Iterator[Trial]:
    generator, dice = torch.Generator().manual_seed(seed), random.Random(seed)
    for tokens, vocabulary in ((1, 2), (2, 3), (4, 3), (20, 50)):
        logits = 2 * torch.randn(tokens, vocabulary, generator=generator)
        targets = torch.randint(vocabulary, (tokens,), generator=generator)
        weights = torch.ones(tokens)
        if tokens > 2:
            weights = (torch.arange(tokens) % 3 > 0).float() * 2
        shown = {"logits": logits, "targets": targets, "weights": weights}
        about = f"{tokens} tokens of a vocabulary of {vocabulary}"
        yield _trial(
            f"cross_entropy of {about}",
            calls("cross_entropy", logits, targets, weights),
            _product(logits, targets, weights),
            shown,
        )
        yield _trial(
            f"its gradient with respect to the logits, {about}",
            calls("cross_entropy", logits, targets, weights, via=_gradient),
            _gradient(_product, logits, targets, weights),
            shown,
        )
    large = torch.tensor([[1000.0, 998.0], [-500.0, 2000.0]])
    targets, weights = torch.tensor([0, 1]), torch.ones(2)
    yield _trial(
        "cross_entropy of logits in the thousands",
        calls("cross_entropy", large, targets, weights),
        _product(large, targets, weights),
        {"logits": large, "targets": targets, "weights": weights},
        atol=1e-3,  # the precision of float32 for numbers of this size
    )
    targets = torch.tensor([1, 0])
    # For targets with a softmax of 0 in float32: an added small number (or a clamp) keeps the loss
    # finite, but nothing is learned.
    yield _trial(
        "its gradient where the targets are not the largest",
        calls("cross_entropy", large, targets, weights, via=_gradient),
        _gradient(_product, large, targets, weights),
        {"logits": large, "targets": targets, "weights": weights},
    )
    for steps, warmup, decay in ((10, 4, 3), (10, 0, 5), (6, 2, 0), (4, 3, 3), (4, 4, 4)):
        yield Trial(
            f"schedule of {steps} steps, warm-up {warmup}, decay {decay}",
            calls("schedule", steps, warmup, decay, via=_every_step),
            [Schedule(steps, warmup, decay)(i) for i in range(steps)],
            {"steps": steps, "warmup": warmup, "decay": decay},
        )
    texts: list[tuple[list[float], list[int]]] = [([8.0], [10]), ([4.0, 90.0], [2, 90])]
    texts.append(
        ([dice.uniform(5, 90) for _ in range(5)], [dice.randrange(5, 90) for _ in range(5)])
    )
    for nats, sizes in texts:
        paid = Bits(np.array(nats) / np.log(2), np.array(sizes, float), ["text"] * len(nats))
        yield Trial(
            f"bits_per_byte of {len(nats)} texts",
            calls("bits_per_byte", nats, sizes),
            paid.per_byte(),
            {"nats": nats, "sizes": sizes},
        )


def _every_step(schedule: Callable[..., float], steps: int, warmup: int, decay: int) -> list[float]:
    return [schedule(step, steps, warmup, decay) for step in range(steps)]


def _product(logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """The product's loss, with the identity as head, so that hidden states are the logits."""
    return linear_cross_entropy(logits, torch.eye(logits.shape[1]), targets, weights)


def _gradient(loss: Callable[..., Tensor], logits: Tensor, *others: Tensor) -> Tensor:
    leaf = logits.clone().requires_grad_()
    return torch.autograd.grad(loss(leaf, *others), leaf)[0]
