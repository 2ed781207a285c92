"""Where the part of 2.8 enters the product: the layers of `nn.RNN`."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import numpy as np

from groundup.learn.exercise import replaced
from groundup.maths import Tensor
from groundup.nn import recurrent
from groundup.nn.recurrent import RNN

USED_BY = "nn.RNN and nn.RNNCell: the recurrent rung of groundup experiment ladder"


@contextmanager
def swap(part: ModuleType) -> Iterator[None]:
    """The part reads a sequence, layer by layer; LSTM and GRU stay the product's."""

    def layer(self: RNN, number: int, x: Tensor, state: tuple[Tensor, ...]) -> Any:
        weights = [
            getattr(self, f"{name}_l{number}")
            for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        ]
        states = part.rnn(x, state[0], *weights)
        return states, (states[-1],)

    with replaced(RNN, "_layer", layer), replaced(recurrent, "rnn_step", part.step):
        yield


def try_it() -> list[float]:
    """The last state of a small network."""
    x = Tensor(np.linspace(-1, 1, 12, dtype=np.float32).reshape(2, 2, 3))
    _, last = RNN(3, 2, batch_first=True, rng=0)(x)
    found: list[float] = last.data.ravel().tolist()
    return found
