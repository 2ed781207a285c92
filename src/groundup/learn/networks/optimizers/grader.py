"""Trials of 2.4: steps against those of `nn.SGD` and `nn.AdamW`."""

from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np

from groundup.learn.exercise import Trial
from groundup.maths import Tensor
from groundup.nn import SGD, AdamW

BETAS = (0.9, 0.999)


def trials(seed: int) -> Iterator[Trial]:
    """The first step and a later one of each; tiny gradients; many steps in a row."""
    rng = np.random.default_rng(seed)
    w, g = rng.normal(size=3), rng.normal(size=3)
    yield _sgd("the first step", w, g, np.zeros(3))
    yield _sgd("a later step", w, g, rng.normal(size=3))
    zeros = np.zeros(3)
    yield _adamw("the first step", w, g, zeros, zeros, 1)
    square = rng.normal(size=(2, 2))
    g7, m7 = rng.normal(size=(2, 2)), rng.normal(size=(2, 2))
    betas = (float(rng.uniform(0.7, 0.85)), float(rng.uniform(0.9, 0.98)))
    yield _adamw("step 7", square, g7, m7, square**2 + 0.1, 7, betas)
    yield _adamw("tiny gradients", w, 1e-9 * g, zeros, zeros, 1, betas, eps=1e-7)
    yield _many(rng)


def _sgd(about: str, w: np.ndarray, g: np.ndarray, v: np.ndarray) -> Trial:
    lr, momentum = 0.1, 0.8
    weight = Tensor(w)
    optimizer = SGD([weight], lr=lr, momentum=momentum)
    state = {"momentum_buffer": v.copy()}
    optimizer.update(weight.data, g, state, 2, lr)

    def run(part: ModuleType) -> Any:
        new_w, new_v = part.sgd_step(w, g, v, lr, momentum)
        return {"w": new_w, "v": new_v}

    expected = {"w": weight.data.copy(), "v": state["momentum_buffer"]}
    shown = {"w": w, "g": g, "v": v, "lr": lr, "momentum": momentum}
    return Trial(f"sgd_step, {about}", run, expected, shown, rtol=1e-9)


def _adamw(
    about: str,
    w: np.ndarray,
    g: np.ndarray,
    m: np.ndarray,
    s: np.ndarray,
    t: int,
    betas: tuple[float, float] = BETAS,
    eps: float = 1e-8,
) -> Trial:
    lr, decay = 0.1, 0.05
    weight = Tensor(w)
    optimizer = AdamW([weight], lr=lr, betas=betas, eps=eps, weight_decay=decay)
    state = {"exp_avg": m.copy(), "exp_avg_sq": s.copy()}
    optimizer.update(weight.data, g, state, t, lr)

    def run(part: ModuleType) -> Any:
        found = part.adamw_step(w, g, m, s, t, lr, *betas, eps, decay)
        return dict(zip(("w", "m", "s"), found, strict=True))

    expected = {"w": weight.data.copy(), "m": state["exp_avg"], "s": state["exp_avg_sq"]}
    shown = {"w": w, "g": g, "m": m, "s": s, "t": t, "lr": lr}
    shown |= {"beta1": betas[0], "beta2": betas[1], "eps": eps, "weight_decay": decay}
    return Trial(f"adamw_step, {about}", run, expected, shown, rtol=1e-9, atol=1e-30)


def _many(rng: np.random.Generator) -> Trial:
    """Twenty steps in a valley, each with the gradient at the current point."""
    start, curves, lr = rng.normal(size=2), np.array([1.0, 20.0]), 0.05
    weight = Tensor(start)
    optimizer = AdamW([weight], lr=lr, betas=BETAS, weight_decay=0.1)
    for _ in range(20):
        optimizer.zero_grad()
        (weight * weight * curves).sum().backward()
        optimizer.step()

    def run(part: ModuleType) -> Any:
        w, m, s = start, np.zeros(2), np.zeros(2)
        for t in range(1, 21):
            w, m, s = part.adamw_step(w, 2 * curves * w, m, s, t, lr, *BETAS, 1e-8, 0.1)
        return w

    shown = {"f": "x² + 20 y²", "start": start, "lr": lr}
    return Trial("adamw_step, twenty steps in a row", run, weight.data.copy(), shown, rtol=1e-7)
