"""The loss of a reward model, and what it may have learned instead."""

from collections import Counter

import numpy as np
from torch import Tensor
from torch.nn.functional import logsigmoid


def pair_losses(chosen: Tensor, rejected: Tensor) -> Tensor:
    """-log sigmoid(chosen - rejected) of each pair. All: (pairs,)."""
    return -logsigmoid(chosen - rejected)


def pair_weights(prompts: list[str]) -> list[float]:
    """The weight of each pair, so that the pairs of a prompt weigh 1 together."""
    pairs = Counter(prompts)
    return [1 / pairs[prompt] for prompt in prompts]


def length_leak(rewards: np.ndarray, lengths: np.ndarray) -> float:
    """Spearman's rank correlation of rewards and lengths. Both: (answers,)."""
    return float(np.corrcoef(_ranks(rewards), _ranks(lengths))[0, 1])


def _ranks(values: np.ndarray) -> np.ndarray:
    _, group, counts = np.unique(values, return_inverse=True, return_counts=True)
    # Equal values share the mean of the ranks that they take together.
    return (np.cumsum(counts) - (counts - 1) / 2)[group]
