"""Grades DPO by `groundup.align.dpo` and `groundup.lm.logprobs`."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from groundup.align.dpo import dpo_loss
from groundup.learn.exercise import Trial, calls

_trial = partial(Trial, rtol=1e-4, atol=1e-6)
_NAMES = ("chosen", "rejected", "reference_chosen", "reference_rejected")


def trials(seed: int) -> Iterator[Trial]:
    generator = torch.Generator().manual_seed(seed)
    for rows, time in ((1, 3), (3, 5)):
        tokens = -torch.rand(rows, time, generator=generator) * 3 - 0.1
        mask = (torch.arange(time) >= 1 + torch.arange(rows)[:, None]).float()
        yield _trial(
            f"answer_logprobs of shape {(rows, time)}",
            calls("answer_logprobs", tokens, mask),
            # Each answer's tokens separately.
            torch.stack([row[on.bool()].sum() for row, on in zip(tokens, mask, strict=True)]),
            {"token_logprobs": tokens, "mask": mask},
        )
    example = [torch.tensor([value]) for value in (-10.0, -12.0, -11.0, -11.0)]
    drawn = [-20 * torch.rand(5, generator=generator) for _ in range(4)]
    far = [torch.tensor([value]) for value in (-90_000.0, -10.0, -11.0, -12.0)]
    for about, four, beta in (
        ("one pair", example, 0.1),
        ("five pairs", drawn, 0.3),
        ("a margin in the thousands", far, 0.1),
    ):
        shown = {**dict(zip(_NAMES, four, strict=True)), "beta": beta}
        expected = dpo_loss(four[0], four[1], four[2], four[3], beta)
        for at, name in enumerate(("losses", "margins")):
            yield _trial(
                f"{name} of {about}",
                calls("dpo_losses", *four, beta, at=at),
                expected[at],
                shown,
            )
        wanted = _gradients(dpo_loss, *four, beta)
        for at, name in enumerate(("chosen", "rejected")):
            yield _trial(
                f"the gradient of the losses' sum with respect to {name}, {about}",
                calls("dpo_losses", *four, beta, at=at, via=_gradients),
                wanted[at],
                shown,
            )


def _gradients(
    losses: Callable[..., Any], chosen: Tensor, rejected: Tensor, *others: Any
) -> list[Tensor]:
    leaves = [chosen.clone().requires_grad_(), rejected.clone().requires_grad_()]
    loss = losses(*leaves, *others)[0].sum()
    found = torch.autograd.grad(loss, leaves, allow_unused=True)
    return [
        torch.zeros_like(leaf) if one is None else one
        for leaf, one in zip(leaves, found, strict=True)
    ]
