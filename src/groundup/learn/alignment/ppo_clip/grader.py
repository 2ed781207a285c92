"""Grades the clip by `groundup.align.ppo`."""

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from groundup.align.ppo import clipped_policy_loss
from groundup.learn.exercise import Trial, calls

_trial = partial(Trial, rtol=1e-4, atol=1e-6)


def trials(seed: int) -> Iterator[Trial]:
    generator = torch.Generator().manual_seed(seed)
    old = torch.tensor([-1.0, -1.0, -1.0, -1.0, -1.0, -1.0])
    moved = torch.tensor([1.5, 1.5, 0.5, 0.5, 1.1, 0.9])  # ratios: inside, outside on either side
    signs = torch.tensor([1.0, -1.0, 1.0, -1.0, 1.0, -1.0])
    drawn = [torch.randn(12, generator=generator) for _ in range(3)]
    for name, new, before, advantages, epsilon in (
        ("a good token whose ratio is 1.1", old[:1] + moved[4].log(), old[:1], signs[:1], 0.2),
        ("six tokens with ratios from 0.5 to 1.5", old + moved.log(), old, signs, 0.2),
        ("twelve tokens", drawn[0] * 0.3 - 2, drawn[0] * 0.3 - 2 + drawn[1] * 0.3, drawn[2], 0.1),
    ):
        shown = {
            "logprobs": new,
            "old_logprobs": before,
            "advantages": advantages,
            "epsilon": epsilon,
        }
        of = (new, before, advantages, epsilon)
        losses, ratio = clipped_policy_loss(*of)
        yield _trial(f"clipped_losses of {name}", calls("clipped_losses", *of), losses, shown)
        yield _trial(
            f"the gradient of their sum, {name}",
            calls("clipped_losses", *of, via=_gradient),
            _gradient(lambda *given: clipped_policy_loss(*given)[0], *of),
            shown,
        )
        for at, other in ((1, "old_logprobs"), (2, "advantages")):
            yield _trial(
                f"the gradient of their sum with respect to {other} (there is none: zeros), {name}",
                calls("clipped_losses", *of, via=partial(_gradient, at=at)),
                torch.zeros_like(new),
                shown,
            )
        yield _trial(
            f"clipped_share of {name}",
            calls("clipped_share", new, before, epsilon),
            float(((ratio < 1 - epsilon) | (ratio > 1 + epsilon)).float().mean()),
            {name: value for name, value in shown.items() if name != "advantages"},
        )
    # Three are outside. With the ratio inverted it would be two, by logarithms one.
    narrow = torch.tensor([0.79, 1.21, 1.22, 1.19, 0.82]).log()
    zero = torch.zeros(5)
    yield _trial(
        "clipped_share of ratios near the edges",
        calls("clipped_share", narrow, zero, 0.2),
        3 / 5,
        {"logprobs": narrow, "old_logprobs": zero, "epsilon": 0.2},
    )


def _gradient(
    losses: Callable[..., Tensor],
    new: Tensor,
    old: Tensor,
    advantages: Tensor,
    epsilon: float,
    at: int = 0,
) -> Tensor:
    # The sources of the other two may require gradients, too.
    leaves = [one.clone().requires_grad_() for one in (new, old, advantages)]
    total = losses(*leaves, epsilon).sum()
    found = torch.autograd.grad(total, leaves[at], allow_unused=True)[0]
    return torch.zeros_like(new) if found is None else found
