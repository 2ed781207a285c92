"""Batched scoring against one plain forward pass per item."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.errors import UserError
from groundup.lm.logprobs import passes, score
from groundup.lm.model import CausalLM
from groundup.text.example import Example

Alone = Callable[[CausalLM, Example, int], list[float]]
Fresh = Callable[[int], CausalLM]


def random_items(lengths: list[int], seed: int) -> list[Example]:
    random = np.random.default_rng(seed)
    return [
        Example(random.integers(0, 320, n).tolist(), (random.random(n) < 0.6).tolist())
        for n in lengths
    ]


@settings(max_examples=25, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 70), min_size=1, max_size=25),
    seed=st.integers(0, 99),
    rows=st.integers(1, 5),
)
def test_scores_equal_those_of_single_items(
    model: CausalLM, alone: Alone, lengths: list[int], seed: int, rows: int
) -> None:
    items = random_items(lengths, seed)
    found = score(model, items, context=48, tokens_per_pass=48 * rows)
    assert len(found) == len(items)
    for values, item in zip(found, items, strict=True):
        np.testing.assert_allclose(values, alone(model, item, 48), atol=2e-4)


def test_an_item_without_a_target_has_no_scores(model: CausalLM) -> None:
    items = [Example([7], [True]), Example([7, 8], [True, False]), Example([7, 8], [True, True])]
    assert [len(values) for values in score(model, items, context=16)] == [0, 0, 1]


def test_non_finite_logits_are_rejected(overflowing: CausalLM) -> None:
    assert all(parameter.isfinite().all() for parameter in overflowing.parameters())
    with pytest.raises(UserError, match="the model's logits are not finite"):
        score(overflowing, random_items([9, 5], seed=0), context=16)


def test_no_items_give_no_scores(model: CausalLM) -> None:
    assert score(model, [], context=16) == []


def test_tokens_beyond_the_context_are_left_out(model: CausalLM) -> None:
    [values] = score(model, [Example(list(range(40)), [True] * 40)], context=10)
    assert len(values) == 10


def test_training_mode_and_gradients_do_not_change(fresh: Fresh) -> None:
    model = fresh(0)
    model.train()
    score(model, random_items([12, 7], 0), context=16)
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_compiled_model_is_scored_without_compiling(fresh: Fresh) -> None:
    model = fresh(0)
    expected = score(model, random_items([12, 7], 0), context=16)
    model.compile_blocks()
    torch._dynamo.utils.counters.clear()
    found = score(model, random_items([12, 7], 0), context=16)
    np.testing.assert_allclose(np.concatenate(found), np.concatenate(expected), atol=1e-5)
    assert torch._dynamo.utils.counters["stats"].get("unique_graphs", 0) == 0


def test_equal_items_are_computed_once(fresh: Fresh) -> None:
    model, read = fresh(0), []
    model.register_forward_pre_hook(lambda _, args: read.append(args[0].tokens))
    one, other = random_items([12, 12], 0)
    again = Example(list(one.ids), list(one.loss_mask))
    elsewhere = Example(one.ids, [False] * 11 + [True])
    found = score(model, [one, other, again, elsewhere], context=16, tokens_per_pass=11)
    assert read == [11, 11, 11]
    np.testing.assert_array_equal(found[0], found[2])
    np.testing.assert_allclose(found[3], found[0][-1:], atol=1e-5)


@given(lengths=st.lists(st.integers(1, 70), max_size=25), tokens=st.none() | st.integers(1, 200))
def test_a_pass_has_a_limited_number_of_tokens_or_one_item(
    lengths: list[int], tokens: int | None
) -> None:
    found = list(passes(lengths, 64, torch.device("cpu"), tokens))
    assert sorted(place for places in found for place in places) == list(range(len(lengths)))
    flat = [lengths[place] for places in found for place in places]
    assert flat == sorted(lengths, reverse=True)
    for places in found:
        assert len(places) == 1 or len(places) * lengths[places[0]] <= (tokens or 2048)
