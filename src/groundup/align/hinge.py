"""The hinge of SLiC (Zhao et al. 2023, Sequence Likelihood Calibration), as RSO compares with DPO.

    loss = max( 0, 1 - beta * [ (log pi(chosen) - log ref(chosen))
                              - (log pi(rejected) - log ref(rejected)) ] )

A support vector machine where DPO is a logistic regression: a pair that is told apart by a margin
of 1 / beta nats has no gradient any more. SLiC compares log-probabilities as they are; measured
against the reference (Liu et al. 2023, Statistical Rejection Sampling, section 3.3) the loss
differs from DPO's in its shape alone. What SLiC adds beside it, the loss of good answers
themselves, is the setting `nll`.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor


def hinge_loss(
    chosen: Float[Tensor, " pairs"],
    rejected: Float[Tensor, " pairs"],
    reference_chosen: Float[Tensor, " pairs"],
    reference_rejected: Float[Tensor, " pairs"],
    beta: float,
) -> tuple[Float[Tensor, " pairs"], Float[Tensor, " pairs"]]:
    """Each pair's loss, and its margin of implicit rewards, from log-probabilities in nats."""
    margin = beta * ((chosen - reference_chosen) - (rejected - reference_rejected))
    return (1 - margin).relu(), margin
