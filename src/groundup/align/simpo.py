"""Simple preference optimization (Meng et al. 2024, SimPO, equation 6).

    loss = - log sigmoid( beta / |chosen|   * log pi(chosen)
                        - beta / |rejected| * log pi(rejected) - gamma )

The reward is what generation goes by, the mean log-probability of an answer's tokens: no reference
is needed, and a long answer has no advantage. Where no reference holds the model back, `gamma` asks
for a margin between the rewards, and a small learning rate has to do the rest.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid


def simpo_loss(
    chosen: Float[Tensor, " pairs"], rejected: Float[Tensor, " pairs"], beta: float, gamma: float
) -> tuple[Float[Tensor, " pairs"], Float[Tensor, " pairs"]]:
    """Each pair's loss, and its margin of rewards, from mean log-probabilities in nats."""
    margin = beta * (chosen - rejected)
    return -logsigmoid(margin - gamma), margin
