"""The commonest mistakes with a reward model."""

from collections import Counter

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

REPLACES = {
    "rejected_preferred": "pair_losses",
    "log_forgotten": "pair_losses",
    "overflows": "pair_losses",
    "mean_taken": "pair_losses",
    "hinge": "pair_losses",
    "every_pair_alike": "pair_weights",
    "weights_of_all_sum_to_one": "pair_weights",
    "number_of_pairs": "pair_weights",
    "values_not_ranks": "length_leak",
    "ties_in_order": "length_leak",
    "longer_wins": "length_leak",
    "formula_without_ties": "length_leak",
    "never_zero": "pair_losses",
    "each_by_itself": "pair_losses",
    "rejected_detached": "pair_losses",
    "ties_as_argsort_has_them": "length_leak",
    "places_for_ranks": "length_leak",
}


def rejected_preferred(chosen: Tensor, rejected: Tensor) -> Tensor:
    """The difference is reversed: this model would learn to reward the rejected answer."""
    return -logsigmoid(rejected - chosen)


def log_forgotten(chosen: Tensor, rejected: Tensor) -> Tensor:
    """That is the probability of being wrong, without a logarithm: it hardly penalizes a model that
    is sure and wrong."""
    return torch.sigmoid(rejected - chosen)


def overflows(chosen: Tensor, rejected: Tensor) -> Tensor:
    """The sigmoid of a large negative difference is 0, and its logarithm minus infinity.
    logsigmoid computes both together."""
    return -torch.sigmoid(chosen - rejected).log()


def mean_taken(chosen: Tensor, rejected: Tensor) -> Tensor:
    """The pairs are averaged. Return each pair's loss: its weight is applied later."""
    return -logsigmoid(chosen - rejected).mean()


def hinge(chosen: Tensor, rejected: Tensor) -> Tensor:
    """That is a hinge loss, which involves no probability. Bradley and Terry's loss is -log sigmoid
    of the difference."""
    return torch.relu(1 - (chosen - rejected))


def every_pair_alike(prompts: list[str]) -> list[float]:
    """Every pair weighs 1, so a prompt with nine answers weighs as much as 36 others. Divide 1
    among a prompt's pairs."""
    return [1.0] * len(prompts)


def weights_of_all_sum_to_one(prompts: list[str]) -> list[float]:
    """All weights together sum to 1. Those of *each prompt* should."""
    pairs = Counter(prompts)
    return [1 / pairs[prompt] / len(pairs) for prompt in prompts]


def number_of_pairs(prompts: list[str]) -> list[float]:
    """The weight is the number of pairs instead of one over it: a prompt with many pairs would
    weigh most."""
    pairs = Counter(prompts)
    return [float(pairs[prompt]) for prompt in prompts]


def values_not_ranks(rewards: np.ndarray, lengths: np.ndarray) -> float:
    """That is the correlation of the values (Pearson's). Use the correlation of their ranks: one
    very long answer must not dominate."""
    return float(np.corrcoef(rewards, lengths)[0, 1])


def ties_in_order(rewards: np.ndarray, lengths: np.ndarray) -> float:
    """Equal values get different ranks, by their order. They should share the mean of their
    ranks."""
    first, second = (
        np.argsort(np.argsort(values, kind="stable"), kind="stable")
        for values in (rewards, lengths)
    )
    return float(np.corrcoef(first, second)[0, 1])


def longer_wins(rewards: np.ndarray, lengths: np.ndarray) -> float:
    """That counts the pairs of answers in which the longer one has the higher reward. Return the
    correlation of ranks, from -1 to 1."""
    pairs = [
        (i, j) for i in range(len(lengths)) for j in range(len(lengths)) if lengths[i] > lengths[j]
    ]
    return float(np.mean([rewards[i] > rewards[j] for i, j in pairs]))


def formula_without_ties(rewards: np.ndarray, lengths: np.ndarray) -> float:
    """1 - 6 Σ d² / (n (n² - 1)) is right only if no two numbers are equal. Take the ordinary
    correlation of the ranks."""
    first, second = (
        np.array([(values < one).sum() + ((values == one).sum() + 1) / 2 for one in values])
        for values in (rewards, lengths)
    )
    n = len(rewards)
    return float(1 - 6 * ((first - second) ** 2).sum() / (n * (n**2 - 1)))


def never_zero(chosen: Tensor, rejected: Tensor) -> Tensor:
    """A small number (or a clamp) keeps 0 from the logarithm, so the loss of a clearly wrong pair
    is far too small. logsigmoid computes both together."""
    return -(torch.sigmoid(chosen - rejected) + 1e-12).log()


def each_by_itself(chosen: Tensor, rejected: Tensor) -> Tensor:
    """Each reward is compared with 0 separately. Only their difference counts: -log sigmoid(chosen
    - rejected)."""
    return -logsigmoid(chosen) - logsigmoid(-rejected)


def rejected_detached(chosen: Tensor, rejected: Tensor) -> Tensor:
    """No gradient flows to the rejected reward. The model learns from both: one goes up, the other
    down."""
    return -logsigmoid(chosen - rejected.detach())


def ties_as_argsort_has_them(rewards: np.ndarray, lengths: np.ndarray) -> float:
    """Equal values get different ranks, by their order. They should share the mean of their
    ranks."""
    first, second = (np.argsort(np.argsort(values)) for values in (rewards, lengths))
    return float(np.corrcoef(first, second)[0, 1])


def places_for_ranks(rewards: np.ndarray, lengths: np.ndarray) -> float:
    """argsort says *where* the smallest value is, not the rank of each value. np.unique with
    return_inverse and return_counts gives the ranks, with ties."""
    return float(np.corrcoef(np.argsort(rewards), np.argsort(lengths))[0, 1])
