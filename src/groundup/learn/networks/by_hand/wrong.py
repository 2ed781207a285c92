"""The commonest wrong answers to 2.3, each with the hint that names it."""

from typing import Any

import numpy as np

from groundup.maths import Tensor
from groundup.nn import cross_entropy

REPLACES = {
    "mean_forgotten": "gradients",
    "slope_forgotten": "gradients",
    "slope_of_the_sum": "gradients",
    "target_not_subtracted": "gradients",
    "sign_turned": "gradients",
    "bias_averaged": "gradients",
    "bias_not_summed": "gradients",
    "transposed": "gradients",
    "slope_on_the_output": "gradients",
    "relu_slope": "gradients",
    "softmax_over_rows": "gradients",
    "tape_in_place_of_the_hand": "gradients",
    "tape_of_the_sum": "by_tape",
    "graph_cut": "by_tape",
    "by_hand_again": "by_tape",
    "divided_by_all_numbers": "gradients",
    "slope_of_a_sigmoid": "gradients",
    "every_row_with_every_class": "gradients",
    "bias_over_the_neurons": "gradients",
    "backward_forgotten": "by_tape",
    "softmax_first": "by_tape",
    "sum_for_value": "gradients",
}
Gradients = dict[str, np.ndarray]


def softmax_over_rows(x: np.ndarray, classes: np.ndarray, *p: np.ndarray) -> Gradients:
    """The softmax runs down the columns, over the rows of the batch. Each row has its own
    probabilities: axis=1, keepdims=True."""
    h = np.tanh(x @ p[0].T + p[1])
    y = h @ p[2].T + p[3]
    e = np.exp(y - y.max(axis=0))
    d_y = _d_y(e / e.sum(axis=0), classes)
    return _back(x, h, d_y, (d_y @ p[2]) * (1 - h * h))


def _forward(x: np.ndarray, p: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
    w1, b1, w2, b2 = p
    z = x @ w1.T + b1
    h = np.tanh(z)
    y = h @ w2.T + b2
    e = np.exp(y - y.max(axis=1, keepdims=True))
    return z, h, e / e.sum(axis=1, keepdims=True)


def _back(x: np.ndarray, h: np.ndarray, d_y: np.ndarray, d_z: np.ndarray) -> Gradients:
    return {
        "w1": d_z.T @ x,
        "b1": d_z.sum(axis=0),
        "w2": d_y.T @ h,
        "b2": d_y.sum(axis=0),
    }


def _d_y(p: np.ndarray, classes: np.ndarray) -> np.ndarray:
    d_y = p.copy()
    d_y[np.arange(len(p)), classes] -= 1
    return d_y / len(p)


def mean_forgotten(x: np.ndarray, classes: np.ndarray, *p: np.ndarray) -> Gradients:
    """All gradients are n times too large: the loss is a mean over the rows, so divide d_y by n."""
    _, h, probs = _forward(x, p)
    d_y = _d_y(probs, classes) * len(x)
    return _back(x, h, d_y, (d_y @ p[2]) * (1 - h * h))


def slope_forgotten(x: np.ndarray, classes: np.ndarray, *p: np.ndarray) -> Gradients:
    """The slope of tanh is missing: d_z = d_h · (1 - h²)."""
    _, h, probs = _forward(x, p)
    d_y = _d_y(probs, classes)
    return _back(x, h, d_y, d_y @ p[2])


def slope_of_the_sum(x: np.ndarray, classes: np.ndarray, *p: np.ndarray) -> Gradients:
    """The slope was computed as 1 - z², from the sum before the tanh. It is 1 - h², from tanh's
    value."""
    z, h, probs = _forward(x, p)
    d_y = _d_y(probs, classes)
    return _back(x, h, d_y, (d_y @ p[2]) * (1 - z * z))


def target_not_subtracted(x: np.ndarray, classes: np.ndarray, *p: np.ndarray) -> Gradients:
    """The 1 at each row's class was not subtracted: d_y = (p - one-hot) / n."""
    _, h, probs = _forward(x, p)
    d_y = probs / len(x)
    return _back(x, h, d_y, (d_y @ p[2]) * (1 - h * h))


def sign_turned(x: np.ndarray, classes: np.ndarray, *p: np.ndarray) -> Gradients:
    """The sign is flipped: it is p minus the one-hot target, not the target minus p. Descent would
    go uphill."""
    _, h, probs = _forward(x, p)
    d_y = -_d_y(probs, classes)
    return _back(x, h, d_y, (d_y @ p[2]) * (1 - h * h))


def bias_averaged(x: np.ndarray, classes: np.ndarray, *p: np.ndarray) -> Gradients:
    """The bias gradients were averaged over the rows. d_y was divided by n already: sum them."""
    _, h, probs = _forward(x, p)
    d_y = _d_y(probs, classes)
    d_z = (d_y @ p[2]) * (1 - h * h)
    return _back(x, h, d_y, d_z) | {"b1": d_z.mean(axis=0), "b2": d_y.mean(axis=0)}


def bias_not_summed(x: np.ndarray, classes: np.ndarray, *p: np.ndarray) -> Gradients:
    """There is a bias gradient for every row. Each row used the same bias once: sum over the rows,
    axis=0."""
    _, h, probs = _forward(x, p)
    d_y = _d_y(probs, classes)
    d_z = (d_y @ p[2]) * (1 - h * h)
    return _back(x, h, d_y, d_z) | {"b1": d_z, "b2": d_y}


def transposed(x: np.ndarray, classes: np.ndarray, *p: np.ndarray) -> Gradients:
    """The weights' gradients are transposed: they have the shape of their weights, (out, in), so
    d_yᵀ h and not hᵀ d_y."""
    _, h, probs = _forward(x, p)
    d_y = _d_y(probs, classes)
    d_z = (d_y @ p[2]) * (1 - h * h)
    return _back(x, h, d_y, d_z) | {"w1": x.T @ d_z, "w2": h.T @ d_y}


def slope_on_the_output(x: np.ndarray, classes: np.ndarray, *p: np.ndarray) -> Gradients:
    """The gradient of the *loss* with respect to p, -1 / p, was passed on without the softmax.
    Softmax and loss together give d_y = (p - one-hot) / n."""
    _, h, probs = _forward(x, p)
    d_y = np.zeros_like(probs)
    rows = np.arange(len(x))
    d_y[rows, classes] = -1 / probs[rows, classes] / len(x)
    return _back(x, h, d_y, (d_y @ p[2]) * (1 - h * h))


def relu_slope(x: np.ndarray, classes: np.ndarray, *p: np.ndarray) -> Gradients:
    """This is the slope of a ReLU, 1 or 0. The network uses tanh: 1 - h²."""
    _, h, probs = _forward(x, p)
    d_y = _d_y(probs, classes)
    return _back(x, h, d_y, (d_y @ p[2]) * (h > 0))


def tape_in_place_of_the_hand(x: np.ndarray, classes: np.ndarray, *p: np.ndarray) -> Gradients:
    """The tape computed these. Compute them on NumPy arrays, line by line; by_tape is for
    comparison."""
    return _by_tape(x, classes, *p)


def tape_of_the_sum(x: np.ndarray, classes: np.ndarray, *p: np.ndarray) -> Gradients:
    """The backward pass started from the sum of the losses. cross_entropy gives their mean, and
    that is the loss."""
    return _by_tape(x, classes, *p, times=len(x))


def graph_cut(x: np.ndarray, classes: np.ndarray, *p: np.ndarray) -> Gradients:
    """Some parameters got no gradient: the tape was cut by .data, np.tanh, or a new Tensor around a
    computed value."""
    found = _by_tape(x, classes, *p)
    return {name: found[name] for name in ("w2", "b2")}


def by_hand_again(x: np.ndarray, classes: np.ndarray, *p: np.ndarray) -> Gradients:
    """Nothing was recorded on the tape. Make a Tensor of each parameter, compute the loss from
    them, and call its backward()."""
    return _correct(x, classes, *p)


def _by_tape(x: np.ndarray, classes: np.ndarray, *p: np.ndarray, times: int = 1) -> Gradients:
    w1, b1, w2, b2 = parameters = [Tensor(array) for array in p]
    hidden = (Tensor(x, requires_grad=False) @ w1.T + b1).tanh()
    (cross_entropy(hidden @ w2.T + b2, classes) * times).backward()
    found = [tensor.grad.data for tensor in parameters if tensor.grad is not None]
    return dict(zip(("w1", "b1", "w2", "b2"), found, strict=True))


def _correct(x: np.ndarray, classes: np.ndarray, *p: np.ndarray) -> Gradients:
    _, h, probs = _forward(x, p)
    d_y = _d_y(probs, classes)
    return _back(x, h, d_y, (d_y @ p[2]) * (1 - h * h))


def divided_by_all_numbers(x: np.ndarray, classes: np.ndarray, *p: np.ndarray) -> Gradients:
    """d_y was divided by the number of its entries, n times the classes. The loss is a mean over
    the n rows only."""
    _, h, probs = _forward(x, p)
    d_y = _d_y(probs, classes) / probs.shape[1]
    return _back(x, h, d_y, (d_y @ p[2]) * (1 - h * h))


def slope_of_a_sigmoid(x: np.ndarray, classes: np.ndarray, *p: np.ndarray) -> Gradients:
    """h (1 - h) is the slope of a sigmoid. The network uses tanh: 1 - h²."""
    _, h, probs = _forward(x, p)
    d_y = _d_y(probs, classes)
    return _back(x, h, d_y, (d_y @ p[2]) * h * (1 - h))


def every_row_with_every_class(x: np.ndarray, classes: np.ndarray, *p: np.ndarray) -> Gradients:
    """d_y[:, classes] -= 1 changes these columns in every row. Take one entry from each row:
    d_y[np.arange(n), classes] -= 1."""
    _, h, probs = _forward(x, p)
    d_y = probs.copy()
    d_y[:, classes] -= 1
    d_y /= len(x)
    return _back(x, h, d_y, (d_y @ p[2]) * (1 - h * h))


def bias_over_the_neurons(x: np.ndarray, classes: np.ndarray, *p: np.ndarray) -> Gradients:
    """The bias gradients were summed over the neurons, axis=1. Each neuron has its own bias, which
    each row used once: sum over the rows, axis=0."""
    _, h, probs = _forward(x, p)
    d_y = _d_y(probs, classes)
    d_z = (d_y @ p[2]) * (1 - h * h)
    return _back(x, h, d_y, d_z) | {"b1": d_z.sum(axis=1), "b2": d_y.sum(axis=1)}


def backward_forgotten(x: np.ndarray, classes: np.ndarray, *p: np.ndarray) -> Gradients:
    """There is no gradient yet: `.grad` is None until `.backward()` is called on the loss."""
    tensors = [Tensor(array) for array in p]
    found: list[Any] = [tensor.grad for tensor in tensors]
    return dict(zip(("w1", "b1", "w2", "b2"), (one.data for one in found), strict=True))


def softmax_first(x: np.ndarray, classes: np.ndarray, *p: np.ndarray) -> Gradients:
    """cross_entropy got probabilities. It takes logits and applies the softmax itself: leave yours
    out."""
    w1, b1, w2, b2 = parameters = [Tensor(array) for array in p]
    hidden = (Tensor(x, requires_grad=False) @ w1.T + b1).tanh()
    cross_entropy((hidden @ w2.T + b2).softmax(-1), classes).backward()
    found = [tensor.grad.data for tensor in parameters if tensor.grad is not None]
    return dict(zip(("w1", "b1", "w2", "b2"), found, strict=True))


def sum_for_value(x: np.ndarray, classes: np.ndarray, *p: np.ndarray) -> Gradients:
    """d_W₂ was computed with z, the sum before the tanh. The second layer reads h: d_yᵀ h."""
    z, h, probs = _forward(x, p)
    d_y = _d_y(probs, classes)
    return _back(x, h, d_y, (d_y @ p[2]) * (1 - h * h)) | {"w2": d_y.T @ z}
