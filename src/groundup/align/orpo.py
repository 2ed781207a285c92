"""Odds ratio preference optimization (Hong et al. 2024, ORPO, equations 4 to 7).

    loss = - log P(chosen)  -  beta * log sigmoid( log [ odds(chosen) / odds(rejected) ] )
    odds(y) = P(y) / (1 - P(y)),      P(y) = exp( log pi(y) / |y| )

Fine-tuning on good answers raises bad ones of their style as well; a small penalty on the odds of
the rejected keeps them down, so that a base model learns to answer and to prefer at once, without a
reference. The first term is the setting `nll`, which is 1 here; the paper's lambda is `beta`.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid


def orpo_loss(
    chosen: Float[Tensor, " pairs"], rejected: Float[Tensor, " pairs"], beta: float
) -> tuple[Float[Tensor, " pairs"], Float[Tensor, " pairs"]]:
    """Each pair's second term, and its margin of rewards, from mean log-probabilities in nats."""
    ratio = (chosen - rejected) - (log_complement(chosen) - log_complement(rejected))
    return -beta * logsigmoid(ratio), beta * (chosen - rejected)


def log_complement(logp: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """log(1 - p) from log p below 0, exact at both ends (Maechler 2012, log1mexp, equation 7).

    An answer that is certain to the last bit counts as one that is nearly so, or its odds would be
    infinite.
    """
    logp = logp.clamp(max=-torch.finfo(logp.dtype).eps)
    # Each branch gets an argument that it is exact for; the other's gradient is no number there.
    near = logp > -math.log(2)
    small = torch.where(near, logp, -1.0)
    large = torch.where(near, -1.0, logp)
    return torch.where(near, (-small.expm1()).log(), (-large.exp()).log1p())
