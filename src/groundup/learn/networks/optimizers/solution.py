"""2.4 From SGD to AdamW, solved."""

from typing import Any

Array = Any


def sgd_step(w: Array, g: Array, v: Array, lr: float, momentum: float) -> tuple[Array, Array]:
    v = momentum * v + g
    return w - lr * v, v


def adamw_step(
    w: Array,
    g: Array,
    m: Array,
    s: Array,
    t: int,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
) -> tuple[Array, Array, Array]:
    w = w - lr * weight_decay * w  # separate from the gradient, so that √ŝ does not divide it
    m = beta1 * m + (1 - beta1) * g
    s = beta2 * s + (1 - beta2) * g * g
    m_hat = m / (1 - beta1**t)  # both averages start at 0
    s_hat = s / (1 - beta2**t)
    return w - lr * m_hat / (s_hat**0.5 + eps), m, s
