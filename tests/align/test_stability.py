"""Hundreds of iterations: no number is lost, and nobody runs away unseen.

Several seeds of them, on the world, are `benchmarks/ppo_stability.py`.
"""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from groundup.align.config import PPOConfig
from rollouts import length_reward, small_config, small_policy, train

_FAR = 25.0


@pytest.mark.long
def test_three_hundred_iterations_without_a_kl_coefficient_stay_finite_and_are_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = small_config(PPOConfig, tmp_path / "out", iterations=300, episodes=32, kl_coef=0.0)
    lines = train(settings, small_policy(0), length_reward)
    rollouts = [line for line in lines if line["kind"] == "rollout"]
    assert len(rollouts) == 300
    for line in lines:
        assert all(math.isfinite(value) for value in line.values() if isinstance(value, float))
    told = capsys.readouterr().out
    assert max(line["kl"] for line in rollouts) > _FAR
    assert told.count("nats from the reference") == 1 and "raise --kl-coef" in told
    # It learns nevertheless.
    assert rollouts[-1]["score"] > rollouts[0]["score"] + 1
