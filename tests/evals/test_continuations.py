"""Continuations of a text against the full logits, one by one, and their token boundaries."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.conftest import TinyModel
from transformers import PreTrainedTokenizerFast

from groundup.adapters import add_lora
from groundup.errors import UserError
from groundup.evals.continuations import Pair, continuation_logprobs, encode_pair
from groundup.formats.hf_config import config_from_hf
from groundup.lm.model import CausalLM
from groundup.text.example import Example
from groundup.text.tokenizer import Tokenizer
from groundup.train.batch import Batch

Alone = Callable[[CausalLM, Example, int], list[float]]

TEXTS = [
    ("The sea is", (" wide", " deep, and the ship sails over the sea", " an island")),
    ("The ship sails", (" over the sea to the island", " x")),
    ("Is the sea wide?\nAnswer:", (" yes", " no")),
    ("", ("The sea", "A ship")),
    ("the sea is deep " * 30, (" and wide", " and the ship")),
]


def pairs(tokenizer: Tokenizer) -> list[Pair]:
    return [
        encode_pair(tokenizer, prompt, continuation, 0)
        for prompt, continuations in TEXTS
        for continuation in continuations
    ]


def marked(pair: Pair) -> Example:
    trained = [False] * len(pair.prompt) + [True] * len(pair.continuation)
    return Example([*pair.prompt, *pair.continuation], trained)


@pytest.mark.parametrize("slots", [1, 60, 10_000])
def test_each_token_has_the_probability_of_the_full_logits(
    model: CausalLM, tokenizer: Tokenizer, alone: Alone, slots: int
) -> None:
    asked = pairs(tokenizer)
    found = continuation_logprobs(model, asked, context=64, slots=slots)
    for pair, one in zip(asked, found, strict=True):
        expected = alone(model, marked(pair.cut_to(64)), 64)
        assert one.logprobs == pytest.approx(np.array(expected), abs=1e-4)
        assert one.total == pytest.approx(sum(expected), abs=1e-3)


def test_dropout_is_off_in_every_mode(tiny_model: TinyModel, tokenizer: Tokenizer) -> None:
    model = add_lora(tiny_model(), rank=4, dropout=0.5)
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(std=0.3)
    asked = pairs(tokenizer)
    right = continuation_logprobs(model.eval(), asked, context=64)
    found = continuation_logprobs(model.train(), asked, context=64)
    assert [one.logprobs.tolist() for one in found] == [one.logprobs.tolist() for one in right]
    assert all(part.training for part in model.modules())


def test_greedy_continuations_are_marked(model: CausalLM, tokenizer: Tokenizer) -> None:
    prompt = tuple(tokenizer.encode("The sea"))
    said = list(prompt)
    with torch.no_grad():
        for _ in range(4):
            said.append(int(model.logits(Batch.of(torch.tensor([said])))[0, -1].argmax()))
    greedy = tuple(said[len(prompt) :])
    other = (*greedy[:-1], (greedy[-1] + 1) % 300)
    found = continuation_logprobs(model, [Pair(prompt, greedy), Pair(prompt, other)], context=64)
    assert [one.greedy for one in found] == [True, False]


def test_a_learned_position_is_never_exceeded(tokenizer: Tokenizer) -> None:
    """GPT-2 has no position beyond its context: padding must not go there."""
    shape = {
        "model_type": "gpt2",
        "n_embd": 64,
        "n_layer": 1,
        "n_head": 1,
        "vocab_size": 320,
        "n_positions": 16,
    }
    model = CausalLM(config_from_hf(shape))
    model.initialize(0)
    asked = [
        Pair((1,) * 15, (5, 6)),
        Pair((2,) * 12, (5, 6, 7, 8, 9)),
        Pair((3,) * 2, tuple(range(15))),
    ]
    assert all(len(pair.prompt) + len(pair.continuation) == 17 for pair in asked)
    found = continuation_logprobs(model, asked, context=16)
    for pair, one in zip(asked, found, strict=True):
        ids = torch.tensor([[*pair.prompt, *pair.continuation]])
        with torch.no_grad():
            logprobs = model.logits(Batch.of(ids[:, :-1])).log_softmax(-1)[0]
        expected = [
            float(logprobs[t - 1, ids[0, t]]) for t in range(len(pair.prompt), ids.shape[1])
        ]
        assert one.logprobs == pytest.approx(np.array(expected), abs=1e-5)


@settings(max_examples=100, deadline=None)
@given(prompt=st.text(max_size=30), continuation=st.text(min_size=1, max_size=20))
def test_a_pair_has_the_tokens_of_the_whole_text(
    tokenizer: Tokenizer, prompt: str, continuation: str
) -> None:
    try:
        pair = encode_pair(tokenizer, prompt, continuation, 7)
    except UserError:
        return
    whole = tokenizer.encode(prompt + continuation)
    if not prompt.rstrip():
        assert pair == Pair((7,), tuple(whole))
    else:
        assert pair.prompt == tuple(tokenizer.encode(prompt.rstrip()))
        assert pair.continuation == tuple(whole[len(pair.prompt) :])


def test_a_tokenizers_first_token_is_read_but_not_scored(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    tokenizer.save(tmp_path)
    content = json.loads((tmp_path / "tokenizer.json").read_text())
    content["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [
            {"SpecialToken": {"id": "B", "type_id": 0}},
            {"Sequence": {"id": "A", "type_id": 0}},
        ],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"B": {"id": "B", "ids": [2], "tokens": ["<|im_end|>"]}},
    }
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    opened = Tokenizer.load(tmp_path)
    assert (opened.opening_ids, tokenizer.opening_ids) == ([2], [])
    pair, plain = (encode_pair(one, "The sea", " is", 0) for one in (opened, tokenizer))
    assert pair == Pair((2, *plain.prompt), plain.continuation)
    assert encode_pair(opened, "", "The sea", 0) == Pair((2,), tuple(tokenizer.encode("The sea")))
    theirs = PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "tokenizer.json"))
    assert list(pair.prompt + pair.continuation) == theirs("The sea is")["input_ids"]


def test_blanks_belong_to_the_continuation(tokenizer: Tokenizer) -> None:
    assert encode_pair(tokenizer, "The sea ", "is", 0) == encode_pair(
        tokenizer, "The sea", " is", 0
    )


def test_rejects_empty_continuations(tokenizer: Tokenizer) -> None:
    with pytest.raises(UserError, match="adds no token"):
        encode_pair(tokenizer, "The sea", "", 0)


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 30))
def test_a_pair_that_is_too_long_keeps_the_end_of_its_prompt(
    prompt: int, continuation: int, context: int
) -> None:
    pair = Pair(tuple(range(prompt)), tuple(range(100, 100 + continuation)))
    cut = pair.cut_to(context)
    assert cut.continuation == pair.continuation[:context]
    assert len(cut.prompt) >= 1 and cut.prompt == pair.prompt[-len(cut.prompt) :]
    assert len(cut.prompt) + len(cut.continuation) - 1 <= context
    if prompt + continuation - 1 <= context:
        assert cut == pair


def test_non_finite_logits_are_rejected(overflowing: CausalLM, tokenizer: Tokenizer) -> None:
    with pytest.raises(UserError, match="the model's logits are not finite"):
        continuation_logprobs(overflowing, pairs(tokenizer), context=64)
