"""Grades the reward model by `groundup.align.reward` and `groundup.maths.correlation`."""

import random
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import torch
from torch import Tensor

from groundup.align.reward import Comparison, bradley_terry_loss, comparison_batch
from groundup.learn.exercise import Trial, calls
from groundup.maths.correlation import rank_correlation
from groundup.text.example import Example

_trial = partial(Trial, rtol=1e-4, atol=1e-6)


def trials(seed: int) -> Iterator[Trial]:
    generator, dice = torch.Generator().manual_seed(seed), random.Random(seed)
    rewards = np.random.default_rng(seed)
    for count in (1, 2, 6):
        chosen, rejected = (2 * torch.randn(count, generator=generator) for _ in range(2))
        shown = {"chosen": chosen, "rejected": rejected}
        yield _trial(
            f"pair_losses of {count}",
            calls("pair_losses", chosen, rejected),
            bradley_terry_loss(chosen, rejected),
            shown,
        )
        yield _trial(
            f"the gradient of their sum with respect to the chosen rewards, {count}",
            calls("pair_losses", chosen, rejected, at=0, via=_gradients),
            _gradients(bradley_terry_loss, chosen, rejected)[0],
            shown,
        )
        yield _trial(
            f"the gradient of their sum with respect to the rejected rewards, {count}",
            calls("pair_losses", chosen, rejected, at=1, via=_gradients),
            _gradients(bradley_terry_loss, chosen, rejected)[1],
            shown,
        )
    far, near = torch.tensor([-1000.0, 1000.0]), torch.zeros(2)
    yield _trial(
        "pair_losses of rewards a thousand apart",
        calls("pair_losses", far, near),
        bradley_terry_loss(far, near),
        {"chosen": far, "rejected": near},
    )
    for prompts in (["a"], ["a", "a", "b"], ["a", "b", "a", "c", "b", "a"]):
        yield Trial(
            f"pair_weights of {len(prompts)} pairs",
            calls("pair_weights", prompts),
            _weights(prompts),
            {"prompts": prompts},
        )
    ties = [dice.randrange(4) for _ in range(8)]
    for values, lengths in (
        (np.array([0.1, 2.0, 0.5]), np.array([10.0, 300.0, 12.0])),
        (np.array([3.0, 1.0, 2.0, 0.0]), np.array([1.0, 2.0, 900.0, 4.0])),
        (np.array([1.0, 1.0, 2.0, 3.0]), np.array([5.0, 4.0, 4.0, 9.0])),
        (np.array(ties, float), np.array(sorted(ties), float)),
        (rewards.normal(size=12), rewards.integers(1, 9, 12).astype(float)),
    ):
        yield Trial(
            f"length_leak of {len(values)} answers",
            calls("length_leak", values, lengths),
            rank_correlation(values, lengths),
            {"rewards": values, "lengths": lengths},
            atol=1e-9,
        )


def _gradients(losses: Callable[..., Tensor], chosen: Tensor, rejected: Tensor) -> list[Tensor]:
    leaves = [chosen.clone().requires_grad_(), rejected.clone().requires_grad_()]
    found = torch.autograd.grad(losses(*leaves).sum(), leaves, allow_unused=True)
    return [
        torch.zeros_like(leaf) if one is None else one
        for leaf, one in zip(leaves, found, strict=True)
    ]


def _weights(prompts: list[str]) -> list[float]:
    """The product's weights for comparisons, prompt by prompt."""
    found: dict[str, float] = {}
    for prompt in dict.fromkeys(prompts):
        count = prompts.count(prompt)
        answers = tuple(Example([1, 2, 3 + i], [True] * 3) for i in range(count + 1))
        pairs = tuple((i, i + 1) for i in range(count))
        comparison = Comparison(answers, pairs, (2,) * len(answers))
        [found[prompt]] = set(comparison_batch([comparison], 32).pair_weights.tolist())
    return [found[prompt] for prompt in prompts]
