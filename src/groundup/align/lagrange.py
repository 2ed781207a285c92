"""A reward under a constraint: harmlessness is not weighed against helpfulness but required.

Safe RLHF (Dai et al. 2023, section 3.3) asks for the most reward J_R that a policy can have while
what it costs stays within a limit d, which is a game of two players (equation 9):

    max over theta, min over lambda >= 0     J_R(theta) - lambda (J_C(theta) - d)

The policy follows the advantages of both, in one step (appendix B.3, equations 28 to 30):

    A = (A_r - lambda A_c) / (1 + lambda)

and the multiplier is the price of a unit of cost. It rises as long as the limit is exceeded and
falls where there is room, and its logarithm is what moves, so that it stays above 0 (equation 31):

    ln lambda  <-  ln lambda + alpha lambda (J_C - d)

Nobody has to find the weight of harm against use: a limit is said, and the weight is found. With
a fixed weight a policy that is already safe still pays for it, and one that is not may yet find
harm worth its price.

The price of nats stands in the reward alone, so that what is solved is the most J_R less nats under
the limit, in which a nat costs the same reward whatever lambda is. (The paper gives half of it to
the cost, where it grows with lambda.)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

# With the cost above its limit lambda grows ever faster; beyond this the reward has less than a
# tenth of the say already, and the way back would be long. Near 0 it could not rise again in time.
_MOST, _LEAST = 10.0, 1e-2


@dataclass
class Multiplier:
    """The price of a unit of cost: `value` is lambda, `limit` is d, `rate` is alpha."""

    value: float
    limit: float
    rate: float

    def update(self, cost: float) -> None:
        """Raise it if the mean cost of an iteration's answers is above the limit, else lower it.

        It stays from 0.01 to 10.
        """
        log = math.log(self.value) + self.rate * self.value * (cost - self.limit)
        self.value = math.exp(min(max(log, math.log(_LEAST)), math.log(_MOST)))

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
