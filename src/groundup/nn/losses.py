"""Losses: a number that measures the error of an output, and whose gradient leads down.

    regression            mse                                 Gaussian noise
    yes or no             binary_cross_entropy_with_logits    Bernoulli
    one of C classes      cross_entropy                       categorical
    a margin              hinge, multi_margin                 support vector machines

The first three are negative log-likelihoods: minimizing them is maximum likelihood under the
distribution on the right (mse up to constants). They take logits, not probabilities, since
log(softmax(x)) in two steps can be log(0) where one step is exact.

The functions use only methods that tensors of both engines have, ours and torch's. The modules
below wrap them with bound options, under torch's names. `reduction` is "mean", "sum", or "none"
for one loss per example. Classes are integers, in an array or a tensor.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias, TypeVar

import numpy as np

from groundup.maths.arrays import Array, ShapeError
from groundup.maths.tensor import Operand, Tensor
from groundup.nn.activations import softplus
from groundup.nn.module import Module

T = TypeVar("T", bound=Any)
"""A tensor of either engine, ours or torch's."""
Reduction: TypeAlias = Literal["mean", "sum", "none"]
IGNORE_INDEX = -100
"""The default target that is ignored, as in torch."""


def mse(outputs: T, targets: Any, reduction: Reduction = "mean") -> T:
    """Compute the squared error (y - t)², for outputs and targets of equal shape.

    Raises `ShapeError` for different shapes, which broadcasting would hide: (n, 1) minus (n,) is
    an n × n matrix.
    """
    _check_same_shape(outputs, targets)
    losses: T = (outputs - targets) ** 2
    return _reduced(losses, reduction)


def binary_cross_entropy_with_logits(logits: T, targets: Any, reduction: Reduction = "mean") -> T:
    """Compute -t log p - (1 - t) log(1 - p) with p = sigmoid(x), for targets t from 0 to 1.

    Computed as t softplus(-x) + (1 - t) softplus(x), which neither overflows nor takes log 0.
    Raises `ShapeError` for different shapes.
    """
    _check_same_shape(logits, targets)
    losses: T = targets * softplus(-logits) + (1 - targets) * softplus(logits)
    return _reduced(losses, reduction)


def cross_entropy(
    logits: T,
    targets: Any,
    weight: Any = None,
    ignore_index: int = IGNORE_INDEX,
    reduction: Reduction = "mean",
    label_smoothing: float = 0.0,
) -> T:
    """Compute -log softmax(x)_t for logits (n, C, …) and classes t of shape (n, …).

    `weight` (C) weights the classes, and the mean is then a weighted mean; targets equal to
    `ignore_index` do not count. `label_smoothing` ε makes the target distribution 1 - ε on t plus
    ε / C on each class (Szegedy et al. 2016, section 7). A mean over no targets is NaN.
    Raises `ValueError` for a target that is not a class and for a smoothing outside 0 to 1,
    `ShapeError` if the shapes do not fit.
    """
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"label_smoothing={label_smoothing} must be from 0 to 1, such as 0.1")
    log_probs = logits.log_softmax(1)
    hard: T = nll(log_probs, targets, weight, ignore_index, reduction)
    if not label_smoothing:
        return hard
    classes, counted = _counted(log_probs, targets, weight, ignore_index)
    if weight is not None:
        along = (-1, *[1] * (log_probs.ndim - 2))
        log_probs = log_probs * log_probs.new_tensor(np.asarray(weight).reshape(along))
    soft = _reduced_over(-log_probs.mean(1), classes == ignore_index, counted, reduction)
    smoothed: T = (1 - label_smoothing) * hard + label_smoothing * soft
    return smoothed


def nll(
    log_probs: T,
    targets: Any,
    weight: Any = None,
    ignore_index: int = IGNORE_INDEX,
    reduction: Reduction = "mean",
) -> T:
    """Compute -log p_t for log-probabilities (n, C, …) and classes t of shape (n, …).

    The other arguments and the errors are those of `cross_entropy`.
    """
    classes, counted = _counted(log_probs, targets, weight, ignore_index)
    ignored = classes == ignore_index
    losses: T = -_chosen(log_probs, np.where(ignored, 0, classes))
    if weight is not None:
        losses = losses * losses.new_tensor(counted)
    return _reduced_over(losses, ignored, counted, reduction)


def hinge(scores: T, targets: Any, reduction: Reduction = "mean") -> T:
    """Compute max(0, 1 - t s) for scores s and targets t that are 1 or -1, of equal shape.

    It is zero if a score is right by a margin of 1 (Cortes and Vapnik 1995). Raises `ValueError`
    for other targets, `ShapeError` for different shapes.
    """
    _check_same_shape(scores, targets)
    if not ((targets == 1) | (targets == -1)).all():
        raise ValueError("the hinge loss needs targets 1 and -1; for 0 and 1 give 2 * targets - 1")
    losses: T = (1 - targets * scores).relu()
    return _reduced(losses, reduction)


def multi_margin(
    scores: T, targets: Any, p: int = 1, margin: float = 1.0, reduction: Reduction = "mean"
) -> T:
    """Compute 1/C Σ_{j≠t} max(0, margin - s_t + s_j)^p for scores (n, C) and classes t (n).

    The hinge loss for more than two classes (Weston and Watkins 1999); p is 1 or 2.
    Raises `ValueError` for a target that is not a class or another p, `ShapeError` if the shapes do
    not fit.
    """
    if p not in (1, 2):
        raise ValueError(f"p={p} must be 1 or 2")
    own = _chosen(scores, _classes(scores, targets)).unsqueeze(1)
    # The sum includes j = t, whose term is the constant max(0, margin)^p.
    constant = max(margin, 0.0) ** p
    losses: T = (((scores - own + margin).relu() ** p).sum(1) - constant) / scores.shape[1]
    return _reduced(losses, reduction)


def _chosen(values: Any, classes: Array) -> Any:
    """Return the value of each example's class: values[i, classes[i, …], …]."""
    first, *rest = np.ogrid[tuple(slice(n) for n in classes.shape)]
    return values[(first, classes, *rest)]


def _counted(values: Any, targets: Any, weight: Any, ignore_index: int) -> tuple[Array, Array]:
    """Return the checked classes and the weight of each example."""
    classes = _classes(values, targets, ignore_index)
    kept = classes != ignore_index
    if weight is None:
        return classes, kept
    each = np.asarray(weight)
    if each.shape != (values.shape[1],):
        raise ShapeError(
            f"a weight of shape {each.shape} does not fit outputs of {tuple(values.shape)}; "
            f"give {values.shape[1]} numbers, one for each class"
        )
    return classes, each[classes * kept] * kept


def _classes(values: Any, targets: Any, ignore_index: int | None = None) -> Array:
    """Return targets as an array of integers that are classes of `values`, or `ignore_index`."""
    classes = np.asarray(targets)
    shape = tuple(values.shape)
    if len(shape) < 2 or (shape[0], *shape[2:]) != classes.shape:
        wanted = "outputs of shape (n, classes, …)"
        if len(shape) >= 2:
            wanted = f"integers of shape {(shape[0], *shape[2:])}; probabilities are not supported"
        raise ShapeError(
            f"class targets of shape {classes.shape} do not fit outputs of {shape}; give {wanted}"
        )
    if classes.dtype.kind not in "iu":
        raise ValueError(f"class targets must be integers, and these are {classes.dtype}")
    most = values.shape[1]
    wrong = ((classes < 0) | (classes >= most)) & (classes != ignore_index)
    if wrong.any():
        raise ValueError(
            f"target {classes[wrong][0]} is not one of the {most} classes, 0 to {most - 1}"
        )
    return classes


def _reduced(losses: T, reduction: Reduction) -> T:
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"reduction={reduction!r} is unknown; use 'mean', 'sum' or 'none'")
    result: T = losses if reduction == "none" else getattr(losses, reduction)()
    return result


def _reduced_over(losses: T, ignored: Array, counted: Array, reduction: Reduction) -> T:
    """Reduce the losses without the ignored ones; the mean is weighted by `counted`."""
    if ignored.any():
        losses = losses.masked_fill(losses.new_tensor(ignored) == 1, 0.0)
    if reduction != "mean":
        return _reduced(losses, reduction)
    mean: T = losses.sum() / float(counted.sum())
    return mean


def _check_same_shape(outputs: Any, targets: Any) -> None:
    if tuple(outputs.shape) != tuple(targets.shape):
        raise ShapeError(
            f"outputs of shape {tuple(outputs.shape)} and targets of shape {tuple(targets.shape)} "
            "differ; reshape one of them"
        )


class MSELoss(Module):
    """`mse` as a module."""

    def __init__(self, reduction: Reduction = "mean") -> None:
        self.reduction = reduction

    def forward(self, outputs: Tensor, targets: Operand) -> Tensor:
        return mse(outputs, outputs.as_operand(targets).to(outputs.dtype), self.reduction)


class BCEWithLogitsLoss(Module):
    """`binary_cross_entropy_with_logits` as a module."""

    def __init__(self, reduction: Reduction = "mean") -> None:
        self.reduction = reduction

    def forward(self, logits: Tensor, targets: Operand) -> Tensor:
        return binary_cross_entropy_with_logits(
            logits, logits.as_operand(targets).to(logits.dtype), self.reduction
        )


class CrossEntropyLoss(Module):
    """`cross_entropy` as a module."""

    def __init__(
        self,
        weight: Tensor | Array | None = None,
        ignore_index: int = IGNORE_INDEX,
        reduction: Reduction = "mean",
        label_smoothing: float = 0.0,
    ) -> None:
        self.weight = None if weight is None else np.asarray(weight)
        self.ignore_index = ignore_index
        self.reduction = reduction
        self.label_smoothing = label_smoothing

    def forward(self, logits: Tensor, targets: Tensor | Array) -> Tensor:
        return cross_entropy(
            logits, targets, self.weight, self.ignore_index, self.reduction, self.label_smoothing
        )


class NLLLoss(Module):
    """`nll` as a module."""

    def __init__(
        self,
        weight: Tensor | Array | None = None,
        ignore_index: int = IGNORE_INDEX,
        reduction: Reduction = "mean",
    ) -> None:
        self.weight = None if weight is None else np.asarray(weight)
        self.ignore_index = ignore_index
        self.reduction = reduction

    def forward(self, log_probs: Tensor, targets: Tensor | Array) -> Tensor:
        return nll(log_probs, targets, self.weight, self.ignore_index, self.reduction)


class HingeLoss(Module):
    """`hinge` as a module."""

    def __init__(self, reduction: Reduction = "mean") -> None:
        self.reduction = reduction

    def forward(self, scores: Tensor, targets: Operand) -> Tensor:
        return hinge(scores, scores.as_operand(targets).to(scores.dtype), self.reduction)


class MultiMarginLoss(Module):
    """`multi_margin` as a module."""

    def __init__(self, p: int = 1, margin: float = 1.0, reduction: Reduction = "mean") -> None:
        self.p = p
        self.margin = margin
        self.reduction = reduction

    def forward(self, scores: Tensor, targets: Tensor | Array) -> Tensor:
        return multi_margin(scores, targets, self.p, self.margin, self.reduction)
