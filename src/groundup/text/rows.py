"""The kinds of data: what a row of each holds, and a line that holds none."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

ROLES = ("system", "user", "assistant", "tool")

Json = Mapping[str, object]
# Variables of a chat template by name, such as Qwen3's enable_thinking; a number is a text here.
TemplateVariables = dict[str, bool | str]


@dataclass(frozen=True)
class Message:
    """One turn of a conversation: who speaks (one of `ROLES`) and what.

    What a tool says is context, as what the user says is: it is never learned. Nor is an answer of
    the assistant whose `weight` is 0, as OpenAI's format says it; else it is 1. With so many
    `calls_at_end` of tools, as text, its content ends, and a chat template may write these in its
    own manner; `call_ids` are their ids, or that of the call that a tool answers, as a JSON list,
    if the data has any. The first message of a conversation has the `tools` that there are, as a
    JSON list.
    """

    role: str
    content: str
    weight: int = field(default=1, repr=False, metadata={"omit_default": True})
    calls_at_end: int = field(default=0, repr=False, compare=False, metadata={"omit_default": True})
    tools: str = field(default="", repr=False, metadata={"omit_default": True})
    call_ids: str = field(default="", repr=False, compare=False, metadata={"omit_default": True})


def as_dicts(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Messages as requests and JSON files have them."""
    return [
        {"role": one.role, "content": one.content}
        | ({"calls_at_end": one.calls_at_end} if one.calls_at_end else {})
        | ({"tools": one.tools} if one.tools else {})
        | ({"call_ids": one.call_ids} if one.call_ids else {})
        for one in messages
    ]


# Calls of tools, in the manner of Hermes' and Qwen's chat templates: so they are text that any
# template can write. One that knows `tool_calls` writes them in its model's own manner.
CALL, _END = "<tool_call>", "</tool_call>"


def call_text(name: str, arguments: object) -> str:
    """A call as text: JSON between "<tool_call>" and "</tool_call>"."""
    written = json.dumps({"name": name, "arguments": arguments}, ensure_ascii=False)
    return f"{CALL}\n{written}\n{_END}"


def calls_apart(content: str, calls: int) -> tuple[str, list[Mapping[str, Any]]]:
    """Return the words of `content` and so many calls that it ends with, {name, arguments} each.

    Raises ValueError where it does not end with so many.
    """
    if calls < 0:
        raise ValueError(f"{calls} calls")
    words, found = content, list[Mapping[str, Any]]()
    for _ in range(calls):
        # No line breaks in JSON: this one is none of an argument's.
        words, begun, call = words.rpartition(f"{CALL}\n")
        read = json.loads(call.removesuffix(f"\n{_END}"))
        if not begun or not isinstance(read, dict) or not isinstance(read.get("name"), str):
            raise ValueError(f"{call!r} is no call of a tool")
        words = words.removesuffix("\n")
        found.insert(0, read)
    return words, found


def ids_in(text: str) -> list[str]:
    """Returns the ids that a JSON list holds. Raises ValueError for what is no list of texts."""
    found = json.loads(text) if text else []
    if not isinstance(found, list) or not all(isinstance(id, str) and id for id in found):
        raise ValueError(f"{text!r} is no list of ids")
    return found


@dataclass(frozen=True)
class Document:
    """A text to pre-train on or to be tested on."""

    text: str
    source: str
    id: str


@dataclass(frozen=True)
class Conversation:
    """Turns with at least one answer of the assistant; `group` is what it shares with others."""

    messages: tuple[Message, ...]
    source: str
    group: str

    @classmethod
    def of(cls, turns: Sequence[str], source: str, group: str) -> Self:
        """Turns that alternate, the user's first."""
        roles = ("user", "assistant")
        messages = tuple(Message(roles[i % 2], turn) for i, turn in enumerate(turns))
        return cls(messages, source, group)


@dataclass(frozen=True)
class Preference:
    """Two answers to one prompt, of which people or facts prefer `chosen`."""

    prompt: tuple[Message, ...]
    chosen: str
    rejected: str
    source: str
    group: str


@dataclass(frozen=True)
class UnpairedPreference:
    """An answer to a prompt with its `label`: whether people or facts find it desirable."""

    prompt: tuple[Message, ...]
    completion: str
    label: bool
    source: str
    group: str


@dataclass(frozen=True)
class Choice:
    """A question with options of which the one at index `answer` is right."""

    prompt: str
    options: tuple[str, ...]
    answer: int
    source: str
    group: str


@dataclass(frozen=True)
class RefusalPrompt:
    """A prompt that should be refused (`kind` harmful) or answered (`kind` benign)."""

    prompt: str
    kind: str
    source: str
    group: str


# What fine-tuning learns from, and every kind that a data stage writes.
TrainingRow = Conversation | Document
AnyRow = Document | Conversation | Preference | Choice | RefusalPrompt


@dataclass(frozen=True)
class PromptRow:
    """A prompt: a text to continue, or else messages to answer.

    `settings` are all other fields of the row, among which may be its own ways to draw. `system` is
    said before a text that is asked as a message.
    """

    text: str | None
    messages: tuple[Message, ...]
    id: str | int | None
    line: int
    settings: Mapping[str, object]
    system: str | None = None

    @property
    def asked(self) -> tuple[Message, ...]:
        """The messages to answer; a text is one of the user's."""
        if self.messages:
            return self.messages
        said = (Message("user", self.text or ""),)
        return said if self.system is None else (Message("system", self.system), *said)


@dataclass(frozen=True)
class BadLine:
    """A line that was set aside, and why."""

    file: str
    line: int
    reason: str

    def __str__(self) -> str:
        return f"{self.file}, line {self.line}: {self.reason}"


class BadRow(Exception):
    """The reason why a row cannot be used; always caught where rows are read, as a `BadLine`."""
