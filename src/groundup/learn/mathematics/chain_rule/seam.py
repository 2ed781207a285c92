"""Where the part of 1.2 enters the product: the sweep in every `Tensor.backward`."""

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from types import ModuleType

import numpy as np

from groundup.learn.exercise import replaced
from groundup.maths.tensor import FREED, Tensor, no_grad

USED_BY = "every loss.backward() of steps 1 and 2: all networks that groundup experiment trains"


def swap(part: ModuleType) -> AbstractContextManager[None]:
    """The part computes the gradients; sweeps for gradients of gradients stay the product's."""
    whole = Tensor.sweep

    def sweep(
        self: Tensor,
        seed: Tensor,
        *,
        inputs: Iterable[Tensor] | None = None,
        retain: bool = False,
        record: bool = False,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        if inputs is not None or record:
            yield from whole(self, seed, inputs=inputs, retain=retain, record=record)
            return
        tape = self._tape(None)
        with no_grad(), np.errstate(all="ignore"):
            found = part.backward(self, seed.detach())
        while tape:
            tensor = tape.pop()
            yield tensor, found[tensor.number].to(tensor.dtype)
            if not retain and tensor.node is not None:
                tensor.node = FREED

    return replaced(Tensor, "sweep", sweep)


def try_it() -> list[float]:
    """The gradients of a small network's loss."""
    from groundup.nn import Linear, Sequential, Tanh, mse

    model = Sequential(Linear(3, 4, rng=0), Tanh(), Linear(4, 1, rng=1))
    x = np.linspace(-1, 1, 15, dtype=np.float32).reshape(5, 3)
    mse(model(Tensor(x, requires_grad=False)), x[:, :1]).backward()
    return [float(p.grad.data.sum()) for p in model.parameters() if p.grad is not None]
