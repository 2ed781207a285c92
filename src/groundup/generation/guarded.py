"""A guard before and behind a model: what it stops is answered by one fixed, polite sentence.

    message --> guard --> model --> guard --> answer
                  |                   |
                  +---- the sentence --+

A guard reads text, so that it may stand before any model. It looks at each message by itself:
what is spread over several turns it does not see. Whoever measures a model with a guard asks the
model as ever, inside a block:

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

# It declines as the small world does and as larger assistants do, so that either way to count
# refusals counts it.
SENTENCE = "I am sorry, but I cannot help with that."


@runtime_checkable
class Guard(Protocol):
    """Which messages are not to reach the model or, given `answers` to them, not the person."""

    def stops(
        self, messages: Sequence[str], answers: Sequence[str] | None = None, /
    ) -> Bool[np.ndarray, " messages"]: ...


# Which guard stands before which model: of a model, and nothing that it is saved with.
_GUARDS: WeakKeyDictionary[CausalLM, Guard] = WeakKeyDictionary()


@contextmanager
def guarding(model: CausalLM, guard: Guard | None) -> Iterator[None]:
    """Let `guard` stand before the model in whatever is generated inside the block; None: none."""
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
    """The guard that stands before a model."""
    return _GUARDS.get(model)


def guarded(answers: Sequence[str], messages: Sequence[str], guard: Guard) -> list[str]:
    """What a guarded model says where the model itself gives these answers to these messages."""
    stopped = _stopped(guard, messages) | _stopped(guard, messages, answers)
    return [SENTENCE if stops else answer for stops, answer in zip(stopped, answers, strict=True)]


def behind(
    guard: Guard,
    requests: Sequence[Request],
    tokenizer: Tokenizer | None,
    complete: Callable[[Sequence[Request]], Sequence[Completion]],
) -> list[Completion]:
    """The completions of requests that `complete` makes, of those that are let through.

    What is stopped has the sentence for a text, no tokens, and ended by `content_filter`.
    """
    asked = [asked_of(request, tokenizer) for request in requests]
    through = let_through(guard, asked)
    made = complete([requests[i] for i in through])
    return checked(guard, asked, dict(zip(through, made, strict=True)))


def let_through(guard: Guard, asked: Sequence[str]) -> list[int]:
    """Which of the messages may reach the model."""
    found: list[int] = np.flatnonzero(~_stopped(guard, asked)).tolist()
    return found


def checked(guard: Guard, asked: Sequence[str], made: Mapping[int, Completion]) -> list[Completion]:
    """What is said to every message, where those that were let through have these completions."""
    found = [stopped_completion()] * len(asked)
    late = _stopped(guard, [asked[i] for i in made], [one.text for one in made.values()])
    for (i, one), is_stopped in zip(made.items(), late, strict=True):
        if not is_stopped:
            found[i] = one
    return found


def _stopped(
    guard: Guard, messages: Sequence[str], answers: Sequence[str] | None = None
) -> Bool[np.ndarray, " messages"]:
    """What a guard stops, also where it says so in a list.

    Raises `UserError` for a guard that says another number of things.
    """
    told = guard.stops(messages, answers)
    found = np.asarray(told)
    if found.shape != (len(messages),) or (found.dtype != bool and len(messages)):
        raise UserError(
            f"the guard's stops gave {shorten(told)} for {len(messages)} messages; it must give "
            "one bool for each"
        )
    return found.astype(bool)


def stopped_completion() -> Completion:
    """What somebody gets instead of a completion that was stopped."""
    return Completion(SENTENCE, [], [], "content_filter")


def asked_of(request: Request, tokenizer: Tokenizer | None) -> str:
    """The text of a request that a guard reads: its last message, or all that is to go on.

    Raises `UserError` for ids without a tokenizer or that are no whole numbers, and for malformed
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
