"""PPO by hand, against slow loops, and on small policies."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch.testing import assert_close

from groundup.align.config import PPOConfig
from groundup.align.online import Online, open_online
from groundup.align.ppo import (
    RATES,
    ActorCritic,
    Drift,
    KLController,
    PPOBatch,
    PPORollouts,
    clipped_policy_loss,
    clipped_value_loss,
    explained_variance,
    gae,
    ppo_job,
    ppo_loss,
    whiten,
)
from groundup.align.rewards.model import load_reward_model, read_at_end, scores_of
from groundup.align.rollout import Rollout
from groundup.errors import UserError
from groundup.formats.load import load_model
from groundup.runs.files import read_lines
from groundup.runs.folder import Run
from groundup.text.batches import packed_batch
from groundup.train.batch import Batch
from groundup.train.device import find_compiler
from groundup.train.optim import Optimizer, Rates
from rollouts import concatenated, length_reward, online, small_config, small_policy, train

numbers = st.floats(-10, 10, width=32)
shares = st.sampled_from([0.0, 0.3, 0.95, 1.0])


# Advantages.


def test_three_tokens_by_hand() -> None:
    # gamma = lambda = 1/2, so that gamma lambda = 1/4.
    rewards, values = np.array([1.0, 0.0, 2.0]), np.array([0.5, 1.0, -1.0])
    # t = 3: nothing follows.    delta = 2 - (-1)             = 3      A = 3
    # t = 2: V_3 = -1 follows.   delta = 0 + 1/2 (-1) - 1     = -3/2   A = -3/2 + 1/4 3    = -3/4
    # t = 1: V_2 = 1 follows.    delta = 1 + 1/2 1 - 1/2      = 1      A = 1 + 1/4 (-3/4)  = 13/16
    advantages, returns = gae(rewards, values, 0.5, 0.5)
    assert advantages.tolist() == [13 / 16, -3 / 4, 3]
    # R = A + V
    assert returns.tolist() == [13 / 16 + 0.5, -3 / 4 + 1, 3 - 1]


def slow_gae(rewards: Sequence[float], values: Sequence[float], gamma: float, lam: float) -> Any:
    """Schulman et al. 2016, equation 16, term by term."""
    count, ahead = len(rewards), [*values, 0.0]
    deltas = [rewards[t] + gamma * ahead[t + 1] - ahead[t] for t in range(count)]
    return [sum((gamma * lam) ** k * deltas[t + k] for k in range(count - t)) for t in range(count)]


@given(st.lists(st.tuples(numbers, numbers), min_size=1, max_size=12), shares, shares)
def test_advantages_equal_the_papers_sum(
    tokens: list[tuple[float, float]], gamma: float, lam: float
) -> None:
    rewards, values = np.array(tokens).T
    advantages, returns = gae(rewards, values, gamma, lam)
    np.testing.assert_allclose(
        advantages, slow_gae(*zip(*tokens, strict=True), gamma, lam), atol=1e-9
    )
    np.testing.assert_allclose(returns, advantages + values, atol=1e-9)


@given(st.lists(st.tuples(numbers, numbers), min_size=1, max_size=12), shares)
def test_lambda_1_is_return_minus_value_and_lambda_0_is_one_step(
    tokens: list[tuple[float, float]], gamma: float
) -> None:
    rewards, values = np.array(tokens).T
    count = len(tokens)
    came = [sum(gamma**k * rewards[t + k] for k in range(count - t)) for t in range(count)]
    np.testing.assert_allclose(gae(rewards, values, gamma, 1.0)[0], came - values, atol=1e-9)
    error = rewards + gamma * np.append(values[1:], 0) - values
    np.testing.assert_allclose(gae(rewards, values, gamma, 0.0)[0], error, atol=1e-9)


def test_advantages_are_whitened_over_all_tokens() -> None:
    answers = [np.array([1.0, 2.0, 6.0]), np.array([-5.0])]
    # Mean 1; squares of 0, 1, 5, -6 sum to 62, over four tokens 15.5.
    expected = [np.array([0, 1, 5]) / math.sqrt(15.5), np.array([-6]) / math.sqrt(15.5)]
    for found, want in zip(whiten(answers), expected, strict=True):
        np.testing.assert_allclose(found, want, rtol=1e-6)
    assert whiten([np.array([3.0]), np.array([3.0, 3.0])])[1].tolist() == [0, 0]


# Losses.


def per_token(loss: Any, *columns: torch.Tensor) -> tuple[list[float], list[float]]:
    """Each token's loss by plain arithmetic, and its slope with respect to the first column."""
    found = [loss(*row) for row in zip(*(c.tolist() for c in columns), strict=True)]
    return [value for value, _ in found], [slope for _, slope in found]


def slow_policy_loss(new: float, old: float, advantage: float) -> tuple[float, float]:
    """Schulman et al. 2017, equation 7, by cases; its slope in log pi is -A ratio or 0."""
    ratio = math.exp(new - old)
    if advantage >= 0:
        inside = ratio <= 1.3
        return -advantage * min(ratio, 1.3), -advantage * ratio if inside else 0.0
    inside = ratio >= 0.8
    return -advantage * max(ratio, 0.8), -advantage * ratio if inside else 0.0


def test_the_policys_loss_and_gradient_equal_the_papers() -> None:
    generator = torch.Generator().manual_seed(0)
    new, old, advantages = torch.randn(3, 200, generator=generator, dtype=torch.float64)
    new = (old + 0.5 * new).requires_grad_()
    losses, ratio = clipped_policy_loss(new, old, advantages, 0.2, 0.3)
    values, slopes = per_token(slow_policy_loss, new.detach(), old, advantages)
    np.testing.assert_allclose(losses.detach(), values, rtol=1e-12)
    np.testing.assert_allclose(ratio.detach(), (new - old).detach().exp(), rtol=1e-12)
    [gradient] = torch.autograd.grad(losses.sum(), new)
    np.testing.assert_allclose(gradient, slopes, rtol=1e-12)
    assert 20 < sum(slope == 0 for slope in slopes) < 180
    same = clipped_policy_loss(new, old, advantages, 0.2)[0]
    assert_close(same, clipped_policy_loss(new, old, advantages, 0.2, 0.2)[0])


def test_a_ratio_beyond_float32_is_clipped_and_only_the_policy_learns() -> None:
    new, old, advantages = (
        torch.tensor(values, requires_grad=True)
        for values in ([0.0, 0.0, 0.1], [-100.0, -100.0, 0.0], [1.0, 0.0, 1.0])
    )
    losses, _ = clipped_policy_loss(new, old, advantages, 0.2)
    losses.sum().backward()
    assert losses.tolist() == pytest.approx([-1.2, 0.0, -math.exp(0.1)])
    assert new.grad is not None
    assert new.grad.tolist() == pytest.approx([0.0, 0.0, -math.exp(0.1)])
    assert old.grad is None and advantages.grad is None


def slow_value_loss(value: float, old: float, goal: float) -> tuple[float, float]:
    clipped = min(max(value, old - 0.2), old + 0.2)
    free, held = (value - goal) ** 2, (clipped - goal) ** 2
    if free >= held:
        return free / 2, value - goal
    return held / 2, value - goal if value == clipped else 0.0


def test_the_values_loss_and_gradient_equal_a_slow_loop() -> None:
    generator = torch.Generator().manual_seed(1)
    values, old, returns = torch.randn(3, 200, generator=generator, dtype=torch.float64)
    values.requires_grad_()
    losses = clipped_value_loss(values, old, returns, 0.2)
    expected, slopes = per_token(slow_value_loss, values.detach(), old, returns)
    np.testing.assert_allclose(losses.detach(), expected, rtol=1e-12)
    [gradient] = torch.autograd.grad(losses.sum(), values)
    np.testing.assert_allclose(gradient, slopes, rtol=1e-12, atol=1e-15)
    assert 10 < sum(slope == 0 for slope in slopes) < 190


# The KL coefficient.


def test_the_kl_coefficient_follows_the_kl() -> None:
    kl = KLController(0.1, target=4.0, horizon=1000)
    kl.update(4.4, 100)  # a tenth too far: times 1 + 0.1 * 100 / 1000
    assert kl.coef == pytest.approx(0.101)
    kl.update(400.0, 100)  # never by more than a fifth of that
    assert kl.coef == pytest.approx(0.101 * 1.02)
    kl.update(-3.0, 500)
    assert kl.coef == pytest.approx(0.101 * 1.02 * 0.9)
    fixed = KLController(0.1, target=None, horizon=1000)
    fixed.update(400.0, 100)
    assert fixed.coef == 0.1


def test_explained_variance() -> None:
    returns = [np.array([1.0, 2.0]), np.array([6.0])]
    assert explained_variance(returns, returns) == 1
    assert explained_variance([np.full(2, 9.0), np.full(1, 9.0)], returns) == pytest.approx(0)
    # Errors -1, 1, 0 have variance 2/3, the returns 14/3.
    said = [np.array([2.0, 1.0]), np.array([6.0])]
    assert explained_variance(said, returns) == pytest.approx(1 - (2 / 3) / (14 / 3))
    assert explained_variance(said, [np.ones(2), np.ones(1)]) == 0


# An iteration.

COMPILED = """
import json
from pathlib import Path

from groundup.align.config import PPOConfig
from groundup.align.ppo import ActorCritic, Drift, PPORollouts, ppo_loss
from rollouts import concatenated, length_reward, online, small_config, small_policy

policy = small_policy()
model = ActorCritic(policy)
model.compile_blocks()
model.train()
config, drift = small_config(PPOConfig, Path("x"), critic_warmup=0), Drift()
rollouts = PPORollouts(config, online(config, policy, length_reward), drift, 100)
found = []
for batch in concatenated(rollouts.roll(0, 0, model)):
    loss = ppo_loss(model, batch, config, drift)
    loss.total.backward()
    found.append([loss.metrics["moved_kl"][0], loss.metrics["clipped"][0]])
print(json.dumps(found))
"""


def rolled(
    model: ActorCritic, parts: Online, iteration: int = 0
) -> tuple[list[list[PPOBatch]], Any]:
    """The minibatches of an iteration and the metrics that change during training."""
    drift = Drift()
    assert isinstance(parts.config, PPOConfig)
    batches = PPORollouts(parts.config, parts, drift, 100).roll(iteration, 0, model)
    return batches, functools.partial(ppo_loss, config=parts.config, drift=drift)


def test_ratios_are_one_at_the_first_minibatch() -> None:
    policy = small_policy()
    model = ActorCritic(policy)
    parts = online(small_config(PPOConfig, Path("x")), policy, length_reward)
    sampled = parts.sampled(policy, 0)
    facts = parts.facts(
        policy, sampled, parts.minibatches(policy, sampled.rollouts), model.expected
    )
    assert all((kl == 0).all() for kl in facts.kl)
    assert facts.sampled_kl() == 0 == facts.exact_kl()
    assert all((values == 0).all() for values in facts.values)
    minibatches, loss = rolled(model, parts)
    for minibatch in minibatches:
        for batch in minibatch:
            found = loss(model, batch)
            assert found.metrics["moved_kl"][0] == 0 == found.metrics["clipped"][0]
            assert_close(batch.old_logprobs, batch.reference_logprobs, rtol=0, atol=0)
            # With a ratio of exactly 1 the loss is the advantages' negative sum, exactly.
            assert found.metrics["policy_loss"][0] == float((-batch.advantages).sum())


@pytest.mark.long
@pytest.mark.skipif(find_compiler() is None, reason="needs a C++ compiler")
def test_ratios_are_one_with_a_compiled_policy() -> None:
    # A separate process, because functions with type checks cannot be compiled.
    path = os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", COMPILED],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": path},
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert len(found) >= 2 and all(one == [0, 0] for one in found), found


def test_rewards_and_kl_penalties_are_at_their_tokens() -> None:
    """The returns for gamma = lambda = 1 are the sums of later rewards, which are known."""
    policy, other = small_policy(), small_policy(1)
    config = small_config(PPOConfig, Path("x"), kl_coef=0.3, gae_lambda=1.0, missing_eos_penalty=7)
    parts = online(config, policy, length_reward, reference=other)
    rollouts = parts.sampled(policy, 0).rollouts
    minibatches, _ = rolled(ActorCritic(policy), parts)
    laid = parts.minibatches(policy, rollouts)
    for batch, one in zip(concatenated(minibatches), concatenated(laid), strict=True):
        apart = (batch.old_logprobs - batch.reference_logprobs).double().tolist()
        returns = batch.returns.tolist()
        for member in one.members:
            answer = rollouts[member]
            count = len(answer.ids)
            reward = length_reward([answer])[0] if answer.ended else -7
            for t in range(count):
                assert returns[t] == pytest.approx(reward - 0.3 * sum(apart[t:count]), abs=1e-3)
            apart, returns = apart[count:], returns[count:]
    weights = torch.cat([batch.advantages for batch in concatenated(minibatches)])
    assert weights.mean() == pytest.approx(0, abs=1e-5)
    assert weights.std(correction=0) == pytest.approx(1, abs=1e-5)


def trained_a_little(seed: int = 2) -> ActorCritic:
    """A policy and a critic other than those that sampled."""
    model = ActorCritic(small_policy())
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.02 * torch.randn(parameter.shape, generator=generator)
    return model


def slow_loss(model: ActorCritic, batch: PPOBatch, config: PPOConfig) -> float:
    """The module's equation in float64, token after token, from the whole logits."""
    model = model.double()
    with torch.no_grad():
        hidden = model.policy(batch.rows)
        logprobs = (hidden @ model.policy.head.T).log_softmax(-1)
        values = (hidden @ model.value_head.weight.T)[..., 0]
    total = 0.0
    places = batch.rows.weights.nonzero().tolist()
    for t, (row, place) in enumerate(places):
        drawn = int(batch.rows.targets[row, place])
        ratio = math.exp(float(logprobs[row, place, drawn]) - float(batch.old_logprobs[t]))
        advantage = float(batch.advantages[t])
        near = min(max(ratio, 1 - config.clip_range), 1 + config.clip_range)
        total += max(-advantage * ratio, -advantage * near)
        value, old, goal = (
            float(x) for x in (values[row, place], batch.values[t], batch.returns[t])
        )
        clipped = min(max(value, old - config.value_clip_range), old + config.value_clip_range)
        total += config.value_coef / 2 * max((value - goal) ** 2, (clipped - goal) ** 2)
        p = logprobs[row, place].exp()
        total += config.entropy_coef * float((p * p.log()).sum())
    return total


def test_the_whole_loss_equals_a_slow_loop() -> None:
    policy = small_policy()
    ranges = {"clip_range": 0.1, "value_clip_range": 0.3}
    settings = {"entropy_coef": 0.05, "value_coef": 0.7, "critic_warmup": 0}
    config = small_config(PPOConfig, Path("x"), **settings, **ranges)
    parts = online(config, policy, length_reward)
    minibatches, loss = rolled(ActorCritic(policy), parts)
    model = trained_a_little()
    for batch in concatenated(minibatches):
        found = loss(model, batch)
        expected = slow_loss(trained_a_little(), batch, config)
        assert float(found.total.detach()) == pytest.approx(expected, rel=1e-4)
        assert found.weight == batch.weight == int((batch.rows.weights > 0).sum())
        assert found.metrics["clipped"][0] > 0
        # Each range is different, and matters here.
        for name in ranges:
            other = config.model_copy(update={name: 0.2})
            changed = slow_loss(trained_a_little(), batch, other)
            assert changed != pytest.approx(expected, rel=2e-4), name


def test_padding_and_packing_do_not_change_loss_and_gradient() -> None:
    policy = small_policy()

    def found(change: Any, **layout: Any) -> tuple[float, torch.Tensor]:
        config = small_config(PPOConfig, Path("x"), critic_warmup=0, **layout)
        minibatches, loss = rolled(ActorCritic(policy), online(config, policy, length_reward))
        model = trained_a_little()
        total = sum(loss(model, change(batch)).total for batch in concatenated(minibatches))
        total.backward()
        assert model.policy.head.grad is not None
        return float(total.detach()), model.policy.head.grad

    def soiled(batch: PPOBatch) -> PPOBatch:
        rows = batch.rows
        padding = rows.segment_ids < 0
        assert padding.any()
        dirty = Batch(
            torch.where(padding, 33, rows.input_ids),
            torch.where(padding, 44, rows.targets),
            rows.weights,
            rows.position_ids,
            rows.segment_ids,
        )
        return dataclasses.replace(batch, rows=dirty)

    total, gradient = found(lambda batch: batch)
    size = float(gradient.norm())
    for other_total, other in (
        found(soiled),
        found(lambda batch: batch, micro_rows=1),
        found(lambda batch: batch, minibatches=16),  # each answer alone
    ):
        assert other_total == pytest.approx(total, rel=1e-5)
        assert float((other - gradient).norm()) < 1e-5 * size


def test_the_policy_does_not_change_during_the_critics_warmup(tmp_path: Path) -> None:
    policy = small_policy()
    config = small_config(PPOConfig, tmp_path / "out", critic_warmup=2, iterations=8)
    lines = train(config, policy, length_reward)
    steps = [line for line in lines if line["kind"] == "train"]
    assert len(steps) == 32 and steps[3]["value_loss"] < steps[0]["value_loss"]
    assert all(step["moved_kl"] == 0 for step in steps[:8])
    assert any(step["moved_kl"] > 0 for step in steps[8:])
    # A policy that had moved would differ from its reference.
    kl = [line["exact_kl"] for line in lines if line["kind"] == "rollout"]
    assert kl[:3] == [0, 0, 0] and kl[-1] > 0


def test_patience_is_not_used_up_during_the_warmup(tmp_path: Path) -> None:
    settings = {"iterations": 8, "evaluations": 8, "patience": 1, "critic_warmup": 3}
    config = small_config(PPOConfig, tmp_path / "out", **settings)
    lines = train(config, small_policy(), length_reward)
    found = [line for line in lines if line["kind"] == "evaluation"]
    assert [line.get("counts", True) for line in found[:5]] == [True, False, False, False, True]
    assert len({line["negative_reward"] for line in found[:4]}) == 1


def test_the_kl_coefficient_does_not_change_during_the_warmup(tmp_path: Path) -> None:
    settings = {"kl_coef": 0.1, "kl_target": 2.0, "kl_horizon": 16, "iterations": 4}
    config = small_config(PPOConfig, tmp_path / "out", critic_warmup=2, **settings)
    lines = train(config, small_policy(), length_reward)
    prices = [line["kl_coef"] for line in lines if line["kind"] == "rollout"]
    # The third answers are of the policy as it was, too, and are judged: it is free to move.
    assert prices[:3] == [0.1, 0.1, 0.1] and prices[3] == pytest.approx(0.08)


def test_an_endless_critic_warmup_is_rejected(tmp_path: Path) -> None:
    for many in ({"iterations": 2}, {"iterations": None, "steps": 8}):
        config = small_config(
            PPOConfig, tmp_path / f"out-{many['iterations']}", critic_warmup=2, **many
        )
        with pytest.raises(UserError, match="critic_warmup=2 leaves the policy none of the 2"):
            train(config, small_policy(), length_reward)


def test_the_critics_warmup_takes_at_most_a_quarter_of_the_iterations(tmp_path: Path) -> None:
    policy = small_policy()
    config = small_config(PPOConfig, tmp_path / "out", critic_warmup=None, iterations=3)
    lines = train(config, policy, length_reward)
    assert any(line["moved_kl"] > 0 for line in lines if line["kind"] == "train")


def test_few_whitened_answers_are_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for episodes in (7, 8):
        settings = {"episodes": episodes, "minibatches": 1, "iterations": 1}
        config = small_config(PPOConfig, tmp_path / f"out-{episodes}", **settings)
        train(config, small_policy(), length_reward)
        told = "with fewer than 8 (episodes=7) their mean and deviation are mostly noise"
        assert (told in "".join(capsys.readouterr())) == (episodes < 8)


def rolls(lines: list[dict[str, Any]]) -> list[int]:
    return [line["step"] for line in lines if line["kind"] == "rollout"]


def test_an_iteration_ends_when_the_policy_has_moved_too_far(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"critic_warmup": 0, "iterations": 2}
    whole = small_config(PPOConfig, tmp_path / "whole", **settings)
    lines = train(whole, small_policy(), length_reward)
    assert rolls(lines) == [1, 5]
    moved = [line["moved_kl"] for line in lines if line["kind"] == "train"]
    assert moved[0] == 0 == moved[4] and min(moved[1:4]) > 0
    # The first step finds a policy that has not moved, the second one that has: there it ends.
    short = small_config(PPOConfig, tmp_path / "short", kl_stop=1e-9, **settings)
    assert rolls(train(short, small_policy(), length_reward)) == [1, 3, 5, 7]
    far = small_config(PPOConfig, tmp_path / "far", kl_stop=1000.0, **settings)
    assert rolls(train(far, small_policy(), length_reward)) == [1, 5]


def test_drift_is_that_of_the_latest_step() -> None:
    drift = Drift()
    assert not drift.beyond(0.15)
    for steps, moved in ((1, 0.0), (2, 0.1), (3, 0.2)):
        for tokens in (30, 10):  # micro-batches
            drift.nats, drift.tokens = drift.nats + moved * tokens, drift.tokens + tokens
        # The mean of the three steps is 0.1; the policy is at 0.2.
        assert drift.beyond(0.15) is (steps == 3)
        assert drift.beyond(0.15) is (steps == 3)  # saving asks as well
        assert drift.beyond(None) is False
    drift.reset()
    assert not drift.beyond(0.0)


def test_an_iteration_ends_by_the_latest_step_not_by_the_mean(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"critic_warmup": 0, "iterations": 1, "ppo_epochs": 4}
    whole = small_config(PPOConfig, tmp_path / "whole", **settings)
    lines = train(whole, small_policy(), length_reward)
    moved = [line["moved_kl"] for line in lines if line["kind"] == "train"]
    # A limit that a step is beyond, and the mean up to there, with the first step's 0, is not.
    steps, limit = next(
        (n, (np.mean(moved[:n]) + moved[n - 1]) / 2)
        for n in range(2, 9)
        if moved[n - 1] > 1.2 * np.mean(moved[:n]) and moved[n - 1] == max(moved[:n])
    )
    expected = next(n for n in range(1, 9) if moved[n - 1] > limit)
    assert expected <= steps < 8
    short = small_config(PPOConfig, tmp_path / "short", kl_stop=float(limit), **settings)
    assert rolls(train(short, small_policy(), length_reward))[:2] == [1, expected + 1]


# Critics and adapters.


def job_of(config: PPOConfig, folder: Path) -> Any:
    with Run.open(folder, "ppo", config, {}, {}) as run:
        return ppo_job(config, open_online(config, run, RATES))


def settings_for(workshop: Any, out: Path, **changes: Any) -> PPOConfig:
    given = {
        "model": workshop.finished("sft"),
        "prompts": workshop.data,
        "reward": str(workshop.finished("reward")),
        "out": out,
        "episodes": 8,
        "minibatches": 2,
        "iterations": 2,
        "max_new_tokens": 12,
        "threads": 1,
        "dtype": "float32",
        "compile": "off",
    }
    return PPOConfig(**(given | changes))


def test_a_critic_from_a_reward_model_starts_with_its_scores(workshop: Any, tmp_path: Path) -> None:
    folder = workshop.finished("reward")
    config = settings_for(workshop, tmp_path / "out", critic=folder)
    model = job_of(config, tmp_path / "out").model()
    assert isinstance(model, ActorCritic) and model.critic is not None
    assert all(parameter.requires_grad for parameter in model.parameters())
    ids = [5, 6, 7, 8, 9, 10, 11]
    answer = Rollout(config_prompt(ids[:3]), tuple(ids[3:]), (0.0,) * 4, "", False)
    rows = packed_batch([[answer.example]], 16)
    with torch.no_grad():
        found = model.expected(model.policy(rows), rows)[:, 0]
    reward = load_reward_model(folder)
    # The state before a token has read the tokens before it.
    prefixes = [read_at_end(ids[:end], 64) for end in range(3, 7)]
    expected = (scores_of(reward, prefixes, 64) - reward.mean) / reward.deviation
    np.testing.assert_allclose(found, expected, atol=1e-4)


def config_prompt(ids: Sequence[int]) -> Any:
    from groundup.align.prompts import Prompt

    return Prompt(tuple(ids))


def test_a_critic_with_an_adapter_has_the_rate_of_a_whole_model(
    workshop: Any, tmp_path: Path
) -> None:
    beside: dict[str, Any] = {"critic": workshop.finished("reward"), "adapter": "lora"}
    for name, rate in (("own", RATES[0]), ("given", 0.002)):
        more = {"critic_learning_rate": rate} if name == "given" else {}
        config = settings_for(workshop, tmp_path / name, **beside, lora_rank=4, **more)
        job = job_of(config, tmp_path / name)
        rates = Rates(1e-5, 1e-5, 1e-5, head=1e-3, critic=job.trained.critic_rate)
        optimizer = Optimizer(job.model(), rates, muon=False)
        found: dict[str, set[float]] = {"critic": set(), "policy": set()}
        for label, master in optimizer.masters.items():
            [group] = [
                group
                for group in optimizer.adamw.param_groups
                if any(master is one for one in group["params"])
            ]
            if not label.startswith("value_head"):
                found[label.split(".")[0]].add(group["lr"])
        assert found == {"critic": {rate}, "policy": {1e-5}}
    with pytest.raises(ValueError, match=r"critic_learning_rate=0\.002 needs a separate critic"):
        small_config(PPOConfig, Path("x"), critic_learning_rate=0.002)


def test_a_separate_critic_is_trained(workshop: Any, tmp_path: Path) -> None:
    out = tmp_path / "out"
    folder = workshop.finished("reward")
    words = workshop.command("ppo", out, critic=folder, steps=8, critic_warmup=1)
    code, said = workshop.run_here(words)
    assert code == 0, said
    lines = read_lines(out / "metrics.jsonl")
    assert all(math.isfinite(line["loss"]) for line in lines if line["kind"] == "train")
    # Only the policy is saved.
    names = load_file(out / "model.safetensors").keys()
    assert names == load_file(workshop.finished("sft") / "model.safetensors").keys()


def test_an_adapters_reference_is_the_model_without_it(workshop: Any, tmp_path: Path) -> None:
    base = load_model(workshop.finished("sft"))
    config = settings_for(workshop, tmp_path / "in", adapter="lora", lora_rank=4)
    with Run.open(tmp_path / "in", "ppo", config, {}, {}) as run:
        parts = open_online(config, run, RATES)
    policy = parts.prepared.model
    with torch.no_grad():
        for name, parameter in policy.named_parameters():
            if parameter.requires_grad:
                assert "lora" in name
                parameter += 0.05
    rows = packed_batch([[one] for one in [read_at_end(range(5, 30), 64)]], 32)
    with torch.no_grad():
        with parts.reference.of(policy)() as reference:
            without = reference(rows)
        assert_close(without, base(rows), rtol=0, atol=1e-6)
        assert float((policy(rows) - without).abs().max()) > 0.01


def test_an_adapter_is_trained_and_its_base_is_not(workshop: Any, tmp_path: Path) -> None:
    out = tmp_path / "out"
    rates = {"learning_rate": 0.02, "embedding_learning_rate": None}
    command = workshop.command("ppo", out, adapter="lora", lora_rank=4, **rates)
    before = (workshop.finished("sft") / "model.safetensors").read_bytes()
    code, said = workshop.run_here(command)
    assert code == 0, said
    kl = [line["exact_kl"] for line in read_lines(out / "metrics.jsonl") if "exact_kl" in line]
    assert kl[0] == 0 and kl[-1] > 0.001
    assert not (out / "model.safetensors").exists()
    assert (workshop.finished("sft") / "model.safetensors").read_bytes() == before
    tensors = load_file(out / "adapter_model.safetensors")
    assert all("lora" in name for name in tensors)
    assert any(t.abs().max() > 0 for name, t in tensors.items() if "lora_B" in name)


def test_the_kl_coefficient_never_changes_its_sign() -> None:
    controller = KLController(0.05, 1.0, 2)
    for kl in (0.0, 5.0, 0.0, 0.0):
        controller.update(kl, 256)
        assert controller.coef > 0
