"""The tape: gradients, memory and errors."""

from __future__ import annotations

import copy
import gc
import inspect
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.maths import (
    GradientError,
    ShapeError,
    Tensor,
    cat,
    einsum,
    grad,
    no_grad,
    ops,
    where,
)
from groundup.maths.forward import jvp
from groundup.maths.tensor import is_grad_enabled, set_grad_enabled


@contextmanager
def no_collector() -> Iterator[None]:
    """Objects must be freed by reference counting alone: cycles would stay."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


# Sanity expressions in the manner of micrograd's, with torch as the truth


def a_small_expression(x: Any) -> tuple[Any, ...]:
    z = 2 * x + 2 + x
    q = z.relu() + z * x
    h = (z * z).relu()
    return (h + q + q * x,)


def every_operator(a: Any, b: Any) -> tuple[Any, ...]:
    c = a + b
    d = a * b + b**3
    c += c + 1
    c += 1 + c + (-a)
    d += d * 2 + (b + a).relu()
    d += 3 * d + (b - a).relu()
    e = c - d
    f = e**2
    g = f / 2.0
    g += 10.0 / f
    return g, f, d, c


def reflected_operators(a: Any, b: Any) -> tuple[Any, ...]:
    c = 1 - a / 2 + 3 / b
    c = c - 2**b * 0.5
    c = sum([c, a, b, 1.5])
    return c * +abs(a) - (-b), c


def a_neuron(w: Any, x: Any, b: Any) -> tuple[Any, ...]:
    n = sum((wi * xi for wi, xi in zip(w, x, strict=True)), b)
    e = (2 * n).exp()
    return (e - 1) / (e + 1), n.tanh(), 1 / (1 + (-n).exp())


@pytest.mark.parametrize(
    ("expression", "values"),
    [
        (a_small_expression, [-4.0]),
        (every_operator, [-4.0, 2.0]),
        (reflected_operators, [-4.0, 2.0]),
        (a_neuron, [[-3.0, 1.0], [2.0, 0.5], 6.8813735]),
        (a_small_expression, [[[-4.0, 2.0], [0.5, 0.0]]]),
    ],
)
def test_sanity_expressions(expression: Callable[..., tuple[Any, ...]], values: list[Any]):
    ours = [Tensor(value) for value in values]
    theirs = [torch.tensor(value, dtype=torch.float64, requires_grad=True) for value in values]
    results, truth = expression(*ours), expression(*theirs)
    for found, true in zip(results, truth, strict=True):
        assert found.data == pytest.approx(true.detach().numpy(), rel=1e-12)
    results[0].sum().backward()
    truth[0].sum().backward()
    for x, t in zip(ours, theirs, strict=True):
        assert isinstance(x.grad, Tensor) and isinstance(x.data, np.ndarray)
        assert x.grad == pytest.approx(t.grad.numpy(), rel=1e-12)


def test_the_known_answer_of_micrograd():
    """24.7041, 138.8338 and 645.5773 are from micrograd's README."""
    a, b = Tensor(-4.0), Tensor(2.0)
    g = every_operator(a, b)[0]
    g.backward()
    assert [round(float(v), 4) for v in (g, a.grad, b.grad)] == [24.7041, 138.8338, 645.5773]


def test_training_steps_equal_micrograds():
    p, q = Tensor(2.0), Tensor([1.0, -1.0])
    for _ in range(2):
        for x in (p, q):
            x.grad = 0
        loss = (p * q * q).sum()
        loss.backward()
        for x in (p, q):
            x.data += -0.1 * x.grad
    a, b = torch.tensor(2.0).double(), torch.tensor([1.0, -1.0]).double()
    for _ in range(2):
        a.requires_grad_(), b.requires_grad_()
        grads = torch.autograd.grad((a * b * b).sum(), (a, b))
        a, b = (a - 0.1 * grads[0]).detach(), (b - 0.1 * grads[1]).detach()
    assert p.item() == pytest.approx(a.item()) and q.data == pytest.approx(b.numpy())


def test_arrays_and_numpy_scalars_as_left_operands():
    t = Tensor([1.0, 2.0, 4.0])
    array = np.array([3.0, 5.0, 7.0])
    for left in (array, np.float64(3), np.float32(3), np.int64(3), [3.0, 5.0, 7.0], 3):
        for result, truth in [
            (left + t, left + t.data),
            (left - t, left - t.data),
            (left * t, left * t.data),
            (left / t, left / t.data),
            (left**t, left**t.data),
            (t**left, t.data**left),
        ]:
            assert isinstance(result, Tensor) and result.requires_grad
            np.testing.assert_allclose(result.data, truth)
    assert isinstance(array @ t, Tensor) and (array @ t).item() == array @ t.data
    (left,) = grad((array * t).sum(), t)
    assert left.tolist() == array.tolist()
    assert (array >= t).tolist() == [True, True, True] and (np.float64(2) == t).tolist()[1]


def test_a_tensor_compares_with_approx():
    t = Tensor([1.0, 2.0])
    assert t == pytest.approx(np.array([1.0, 2.0 + 1e-9])) and t == pytest.approx([1.0, 2.0])
    assert t.sum() == pytest.approx(3) and pytest.approx(3) == t.sum()
    assert t.sum() != pytest.approx(3.1)


# After backward


def test_gradients_add_up_over_uses_and_calls():
    x = Tensor(3.0)
    (x * x + x).backward()
    assert x.grad == 7
    (2 * x).backward()
    assert x.grad == 9
    x.backward()
    assert x.grad == 10


def test_only_leaves_keep_gradients_by_default():
    x = Tensor([1.0, 2.0])
    y, z = x * 3, x * x
    z.retain_grad()
    (y.sum() + z.sum() * 5).backward()
    assert y.grad is None and z.grad.tolist() == [5, 5]
    assert x.is_leaf and not y.is_leaf
    assert x.grad.tolist() == [13, 23]


def test_leaves_do_not_share_the_memory_of_a_gradient():
    a, b = Tensor([1.0, 2.0]), Tensor([3.0, 4.0])
    seed = np.ones(2)
    (a + b).backward(seed)
    a.grad.add_(10.0)
    assert b.grad.tolist() == [1, 1] and seed.tolist() == [1, 1]
    c = Tensor([0.0, 0.0])
    given = Tensor([1.0, 1.0])
    c.backward(given)
    c.grad.zero_()
    assert given.tolist() == [1, 1]


def test_gradients_are_constants_unless_create_graph_is_set():
    """This also holds if the given gradient is a tensor, which requires gradients by default."""
    x = Tensor([1.0, 2.0])
    y = x + 1
    y.retain_grad()
    y.backward(Tensor([1.0, 3.0]))
    assert not x.grad.requires_grad and x.grad.is_leaf and not y.grad.requires_grad
    (g,) = grad(x + 1, x, Tensor([1.0, 3.0]))
    assert not g.requires_grad
    (x * x).backward(Tensor([1.0, 3.0]), create_graph=True)
    assert x.grad.requires_grad


def test_gradients_have_the_shape_and_dtype_of_their_tensor():
    x, y = Tensor(np.ones((3, 1), np.float32)), Tensor(np.ones((2, 1, 4)))
    (x * y).sum().backward()
    assert x.grad.shape == (3, 1) and x.grad.dtype == np.float32
    assert y.grad.shape == (2, 1, 4) and y.grad.dtype == np.float64


def test_an_unused_input_gets_zeros():
    x, y = Tensor([1.0, 2.0]), Tensor(np.ones((2, 3), np.float32))
    to_x, to_y = grad((x * x).sum(), (x, y))
    assert to_x.tolist() == [2, 4]
    assert to_y.tolist() == np.zeros((2, 3)).tolist() and to_y.dtype == np.float32
    assert x.grad is None and y.grad is None


def test_grad_of_intermediate_values_and_of_the_output_itself():
    x = Tensor(3.0)
    y = x * x
    z = y * 2 + x
    assert [g.item() for g in grad(z, (y, x, z), retain_graph=True)] == [2, 13, 1]
    assert grad(z, y)[0] == 2  # stops there


def test_a_graph_can_be_walked_once_unless_retained():
    x = Tensor(2.0)
    y = x * x
    y.backward(retain_graph=True)
    y.backward()
    assert x.grad == 8
    for again in (y.backward, (y * 2).backward, lambda: grad(y, x)):
        with pytest.raises(GradientError, match="retain_graph"):
            again()


def test_a_leaf_of_two_graphs_outlives_both():
    x = Tensor(2.0)
    (x * x).backward()
    (x * x * x).backward()
    assert x.grad == 4 + 12


@pytest.mark.parametrize("shape", [(3,), (2, 2), (0,)])
def test_backward_starts_from_one_number_or_a_given_gradient(shape: tuple[int, ...]):
    x = Tensor(np.ones(shape))
    with pytest.raises(GradientError, match=r"has shape \("):
        (x * 2).backward()
    (x * 2).backward(np.full(shape, 3.0))
    assert x.grad.tolist() == np.full(shape, 6.0).tolist()
    with pytest.raises(ShapeError) as caught:
        (x * 2).backward(np.ones((5, 5)))
    assert "(5, 5)" in str(caught.value) and str(shape) in str(caught.value)
    one = Tensor([[4.0]])
    (one * 2).backward()  # one number in two dimensions
    assert one.grad.tolist() == [[2]]


def test_tensors_without_gradients_raise():
    constant = Tensor(3.0, requires_grad=False)
    with pytest.raises(GradientError, match="requires_grad"):
        constant.backward()
    with pytest.raises(GradientError, match="requires_grad"):
        (constant * 2).backward()
    w = Tensor(2.0)
    with pytest.raises(GradientError, match="input 1 of shape"):
        grad(w * constant, (w, constant))  # zeros would be wrong
    with pytest.raises(GradientError, match="int64"):
        Tensor(np.array([1, 2]), requires_grad=True)
    with pytest.raises(GradientError, match="int64"):
        Tensor(np.array([1, 2])).requires_grad_()
    with pytest.raises(GradientError, match="detach"):
        (w * 2).requires_grad_(False)
    assert issubclass(GradientError, RuntimeError)


def test_floating_leaves_require_gradients_by_default():
    assert Tensor(1).requires_grad and Tensor([1, 2]).dtype == np.float64
    assert Tensor(np.ones(2, np.float32)).requires_grad
    assert not Tensor(np.ones(2, int)).requires_grad and not Tensor(np.ones(2, bool)).requires_grad
    assert not Tensor(1.0, requires_grad=False).requires_grad
    assert not (Tensor(1.0) > 0).requires_grad and not Tensor([1.0]).argmax().requires_grad


def test_detach_cuts_and_shares():
    x = Tensor([1.0, 2.0])
    y = x * 3
    constant = y.detach()
    assert np.shares_memory(constant.data, y.data) and not constant.requires_grad
    (constant * x).sum().backward()
    assert x.grad.tolist() == [3, 6]
    leaf = y.detach().requires_grad_()
    (leaf * leaf).sum().backward()
    assert leaf.grad.tolist() == [6, 12]


# Recording, and not


def test_no_grad_as_block_and_decorator():
    x = Tensor(2.0)

    @no_grad()
    def squared(value: Tensor) -> Tensor:
        assert not is_grad_enabled()
        return value * value

    with no_grad():
        assert not (x * x).requires_grad
        with set_grad_enabled(True):
            assert (x * x).requires_grad
        assert not is_grad_enabled()
    assert not squared(x).requires_grad and not squared(x).requires_grad
    assert is_grad_enabled() and (x * x).requires_grad
    with pytest.raises(OverflowError, match="larger than 64 bits hold; give a float"):
        Tensor(np.array([1, 2])) + 10**30
    with pytest.raises(ZeroDivisionError), no_grad():
        raise ZeroDivisionError
    assert is_grad_enabled()


def test_backward_works_within_no_grad_as_in_torch():
    x = Tensor(3.0)
    y = x * x
    with no_grad():
        y.backward()
    assert x.grad == 6


def test_recording_is_per_thread():
    started, release = threading.Event(), threading.Event()
    seen: dict[str, Any] = {}

    def worker() -> None:
        x = Tensor(3.0)
        y = x * x
        started.set()
        release.wait()
        seen["set_grad_enabled"] = is_grad_enabled()
        y.backward()
        seen["gradient"] = x.grad.item()

    thread = threading.Thread(target=worker)
    with no_grad():
        thread.start()
        started.wait()
        release.set()
        thread.join()
    assert seen == {"set_grad_enabled": True, "gradient": 6}


def test_threads_do_not_affect_each_other():
    """Gradients and tangents of a chain, while other threads start and end theirs."""
    wrong: list[Any] = []

    def worker(number: int) -> None:
        for _ in range(20):
            x = Tensor(float(number))
            if jvp(_chain, [x], [1.0])[1].item() != 1.5**8:
                wrong.append("tangent")
            _chain(x).backward()
            if x.grad.item() != 1.5**8:
                wrong.append("gradient")

    threads = [threading.Thread(target=worker, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def _chain(x: Tensor) -> Tensor:
    for _ in range(8):
        x = x * 1.5
    return x


# Memory


def test_backward_frees_the_graph():
    with no_collector():
        x = Tensor(np.ones(5))
        hidden = (x * 2).tanh()
        watched = [weakref.ref(hidden), weakref.ref(hidden.node.parents[0])]
        loss = (hidden * hidden).sum()
        del hidden
        assert all(ref() is not None for ref in watched)
        loss.backward()  # `loss` itself is still held
        assert all(ref() is None for ref in watched)


def test_deleting_the_result_frees_the_graph():
    with no_collector():
        x = Tensor(np.ones((3, 3)))
        formulas: list[Callable[[], Tensor]] = [
            lambda: x.softmax(-1).log_softmax(0).logsumexp(1).sum(),
            lambda: einsum("ij,jk->ik", x, x.T)[0, [0, 0]].var(),
            lambda: cat([x, where(x > 0, x, x**2)]).max(0).values.sum(),
            lambda: grad((x**3).sum(), x, create_graph=True)[0].sum(),
        ]
        for formula in formulas:
            result = weakref.ref(formula())
            assert result() is None


# Changes in place


def changes(x: Tensor) -> dict[str, Callable[[], Any]]:
    """Every way to change a tensor of two numbers."""
    return {
        "copy_": lambda: x.copy_([7.0, 8.0]),
        "add_": lambda: x.add_(1.0),
        "sub_": lambda: x.sub_(1.0),
        "mul_": lambda: x.mul_(2.0),
        "div_": lambda: x.div_(2.0),
        "zero_": lambda: x.zero_(),
        "setitem": lambda: x.__setitem__(0, 9.0),
        "setitem by mask": lambda: x.__setitem__(x > 0, 9.0),
        "data": lambda: setattr(x, "data", np.array([7.0, 8.0])),
        "data +=": lambda: setattr(x, "data", x.data + 1),
        "+=": lambda: x.__iadd__(1.0),
        "view": lambda: x[:1].add_(1.0),
        "view of one": lambda: x[0].add_(1.0),
        "view by reshape": lambda: x.reshape(2, 1).T.copy_([[5.0, 6.0]]),
        "detached": lambda: x.detach().mul_(3.0),
    }


CHANGES = list(changes(Tensor([1.0, 2.0])))


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_that_would_falsify_a_gradient_raises(name: str):
    x = Tensor([1.0, 2.0])
    y = (x * x).sum()
    with no_grad():
        changes(x)[name]()
    with pytest.raises(GradientError, match=r"changed in place.*\(2,\)"):
        y.backward()
    assert x.grad is None


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_without_effect_on_gradients_is_allowed(name: str):
    """Sums, moves and multiples by numbers do not use their operands in backward."""
    x, w = Tensor([1.0, 2.0]), Tensor([[3.0], [4.0]])
    y = (x + x.flip(0) - w[1]).sum() + w.sum()
    with no_grad():
        changes(x)[name]()
    y.backward()
    assert x.grad.tolist() == [2, 2] and w.grad.tolist() == [[1], [-1]]


@pytest.mark.parametrize(
    "formula",
    [
        lambda x: x.exp(),
        lambda x: x.relu(),
        lambda x: x / 2.0 / x,
        lambda x: x**2,
        lambda x: x.softmax(0),
        lambda x: x.amax(0),
        lambda x: x.reshape(2, 1) @ x.reshape(1, 2),
        lambda x: einsum("i,i->", x, x),
        lambda x: x.clip(0.0, 1.5),
        lambda x: ops.maximum(x, 1.5),
    ],
)
def test_changed_inputs_and_results_are_detected(formula: Callable[[Tensor], Tensor]):
    for victim in ("input", "result"):
        x = Tensor([1.0, 2.0])
        y = formula(x)
        loss = y.sum()
        with no_grad():
            (x if victim == "input" else y).mul_(2.0)
        with pytest.raises(GradientError, match="changed in place"):
            loss.backward()


def test_views_share_changes_in_both_directions():
    x = Tensor(np.arange(4.0), requires_grad=False)
    w = Tensor(np.ones(2))
    view = x[1:3]
    y = (w * view).sum()
    x[1] = 10.0  # seen through the view
    assert view.tolist() == [10, 2]
    with pytest.raises(GradientError, match="changed in place"):
        y.backward()
    y = (Tensor(np.ones(4)) * x).sum()
    view.zero_()
    with pytest.raises(GradientError, match="changed in place"):
        y.backward()


@pytest.mark.parametrize(
    "copied",
    [lambda x: x.repeat(2), lambda x: x.logsumexp(0, keepdim=True), lambda x: x.clone(),
     lambda x: x[[0, 1]], lambda x: x.to(np.float32), lambda x: x * 1.0, Tensor],
)  # fmt: skip
def test_copies_do_not_share_changes(copied: Callable[[Tensor], Tensor]):
    x = Tensor([1.0, 2.0], requires_grad=False)
    y = copied(x).detach()
    w = Tensor(np.ones(y.shape))
    loss = (w * y).sum()
    x.zero_()
    loss.backward()
    assert w.grad.tolist() == y.tolist()


def test_a_change_that_could_not_be_recorded_is_rejected():
    w, buffer = Tensor([1.0, 2.0]), Tensor([0.0, 0.0], requires_grad=False)
    refused: list[Callable[[], Any]] = [
        lambda: w.add_(1.0),
        lambda: w.__setitem__(0, 1.0),
        lambda: w[:1].zero_(),
        lambda: buffer.copy_(w),  # the gradient of w would be lost
        lambda: buffer.__setitem__(0, w[1] * 2),
        lambda: buffer.add_(w),
    ]
    for change in refused:
        with pytest.raises(GradientError, match="no_grad"):
            change()
    assert w.tolist() == [1, 2] and buffer.tolist() == [0, 0]
    w += 1.0  # a new tensor, as for numbers
    assert not w.is_leaf
    with pytest.raises(ShapeError, match=r"\(3,\).*\(2,\)"):
        buffer.copy_([1.0, 2.0, 3.0])


def test_in_place_operations_compute_the_right_values():
    x = Tensor([4.0, 8.0], requires_grad=False)
    alias = x
    assert x.add_(2).mul_([1.0, 2.0]).sub_(1.0).div_(Tensor(5.0, False)) is x
    assert x.tolist() == [1, 3.8]
    with no_grad():
        x += 1.0
        x *= 2.0
        x -= 1.0
        x /= 0.0  # infinite, without a warning
    assert alias is x and x.tolist() == [np.inf, np.inf]
    x[np.array([False, True])] = 5
    x[[0]] = np.array([1.0])
    assert x.tolist() == [1, 5]


# Gradients of gradients


def rosenbrock(x: Any) -> Any:
    return (1 - x[0]) ** 2 + 100 * (x[1] - x[0] ** 2) ** 2


def hessian(function: Callable[[Tensor], Tensor], x: Tensor) -> np.ndarray:
    (slope,) = grad(function(x), x, create_graph=True)
    return np.stack([grad(slope[i], x, retain_graph=True)[0].data for i in range(len(x))])


def test_newtons_method_finds_the_minimum_in_few_steps():
    x = Tensor([-1.2, 1.0])
    for _ in range(7):
        (slope,) = grad(rosenbrock(x), x)
        x = Tensor(x.data - np.linalg.solve(hessian(rosenbrock, x), slope.data))
    assert x.data == pytest.approx([1, 1], abs=1e-12)


@settings(max_examples=8)
@given(st.integers(0, 1000))
def test_three_ways_to_multiply_a_hessian_by_a_vector_agree(seed: int):
    """Backward over backward, forward over backward, and torch's."""
    rng = np.random.default_rng(seed)
    a, v = rng.normal(size=(3, 3)), rng.normal(size=3)

    def function(x: Any, m: Any) -> Any:
        return ((m @ x).tanh() * x.exp()).sum() + rosenbrock(x) * x[2].sin()

    x, start = Tensor(rng.normal(size=3)), None
    start = x.data.copy()
    (slope,) = grad(function(x, a), x, create_graph=True)
    (reverse,) = grad((slope * v).sum(), x)

    def gradient(x: Tensor) -> Tensor:
        return grad(function(x, a), x, create_graph=True)[0]

    forward = jvp(gradient, [x], [v])[1]
    m = torch.tensor(a)
    _, truth = torch.autograd.functional.hvp(
        lambda t: function(t, m), torch.tensor(start), torch.tensor(v)
    )
    np.testing.assert_allclose(reverse.data, truth.numpy(), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(forward.data, truth.numpy(), rtol=1e-9, atol=1e-9)


def test_derivatives_of_any_order():
    x = Tensor(0.7)
    y = x.sin()
    for truth in (np.cos, lambda a: -np.sin(a), lambda a: -np.cos(a), np.sin, np.cos):
        (y,) = grad(y, x, create_graph=True)
        assert y.item() == pytest.approx(truth(0.7), rel=1e-12)


def test_a_penalty_on_the_gradient_trains():
    """The gradient of |dy/dx|² with respect to a weight: backward through
    grad(create_graph=True)."""
    x, w = Tensor([1.0, 2.0]), Tensor([3.0, -1.0])
    (slope,) = grad((w * x * x).sum(), x, create_graph=True)
    (slope**2).sum().backward()
    assert w.grad.tolist() == (8 * w.data * x.data**2).tolist()


# Copies, and functions that are methods


def test_copies_are_independent_leaves():
    x = Tensor([1.0, 2.0])
    for y in (copy.copy(x), copy.deepcopy(x), copy.deepcopy([x])[0], Tensor(x)):
        x.grad = None
        assert y.tolist() == [1, 2] and y.requires_grad and not np.shares_memory(x.data, y.data)
        (x * 3 + y * 5).sum().backward()
        assert x.grad.tolist() == [3, 3] and y.grad.tolist() == [5, 5]
    assert not copy.deepcopy(Tensor(1.0, requires_grad=False)).requires_grad
    with pytest.raises(GradientError, match="detach"):
        copy.deepcopy(x * 2)
    twice = copy.deepcopy([x, x])
    assert twice[0] is twice[1]  # shared weights stay shared
    with pytest.raises(TypeError, match="cannot be pickled"):
        x.__reduce_ex__(4)


def test_a_tensor_owns_its_memory():
    array = np.ones(2)
    x = Tensor(array)
    array[0] = 7
    assert x.tolist() == [1, 1]


def test_functions_of_one_tensor_are_also_methods():
    """Those in `ops` whose first argument is named x; the others take several tensors."""
    scatter = {"scatter", "select", "sum_to", "silu", "gelu"}  # functions only, as in torch
    functions = {
        name: value
        for name, value in vars(ops).items()
        if inspect.isfunction(value)
        and value.__module__ == ops.__name__
        and name[0] != "_"
        and next(iter(inspect.signature(value).parameters)) == "x"
    }
    assert len(functions) > 45
    for name, function in functions.items():
        assert function.__doc__
        assert (getattr(Tensor, name, None) is function) == (name not in scatter)


def test_a_repr_shows_numbers_kind_and_history():
    assert repr(Tensor([1.0, 2.5])) == "Tensor([1. , 2.5])"
    assert repr(Tensor(np.ones(1, np.float32)) * 2) == "Tensor([2.], float32, mul)"
    assert repr(Tensor(1.0) > 0) == "Tensor(True, bool)"
