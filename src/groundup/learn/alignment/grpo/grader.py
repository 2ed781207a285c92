"""Grades GRPO by `groundup.align.grpo`."""

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import torch
from torch import Tensor

from groundup.align.grpo import group_advantages, kl_estimate
from groundup.learn.exercise import Trial, calls

_trial = partial(Trial, rtol=1e-4, atol=1e-6)


def trials(seed: int) -> Iterator[Trial]:
    random = np.random.default_rng(seed)
    generator = torch.Generator().manual_seed(seed)
    for rewards, size in (
        (np.array([1.0, 0.0, 0.0, 1.0, 0.0]), 5),
        (np.array([1.0, 0.0, 5.0, 7.0, 6.0, 9.0]), 2),
        (np.array([1.0, 1.0, 1.0, 0.0, 1.0, 0.0]), 3),
        (random.normal(size=12), 4),
    ):
        yield Trial(
            f"group_advantages of {len(rewards)} rewards in groups of {size}",
            calls("group_advantages", rewards, size),
            group_advantages(rewards, size),
            {"rewards": rewards, "group_size": size},
        )
    for count in (2, 8):
        policy = -2 * torch.rand(count, generator=generator)
        reference = policy + torch.randn(count, generator=generator)
        reference[0] = policy[0]
        shown = {"logprobs": policy, "reference_logprobs": reference}
        yield _trial(
            f"kl of {count} tokens",
            calls("kl", policy, reference),
            kl_estimate(policy, reference),
            shown,
        )
        yield _trial(
            f"the gradient of its sum, {count} tokens",
            calls("kl", policy, reference, via=_gradient),
            _gradient(kl_estimate, policy, reference),
            shown,
        )


def _gradient(kl: Callable[[Tensor, Tensor], Tensor], policy: Tensor, reference: Tensor) -> Tensor:
    leaf = policy.clone().requires_grad_()
    return torch.autograd.grad(kl(leaf, reference).sum(), leaf)[0]
