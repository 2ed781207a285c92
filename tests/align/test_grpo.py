"""GRPO against the papers' formulas, in padded form and slow loops."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch.testing import assert_close

from groundup.align.config import GRPOConfig
from groundup.align.grpo import (
    GRPORollouts,
    group_advantages,
    grpo_loss,
    kl_estimate,
    token_weights,
)
from groundup.align.rollout import RolloutBatch
from groundup.lm.model import CausalLM
from rollouts import PROMPTS, concatenated, length_reward, online, small_config, small_policy, train

LOSS_TYPES = ("dapo", "grpo", "dr_grpo")


# Advantages.


def test_two_groups_by_hand() -> None:
    rewards = np.array([1.0, 2.0, 3.0, 5.0, 5.0, 8.0])
    # Means 2 and 6; of a sample of three the deviations are 1 and sqrt(3).
    apart = [-1, 0, 1, -1, -1, 2]
    assert group_advantages(rewards, 3, scale=False).tolist() == apart
    deviations = np.repeat([1, math.sqrt(3)], 3)
    np.testing.assert_allclose(group_advantages(rewards, 3), apart / deviations, rtol=2e-4)
    exact = group_advantages(rewards, 3, eps=0)
    np.testing.assert_allclose(exact, apart / deviations, rtol=1e-12)


@given(arrays(np.float64, (4, 5), elements=st.floats(-10, 10, width=32)))
def test_advantages_depend_on_each_group_alone(rewards: np.ndarray) -> None:
    expected = []
    for group in torch.from_numpy(rewards):
        expected += ((group - group.mean()) / (group.std() + 1e-4)).tolist()
    np.testing.assert_allclose(group_advantages(rewards.ravel(), 5), expected, atol=1e-9)
    plain = group_advantages(rewards.ravel(), 5, scale=False).reshape(4, 5)
    np.testing.assert_allclose(plain, rewards - rewards.mean(1, keepdims=True), atol=1e-9)


def test_a_group_of_equal_rewards_has_no_gradient() -> None:
    assert group_advantages(np.array([3.0, 3, 3, 0, 1, 2]), 3)[:3].tolist() == [0, 0, 0]
    # Also where the mean of three tenths is not a tenth.
    assert group_advantages(np.full(6, 0.1), 3).tolist() == [0] * 6
    assert group_advantages(np.full(6, 0.7), 6, scale=False).tolist() == [0] * 6


# KL.


def test_the_estimate_is_k3_and_its_mean_is_the_exact_kl() -> None:
    generator = torch.Generator().manual_seed(0)
    ours, theirs = torch.randn(2, 30, 64, generator=generator, dtype=torch.float64).log_softmax(-1)
    found = torch.stack([kl_estimate(a, b) for a, b in zip(ours, theirs, strict=True)])
    ratio = theirs.exp() / ours.exp()
    assert_close(found, ratio - ratio.log() - 1)
    assert bool((found >= 0).all())
    # Over everything that could be drawn: unbiased.
    exact = (ours.exp() * (ours - theirs)).sum(-1)
    assert_close((ours.exp() * found).sum(-1), exact)
    assert kl_estimate(ours[0], ours[0]).tolist() == [0] * 64
    # Also in float32, where both are close.
    close = torch.full((1000,), -2.0), torch.full((1000,), -2.0) + torch.linspace(-1e-3, 1e-3, 1000)
    apart = (close[1] - close[0]).double()
    assert_close(kl_estimate(*close).double(), apart.expm1() - apart, rtol=1e-2, atol=1e-12)
    assert bool((kl_estimate(*close) >= 0).all())


def test_the_estimate_is_finite_for_a_token_with_vanishing_probability() -> None:
    below = [-1.0, -40.0, -75.0]
    ours = torch.tensor([*below, -95.0, -200.0], requires_grad=True)
    theirs = torch.full((5,), -1.0)
    found = kl_estimate(ours, theirs)
    exact = [math.expm1(-1 - logprob) - (-1 - logprob) for logprob in below]
    assert_close(found[:3], torch.tensor(exact), rtol=1e-5, atol=0)
    assert bool(found.isfinite().all()) and bool((found[3:] > found[2]).all())
    [gradient] = torch.autograd.grad(found.sum(), ours)
    slopes = [-math.expm1(-1 - logprob) for logprob in below]
    assert_close(gradient[:3], torch.tensor(slopes), rtol=1e-5, atol=0)
    assert bool(gradient.isfinite().all())
    # What the policy likes far more than the reference is worth all of it.
    assert kl_estimate(theirs, ours.detach())[4] == 198


def test_a_group_of_one_is_rejected() -> None:
    with pytest.raises(ValueError, match="group_size=1"):
        group_advantages(np.array([1.0, 2.0]), 1)


# The loss.


def minibatches(policy: CausalLM, config: GRPOConfig, **parts: Any) -> list[RolloutBatch]:
    made = GRPORollouts(config, online(config, policy, length_reward, **parts))
    return concatenated(made.roll(0, 0, policy))


def settings(**changes: Any) -> GRPOConfig:
    config: GRPOConfig = small_config(
        GRPOConfig, Path("x"), **({"group_size": 4, "micro_rows": 64, "minibatches": 1} | changes)
    )
    return config


def moved(policy: CausalLM) -> CausalLM:
    """Another policy than the one that sampled."""
    other = small_policy()
    other.load_state_dict(policy.state_dict())
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter += 0.02 * torch.randn(parameter.shape, generator=generator)
    return other


def padded(batch: RolloutBatch, *columns: torch.Tensor) -> list[torch.Tensor]:
    """One row per answer, with the mask of its tokens first, as in the papers."""
    segments = batch.rows.segment_ids[batch.rows.weights > 0]
    parts = [segments == number for number in segments.unique()]
    longest = max(int(part.sum()) for part in parts)
    rows = torch.zeros(len(columns) + 1, len(parts), longest, dtype=torch.float64)
    for i, part in enumerate(parts):
        rows[0, i, : int(part.sum())] = 1
        for row, column in zip(rows[1:], columns, strict=True):
            row[i, : int(part.sum())] = column[part]
    return list(rows)


@pytest.mark.parametrize("loss_type", LOSS_TYPES)
@pytest.mark.parametrize("high", [None, 0.28])
@pytest.mark.parametrize("level", ["token", "sequence"])
def test_the_loss_equals_the_papers(loss_type: str, high: float | None, level: str) -> None:
    policy = small_policy()
    # A sequence's ratios are closer to 1.
    low = 0.2 if level == "token" else 0.02
    high = high if level == "token" or high is None else 0.028
    config = settings(
        loss_type=loss_type,
        kl_coef=0.3,
        clip_range=low,
        clip_range_high=high,
        importance_sampling_level=level,
    )
    [batch] = minibatches(policy, config, reference=small_policy(1))
    model = moved(policy)
    found = grpo_loss(model, batch, config)
    row, place = batch.rows.weights.nonzero(as_tuple=True)
    with torch.no_grad():
        logits = model.double().logits(batch.rows)
    new = logits.log_softmax(-1)[row, place, batch.rows.targets[row, place]]
    columns = new, batch.old_logprobs, batch.reference_logprobs, batch.advantages
    mask, new, old, reference, advantages = padded(batch, *columns)
    ratio = (new - old).exp()
    if level == "sequence":  # Zheng et al. 2025, equation 7
        ratio = ((new - old) * mask).sum(1, keepdim=True).div(mask.sum(1, keepdim=True)).exp()
        ratio = ratio.expand_as(mask)
    clipped = ratio.clamp(1 - low, 1 + (high or low))
    kl = (reference - new).exp() - (reference - new) - 1
    losses = (-torch.min(advantages * ratio, advantages * clipped) + 0.3 * kl) * mask
    lengths = mask.sum(1)
    expected = {
        "dapo": losses.sum() / lengths.sum(),  # Yu et al. 2025, equation 8
        "grpo": (losses.sum(1) / lengths).mean(),  # Shao et al. 2024, equation 3
        # Liu et al. 2025, section 3.1, with the budget of tokens as the constant
        "dr_grpo": losses.sum() / (16 * config.max_new_tokens),
    }[loss_type]
    assert len(set(lengths.tolist())) > 2
    assert float(found.total.detach()) / found.weight == pytest.approx(float(expected), rel=1e-4)
    assert found.weight == batch.weight
    assert found.metrics["reference_kl"][0] == pytest.approx(float((kl * mask).sum()), rel=1e-4)
    outside = ((ratio < 1 - low) | (ratio > 1 + (high or low))) & (mask > 0)
    assert found.metrics["clipped"] == (int(outside.sum()), int(mask.sum()))
    assert outside.any()


@pytest.mark.parametrize("loss_type", LOSS_TYPES)
def test_weights_of_tokens_by_hand(loss_type: str) -> None:
    found = [one.tolist() for one in token_weights([1, 4], loss_type, 8)]
    expected = {
        "dapo": [[1], [1] * 4],
        "grpo": [[1], [0.25] * 4],
        "dr_grpo": [[0.125], [0.125] * 4],
    }
    assert found == expected[loss_type]


@pytest.mark.parametrize("loss_type", LOSS_TYPES)
@pytest.mark.parametrize("level", ["token", "sequence"])
def test_micro_batches_do_not_change_a_step(loss_type: str, level: str) -> None:
    policy = small_policy()

    def gradient(**layout: Any) -> torch.Tensor:
        config = settings(loss_type=loss_type, importance_sampling_level=level, **layout)
        batches = minibatches(policy, config)
        model = moved(policy)
        weight = sum(batch.weight for batch in batches)
        for batch in batches:
            (grpo_loss(model, batch, config).total / weight).backward()
        assert model.head.grad is not None
        return model.head.grad

    whole, cut = gradient(), gradient(micro_rows=1)
    assert float((whole - cut).norm()) < 1e-5 * float(whole.norm())


def test_ratios_are_one_at_the_first_minibatch() -> None:
    policy = small_policy()
    config = settings(kl_coef=0.1, micro_rows=2, minibatches=2)
    for batch in minibatches(policy, config):
        found = grpo_loss(policy, batch, config)
        assert found.metrics["clipped"][0] == 0 == found.metrics["reference_kl"][0]
        assert_close(batch.old_logprobs, batch.reference_logprobs, rtol=0, atol=0)
        expected = float((-batch.advantages * batch.token_weights).sum())
        assert float(found.total.detach()) == expected


def test_groups_without_signal_do_not_change_the_policy() -> None:
    policy = small_policy()
    config = settings(missing_eos_penalty=0.0)
    made = GRPORollouts(config, online(config, policy, lambda some, /: [0.0] * len(some)))
    [batch] = concatenated(made.roll(0, 0, policy))
    assert not batch.advantages.any()
    grpo_loss(policy, batch, config).total.backward()
    assert all(p.grad is None or not p.grad.any() for p in policy.parameters())


def test_the_share_of_groups_with_signal_is_reported(tmp_path: Path) -> None:
    prompts = PROMPTS[:2]

    def reward(rollouts: Any, /) -> list[float]:
        """Answers to the first prompt differ, those to the second never."""
        return [len(one.ids) * (one.prompt == prompts[0]) for one in rollouts]

    config = small_config(
        *(GRPOConfig, tmp_path / "out"), group_size=8, missing_eos_penalty=0.0, iterations=1
    )
    lines = train(config, small_policy(), reward, prompts=prompts)
    [line] = [line for line in lines if line["kind"] == "rollout"]
    assert line["groups_with_signal"] == 0.5
    assert 0 < line["best_of_group"] <= 4


def test_answers_of_a_group_have_their_own_advantages() -> None:
    """All tokens of an answer have the answer's advantage in its group."""
    policy = small_policy()
    config = settings(missing_eos_penalty=0.0)
    parts = online(config, policy, length_reward)
    rollouts = parts.sampled(policy, 0, copies=4).rollouts
    scores = np.where([one.ended for one in rollouts], length_reward(rollouts), 0)
    expected = group_advantages(scores, 4)
    [batch] = minibatches(policy, config)
    [laid] = concatenated(parts.minibatches(policy, rollouts))
    advantages = batch.advantages.tolist()
    for member in laid.members:
        count = len(rollouts[member].ids)
        assert advantages[:count] == pytest.approx([expected[member]] * count, abs=1e-5)
        advantages = advantages[count:]
