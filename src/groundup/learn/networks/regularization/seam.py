"""Where the part of 2.5 enters the product: the dropout of `nn`."""

from contextlib import AbstractContextManager
from types import ModuleType

import numpy as np

from groundup.learn.exercise import replaced
from groundup.maths import Tensor
from groundup.nn.layers import Dropout

USED_BY = "nn.Dropout: the network that groundup experiment perceptron trains on digits"


def swap(part: ModuleType) -> AbstractContextManager[None]:
    """The part computes the factor of each number."""
    whole = Dropout.forward

    def forward(self: Dropout, x: Tensor) -> Tensor:
        if not self.training or not 0 < self.p < 1:
            return whole(self, x)
        u = self.rng.random(x.shape, np.float32)
        factors = part.dropout(np.ones(x.shape, x.dtype), self.p, u, True)
        return x * np.asarray(factors, dtype=x.dtype)

    return replaced(Dropout, "forward", forward)


def try_it() -> list[float]:
    """Twelve numbers after dropout."""
    x = Tensor(np.arange(12, dtype=np.float32))
    found: list[float] = Dropout(0.4, rng=0)(x).data.tolist()
    return found
