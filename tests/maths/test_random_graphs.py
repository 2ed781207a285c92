"""Random expression graphs, the same on both engines: values and all derivatives are torch's.

A graph is a program: leaves, and steps that each apply an operation to earlier values. It is drawn
while torch runs it, so that shapes fit and numbers stay tame, and an operation with a kink is only
taken where no input is near it: on which side of a kink a rounding error falls is nobody's fault.
(Ties that are exact are in `test_ops`.)
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.maths import Tensor, grad
from groundup.maths.forward import jvp
from torch_oracle import OURS, THEIRS, same
from unchecked import run_unchecked

LARGEST = 6.0  # beyond it a value is brought back by tanh
NEAR = 1e-5
CELLS = 200


@dataclass(frozen=True)
class Step:
    """`does` is applied to the values at `places`; `says` describes it in failures."""

    says: str
    does: Callable[..., Any] = field(repr=False)
    places: tuple[int, ...]


@dataclass(frozen=True)
class Program:
    leaves: tuple[np.ndarray, ...] = field(repr=False)
    steps: tuple[Step, ...]

    def run(self, engine: Any, leaves: list[Any]) -> list[Any]:
        """All values, the leaves first."""
        values = list(leaves)
        for step in self.steps:
            values.append(step.does(engine, *(values[place] for place in step.places)))
        return values

    def result(self, engine: Any, leaves: list[Any]) -> Any:
        """One number that depends on everything."""
        values = self.run(engine, leaves)
        return sum((v * (0.5 + i % 3)).sum() / max(v.numel(), 1) for i, v in enumerate(values))


# The kinds of steps. Each draws its settings for values x (and y), given as torch tensors, and
# returns its description and function; None if it does not apply.

Drawn = tuple[str, Callable[..., Any]] | None

SMOOTH: dict[str, Callable[[Any], Any]] = {
    "tanh": lambda x: x.tanh(),
    "sigmoid": lambda x: x.sigmoid(),
    "erf": lambda x: x.erf(),
    "sin": lambda x: x.sin(),
    "cos": lambda x: x.cos(),
    "exp": lambda x: (x * 0.25).exp(),
    "expm1": lambda x: (x * 0.25).expm1(),
    "log": lambda x: (x * x + 0.5).log(),
    "log1p": lambda x: (x * x).log1p(),
    "sqrt": lambda x: (x * x + 0.5).sqrt(),
    "rsqrt": lambda x: (x * x + 0.5).rsqrt(),
    "reciprocal": lambda x: (x * x + 0.5).reciprocal(),
    "square": lambda x: x.square() * 0.25,
    "cube": lambda x: 0.1 * x**3,
    "power": lambda x: (x * x + 0.5) ** -0.75,
    "numbers": lambda x: (3 - x) / 2 - (1 + x) * 0.5,
    "neg": lambda x: -x,
    "clone": lambda x: x.clone(),
}


def smooth(draw: Any, x: Any) -> Drawn:
    name = draw(st.sampled_from(sorted(SMOOTH)))
    return name, lambda on, x: SMOOTH[name](x)


def functions(draw: Any, x: Any) -> Drawn:
    name = draw(st.sampled_from(["silu", "gelu"]))
    return name, lambda on, x: getattr(on, name)(x)


def kinked(draw: Any, x: Any) -> Drawn:
    name, *kinks = draw(st.sampled_from([("relu", 0.0), ("abs", 0.0), ("clip", -0.5, 0.5)]))
    if any(((x - kink).abs() < NEAR).any() for kink in kinks):
        return None
    bounds = kinks if name == "clip" else []
    return name, lambda on, x: getattr(x, name)(*bounds)


def of_two(draw: Any, x: Any, y: Any) -> Drawn:
    try:
        torch.broadcast_shapes(x.shape, y.shape)
    except RuntimeError:
        return None
    name = draw(st.sampled_from(["+", "-", "*", "/", "**", "maximum", "minimum", "where"]))
    if name in ("maximum", "minimum", "where") and ((x - y).abs() < NEAR).any():
        return None
    return name, {
        "+": lambda on, x, y: x + y,
        "-": lambda on, x, y: x - y,
        "*": lambda on, x, y: x * y,
        "/": lambda on, x, y: x / (y * y + 0.5),
        "**": lambda on, x, y: on.power(x * x + 0.5, y * 0.5),
        "maximum": lambda on, x, y: on.maximum(x, y),
        "minimum": lambda on, x, y: on.minimum(x, y),
        "where": lambda on, x, y: on.where(x > y, x * 2, y),
    }[name]


def product(draw: Any, x: Any, y: Any) -> Drawn:
    """`x @ y`, or with y transposed, or as an einsum."""
    if not x.ndim or not y.ndim:
        return None
    if y.ndim > 1 and draw(st.booleans()):
        turned, does = y.mT, lambda on, x, y: x @ y.mT
    else:
        turned, does = y, lambda on, x, y: x @ y
    if x.shape[-1] == turned.shape[-2 if turned.ndim > 1 else 0]:
        try:
            torch.broadcast_shapes(x.shape[:-2], turned.shape[:-2])
        except RuntimeError:
            return None
        return "@", does
    if x.ndim <= 2 and y.ndim <= 2:
        equation = f"{'ab'[: x.ndim]},{'cd'[: y.ndim]}->{'ac'}"
        return equation, lambda on, x, y: on.einsum(equation, x, y) * 0.5
    return None


def reduction(draw: Any, x: Any) -> Drawn:
    if not x.ndim:
        return None
    dim = draw(st.integers(-x.ndim, x.ndim - 1))
    keepdim = draw(st.booleans())
    names = ["sum", "mean", "logsumexp", "amax", "amin", "max"]
    name = draw(st.sampled_from([*names, "var"] if x.shape[dim] > 1 else names))
    if name in ("amax", "amin", "max") and x.shape[dim] > 1:
        ordered = x.sort(dim).values
        if (ordered.diff(dim=dim) < NEAR).any():
            return None
    if name == "max":
        return f"max {dim}", lambda on, x: x.max(dim, keepdim).values
    return f"{name} {dim}", lambda on, x: getattr(x, name)(dim, keepdim=keepdim)


def along(draw: Any, x: Any) -> Drawn:
    if not x.ndim:
        return None
    dim = draw(st.integers(-x.ndim, x.ndim - 1))
    shift = draw(st.integers(-2, 2))
    name = draw(st.sampled_from(["softmax", "log_softmax", "cumsum", "flip", "roll"]))
    arguments = (shift, dim) if name == "roll" else (dim,)
    return f"{name} {arguments}", lambda on, x: getattr(x, name)(*arguments)


def moved(draw: Any, x: Any) -> Drawn:
    order = draw(st.permutations(range(x.ndim)))
    place = draw(st.integers(-x.ndim - 1, x.ndim))
    name = draw(st.sampled_from(["permute", "unsqueeze", "reshape", "flatten", "squeeze"]))
    arguments = {
        "permute": (order,),
        "unsqueeze": (place,),
        "reshape": (*[x.shape[d] for d in order[1:]], -1),
        "flatten": (),
        "squeeze": (),
    }[name]
    return f"{name} {arguments}", lambda on, x: getattr(x, name)(*arguments)


def repeated(draw: Any, x: Any) -> Drawn:
    times = draw(st.lists(st.integers(1, 2), min_size=max(x.ndim, 1), max_size=x.ndim + 1))
    if draw(st.booleans()):
        return f"repeat {times}", lambda on, x: x.repeat(*times)
    sizes = (times[0], *(3 if n == 1 else -1 for n in x.shape))
    return f"expand {sizes}", lambda on, x: x.expand(*sizes)


def places(draw: Any, x: Any) -> Drawn:
    if not x.ndim or not x.shape[0]:
        return None
    n = x.shape[0]
    index = np.array(draw(st.lists(st.integers(-n, n - 1), min_size=1, max_size=4)))
    start, name = (
        draw(st.integers(0, n - 1)),
        draw(st.sampled_from(["[i]", "[a:]", "[[]]", "gather"])),
    )
    if name == "gather":
        whole = np.broadcast_to(
            (index % n).reshape(-1, *[1] * (x.ndim - 1)), (len(index), *x.shape[1:])
        )
        return "gather", lambda on, x: x.gather(0, on.constant(np.array(whole)))
    return f"{name} {start} {index}", {
        "[i]": lambda on, x: x[start],
        "[a:]": lambda on, x: x[start:],
        "[[]]": lambda on, x: x[on.constant(index)],
    }[name]


def masked(draw: Any, x: Any) -> Drawn:
    name = draw(st.sampled_from(["tril", "triu", "masked_fill"]))
    if name == "masked_fill":
        mask = np.random.default_rng(draw(st.integers(0, 99))).random(x.shape) < 0.3
        return name, lambda on, x: x.masked_fill(on.constant(mask), 0.7)
    diagonal = draw(st.integers(-1, 1))
    return (name, lambda on, x: getattr(x, name)(diagonal)) if x.ndim > 1 else None


def joined(draw: Any, x: Any, y: Any) -> Drawn:
    if x.ndim != y.ndim:
        return None
    if x.shape == y.shape:
        dim = draw(st.integers(-x.ndim - 1, x.ndim))
        return f"stack {dim}", lambda on, x, y: on.stack([x, y], dim)
    unequal = [d for d in range(x.ndim) if x.shape[d] != y.shape[d]]
    if len(unequal) == 1:
        return f"cat {unequal[0]}", lambda on, x, y: on.cat([x, y, x], unequal[0])
    return None


OF_ONE = (smooth, functions, kinked, reduction, along, moved, repeated, places, masked)
OF_TWO = (of_two, product, joined)


@st.composite
def programs(draw: Any, most: int = 30) -> Program:
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    shapes = draw(st.lists(st.sampled_from([(), (1,), (3,), (2, 3), (3, 3), (3, 1), (2, 1, 3)]),
                           min_size=1, max_size=4))  # fmt: skip
    leaves = tuple(np.asarray(rng.normal(size=shape)) for shape in shapes)
    values = [torch.tensor(leaf) for leaf in leaves]
    steps: list[Step] = []

    def take(says: str, does: Callable[..., Any], *at: int) -> None:
        steps.append(Step(says, does, at))
        values.append(does(THEIRS, *(values[i] for i in at)))

    wanted = draw(st.integers(1, most))
    while len(steps) < wanted:
        kind = draw(st.sampled_from([*OF_ONE, *OF_TWO, of_two, product]))
        recent = st.integers(max(0, len(values) - 6), len(values) - 1)
        at = [draw(recent)] + ([draw(st.integers(0, len(values) - 1))] if kind in OF_TWO else [])
        drawn = kind(draw, *(values[i] for i in at)) or ("tanh", lambda on, x, *_: x.tanh())
        take(*drawn, *at)
        last = len(values) - 1
        if values[last].numel() > CELLS:
            take("sum 0", lambda on, x: x.sum(0), last)
        if values[-1].numel() and values[-1].abs().max() > LARGEST:
            take("tanh", lambda on, x: x.tanh(), len(values) - 1)
    return Program(leaves, tuple(steps))


def check(program: Program) -> None:
    """Values, all gradients, the Hessian-vector product, and the two forward modes."""
    ours = [Tensor(leaf) for leaf in program.leaves]
    theirs = [torch.tensor(leaf, requires_grad=True) for leaf in program.leaves]
    ours_run, theirs_run = program.run(OURS, ours), program.run(THEIRS, theirs)
    for i, pair in enumerate(zip(ours_run, theirs_run, strict=True)):
        same(*pair, f"value {i}")

    rng = np.random.default_rng(0)
    directions = [rng.normal(size=leaf.shape) for leaf in program.leaves]
    moves = tuple(torch.tensor(t) for t in directions)
    y, z = program.result(OURS, ours), program.result(THEIRS, theirs)
    found = grad(y, ours, create_graph=True)
    truth = torch.autograd.grad(z, theirs, create_graph=True)
    slope = sum((g * t).sum() for g, t in zip(found, directions, strict=True))
    true_slope = sum((g * t).sum() for g, t in zip(truth, moves, strict=True))
    for i, pair in enumerate(zip(found, truth, strict=True)):
        same(*pair, f"gradient {i}", 1e-9)

    moved = jvp(lambda *xs: program.result(OURS, list(xs)), ours, directions)[1]
    same(moved, true_slope, "tangent", 1e-9)

    def gradients(*xs: Tensor) -> tuple[Tensor, ...]:
        return grad(program.result(OURS, list(xs)), xs, create_graph=True)

    curved = [torch.zeros_like(t) for t in theirs]
    if true_slope.requires_grad:
        curved = torch.autograd.grad(true_slope, theirs, retain_graph=True, materialize_grads=True)
    forward_over_reverse = jvp(gradients, ours, directions)[1]
    reverse_over_reverse = forward_over_reverse
    if slope.requires_grad:
        reverse_over_reverse = grad(slope, ours, retain_graph=True)
    for i, true in enumerate(curved):
        same(reverse_over_reverse[i], true, f"Hessian times vector {i}", 1e-8)
        same(forward_over_reverse[i], true, f"forward over reverse {i}", 1e-8)

    y.backward()
    z.backward()
    for i, (x, t) in enumerate(zip(ours, theirs, strict=True)):
        same(x.grad, t.grad, f".grad {i}", 1e-9)


@pytest.mark.long
def test_random_graphs():
    run_unchecked(__file__, "100")


@pytest.mark.long
def test_many_random_graphs():
    run_unchecked(__file__, "2000")


if __name__ == "__main__":
    torch.set_num_threads(1)
    how = settings(max_examples=int(sys.argv[1]), derandomize=True, deadline=None, print_blob=False)
    how(given(programs())(check))()
