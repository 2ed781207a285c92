"""Deep and wide graphs, and a thousand steps, each in a separate Python process."""

from __future__ import annotations

import gc
import sys
import tracemalloc
import weakref

import numpy as np
import pytest

from groundup.maths import Tensor, grad, no_grad
from unchecked import run_unchecked

DEEP = 200_000


def a_deep_graph_is_walked():
    x = Tensor(1.0)
    y = x
    for _ in range(DEEP // 2):
        y = y * 1.0 + 0.0
    y.backward()
    assert x.grad == 1


def a_deep_graph_is_dropped_unused():
    y = Tensor(1.0)
    for _ in range(DEEP // 2):
        y = (-y).sin()
    tip = weakref.ref(y)
    del y
    assert tip() is None


def a_deep_graph_of_gradients():
    x = Tensor(1.0)
    y = x
    for _ in range(10_000):
        y = y * x
    (first,) = grad(y, x, create_graph=True)
    (second,) = grad(first, x)
    assert first == 10_001 and second == 10_001 * 10_000


def a_wide_graph_is_walked():
    x = Tensor(2.0)
    sum(x * float(i) for i in range(DEEP // 2)).backward()
    assert x.grad == sum(range(DEEP // 2))


def intermediate_gradients_are_freed():
    x = Tensor(np.ones(250_000))
    y = x
    for _ in range(20):
        y = y * 1.01
    y = y.sum()
    tracemalloc.start()
    grad(y, x)
    assert tracemalloc.get_traced_memory()[1] < 8 * x.data.nbytes


def a_thousand_steps_do_not_leak():
    rng = np.random.default_rng(0)
    x, y = Tensor(rng.normal(size=(8, 4)), False), Tensor(rng.normal(size=(8, 1)), False)
    weights = [Tensor(rng.normal(size=shape) / 2) for shape in ((4, 8), (8,), (8, 1), (1,))]

    def step() -> float:
        a, b, c, d = weights
        loss = ((((x @ a + b).tanh() @ c + d) - y) ** 2).mean()
        loss.backward()
        with no_grad():
            for w in weights:
                w -= 0.1 * w.grad
                w.grad = None
        return loss.item()

    first = step()
    for _ in range(1000):  # until Python's own reserves of small tuples are full
        step()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for _ in range(1000):
        last = step()
    grown = tracemalloc.get_traced_memory()[0] - before
    assert grown < 20_000, grown  # a tensor a step would take 400,000
    assert last < first / 5


@pytest.mark.every(2)
@pytest.mark.parametrize(
    "check",
    [
        a_deep_graph_is_walked,
        a_deep_graph_is_dropped_unused,
        a_deep_graph_of_gradients,
        a_wide_graph_is_walked,
        intermediate_gradients_are_freed,
        a_thousand_steps_do_not_leak,
    ],
)
def test_works_without_recursion_and_without_garbage_collection(check):
    run_unchecked(__file__, check.__name__)


if __name__ == "__main__":
    gc.disable()  # objects are freed by reference counting alone
    globals()[sys.argv[1]]()
