"""A guard before and after a model: what it stops is answered by one fixed, polite sentence.

    message --> guard --> model --> guard --> answer
                  |                   |
                  +---- the sentence --+

A guard reads text, so it works with any model. It judges each message by itself and misses what is
spread over several turns. To measure a model with a guard, generate as usual inside a block:

    with guarding(model, guard):
        generate(model, requests, tokenizer)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Protocol, runtime_checkable
from weakref import WeakKeyDictionary

import numpy as np
from jaxtyping import Bool

from groundup.errors import UserError, shorten
from groundup.generation.request import Completion, Request, whole_ids
from groundup.lm.model import CausalLM
from groundup.text.chat import check_messages
from groundup.text.tokenizer import Tokenizer

# It declines in words that both the small world and larger assistants use, so that every way of
# counting refusals counts it.
SENTENCE = "I am sorry, but I cannot help with that."


@runtime_checkable
class Guard(Protocol):
    """Decides which messages must not reach the model or, given `answers`, not the user."""

    def stops(
        self, messages: Sequence[str], answers: Sequence[str] | None = None, /
    ) -> Bool[np.ndarray, " messages"]: ...


# The guard of each model; it is not saved with the model.
_GUARDS: WeakKeyDictionary[CausalLM, Guard] = WeakKeyDictionary()


@contextmanager
def guarding(model: CausalLM, guard: Guard | None) -> Iterator[None]:
    """Apply `guard` to everything generated with the model inside the block; None: no guard."""
    before = _GUARDS.pop(model, None)
    if guard is not None:
        _GUARDS[model] = guard
    try:
        yield
    finally:
        _GUARDS.pop(model, None)
        if before is not None:
            _GUARDS[model] = before


def guard_of(model: CausalLM) -> Guard | None:
    """The guard that is active for a model."""
    return _GUARDS.get(model)


def guarded(answers: Sequence[str], messages: Sequence[str], guard: Guard) -> list[str]:
    """A guarded model's answers, given the model's own answers to these messages."""
    stopped = _stopped(guard, messages) | _stopped(guard, messages, answers)
    return [SENTENCE if stops else answer for stops, answer in zip(stopped, answers, strict=True)]


def complete_guarded(
    guard: Guard,
    requests: Sequence[Request],
    tokenizer: Tokenizer | None,
    complete: Callable[[Sequence[Request]], Sequence[Completion]],
) -> list[Completion]:
    """Completions of the requests, with a guard: `complete` generates those that are let through.

    A stopped request gets the sentence as its text, no tokens, and the reason `content_filter`.
    """
    asked = [guarded_text(request, tokenizer) for request in requests]
    through = admitted(guard, asked)
    made = complete([requests[i] for i in through])
    return checked(guard, asked, dict(zip(through, made, strict=True)))


def admitted(guard: Guard, asked: Sequence[str]) -> list[int]:
    """The indices of the messages that may reach the model."""
    found: list[int] = np.flatnonzero(~_stopped(guard, asked)).tolist()
    return found


def checked(guard: Guard, asked: Sequence[str], made: Mapping[int, Completion]) -> list[Completion]:
    """The completion for every message, given those of the messages that were let through."""
    found = [stopped_completion()] * len(asked)
    late = _stopped(guard, [asked[i] for i in made], [one.text for one in made.values()])
    for (i, one), is_stopped in zip(made.items(), late, strict=True):
        if not is_stopped:
            found[i] = one
    return found


def _stopped(
    guard: Guard, messages: Sequence[str], answers: Sequence[str] | None = None
) -> Bool[np.ndarray, " messages"]:
    """The guard's decisions as an array.

    Raises `UserError` unless there is one bool for each message.
    """
    decisions = guard.stops(messages, answers)
    found = np.asarray(decisions)
    if found.shape != (len(messages),) or (found.dtype != bool and len(messages)):
        raise UserError(
            f"the guard's stops returned {shorten(decisions)} for {len(messages)} messages; it "
            "must return one bool for each"
        )
    return found.astype(bool)


def stopped_completion() -> Completion:
    """What the user gets instead of a stopped completion."""
    return Completion(SENTENCE, [], [], "content_filter")


def guarded_text(request: Request, tokenizer: Tokenizer | None) -> str:
    """The text of a request that a guard reads: its last user message, or its whole prompt.

    Raises `UserError` for ids without a tokenizer, ids that are not integers, and malformed
    messages.
    """
    if request.messages is not None:
        messages = check_messages(request.messages)
        said = [one for one in messages if one.role == "user"] or messages
        return said[-1].content
    if request.prompt is not None:
        return request.prompt
    assert request.prompt_ids is not None
    if tokenizer is None:
        raise UserError("a guard reads text, and prompt_ids need a tokenizer for that; pass it")
    return tokenizer.decode(whole_ids(request.prompt_ids))
