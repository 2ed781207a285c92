"""Multiple choice against the definition, option by option."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from groundup.evals.choice import choice_accuracy, commonest_answer, ready_choices
from groundup.lm.model import CausalLM
from groundup.text.packing import Marked
from groundup.text.records import Choice
from groundup.text.tokenizer import Tokenizer

Alone = Callable[[CausalLM, Marked, int], list[float]]

ROWS = [
    Choice("What is deep?", ("the sea", "a ship on the sea", "an island"), 0, "sea", "a"),
    Choice("What sails?", ("the deep sea", "the ship"), 1, "sea", "b"),
    Choice("Is the sea wide?", ("Yes", "No"), 0, "facts", "c"),
    Choice("Is the ship wide?", ("Yes", "No"), 1, "facts", "d"),
    Choice("Is the island deep?", ("Yes", "No"), 1, "facts", "e"),
]


def test_the_likeliest_option_is_chosen(
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
            logprobs.append(alone(model, Marked(prompt + words, trained), 64))
        by_mean.append(np.argmax([np.mean(one) for one in logprobs]) == row.answer)
        by_sum.append(np.argmax([np.sum(one) for one in logprobs]) == row.answer)
    found = choice_accuracy(model, ready_choices(ROWS, tokenizer, 64), context=64)
    assert found.by_mean["pooled"].estimate == pytest.approx(np.mean(by_mean))
    assert found.by_sum["pooled"].estimate == pytest.approx(np.mean(by_sum))
    assert found.by_mean["facts"].estimate == pytest.approx(np.mean(by_mean[2:]))
    assert by_mean != by_sum  # or this test could not tell them apart


def test_a_model_that_knows_nothing_is_right_by_chance(
    uniform: CausalLM, tokenizer: Tokenizer
) -> None:
    found = choice_accuracy(uniform, ready_choices(ROWS, tokenizer, 64), context=64).by_mean
    for source, chance in (("sea", (1 / 3 + 1 / 2) / 2), ("facts", 1 / 2)):
        assert found[source].chance == pytest.approx(chance)
        assert found[source].estimate == pytest.approx(chance)


def test_the_commonest_answer_is_of_sets_that_offer_the_same() -> None:
    found = commonest_answer(ROWS)
    assert list(found) == ["facts"]
    assert found["facts"].estimate == pytest.approx(2 / 3)
    assert commonest_answer([]) == {}
