"""Every operation against torch: value, gradients, second gradients and forward mode.

`OPERATIONS` says of each how to draw a call of it, over shapes (no elements, one, no dimensions),
broadcasts, dimensions counted from either end, ties, and views whose memory is not in order.
"""

from __future__ import annotations

import operator
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from groundup.maths import (
    ShapeError,
    Tensor,
    cat,
    einsum,
    gelu,
    grad,
    maximum,
    minimum,
    no_grad,
    silu,
    stack,
    where,
)
from groundup.maths.forward import jvp
from torch_oracle import OURS, THEIRS, Formula, agree, same

inf, nan = float("inf"), float("nan")


@dataclass(frozen=True)
class Call:
    """A formula and its arguments."""

    formula: Formula
    arrays: tuple[np.ndarray, ...]


def shapes(low: int = 0, high: int = 3, side: int = 0) -> st.SearchStrategy[tuple[int, ...]]:
    return hnp.array_shapes(min_dims=low, max_dims=high, min_side=side, max_side=4)


@st.composite
def numbers(draw: Any, shape: Any, positive: bool = False) -> np.ndarray:
    """Random numbers, or multiples of a half with many ties and zeros."""
    shape = draw(shape) if isinstance(shape, st.SearchStrategy) else shape
    rng = np.random.default_rng(draw(st.integers(0, 999)))
    ties = rng.integers(-2, 3, size=shape) / 2
    array = draw(st.sampled_from([rng.normal(size=shape) * 2, ties]))
    return np.asarray(np.abs(array) + 0.25 if positive else array)


def method(name: str, *arguments: Any, **settings: Any) -> Formula:
    return lambda _, x: getattr(x, name)(*arguments, **settings)


def elementwise(formula: Formula, positive: bool = False) -> st.SearchStrategy[Call]:
    return numbers(shapes(), positive).map(lambda x: Call(formula, (x,)))


def broadcastable(draw: Any, count: int = 2, side: int = 0) -> list[tuple[int, ...]]:
    """Shapes that broadcast."""
    drawn = hnp.mutually_broadcastable_shapes(
        num_shapes=count, max_dims=3, min_side=side, max_side=3
    )
    return list(draw(drawn).input_shapes)


@st.composite
def of_two(
    draw: Any, formula: Formula, first_positive: bool = False, second_positive: bool = False
) -> Call:
    one, two = broadcastable(draw)
    arrays = draw(numbers(one, first_positive)), draw(numbers(two, second_positive))
    return Call(formula, arrays)


def without_zero_powers(call: Call) -> Call:
    """Where torch's second derivatives are correct."""
    base, exponent = call.arrays
    return Call(call.formula, (base, np.where(exponent == 0, 1.0, exponent)))


@st.composite
def power_of_number(draw: Any) -> Call:
    exponent = draw(st.sampled_from([-2, -1, -0.5, 0, 0.0, 0.5, 1, 1.5, 2, 3, 4.0]))
    whole_and_up = exponent == int(exponent) and exponent >= 0
    x = draw(numbers(shapes(), positive=not whole_and_up))
    return Call(lambda _, x: x**exponent, (x,))


@st.composite
def clipped(draw: Any, name: str) -> Call:
    low, high = draw(st.sampled_from([(None, 0.5), (-0.5, None), (-0.5, 0.5), (0.0, 0.0)]))
    x = draw(numbers(shapes()))
    # At a bound the derivative is another one in torch 2.15.
    bounds = [bound for bound in (low, high) if bound is not None]
    return Call(method(name, min=low, max=high), (np.where(np.isin(x, bounds), x + 0.1, x),))


@st.composite
def reduced(draw: Any, name: str, side: int = 0, several: bool = True, least: int = 0) -> Call:
    shape = draw(shapes(low=least, side=side))
    ndim = len(shape)
    one = st.integers(-ndim, ndim - 1) if ndim else st.sampled_from([0, -1])
    dims = [one]
    if several:
        subset = st.lists(st.integers(0, max(ndim - 1, 0)), unique=True, max_size=ndim)
        dims += [st.none(), subset.map(lambda ds: [d - ndim * (d % 2) for d in ds])]
    dim = draw(st.one_of(dims))
    if name == "logsumexp" and (dim is None or dim == []):
        dim = list(range(ndim))  # torch takes no None here, and its forward mode no []
    keepdim = draw(st.booleans())
    if name in ("max", "min"):
        formula = lambda _, x: getattr(x, name)(dim, keepdim).values  # noqa: E731
    elif name in ("softmax", "log_softmax", "cumsum"):
        formula = method(name, dim)
    else:
        formula = method(name, dim, keepdim=keepdim)
    return Call(formula, (draw(numbers(shape)),))


@st.composite
def spread(draw: Any, name: str) -> Call:
    """Variance and deviation, of at least two elements each."""
    shape = draw(shapes(low=1, side=2))
    dim = draw(st.sampled_from([None, 0, -1, list(range(len(shape)))]))
    settings = draw(st.sampled_from([{}, {"unbiased": False}, {"correction": 0}]))
    keepdim = {"keepdim": draw(st.booleans())} if dim is not None else {}
    # Where a deviation is 0, its second derivative is undefined, so it is not tested.
    x = np.random.default_rng(draw(st.integers(0, 999))).normal(size=shape)
    if dim is None and "unbiased" in settings:
        settings = {"correction": 0}
    return Call(method(name, dim, **settings, **keepdim), (x,))


@st.composite
def reshaped(draw: Any, name: str) -> Call:
    x = draw(numbers(shapes(side=1)))
    sizes = draw(st.permutations([*x.shape, 1]))
    if draw(st.booleans()):
        sizes[draw(st.integers(0, len(sizes) - 1))] = -1
    arguments = (sizes,) if draw(st.booleans()) else tuple(sizes)
    return Call(lambda _, x: getattr(x, name)(*arguments), (x,))


@st.composite
def flattened(draw: Any) -> Call:
    x = draw(numbers(shapes(low=1)))
    start = draw(st.integers(0, x.ndim - 1))
    end = draw(st.integers(start, x.ndim - 1))
    return Call(method("flatten", start - x.ndim * draw(st.booleans()), end), (x,))


@st.composite
def with_dims(draw: Any, name: str) -> Call:
    """unsqueeze, squeeze, transpose, permute, flip and roll."""
    x = draw(numbers(shapes(low=0 if name == "unsqueeze" else 1)))
    n = x.ndim
    place = st.integers(-n, n - 1)
    arguments: tuple[Any, ...]
    if name == "unsqueeze":
        arguments = (draw(st.integers(-n - 1, n)),)
    elif name == "squeeze":
        arguments = draw(st.one_of(st.just(()), place.map(lambda d: (d,))))
    elif name == "transpose":
        arguments = (draw(place), draw(place))
    elif name == "permute":
        order = draw(st.permutations(range(n)))
        arguments = tuple(d - n * draw(st.booleans()) for d in order)
    elif name == "flip":
        arguments = tuple(draw(st.lists(st.integers(0, n - 1), unique=True, min_size=1)))
    else:
        arguments = (draw(st.integers(-5, 5)), draw(place))
    return Call(method(name, *arguments), (x,))


@st.composite
def expanded(draw: Any) -> Call:
    x = draw(numbers(shapes()))
    sizes = [draw(st.sampled_from([-1, n] if n != 1 else [-1, 1, 3, 0])) for n in x.shape]
    new = draw(st.lists(st.integers(0, 3), max_size=2))
    return Call(method("expand", (*new, *sizes)), (x,))


@st.composite
def repeated(draw: Any) -> Call:
    x = draw(numbers(shapes()))
    times = draw(st.lists(st.integers(0, 3), min_size=x.ndim, max_size=x.ndim + 1))
    return Call(method("repeat", times), (x,))


@st.composite
def triangle(draw: Any, name: str) -> Call:
    return Call(method(name, draw(st.integers(-3, 3))), (draw(numbers(shapes(low=2))),))


@st.composite
def indexed(draw: Any) -> Call:
    """Numbers, slices, new dimensions, and at most one array of indices or booleans."""
    shape = draw(shapes(low=1, side=1))
    parts: list[Any] = []
    array = draw(st.sampled_from([None, *range(len(shape))]))
    for d, n in enumerate(shape):
        if d == array and draw(st.booleans()):
            parts.append(np.array(draw(st.lists(st.booleans(), min_size=n, max_size=n)), bool))
        elif d == array:
            places = hnp.arrays(np.int64, shapes(low=1, high=2), elements=st.integers(-n, n - 1))
            parts.append(draw(places))
        elif draw(st.booleans()):
            parts.append(draw(st.integers(-n, n - 1)))
        else:
            start, stop = draw(st.integers(-n, n)), draw(st.integers(-n, n))
            parts.append(slice(start, stop, draw(st.integers(1, 2))))
    if draw(st.booleans()):
        parts[draw(st.integers(0, len(parts) - 1)) :] = [...]
    if draw(st.booleans()):
        parts.insert(draw(st.integers(0, len(parts))), None)
    return Call(partial(_index, parts=parts), (draw(numbers(shape)),))


@st.composite
def indexed_together(draw: Any) -> Call:
    """Several index arrays side by side, which broadcast."""
    shape = draw(shapes(low=2, side=1))
    sides = broadcastable(draw, count=len(shape))
    parts = [
        np.array(draw(hnp.arrays(np.int64, side, elements=st.integers(-n, n - 1))))
        for n, side in zip(shape, sides, strict=True)
    ]
    return Call(partial(_index, parts=parts[: draw(st.integers(1, 3))]), (draw(numbers(shape)),))


def _index(engine: Any, x: Any, parts: list[Any]) -> Any:
    return x[tuple(engine.constant(p) if isinstance(p, np.ndarray) else p for p in parts)]


@st.composite
def gathered(draw: Any) -> Call:
    shape = draw(shapes(low=1, side=1))
    dim = draw(st.integers(-len(shape), len(shape) - 1))
    lengths = [draw(st.integers(0, n)) for n in shape]
    lengths[dim] = draw(st.integers(0, 5))
    places = draw(hnp.arrays(np.int64, lengths, elements=st.integers(0, shape[dim] - 1)))
    return Call(lambda on, x: x.gather(dim, on.constant(places)), (draw(numbers(shape)),))


@st.composite
def chosen(draw: Any) -> Call:
    one, two, three = broadcastable(draw, count=3)
    truth = draw(hnp.arrays(np.bool_, three))
    arrays = draw(numbers(one)), draw(numbers(two))
    return Call(lambda on, a, b: on.where(on.constant(truth), a, b), arrays)


@st.composite
def filled(draw: Any) -> Call:
    shape, other = broadcastable(draw)
    mask = draw(hnp.arrays(np.bool_, other))
    value = draw(st.sampled_from([-inf, 0.0, 1.5]))
    x = draw(numbers(np.broadcast_shapes(shape, other)))
    return Call(lambda on, x: x.masked_fill(on.constant(mask), value), (x,))


@st.composite
def joined(draw: Any) -> Call:
    shape = draw(shapes(low=1))
    dim = draw(st.integers(0, len(shape) - 1))
    lengths = draw(st.lists(st.integers(0, 3), min_size=1, max_size=4))
    arrays = tuple(draw(numbers((*shape[:dim], length, *shape[dim + 1 :]))) for length in lengths)
    at = dim - len(shape) * draw(st.booleans())
    return Call(lambda on, *xs: on.cat(xs, at), arrays)


@st.composite
def stacked(draw: Any) -> Call:
    shape = draw(shapes(high=2))
    dim = draw(st.integers(-len(shape) - 1, len(shape)))
    count = draw(st.integers(1, 3))
    return Call(
        lambda on, *xs: on.stack(xs, dim), tuple(draw(numbers(shape)) for _ in range(count))
    )


@st.composite
def multiplied(draw: Any) -> Call:
    """Vectors, matrices and broadcast stacks of them."""
    drawn = hnp.mutually_broadcastable_shapes(
        signature="(n?,k),(k,m?)->(n?,m?)", max_dims=2, min_side=0, max_side=3
    )
    one, two = draw(drawn).input_shapes
    return Call(lambda _, a, b: a @ b, (draw(numbers(one)), draw(numbers(two))))


TO_NUMBER = ("sum", "mean", "max", "min", "amax", "amin")
SMOOTH = ("exp", "expm1", "tanh", "sigmoid", "erf", "sin", "cos", "square")
OF_POSITIVE = ("log", "log1p", "sqrt", "rsqrt", "reciprocal")

OPERATIONS: dict[str, st.SearchStrategy[Call]] = {
    **{name: elementwise(method(name)) for name in (*SMOOTH, "relu", "abs")},
    **{name: elementwise(method(name), positive=True) for name in OF_POSITIVE},
    "silu": elementwise(lambda on, x: on.silu(x)),
    "gelu": elementwise(lambda on, x: on.gelu(x)),
    "gelu by tanh": elementwise(lambda on, x: on.gelu(x, approximate="tanh")),
    "clip": clipped("clip"),
    "clamp": clipped("clamp"),
    "-": elementwise(lambda _, x: -x),
    "+ -": of_two(lambda _, a, b: a + b - b * 2),
    "*": of_two(lambda _, a, b: a * b),
    "/": of_two(lambda _, a, b: a / b, second_positive=True),
    "**": of_two(lambda on, a, b: on.power(a, b), first_positive=True),
    "** number": power_of_number(),
    "number **": elementwise(lambda _, x: 1.5**x),
    "pow": of_two(lambda _, a, b: a.pow(b), first_positive=True).map(without_zero_powers),
    "reflected": elementwise(lambda _, x: (2 - x) * (1 + x) / 3 + 2.5 / x, positive=True),
    "maximum": of_two(lambda on, a, b: on.maximum(a, b)),
    "minimum": of_two(lambda on, a, b: on.minimum(a, b)),
    "logaddexp": of_two(lambda _, a, b: a.logaddexp(b)),
    "@": multiplied(),
    "matmul": multiplied().map(lambda call: Call(lambda _, a, b: a.matmul(b), call.arrays)),
    **{name: reduced(name) for name in ("sum", "logsumexp")},
    **{name: reduced(name, side=1) for name in ("mean", "amax", "amin")},
    **{name: reduced(name, side=1, several=False) for name in ("max", "min")},
    **{name: reduced(name, several=False) for name in ("softmax", "log_softmax", "cumsum")},
    **{f"{name} of all": numbers(shapes(side=1)).map(
        lambda x, name=name: Call(method(name), (x,))) for name in TO_NUMBER},
    "var": spread("var"),
    "std": spread("std"),
    "reshape": reshaped("reshape"),
    "view": reshaped("view"),
    "flatten": flattened(),
    **{
        name: with_dims(name)
        for name in ("unsqueeze", "squeeze", "transpose", "permute", "flip", "roll")
    },
    "T": numbers(shapes(low=2, high=2)).map(lambda x: Call(lambda _, x: x.T @ x.mT.T, (x,))),
    "mT": numbers(shapes(low=2)).map(lambda x: Call(lambda _, x: x.mT * 2, (x,))),
    "expand": expanded(),
    "repeat": repeated(),
    "tril": triangle("tril"),
    "triu": triangle("triu"),
    "clone": elementwise(method("clone")),
    "index": indexed(),
    "index by arrays": indexed_together(),
    "gather": gathered(),
    "where": chosen(),
    "masked_fill": filled(),
    "cat": joined(),
    "stack": stacked(),
}  # fmt: skip


@pytest.mark.parametrize("name", OPERATIONS)
@settings(max_examples=12)
@given(data=st.data())
def test_operation(name: str, data: Any):
    call = data.draw(OPERATIONS[name])
    agree(call.formula, call.arrays)


@pytest.mark.long
@pytest.mark.parametrize("name", OPERATIONS)
@settings(max_examples=300)
@given(data=st.data())
def test_operation_on_large_inputs(name: str, data: Any):
    call = data.draw(OPERATIONS[name])
    agree(call.formula, call.arrays)


@pytest.mark.parametrize("name", OPERATIONS)
@settings(max_examples=4)
@given(data=st.data())
def test_operation_on_noncontiguous_views(name: str, data: Any):
    """The inputs are transposes, or every other element of a larger array."""
    call = data.draw(OPERATIONS[name])

    def of_views(engine: Any, *stored: Any) -> Any:
        views = [x.permute(*reversed(range(x.ndim)))[..., ::2] if x.ndim else x for x in stored]
        return call.formula(engine, *views)

    agree(of_views, [np.repeat(a, 2, axis=-1).T.copy() if a.ndim else a for a in call.arrays])


@pytest.mark.parametrize("name", OPERATIONS)
@settings(max_examples=3)
@given(data=st.data())
def test_float32_stays_float32(name: str, data: Any):
    """In value, gradients and tangent: `agree` compares the dtypes too."""
    call = data.draw(OPERATIONS[name])
    agree(call.formula, [a.astype(np.float32) for a in call.arrays], tolerance=2e-5)


# Edges where the numbers are not finite, or huge


EDGES = [-inf, -1e308, -800.0, -1.0, -1e-320, -0.0, 0.0, 1e-320, 1.0, 800.0, 1e308, inf, nan]
# Torch returns NaN or 0 where ours is better: gelu(inf) = inf, and d|x| at NaN is NaN.
SMOOTH_AT_EDGES = ("exp", "expm1", "tanh", "sigmoid", "erf", "relu", "square", "log", "sqrt")


def first_order(formula: Formula, x: np.ndarray) -> None:
    agree(formula, [x], second=False)


@pytest.mark.parametrize("name", SMOOTH_AT_EDGES)
def test_edge_cases_elementwise(name: str):
    x, t = Tensor(EDGES), torch.tensor(EDGES, dtype=torch.float64, requires_grad=True)
    y, z = getattr(x, name)(), getattr(t, name)()
    same(y, z, "value")
    y.sum().backward()
    z.sum().backward()
    same(x.grad, t.grad, "gradient")


@pytest.mark.parametrize("name", ["sum", "mean", "amax", "amin", "logsumexp", "flip"])
def test_tolist_of_a_number_has_one_dimension(name: str):
    for dims in ((0,), [-1], ()):
        agree(method(name, dims), [np.array(2.0)])
    if name != "flip":
        agree(method(name, (0,), keepdim=True), [np.array(2.0)])
    for wrong in ((1,), (-2,), (0, -1), (0, 0)):
        with pytest.raises(ShapeError, match="dimension"):
            getattr(Tensor(2.0), name)(wrong)


@pytest.mark.parametrize("name", ["all", "any", "var", "std"])
@pytest.mark.filterwarnings("ignore:.*degrees of freedom")
def test_tolist_of_a_number_has_one_dimension_without_gradients(name: str):
    for number in (2.0, 0.0):
        found = getattr(Tensor(number), name)((0,))
        same(found, getattr(torch.tensor(number).double(), name)((0,)), name)
    with pytest.raises(ShapeError, match="dimension"):
        getattr(Tensor(2.0), name)((0, -1))


def test_a_transposed_number_is_a_view():
    x = Tensor(2.0)
    with no_grad():
        x.transpose(0, -1).zero_()
    assert x.item() == 0 and x._version == 1
    for wrong in ((0, 1), (-2, 0)):
        with pytest.raises(ShapeError, match="dimension"):
            x.transpose(*wrong)


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
@pytest.mark.parametrize("dim", [(), [], (0,), (0, 1), None, 1.0], ids=str)
def test_a_softmax_is_taken_along_one_dimension(name: str, dim: Any):
    with pytest.raises(TypeError, match=f"{name} is taken along one dimension, a whole number"):
        getattr(Tensor(np.ones((2, 2))), name)(dim)
    whole = Tensor(np.ones((2, 4)))
    assert (getattr(whole, name)(np.int64(1)).data == getattr(whole, name)(-1).data).all()


@pytest.mark.parametrize("name", ["softmax", "log_softmax", "logsumexp"])
def test_normalizations_of_integers_equal_those_of_floats(name: str):
    whole = Tensor(np.array([[1, 2, 3], [-4, 0, 5]]))
    expected = getattr(torch.tensor(whole.tolist(), dtype=torch.float64), name)(-1)
    np.testing.assert_allclose(getattr(whole, name)(-1).data, expected.numpy(), rtol=1e-12)


@pytest.mark.parametrize("name", ["softmax", "log_softmax", "logsumexp"])
@pytest.mark.parametrize(
    "row",
    [
        [1000.0, 0.0, -1000.0],
        [1e308, -1e308, 0.0],
        [-inf, 0.0, 1.0],
        [-inf, -inf, 3.0],
        [-inf, -inf, -inf],
        [nan, 0.0, 1.0],
        [5.0, 5.0, 5.0],
    ],
    ids=str,
)
def test_edge_cases_of_normalizations(name: str, row: list[float]):
    """Includes a fully masked row, which is NaN in torch too."""
    first_order(method(name, -1), np.array([row, [0.0, 1.0, 2.0]]))


def test_logsumexp_of_infinity_is_infinity():
    assert Tensor([inf, 1.0, -inf]).logsumexp(0).item() == inf
    first_order(method("logsumexp", -1), np.array([[inf, 1.0], [inf, -inf]]))


@pytest.mark.parametrize("name", ["amax", "max", "amin", "min"])
def test_extremes_of_nan_are_nan(name: str):
    formula = method(name, -1)
    pick = (lambda on, x: formula(on, x).values) if name in ("max", "min") else formula
    first_order(pick, np.array([[1.0, nan, 2.0], [3.0, 1.0, 3.0]]))
    first_order(method(name), np.array([[1.0, nan, 2.0], [nan, 1.0, 3.0]]))


@pytest.mark.parametrize(
    "formula",
    [
        lambda on, x: x.relu().sqrt(),
        lambda on, x: (x + 0.5).clip(0.0, 2.0).sqrt(),
        lambda on, x: on.maximum(x, on.where(on.constant(True), x * 0, x)).sqrt(),
        lambda on, x: on.where(on.constant(np.array([0, 0, 1, 1]) > 0), x, x * 0 + 4).log(),
        lambda on, x: x.masked_fill(on.constant(np.array([1, 1, 0, 0]) > 0), 1.0).log(),
        lambda on, x: (x * 0).std(),
    ],
    ids=["relu", "clip", "maximum", "where", "masked_fill", "std"],
)
def test_cut_off_elements_get_no_gradient(formula: Formula):
    """0 times an infinite slope is 0, as in torch, and not NaN."""
    x, t = Tensor([-4.0, 0.0, 1.0, 4.0]), torch.tensor([-4.0, 0.0, 1.0, 4.0]).double()
    t.requires_grad_()
    formula(OURS, x).sum().backward()
    formula(THEIRS, t).sum().backward()
    same(x.grad, t.grad, "gradient")


def test_an_element_at_a_bound_has_a_gradient():
    x = Tensor([-0.6, -0.5, 0.0, 1.0, 1.1])
    x.clip(-0.5, 1.0).sum().backward()
    assert x.grad.tolist() == [0.0, 1.0, 1.0, 1.0, 0.0]


def test_powers_of_zero():
    for exponent in (0.0, 1.0, 2.0, 0, 1, 2, 3, 0.5):
        first_order(lambda _, x, p=exponent: x**p, np.array([0.0, 2.0]))
    bases, exponents = np.array([0.0, 0.0, 2.0, 0.0]), np.array([0.0, 2.0, 0.0, 1.0])
    agree(lambda _, a, b: a**b, [bases, exponents], second=False)
    agree(lambda _, p: 0.0**p, [np.array([0.0, 1.0, 2.0])], second=False)


def test_a_power_of_0_has_symmetric_second_derivatives():
    """∂²(a^p)/∂a∂p = 1/a at p = 0, in either order and in every mode."""
    a, p = Tensor([2.0, 0.5, 0.0]), Tensor([0.0, 0.0, 0.0])

    def by_base(power: Tensor) -> Tensor:
        return grad((a**power).sum(), a, create_graph=True)[0]

    def by_power(base: Tensor) -> Tensor:
        return grad((base**p).sum(), p, create_graph=True)[0]

    assert by_base(p).tolist() == [0, 0, 0]
    mixed = grad(by_base(p).sum(), p, create_graph=True)[0]
    assert mixed.tolist() == grad(by_power(a).sum(), a)[0].tolist() == [0.5, 2, 0]
    one = [np.ones(3)]
    assert jvp(by_base, [p], one)[1].tolist() == jvp(by_power, [a], one)[1].tolist() == [0.5, 2, 0]
    # ∂³/∂a∂p² = 2 log(a) / a, and ∂³/∂a²∂p = -1/a².
    third = grad(mixed.sum(), [p, a])
    np.testing.assert_allclose(third[0].data, [np.log(2), -4 * np.log(2), 0])
    np.testing.assert_allclose(third[1].data, [-0.25, -4, 0])


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
def test_zeroth_power_of_the_smallest_and_largest_bases(dtype: Any):
    tiny = np.finfo(dtype).smallest_subnormal
    a = Tensor(np.array([0.0, tiny, -tiny, inf, nan], dtype))
    p = Tensor(np.zeros(5, dtype))
    by_base = grad((a**p).sum(), a, create_graph=True)[0]
    assert by_base.tolist() == [0] * 5 and by_base.dtype == dtype
    for second in grad(by_base.sum(), [a, p]):
        assert second.tolist() == [0] * 5 and second.dtype == dtype


@pytest.mark.parametrize("name", ["sum", "mean", "logsumexp", "var", "softmax"])
@pytest.mark.filterwarnings("ignore:.*degrees of freedom")
def test_empty_inputs(name: str):
    for shape, dim in (((0,), 0), ((2, 0), 1), ((0, 3), 1), ((2, 0), -2)):
        x, t = Tensor(np.ones(shape)), torch.ones(shape, dtype=torch.float64)
        same(getattr(x, name)(dim), getattr(t, name)(dim), f"{name} of {shape} over {dim}")


@pytest.mark.parametrize("name", ["sum", "mean", "amax", "amin", "softmax", "cumsum", "flip"])
@pytest.mark.parametrize("dim", [0, -1])
def test_a_number_has_one_dimension_to_name(name: str, dim: int):
    agree(method(name, dim), [np.array(2.0)])
    agree(method("transpose", dim, 0), [np.array(2.0)])
    agree(lambda _, x: x.max(dim).values, [np.array(2.0)])
    agree(lambda on, x: x.gather(dim, on.constant(0)), [np.array(2.0)])


# Kinds of numbers


@pytest.mark.parametrize("kind", [np.int64, np.int32, np.uint8, np.bool_])
@pytest.mark.parametrize("by", [operator.add, operator.mul, operator.sub, operator.truediv])
def test_integers_and_booleans_combined_with_a_tensor(kind: Any, by: Callable[..., Any]):
    x, other = np.array([0.5, -2.0, 3.0]), np.array([1, 1, 1]).astype(kind)

    def constant(engine: Any) -> Any:
        return Tensor(other) if engine is OURS else engine.constant(other)

    if not (kind is np.bool_ and by is operator.sub):  # torch has no difference of truth values
        agree(lambda on, x: by(x, constant(on)), [x])
        agree(lambda on, x: by(constant(on), x), [x])
    np.testing.assert_array_equal(by(other, Tensor(x)).data, by(other.astype(float), x))
    np.testing.assert_array_equal(by(Tensor(x), other).data, by(x, other.astype(float)))


def test_reductions_of_integers_and_booleans():
    whole, truth = Tensor(np.array([[3, 0], [5, 1]], np.uint8)), Tensor(np.array([True, False]))
    assert whole.amin().item() == 0 and whole.amax().item() == 5
    assert minimum(whole, 2).tolist() == [[2, 0], [2, 1]]
    assert whole.min(1).values.tolist() == [0, 1] and whole.min(1).indices.tolist() == [1, 1]
    assert truth.sum().item() == 1 and not truth.requires_grad and not truth.amin().item()
    assert (Tensor(np.array([7, 8])) / 2).tolist() == [3.5, 4]
    assert whole.to(np.float64).requires_grad is False


def test_numpy_scalars_keep_float32():
    x = Tensor(np.array([1.0, 2.0], np.float32))
    two = np.float64(2)
    results = [x + two, two * x, x**two, two**x, x / np.float32(2), x - np.int64(2)]
    results += [maximum(x, two), where(x > 1, x, two), x.clip(two, None), x.masked_fill(x > 1, two)]
    assert {r.dtype for r in results} == {np.dtype(np.float32)}
    (total,) = grad(sum(r.sum() for r in results), x)
    assert total.dtype == np.float32


def test_conversions_pass_gradients_between_floats_only():
    x = Tensor([1.5, -2.5])
    x.float().double().sum().backward()
    assert x.grad.dtype == np.float64 and x.grad.tolist() == [1, 1]
    assert x.float().dtype == np.float32 and x.to(np.float64) is x
    assert x.long().tolist() == [1, -2] and not x.long().requires_grad
    assert not Tensor([nan, 1e300]).long().requires_grad  # without a warning


# Indices


def test_repeated_indices_accumulate():
    weight = np.arange(12.0).reshape(4, 3)
    for index in (
        np.array([1, 1, -1, 3, 1]),
        np.array([[0, 2], [2, -4]]),
        [0, 0, 2],
        ([0, 0, 2], [1, 1, 0]),
        (slice(None), [0, 0, 2]),
        (slice(None), (0, 0, 2)),
        (np.array([[0], [1]]), np.array([[0, 0, 1]])),
    ):
        agree(lambda on, x, index=index: x[index] * x[index], [weight])


@pytest.mark.parametrize("kind", [np.uint8, np.int8, np.uint16, np.int32, np.uint64])
def test_indices_of_small_integer_types(kind: Any):
    """Many models use bytes as tokens, and the index 256 does not fit into a byte."""
    table = Tensor(np.zeros((256, 2)))
    table[np.array([97, 98, 97], kind)].sum().backward()
    assert table.grad.data[97].tolist() == [2, 2] and table.grad.data.sum() == 6


def test_indices_may_be_tensors_ranges_and_empty():
    x = Tensor(np.arange(6.0).reshape(3, 2))
    assert x[Tensor(np.array([2, 0]))].tolist() == [[4, 5], [0, 1]]
    assert x[range(2)].tolist() == x[[0, 1]].tolist() == x[:2].tolist()
    assert x[[]].shape == (0, 2) and x[np.zeros((0, 3), int)].shape == (0, 3, 2)
    assert x[x > 2].tolist() == [3, 4, 5] and x[[True, False, True]].shape == (2, 2)
    assert x[x > 9].sum().item() == 0
    assert x[..., None, 0].shape == (3, 1) and x[()].shape == (3, 2) and x[1, -1].item() == 3


@pytest.mark.parametrize(
    "index",
    [
        (0, slice(None), [0, 1]), ([0, 1], slice(None), 2), (slice(None), 1, slice(None), [3, 0]),
        (1, ..., [3, 0, 0]), (..., [0, 1], slice(1), -1), (None, 0, slice(None), [0, 1]),
        (0, None, slice(1, None), [0, 1]), ([[0], [1]], 0, [[0, 1]]), (0, [1, 2], slice(None), 4),
        (1, slice(None), [True, False, False, True]), (0, [[True] * 4, [False] * 4, [True] * 4]),
        (0, slice(None), slice(None), [1, 1, 1]), (0, slice(None), []),
    ],
    ids=str,
)  # fmt: skip
def test_integers_with_arrays_select_first(index: tuple[Any, ...]):
    array = np.arange(120.0).reshape(2, 3, 4, 5)
    parts = [np.array(part, int) if part == [] else part for part in index]
    parts = [np.array(part) if isinstance(part, list) else part for part in parts]
    formula = partial(_index, parts=parts)
    agree(lambda on, x: formula(on, x) ** 2, [array])
    arrays = [part for part in parts if isinstance(part, np.ndarray)]
    if all(part.dtype == bool or len(np.unique(part)) == part.size for part in arrays):
        ours, theirs = Tensor(array, requires_grad=False), torch.tensor(array)
        shape = formula(THEIRS, theirs).shape
        new = -1 - np.arange(np.prod(shape)).reshape(shape)
        ours[tuple(parts)] = new
        constants = [torch.tensor(p) if isinstance(p, np.ndarray) else p for p in parts]
        theirs[tuple(constants)] = torch.tensor(new).double()
        same(ours, theirs, "written")


def test_an_integer_index_may_be_a_tensor_or_a_numpy_scalar():
    x = Tensor(np.arange(1.0, 25.0).reshape(2, 3, 4))
    one = Tensor(np.array(1))
    for first in (one, np.int64(1), np.array(1)):
        assert x[first, :, [0, 1]].tolist() == x[1][:, [0, 1]].tolist()
    with pytest.raises(IndexError):
        x[2, :, [0, 1]]
    with pytest.raises(IndexError):
        x[0, :, [0, 1], 0]
    with no_grad():
        x[one, :, [0, 1]] = np.zeros((3, 2))
    assert x[0].data.all() and not x[1, :, :2].data.any() and x[1, :, 2:].data.all()


def test_an_index_is_copied():
    x, places, mask = Tensor([1.0, 2.0]), np.array([0, 0]), Tensor(np.array([True, False]))
    total = x[places].sum() + 10 * x.masked_fill(mask, 0.0).sum()
    total = total + 100 * x.gather(0, places).sum()
    places[:] = 1
    mask.copy_(np.array([False, True]))
    total.backward()
    assert x.grad.tolist() == [202, 10]


def test_ties_select_the_first():
    x = Tensor([[1.0, 3.0, 3.0], [0.0, 0.0, 0.0]])
    assert x.max(1).indices.tolist() == [1, 0] and x.min(-1).indices.tolist() == [0, 0]
    values, indices = x.max(1, keepdim=True)
    assert values.shape == indices.shape == (2, 1)
    assert x.argmax().item() == 1 and x.argmin(1).tolist() == [0, 0]


@pytest.mark.parametrize("index", [[[-1]], [[3]], [[0, -100]], [[7], [1]]], ids=str)
@pytest.mark.parametrize("dim", [1, -1])
def test_gather_accepts_indices_from_0_to_the_size(index: list[list[int]], dim: int):
    """Otherwise a label of -100 would count from the end."""
    with pytest.raises(RuntimeError, match="is out of bounds") as theirs:
        torch.ones(2, 3).gather(dim, torch.tensor(index))
    with pytest.raises(IndexError) as ours:
        Tensor(np.ones((2, 3))).gather(dim, np.array(index))
    assert str(ours.value) == str(theirs.value)


def test_accepts_torchs_keywords():
    x = np.arange(6.0).reshape(2, 3)
    agree(lambda _, x: x.flip(dims=(0, 1)) * x.flip(dims=[1]), [x])
    agree(lambda _, x: x.permute(dims=(1, 0)) * x.permute(dims=[-1, 0]), [x])
    with pytest.raises(TypeError):
        Tensor(x).flip(0, dims=(1,))


@pytest.mark.parametrize("name", ["all", "any"])
@pytest.mark.parametrize("dim", [None, 0, -1, (0, 1), [0], (), []], ids=str)
@pytest.mark.parametrize("keepdim", [False, True])
def test_any_and_all_along_dimensions(name: str, dim: Any, keepdim: bool):
    x = np.array([[1.0, 0.0, 2.0], [nan, 0.0, 0.0]])
    ours, theirs = Tensor(x), torch.tensor(x)
    same(
        getattr(ours, name)(dim=dim, keepdim=keepdim),
        getattr(theirs, name)(dim=dim, keepdim=keepdim),
        name,
    )


@pytest.mark.parametrize("dim", [(), [], (0, 2), [1], (-1, 1)], ids=str)
def test_squeezing_several_dimensions_or_none(dim: Any):
    agree(method("squeeze", dim), [np.ones((1, 2, 1))])


# Rejected input.


def ones(*shape: int) -> Tensor:
    return Tensor(np.ones(shape))


@pytest.mark.parametrize(
    ("wrong", "parts"),
    [
        (lambda: ones(2, 3) + ones(4, 3), ["(2, 3)", "(4, 3)"]),
        (lambda: ones(2) * ones(3), ["(2,)", "(3,)"]),
        (lambda: ones(2) ** ones(3), ["(2,)", "(3,)"]),
        (lambda: ones(2) < ones(3), ["(2,)", "(3,)"]),
        (lambda: ones(2) == ones(3), ["(2,)", "(3,)"]),
        (lambda: maximum(ones(2), ones(3)), ["(2,)", "(3,)"]),
        (lambda: where(np.ones(2, bool), ones(2), ones(3)), ["(2,)", "(3,)"]),
        (lambda: ones(2, 3) @ ones(2, 3), ["(2, 3)", "(2, 3)"]),
        (lambda: ones(5, 2, 3) @ ones(4, 3, 2), ["(5, 2, 3)", "(4, 3, 2)"]),
        (lambda: ones(3) @ ones(4), ["(3,)", "(4,)"]),
        (lambda: ones(3) @ Tensor(1.0), ["(3,)", "()"]),
        (lambda: ones(2, 3).reshape(4), ["(2, 3)", "(4,)"]),
        (lambda: ones(2, 3).expand(4, 3), ["(2,3)", "(4,3)"]),
        (lambda: ones(2, 3).expand(3), ["(2, 3)"]),
        (lambda: ones(2, 3).repeat(3), ["(2, 3)", "(3,)"]),
        (lambda: ones(2, 3).sum(2), ["(2, 3)", "axis 2"]),
        (lambda: ones(2, 3).softmax(-3), ["(2, 3)", "axis -3"]),
        (lambda: ones(2, 3).flatten(5), ["dimension 5"]),
        (lambda: ones(2, 3).unsqueeze(4), ["dimension 4"]),
        (lambda: ones(2, 3).squeeze(-3), ["dimension -3"]),
        (lambda: ones(2, 3).transpose(0, 2), ["(2, 3)"]),
        (lambda: ones(2, 3).permute(0), ["(2, 3)"]),
        (lambda: ones(3).tril(), ["(3,)"]),
        (lambda: ones(2, 3).gather(1, np.array([0])), ["(1,)", "(2, 3)"]),
        (lambda: ones(2, 3).gather(2, np.array([[0]])), ["dimension 2"]),
        (lambda: ones(0, 3).amax(0), ["(0, 3)"]),
        (lambda: ones(0, 3).max(0), ["(0, 3)"]),
        (lambda: ones(3, 0).min(1), ["(3, 0)"]),
        (lambda: ones(0).argmax(), ["(0,)"]),
        (lambda: ones(2, 3).argmin(2), ["(2, 3)", "axis 2"]),
        (lambda: ones(2, 3).max(-3), ["(2, 3)", "axis -3"]),
        (lambda: ones(2, 3).all(2), ["(2, 3)", "axis 2"]),
        (lambda: cat([ones(2, 3), ones(3, 2)]), ["(2, 3)", "(3, 2)"]),
        (lambda: cat([ones(2, 3), ones(3)], 1), ["(2, 3)", "(3,)"]),
        (lambda: cat([ones(2, 3), ones(2, 3)], 2), ["(2, 3)"]),
        (lambda: cat([Tensor(1.0), ones(3)]), ["()", "(3,)"]),
        (lambda: cat([]), ["at least one"]),
        (lambda: stack([ones(2), ones(3)]), ["2", "3"]),
        (lambda: einsum("ij,jk->ik", ones(2, 3), ones(4, 5)), ["(2, 3)", "(4, 5)", "'j'"]),
    ],
)
def test_shapes_that_do_not_fit_are_named(wrong: Callable[[], Any], parts: list[str]):
    with pytest.raises(ShapeError) as caught:
        wrong()
    assert isinstance(caught.value, ValueError)
    for part in parts:
        assert part in str(caught.value)


@pytest.mark.parametrize("name", ["max", "min"])
@pytest.mark.parametrize("other", [ones(2, 3), (0, 1), 0.5], ids=["tensor", "dims", "number"])
def test_an_extreme_is_along_one_dimension(name: str, other: Any):
    with pytest.raises(TypeError, match=f"{name}imum compares two tensors"):
        getattr(ones(2, 3), name)(other)


def test_numpy_functions_that_would_lose_the_gradient_are_rejected():
    for function in (np.exp, np.maximum.reduce, np.tanh):
        with pytest.raises(TypeError):
            function(ones(2))
    x = ones(2)
    for lost, ours in (
        (lambda: np.concatenate([x, x]), "groundup.maths.cat"),
        (lambda: np.where([True, False], x, x), "groundup.maths.where"),
        (lambda: np.dot(x, x), "@"),
        (lambda: np.sum(x), "tensor.sum"),
    ):
        with pytest.raises(TypeError, match=f"would lose the gradient; use {ours}"):
            lost()
    with no_grad():
        assert np.concatenate([x, x]).tolist() == [1, 1, 1, 1]
    assert np.concatenate([x.detach(), np.zeros(1)]).tolist() == [1, 1, 0]
    assert np.shape(x) == (2,) and np.allclose(x, 1.0)


def test_sums_of_powers_are_exact_where_one_is_much_larger():
    x = Tensor(np.array([-30.0, 0.0, 30.0, np.inf]))
    y = x.logaddexp(0.0)
    assert y.tolist() == pytest.approx([np.log1p(np.exp(-30)), np.log(2), 30, np.inf], rel=1e-15)
    (g,) = grad(y.sum(), x)
    assert g.tolist() == pytest.approx([np.exp(-30), 0.5, 1, 1])


@pytest.mark.parametrize("name", [*SMOOTH[:-1], *OF_POSITIVE, "softmax", "logsumexp", "logaddexp"])
@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int32, bool])
def test_functions_of_integers_equal_those_of_floats(name: str, dtype: type):
    values = np.array([1, 20, 3], dtype)
    rest = {"softmax": (0,), "logsumexp": (0,)}.get(name, ())
    truth = torch.tensor(values.astype(float))
    if name == "logaddexp":
        same(Tensor(values).logaddexp(Tensor(values)), truth.logaddexp(truth), name)
    else:
        same(getattr(Tensor(values), name)(*rest), getattr(truth, name)(*rest), name)


@pytest.mark.parametrize("kind", [np.float16, np.float32])
def test_overflow_gives_infinity_without_a_warning(kind: type):
    x, most = Tensor(np.array([1.0, -1.0], kind)), np.finfo(float).max
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert (x * most).tolist() == (x * 10**39).tolist() == [inf, -inf]
        assert x.masked_fill(x > 0, np.finfo(float).min).tolist() == [-inf, -1]
        assert x.clip(-most, 0.5).tolist() == [0.5, -1] and (x < most).all()
        assert where(x > 0, x, -most).tolist() == [1, -inf]
        assert x.new_tensor([most, 0]).tolist() == [inf, 0]
        assert jvp(lambda x: x * 1, x, np.array([most, 0]))[1].tolist() == [inf, 0]
        x.data = np.array([most, 2.0])
    assert x.tolist() == [inf, 2] and x.dtype == (x * most).dtype == kind


@pytest.mark.parametrize("name", ["mean", "var", "std"])
def test_averages_of_float16_do_not_overflow(name: str):
    ones, steps = np.ones(70_000, np.float16), np.linspace(-600, 600, 9, dtype=np.float16)
    for array in (ones, steps, steps.reshape(3, 3)):
        x, t = Tensor(array), torch.tensor(array, requires_grad=True)
        y, z = getattr(x, name)(-1), getattr(t, name)(-1)
        same(y, z, "value", 1e-3)
        y.sum().backward()
        z.sum().backward()
        if array is not ones or name != "std":  # whose derivative at 0 is NaN in torch
            same(x.grad, t.grad, "gradient", 1e-3)


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.int64])
def test_integers_keep_their_dtype_with_python_numbers(dtype: type):
    x = Tensor(np.array([1, 2], dtype))
    assert (x + 2).dtype == (2 * x).dtype == x.clamp(0, 1).dtype == dtype
    assert (x + 2**40).tolist() == [1 + 2**40, 2 + 2**40] and (x + 0.5).dtype == np.float64


def test_flatten_rejects_an_end_before_the_start():
    with pytest.raises(ShapeError, match="start_dim=1 comes after end_dim=0"):
        Tensor(np.ones((2, 3))).flatten(1, 0)


@pytest.mark.parametrize("approximate", ["none", "tanh"])
def test_gelu_of_float16_has_torchs_gradient_in_the_tails(approximate: Any):
    array = np.array([-6e4, -1000, -300, -3, 0, 3, 300, 1000, 6e4], np.float16)
    x, t = Tensor(array), torch.tensor(array, requires_grad=True)
    y, z = gelu(x, approximate), torch.nn.functional.gelu(t, approximate=approximate)
    same(y, z, "value", 1e-3)
    y.sum().backward()
    z.sum().backward()
    same(x.grad, t.grad, "gradient", 1e-3)


def test_gelu_has_two_forms():
    with pytest.raises(ValueError, match="approximate='foo' must be 'none' or 'tanh'"):
        gelu(ones(2), "foo")


# Functions as well as methods.


def test_functions_accept_numbers_and_arrays_with_tensors():
    x = Tensor([-1.0, 2.0])
    assert maximum(x, 0).tolist() == [0, 2] and minimum(x, np.array([0.0, 5.0])).tolist() == [-1, 2]
    assert where(x > 0, x, 0.0).tolist() == [0, 2] and where(x.data > 0, 0.0, x).tolist() == [-1, 0]
    assert where([True, False], 1, 2).tolist() == [1, 2]
    assert silu(x).tolist() == (x * x.sigmoid()).tolist()
    assert gelu(x).data == pytest.approx(gelu(x, "tanh").data, abs=1e-3)


def test_constructors_follow_the_tensor():
    x = Tensor(np.ones((2, 3), np.float32))
    assert x.new_ones(2, 3).tolist() == x.new_ones((2, 3)).tolist() == np.ones((2, 3)).tolist()
    assert x.new_zeros(4).dtype == x.new_tensor([1, 2]).dtype == np.float32
    assert x.new_ones(2, dtype=bool).dtype == bool
    assert not any(made.requires_grad for made in (x.new_ones(1), x.new_zeros(1), x.new_tensor(1)))


@pytest.mark.parametrize("name", ["sum", "softmax", "index"])
def test_forward_and_reverse_mode_agree_with_each_other(name: str):
    """g · (J t) = (g J) · t; both are compared with torch above."""
    rng = np.random.default_rng(0)
    x, t = Tensor(rng.normal(size=(3, 4))), rng.normal(size=(3, 4))
    function = {
        "sum": lambda x: x.sum(0), "softmax": lambda x: x.softmax(1), "index": lambda x: x[[0, 0]]
    }[name]  # fmt: skip
    y, moved = jvp(function, [x], [t])
    g = rng.normal(size=y.shape)
    (pulled,) = grad(y, x, g)
    assert (g * moved.data).sum() == pytest.approx((pulled.data * t).sum(), rel=1e-12)
