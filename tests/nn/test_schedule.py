"""Schedules against torch.optim.lr_scheduler, and at their ends."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.optim import lr_scheduler

from groundup.nn.schedule import (
    Schedule,
    constant,
    cosine,
    exponential,
    linear,
    linear_warmup,
    one_cycle,
    step_decay,
    warmup_stable_decay,
)

lengths = st.integers(2, 60)


def torchs(make: Callable[[torch.optim.Optimizer], Any], steps: int, peak: float = 1.0) -> Any:
    """The factors of a torch scheduler for `steps` steps."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=peak)
    scheduler = make(optimizer)
    factors = []
    for _ in range(steps):
        factors.append(optimizer.param_groups[0]["lr"] / peak)
        optimizer.step()
        scheduler.step()
    return pytest.approx(factors, rel=1e-9, abs=1e-12)


def factors(schedule: Schedule, steps: int) -> list[float]:
    return [schedule(step) for step in range(steps)]


@given(lengths, st.floats(0.01, 1), st.floats(0.01, 1))
def test_linear(steps: int, start: float, end: float) -> None:
    wanted = torchs(lambda o: lr_scheduler.LinearLR(o, start, end, steps), steps + 3)
    assert factors(linear(steps, start, end), steps + 3) == wanted


@given(lengths)
def test_linear_warmup(steps: int) -> None:
    wanted = torchs(lambda o: lr_scheduler.LinearLR(o, 1 / steps, 1.0, steps - 1), steps + 3)
    assert factors(linear_warmup(steps), steps + 3) == wanted


@given(lengths, st.floats(0, 1))
def test_cosine(steps: int, floor: float) -> None:
    wanted = torchs(lambda o: lr_scheduler.CosineAnnealingLR(o, steps, floor), steps + 1)
    assert factors(cosine(steps, floor), steps + 1) == wanted
    assert cosine(steps, floor)(10 * steps) == pytest.approx(floor)  # where torch's rises again


@given(lengths, lengths)
def test_warmup_then_cosine(warmup: int, steps: int) -> None:
    def both(o: torch.optim.Optimizer) -> Any:
        parts = (
            lr_scheduler.LinearLR(o, 1 / warmup, 1.0, warmup - 1),
            lr_scheduler.CosineAnnealingLR(o, steps),
        )
        return lr_scheduler.SequentialLR(o, parts, [warmup - 1])  # where the rise is at its end

    schedule = linear_warmup(warmup, then=cosine(steps))
    assert factors(schedule, warmup + steps) == torchs(both, warmup + steps)


@given(st.integers(1, 60), lengths, st.floats(0, 0.9))
def test_the_peak_is_reached_once(warmup: int, steps: int, floor: float) -> None:
    for then in (cosine(steps, floor), linear(steps, 1.0, floor), exponential(0.9)):
        found = factors(linear_warmup(warmup, then), warmup + steps)
        assert [step for step, factor in enumerate(found) if factor == 1.0] == [warmup - 1]
        assert found == sorted(found[:warmup]) + sorted(found[warmup:], reverse=True)


@given(st.integers(1, 30), st.integers(1, 60), st.floats(0, 0.9))
def test_cosine_equals_the_formula_of_papers_that_count_from_one(
    warmup: int, falling: int, floor: float
) -> None:
    """a_t = t / T_w up to T_w, then half a cosine from there to T_c (Touvron et al. 2023)."""

    def published(t: int) -> float:
        if t < warmup:
            return t / warmup
        share = min((t - warmup) / falling, 1.0)
        return floor + (1 + math.cos(math.pi * share)) / 2 * (1 - floor)

    schedule = linear_warmup(warmup, then=cosine(falling, floor))
    for t in range(1, warmup + falling + 5):
        assert schedule(t - 1) == pytest.approx(published(t), abs=1e-12)


@given(st.integers(1, 10), st.floats(0.1, 1))
def test_step_decay(every: int, gamma: float) -> None:
    wanted = torchs(lambda o: lr_scheduler.StepLR(o, every, gamma), 30)
    assert factors(step_decay(every, gamma), 30) == wanted


@given(st.floats(0.5, 1))
def test_exponential(gamma: float) -> None:
    wanted = torchs(lambda o: lr_scheduler.ExponentialLR(o, gamma), 30)
    assert factors(exponential(gamma), 30) == wanted


@given(st.integers(10, 80), st.floats(0.2, 0.8), st.floats(2, 50), st.floats(10, 1e5))
@settings(max_examples=50)
def test_one_cycle(steps: int, share: float, first: float, last: float) -> None:
    def cycle(o: torch.optim.Optimizer) -> Any:
        return lr_scheduler.OneCycleLR(
            o, 0.3, steps, pct_start=share, div_factor=first, final_div_factor=last
        )

    schedule = one_cycle(steps, share, first, last)
    assert factors(schedule, steps - 1) == torchs(cycle, steps - 1, peak=0.3)
    assert schedule(steps - 1) == schedule(steps + 100) == pytest.approx(1 / (first * last))


@given(lengths, lengths, lengths)
def test_warmup_stable_decay(warmup: int, stable: int, decay: int) -> None:
    def three(o: torch.optim.Optimizer) -> Any:
        parts = (
            lr_scheduler.LinearLR(o, 1 / warmup, 1.0, warmup - 1),
            lr_scheduler.ConstantLR(o, 1.0),
            lr_scheduler.LinearLR(o, 1.0, 1 / decay, decay - 1),
        )
        return lr_scheduler.SequentialLR(o, parts, [warmup, warmup + stable])

    steps = warmup + stable + decay
    schedule = warmup_stable_decay(steps, warmup, decay)
    assert factors(schedule, steps) == torchs(three, steps)
    assert schedule(steps + 5) == 0.0


def test_without_warm_up_or_decay_it_is_constant() -> None:
    assert factors(warmup_stable_decay(3, 0, 0), 5) == factors(constant(), 5) == [1.0] * 5
    assert factors(linear_warmup(0), 3) == [1.0] * 3


@pytest.mark.parametrize(
    "make",
    [
        lambda: linear(0, 0.0, 1.0),
        lambda: cosine(0),
        lambda: step_decay(0),
        lambda: one_cycle(3, 0.3),
        lambda: one_cycle(100, 1.0),
    ],
)
def test_rejects_lengths_without_steps(make: Callable[[], Schedule]) -> None:
    with pytest.raises(ValueError, match=r"steps=0|every=0|pct_start"):
        make()
