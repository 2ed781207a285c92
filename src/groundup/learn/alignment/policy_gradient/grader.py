"""Grades the policy gradient by the slope of PPO's loss at ratio 1, which equals it."""

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from groundup.align.ppo import clipped_policy_loss
from groundup.learn.exercise import Trial, calls

_trial = partial(Trial, rtol=1e-4, atol=1e-5)


def trials(seed: int) -> Iterator[Trial]:
    generator = torch.Generator().manual_seed(seed)
    three = torch.tensor([[10.0, 11.0, 15.0]])
    for rewards in (three, torch.ones(1, 4), torch.randn(3, 4, generator=generator) + 5):
        yield _trial(
            f"advantages of rewards of shape {tuple(rewards.shape)}",
            calls("advantages", rewards),
            _one_by_one(rewards),
            {"rewards": rewards},
        )
    for shape in ((2,), (2, 3)):
        logprobs = -torch.rand(shape, generator=generator) - 0.5
        found = torch.randn(shape, generator=generator)
        shown = {"logprobs": logprobs, "advantages": found}
        yield _trial(
            f"policy_loss of shape {shape}",
            calls("policy_loss", logprobs, found),
            (-found.double() * logprobs.double()).sum().float(),
            shown,
        )
        yield _trial(
            f"its gradient with respect to the log-probabilities, shape {shape}",
            calls("policy_loss", logprobs, found, via=_gradient),
            _slope_of_ppo(logprobs, found),
            shown,
        )
        yield _trial(
            "its gradient with respect to the advantages (there is none: zeros)",
            calls("policy_loss", logprobs, found, via=_through_advantages),
            torch.zeros(shape),
            shown,
        )


def _one_by_one(rewards: Tensor) -> Tensor:
    rows = [
        [row[i] - torch.cat([row[:i], row[i + 1 :]]).mean() for i in range(len(row))]
        for row in rewards
    ]
    return torch.tensor(rows)


def _slope_of_ppo(logprobs: Tensor, advantages: Tensor) -> Tensor:
    leaf = logprobs.clone().requires_grad_()
    losses, _ = clipped_policy_loss(leaf.flatten(), logprobs.flatten(), advantages.flatten(), 0.2)
    return torch.autograd.grad(losses.sum(), leaf)[0]


def _gradient(policy_loss: Callable[..., Tensor], logprobs: Tensor, advantages: Tensor) -> Tensor:
    leaf = logprobs.clone().requires_grad_()
    # A baseline from a network requires gradients, too.
    loss: Tensor = policy_loss(leaf, advantages.clone().requires_grad_())
    found = torch.autograd.grad(loss, leaf, allow_unused=True)[0]
    return torch.zeros_like(leaf) if found is None else found


def _through_advantages(
    policy_loss: Callable[..., Tensor], logprobs: Tensor, advantages: Tensor
) -> Tensor:
    leaf = advantages.clone().requires_grad_()
    loss: Tensor = policy_loss(logprobs.clone().requires_grad_(), leaf)
    if not loss.requires_grad:
        return torch.zeros_like(leaf)
    found = torch.autograd.grad(loss, leaf, allow_unused=True)[0]
    return torch.zeros_like(leaf) if found is None else found
