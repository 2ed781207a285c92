"""A conversation with a model: all messages, and the part of them that fits its context.

A conversation is a list of messages that is rendered again for every answer. When it outgrows the
model's context, the oldest turns are no longer shown to the model; they stay in the conversation.
Several turns are dropped at a time, so that the rest is read once and stays in the cache for some
turns. If the context fills up during an answer, as few turns as possible are dropped and the answer
continues.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field, replace

from groundup.adapters.attach import use_adapter
from groundup.errors import UserError
from groundup.generation.engine import Engine
from groundup.generation.guarded import SENTENCE, Guard
from groundup.generation.request import Completion, Request
from groundup.generation.sampling import Sampling
from groundup.lm.model import CausalLM
from groundup.text.chat import encode_chat, render_chat
from groundup.text.tokenizer import StreamDecoder, Tokenizer

# At its start an answer has room for a quarter of the context, or for `max_new_tokens` if smaller.
_ANSWER_SHARE = 4


@dataclass(frozen=True)
class Answered:
    """The number of tokens of an answer, and the seconds that all but the first took.

    `cut` says that a length limit ended it.
    """

    tokens: int
    seconds: float
    cut: bool

    @property
    def tokens_per_second(self) -> float | None:
        return (self.tokens - 1) / self.seconds if self.tokens > 1 and self.seconds > 0 else None


@dataclass
class Conversation:
    """The messages, and the model that answers.

    The engine lives as long as the conversation, so each turn reads only the new tokens, and an
    answer starts as quickly after a long conversation as after a short one.
    """

    model: CausalLM
    tokenizer: Tokenizer
    sampling: Sampling
    system: str | None = None
    messages: list[dict[str, str]] = field(default_factory=list)
    forgotten: int = 0
    """How many of the oldest messages the model is no longer shown."""
    last: Answered | None = None
    guard: Guard | None = None
    """A filter of messages and answers; with one, answers are not streamed, since it reads them
    whole.
    """

    def __post_init__(self) -> None:
        self._engine = Engine(self.model, self.tokenizer, batch_size=1)
        self._question: dict[str, str] | None = None
        # The answer that is being replaced.
        self._earlier: dict[str, str] | None = None
        self._forgotten_then = 0  # `forgotten` when its question was asked
        # The last answer's prompt and tokens, as long as it can be continued.
        self._prompt, self._drawn = list[int](), list[int]()
        # The last encoding: a question's length is checked and then the same messages are answered.
        self._encoded: tuple[list[dict[str, str]], list[int]] = [], []

    @property
    def said(self) -> list[dict[str, str]]:
        """The whole conversation, the system prompt first."""
        return [*self._opening(), *self.messages]

    @property
    def shown(self) -> list[dict[str, str]]:
        """The part of it that the model is shown."""
        return [*self._opening(), *self.messages[self.forgotten :]]

    def ask(self, text: str) -> None:
        """Add a user's message.

        Raises `UserError`, and changes nothing, if it is too long for the model's context.
        """
        question = {"role": "user", "content": text}
        self._show([*self._answered(), question], self.forgotten)
        self._question = question

    def _answered(self) -> list[dict[str, str]]:
        """The messages without a last question that has no answer."""
        return self.messages[: len(self.messages) // 2 * 2]

    def ask_again(self) -> None:
        """Remove the last answer, so that its question is answered again.

        Raises `UserError` if there is no question yet.
        """
        if self._question is None:
            raise UserError("nothing has been asked yet, so there is nothing to answer again")
        # A question with an empty answer was removed from the messages.
        if len(self.messages) > 1 and self.messages[-2] is self._question:
            *messages, earlier = self.messages
            self._show(messages, self._forgotten_then)
            self._earlier = earlier
        else:
            self._show([*self._answered(), self._question], self._forgotten_then)

    def answer(self) -> Generator[str]:
        """Generate the assistant's answer in pieces. If it is stopped, the tokens so far are kept.

        A question with an empty answer is removed: an empty turn is useless as training data.
        """
        self._prompt = self._ids(self.shown)
        yield from self._draw([]) if self.guard is None else self._checked(self.guard, [])

    def go_on(self) -> Generator[str]:
        """Continue the last answer in pieces, if it was cut or stopped.

        Raises `UserError`, before the first piece, if there is nothing to continue.
        """
        context = self.model.config.max_position_embeddings
        if not self._drawn:
            raise UserError("there is no answer that was cut, so there is nothing to continue")
        whole = _whole(self.tokenizer, self._drawn)
        older = self.messages[self.forgotten : -2]
        if len(self._prompt) + len(whole) >= context and not older:
            raise UserError(
                f"the model sees {context} tokens at once, and this answer fills them; ask a new "
                "question, which makes room"
            )
        return self._draw(whole) if self.guard is None else self._checked(self.guard, whole)

    def _checked(self, guard: Guard, drawn: list[int]) -> Generator[str]:
        """Generate or continue an answer in one piece, or the guard's sentence if it is stopped."""
        question = next(one for one in reversed(self.messages) if one["role"] == "user")["content"]
        if guard.stops([question])[0]:
            self.last = Answered(0, 0.0, cut=False)
            self._keep(SENTENCE)
            yield SENTENCE
            return
        pieces, more = self._draw(drawn), list[str]()
        try:
            more += pieces
        finally:
            # Also after Ctrl-C: the model must not see an answer that the guard would stop.
            pieces.close()
            last = self.messages[-1] if self.messages else {"role": "user"}
            stopped = last["role"] == "assistant" and guard.stops([question], [last["content"]])[0]
            if stopped:
                last["content"], self._drawn = SENTENCE, []
                self.last = Answered(0, 0.0, cut=False)
        yield SENTENCE if stopped else "".join(more)

    def _draw(self, drawn: list[int]) -> Generator[str]:
        """Generate an answer, or continue the last one after the tokens `drawn`.

        If it fills the context, it continues without the oldest turns, as long as there are any.
        """
        self._drawn = drawn
        said = [_text(self.tokenizer, drawn)]
        if drawn:
            self._earlier = self.messages.pop()
        number, begun, now = -1, 0.0, 0.0
        tokens, ended = 0, None
        try:
            self._make_room()
            while ended is None:
                sampling = replace(
                    self.sampling,
                    min_new_tokens=max(0, self.sampling.min_new_tokens - tokens),
                    max_new_tokens=self.sampling.max_new_tokens - tokens,
                )
                request = Request(prompt_ids=self._prompt + self._drawn, sampling=sampling)
                # Always copy 0: with the same seed the same question gets the same answer.
                number = self._engine.submit(request, copy=0)
                while self._engine.unfinished:
                    for event in self._engine.step():
                        if event.error is not None:
                            raise event.error
                        if event.token is not None:
                            now = time.perf_counter()
                            begun, tokens = begun or now, tokens + 1
                            self._drawn.append(event.token)
                        ended = event.completion or ended
                        if event.text:
                            said.append(event.text)
                            yield event.text
                    if ended is None and self._make_room():
                        self._engine.cancel(number)
                        said = [_text(self.tokenizer, self._drawn)]
        except KeyboardInterrupt:  # possibly within a step, so the engine's state is undefined
            self._engine = Engine(self.model, self.tokenizer, batch_size=1)
            raise
        finally:
            self._engine.cancel(number)
            self.last = Answered(tokens, now - begun, _is_cut(ended))
            if ended is not None and ended.finish_reason == "stop":
                self._drawn = []
            self._keep("".join(said).strip())

    def _keep(self, words: str) -> None:
        if words:
            self.messages.append({"role": "assistant", "content": words})
        else:
            self._drawn = []
            if self._earlier is not None:
                self.messages.append(self._earlier)
            else:
                self.messages.pop()
        self._earlier = None

    def use_adapter(self, name: str | None) -> None:
        """Switch to that adapter, or to none; the messages stay."""
        use_adapter(self.model, name)
        self._engine = Engine(self.model, self.tokenizer, batch_size=1)

    def use_system(self, text: str | None) -> None:
        """Set or remove the system prompt.

        Raises `UserError` if the chat template has no system prompt, and for one that is too long.
        """
        if text is not None:
            opening: list[dict[str, str]] = [{"role": "system", "content": text}]
            asked = [*opening, {"role": "user", "content": "?"}]
            if text not in render_chat(self.tokenizer, asked, generation_prompt=True):
                raise UserError("the model's chat template does not support a system prompt")
            self._require_room(asked, "that system prompt")
        self.system, self._drawn = text, []

    def reset(self) -> None:
        """Forget all messages; the system prompt stays."""
        self.messages, self.forgotten, self._question, self._drawn = [], 0, None, []

    def _opening(self) -> list[dict[str, str]]:
        return [] if self.system is None else [{"role": "system", "content": self.system}]

    def _show(self, messages: list[dict[str, str]], forgotten: int) -> None:
        """Set the messages, and leave out the `forgotten` oldest, or more if needed."""
        fitting = self._fitting(messages, forgotten)
        forgotten = self._halved(messages, fitting) if fitting > forgotten else forgotten
        self._require_room([*self._opening(), *messages[forgotten:]], "that message")
        self.messages, self.forgotten, self._drawn = messages, forgotten, []
        self._forgotten_then = forgotten

    def _make_room(self) -> bool:
        """Leave out the oldest turns if the answer is about to fill the context.

        Returns whether any could be left out.
        """
        filled = len(self._prompt) + len(self._drawn)
        # One token earlier than the engine would end the answer.
        if filled < self.model.config.max_position_embeddings - 1:
            return False
        forgotten = self._fitting(self.messages, self.forgotten, len(self._drawn))
        if forgotten == self.forgotten:
            return False
        self.forgotten = forgotten
        self._prompt = self._ids(self.shown)
        self._drawn = _whole(self.tokenizer, self._drawn)
        return True

    def _fitting(self, messages: list[dict[str, str]], forgotten: int, drawn: int = 0) -> int:
        """Return how many of the oldest messages to leave out to make room for the answer."""
        while len(messages) - forgotten > 1 and self._excess(
            [*self._opening(), *messages[forgotten:]], drawn
        ):
            forgotten += 2
        return forgotten

    def _halved(self, messages: list[dict[str, str]], forgotten: int) -> int:
        """Return how many of the oldest messages to leave out so that half the context is free.

        Leaving out one turn at every question would invalidate the cache each time. The last answer
        stays if it fits, since the next question is mostly about it.
        """
        half = self.model.config.max_position_embeddings // 2
        while len(messages) - forgotten > 3 and half < self._length(
            [*self._opening(), *messages[forgotten:]]
        ):
            forgotten += 2
        return forgotten

    def _excess(self, messages: Sequence[dict[str, str]], drawn: int = 0) -> int:
        """Return the number of tokens that do not fit, including `drawn` of a begun answer."""
        context = self.model.config.max_position_embeddings
        room = min(self.sampling.max_new_tokens, context // _ANSWER_SHARE)
        return max(0, self._length(messages) + drawn - (context - room))

    def _require_room(self, messages: Sequence[dict[str, str]], what: str) -> None:
        if self._excess(messages):
            raise UserError(
                f"{what} takes {self._length(messages)} tokens and the model sees "
                f"{self.model.config.max_position_embeddings} at once, including the answer; use "
                "fewer words"
            )

    def _length(self, messages: Sequence[dict[str, str]]) -> int:
        return len(self._ids(messages))

    def _ids(self, messages: Sequence[dict[str, str]]) -> list[int]:
        if self._encoded[0] != messages:
            ids = encode_chat(self.tokenizer, messages, generation_prompt=True).ids
            self._encoded = [dict(message) for message in messages], ids
        return self._encoded[1]


def _is_cut(ended: Completion | None) -> bool:
    return ended is not None and ended.finish_reason == "length"


def _text(tokenizer: Tokenizer, ids: Sequence[int]) -> str:
    decoder = StreamDecoder(tokenizer)
    return "".join(map(decoder.push, ids)) + decoder.finish()


def _whole(tokenizer: Tokenizer, ids: list[int]) -> list[int]:
    """The ids without those of an incomplete last character."""
    while ids:
        decoder = StreamDecoder(tokenizer)
        for id in ids:
            decoder.push(id)
        if not decoder.finish():
            return ids
        ids = ids[:-1]
    return ids
