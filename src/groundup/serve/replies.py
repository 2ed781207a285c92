"""Answers in OpenAI's format: whole, or in the chunks of a stream."""

from __future__ import annotations

import codecs
import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

from groundup.generation.engine import Event
from groundup.generation.request import Completion, SequenceState, TopLogprobs
from groundup.serve.tool_calls import CallFormat, CallsHeldBack
from groundup.serve.worker import RowEvent, Served
from groundup.text.tokenizer import Tokenizer

Json = dict[str, Any]
# Tokens, the log p of each in nats, and the most likely tokens at its place.
Logprobs = tuple[list[int], list[float], list[TopLogprobs]]
# Stands for the logarithm of zero, which JSON cannot represent; vLLM's number.
_NEVER = -9999.0


class Reply(ABC):
    """One answer with a choice for each row; `generated` counts their tokens."""

    kind, chunk, prefix = "", "", ""

    def __init__(self, served: Served, rows: Sequence[SequenceState]) -> None:
        self.served, self.rows = served, rows
        self.completions: dict[int, Completion] = {}
        self.generated = 0
        self._start = time.monotonic()
        self._id, self._created = f"{self.prefix}-{secrets.token_hex(12)}", int(time.time())

    async def whole(self, events: AsyncIterator[RowEvent]) -> Json:
        """The answer, once all choices have ended."""
        async for index, event in events:
            self._note(index, event)
        ended = sorted(self.completions.items())
        choices = [self.choice(index, completion) for index, completion in ended]
        return self._with(self.kind, choices) | {"usage": self._usage()}

    async def chunks(
        self, events: AsyncIterator[RowEvent], *, tells_usage: bool = False
    ) -> AsyncIterator[Json]:
        """The answer piece by piece, as tokens are generated; joined, the pieces are the whole."""
        unsaid: Json = {"usage": None} if tells_usage else {}
        async for index, event in events:
            self._note(index, event)
            for piece in self.pieces(index, event):
                yield self._with(self.chunk, [{"index": index} | piece]) | unsaid
        if tells_usage:
            yield self._with(self.chunk, []) | {"usage": self._usage()}

    @abstractmethod
    def choice(self, index: int, completion: Completion) -> Json:
        """One of the choices of the whole answer."""

    @abstractmethod
    def pieces(self, index: int, event: Event) -> Iterator[Json]:
        """What an event adds to a choice, in the chunks of a stream."""

    @property
    def read(self) -> int:
        """The number of prompt tokens; a prompt with several answers counts once."""
        return sum(map(len, {id(row.request): row.prompt for row in self.rows}.values()))

    @property
    def seconds(self) -> float:
        """The time since the request was read."""
        return time.monotonic() - self._start

    def _note(self, index: int, event: Event) -> None:
        if event.completion is not None:
            self.completions[index] = event.completion
        # Rows that are not streamed report only their end.
        ended = sum(len(one.ids) for one in self.completions.values())
        self.generated = max(self.generated + (event.token is not None), ended)

    def _usage(self) -> Json:
        generated = sum(len(one.ids) for one in self.completions.values())
        total = self.read + generated
        return {"prompt_tokens": self.read, "completion_tokens": generated, "total_tokens": total}

    def _with(self, kind: str, choices: list[Json]) -> Json:
        return {
            "id": self._id,
            "object": kind,
            "created": self._created,
            "model": self.served.name,
            "choices": choices,
        }


class ChatReply(Reply):
    """The assistant's message, with the tool calls in the format `calls` separated from it."""

    kind, chunk, prefix = "chat.completion", "chat.completion.chunk", "chatcmpl"

    def __init__(
        self,
        served: Served,
        rows: Sequence[SequenceState],
        *,
        with_logprobs: bool = False,
        calls: CallFormat | None = None,
    ) -> None:
        super().__init__(served, rows)
        self._with_logprobs, self._calls = with_logprobs, calls
        self._held: dict[int, CallsHeldBack] = {}

    def choice(self, index: int, completion: Completion) -> Json:
        text = completion.text
        words, calls = (text, []) if self._calls is None else self._calls.calls_in(text)
        content = words or (None if calls else "")
        message: Json = {"role": "assistant", "content": content, "refusal": None}
        return {
            "index": index,
            "message": message | ({"tool_calls": calls} if calls else {}),
            "logprobs": self._logprobs(index, completion, *_tokens_of(completion)),
            "finish_reason": _reason(completion, calls),
        }

    def pieces(self, index: int, event: Event) -> Iterator[Json]:
        if index not in self._held:
            self._held[index] = CallsHeldBack(self._calls)
            yield _piece({"role": "assistant", "content": ""})
        held = self._held[index]
        shown = held.push(event.text)
        logprobs = self._logprobs(index, event.completion, *_tokens_of(event))
        if shown or (logprobs and logprobs["content"]):
            yield _piece({"content": shown}, logprobs)
        if event.completion is None:
            return
        rest, calls = held.finish()
        if rest:
            yield _piece({"content": rest})
        if calls:
            yield _piece({"tool_calls": [{"index": i} | call for i, call in enumerate(calls)]})
        yield _piece({}, reason=_reason(event.completion, calls))

    def _logprobs(
        self,
        index: int,
        ended: Completion | None,
        ids: list[int],
        logprobs: list[float],
        tops: list[TopLogprobs],
    ) -> Json | None:
        """Each token with its log p and the most likely at its place; without the token that ends
        the turn, which is not part of the message."""
        if not self._with_logprobs:
            return None
        if ended is not None and ended.finish_reason == "stop":
            ids = ids[:-1] if ids and ids[-1] in self.rows[index].stop_ids else ids
        tokens = []
        for id, value, top_logprobs in zip(ids, logprobs, tops, strict=False):
            best = [self._token(*one) for one in top_logprobs.items()]
            tokens.append(self._token(id, value) | {"top_logprobs": best})
        return {"content": tokens, "refusal": None}

    def _token(self, id: int, logprob: float) -> Json:
        tokenizer = self.served.tokenizer
        text = _token_bytes(tokenizer, id).decode(errors="replace")
        return {
            "token": text,
            "logprob": max(logprob, _NEVER),
            "bytes": [*_text_bytes(tokenizer, id)],
        }


class CompletionReply(Reply):
    """Continuations of texts; with `echo`, after the texts themselves.

    `logprobs` is the number of most likely tokens to report; None reports no tokens. With `echo`,
    `prompt_logprobs` has each row's log p of all prompt tokens but the first, and the most likely.
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
        self._top_logprobs, self._echo = logprobs, echo
        self.prompt_logprobs: list[tuple[list[float], list[TopLogprobs]]] = []
        # The length of each row's text so far, from which tokens get their offsets.
        self._lengths: dict[int, _TextOffset] = {}

    def choice(self, index: int, completion: Completion) -> Json:
        return {
            "index": index,
            "text": self._echoed(index) + completion.text,
            "logprobs": self._logprobs(index, *_tokens_of(completion)),
            "finish_reason": completion.finish_reason,
        }

    def pieces(self, index: int, event: Event) -> Iterator[Json]:
        before = self._echoed(index) if index not in self._lengths else ""
        logprobs = self._logprobs(index, *_tokens_of(event))
        self._lengths.setdefault(index, _TextOffset())
        reason = None if event.completion is None else event.completion.finish_reason
        if before or event.text or logprobs is not None or reason is not None:
            yield {"text": before + event.text, "logprobs": logprobs, "finish_reason": reason}

    def _echoed(self, index: int) -> str:
        return self.served.tokenizer.decode(self.rows[index].prompt, True) if self._echo else ""

    def _logprobs(
        self, index: int, ids: list[int], logprobs: list[float], tops: list[TopLogprobs]
    ) -> Json | None:
        """Tokens, their log p and the most likely at their places as parallel lists, in the older
        format, with the offset of each token in the text."""
        if self._top_logprobs is None:
            return None
        tokenizer, begins = self.served.tokenizer, index not in self._lengths
        values, top_logprobs = list[float | None](logprobs), list[TopLogprobs | None](tops)
        if begins and self.prompt_logprobs:
            ids = [*self.rows[index].prompt, *ids]
            values = [None, *self.prompt_logprobs[index][0], *values]
            top_logprobs = [None, *self.prompt_logprobs[index][1], *top_logprobs]
        length = self._lengths.setdefault(index, _TextOffset())
        rows = zip(ids, values, top_logprobs, strict=True)
        return {
            "tokens": [_name(tokenizer, id) for id in ids],
            "token_logprobs": [None if one is None else max(one, _NEVER) for one in values],
            "top_logprobs": [_by_name(tokenizer, *one) for one in rows]
            if self._top_logprobs
            else None,
            "text_offset": [length.before(_text_bytes(tokenizer, id)) for id in ids],
        }


class _TextOffset:
    """The length of a text whose bytes arrive token by token."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._characters = 0

    def before(self, more: bytes) -> int:
        """Return the length before these bytes, with the characters that they leave incomplete."""
        before, (pending, _) = self._characters, self._decoder.getstate()
        self._characters += len(self._decoder.decode(more))
        broken = bool(pending and more) and not _may_begin(pending + more[:1])
        return before + broken


def _may_begin(part: bytes) -> bool:
    """Whether a text in UTF-8 may begin with these bytes."""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(part)
    except UnicodeDecodeError:
        return False
    return True


def _tokens_of(of: Completion | Event) -> Logprobs:
    """The tokens of a completion, or the token of an event, with log p and the most likely."""
    if isinstance(of, Completion):
        return list(of.ids), list(of.logprobs), list(of.top_logprobs or [{}] * len(of.ids))
    if of.token is None or of.logprob is None:
        # A prompt that fills the context, or a whole answer from behind a guard.
        return ([], [], []) if of.completion is None else _tokens_of(of.completion)
    return [of.token], [of.logprob], [of.top_logprobs or {}]


def _piece(delta: Json, logprobs: Json | None = None, reason: str | None = None) -> Json:
    return {"delta": delta, "logprobs": logprobs, "finish_reason": reason}


def _reason(completion: Completion, calls: Sequence[Json]) -> str:
    """Why an answer ended, in OpenAI's words."""
    called = calls and completion.finish_reason == "stop"
    return "tool_calls" if called else completion.finish_reason


# Tokens.


def _by_name(
    tokenizer: Tokenizer, id: int, logprob: float | None, top_logprobs: TopLogprobs | None
) -> dict[str, float] | None:
    """The most likely tokens and the token itself by name; of two with one name, the likelier.

    None for the first token of a prompt.
    """
    if logprob is None or top_logprobs is None:
        return None
    found: dict[str, float] = {}
    for one, value in [*top_logprobs.items(), (id, logprob)]:
        found.setdefault(_name(tokenizer, one), max(value, _NEVER))
    return found


def _name(tokenizer: Tokenizer, id: int) -> str:
    """The text of a token, or its bytes if they are part of a character, in OpenAI's notation."""
    raw = _token_bytes(tokenizer, id)
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in raw)


def _token_bytes(tokenizer: Tokenizer, id: int) -> bytes:
    """The bytes of a token; of a control token, of its name; of one without a text, of its id."""
    name = next((name for name, known in tokenizer.special_tokens.items() if known == id), None)
    if name is not None:
        return name.encode()
    return tokenizer.token_bytes(id) or f"token_id:{id}".encode()


def _text_bytes(tokenizer: Tokenizer, id: int) -> bytes:
    """The bytes that a token adds to a text; a control token adds none."""
    return b"" if id in tokenizer.hidden_ids else tokenizer.token_bytes(id)
