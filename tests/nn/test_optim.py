"""Optimizers against torch.optim, and their state, memory and errors."""

from __future__ import annotations

import tracemalloc
from math import inf, nan, sqrt
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.maths.tensor import GradientError, Tensor
from groundup.nn.optim import (
    SGD,
    Adagrad,
    Adam,
    AdamW,
    Optimizer,
    RMSprop,
    clip_grad_norm_,
    clip_grad_value_,
)

rates = st.floats(1e-4, 0.05)
decays = st.sampled_from([0.0, 0.01, 0.3])
momenta = st.sampled_from([0.0, 0.5, 0.95])
adam = {
    "lr": rates,
    "betas": st.tuples(st.sampled_from([0.0, 0.5, 0.9]), st.sampled_from([0.9, 0.999])),
    "eps": st.sampled_from([1e-8, 1e-3]),
    "weight_decay": decays,
    "amsgrad": st.booleans(),
}
OPTIONS: dict[type[Optimizer], Any] = {
    SGD: st.one_of(
        st.fixed_dictionaries(
            {
                "lr": rates,
                "momentum": momenta,
                "dampening": st.floats(0, 1),
                "weight_decay": decays,
            }
        ),
        st.fixed_dictionaries(
            {"lr": rates, "momentum": st.floats(0.1, 0.99), "nesterov": st.just(True)},
            optional={"weight_decay": decays},
        ),
    ),
    Adagrad: st.fixed_dictionaries(
        {
            "lr": rates,
            "lr_decay": st.sampled_from([0.0, 0.1]),
            "weight_decay": decays,
            "initial_accumulator_value": st.sampled_from([0.0, 0.5]),
            "eps": st.sampled_from([1e-10, 1e-3]),
        }
    ),
    RMSprop: st.fixed_dictionaries(
        {
            "lr": rates,
            "alpha": st.floats(0.5, 0.99),
            "eps": st.sampled_from([1e-8, 1e-3]),
            "weight_decay": decays,
            "momentum": st.sampled_from([0.0, 0.5, 0.9]),
            "centered": st.booleans(),
        }
    ),
    Adam: st.fixed_dictionaries(adam),
    AdamW: st.fixed_dictionaries(adam),
}
EACH = pytest.mark.parametrize("kind", OPTIONS)
SHAPES = [(3, 4), (5,), (), (1, 2, 3), (0, 2)]


def starts(seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [np.array(rng.normal(size=shape)) for shape in SHAPES]


def run(optimizer: Any, weights: list[Any], tensor: Any, steps: int) -> None:
    """Gradients of noisy, bent quadratics, equal on both engines. The second weight has a gradient
    only in every third step, and the learning rate falls."""
    rng = np.random.default_rng(1)
    for step in range(steps):
        optimizer.zero_grad()
        for number, weight in enumerate(weights):
            w = np.array(weight.detach().numpy())
            centre = rng.normal(size=w.shape)
            if number != 1 or step % 3 == 0:
                weight.grad = tensor(np.array(1.4 * (w - centre) + np.cos(w)))
        optimizer.step()
        if step == steps // 2:
            halve(optimizer)


def halve(optimizer: Any) -> None:
    if isinstance(optimizer, Optimizer):
        optimizer.lr /= 2
    else:
        optimizer.param_groups[0]["lr"] /= 2


def constant(array: np.ndarray) -> Tensor:
    return Tensor(array, requires_grad=False)


@EACH
@given(data=st.data())
@settings(max_examples=12, deadline=None)
def test_two_hundred_steps_equal_torchs(kind: type[Optimizer], data: st.DataObject) -> None:
    options = data.draw(OPTIONS[kind])
    ours = [Tensor(start) for start in starts()]
    theirs = [torch.tensor(start, requires_grad=True) for start in starts()]
    run(kind(ours, **options), ours, constant, 200)
    run(getattr(torch.optim, kind.__name__)(theirs, **options), theirs, torch.tensor, 200)
    for our, their in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(our.data, their.detach().numpy(), rtol=1e-9, atol=1e-9)


@EACH
def test_defaults_equal_torchs(kind: type[Optimizer]) -> None:
    theirs = getattr(torch.optim, kind.__name__)([torch.zeros(1)]).defaults
    ours = {name: value for name, value in vars(kind([Tensor(0.0)])).items() if name in theirs}
    assert ours and ours == {name: theirs[name] for name in ours}


@EACH
@pytest.mark.parametrize("order", ["C", "F"])
def test_large_parameters_are_updated_like_small_ones(kind: type[Optimizer], order: Any) -> None:
    rng = np.random.default_rng(0)
    start, gradients = rng.normal(size=(301, 257)), rng.normal(size=(3, 301, 257))
    ours = Tensor(np.asarray(start, order=order))
    theirs = torch.tensor(start, requires_grad=True)
    pair = kind([ours]), getattr(torch.optim, kind.__name__)([theirs])
    for gradient in gradients:
        ours.grad = constant(np.asfortranarray(gradient))  # as the gradient of a transpose is
        theirs.grad = torch.tensor(gradient)
        for optimizer in pair:
            optimizer.step()
    np.testing.assert_allclose(ours.data, theirs.detach().numpy(), rtol=1e-12, atol=1e-12)


@EACH
def test_a_step_allocates_little_and_stays_in_float32(kind: type[Optimizer]) -> None:
    weight = Tensor(np.ones((1000, 1000), np.float32))
    memory = weight.data
    optimizer = kind([weight], lr=np.float64(0.1), weight_decay=0.1)
    weight.grad = constant(np.ones((1000, 1000), np.float32))
    optimizer.step()
    tracemalloc.start()
    optimizer.step()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < weight.data.nbytes / 4
    assert weight.data is memory
    assert {array.dtype for array in (memory, *optimizer.state[0].values())} == {np.dtype("f4")}


@EACH
def test_a_saved_optimizer_continues_bit_for_bit(kind: type[Optimizer]) -> None:
    extra = {"momentum": 0.9} if kind in (SGD, RMSprop) else {}
    weights = [Tensor(start) for start in starts()]
    first = kind(weights, **extra)
    run(first, weights, constant, 7)
    copies = [Tensor(weight) for weight in weights]
    second = kind(copies, lr=1.0, **extra)
    second.load_state_dict(safetensors.numpy.load(safetensors.numpy.save(first.state_dict())))
    assert second.lr == first.lr and second.steps == first.steps == [7, 3, 7, 7, 7]
    run(first, weights, constant, 7)
    run(second, copies, constant, 7)
    for weight, copy in zip(weights, copies, strict=True):
        assert np.array_equal(weight.data, copy.data)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (Adam, {"betas": (0.0, 0.0)}),
        (Adam, {"betas": (0.9, 0.0)}),
        (AdamW, {"betas": (0.0, 1e-6)}),
        (RMSprop, {"alpha": 0.0}),
    ],
)
def test_averages_decay_after_large_gradients_as_torchs_do(
    kind: type[Optimizer], options: dict[str, Any]
) -> None:
    ours, theirs = Tensor(np.ones(1, np.float32)), torch.ones(1, requires_grad=True)
    pair = (
        kind([ours], lr=0.1, **options),
        getattr(torch.optim, kind.__name__)([theirs], lr=0.1, **options),
    )
    for gradient in (1e3, 1e-3):
        ours.grad = constant(np.full(1, gradient, np.float32))
        theirs.grad = torch.full((1,), gradient)
        for optimizer in pair:
            optimizer.step()
    np.testing.assert_allclose(ours.data, theirs.detach().numpy(), rtol=1e-6)


def test_a_saved_state_is_a_copy() -> None:
    weight = Tensor([1.0, 2.0])
    optimizer = Adam([weight])
    weight.grad = constant(np.ones(2))
    optimizer.step()
    saved = optimizer.state_dict()
    optimizer.load_state_dict(saved)
    optimizer.step()
    assert saved["0.step"] == 1 and np.allclose(saved["0.exp_avg"], 0.1)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"0.exp_avg": None}, r"missing \['0.exp_avg'\], unexpected nothing"),
        ({"1.exp_avg": np.zeros(2)}, r"missing nothing, unexpected \['1.exp_avg'\]"),
        ({"2.step": np.array(1)}, r"unexpected \['2.step'\]"),
        ({"lr": None}, r"missing \['lr'\]"),
        ({"0.exp_avg_sq": np.zeros(3)}, r"0.exp_avg_sq has shape \(3,\).*needs \(2,\)"),
    ],
)
def test_a_state_that_does_not_fit_changes_nothing(change: dict[str, Any], said: str) -> None:
    weights = [Tensor([1.0, 2.0]), Tensor([3.0])]
    optimizer = Adam(weights)
    weights[0].grad = constant(np.ones(2))
    optimizer.step()
    before = optimizer.state_dict()
    wrong = {name: value for name, value in (before | change).items() if value is not None}
    with pytest.raises(ValueError, match=said):
        optimizer.load_state_dict(wrong)
    after = optimizer.state_dict()
    assert after.keys() == before.keys()
    assert all(np.array_equal(after[name], before[name]) for name in before)


def test_the_factor_of_a_schedule_scales_one_step() -> None:
    one, other = Tensor([1.0, -2.0]), Tensor([1.0, -2.0])
    scaled, plain = AdamW([one], lr=0.1), AdamW([other], lr=0.02)
    for weight, optimizer, scale in ((one, scaled, 0.2), (other, plain, 1.0)):
        (weight**2).sum().backward()
        optimizer.step(scale)
    assert np.allclose(one.data, other.data, rtol=1e-15)
    assert scaled.lr == 0.1


def test_gradients_are_read_only_and_cleared_by_zero_grad() -> None:
    weight = Tensor([1.0, 2.0])
    optimizer = SGD([weight], lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.5)
    (weight * [3.0, 4.0]).sum().backward()
    for _ in range(3):
        optimizer.step()
    assert weight.grad is not None and weight.grad.tolist() == [3.0, 4.0]
    weight.grad = constant(np.array([nan, inf]))
    optimizer.zero_grad(set_to_none=False)
    assert weight.grad.tolist() == [0.0, 0.0]
    optimizer.zero_grad()
    assert weight.grad is None
    before = weight.tolist()
    optimizer.step()
    assert weight.tolist() == before


def test_tied_weights_are_updated_once() -> None:
    weight = Tensor([1.0])
    optimizer = SGD([weight, weight], lr=0.1)
    weight.grad = constant(np.ones(1))
    optimizer.step()
    assert weight.item() == pytest.approx(0.9)


def test_a_graph_from_before_the_step_is_stale() -> None:
    weight = Tensor([1.0, 2.0])
    loss = (weight**2).sum()
    weight.grad = constant(np.ones(2))
    SGD([weight]).step()
    with pytest.raises(GradientError, match="changed in place"):
        loss.backward()


def test_divergence_ends_in_infinity_without_a_warning() -> None:
    weight = Tensor([1e300, -1.0, 0.0])
    for kind in OPTIONS:
        optimizer = kind([weight], lr=1e200)
        for gradient in ([1e300, 1.0, inf], [nan, 1e200, -inf]):
            weight.grad = constant(np.array(gradient))
            optimizer.step()
    assert not np.isfinite(weight.data[0])


def test_a_centered_variance_is_not_negative() -> None:
    weight = Tensor(np.zeros(1000, np.float32))
    optimizer = RMSprop([weight], alpha=0.5, centered=True)
    weight.grad = constant(np.random.default_rng(0).normal(size=1000).astype(np.float32))
    for _ in range(60):  # constant gradients: their variance tends to 0 and rounds below
        optimizer.step()
    assert np.isfinite(weight.data).all()


def test_parameters_must_be_leaves_and_not_empty() -> None:
    x = Tensor([1.0])
    with pytest.raises(ValueError, match=r"parameter 1 of shape \(1,\) was computed"):
        SGD([x, x * 2])
    with pytest.raises(ValueError, match="at least one parameter"):
        SGD(iter([]))


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (SGD, {"lr": -0.1}),
        (SGD, {"lr": nan}),
        (SGD, {"lr": inf}),
        (SGD, {"momentum": -1.0}),
        (SGD, {"weight_decay": -1.0}),
        (SGD, {"nesterov": True}),
        (SGD, {"nesterov": True, "momentum": 0.9, "dampening": 0.1}),
        (Adagrad, {"lr_decay": -1.0}),
        (RMSprop, {"alpha": 1.0}),
        (Adam, {"betas": (0.9, 1.0)}),
        (Adam, {"betas": (-0.1, 0.9)}),
        (AdamW, {"eps": -1e-8}),
    ],
)
def test_settings_out_of_range_are_named(kind: type[Optimizer], options: dict[str, Any]) -> None:
    name, value = next(iter(options.items()))
    with pytest.raises(ValueError, match=rf"nesterov|{name}.*=|{value}"):
        kind([Tensor(1.0)], **options)


# Clipping.


def with_gradients(seed: int, scale: float) -> tuple[list[Tensor], list[torch.Tensor]]:
    ours = [Tensor(start) for start in starts()]
    theirs = [torch.tensor(start) for start in starts()]
    for gradient, our, their in zip(starts(seed), ours, theirs, strict=True):
        our.grad = constant(scale * gradient)
        their.grad = torch.tensor(scale * gradient)
    return [*ours, Tensor([7.0])], [*theirs, torch.zeros(1)]  # one without a gradient


def agree(ours: list[Tensor], theirs: list[torch.Tensor]) -> bool:
    pairs = [(o.grad, t.grad) for o, t in zip(ours, theirs, strict=True)]
    return all(
        t is None if o is None else np.allclose(o.data, t.numpy(), rtol=1e-14) for o, t in pairs
    )


@given(st.integers(0, 99), st.floats(1e-3, 1e3), st.floats(1e-3, 1e2))
@settings(max_examples=50, deadline=None)
def test_clipping_equals_torchs(seed: int, scale: float, limit: float) -> None:
    ours, theirs = with_gradients(seed, scale)
    norm = clip_grad_norm_(ours, limit)
    wanted = torch.nn.utils.clip_grad_norm_(theirs, limit).item()
    assert norm == pytest.approx(wanted, rel=1e-13)
    assert agree(ours, theirs)
    ours, theirs = with_gradients(seed, scale)
    clip_grad_value_(ours, limit)
    torch.nn.utils.clip_grad_value_(theirs, limit)
    assert agree(ours, theirs)


def test_clipping_counts_a_tied_weight_once_and_accepts_one_tensor() -> None:
    weight = Tensor([[3.0], [4.0]])
    weight.grad = Tensor([[3.0], [4.0]], requires_grad=False)
    assert clip_grad_norm_([weight, weight], inf) == 5.0
    assert weight.grad.tolist() == [[3.0], [4.0]]  # an infinite limit only measures
    assert clip_grad_norm_(weight, 1.0) == 5.0
    assert clip_grad_norm_(weight, 1.0) == pytest.approx(1.0, rel=1e-6)
    clip_grad_value_(weight, 0.7)
    assert np.allclose(weight.grad.data, [[0.6], [0.7]], atol=1e-6)


def test_norms_of_many_small_numbers_are_summed_in_higher_precision() -> None:
    weight = Tensor(np.zeros(100_000, np.float16))
    weight.grad = Tensor(np.ones(100_000, np.float16))
    assert clip_grad_norm_(weight, 1.0) == pytest.approx(1e5**0.5)
    assert float(weight.grad.data[0]) == pytest.approx(1e5**-0.5, rel=1e-3)


def test_norms_do_not_overflow_but_may_be_infinite() -> None:
    weight = Tensor([1.0, 1.0])
    weight.grad = constant(np.array([1e200, 1.0]))
    assert clip_grad_norm_([weight], 1.0) == pytest.approx(1e200)
    assert weight.grad.tolist() == pytest.approx([1.0, 1e-200])
    small = Tensor(np.array([1e25, 0.0], np.float32))
    small.grad = constant(np.array([1e25, 0.0], np.float32))
    assert clip_grad_norm_(small, 1.0) == pytest.approx(1e25)
    assert small.grad.tolist() == pytest.approx([1.0, 0.0])
    weight.grad = constant(np.array([np.inf, 1.0]))
    assert clip_grad_norm_([weight], 1.0) == inf
    weight.grad = constant(np.array([nan, 1.0]))
    assert np.isnan(clip_grad_norm_([weight], 1.0))
    assert np.isnan(weight.grad.data).all()  # as torch's
    assert clip_grad_norm_([Tensor(1.0)], 1.0) == 0.0


def test_graphs_see_values_that_were_clipped_in_place() -> None:
    x = Tensor([3.0, 4.0])
    (x**3).sum().backward(create_graph=True)
    assert x.grad is not None
    norm = (x.grad**2).sum()
    assert clip_grad_norm_([x], 1.0) == pytest.approx(sqrt(27**2 + 48**2))
    with pytest.raises(GradientError, match="changed in place"):
        norm.backward()


@pytest.mark.parametrize("limit", [0.0, -1.0, nan])
def test_limits_must_be_positive(limit: float) -> None:
    with pytest.raises(ValueError, match=r"max_norm=.*above 0"):
        clip_grad_norm_([Tensor(1.0)], limit)
    with pytest.raises(ValueError, match=r"clip_value=.*above 0"):
        clip_grad_value_([Tensor(1.0)], limit)
