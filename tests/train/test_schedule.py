from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.optim.lr_scheduler import CosineAnnealingLR

from groundup.train.config import DecayShape
from groundup.train.optim import Schedule


def test_warm_up_stable_decay() -> None:
    schedule = Schedule(steps=10, warmup_steps=4, decay_steps=2)
    assert [schedule(step) for step in range(10)] == [0.25, 0.5, 0.75, *[1.0] * 6, 0.5]


def test_without_warm_up_or_decay_it_is_constant() -> None:
    assert [Schedule(3, 0, 0)(step) for step in range(3)] == [1.0] * 3


@pytest.mark.parametrize("floor", [0.0, 0.1])
def test_a_cosine_is_torchs(floor: float) -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    theirs = CosineAnnealingLR(optimizer, T_max=40, eta_min=floor)
    ours = Schedule(50, warmup_steps=10, decay_steps=40, decay_shape="cosine", decay_to=floor)
    assert [ours(step) for step in range(10)] == [step / 10 for step in range(1, 11)]
    for step in range(10, 50):
        assert ours(step) == pytest.approx(theirs.get_last_lr()[0], abs=1e-12)
        optimizer.step()
        theirs.step()


def test_a_line_may_end_above_zero() -> None:
    schedule = Schedule(10, warmup_steps=0, decay_steps=4, decay_to=0.2)
    assert [schedule(step) for step in (0, 6, 8, 10)] == pytest.approx([1.0, 1.0, 0.6, 0.2])


@given(
    st.integers(1, 400),
    st.floats(0, 1),
    st.floats(0, 1),
    st.sampled_from(["linear", "cosine"]),
    st.floats(0, 1),
)
def test_rates_rise_then_fall_and_never_reach_zero(
    steps: int, warmup: float, decay: float, shape: DecayShape, floor: float
) -> None:
    schedule = Schedule(steps, round(steps * warmup), round(steps * decay), shape, floor)
    scales = [schedule(step) for step in range(steps)]
    assert all(0 < scale <= 1 for scale in scales)
    top = scales.index(max(scales))
    assert scales[: top + 1] == sorted(scales[: top + 1])
    assert scales[top:] == sorted(scales[top:], reverse=True)
    if warmup + decay < 0.9 and steps > 20:
        assert max(scales) == 1.0
