from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from groundup.train.optim import Schedule


def test_warm_up_stable_decay() -> None:
    schedule = Schedule(steps=10, warmup_steps=4, decay_steps=2)
    assert [schedule(step) for step in range(10)] == [0.25, 0.5, 0.75, *[1.0] * 6, 0.5]


def test_without_warm_up_or_decay_it_is_constant() -> None:
    assert [Schedule(3, 0, 0)(step) for step in range(3)] == [1.0] * 3


@given(st.integers(1, 400), st.floats(0, 1), st.floats(0, 1))
def test_rates_rise_then_fall_and_never_reach_zero(steps: int, warmup: float, decay: float) -> None:
    schedule = Schedule(steps, round(steps * warmup), round(steps * decay))
    scales = [schedule(step) for step in range(steps)]
    assert all(0 < scale <= 1 for scale in scales)
    top = scales.index(max(scales))
    assert scales[: top + 1] == sorted(scales[: top + 1])
    assert scales[top:] == sorted(scales[top:], reverse=True)
    if warmup + decay < 0.9 and steps > 20:
        assert max(scales) == 1.0
