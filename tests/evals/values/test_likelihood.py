"""Likelihoods of sentences against the full logits, token by token."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from groundup.evals.measure import Subject
from groundup.evals.values.likelihood import Tail, continued, of_shared_tokens, tails
from groundup.lm.model import CausalLM
from groundup.text.example import Example
from groundup.text.tokenizer import Tokenizer

Alone = Callable[[CausalLM, Example, int], list[float]]
PAIRS = [
    ("The sea is wide and deep.", "The ship is wide and deep."),
    ("The ship sails.", "The ship sails over the sea."),
    ("The sea", "The island"),
]


def test_suffixes_differ_by_the_difference_of_whole_sentences(
    model: CausalLM, tokenizer: Tokenizer, alone: Alone, subject: Callable[[CausalLM], Subject]
) -> None:
    for texts, found in zip(PAIRS, tails(subject(model), PAIRS), strict=True):
        whole = []
        for text, tail in zip(texts, found, strict=True):
            ids = [tokenizer.end_of_text, *tokenizer.encode(text)]
            logprobs = alone(model, Example(ids, [True] * len(ids)), 64)
            assert tail.ids == tuple(ids[-len(tail.ids) :])
            assert tail.logprobs == pytest.approx(np.array(logprobs[-len(tail.ids) :]), abs=1e-4)
            whole.append(sum(logprobs))
        first, second = found
        assert first.total - second.total == pytest.approx(whole[0] - whole[1], abs=1e-3)
        assert first.ids[0] != second.ids[0] or min(len(first.ids), len(second.ids)) == 1


def test_shared_tokens_by_hand() -> None:
    one = Tail((7, 1, 2, 8, 3), np.array([-9.0, -1.0, -2.0, -9.0, -3.0]))
    other = Tail((9, 1, 2, 3), np.array([-5.0, -0.1, -0.2, -0.3]))
    assert of_shared_tokens(one, other) == pytest.approx((-6.0, -0.6))
    assert of_shared_tokens(Tail((1,), np.array([-1.0])), Tail((2,), np.array([-2.0]))) == (0, 0)


def test_a_text_after_another(
    model: CausalLM, tokenizer: Tokenizer, alone: Alone, subject: Callable[[CausalLM], Subject]
) -> None:
    (found, at_start) = continued(subject(model), [("The sea", " is wide."), ("", "The sea")])
    before, ids = tokenizer.encode("The sea"), tokenizer.encode("The sea is wide.")
    trained = [i >= len(before) for i in range(len(ids))]
    assert found.logprobs == pytest.approx(
        np.array(alone(model, Example(ids, trained), 64)), abs=1e-4
    )
    ids = [tokenizer.end_of_text, *before]
    expected = alone(model, Example(ids, [True] * len(ids)), 64)
    assert at_start.logprobs == pytest.approx(np.array(expected), abs=1e-4)
