"""Rollouts: what is scored is exactly what was sampled, and each is read once per pass."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from groundup.align.config import PPOConfig
from groundup.align.prompts import Prompt
from groundup.align.rollout import (
    Rollout,
    RolloutStream,
    flat,
    mismatch,
    pack_rollouts,
    prompts_of,
    rewards_of,
    sample,
    sampled_logprobs,
    token_facts,
)
from groundup.errors import UserError
from groundup.lm.model import CausalLM
from groundup.train.batch import Batch
from rollouts import ENDS, PROMPTS, copied, length_reward, online, small_config, small_policy


def sampled(model: CausalLM, count: int = 12, longest: int = 8, seed: int = 0) -> Any:
    prompts = [PROMPTS[i % len(PROMPTS)] for i in range(count)]
    return sample(model, prompts, None, max_new_tokens=longest, seed=seed)


def slow_distributions(model: CausalLM, rollout: Any) -> torch.Tensor:
    """log p over the vocabulary at each sampled token, the sequence read alone, in float64."""
    ids = torch.tensor([[*rollout.prompt.ids, *rollout.ids]])
    with torch.no_grad():
        logits = model.double().logits(Batch.of(ids))[0]
    first = len(rollout.prompt.ids) - 1
    return logits[first : first + len(rollout.ids)].log_softmax(-1)


# Sampling.


def test_training_tokens_equal_sampled_tokens() -> None:
    model = small_policy()
    rollouts = sampled(model)
    assert len({len(one.ids) for one in rollouts}) > 2  # of several lengths
    assert any(one.ended for one in rollouts) and not all(one.ended for one in rollouts)
    laid = pack_rollouts(rollouts, range(12), context=32, micro_rows=3, one_shape=False)
    found: dict[int, list[int]] = {}
    for one in laid:
        row, place = one.rows.weights.nonzero(as_tuple=True)
        ids = one.rows.targets[row, place].tolist()
        for member in one.members:
            found[member] = ids[: (count := len(rollouts[member].ids))]
            ids = ids[count:]
        assert not ids
    assert found == {i: list(one.ids) for i, one in enumerate(rollouts)}


def test_only_ended_answers_have_an_end_token() -> None:
    for one in sampled(small_policy(), 40):
        assert (one.ids[-1] in ENDS) == one.ended
        assert one.ended or len(one.ids) == 8
        assert not {*one.ids[:-1]} & {*ENDS}
        assert sum(one.example.loss_mask) == len(one.ids) == len(one.logprobs)


def test_equal_prompts_get_different_answers_and_a_seed_reproduces_them() -> None:
    model = small_policy()
    again = sampled(model), sampled(model), sampled(model, seed=1)
    first, second, other = ([one.ids for one in some] for some in again)
    assert first == second != other
    assert len(set(first[0::4])) == 3


def test_sampling_keeps_the_model_in_training_mode() -> None:
    model = small_policy().train()
    sampled(model)
    assert model.training


def test_tokens_are_sampled_from_the_whole_distribution() -> None:
    model = small_policy(spread=0.3)
    rollouts = sample(model, [PROMPTS[0]] * 4000, None, max_new_tokens=1, seed=0)
    drawn = np.bincount([one.ids[0] for one in rollouts], minlength=64)
    expected = slow_distributions(model, rollouts[0])[0].exp().numpy() * 4000
    # Pearson's statistic of 63 degrees of freedom: mean 63, deviation 11.2.
    assert float(((drawn - expected) ** 2 / expected).sum()) < 63 + 5 * 11.2


# Passes.


def test_the_engine_and_the_training_pass_agree() -> None:
    model = small_policy()
    rollouts = sampled(model, 40)
    laid = pack_rollouts(rollouts, range(40), context=32, micro_rows=3, one_shape=False)
    facts = token_facts(model, online_reference(model), rollouts, laid)
    assert mismatch(rollouts, facts.logprobs)[1] < 1e-4
    for one, logprobs in zip(rollouts, facts.logprobs, strict=True):
        alone = slow_distributions(copied(model), one)
        expected = [float(alone[t, token]) for t, token in enumerate(one.ids)]
        np.testing.assert_allclose(logprobs, expected, atol=1e-4)
        np.testing.assert_allclose(one.logprobs, expected, atol=1e-4)


def online_reference(model: CausalLM) -> Any:
    """Returns the reference, a copy of the current model."""
    config = small_config(PPOConfig, Path("nowhere"))
    return online(config, model, length_reward).reference.of(model)


def test_mismatch_is_the_mean_and_the_largest_distance() -> None:
    rollouts = sampled(small_policy(), 2)
    apart = [np.array(one.logprobs) + 0.5 for one in rollouts]
    apart[1][0] += 1
    mean, largest = mismatch(rollouts, apart)
    count = sum(len(one.ids) for one in rollouts)
    assert mean == pytest.approx(0.5 + 1 / count) and largest == pytest.approx(1.5)


def test_exact_kl_and_entropy_equal_a_slow_loop() -> None:
    model, other = small_policy(), small_policy(1)
    rollouts = sampled(model)
    laid = pack_rollouts(rollouts, range(12), context=32, micro_rows=2, one_shape=False)
    facts = token_facts(model, online_reference(other), rollouts, laid)
    whole, drawn, uncertain = [], [], []
    for i, one in enumerate(rollouts):
        ours, theirs = (slow_distributions(copied(m), one) for m in (model, other))
        kl = [
            sum(math.exp(p) * (p - q) for p, q in zip(*pair, strict=True))
            for pair in zip(ours.tolist(), theirs.tolist(), strict=True)
        ]
        np.testing.assert_allclose(facts.kl[i], kl, atol=1e-4)
        entropy = [-sum(math.exp(p) * p for p in row) for row in ours.tolist()]
        np.testing.assert_allclose(facts.entropy[i], entropy, atol=1e-4)
        places = range(len(one.ids)), list(one.ids)
        np.testing.assert_allclose(facts.reference_logprobs[i], theirs[places], atol=1e-4)
        whole.append(sum(kl))
        drawn.append(float((ours[places] - theirs[places]).sum()))
        uncertain += entropy
    assert facts.exact_kl() == pytest.approx(np.mean(whole), abs=1e-3)
    assert facts.sampled_kl() == pytest.approx(np.mean(drawn), abs=1e-3)
    assert facts.mean_entropy() == pytest.approx(np.mean(uncertain), abs=1e-4)


def test_the_sampled_kl_has_the_exact_one_as_its_mean() -> None:
    model, other = small_policy(spread=0.3), small_policy(1)
    rollouts = sampled(model, 1200, longest=4)
    laid = pack_rollouts(rollouts, range(1200), context=32, micro_rows=64, one_shape=False)
    facts = token_facts(model, online_reference(other), rollouts, laid)
    apart = [
        float((a - b).sum()) for a, b in zip(facts.logprobs, facts.reference_logprobs, strict=True)
    ]
    error = float(np.std(apart)) / math.sqrt(1200)
    assert abs(facts.sampled_kl() - facts.exact_kl()) < 4 * error


def test_the_reference_is_a_frozen_copy_in_the_policys_dtype() -> None:
    policy, model = small_policy().to(torch.bfloat16), small_policy(1)
    config = small_config(PPOConfig, Path("nowhere"))
    reference = online(config, policy, length_reward, reference=model).reference
    with reference.of(policy)() as found:
        assert found.head.dtype == torch.bfloat16
        assert not any(parameter.requires_grad for parameter in found.parameters())
    with reference.of(policy)() as again:
        assert again is found


# Laying out.


@given(
    st.lists(st.integers(1, 20), min_size=1, max_size=30),
    st.integers(1, 5),
    st.booleans(),
)
def test_every_rollout_occurs_once_for_any_lengths(
    lengths: list[int], micro_rows: int, one_shape: bool
) -> None:
    rollouts = [rollout(i % 7 + 1, n, start=i) for i, n in enumerate(lengths)]
    laid = pack_rollouts(
        rollouts, range(len(rollouts)), context=32, micro_rows=micro_rows, one_shape=one_shape
    )
    assert sorted(i for one in laid for i in one.members) == list(range(len(rollouts)))
    values = [np.array(one.ids, np.float32) for one in rollouts]
    for one in laid:
        rows = one.rows.input_ids.shape[0]
        assert rows == micro_rows if one_shape else rows <= micro_rows
        # Flattened values are in the order of the positions in the rows.
        row, place = one.rows.weights.nonzero(as_tuple=True)
        assert flat(values, one).tolist() == one.rows.targets[row, place].tolist()


def rollout(asked: int, said: int, start: int) -> Any:
    from groundup.align.rollout import Rollout

    ids = tuple(1 + (start * 7 + t) % 63 for t in range(said))
    return Rollout(Prompt(tuple(range(1, asked + 1))), ids, (0.0,) * said, "", False)


def test_packing_does_not_change_logprobs() -> None:
    model = small_policy()
    rollouts = sampled(model)
    found = []
    for context, micro_rows, one_shape in ((32, 2, False), (32, 5, True), (64, 1, False)):
        laid = pack_rollouts(
            rollouts, range(12), context=context, micro_rows=micro_rows, one_shape=one_shape
        )
        found.append(token_facts(model, online_reference(model), rollouts, laid).logprobs)
    alone = [
        pack_rollouts(rollouts, [i], context=32, micro_rows=1, one_shape=False)[0]
        for i in range(12)
    ]
    found.append(token_facts(model, online_reference(model), rollouts, alone).logprobs)
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-5)


def test_each_process_has_a_micro_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": "0", "WORLD_SIZE": "3", "MASTER_ADDR": "here"}.items():
        monkeypatch.setenv(name, value)
    rollouts = sampled(small_policy())
    rows = len(pack_rollouts(rollouts, range(12), context=32, micro_rows=1, one_shape=False))
    laid = pack_rollouts(rollouts, range(12), context=32, micro_rows=16, one_shape=False)
    assert rows >= 3 and len(laid) >= 3
    assert sorted(i for one in laid for i in one.members) == list(range(12))


def test_padding_has_no_effect() -> None:
    model = small_policy()
    rollouts = sampled(model)
    [one] = pack_rollouts(rollouts, range(12), context=32, micro_rows=16, one_shape=True)
    padding = one.rows.segment_ids < 0
    assert padding.any()
    rows = Batch(
        torch.where(padding, 33, one.rows.input_ids),
        torch.where(padding, 44, one.rows.targets),
        one.rows.weights,
        one.rows.position_ids,
        one.rows.segment_ids,
    )
    before, after = (sampled_logprobs(model, model(some), some) for some in (one.rows, rows))
    torch.testing.assert_close(before, after, rtol=0, atol=1e-5)


# The stream.


@given(st.integers(1, 6), st.integers(1, 4), st.integers(0, 3))
def test_every_minibatch_is_read_once_per_epoch(minibatches: int, epochs: int, seed: int) -> None:
    rolled: list[tuple[int, int]] = []

    def roll(iteration: int, step: int, model: torch.nn.Module) -> list[list[str]]:
        rolled.append((iteration, step))
        return [[f"{iteration}/{i}"] for i in range(minibatches)]

    stream = RolloutStream(roll, epochs=epochs, seed=seed)
    per_iteration = epochs * minibatches
    read = []
    for step in range(2 * per_iteration):
        assert stream.can_save(step) == (step % per_iteration == 0)
        read += stream.at(step, torch.nn.Identity())
    assert rolled == [(0, 0), (1, per_iteration)]
    for iteration in range(2):
        for epoch in range(epochs):
            start = iteration * per_iteration + epoch * minibatches
            part = read[start : start + minibatches]
            assert sorted(part) == [f"{iteration}/{i}" for i in range(minibatches)]
    assert read[:minibatches] == [f"0/{i}" for i in range(minibatches)]


def test_a_restored_stream_continues_with_the_next_iteration() -> None:
    def stream() -> RolloutStream:
        return RolloutStream(
            lambda iteration, step, model: [[(iteration, step, i)] for i in range(3)],
            epochs=2,
            seed=0,
        )

    whole, first, second = stream(), stream(), stream()
    model = torch.nn.Identity()
    read = [whole.at(step, model) for step in range(18)]
    found = [first.at(step, model) for step in range(6)]
    second.restore(first.state())
    assert second.can_save(6)
    assert found + [second.at(step, model) for step in range(6, 18)] == read


@given(st.integers(1, 9), st.integers(1, 5), st.integers(1, 3))
def test_each_prompt_occurs_once_per_pass(many: int, group_size: int, seed: int) -> None:
    prompts = [Prompt((i,)) for i in range(many)]
    asked: list[int] = []
    for iteration in range(4 * many):
        some = prompts_of(prompts, 2 * group_size, iteration, seed=seed, copies=group_size)
        # The copies of a prompt are adjacent: groups are split by position.
        groups = [some[i : i + group_size] for i in range(0, len(some), group_size)]
        assert all(len({one.ids for one in group}) == 1 for group in groups)
        asked += [group[0].ids[0] for group in groups]
    for start in range(0, len(asked), many):
        assert sorted(asked[start : start + many]) == list(range(many))


# Rewards.


@pytest.mark.parametrize(
    ("found", "told"),
    [
        ([1.0], "1 numbers for 2 answers"),
        ([1.0, 2.0, 3.0], "3 numbers for 2 answers"),
        ([1.0, math.nan], "is nan"),
        ([math.inf, 1.0], "is inf"),
        ([1e9, -1e20], "is -1e+20; it must be a number from -1,000,000,000 to 1,000,000,000: give"),
    ],
)
def test_invalid_rewards_are_rejected(found: list[float], told: str) -> None:
    def reward(rollouts: Sequence[Any], /) -> Iterable[float]:
        return found

    with pytest.raises(UserError) as raised:
        rewards_of(reward, sampled(small_policy(), 2))
    assert told in str(raised.value) and "\n" not in str(raised.value)


def test_a_cost_is_bounded_like_a_reward() -> None:
    def cost(rollouts: Sequence[Rollout], /) -> list[float]:
        return [1e308 if place % 2 else 0.0 for place, _ in enumerate(rollouts)]

    config = small_config(PPOConfig, Path("x"), cost="length:1", cost_limit=0.0)
    parts = replace(online(config, small_policy(), length_reward), cost=cost)
    with pytest.raises(UserError, match=r"is 1e\+308; it must be a number from "):
        parts.sampled(small_policy(), 0)


def test_rewards_may_be_any_sequence_of_numbers() -> None:
    rollouts = sampled(small_policy(), 2)
    found = rewards_of(lambda some, /: (torch.tensor(len(one.ids)) for one in some), rollouts)
    assert found.tolist() == [len(one.ids) for one in rollouts]


@pytest.mark.parametrize("worth", [-1.0, 1.0])
def test_an_unended_answer_never_scores_higher(worth: float) -> None:
    """Neither where answers score below minus the penalty, nor where long ones are best."""

    def reward(rollouts: Sequence[Rollout], /) -> list[float]:
        return [worth * len(one.ids) for one in rollouts]

    config = small_config(PPOConfig, Path("x"), episodes=64)
    found = online(config, small_policy(), reward).sampled(small_policy(), 0)
    cut = np.array([not one.ended for one in found.rollouts])
    assert cut.any() and not cut.all() and (np.abs(found.scores[cut]) == 8).all()
    np.testing.assert_array_equal(found.rewards[~cut], found.scores[~cut])
    np.testing.assert_array_equal(found.rewards[cut], -9 if worth < 0 else -1)
