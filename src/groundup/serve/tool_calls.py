"""Tool calls: how a model writes them, how they are parsed, and grammars that enforce them.

The model's own chat template is asked to write a call. Templates of Hermes and Qwen write {"name",
"arguments"} between "<tool_call>" and "</tool_call>", which is also the format for templates
without tools; Llama 3's writes only {"name", "parameters"}. Other formats, such as Mistral's with
its control tokens, are not supported.
"""

from __future__ import annotations

import json
import re
import secrets
import string
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from groundup.errors import UserError
from groundup.generation.grammar import DONE, Choice, Concatenation, Literal, Node, Repeat, Table
from groundup.generation.json_schema import ANY_OBJECT, json_grammar
from groundup.generation.json_values import BLANKS, object_grammar
from groundup.text.chat import encode_last_answer
from groundup.text.rows import CALL, call_text
from groundup.text.tokenizer import Tokenizer

Json = dict[str, Any]
_LETTERS = string.ascii_letters + string.digits
# The call that a template is asked to write.
_NAME, _ARGUMENTS = "any_name", {"any_argument": 1}
_WRITTEN = re.compile(
    r'(?P<before>.*?)\{\s*"name":\s*"any_name",\s*"(?P<key>arguments|parameters)":\s*'
    r'\{\s*"any_argument":\s*1\s*\}\s*\}(?P<after>.*)',
    re.DOTALL,
)


@dataclass(frozen=True)
class CallFormat:
    """How calls are written: the text before and after each, and the key of the arguments.

    With `several`, another call may follow on the next line.
    """

    before: str
    key: str
    after: str
    several: bool

    @property
    def mark(self) -> str:
        """The text that begins a call; empty if an answer with a call holds nothing else."""
        return self.before.strip()

    def calls_in(self, text: str) -> tuple[str, list[Json]]:
        """Return an answer's words and the tool calls after them.

        Text after the first call is not part of the words, as in vLLM's parser for Hermes. If
        something that looks like a call is none, everything is words.
        """
        written = [text]
        if self.mark:
            # The last call may have been cut.
            begin, end = re.escape(self.mark), re.escape(self.after.strip())
            found = re.findall(rf"{begin}(.*?){end}|{begin}(.*)", text, re.DOTALL)
            written = [whole or cut for whole, cut in found]
        try:
            calls = [_call(one, self.key) for one in written]
        except (ValueError, RecursionError):
            return text, []
        return (text[: text.index(self.mark)].rstrip(), calls) if calls else (text, [])

    def grammar(self, tools: Sequence[tuple[str, Node]], *, several: bool) -> Node:
        """The grammar of a call of one of the tools, each with its name and arguments, or of
        `several` one after the other."""
        return self._followed(self._call(self.before, tools), tools, several)

    def optional_grammar(self, tools: Sequence[tuple[str, Node]], *, several: bool) -> Node:
        """The grammar of any text, after which such calls may follow; without a mark, calls replace
        the text, so that words do not begin with a brace."""
        if not self.mark:
            others = dict.fromkeys(range(256), 1)
            first = {byte: row for byte, row in others.items() if byte != ord("{")}
            words = Table([first | dict.fromkeys(b" \t\n\r", 0), others], ends=frozenset((0, 1)))
            return Choice([words, Concatenation([BLANKS, self.grammar(tools, several=several)])])
        rows = _search(self.mark.encode())
        words = Table(
            [{byte: row for byte, row in reads.items() if row != DONE} for reads in rows],
            ends=frozenset(range(len(rows))),
        )
        call = self._call(self.before.partition(self.mark)[2], tools)
        return Choice([words, self._followed(Concatenation([Table(rows), call]), tools, several)])

    def _followed(self, call: Node, tools: Sequence[tuple[str, Node]], several: bool) -> Node:
        if not (several and self.several):
            return call
        return Concatenation([call, Repeat(self._call(f"\n{self.before}", tools))])

    def _call(self, before: str, tools: Sequence[tuple[str, Node]]) -> Node:
        calls = [
            object_grammar(
                [("name", json_grammar({"const": name}), True), (self.key, arguments, True)]
            )
            for name, arguments in tools
        ]
        parts = [Literal(before.encode())] if before else []
        return Concatenation(
            [*parts, Choice(calls), *([Literal(self.after.encode())] if self.after else [])]
        )


@lru_cache(16)
def calls_grammar(
    format: CallFormat, tools: tuple[tuple[str, Node], ...], *, must: bool, several: bool
) -> Node:
    """The grammar of answers that must be tool calls, or else may be words. It is cached, so that
    work on a grammar is done once for the same tools."""
    if must:
        return format.grammar(tools, several=several)
    return format.optional_grammar(tools, several=several)


HERMES = CallFormat(f"{CALL}\n", "arguments", "\n</tool_call>", True)


def call_format(tokenizer: Tokenizer) -> CallFormat | None:
    """How the chat template writes calls; None if the format is unknown."""
    one = _written(tokenizer, 1)
    found = None if one is None else _WRITTEN.fullmatch(one)
    if found is None:
        return None
    several = _written(tokenizer, 2) == f"{one}\n{one}"
    return CallFormat(found["before"], found["key"], found["after"], several)


def _written(tokenizer: Tokenizer, calls: int) -> str | None:
    """An answer with this number of calls, as the chat template writes it; None if it cannot."""
    tool = {"type": "function", "function": {"name": _NAME, "parameters": ANY_OBJECT}}
    said = "\n".join([call_text(_NAME, _ARGUMENTS)] * calls)
    try:
        found = encode_last_answer(
            tokenizer,
            [
                {"role": "user", "content": "a", "tools": json.dumps([tool])},
                {"role": "assistant", "content": said, "calls_at_end": calls},
            ],
        )
    except UserError:
        return None
    ids = [id for id, speaks in zip(found.ids, found.assistant, strict=True) if speaks]
    silent = tokenizer.hidden_ids | tokenizer.stop_ids
    end = next((place for place, id in enumerate(ids) if id in tokenizer.stop_ids), len(ids))
    return None if silent.intersection(ids[:end]) else tokenizer.decode(ids[:end])


def arguments_grammar(function: Json) -> Node:
    """The grammar of a function's arguments: with `strict` exactly its parameters, else these if
    they can be enforced, and any object if not.

    Raises `UserError` for a `strict` schema that cannot be enforced.
    """
    # Without parameters there are no arguments, as with OpenAI.
    parameters = function.get("parameters") or {"type": "object", "additionalProperties": False}
    try:
        return json_grammar(parameters)
    except UserError:
        if function.get("strict"):
            raise
        return json_grammar(ANY_OBJECT)


def _search(text: bytes) -> list[dict[int, int]]:
    """The rows of a table that reads up to the first occurrence of a text.

    Source: Knuth, Morris and Pratt 1977.
    """
    rows = list[dict[int, int]]()
    for place in range(len(text)):
        reads = dict[int, int]()
        for byte in range(256):
            read = text[:place] + bytes([byte])
            kept = next(n for n in range(place + 1, -1, -1) if read.endswith(text[:n]))
            reads[byte] = DONE if kept == len(text) else kept
        rows.append(reads)
    return rows


def _call(written: str, key: str) -> Json:
    """Parse a call that is written as {"name", "arguments"}; the arguments may be missing.

    Raises ValueError for anything else.
    """
    call = json.loads(written)
    if not isinstance(call, dict) or not isinstance(call.get("name"), str):
        raise ValueError(f"{written!r} has no name")
    arguments = call.pop(key, {})
    if call.keys() != {"name"}:
        raise ValueError(f"{written!r} has more than arguments")
    # Mistral's template requires ids of nine letters and digits; others take any.
    id = "".join(secrets.choice(_LETTERS) for _ in range(9))
    # Some models write the arguments as JSON within JSON, as this interface does.
    text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    return {"id": id, "type": "function", "function": {"name": call["name"], "arguments": text}}


class CallsHeldBack:
    """Passes an answer's words on piece by piece, and holds back the tool calls after them.

    Without a format, everything is words.
    """

    def __init__(self, format: CallFormat | None) -> None:
        self._format, self._text, self._shown = format, "", 0

    def push(self, piece: str) -> str:
        """Return the text that is certain to be words."""
        if self._format is None:
            return piece
        self._text += piece
        mark = self._format.mark
        # Without a mark, a call is the whole answer.
        is_words = not mark and self._text.strip() and not self._text.lstrip().startswith("{")
        call = len(self._text) if is_words else self._text.find(mark, self._shown)
        sure = self._text[: call if call >= 0 else len(self._text) - _overlap(self._text, mark)]
        # Whitespace before a call is not part of the words.
        end = max(self._shown, len(sure.rstrip()))
        shown, self._shown = self._text[self._shown : end], end
        return shown

    def finish(self) -> tuple[str, list[Json]]:
        """Return the rest of the words, and the calls."""
        if self._format is None:
            return "", []
        words, calls = self._format.calls_in(self._text)
        return words[self._shown :], calls


def _overlap(text: str, mark: str) -> int:
    """The length of the end of a text that may begin a call."""
    return next((n for n in range(len(mark) - 1, 0, -1) if text.endswith(mark[:n])), 0)
