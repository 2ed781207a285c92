"""Preferences: closed forms for a uniform model, the definition for a random one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from groundup.evals.preference import (
    length_margins,
    margins,
    preference_accuracy,
    preference_gain,
    ready_pairs,
)
from groundup.lm.model import CausalLM
from groundup.text.example import Example
from groundup.text.rows import Message, Preference
from groundup.text.tokenizer import Tokenizer

Alone = Callable[[CausalLM, Example, int], list[float]]


def pair(chosen: str, rejected: str, group: str) -> Preference:
    return Preference((Message("user", "What is deep?"),), chosen, rejected, "sea", group)


ROWS = [
    pair("the sea", "the ship sails over the sea", "a"),
    pair("the sea is wide and deep", "ship", "b"),
    pair("sea", "the deep sea and the wide sea", "c"),
    pair("island", "island", "d"),
]


def test_a_uniform_model_prefers_fewer_tokens(uniform: CausalLM, tokenizer: Tokenizer) -> None:
    pairs = ready_pairs(ROWS, tokenizer, 64)
    found, per_token = margins(uniform, pairs, context=64)
    tokens = [len(tokenizer.encode(r.rejected)) - len(tokenizer.encode(r.chosen)) for r in ROWS]
    np.testing.assert_allclose(found, np.array(tokens) * np.log(320), rtol=1e-6)
    np.testing.assert_allclose(per_token, 0, atol=1e-6)
    accuracy = preference_accuracy(found, pairs)["sea"]
    assert accuracy.estimate == (1 + 0 + 1 + 0.5) / 4  # a tie counts half
    assert accuracy.chance == 0.5


def test_margins_are_sums_and_means_over_the_whole_answer(
    model: CausalLM, tokenizer: Tokenizer, alone: Alone
) -> None:
    pairs = ready_pairs(ROWS, tokenizer, 64)
    scores = [alone(model, item, 64) for item in pairs.items]
    found = margins(model, pairs, context=64)
    for of_model, of_answer in zip(found, (np.sum, np.mean), strict=True):
        chosen, rejected = np.split(np.array([of_answer(one) for one in scores]), 2)
        np.testing.assert_allclose(of_model, chosen - rejected, atol=1e-3)
    ends = [item.ids[t] for item in pairs.items for t, own in enumerate(item.loss_mask) if own]
    assert ends.count(tokenizer.im_end) == len(pairs.items)


def test_the_longer_answer_baseline_and_gains_over_it(tokenizer: Tokenizer) -> None:
    pairs = ready_pairs(ROWS, tokenizer, 64)
    baseline = length_margins(pairs)
    assert preference_accuracy(baseline, pairs)["pooled"].estimate == (0 + 1 + 0 + 0.5) / 4
    always_right = np.ones(4)
    gain = preference_gain(always_right, baseline, pairs)["pooled"]
    assert gain.estimate == pytest.approx(1 - 1.5 / 4)
    # Four pairs prove nothing; thirty-two of which as many are gained do.
    assert (gain.low, gain.high) == (0, 1)
    more = ready_pairs(
        [replace(one, group=f"{n}") for n, one in enumerate(ROWS * 8)], tokenizer, 64
    )
    gain = preference_gain(np.ones(32), length_margins(more), more)["pooled"]
    assert gain.estimate == pytest.approx(1 - 1.5 / 4)
    assert gain.low > 0.4
    assert preference_gain(baseline, baseline, pairs)["pooled"].high == 0
