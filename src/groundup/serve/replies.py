"""Answers in OpenAI's words: whole, or in the chunks of a stream."""

from __future__ import annotations

import json
import secrets
import string
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Any

from groundup.generation.engine import Event
from groundup.generation.request import Completion, SequenceState, TopLogprobs
from groundup.serve.worker import Answer, Served
from groundup.text.rows import CALL, calls_apart
from groundup.text.tokenizer import Tokenizer

Json = dict[str, Any]
# log p of every token of a prompt but the first, and the likeliest of each place.
PromptLogprobs = tuple[list[float], list[TopLogprobs]]
# What stands for the logarithm of zero, which JSON cannot hold; vLLM's number.
_NEVER = -9999.0
_LETTERS = string.ascii_letters + string.digits


class Reply:
    """One answer of as many choices as there are rows."""

    kind, chunk, prefix = "", "", ""

    def __init__(self, served: Served, rows: Sequence[SequenceState]) -> None:
        self.served, self.rows = served, rows
        self.completions: dict[int, Completion] = {}
        self._id, self._created = f"{self.prefix}-{secrets.token_hex(12)}", int(time.time())

    async def whole(self, answers: AsyncIterator[Answer]) -> Json:
        """The answer when all choices have ended."""
        async for place, event in answers:
            assert event.completion is not None
            self.completions[place] = event.completion
        ended = sorted(self.completions.items())
        choices = [self.choice(place, completion) for place, completion in ended]
        return self._with(self.kind, choices) | {"usage": self.usage()}

    async def chunks(
        self, answers: AsyncIterator[Answer], *, tells_usage: bool = False
    ) -> AsyncIterator[Json]:
        """The answer piece by piece, as the tokens come; joined, the pieces are the whole."""
        unsaid: Json = {"usage": None} if tells_usage else {}
        async for place, event in answers:
            if event.completion is not None:
                self.completions[place] = event.completion
            for piece in self.pieces(place, event):
                yield self._with(self.chunk, [{"index": place} | piece]) | unsaid
        if tells_usage:
            yield self._with(self.chunk, []) | {"usage": self.usage()}

    def choice(self, place: int, completion: Completion) -> Json:
        raise NotImplementedError

    def pieces(self, place: int, event: Event) -> Iterator[Json]:
        raise NotImplementedError

    def _with(self, kind: str, choices: list[Json]) -> Json:
        return {
            "id": self._id,
            "object": kind,
            "created": self._created,
            "model": self.served.name,
            "choices": choices,
        }

    def usage(self) -> Json:
        """The number of tokens that were read, once where one prompt has several answers, and
        drawn."""
        read = sum(map(len, {id(row.request): row.prompt for row in self.rows}.values()))
        drawn = sum(len(one.ids) for one in self.completions.values())
        return {"prompt_tokens": read, "completion_tokens": drawn, "total_tokens": read + drawn}


class ChatReply(Reply):
    """What the assistant says, with the calls of tools apart where the client gave tools."""

    kind, chunk, prefix = "chat.completion", "chat.completion.chunk", "chatcmpl"

    def __init__(
        self,
        served: Served,
        rows: Sequence[SequenceState],
        *,
        with_logprobs: bool = False,
        may_call: bool = False,
    ) -> None:
        super().__init__(served, rows)
        self._with_logprobs, self._may_call = with_logprobs, may_call
        self._held: dict[int, CallsHeldBack] = {}

    def choice(self, place: int, completion: Completion) -> Json:
        words, calls = calls_in(completion.text) if self._may_call else (completion.text, [])
        content = words or (None if calls else "")
        message: Json = {"role": "assistant", "content": content, "refusal": None}
        return {
            "index": place,
            "message": message | ({"tool_calls": calls} if calls else {}),
            "logprobs": self._logprobs(*_drawn(completion)),
            "finish_reason": _reason(completion, calls),
        }

    def pieces(self, place: int, event: Event) -> Iterator[Json]:
        if place not in self._held:
            self._held[place] = CallsHeldBack()
            yield _piece({"role": "assistant", "content": ""})
        held = self._held[place]
        shown = held.push(event.text) if self._may_call else event.text
        logprobs = self._logprobs(*_drawn(event))
        if shown or (logprobs and logprobs["content"]):
            yield _piece({"content": shown}, logprobs)
        if event.completion is None:
            return
        rest, calls = held.finish() if self._may_call else ("", [])
        if rest:
            yield _piece({"content": rest})
        if calls:
            yield _piece({"tool_calls": [{"index": i} | call for i, call in enumerate(calls)]})
        yield _piece({}, reason=_reason(event.completion, calls))

    def _logprobs(
        self, ids: Sequence[int], logprobs: Sequence[float], tops: Sequence[TopLogprobs] | None
    ) -> Json | None:
        """Each token with log p in nats, and the likeliest of its place; without the one that ends
        the turn, which is none of what was said."""
        if not self._with_logprobs:
            return None
        tokenizer, told = self.served.tokenizer, []
        for place, (id, value) in enumerate(zip(ids, logprobs, strict=True)):
            if id not in tokenizer.stop_ids:
                likeliest = [
                    _token(tokenizer, *one) for one in (tops[place] if tops else {}).items()
                ]
                told.append(_token(tokenizer, id, value) | {"top_logprobs": likeliest})
        return {"content": told, "refusal": None}


class CompletionReply(Reply):
    """How texts go on; with `echo` after the texts themselves.

    `logprobs` is the number of the likeliest tokens to tell, None tells of no token. Where it
    echoes, `prompt_logprobs` has those of each row's prompt.
    """

    kind, chunk, prefix = "text_completion", "text_completion", "cmpl"

    def __init__(
        self,
        served: Served,
        rows: Sequence[SequenceState],
        *,
        logprobs: int | None = None,
        echo: bool = False,
    ) -> None:
        super().__init__(served, rows)
        self._likeliest, self._echo = logprobs, echo
        self.prompt_logprobs: list[PromptLogprobs] = []
        # The bytes of a row's text so far, by which tokens have their places in it.
        self._bytes: dict[int, bytes] = {}

    def choice(self, place: int, completion: Completion) -> Json:
        return {
            "index": place,
            "text": self._before(place) + completion.text,
            "logprobs": self._logprobs(place, *_drawn(completion)),
            "finish_reason": completion.finish_reason,
        }

    def pieces(self, place: int, event: Event) -> Iterator[Json]:
        begins = place not in self._bytes
        logprobs = self._logprobs(place, *_drawn(event))
        text = (self._before(place) if begins else "") + event.text
        self._bytes.setdefault(place, b"")
        reason = None if event.completion is None else event.completion.finish_reason
        if text or logprobs is not None or reason is not None:
            yield {"text": text, "logprobs": logprobs, "finish_reason": reason}

    def _before(self, place: int) -> str:
        return self.served.tokenizer.decode(self.rows[place].prompt, True) if self._echo else ""

    def _logprobs(
        self,
        place: int,
        ids: Sequence[int],
        logprobs: Sequence[float],
        tops: Sequence[TopLogprobs] | None,
    ) -> Json | None:
        """Tokens, log p in nats and the likeliest of their places side by side, in the older form,
        with each token's place in the text."""
        if self._likeliest is None:
            return None
        tokenizer, begins = self.served.tokenizer, place not in self._bytes
        values, likeliest = list[float | None](logprobs), list[TopLogprobs | None](tops or [])
        if begins and self.prompt_logprobs:
            ids = [*self.rows[place].prompt, *ids]
            values = [None, *self.prompt_logprobs[place][0], *values]
            likeliest = [None, *self.prompt_logprobs[place][1], *likeliest]
        so_far, offsets = self._bytes.get(place, b""), []
        for id in ids:
            offsets.append(len(so_far.decode(errors="ignore")))
            so_far += _said(tokenizer, id)
        self._bytes[place] = so_far
        return {
            "tokens": [_name(tokenizer, id) for id in ids],
            "token_logprobs": [None if one is None else max(one, _NEVER) for one in values],
            "top_logprobs": [one and _by_name(tokenizer, one) for one in likeliest]
            if self._likeliest
            else None,
            "text_offset": offsets,
        }


def _drawn(
    of: Completion | Event,
) -> tuple[Sequence[int], Sequence[float], Sequence[TopLogprobs] | None]:
    """The tokens of a completion, or the one of an event, with log p and the likeliest."""
    if isinstance(of, Completion):
        return of.ids, of.logprobs, of.top_logprobs
    if of.token is None or of.logprob is None:
        # A prompt that fills the context, or a whole answer from behind a guard.
        return ([], [], None) if of.completion is None else _drawn(of.completion)
    return [of.token], [of.logprob], None if of.top_logprobs is None else [of.top_logprobs]


def _piece(delta: Json, logprobs: Json | None = None, reason: str | None = None) -> Json:
    return {"delta": delta, "logprobs": logprobs, "finish_reason": reason}


def _reason(completion: Completion, calls: Sequence[Json]) -> str:
    """Why an answer ended, in OpenAI's words."""
    called = calls and completion.finish_reason == "stop"
    return "tool_calls" if called else completion.finish_reason


# Tokens.


def _token(tokenizer: Tokenizer, id: int, logprob: float) -> Json:
    text = _spelled(tokenizer, id).decode(errors="replace")
    return {"token": text, "logprob": max(logprob, _NEVER), "bytes": [*_said(tokenizer, id)]}


def _said(tokenizer: Tokenizer, id: int) -> bytes:
    """The bytes that a token adds to a text; a control token adds none."""
    return b"" if id in tokenizer.hidden_ids else tokenizer.token_bytes(id)


def _by_name(tokenizer: Tokenizer, likeliest: TopLogprobs) -> dict[str, float]:
    """The likeliest tokens by their names, the likelier of two that share one."""
    found: dict[str, float] = {}
    for id, value in likeliest.items():
        found.setdefault(_name(tokenizer, id), max(value, _NEVER))
    return found


def _name(tokenizer: Tokenizer, id: int) -> str:
    """The text of a token, or its bytes where these are parts of a character, as OpenAI has it."""
    spelled = _spelled(tokenizer, id)
    try:
        return spelled.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in spelled)


def _spelled(tokenizer: Tokenizer, id: int) -> bytes:
    """The bytes of a token; of a control token, of its name; of one without a text, its id."""
    name = next((name for name, known in tokenizer.special_tokens.items() if known == id), None)
    if name is not None:
        return name.encode()
    return tokenizer.token_bytes(id) or f"token_id:{id}".encode()


# Calls of tools.


def calls_in(text: str) -> tuple[str, list[Json]]:
    """Return an answer's words and the calls of tools that it ends with, as Hermes and Qwen write
    them.

    An answer that ends with something that only looks like a call is all words.
    """
    said = text.strip()
    try:
        words, calls = calls_apart(said, said.count(CALL))
    except (ValueError, RecursionError):
        return text, []
    return (words.rstrip(), list(map(_call, calls))) if calls else (text, [])


def _call(call: Mapping[str, Any]) -> Json:
    # Mistral's template takes ids of nine letters and digits alone, others take any.
    id = "".join(secrets.choice(_LETTERS) for _ in range(9))
    arguments = json.dumps(call.get("arguments", {}), ensure_ascii=False)
    return {
        "id": id,
        "type": "function",
        "function": {"name": call["name"], "arguments": arguments},
    }


class CallsHeldBack:
    """Lets an answer's words through piece by piece, and none of the calls of tools behind them."""

    def __init__(self) -> None:
        self._text, self._shown = "", 0

    def push(self, piece: str) -> str:
        """Return what is sure to be words."""
        self._text += piece
        call = self._text.find(CALL, self._shown)
        sure = self._text[: call if call >= 0 else len(self._text) - _begun(self._text)]
        # Blanks before a call are none of the words.
        end = max(self._shown, len(sure.rstrip()))
        shown, self._shown = self._text[self._shown : end], end
        return shown

    def finish(self) -> tuple[str, list[Json]]:
        """Return the rest of the words, and the calls."""
        words, calls = calls_in(self._text)
        # Without calls the words are all that was held, blanks included.
        return words[len(self._text[: self._shown].lstrip()) if calls else self._shown :], calls


def _begun(text: str) -> int:
    """The length of the end of a text with which a call may begin."""
    return next((n for n in range(len(CALL) - 1, 0, -1) if text.endswith(CALL[:n])), 0)
