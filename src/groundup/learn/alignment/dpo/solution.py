"""Direct preference optimization."""

from torch import Tensor
from torch.nn.functional import logsigmoid


def answer_logprobs(token_logprobs: Tensor, mask: Tensor) -> Tensor:
    """log pi of each answer. Both: (answers, time); result: (answers,)."""
    # A sum: probabilities of tokens multiply, so their logarithms add.
    return (token_logprobs * mask).sum(-1)


def dpo_losses(
    chosen: Tensor,
    rejected: Tensor,
    reference_chosen: Tensor,
    reference_rejected: Tensor,
    beta: float,
) -> tuple[Tensor, Tensor]:
    """Each pair's loss and margin, from log-probabilities of whole answers. All: (pairs,)."""
    gained, lost = chosen - reference_chosen, rejected - reference_rejected
    margins = beta * (gained - lost)
    return -logsigmoid(margins), margins
