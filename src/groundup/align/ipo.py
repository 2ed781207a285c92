"""Identity preference optimization (Azar et al. 2023, A General Theoretical Paradigm, equation 17).

    loss = ( h - 1 / (2 beta) )^2
    h    = (log pi(chosen) - log ref(chosen)) - (log pi(rejected) - log ref(rejected))

DPO's loss falls for ever as the margin grows: where a preference is certain, its price on leaving
the reference is worth nothing, and it overfits. Here the margin has a goal, and going past it costs
as much as falling short. The paper's tau is `beta`.

Log-probabilities are means over an answer's tokens, as the authors advise beside the paper: of sums
long answers would need a smaller step of each token than short ones.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor


def ipo_loss(
    chosen: Float[Tensor, " pairs"],
    rejected: Float[Tensor, " pairs"],
    reference_chosen: Float[Tensor, " pairs"],
    reference_rejected: Float[Tensor, " pairs"],
    beta: float,
) -> tuple[Float[Tensor, " pairs"], Float[Tensor, " pairs"]]:
    """Each pair's loss, and its margin of implicit rewards, from mean log-probabilities in nats."""
    gained = (chosen - reference_chosen) - (rejected - reference_rejected)
    return (gained - 1 / (2 * beta)) ** 2, beta * gained
