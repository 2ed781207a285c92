"""The assistant's tokens in a scored chat; the answer is never cut away."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.conftest import CallsOf

from groundup.align import preferences
from groundup.align.preferences import tokenize_answer as learned_answer
from groundup.align.preferences import tokenize_pairs
from groundup.evals.answers import (
    assistant_loss,
    ready_conversations,
    tokenize_answer,
    without_controls,
)
from groundup.lm.model import CausalLM
from groundup.text.rows import Conversation, Message, Preference
from groundup.text.tokenizer import Tokenizer

USER, ASSISTANT = "user", "assistant"


def said(tokenizer: Tokenizer, ids: list[int]) -> str:
    return tokenizer.decode(ids)


@settings(max_examples=60, deadline=None)
@given(
    prompt=st.text(min_size=0, max_size=300),
    answer=st.sampled_from(["Yes", "The sea is deep.", "über"]),
    context=st.integers(40, 80),
)
def test_a_long_prompt_loses_its_beginning_and_never_the_answer(
    tokenizer: Tokenizer, prompt: str, answer: str, context: int
) -> None:
    item = tokenize_answer(tokenizer, [Message(USER, prompt)], answer, context)
    assert item.inputs <= context
    trained = [i for i, own in zip(item.ids, item.loss_mask, strict=True) if own]
    assert said(tokenizer, trained) == answer + "<|im_end|>"
    whole = tokenize_answer(tokenizer, [Message(USER, prompt)], answer, 10_000)
    if whole.inputs <= context:
        assert item == whole


def test_the_end_of_a_long_prompt_is_kept(tokenizer: Tokenizer) -> None:
    prompt = "the sea is deep " * 50 + "What sails?"
    item = tokenize_answer(tokenizer, [Message(USER, prompt)], "The ship.", 60)
    text = said(tokenizer, list(item.ids))
    assert text.startswith("<|im_start|>user\n")
    assert "What sails?" in text
    assert item.inputs > 50  # no more is lost than must be


def test_an_answer_longer_than_the_context_keeps_its_start(tokenizer: Tokenizer) -> None:
    item = tokenize_answer(tokenizer, [Message(USER, "Tell.")], "the sea is deep " * 50, 40)
    assert any(item.loss_mask[:41])


def test_earlier_answers_belong_to_the_prompt(tokenizer: Tokenizer) -> None:
    """As in preference training; a long last question still loses its beginning."""
    before = [Message(USER, "What is deep?"), Message(ASSISTANT, "The sea.")]
    for last, context in (("And wide?", 100), ("the sea is deep " * 50 + "And wide?", 60)):
        prompt = [*before, Message(USER, last)]
        item = tokenize_answer(tokenizer, prompt, "The sea is.", context)
        spoken = [i for i, own in zip(item.ids, item.loss_mask, strict=True) if own]
        assert said(tokenizer, spoken) == "The sea is.<|im_end|>" and item.inputs <= context
        if context == 100:
            assert item == learned_answer(tokenizer, prompt, "The sea is.", context)


def test_without_control_tokens_only_words_remain(tokenizer: Tokenizer) -> None:
    item = tokenize_answer(tokenizer, [Message(USER, "Deep?")], "The sea is.", 100)
    words = without_controls(item, tokenizer)
    spoken = [i for i, own in zip(words.ids, words.loss_mask, strict=True) if own]
    assert said(tokenizer, spoken) == "The sea is."


def test_a_uniform_model_has_loss_ln_vocab_for_each_assistant_token(
    uniform: CausalLM, tokenizer: Tokenizer
) -> None:
    answers = ["The sea is deep.", "Über — yes."]
    talks = [
        Conversation((Message(USER, "What?"), Message(ASSISTANT, answer)), "sea", str(i))
        for i, answer in enumerate(answers)
    ]
    ready = ready_conversations(talks, tokenizer, 64)
    loss = assistant_loss(uniform, ready, tokenizer, context=64)
    words = np.array([len(tokenizer.encode(answer)) for answer in answers])
    assert loss.tokens.tolist() == (words + 1).tolist()  # and the token that ends the turn
    assert loss.per_token()["pooled"].estimate == pytest.approx(math.log(320), rel=1e-6)
    assert loss.bytes.tolist() == [len(answer.encode()) for answer in answers]
    bits = words.sum() * math.log2(320) / loss.bytes.sum()
    assert loss.per_byte()["pooled"].estimate == pytest.approx(bits, rel=1e-6)
    assert loss.minus(loss)["pooled"].estimate == 0


def test_a_narrower_context_scores_the_first_words_and_counts_their_bytes(
    uniform: CausalLM, tokenizer: Tokenizer
) -> None:
    sentence = "Über — the sea is deep."
    talk = Conversation((Message(USER, "What?"), Message(ASSISTANT, sentence)), "sea", "0")
    [item] = (ready := ready_conversations([talk], tokenizer, 64)).items
    first = list(item.loss_mask).index(True)
    for kept in (1, 4, len(tokenizer.encode(sentence))):
        loss = assistant_loss(uniform, ready, tokenizer, context=first + kept - 1)
        begun = tokenizer.encode(sentence)[:kept]
        assert loss.tokens.tolist() == [kept]
        assert loss.bytes.tolist() == [sum(len(tokenizer.token_bytes(one)) for one in begun)]
    none = assistant_loss(uniform, ready, tokenizer, context=2)
    assert (none.tokens.tolist(), none.bytes.tolist(), none.nats.tolist()) == ([0], [0], [0])


def test_assistant_tokens_beyond_the_context_are_left_out(tokenizer: Tokenizer) -> None:
    long = Message(USER, "the sea is deep " * 50)
    talks = [
        Conversation((long, Message(ASSISTANT, "Yes.")), "sea", "0"),
        Conversation((Message(USER, "Hi"), Message(ASSISTANT, "Yes."), long), "sea", "1"),
    ]
    ready = ready_conversations(talks, tokenizer, 48)
    assert ready.groups == ["1"]
    assert ready.items[0].inputs <= 48


def test_a_prompt_that_fits_is_encoded_once(tokenizer: Tokenizer, calls_of: CallsOf) -> None:
    """Its own tokens are needed only where it must be cut, in addition to those of the whole
    chat."""
    encoded = calls_of(Tokenizer, "encode")
    tokenize_answer(tokenizer, [Message(USER, "the sea is deep " * 5)], "The sea.", 200)
    assert encoded == []
    tokenize_answer(tokenizer, [Message(USER, "the sea is deep " * 50)], "The sea.", 60)
    assert encoded != []


def test_a_prompt_is_encoded_once_for_both_answers_of_a_pair(
    tokenizer: Tokenizer, calls_of: CallsOf
) -> None:
    before = (Message(USER, "Deep?"), Message(ASSISTANT, "Yes."), Message(USER, "Wide?"))
    rendered = calls_of(preferences, "encode_chat")
    pairs, refused = tokenize_pairs(
        tokenizer, [Preference(before, "The sea.", "No ship.", "a", "1")], 100
    )
    assert [len(messages) for _, messages in rendered] == [3, 4, 4] and not refused
    answers = (pairs[0].chosen, pairs[0].rejected)
    assert answers == tuple(
        tokenize_answer(tokenizer, before, answer, 100) for answer in ("The sea.", "No ship.")
    )
