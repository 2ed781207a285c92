"""Puts the learner's advantages and KL into GRPO."""

from contextlib import AbstractContextManager
from pathlib import Path
from types import ModuleType

import numpy as np
import torch

from groundup.align import grpo
from groundup.align.config import GRPOConfig
from groundup.align.rollout import RolloutBatch
from groundup.learn.plain import all_replaced
from groundup.learn.small import small_model, some_rows

USED_BY = "groundup grpo: the advantage of each answer, and the KL in its loss"


def swap(part: ModuleType) -> AbstractContextManager[None]:
    """Advantages that are not divided (--scale-rewards off) stay the product's."""
    product = grpo.group_advantages

    def group_advantages(rewards: np.ndarray, group_size: int, scale: bool = True) -> np.ndarray:
        if not scale:
            return product(rewards, group_size, scale)
        return np.asarray(part.group_advantages(rewards, group_size))

    return all_replaced(
        (grpo, "group_advantages", group_advantages), (grpo, "kl_estimate", part.kl)
    )


def try_it() -> list[float]:
    """The advantages of a group of two, and GRPO's loss of them."""
    advantages = grpo.group_advantages(np.array([1.0, 0.0]), 2)
    batch = RolloutBatch(
        rows=some_rows(2),
        weight=2.0,
        token_weights=torch.ones(6),
        advantages=torch.from_numpy(np.repeat(advantages, 3)).float(),
        old_logprobs=torch.full((6,), -4.0),
        reference_logprobs=torch.full((6,), -4.1),
    )
    names = {name: Path(name) for name in ("model", "prompts", "out")}
    config = GRPOConfig(**names, reward="length", kl_coef=0.1)
    with torch.no_grad():
        loss = grpo.grpo_loss(small_model(), batch, config)
    return [*advantages.tolist(), float(loss.total)]
