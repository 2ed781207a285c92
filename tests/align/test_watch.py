"""Problems in reinforcement learning are reported once each, with their remedy."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from groundup.align.config import GRPOConfig, PPOConfig
from groundup.align.rollout import Rollout
from groundup.align.watch import Watch
from groundup.train.batch import Loss
from rollouts import ENDS, small_config, small_policy, train

RUN: dict[str, Any] = {"iterations": 40, "episodes": 32, "minibatches": 2}
LOUD = {"learning_rate": 0.05, "embedding_learning_rate": 0.05, "kl_coef": 0.0, "warmup": 0.0}


def one_token(rollouts: Sequence[Rollout], /) -> list[float]:
    """More of one token is better."""
    return [sum(token == 20 for token in one.ids) for one in rollouts]


def ends_at_once(rollouts: Sequence[Rollout], /) -> list[float]:
    return [float(one.ids[0] == ENDS[0]) for one in rollouts]


def warnings(out: Path, capsys: pytest.CaptureFixture[str], reward: Any, **changes: Any) -> str:
    kind = changes.pop("kind", PPOConfig)
    capsys.readouterr()
    train(small_config(kind, out, **(RUN | changes)), small_policy(spread=0.05), reward)
    return capsys.readouterr().out


def test_a_diverging_policy_is_reported_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a KL coefficient and at a high rate, it repeats one token and never ends."""
    said = warnings(tmp_path / "a", capsys, one_token, missing_eos_penalty=0.0, **LOUD)
    for sign, remedy in (
        ("nats from the reference, and beyond 25", "raise --kl-coef or lower --learning-rate"),
        ("entropy has fallen from", "raise --kl-coef"),
        ("of the answers end, and", "raise --missing-eos-penalty"),
        ("more than 20%: steps are too large", "lower --learning-rate"),
    ):
        [line] = [line for line in said.splitlines() if sign in line]
        assert remedy in line and line.startswith("test: ")


@pytest.mark.long
def test_steps_without_effect_are_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    still = {"learning_rate": 1e-6, "embedding_learning_rate": 1e-6}
    said = warnings(tmp_path / "ppo", capsys, ends_at_once, **still)
    assert said.count("less than 1%: the policy could move faster") == 1
    assert "nats from" not in said and "entropy" not in said and "answers end" not in said
    # Read once a policy, as GRPO's answers are, nothing can be clipped: that is no fault.
    once: dict[str, Any] = {"kind": GRPOConfig, "group_size": 4, "minibatches": 1}
    assert "ratios" not in warnings(tmp_path / "grpo", capsys, ends_at_once, **once, **still)


@pytest.mark.long
def test_a_critic_in_warmup_is_not_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = warnings(tmp_path / "a", capsys, ends_at_once, critic_warmup=39)
    assert "ratios" not in said


def test_constant_rewards_are_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def alike(rollouts: Sequence[Rollout], /) -> list[float]:
        return [-0.35] * len(rollouts)

    # The rounded deviation of 64 such values is above 0.
    assert np.full(64, -0.35).std() > 0
    settings: dict[str, Any] = {"missing_eos_penalty": 0.0, "iterations": 8, "episodes": 64}
    grouped: dict[str, Any] = {"kind": GRPOConfig, "group_size": 4}
    for name, more in (("ppo", {}), ("grpo", grouped)):
        said = warnings(tmp_path / name, capsys, alike, **settings, **more)
        assert said.count("in the last 5 iterations the reward was the same for all answers") == 1
    assert "told no answers" not in warnings(tmp_path / "a", capsys, ends_at_once, **settings)


def clipped(outside: float) -> Loss:
    return Loss(torch.tensor(0.0), 100.0, {"clipped": (outside, 100.0)})


def test_clipping_is_judged_over_ten_iterations() -> None:
    said: list[str] = []
    watch = Watch("ppo", said.append, repeats=True)
    healthy: dict[str, Any] = {"kl": 1.0, "entropy": 0.5, "ended": 1.0, "prompts": 16}
    for iteration in range(11):
        assert not said, iteration
        watch.iteration(**healthy)
        watch.step(clipped(30.0))
        watch.step(clipped(20.0))
    watch.iteration(**healthy)
    [line] = said
    assert "25% of the ratios were clipped in 10 iterations" in line


def test_a_resumed_run_is_compared_with_its_beginning() -> None:
    said: list[str] = []
    watch = Watch("grpo", said.append, repeats=False)
    watch.begin(entropy=1.0, ends=[(0.9, 256)])
    watch.iteration(kl=2.0, entropy=0.09, ended=0.65, prompts=256)
    watch.iteration(kl=2.0, entropy=0.09, ended=0.65, prompts=256)
    assert len(said) == 2 and "from 1.000 to 0.090" in said[0] and "90%" in said[1]


def iterations_until_told(shares: Sequence[float], prompts: int, answers: int, seed: int) -> int:
    """After how many iterations a fall of the answers that end is told, 0 for never.

    Each prompt is answered so often, and its answers are alike, as prompts differ.
    """
    dice, said = np.random.default_rng(seed), list[str]()
    watch = Watch("grpo", said.append, repeats=False)
    for iteration, share in enumerate(shares, 1):
        likely = dice.beta(2 * share, 2 * (1 - share), prompts)
        ended = dice.binomial(answers, likely).mean() / answers
        watch.iteration(kl=1.0, entropy=0.5, ended=float(ended), prompts=prompts)
        if said:
            assert len(said) == 1 and "of the answers end, and" in said[0]
            return iteration
    return 0


@pytest.mark.every(4)
@pytest.mark.parametrize(("prompts", "answers"), [(1, 8), (2, 8), (8, 8), (16, 1), (64, 1)])
@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_random_variation_of_ended_answers_is_not_reported(
    share: float, prompts: int, answers: int
) -> None:
    told = [iterations_until_told([share] * 100, prompts, answers, seed) for seed in range(60)]
    assert sum(map(bool, told)) <= 3, told


@pytest.mark.parametrize(
    ("shares", "within"),
    [
        ([0.98] * 2 + [0.3] * 20, 5),  # at once
        ([0.98] * 30 + [0.3] * 20, 5),  # late
        ([0.98] * 3 + [0.7, 0.5, 0.3, 0.1] + [0.02] * 20, 5),  # by and by
    ],
)
def test_a_fall_of_ended_answers_is_reported_soon(shares: Sequence[float], within: int) -> None:
    begun = sum(share == 0.98 for share in shares)
    for seed in range(40):
        told = iterations_until_told(shares, 16, 1, seed)
        assert begun < told <= begun + within, (seed, told)
