"""A reward under a constraint: harmlessness is required, not weighed against helpfulness.

Safe RLHF (Dai et al. 2023, section 3.3) maximizes a policy's reward J_R while its cost J_C stays
within a limit d, which is a game of two players (equation 9):

    max over theta, min over lambda >= 0     J_R(theta) - lambda (J_C(theta) - d)

The policy follows the advantages of both, in one step (appendix B.3, equations 28 to 30):

    A = (A_r - lambda A_c) / (1 + lambda)

The multiplier is the weight of a unit of cost. It rises while the limit is exceeded and falls
otherwise. Its logarithm is updated, so that it stays above 0 (equation 31):

    ln lambda  <-  ln lambda + alpha lambda (J_C - d)

Nobody has to find the weight of harm against use: the limit is given, and the weight is found. With
a fixed weight, a policy that is already safe still pays for it, and an unsafe one may still find
harm worth its penalty.

The KL penalty is part of the reward only. So the policy maximizes J_R minus nats under the limit,
and a nat costs the same reward whatever lambda is. (The paper gives half of it to the cost, where
it grows with lambda.)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

# While the cost exceeds its limit, lambda grows ever faster. At the upper bound the reward has less
# than a tenth of the weight, and the way back is long. Near 0 lambda could not rise again in time.
_MAX, _MIN = 10.0, 1e-2


@dataclass
class Multiplier:
    """The weight of a unit of cost: `value` is lambda, `limit` is d, `rate` is alpha."""

    value: float
    limit: float
    rate: float

    def update(self, cost: float) -> None:
        """Raise it if the mean cost of an iteration's answers exceeds the limit, else lower it.

        It stays between 0.01 and 10.
        """
        log = math.log(self.value) + self.rate * self.value * (cost - self.limit)
        self.value = math.exp(min(max(log, math.log(_MIN)), math.log(_MAX)))

    def combined(
        self,
        advantages: Sequence[Float[np.ndarray, " _"]],
        cost_advantages: Sequence[Float[np.ndarray, " _"]],
    ) -> list[Float[np.ndarray, " _"]]:
        """(A_r - lambda A_c) / (1 + lambda) of every answer's tokens."""
        return [
            (reward - self.value * cost) / (1 + self.value)
            for reward, cost in zip(advantages, cost_advantages, strict=True)
        ]
