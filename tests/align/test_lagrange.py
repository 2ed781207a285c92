"""The multiplier by hand, and a bandit with a known optimum under a limit."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from groundup.align.config import BestOfNConfig, PPOConfig
from groundup.align.lagrange import Multiplier
from groundup.align.ppo import ActorCritic, Drift, PPORollouts, ppo_job
from groundup.align.prompts import Prompt
from groundup.align.rollout import Rollout
from groundup.lm.model import CausalLM
from groundup.runs.files import read_lines
from groundup.runs.folder import Run
from groundup.train.batch import Batch
from groundup.train.ranges import ranges
from groundup.train.stage import Job, run_stage
from rollouts import VOCAB, concatenated, length_reward, online, small_config, small_policy


def test_the_multiplier_by_hand() -> None:
    found = Multiplier(2.0, limit=0.1, rate=0.5)
    found.update(0.3)  # ln 2 + 1/2 * 2 * (3/10 - 1/10)
    assert found.value == pytest.approx(2 * math.exp(0.2))
    found = Multiplier(2.0, limit=0.1, rate=0.5)
    found.update(0.0)  # ln 2 - 1/2 * 2 * 1/10
    assert found.value == pytest.approx(2 * math.exp(-0.1))
    found.update(0.1)
    assert found.value == pytest.approx(2 * math.exp(-0.1))


def test_advantages_are_combined_by_hand() -> None:
    rewards, costs = [np.array([1.0, 0.0]), np.array([3.0])], [np.array([0.5, -1]), np.array([0.0])]
    found = Multiplier(2.0, 0.0, 1.0).combined(rewards, costs)
    # (1 - 2/2) / 3, (0 + 2) / 3 and 3 / 3.
    assert [one.tolist() for one in found] == [[0, pytest.approx(2 / 3)], [1]]


def test_the_multiplier_stays_above_0_and_finite() -> None:
    found = Multiplier(1.0, limit=0.0, rate=1.0)
    for _ in range(200):
        found.update(1000.0)
    assert math.isfinite(found.value)
    for _ in range(200):
        found.update(-1000.0)
    assert found.value > 0
    found.update(1.0)
    assert found.value > 0


def test_every_allowed_multiplier_is_kept() -> None:
    [allowed] = ranges(PPOConfig.model_fields["cost_multiplier"])
    assert allowed.least is not None and allowed.most is not None
    for given in (allowed.least, 1.0, allowed.most):
        found = Multiplier(given, limit=0.2, rate=1.0)
        found.update(0.2)  # at its limit: nothing moves
        assert found.value == pytest.approx(given)


def test_a_limit_may_be_below_the_mean() -> None:
    """A learned cost is scaled to mean 0, so a limit of 0 has no effect."""
    given: dict[str, Any] = {"out": "o", "model": "m", "prompts": "p", "reward": "r"}
    assert PPOConfig(**given, cost="c", cost_limit=-0.5).cost_limit == -0.5
    assert BestOfNConfig(**given, min_reward=-0.5).min_reward == -0.5


# The bandit: 64 arms, each an answer of one token. One is worth most and costs most.

RICH, FAIR, LIMIT = 40, 41, 0.2
WORTH, COSTS = {RICH: 1.0, FAIR: 0.6}, {RICH: 1.0}


def worth(rollouts: Sequence[Rollout], /) -> list[float]:
    return [WORTH.get(one.ids[0], 0.0) for one in rollouts]


def costs(rollouts: Sequence[Rollout], /) -> list[float]:
    return [COSTS.get(one.ids[0], 0.0) for one in rollouts]


def bandit(
    out: Path, reward: Any, cost: Any = None, asked: int = 1, **changes: Any
) -> tuple[CausalLM, Any]:
    policy = small_policy(0, ends=range(VOCAB), spread=0.1)
    settings: dict[str, Any] = {
        "max_new_tokens": 1,
        "episodes": 128,
        "iterations": 60,
        "heldout_prompts": asked,
        "learning_rate": 0.002,
        "embedding_learning_rate": 0.002,
        "critic_warmup": 0,
        "kl_coef": 0.0,
        **changes,
    }
    if cost is not None:
        settings |= {"cost": "a function", "cost_limit": LIMIT}
    config = small_config(PPOConfig, out, **settings)

    def job(run: Run) -> Job[Any, Any]:
        parts = online(config, policy, reward, prompts=[Prompt((15,))] * asked, run=run)
        return ppo_job(config, dataclasses.replace(parts, cost=cost))

    run_stage(config, "test", {}, job)
    return policy, read_lines(out / "metrics.jsonl")


def last(lines: Any, name: str) -> float:
    return float(np.mean([line[name] for line in lines if line["kind"] == "rollout"][-20:]))


def best(multiplier: float, price: float) -> tuple[float, float]:
    """The worth and the cost of the policy with the most of r - lambda c less nats.

    That is pi ~ reference exp((r - lambda c) / price).
    """
    reference = small_policy(0, ends=range(VOCAB), spread=0.1)
    with torch.no_grad():
        before = reference.logits(Batch.of(torch.tensor([[15]])))[0, 0].double().log_softmax(-1)
    value, cost = (
        torch.tensor([of.get(arm, 0.0) for arm in range(len(before))]).double()
        for of in (WORTH, COSTS)
    )
    policy = (before + (value - multiplier * cost) / price).softmax(-1)
    return float(policy @ value), float(policy @ cost)


@pytest.mark.long
def test_the_limit_is_met_and_the_reward_is_maximal(tmp_path: Path) -> None:
    """With a KL coefficient, the best policy under the limit and its multiplier are known."""
    price, low, high = 0.1, 0.0, 10.0
    for _ in range(40):  # the cost of the best policy falls with lambda
        multiplier = (low + high) / 2
        low, high = (low, multiplier) if best(multiplier, price)[1] < LIMIT else (multiplier, high)
    most, _ = best(multiplier, price)
    _, lines = bandit(
        *(tmp_path / "out", worth, costs),
        kl_coef=price,
        cost_rate=1.0,
        iterations=60,
        decay=0.0,
        learning_rate=0.001,
        embedding_learning_rate=0.001,
    )
    assert last(lines, "cost") == pytest.approx(LIMIT, abs=0.03)
    assert last(lines, "multiplier") == pytest.approx(multiplier, rel=0.1)
    assert last(lines, "reward") == pytest.approx(most, abs=0.03)
    # Without the limit it would cost more than twice as much; at a weight of 1, a plausible guess,
    # it would earn less than the limit allows.
    assert best(0.0, price)[1] > 2 * LIMIT
    assert best(1.0, price)[0] < last(lines, "reward") - 0.02


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        ((0.1, 0.2), (900.0, 0.21)),  # a reward and a cost
        ((0.2, 0.1), (0.1, 0.0)),  # within the limit the reward counts alone
        ((0.0, 0.3), (900.0, 0.4)),  # and beyond it what is beyond
        ((0.2, 0.3), (0.1, 0.3)),
    ],
)
def test_patience_considers_the_limit_first(
    tmp_path: Path, better: tuple[float, float], worse: tuple[float, float]
) -> None:
    config = small_config(PPOConfig, tmp_path / "out", cost="a function", cost_limit=LIMIT)
    policy = small_policy(ends=range(VOCAB))

    def judged(worth: float, cost: float) -> float:
        parts = online(config, policy, lambda rollouts, /: [worth] * len(rollouts))
        parts.cost = lambda rollouts, /: [cost] * len(rollouts)
        found = parts.evaluate(policy, 0)
        assert found["heldout_reward"]["estimate"] == pytest.approx(worth)
        return float(found["negative_reward"])

    assert judged(*better) < judged(*worse)


def test_the_best_weights_satisfy_the_limit(tmp_path: Path) -> None:
    """With a multiplier that hardly moves, the highest reward is learned at any cost."""
    policy, lines = bandit(
        *(tmp_path / "out", worth, costs, 256),
        cost_rate=1e-6,
        cost_multiplier=0.01,
        iterations=12,
        evaluations=12,
        patience=12,
    )
    measured = [line for line in lines if line["kind"] == "evaluation"]
    spent = [line["heldout_cost"]["estimate"] for line in measured]
    earned = [line["heldout_reward"]["estimate"] for line in measured]
    assert spent[-1] > 2 * LIMIT and earned[-1] > 2 * max(earned[:2])
    with torch.no_grad():
        kept = policy.logits(Batch.of(torch.tensor([[15]])))[0, 0].softmax(-1)
    assert kept[RICH] < 1.5 * LIMIT
    assert kept[RICH] + kept[FAIR] > 0.1  # and they have learned


def test_the_kl_penalty_is_part_of_the_reward_only(tmp_path: Path) -> None:
    """With rewards and costs of 0, the KL penalty remains: in A_r, and not in A_c."""

    def nothing(rollouts: Sequence[Rollout], /) -> list[float]:
        return [0.0] * len(rollouts)

    config = small_config(
        *(PPOConfig, tmp_path / "out"),
        kl_coef=0.3,
        missing_eos_penalty=0.0,
        cost="a function",
        cost_limit=0.0,
        cost_multiplier=3.0,
        critic_warmup=0,
    )
    policy, reference = small_policy(0), small_policy(1)
    parts = dataclasses.replace(online(config, policy, nothing, reference=reference), cost=nothing)
    rolled = PPORollouts(config, parts, Drift(), 2)
    [first, *_] = concatenated(rolled.roll(0, 0, ActorCritic(policy, heads=2)))
    assert first.cost_returns is not None and float(first.cost_returns.abs().max()) == 0
    assert float(first.returns.abs().max()) > 0.01


def test_both_heads_learn(tmp_path: Path) -> None:
    """The expected reward and the expected cost are separate."""

    def long(rollouts: Sequence[Rollout], /) -> list[float]:
        return [-2.0] * len(rollouts)

    policy = small_policy()
    config = small_config(
        PPOConfig,
        tmp_path / "out",
        iterations=51,
        critic_warmup=50,
        learning_rate=1e-12,  # the last iteration leaves the policy where it is
        embedding_learning_rate=1e-12,
        value_learning_rate=0.05,
        value_coef=1.0,
        cost="a function",
        cost_limit=0.0,
    )
    models = []

    def job(run: Run) -> Job[Any, Any]:
        parts = dataclasses.replace(online(config, policy, length_reward, run=run), cost=long)
        made = ppo_job(config, parts)
        models.append(made.model())
        return made

    run_stage(config, "test", {}, job)
    weight = models[0].value_head.weight
    assert weight.shape[0] == 2 and not torch.allclose(weight[0], weight[1], atol=0.01)
    rows = Batch.of(torch.tensor([[15, 16, 17]]))
    with torch.no_grad():
        expected = models[0].expected(
            policy(rows), dataclasses.replace(rows, weights=torch.ones(1, 3))
        )
    assert torch.allclose(expected[:, 1], torch.tensor(-2.0), atol=0.3)


def test_settings_without_a_cost_are_rejected() -> None:
    given: dict[str, Any] = {"out": "o", "model": "m", "prompts": "p", "reward": "r"}
    for wrong in ({"cost_limit": 0.1}, {"cost_rate": 2.0}, {"cost": "length:5"}):
        with pytest.raises(ValidationError, match="cost"):
            PPOConfig(**given, **wrong)
    PPOConfig(**given, cost="length:5", cost_limit=0.1)
