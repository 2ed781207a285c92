"""Multiple choice against the definition, option by option."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from groundup.evals.choice import (
    chances,
    choice_accuracy,
    majority_answer,
    option_probabilities,
    ready_choices,
)
from groundup.lm.model import CausalLM
from groundup.text.example import Example
from groundup.text.rows import Choice
from groundup.text.tokenizer import Tokenizer

Alone = Callable[[CausalLM, Example, int], list[float]]

ROWS = [
    Choice("What is deep?", ("the sea", "a ship on the sea", "an island"), 0, "sea", "a"),
    Choice("What sails?", ("the deep sea", "the ship"), 1, "sea", "b"),
    Choice("Is the sea wide?", ("Yes", "No"), 0, "facts", "c"),
    Choice("Is the ship wide?", ("Yes", "No"), 1, "facts", "d"),
    Choice("Is the island deep?", ("Yes", "No"), 1, "facts", "e"),
]


def test_the_most_likely_option_is_chosen(
    model: CausalLM, tokenizer: Tokenizer, alone: Alone
) -> None:
    """Each option in a chat written by hand, its words alone scored one by one."""
    by_mean, by_sum = [], []
    for row in ROWS:
        logprobs = []
        for option in row.options:
            prompt = [1, *tokenizer.encode(f"user\n{row.prompt}"), 2]
            prompt += [*tokenizer.encode("\n"), 1, *tokenizer.encode("assistant\n")]
            words = tokenizer.encode(option)
            trained = [False] * len(prompt) + [True] * len(words)
            logprobs.append(alone(model, Example(prompt + words, trained), 64))
        by_mean.append(np.argmax([np.mean(one) for one in logprobs]) == row.answer)
        by_sum.append(np.argmax([np.sum(one) for one in logprobs]) == row.answer)
    found = choice_accuracy(model, ready_choices(ROWS, tokenizer, 64), context=64)
    assert found.by_mean["pooled"].estimate == pytest.approx(np.mean(by_mean))
    assert found.by_sum["pooled"].estimate == pytest.approx(np.mean(by_sum))
    assert found.by_mean["facts"].estimate == pytest.approx(np.mean(by_mean[2:]))
    assert by_mean != by_sum  # otherwise this test could not distinguish them


def test_calibration_uses_the_normalized_likelihoods(
    model: CausalLM, tokenizer: Tokenizer, alone: Alone
) -> None:
    """Probabilities of the options by hand: with so few questions, each is its own bin."""
    choices = ready_choices(ROWS, tokenizer, 64)
    likelihoods = iter(np.exp(sum(alone(model, item, 64))) for item in choices.items)
    brier, gaps = [], []
    for row in ROWS:
        p = np.array([next(likelihoods) for _ in row.options])
        p /= p.sum()
        truth = np.arange(len(p)) == row.answer
        brier.append(((p - truth) ** 2).sum())
        gaps.append(float(p.argmax() == row.answer) - p.max())
    found = choice_accuracy(model, choices, context=64)
    assert list(found.calibration) == ["pooled", "facts", "sea"]
    pooled, facts = found.calibration["pooled"], found.calibration["facts"]
    assert pooled.brier.estimate == pytest.approx(np.mean(brier), abs=1e-4)
    assert facts.brier.estimate == pytest.approx(np.mean(brier[2:]), abs=1e-4)
    assert facts.brier.chance == 0.5
    assert pooled.error == pytest.approx(np.mean(np.abs(gaps)), abs=1e-4)
    assert sum(one.count for one in pooled.curve) == len(ROWS)
    accuracy = sum(one.count * one.accuracy.estimate for one in pooled.curve) / len(ROWS)
    assert accuracy == pytest.approx(found.by_sum["pooled"].estimate)
    assert pooled.to_json()["brier"]["estimate"] == pooled.brier.estimate


def test_missing_options_have_no_probability() -> None:
    found = option_probabilities([np.array([-1000.0, -1000.0]), np.log([0.1, 0.1, 0.2])])
    np.testing.assert_allclose(found, [[0.5, 0.5, 0], [0.25, 0.25, 0.5]])


def test_a_uniform_model_is_calibrated(uniform: CausalLM, tokenizer: Tokenizer) -> None:
    rows = [Choice(f"Ship {i}?", ("sea", "sea", "sea"), i % 3, "sea", str(i)) for i in range(9)]
    found = choice_accuracy(uniform, ready_choices(rows, tokenizer, 64), context=64)
    calibration = found.calibration["sea"]
    assert calibration.error == pytest.approx(0, abs=1e-6)
    assert calibration.brier.estimate == pytest.approx(calibration.brier.chance, abs=1e-6)


def test_a_uniform_model_is_right_by_chance(uniform: CausalLM, tokenizer: Tokenizer) -> None:
    found = choice_accuracy(uniform, ready_choices(ROWS, tokenizer, 64), context=64).by_mean
    for source, share in (("sea", (1 / 3 + 1 / 2) / 2), ("facts", 1 / 2)):
        assert found[source].estimate == pytest.approx(share)
    assert found["sea"].chance == pytest.approx((1 / 3 + 1 / 2) / 2)


def test_the_most_common_answer_is_no_better_than_chance(
    uniform: CausalLM, tokenizer: Tokenizer
) -> None:
    """Questions with the same options every time, as in BoolQ: two in three are a no."""
    found = choice_accuracy(uniform, ready_choices(ROWS, tokenizer, 64), context=64).by_mean
    assert found["facts"].chance == pytest.approx(2 / 3)
    assert found["pooled"].chance == pytest.approx((1 / 3 + 1 / 2 + 3 * 2 / 3) / 5)
    assert chances(ROWS[:2] + ROWS[2:3]).tolist() == [1 / 3, 1 / 2, 1 / 2]  # one says nothing


def test_the_most_common_answer_is_per_set_of_options() -> None:
    found = majority_answer(ROWS)
    assert list(found) == ["facts"]
    assert found["facts"].estimate == pytest.approx(2 / 3)
    assert majority_answer([]) == {}
