"""Trials of 1.2: gradients against those of the product's tape."""

from collections.abc import Callable, Iterator, Mapping
from types import ModuleType
from typing import Any

import numpy as np

from groundup.learn.exercise import Trial
from groundup.maths.tensor import Tensor, no_grad

Graph = Mapping[str, Tensor]
"""Tensors by name; the last is the root."""

_COUNT = "how many gradients there are in all"
_DIAMONDS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "u + u.exp()": lambda u: u + u.exp(),
    "u.exp() + u": lambda u: u.exp() + u,
    "u * (u * u)": lambda u: u * (u * u),
    "u * u.exp()": lambda u: u * u.exp(),
    "u.exp() * u": lambda u: u.exp() * u,
}


def trials(seed: int) -> Iterator[Trial]:
    """From one operation to a layer of a network, a diamond, and a chain of 1200 steps."""
    rng = np.random.default_rng(seed)
    x, w = float(rng.integers(2, 5)), float(rng.integers(5, 9))
    yield _trial("one operation", "y = x * w", _product(x, w), x=x, w=w)
    yield _trial("a chain", "y = (x * w) * (x * w)", _chain(x, w), x=x, w=w)
    yield _trial("x is used twice", "y = x * x + x", _twice(x), x=x)
    yield _trial("a diamond: u is used twice", "u = x * w;  y = u * u * u", _cube(x, w), x=x, w=w)
    yield _trial("uses of different ages", "u = 2 * x;  y = u.exp() * x + u", _ages(0.5), x=0.5)
    # Whichever side a walk follows first, in some of these it reaches u too early.
    for formula, diamond in _DIAMONDS.items():
        y = f"u = 2 * x;  y = {formula}"
        yield _trial("a diamond, one side longer", y, _diamond(1.0, diamond), x=1.0)
    a, b, c = rng.normal(size=(3, 2)), rng.normal(size=(2, 4)), rng.normal(size=4)
    yield _trial("a layer", "y = (a @ b + c).tanh()", _layer(a, b, c), a=a, b=b, c=c)
    yield _trial(
        "only w requires gradients", "y = (x * w) ** 2, x a constant", _constant(x, w), x=x, w=w
    )
    yield _calls(x)
    yield _trial("a chain of 1200 steps", "y = x + 1 + 1 + …", _long(x), x=x)


def _trial(about: str, formula: str, graph: Graph, **inputs: object) -> Trial:
    *_, root = graph.values()
    # Exchanged lengths of the inputs can give a factor of 3 / 2, but not 1.75.
    seed = Tensor(np.full(root.shape, 1.75 if root.ndim else 1.0), requires_grad=False)
    expected = dict(root.sweep(seed, retain=True))
    numbers = {tensor.number: gradient for tensor, gradient in expected.items()}

    def run(part: ModuleType) -> Any:
        with no_grad():
            found = part.backward(root, seed)
        named = _by_name(found, graph)
        return {**named, _COUNT: len(found)} if isinstance(found, dict) else found

    return Trial(
        about,
        run,
        {
            **{name: numbers[t.number] for name, t in graph.items() if t.number in numbers},
            # Count unnamed tensors as well: constants have no gradient.
            _COUNT: len(numbers),
        },
        {"graph": formula, **inputs, "seed": seed.data},
        rtol=1e-9,
    )


def _by_name(found: Any, graph: Graph) -> Any:
    """The part's gradients by the tensors' names."""
    if not isinstance(found, dict):
        return found
    return {
        name: found[t.number] for name, t in graph.items() if t.number in found and t.requires_grad
    }


def _product(x: float, w: float) -> Graph:
    a, b = Tensor(x), Tensor(w)
    return {"x": a, "w": b, "y": a * b}


def _chain(x: float, w: float) -> Graph:
    a, b = Tensor(x), Tensor(w)
    left, right = a * b, a * b
    return {"x": a, "w": b, "the first x * w": left, "the second": right, "y": left * right}


def _twice(x: float) -> Graph:
    a = Tensor(x)
    return {"x": a, "y": a * a + a}


def _cube(x: float, w: float) -> Graph:
    a, b = Tensor(x), Tensor(w)
    u = a * b
    return {"x": a, "w": b, "u": u, "y": u * u * u}


def _ages(x: float) -> Graph:
    a = Tensor(x)
    u = a * 2
    return {"x": a, "u": u, "y": u.exp() * a + u}


def _diamond(x: float, of: Callable[[Tensor], Tensor]) -> Graph:
    a = Tensor(x)
    u = a * 2
    return {"x": a, "u": u, "y": of(u)}


def _layer(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> Graph:
    ta, tb, tc = Tensor(a), Tensor(b), Tensor(c)
    return {"a": ta, "b": tb, "c": tc, "y": (ta @ tb + tc).tanh()}


def _constant(x: float, w: float) -> Graph:
    a, b = Tensor(x, requires_grad=False), Tensor(w)
    return {"w": b, "y": (a * b) ** 2}


def _long(x: float) -> Graph:
    a = Tensor(x)
    y = a
    for _ in range(1200):
        y = y + 1.0
    return {"x": a, "y": y}


def _calls(x: float) -> Trial:
    """Each rule is called once, however many paths lead through its tensor."""
    calls = 0

    def counted(rule: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
        def asked(g: Tensor, y: Tensor) -> Tensor:
            nonlocal calls
            calls += 1
            return rule(g, y)

        return asked

    a = Tensor(x)
    y = a
    for _ in range(10):
        y = y + y
        assert y.node is not None
        y.node.rules = tuple(counted(rule) for rule in y.node.rules if rule is not None)

    def run(part: ModuleType) -> Any:
        nonlocal calls
        calls = 0
        with no_grad():
            found = part.backward(y, Tensor(1.0, requires_grad=False))
        gradient = _by_name(found, {"x": a})
        if not isinstance(gradient, dict):
            return gradient
        return {**gradient, "calls of rules": calls}

    shown = {"graph": "y = x;  ten times y = y + y", "x": x}
    return Trial("work", run, {"x": Tensor(1024.0), "calls of rules": 20}, shown)
