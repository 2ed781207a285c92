"""Learning-rate schedules: pure functions from a step to a factor.

    schedule = linear_warmup(100, then=cosine(900))
    for step in range(1000):
        ...
        optimizer.step(schedule(step))    # with the learning rate schedule(step) * optimizer.lr

Steps count from 0. A factor depends only on the step, so a run that resumes at step 500 needs no
state. Early steps need a low rate because the gradients of a new network are large and an adaptive
optimizer's averages cover few steps. Late steps need a low rate because the noise of the batches
prevents convergence at any fixed rate.
"""

from __future__ import annotations

from collections.abc import Callable
from math import cos, pi
from typing import TypeAlias

Schedule: TypeAlias = Callable[[int], float]
"""A step, counted from 0, -> the factor of the learning rate."""


def constant() -> Schedule:
    """1 at every step."""
    return lambda step: 1.0


def linear(steps: int, start: float, end: float) -> Schedule:
    """Change linearly from `start` to `end` over `steps` steps, then stay at `end`.

    start + (end - start) · min(step / steps, 1)
    """
    _positive("steps", steps)
    return lambda step: start + (end - start) * min(step / steps, 1.0)


def linear_warmup(steps: int, then: Schedule | None = None) -> Schedule:
    """Rise linearly to 1, then follow `then` (by default stay at 1).

    (step + 1) / steps           while step < steps
    then(step - (steps - 1))     from there on

    The first factor is not 0, which would waste a step. The last step of the rise is the peak and
    also step 0 of `then`: with `then=cosine(n)` the floor is reached at step `steps - 1 + n`.
    Source: Goyal et al. (2017), "Accurate, large minibatch SGD", section 2.2.
    """
    after = constant() if then is None else then
    peak = max(steps - 1, 0)
    return lambda step: (step + 1) / steps if step < steps else after(step - peak)


def cosine(steps: int, floor: float = 0.0) -> Schedule:
    """Fall from 1 to `floor` along half a cosine over `steps` steps, then stay there.

    floor + (1 - floor) · (1 + cos(π step / steps)) / 2

    Source: Loshchilov and Hutter (2017), "SGDR", equation 5, without restarts.
    """
    _positive("steps", steps)
    return lambda step: _half_cosine(1.0, floor, min(step / steps, 1.0))


def step_decay(every: int, gamma: float = 0.1) -> Schedule:
    """Multiply by `gamma` after each `every` steps: gamma^⌊step / every⌋."""
    _positive("every", every)
    return lambda step: float(gamma ** (step // every))


def exponential(gamma: float) -> Schedule:
    """Multiply by `gamma` after each step: gamma^step."""
    return lambda step: float(gamma**step)


def warmup_stable_decay(steps: int, warmup: int, decay: int) -> Schedule:
    """Rise over `warmup` steps, stay at 1, and fall towards 0 over the last `decay` of `steps`.

    min((step + 1) / warmup, 1, (steps - step) / decay), and, with a decay, 0 after the last

    The decay can start from any point of the flat middle, so a run can be extended without knowing
    its length in advance. Source: Hu et al. (2024), "MiniCPM", section 4.
    """

    def factor(step: int) -> float:
        rising = (step + 1) / warmup if warmup else 1.0
        falling = (steps - step) / decay if decay else 1.0
        return max(min(rising, 1.0, falling), 0.0)

    return factor


def one_cycle(
    steps: int, pct_start: float = 0.3, div_factor: float = 25.0, final_div_factor: float = 1e4
) -> Schedule:
    """Rise from 1 / div_factor to 1 over the fraction `pct_start` of `steps`, then fall.

    Both follow half a cosine. The last step reaches 1 / (div_factor · final_div_factor), which then
    stays. The high rates in the middle act as a regularizer. Source: Smith and Topin (2018),
    "Super-convergence", with the cosines and defaults of torch's `OneCycleLR`.
    """
    if not 0 < pct_start < 1 or pct_start * steps <= 1:
        raise ValueError(f"pct_start={pct_start} of steps={steps} leaves no step to rise in")
    first, last = 1 / div_factor, 1 / (div_factor * final_div_factor)
    top, end = pct_start * steps - 1, steps - 1

    def factor(step: int) -> float:
        if step <= top:
            return _half_cosine(first, 1.0, step / top)
        return _half_cosine(1.0, last, min((step - top) / (end - top), 1.0))

    return factor


def _half_cosine(start: float, end: float, share: float) -> float:
    """Interpolate from `start` to `end` as `share` goes from 0 to 1, with slope 0 at both."""
    return end + (start - end) * (1 + cos(pi * share)) / 2


def _positive(name: str, value: int) -> None:
    if value < 1:
        raise ValueError(f"{name}={value} must be at least 1")
