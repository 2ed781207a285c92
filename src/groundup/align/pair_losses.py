"""Losses of pairs beside DPO's: each asks something else of the margin between two answers.

    ipo      a margin to reach and not to pass           hinge    none beyond a margin
    simpo    per token, and no reference model           orpo     the odds, and no reference model

Each takes log-probabilities of the answers in nats and gives each pair's loss and its margin of
rewards. Which settings a loss has stands in `config.LOSSES`.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid


def ipo_loss(
    chosen: Float[Tensor, " pairs"],
    rejected: Float[Tensor, " pairs"],
    reference_chosen: Float[Tensor, " pairs"],
    reference_rejected: Float[Tensor, " pairs"],
    beta: float,
) -> tuple[Float[Tensor, " pairs"], Float[Tensor, " pairs"]]:
    """Identity preference optimization (Azar et al. 2023, IPO, equation 17).

        loss = ( h - 1 / (2 beta) )^2
        h    = (log pi(chosen) - log ref(chosen)) - (log pi(rejected) - log ref(rejected))

    DPO's loss falls for ever as the margin grows: where a preference is certain, its price on
    leaving the reference is worth nothing, and it overfits. Here the margin has a goal, and going
    past it costs as much as falling short. The paper's tau is `beta`.

    Log-probabilities are means over an answer's tokens, as the authors advise beside the paper: of
    sums long answers would need a smaller step of each token than short ones.
    """
    gained = (chosen - reference_chosen) - (rejected - reference_rejected)
    return (gained - 1 / (2 * beta)) ** 2, beta * gained


def hinge_loss(
    chosen: Float[Tensor, " pairs"],
    rejected: Float[Tensor, " pairs"],
    reference_chosen: Float[Tensor, " pairs"],
    reference_rejected: Float[Tensor, " pairs"],
    beta: float,
) -> tuple[Float[Tensor, " pairs"], Float[Tensor, " pairs"]]:
    """The hinge of SLiC (Zhao et al. 2023), as RSO compares it with DPO.

        loss = max( 0, 1 - beta * [ (log pi(chosen) - log ref(chosen))
                                  - (log pi(rejected) - log ref(rejected)) ] )

    A support vector machine where DPO is a logistic regression: a pair that is told apart by a
    margin of 1 / beta nats has no gradient any more. SLiC compares log-probabilities as they are;
    measured against the reference (Liu et al. 2023, Statistical Rejection Sampling, section 3.3)
    the loss differs from DPO's in its shape alone. What SLiC adds beside it, the loss of good
    answers themselves, is the setting `nll`.

    Log-probabilities are sums over an answer's tokens.
    """
    margin = beta * ((chosen - reference_chosen) - (rejected - reference_rejected))
    return (1 - margin).relu(), margin


def simpo_loss(
    chosen: Float[Tensor, " pairs"], rejected: Float[Tensor, " pairs"], beta: float, gamma: float
) -> tuple[Float[Tensor, " pairs"], Float[Tensor, " pairs"]]:
    """Simple preference optimization (Meng et al. 2024, SimPO, equation 6).

        loss = - log sigmoid( beta / |chosen|   * log pi(chosen)
                            - beta / |rejected| * log pi(rejected) - gamma )

    The reward is what generation goes by, the mean log-probability of an answer's tokens: no
    reference is needed, and a long answer has no advantage. Where no reference holds the model
    back, `gamma` asks for a margin between the rewards, and a small learning rate has to do the
    rest.

    Log-probabilities are means over an answer's tokens.
    """
    margin = beta * (chosen - rejected)
    return -logsigmoid(margin - gamma), margin


def orpo_loss(
    chosen: Float[Tensor, " pairs"], rejected: Float[Tensor, " pairs"], beta: float
) -> tuple[Float[Tensor, " pairs"], Float[Tensor, " pairs"]]:
    """Odds ratio preference optimization (Hong et al. 2024, ORPO, equations 4 to 7).

        loss = - log P(chosen)  -  beta * log sigmoid( log [ odds(chosen) / odds(rejected) ] )
        odds(y) = P(y) / (1 - P(y)),      P(y) = exp( log pi(y) / |y| )

    Fine-tuning on good answers raises bad ones of their style as well; a small penalty on the odds
    of the rejected keeps them down, so that a base model learns to answer and to prefer at once,
    without a reference. The first term is the setting `nll`, which is 1 here; the paper's lambda is
    `beta`.

    Returns the second term alone; log-probabilities are means over an answer's tokens.
    """
    ratio = (chosen - rejected) - (log_complement(chosen) - log_complement(rejected))
    return -beta * logsigmoid(ratio), beta * (chosen - rejected)


def log_complement(logp: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """log(1 - p) from log p, exact for small and large p (Maechler 2012, log1mexp, equation 7).

    Above -eps log p is what rounding leaves of a softmax: an answer that is certain to the last bit
    counts as one that is nearly so, or its odds would be infinite.
    """
    logp = logp.clamp(max=-torch.finfo(logp.dtype).eps)
    # Each branch gets an argument that it is exact for; the other's gradient is no number there.
    near = logp > -math.log(2)
    small = torch.where(near, logp, -1.0)
    large = torch.where(near, -1.0, logp)
    return torch.where(near, (-small.expm1()).log(), (-large.exp()).log1p())
