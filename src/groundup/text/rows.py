"""The kinds of training data: one dataclass per kind of row, and one for a bad line."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

ROLES = ("system", "user", "assistant", "tool")

Json = Mapping[str, object]
# Variables of a chat template by name, such as Qwen3's enable_thinking; numbers are stored as text.
TemplateVariables = dict[str, bool | str]


@dataclass(frozen=True)
class Message:
    """One turn of a conversation: the speaker (one of `ROLES`) and the content.

    Tool turns are context like user turns, and never trained. An assistant's answer is not trained
    if its `weight` is 0, as in OpenAI's format; the default is 1. `calls_at_end` tool calls, as
    text, end the content; a chat template may render them in its own format. `call_ids` are their
    ids, or that of the call that a tool answers, as a JSON list, if the data has any. The first
    message of a conversation holds the available `tools`, as a JSON list.
    """

    role: str
    content: str
    weight: int = field(default=1, repr=False, metadata={"omit_default": True})
    calls_at_end: int = field(default=0, repr=False, compare=False, metadata={"omit_default": True})
    tools: str = field(default="", repr=False, metadata={"omit_default": True})
    call_ids: str = field(default="", repr=False, compare=False, metadata={"omit_default": True})


def as_dicts(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Messages in the form of requests and JSON files."""
    return [
        {"role": one.role, "content": one.content}
        | ({"calls_at_end": one.calls_at_end} if one.calls_at_end else {})
        | ({"tools": one.tools} if one.tools else {})
        | ({"call_ids": one.call_ids} if one.call_ids else {})
        for one in messages
    ]


# Tool calls, in the format of Hermes' and Qwen's chat templates: as text, any template can write
# them. A template that supports `tool_calls` renders them in its model's own format.
CALL, _END = "<tool_call>", "</tool_call>"


def call_text(name: str, arguments: object) -> str:
    """A call as text: JSON between "<tool_call>" and "</tool_call>"."""
    written = json.dumps({"name": name, "arguments": arguments}, ensure_ascii=False)
    return f"{CALL}\n{written}\n{_END}"


def split_calls(content: str, calls: int) -> tuple[str, list[Mapping[str, Any]]]:
    """Split `content` into its words and the `calls` calls at its end, each {name, arguments}.

    Raises ValueError if it does not end with that many.
    """
    if calls < 0:
        raise ValueError(f"{calls} calls")
    words, found = content, list[Mapping[str, Any]]()
    for _ in range(calls):
        # JSON escapes line breaks, so this one is not inside an argument.
        words, begun, call = words.rpartition(f"{CALL}\n")
        read = json.loads(call.removesuffix(f"\n{_END}"))
        if not begun or not isinstance(read, dict) or not isinstance(read.get("name"), str):
            raise ValueError(f"{call!r} is not a tool call")
        words = words.removesuffix("\n")
        found.insert(0, read)
    return words, found


def ids_in(text: str) -> list[str]:
    """Returns the ids in a JSON list. Raises ValueError for anything but a list of strings."""
    found = json.loads(text) if text else []
    if not isinstance(found, list) or not all(isinstance(id, str) and id for id in found):
        raise ValueError(f"{text!r} is not a list of ids")
    return found


@dataclass(frozen=True)
class Document:
    """A text for pre-training or evaluation."""

    text: str
    source: str
    id: str


@dataclass(frozen=True)
class Conversation:
    """Turns with at least one answer of the assistant; `group` identifies related conversations."""

    messages: tuple[Message, ...]
    source: str
    group: str

    @classmethod
    def of(cls, turns: Sequence[str], source: str, group: str) -> Self:
        """Turns that alternate, starting with the user's."""
        roles = ("user", "assistant")
        messages = tuple(Message(roles[i % 2], turn) for i, turn in enumerate(turns))
        return cls(messages, source, group)


@dataclass(frozen=True)
class Preference:
    """Two answers to one prompt; people or facts prefer `chosen`."""

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
    """A question with options; the one at index `answer` is right."""

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


# The rows of fine-tuning, and every kind that a data stage writes.
TrainingRow = Conversation | Document
AnyRow = Document | Conversation | Preference | Choice | RefusalPrompt


@dataclass(frozen=True)
class PromptRow:
    """A prompt: a text to continue, or else messages to answer.

    `settings` are all other fields of the row, which may include sampling settings. `system` is the
    system prompt for a text that is asked as a message.
    """

    text: str | None
    messages: tuple[Message, ...]
    id: str | int | None
    line: int
    settings: Mapping[str, object]
    system: str | None = None

    @property
    def asked(self) -> tuple[Message, ...]:
        """The messages to answer; a text becomes a user message."""
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
    """The reason why a row cannot be used; readers of rows catch it and report a `BadLine`."""
