"""Where the part of 2.2 enters the product: He's initialization of `nn`."""

from contextlib import AbstractContextManager
from types import ModuleType

import numpy as np

from groundup.learn.exercise import replaced
from groundup.maths import Tensor
from groundup.nn import init
from groundup.nn.init import Mode, Nonlinearity

USED_BY = (
    "nn.init.kaiming_normal_ and kaiming_uniform_ for ReLU: groundup experiment initialization"
)


def swap(part: ModuleType) -> AbstractContextManager[None]:
    """The part gives the initial standard deviation of weights before a ReLU."""
    whole = init._kaiming_std

    def std(tensor: Tensor, a: float, mode: Mode, nonlinearity: Nonlinearity) -> float:
        if mode != "fan_in" or nonlinearity != "relu":
            return whole(tensor, a, mode, nonlinearity)
        fan_in, _ = init._fans(tensor)
        return float(part.he_std(fan_in))

    return replaced(init, "_kaiming_std", std)


def try_it() -> list[float]:
    """The first weights of a layer with He's initialization."""
    weight = init.kaiming_normal_(Tensor(np.empty((4, 8))), nonlinearity="relu", rng=0)
    found: list[float] = weight.data[0].tolist()
    return found
