"""2.3 Backpropagation by hand, then by tape, solved."""

import numpy as np

from groundup.maths import Tensor
from groundup.nn import cross_entropy


def gradients(
    x: np.ndarray,
    classes: np.ndarray,
    w1: np.ndarray,
    b1: np.ndarray,
    w2: np.ndarray,
    b2: np.ndarray,
) -> dict[str, np.ndarray]:
    h = np.tanh(x @ w1.T + b1)
    y = h @ w2.T + b2
    e = np.exp(y - y.max(axis=1, keepdims=True))
    p = e / e.sum(axis=1, keepdims=True)

    d_y = p.copy()
    d_y[np.arange(len(x)), classes] -= 1  # the prediction, minus what came
    d_y /= len(x)  # the loss is a mean
    d_z = (d_y @ w2) * (1 - h * h)
    return {
        "w1": d_z.T @ x,
        "b1": d_z.sum(axis=0),  # every row used b1 once
        "w2": d_y.T @ h,
        "b2": d_y.sum(axis=0),
    }


def by_tape(
    x: np.ndarray,
    classes: np.ndarray,
    w1: np.ndarray,
    b1: np.ndarray,
    w2: np.ndarray,
    b2: np.ndarray,
) -> dict[str, np.ndarray]:
    tensors = {"w1": Tensor(w1), "b1": Tensor(b1), "w2": Tensor(w2), "b2": Tensor(b2)}
    hidden = (Tensor(x, requires_grad=False) @ tensors["w1"].T + tensors["b1"]).tanh()
    cross_entropy(hidden @ tensors["w2"].T + tensors["b2"], classes).backward()
    return {name: tensor.grad.data for name, tensor in tensors.items() if tensor.grad is not None}
