"""Puts the learner's clip into PPO and GRPO."""

from contextlib import AbstractContextManager
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor

from groundup.align import grpo, ppo
from groundup.align.config import GRPOConfig
from groundup.align.rollout import RolloutBatch
from groundup.learn.plain import all_replaced
from groundup.learn.small import small_model, some_rows

USED_BY = "groundup ppo and grpo: the loss that trains the policy"


def swap(part: ModuleType) -> AbstractContextManager[None]:
    """A clip that is wider above than below stays the product's."""
    product = ppo.clipped_policy_loss

    def clipped_policy_loss(
        logprobs: Tensor,
        old_logprobs: Tensor,
        advantages: Tensor,
        clip_range: float,
        clip_range_high: float | None = None,
    ) -> tuple[Tensor, Tensor]:
        given = (logprobs, old_logprobs, advantages, clip_range)
        if clip_range_high not in (None, clip_range):
            return product(*given, clip_range_high)
        return part.clipped_losses(*given), (logprobs - old_logprobs).exp()

    return all_replaced(
        (ppo, "clipped_policy_loss", clipped_policy_loss),
        (grpo, "clipped_policy_loss", clipped_policy_loss),
    )


def try_it() -> list[float]:
    """GRPO's loss of a small batch."""
    batch = RolloutBatch(
        rows=some_rows(2),
        weight=2.0,
        token_weights=torch.ones(6),
        advantages=torch.tensor([1.0, 1.0, 1.0, -1.0, -1.0, -1.0]),
        old_logprobs=torch.full((6,), -4.0),
        reference_logprobs=torch.full((6,), -4.1),
    )
    names = {name: Path(name) for name in ("model", "prompts", "out")}
    config = GRPOConfig(**names, reward="length")
    with torch.no_grad():
        return [float(grpo.grpo_loss(small_model(), batch, config).total)]
