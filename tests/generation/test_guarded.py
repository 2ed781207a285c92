"""A guard before and after a model: blocked messages and answers, and no other changes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from tests.conftest import TinyModel

from groundup.errors import UserError
from groundup.generation.generate import generate, stream
from groundup.generation.guarded import SENTENCE, guard_of, guarded, guarding
from groundup.generation.request import Request
from groundup.generation.sampling import Sampling
from groundup.text.tokenizer import Tokenizer

WAY = Sampling(temperature=0, max_new_tokens=6)


@dataclass
class Words:
    """A guard that stops messages and answers that contain a word, and records what it read."""

    message: str
    answer: str = "\0"
    read: list[str] = field(default_factory=list)

    def stops(self, messages: Sequence[str], answers: Sequence[str] | None = None, /) -> np.ndarray:
        texts, word = (messages, self.message) if answers is None else (answers, self.answer)
        self.read += texts
        return np.array([word in text for text in texts], bool)


def asked(*texts: str) -> list[Request]:
    return [Request(prompt=text, sampling=WAY) for text in texts]


def test_blocked_prompts_are_not_generated_and_others_are_unchanged(
    tiny_model: TinyModel, tokenizer: Tokenizer
) -> None:
    model, requests = tiny_model(), asked("The sea", "The bad ship", "over the sea")
    plain = generate(model, requests[::2], tokenizer)  # in the same company, so to the bit
    guard = Words("bad")
    found = generate(model, requests, tokenizer, guard=guard)
    assert found[::2] == plain
    assert found[1].text == SENTENCE and found[1].ids == []
    assert found[1].finish_reason == "content_filter"
    # Answers of what was let through were read, and no other.
    assert guard.read == ["The sea", "The bad ship", "over the sea", *(one.text for one in plain)]


def test_a_blocked_answer_is_replaced(tiny_model: TinyModel, tokenizer: Tokenizer) -> None:
    model, requests = tiny_model(), asked("The sea", "over the sea")
    plain = [one.text for one in generate(model, requests, tokenizer)]
    assert plain[0] != plain[1] and plain[0]
    found = generate(model, requests, tokenizer, guard=Words("\0", plain[0]))
    assert found[0].text == SENTENCE
    assert guarded(plain, ["The sea", "over the sea"], Words("\0", plain[0])) == [
        one.text for one in found
    ]


def test_a_guard_is_active_only_inside_the_block(
    tiny_model: TinyModel, tokenizer: Tokenizer
) -> None:
    model, [request] = tiny_model(), asked("The bad ship")
    [plain] = generate(model, [request], tokenizer)
    with guarding(model, Words("bad")):
        assert generate(model, [request], tokenizer)[0].text == SENTENCE
        assert list(stream(model, tokenizer, request)) == [SENTENCE]
        with guarding(model, None):
            assert generate(model, [request], tokenizer) == [plain]
        assert generate(tiny_model(), [request], tokenizer) == [plain]
        assert guard_of(model) is not None
    assert guard_of(model) is None and generate(model, [request], tokenizer) == [plain]
    with pytest.raises(RuntimeError), guarding(model, Words("bad")):
        raise RuntimeError
    assert guard_of(model) is None


def test_the_guard_reads_the_last_message_and_ids_as_text(
    tiny_model: TinyModel, tokenizer: Tokenizer
) -> None:
    turns = [("user", "bad"), ("assistant", "No."), ("user", "The sea?")]
    messages = [{"role": role, "content": text} for role, text in turns]
    requests = [
        Request(messages=messages, sampling=WAY),
        Request(prompt_ids=tokenizer.encode("The ship"), sampling=WAY),
    ]
    guard = Words("bad")
    found = generate(tiny_model(), requests, tokenizer, guard=guard)
    assert guard.read[:2] == ["The sea?", "The ship"]
    assert SENTENCE not in [one.text for one in found]
    with pytest.raises(UserError, match="prompt_ids need a tokenizer"):
        generate(tiny_model(), requests[1:], guard=guard)


@pytest.mark.usefixtures("unchecked_types")
@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([], "must be a list of at least one"),
        ("hello", "messages='hello' must be a list"),
        ([{"content": "hi"}], "message 1 has the role None; use one of system"),
        ([{"role": "user"}], "has a content of type NoneType; it must be text"),
    ],
)
def test_invalid_messages_are_rejected_as_without_a_guard(
    tiny_model: TinyModel, tokenizer: Tokenizer, messages: Any, message: str
) -> None:
    for guard in (None, Words("bad")):
        with pytest.raises(UserError, match=message):
            generate(tiny_model(), [Request(messages=messages)], tokenizer, guard=guard)


@pytest.mark.usefixtures("unchecked_types")
def test_invalid_ids_are_rejected_as_without_a_guard(
    tiny_model: TinyModel, tokenizer: Tokenizer
) -> None:
    ids: Any = [5, 6.5]
    for guard in (None, Words("bad")):
        with pytest.raises(UserError, match="must be a list of whole numbers"):
            generate(tiny_model(), [Request(prompt_ids=ids)], tokenizer, guard=guard)


@pytest.mark.usefixtures("unchecked_types")
def test_a_guard_may_return_a_list(tiny_model: TinyModel, tokenizer: Tokenizer) -> None:
    class Lists(Words):
        def stops(self, *given: Any) -> Any:
            return super().stops(*given).tolist()

    class Few(Words):
        def stops(self, *given: Any) -> Any:
            return super().stops(*given)[1:]

    requests = asked("The sea", "The bad ship")
    found = generate(tiny_model(), requests, tokenizer, guard=Lists("bad"))
    assert found == generate(tiny_model(), requests, tokenizer, guard=Words("bad"))
    with pytest.raises(UserError, match="for 2 messages; it must return one bool for each"):
        generate(tiny_model(), requests, tokenizer, guard=Few("bad"))
