"""Puts the learner's loss into the training of reward models."""

from contextlib import AbstractContextManager
from types import ModuleType

import torch
from torch import Tensor

from groundup.align import reward
from groundup.align.rewards.model import RewardModel
from groundup.learn.plain import all_replaced
from groundup.learn.small import small_model
from groundup.text.example import Example

USED_BY = "groundup reward: the loss that trains a reward model"


def swap(part: ModuleType) -> AbstractContextManager[None]:
    """Margins and centering are the product's own: they are added to the learner's loss."""

    def bradley_terry_loss(
        chosen: Tensor, rejected: Tensor, margin: float = 0.0, centering: float = 0.0
    ) -> Tensor:
        losses: Tensor = part.pair_losses(chosen - margin, rejected)
        return losses + centering * (chosen + rejected).square() if centering else losses

    return all_replaced((reward, "bradley_terry_loss", bradley_terry_loss))


def try_it() -> list[float]:
    """The loss of a batch of comparisons, and its gradient in the head."""
    torch.manual_seed(0)
    model = RewardModel(small_model())
    torch.nn.init.normal_(model.score.weight)
    answers = tuple(Example([3 + i, 9, 4 + 2 * i], [True] * 3) for i in range(3))
    batch = reward.comparison_batch(
        [reward.Comparison(answers, ((0, 1), (1, 2), (0, 2)), (2, 2, 2))], 16
    )
    loss = reward.comparison_loss(model, batch, 0.1, 0.01).total
    loss.backward()  # type: ignore[no-untyped-call]
    assert model.score.weight.grad is not None
    return [float(loss.detach()), *model.score.weight.grad.flatten().tolist()]
