"""Losses against torch's, on both engines, and errors for wrong targets."""

from __future__ import annotations

from math import inf, nan
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup import nn
from groundup.maths import Tensor, grad
from groundup.nn.losses import (
    binary_cross_entropy_with_logits,
    cross_entropy,
    hinge,
    mse,
    multi_margin,
    nll,
)
from torch_oracle import same

RNG = np.random.default_rng(0)
reductions = st.sampled_from(["mean", "sum", "none"])


def agree(ours: Any, theirs: Any, outputs: np.ndarray) -> None:
    """Value, gradient and second gradient of a loss with respect to the outputs, against
    torch's."""
    x, y = Tensor(outputs), torch.tensor(outputs, requires_grad=True)
    found, truth = ours(x), theirs(y)
    same(found, truth, "loss")
    way = RNG.normal(size=outputs.shape)
    (slope,) = grad(found.sum(), x, create_graph=True)
    (true_slope,) = torch.autograd.grad(truth.sum(), y, create_graph=True)
    same(slope, true_slope, "gradient")
    if true_slope.requires_grad:
        turn = (slope * way).sum()
        bend = grad(turn, x)[0] if turn.requires_grad else np.zeros_like(outputs)
        (true_bend,) = torch.autograd.grad((true_slope * torch.tensor(way)).sum(), y)
        same(bend, true_bend, "second gradient")


@st.composite
def classified(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """Logits (n, C, …), classes with some ignored, and all options."""
    shape = (draw(st.integers(1, 5)), *draw(st.lists(st.integers(1, 3), max_size=2)))
    classes = draw(st.integers(1, 6))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    logits = rng.normal(size=(shape[0], classes, *shape[1:])) * draw(st.sampled_from([1, 50]))
    targets = rng.integers(classes, size=shape)
    ignored = draw(st.sampled_from([-100, -1, 0]))
    targets[rng.random(shape) < 0.3] = ignored
    targets.flat[0] = classes - 1  # so that not all are ignored, unless there is only one class
    weight = rng.random(classes) + 0.1 if draw(st.booleans()) else None
    options = {"weight": weight, "ignore_index": ignored, "reduction": draw(reductions)}
    return logits, targets, options


def on_torch(options: dict[str, Any]) -> dict[str, Any]:
    weight = options["weight"]
    return {**options, "weight": None if weight is None else torch.tensor(weight)}


@settings(deadline=None, max_examples=40)
@given(classified(), st.sampled_from([0.0, 0.1, 1.0]))
def test_cross_entropy(case: tuple[np.ndarray, np.ndarray, dict[str, Any]], smooth: float) -> None:
    logits, targets, options = case
    options = {**options, "label_smoothing": smooth}
    truth = {**on_torch(options), "target": torch.tensor(targets)}
    agree(
        lambda x: cross_entropy(x, targets, **options),
        lambda y: F.cross_entropy(y, **truth),
        logits,
    )
    agree(
        lambda x: nn.CrossEntropyLoss(**options)(x, Tensor(targets)),
        lambda y: cross_entropy(y, torch.tensor(targets), **on_torch(options)),
        logits,
    )


@settings(deadline=None, max_examples=40)
@given(classified())
def test_negative_log_likelihood(case: tuple[np.ndarray, np.ndarray, dict[str, Any]]) -> None:
    log_probs, targets, options = case
    truth = {**on_torch(options), "target": torch.tensor(targets)}
    agree(lambda x: nll(x, targets, **options), lambda y: F.nll_loss(y, **truth), log_probs)
    agree(
        lambda x: nn.NLLLoss(**options)(x, targets),
        lambda y: nll(y, targets, **options),
        log_probs,
    )


def test_ignored_classes_may_have_infinite_loss() -> None:
    logits = Tensor([[-inf, 0.0, 1.0], [-inf, 2.0, 1.0]])
    loss = cross_entropy(logits, np.array([1, -100]))
    assert loss.item() == pytest.approx(np.log1p(np.e))
    assert cross_entropy(logits, np.array([0, 1])).item() == inf


def test_a_mean_over_nothing_is_nan_as_in_torch() -> None:
    logits, targets = RNG.normal(size=(2, 3)), np.array([-100, -100])
    assert np.isnan(F.cross_entropy(torch.tensor(logits), torch.tensor(targets)).item())
    assert np.isnan(cross_entropy(Tensor(logits), targets).item())
    assert cross_entropy(Tensor(logits), targets, reduction="sum").item() == 0


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32 - 1), st.sampled_from([(4,), (2, 3), (0,)]), reductions)
def test_binary_cross_entropy(seed: int, shape: tuple[int, ...], reduction: Any) -> None:
    rng = np.random.default_rng(seed)
    logits, targets = rng.normal(size=shape) * 20, rng.random(shape)
    targets = np.where(rng.random(shape) < 0.5, targets.round(), targets)
    agree(
        lambda x: nn.BCEWithLogitsLoss(reduction)(x, Tensor(targets)),
        lambda y: F.binary_cross_entropy_with_logits(y, torch.tensor(targets), reduction=reduction),
        logits,
    )


def test_binary_cross_entropy_of_large_and_zero_logits() -> None:
    logits = np.array([1000.0, -1000.0, 40.0, -40.0, 0.0, 0.0])
    targets = np.array([1.0, 0.0, 1.0, 0.0, 0.0, 1.0])
    x = Tensor(logits)
    losses = binary_cross_entropy_with_logits(x, targets, "none")
    np.testing.assert_allclose(losses.data, [0, 0, 0, 0, np.log(2), np.log(2)], atol=1e-15)
    losses.sum().backward()
    tiny = np.exp(-40)
    assert x.grad is not None
    np.testing.assert_allclose(x.grad.data, [0, 0, -tiny, tiny, 0.5, -0.5], rtol=1e-12)
    agree(
        lambda x: binary_cross_entropy_with_logits(x, targets),
        lambda y: F.binary_cross_entropy_with_logits(y, torch.tensor(targets)),
        logits,
    )


def test_two_classes_equal_the_binary_case() -> None:
    x, t = RNG.normal(size=9), RNG.integers(2, size=9)
    both = cross_entropy(Tensor(np.stack([np.zeros(9), x], axis=1)), t)
    assert both.item() == pytest.approx(binary_cross_entropy_with_logits(Tensor(x), t).item())


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_mean_squared_error(reduction: Any) -> None:
    targets = RNG.normal(size=(3, 2))
    agree(
        lambda x: nn.MSELoss(reduction)(x, targets),
        lambda y: F.mse_loss(y, torch.tensor(targets), reduction=reduction),
        RNG.normal(size=(3, 2)),
    )


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_hinge(reduction: Any) -> None:
    targets = RNG.choice([-1.0, 1.0], size=8)
    zero = torch.zeros(8, dtype=torch.float64)
    agree(
        lambda x: nn.HingeLoss(reduction)(x, targets),
        # Ranking a score above or below zero by a margin is the same loss.
        lambda y: F.margin_ranking_loss(
            y, zero, torch.tensor(targets), margin=1.0, reduction=reduction
        ),
        RNG.normal(size=8),
    )


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize(("p", "margin"), [(1, 1.0), (2, 0.5)])
def test_multi_margin(p: int, margin: float, reduction: Any) -> None:
    targets = RNG.integers(4, size=6)
    x = RNG.normal(size=(6, 4))
    y = torch.tensor(x, requires_grad=True)
    truth = F.multi_margin_loss(y, torch.tensor(targets), p, margin, reduction=reduction)
    z = Tensor(x)
    loss = nn.MultiMarginLoss(p, margin, reduction)(z, targets)
    same(loss, truth, "loss")
    truth.sum().backward()
    loss.sum().backward()
    same(z.grad, y.grad, "gradient")


@pytest.mark.parametrize(
    ("name", "formula"),
    [
        ("mse", lambda x, t: mse(x, t)),
        ("bce", lambda x, t: binary_cross_entropy_with_logits(x, t)),
        ("hinge", lambda x, t: hinge(x, t)),
    ],
)
def test_the_same_formula_runs_on_torch(name: str, formula: Any) -> None:
    x, t = RNG.normal(size=(2, 5)), RNG.choice([-1.0, 1.0], size=(2, 5))
    agree(lambda a: formula(a, Tensor(t)), lambda b: formula(b, torch.tensor(t)), x)


def test_multi_margin_runs_on_torch() -> None:
    x, t = RNG.normal(size=(5, 3)), RNG.integers(3, size=5)
    agree(lambda a: multi_margin(a, t), lambda b: multi_margin(b, torch.tensor(t)), x)


def test_class_weights_are_not_parameters() -> None:
    for loss in (nn.CrossEntropyLoss(Tensor([1.0, 2.0])), nn.NLLLoss(Tensor([1.0, 2.0]))):
        assert not list(loss.parameters()) and not loss.state_dict()
        assert loss(Tensor(np.zeros((2, 2))), np.array([0, 1])).requires_grad


def test_losses_have_their_outputs_dtype() -> None:
    x = Tensor(RNG.normal(size=(4, 3)).astype(np.float32))
    options: dict[str, Any] = {"weight": np.ones(3), "label_smoothing": 0.1, "ignore_index": 0}
    assert cross_entropy(x, np.array([0, 1, 2, 0]), **options).dtype == np.float32
    assert multi_margin(x, np.array([0, 1, 2, 0])).dtype == np.float32
    assert mse(x, x * 0).dtype == np.float32


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: mse(x, x.sum(1)), r"\(2, 3\) and targets of shape \(2,\) differ"),
        (lambda x: cross_entropy(x, np.array([0, 3])), "target 3 is not one of the 3 classes"),
        (lambda x: cross_entropy(x, np.array([0, -1])), "target -1 is not one of the 3 classes"),
        (lambda x: cross_entropy(x, np.array([0])), r"shape \(1,\) do not fit outputs of \(2, 3\)"),
        (lambda x: cross_entropy(x, Tensor([0, 1])), "integers, and these are float64"),
        (
            lambda x: nll(x.sum(1), np.array([0, 1])),
            r"outputs of \(2,\); give .* \(n, classes, …\)",
        ),
        (
            lambda x: cross_entropy(x, x.softmax(1)),
            r"of \(2, 3\); give .* \(2,\); .* not supported",
        ),
        (
            lambda x: cross_entropy(x, np.array([0, 1]), np.ones(4)),
            r"weight of shape \(4,\) does not fit outputs of \(2, 3\); give 3 numbers",
        ),
        (lambda x: nll(x, np.array([0, 1]), np.ones((3, 1))), r"weight of shape \(3, 1\)"),
        (lambda x: cross_entropy(x, np.array([0, 1]), np.ones(1)), r"weight of shape \(1,\)"),
        (lambda x: cross_entropy(x, np.array([0, 1]), label_smoothing=1.5), "smoothing=1.5 must"),
        (lambda x: cross_entropy(x, np.array([0, 1]), label_smoothing=nan), "smoothing=nan must"),
        (lambda x: multi_margin(x, np.array([0, -100])), "target -100 is not one"),
        (lambda x: hinge(x, x * 0 + nan), "targets 1 and -1"),
        (lambda x: hinge(x.sum(1), np.array([0, 1])), r"give 2 \* targets - 1"),
    ],
)
def test_wrong_targets_are_named(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(Tensor(RNG.normal(size=(2, 3))))


def test_an_unknown_reduction_is_named(unchecked_types: None) -> None:
    with pytest.raises(ValueError, match="reduction='max' is unknown; use 'mean', 'sum' or 'none'"):
        mse(Tensor([1.0]), Tensor([2.0]), reduction="max")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="reduction='max'"):
        nll(Tensor([[1.0]]), np.array([0]), reduction="max")  # type: ignore[arg-type]


def test_a_multi_margin_may_be_negative_and_has_two_powers() -> None:
    scores, classes = np.array([[1.0, 2.0, 3.0]]), np.array([2])
    for margin in (-1.0, 0.0, 1.5):
        truth = F.multi_margin_loss(torch.tensor(scores), torch.tensor(classes), margin=margin)
        assert multi_margin(Tensor(scores), classes, margin=margin).item() == truth.item()
    with pytest.raises(ValueError, match="p=3 must be 1 or 2"):
        multi_margin(Tensor(scores), classes, p=3)
