"""Losses of pairs other than DPO's: they treat the margin between two answers differently.

    ipo      a target margin                             hinge    no gradient beyond a margin
    simpo    mean per token, no reference model          orpo     odds ratio, no reference model

Each takes the answers' log-probabilities in nats and returns each pair's loss and reward margin.
A new loss also needs its settings in `config.LOSSES` and `DPOConfig.loss`, a branch of `pair_loss`
and a name in `dpo._METHODS`, and perhaps an entry in `evals.config.REFERENCE_FREE`; the tests
compare it with its paper's formula.
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

    DPO's loss keeps falling as the margin grows: if a preference is certain, the penalty for
    leaving the reference has no effect, and the model overfits. IPO gives the margin a target;
    overshooting costs as much as falling short. The paper's tau is `beta`.

    Log-probabilities are means over an answer's tokens, as the authors advise outside the paper:
    with sums, long answers would need a smaller step per token than short ones.
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
    """The hinge loss of SLiC (Zhao et al. 2023), as RSO compares it with DPO.

        loss = max( 0, 1 - beta * [ (log pi(chosen) - log ref(chosen))
                                  - (log pi(rejected) - log ref(rejected)) ] )

    A support vector machine where DPO is a logistic regression: a pair separated by a margin of
    1 / beta nats has no gradient. SLiC compares plain log-probabilities; relative to the reference
    (Liu et al. 2023, Statistical Rejection Sampling, section 3.3) the loss differs from DPO's only
    in its shape. SLiC's additional loss on good answers is the setting `nll`.

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

    The reward is the mean log-probability of an answer's tokens, which also guides generation: no
    reference is needed, and a long answer has no advantage. As no reference holds the model back,
    `gamma` requires a margin between the rewards, and a small learning rate has to do the rest.

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

    Fine-tuning on good answers also raises bad answers of the same style; a small penalty on the
    odds of rejected answers keeps them down. So a base model learns to answer and to prefer at
    once, without a reference. The first term is the setting `nll`, which is 1 here; the paper's
    lambda is `beta`.

    Returns only the second term; log-probabilities are means over an answer's tokens.
    """
    ratio = (chosen - rejected) - (log_complement(chosen) - log_complement(rejected))
    return -beta * logsigmoid(ratio), beta * (chosen - rejected)


def log_complement(logp: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """log(1 - p) from log p, exact for small and large p (Maechler 2012, log1mexp, equation 7).

    Above -eps, log p is only the rounding error of a softmax: an answer that is certain to the last
    bit counts as nearly certain, because its odds would otherwise be infinite.
    """
    logp = logp.clamp(max=-torch.finfo(logp.dtype).eps)
    # Each branch gets an argument for which it is exact; the other's gradient would be NaN.
    near = logp > -math.log(2)
    small = torch.where(near, logp, -1.0)
    large = torch.where(near, -1.0, logp)
    return torch.where(near, (-small.expm1()).log(), (-large.exp()).log1p())
