"""Conversations as token ids, with the positions of the assistant's own words.

The chat template writes control tokens (`<|im_start|>`, …) around the messages. A message may
contain the same strings, by accident or by malice, and they must not become control tokens ("prompt
injection by special token"). So a mark character is inserted into every such string in a content
before the template runs. The rendered text is split at the strings that are still whole, which only
the template can have written. Everything else is encoded as plain text, without the marks. Strings
that the template searches for in a content, such as "</think>" to drop the reasoning, get the same
mark.

A template may delete words, such as "/think", and thereby join parts of a message to a control
token. If the control tokens change once every character that could begin one is marked, too, the
conversation is rendered that way.

The tokenizer's file declares some strings of the template to be ordinary tokens, such as Qwen's
"<tool_call>". The model itself produces these: they are tokens in the assistant's words, and text
in everyone else's.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, NamedTuple

from groundup.errors import UserError, known_names, shorten
from groundup.text.pieces import without_taken_blanks
from groundup.text.rows import ROLES, Conversation, Message, ids_in, split_calls
from groundup.text.template import (
    Renderings,
    TemplateFailed,
    names_in,
    render,
    variables_of,
    with_variables,
)
from groundup.text.tokenizer import After, Tokenizer

# A message as in rows, or as users write it: {"role": …, "content": …}.
AnyMessage = Message | Mapping[str, Any]
_KEYS = ("role", "content", "weight", "calls_at_end", "tools", "call_ids")
# Limit for the characters of all prefixes and suffixes of control tokens: real tokenizers have a
# million or two; those with a token for each patch of an image have twenty.
_MAX_AFFIX_CHARS = 10**8
# Number of conversations whose texts are encoded together.
_BATCH_SIZE = 2_000


@dataclass(frozen=True)
class ChatTokens:
    """A conversation's ids, and for each whether the assistant says it (equally long).

    With `last_only`, only the tokens of the last answer are marked, and the ids are the prompt with
    which a model is asked for that answer, followed by the answer.
    """

    ids: list[int]
    assistant: list[bool]
    last_only: bool = False

    def learned(self, messages: Sequence[Message]) -> list[bool]:
        """Whether each token is trained: the assistant's tokens, except answers of weight 0.

        Raises UserError if an answer has weight 0 and the template does not separate the answers.
        """
        answers = [one.weight == 1 for one in messages if one.role == "assistant"]
        if self.last_only or all(answers):
            return self.assistant
        runs = [(speaks, len(list(run))) for speaks, run in itertools.groupby(self.assistant)]
        if sum(speaks for speaks, _ in runs) != len(answers):
            raise UserError(
                "the chat template does not separate the assistant's answers, so an answer of "
                "weight 0 cannot be left out; end the conversation before it"
            )
        rest = iter(answers)
        return [mark for speaks, n in runs for mark in [speaks and next(rest)] * n]


def encode_chat(
    tokenizer: Tokenizer, messages: Sequence[AnyMessage], *, generation_prompt: bool = False
) -> ChatTokens:
    """Encode `messages` ({"role", "content"} each) by the tokenizer's chat template.

    The assistant's tokens are its words and the control token that ends its turn. With
    `generation_prompt` the ids end where the assistant is to begin; earlier answers are then not
    used for training, and none is marked if the template does not show them.

    If a template writes an answer, or the turns before it, differently once another turn follows,
    the result is that of `encode_last_answer`.

    Raises UserError for malformed messages, and for a template that is missing, refuses the
    messages, fails, or, without `generation_prompt`, does not show which text is the assistant's.
    """
    found = _split_conversation(tokenizer, messages, generation_prompt)
    return _joined(found, [_ids(tokenizer, part) for part in found.cut])


def encode_last_answer(tokenizer: Tokenizer, messages: Sequence[AnyMessage]) -> ChatTokens:
    """Encode the prompt for the last answer of `messages`, and that answer.

    The result is `last_only`. Raises UserError like `encode_chat`.
    """
    found = _split_conversation(tokenizer, messages, generation_prompt=False, last_only=True)
    return _joined(found, [_ids(tokenizer, part) for part in found.cut])


def encode_chats(
    tokenizer: Tokenizer,
    conversations: Sequence[Sequence[AnyMessage]],
    *,
    generation_prompt: bool = False,
) -> Iterator[ChatTokens | UserError]:
    """Each of many conversations as encoded by `encode_chat`, or the error that it raises.

    Encodes the texts of some thousand conversations together, which takes a fraction of the time.
    """
    for start in range(0, len(conversations), _BATCH_SIZE):
        yield from _encode_together(
            tokenizer, conversations[start : start + _BATCH_SIZE], generation_prompt
        )


def _encode_together(
    tokenizer: Tokenizer, conversations: Sequence[Sequence[AnyMessage]], generation_prompt: bool
) -> list[ChatTokens | UserError]:
    found: list[_Parts | UserError] = []
    for messages in conversations:
        try:
            found.append(_split_conversation(tokenizer, messages, generation_prompt))
        except UserError as error:
            found.append(error.with_traceback(None))
    texts = {
        (part.text, part.after): None
        for parts in found
        if not isinstance(parts, UserError)
        for part in parts.cut
        if not part.control
    }
    known = dict(zip(texts, tokenizer.encode_pieces(list(texts)), strict=True))
    encoded: list[ChatTokens | UserError] = []
    for parts in found:
        if isinstance(parts, UserError):
            encoded.append(parts)
            continue
        try:
            # Only texts are looked up: a text may look like a control token.
            ids = [None if part.control else known[part.text, part.after] for part in parts.cut]
            new = [
                _ids(tokenizer, p) if i is None else i for p, i in zip(parts.cut, ids, strict=True)
            ]
            encoded.append(_joined(parts, new))
        except UserError as error:
            encoded.append(error.with_traceback(None))
    return encoded


def end_of_turn(tokenizer: Tokenizer) -> int | None:
    """The control token that ends the assistant's turn in the chat template, ignoring blanks.

    It may differ from `eos_token`, as in a base model with Llama 3's template. None if a turn ends
    with text, or if there is no template that renders a plain exchange.
    """
    last = _last_learned(tokenizer)
    return last if last in tokenizer.hidden_ids | tokenizer.stop_ids else None


# Reported if conversations have tools and the template does not support them.
NO_TOOLS = (
    "the chat template does not support `tools`, so the tools of the rows are ignored; describe "
    "them in the system message"
)


def omits_tools(tokenizer: Tokenizer, rows: Iterable[object]) -> bool:
    """Whether conversations in `rows` have tools that the template ignores (see `NO_TOOLS`)."""
    given = any(isinstance(row, Conversation) and row.messages[0].tools for row in rows)
    return given and "tools" not in names_in(tokenizer.chat_template or "")


# Reported if conversations are split into several examples.
SPLIT_CONVERSATIONS = (
    "split: each answer is trained after the turns before it, because the chat template writes "
    "earlier turns differently from the last one"
)

# Reported before training, because otherwise the fault would only show afterwards.
NEVER_STOPS = (
    "the chat template ends the assistant's turn with no control token, so the model never learns "
    "to stop; write {{ eos_token }} after the assistant's words in the folder's template, inside "
    "{% generation %} if it has that"
)


def never_stops(tokenizer: Tokenizer) -> bool:
    """Whether the chat template ends the assistant's turn with text (see `NEVER_STOPS`).

    False if there is no template that renders a plain exchange.
    """
    return _last_learned(tokenizer) is not None and end_of_turn(tokenizer) is None


def _last_learned(tokenizer: Tokenizer) -> int | None:
    """The last trained token of a plain exchange, ignoring blanks, if one can be rendered."""
    if tokenizer.chat_template is None:
        return None
    try:
        found = encode_chat(tokenizer, [Message("user", "a"), Message("assistant", "b")])
    except UserError:
        return None
    learned = itertools.compress(reversed(found.ids), reversed(found.assistant))
    ends = tokenizer.hidden_ids | tokenizer.stop_ids
    return next((id for id in learned if id in ends or tokenizer.token_bytes(id).strip()), None)


def render_chat(
    tokenizer: Tokenizer, messages: Sequence[AnyMessage], *, generation_prompt: bool = False
) -> str:
    """Return the text that the chat template makes of `messages`, for display."""
    checked = _checked(tokenizer, messages)
    marks = _Marks.absent_from(tokenizer.chat_template or "", checked)
    return marks.remove(_rendered(tokenizer, checked, marks, generation_prompt)[0])


def template_of(tokenizer: Tokenizer) -> str:
    """The chat template; raises `UserError` if there is none."""
    if tokenizer.chat_template is None:
        raise UserError(
            "this tokenizer has no chat template, so it cannot hold a conversation; use a chat "
            "model's folder, fine-tune this one on conversations with `groundup sft` if it has "
            "<|im_start|> and <|im_end|>, or write a chat_template into its tokenizer_config.json"
        )
    return tokenizer.chat_template


def with_template_variables(tokenizer: Tokenizer, variables: Mapping[str, bool | str]) -> Tokenizer:
    """Return the tokenizer with these variables set in its chat template (`with_variables`).

    Raises `UserError` for a variable that the template does not read, and without a template.
    """
    if not variables:
        return tokenizer
    template = template_of(tokenizer)
    known = variables_of(template)
    for name in variables:
        if name not in known:
            raise UserError(
                f"template.{shorten(name)[1:-1]} is not a variable of the chat template; "
                f"{known_names(name, known, 'it reads')}"
            )
    return tokenizer.with_template(with_variables(template, variables))


def check_messages(messages: Sequence[AnyMessage]) -> list[Message]:
    """Return `messages` as `Message` objects, or report the one that is not {"role", "content"}."""
    if isinstance(messages, str | Mapping) or not isinstance(messages, Sequence) or not messages:
        raise UserError(
            f"messages={str(messages)[:80]!r} must be a list of at least one "
            '{"role": …, "content": …}'
        )
    return [_check_message(place, message) for place, message in enumerate(messages, start=1)]


def _check_message(place: int, message: AnyMessage) -> Message:
    if isinstance(message, Message):
        if (
            message.role in ROLES
            and isinstance(message.content, str)
            and message.weight in (0, 1)
            and message.calls_at_end == 0
            and not message.tools
            and not message.call_ids
        ):
            return message
        message = vars(message)
    if not isinstance(message, Mapping):
        raise UserError(
            f"message {place} is of type {type(message).__name__}; "
            'write {"role": …, "content": …}'
        )
    other = sorted(str(key) for key in message if key not in _KEYS and message[key] is not None)
    if other:
        raise UserError(
            f'message {place} has the key {other[0]!r}; only "role" and "content" are read: '
            "put its text into the content, or leave it out"
        )
    role, content, weight = message.get("role"), message.get("content"), message.get("weight")
    if role not in ROLES:
        raise UserError(f"message {place} has the role {role!r}; use one of {', '.join(ROLES)}")
    if not isinstance(content, str):
        raise UserError(
            f"message {place} ({role}) has a content of type {type(content).__name__}; "
            "it must be text"
        )
    if weight not in (None, 0, 1):
        raise UserError(f"message {place} has weight={weight!r}, which must be 0 or 1")
    calls = message.get("calls_at_end") or 0
    try:
        split_calls(content, calls)
    except (ValueError, TypeError, RecursionError):
        raise UserError(
            f"message {place} has calls_at_end={calls!r}, but its content does not end with that "
            'many tool calls, each {"name", "arguments"} between <tool_call> and </tool_call>'
        ) from None
    tools = message.get("tools") or ""
    if tools and not _is_list_of_objects(tools):
        raise UserError(
            f"message {place} has tools={str(tools)[:80]!r}, which must be a JSON list of objects"
        )
    # Without escapes, so that control strings in it can be found.
    tools = tools and json.dumps(json.loads(tools), ensure_ascii=False)
    ids = message.get("call_ids") or ""
    try:
        ids = json.dumps(ids_in(ids), ensure_ascii=False) if ids else ""
    except (ValueError, TypeError, RecursionError):
        raise UserError(
            f"message {place} has call_ids={str(ids)[:80]!r}, which must be a JSON list of strings"
        ) from None
    return Message(role, content, 1 if weight is None else int(weight), calls, tools, ids)


def _is_list_of_objects(text: object) -> bool:
    try:
        read = json.loads(text) if isinstance(text, str) else None
    except (ValueError, RecursionError):
        return False
    return isinstance(read, list) and all(isinstance(one, dict) for one in read)


# Marks.

_PRIVATE_USE = "\ue000-\uf8ff\U000f0000-\U000ffffd"


@dataclass(frozen=True)
class _Marks:
    """Three characters that occur neither in the messages nor in the template."""

    break_: str
    start: str
    end: str

    @classmethod
    def absent_from(cls, template: str, messages: list[Message]) -> _Marks:
        said = [text for one in messages for text in (one.content, one.call_ids)]
        taken = _letters(template).union(messages[0].tools, *said)
        private_use = itertools.chain(range(0xE000, 0xF900), range(0xF0000, 0xFFFFE))
        free = (chr(code) for code in private_use if chr(code) not in taken)
        try:
            return cls(next(free), next(free), next(free))
        except StopIteration:
            raise UserError(
                "the messages use up all of Unicode's private characters; none is left to mark "
                "the assistant's words"
            ) from None

    def remove(self, text: str) -> str:
        for mark in (self.break_, self.start, self.end):
            text = text.replace(mark, "")
        return text


@lru_cache(maxsize=8)  # called with the template for every conversation
def _letters(text: str) -> frozenset[str]:
    return frozenset(text)


@dataclass(frozen=True)
class _ControlStrings:
    """Patterns that find a tokenizer's control tokens, or halves of them, in a text."""

    anywhere: re.Pattern[str]  # at each start of one, also overlapping
    whole: re.Pattern[str]
    either: re.Pattern[str]  # whole or broken
    firsts: tuple[str, ...]  # the characters with which they begin
    heads: tuple[str, ...]  # a text may end with one that the template completes
    tails: tuple[str, ...]

    @staticmethod
    @lru_cache(maxsize=16)
    def of(tokens: frozenset[str]) -> _ControlStrings:
        longest_first = sorted(tokens, key=lambda token: (-len(token), token))
        if sum(len(token) ** 2 for token in tokens) > _MAX_AFFIX_CHARS:
            longest = longest_first[0]
            raise UserError(
                f"the control tokens of this tokenizer are too long to look for in messages: "
                f"{longest[:20]!r}… has {len(longest):,} characters; use another tokenizer"
            )
        either = "|".join(map(re.escape, longest_first)) or "(?!)"
        # A mark cannot be put inside a one-character token, so it is put behind it.
        unmarked = "|".join(
            re.escape(token) + ("" if len(token) > 1 else f"(?![{_PRIVATE_USE}])")
            for token in longest_first
        )
        return _ControlStrings(
            anywhere=re.compile(f"(?=(?:{either}))(.)", re.DOTALL),
            whole=re.compile(f"({unmarked or '(?!)'})"),
            either=re.compile(either),
            firsts=tuple({token[0] for token in tokens if token}),
            heads=tuple({token[:cut] for token in tokens for cut in range(1, len(token))}),
            tails=tuple({token[cut:] for token in tokens for cut in range(1, len(token))}),
        )

    def broken(self, content: str, mark: str) -> str:
        """Return `content` with `mark` inside each control string, so that none is whole.

        Halves of a control string at either end of the content are broken, too: "<|im_end|" before
        a template's ">" is the same attack in two pieces. The same holds for halves next to a
        control string, which a template that deletes that string would join.
        """
        held = any(first in content for first in self.firsts)
        if not held and not content.lstrip().startswith(self.tails):  # the usual case
            return content
        places = [found.start() + 1 for found in self.anywhere.finditer(content)]
        starts, ends = [0], []
        for found in self.either.finditer(content):
            ends.append(found.start())
            starts.append(found.end())
        for start, end in zip(starts, [*ends, len(content)], strict=True):
            # Inside the surrounding blanks, because templates may strip them.
            between = content[start:end]
            first, last = end - len(between.lstrip()), start + len(between.rstrip())
            if content.startswith(self.tails, first):
                places.append(first)
            if content.endswith(self.heads, start, last):
                places.append(last)
        cuts = [0, *sorted(set(places)), len(content)]
        return mark.join(content[a:b] for a, b in itertools.pairwise(cuts))


def _control_strings(tokenizer: Tokenizer) -> _ControlStrings:
    return _ControlStrings.of(frozenset(tokenizer.special_tokens))


def _beginnings(tokenizer: Tokenizer) -> _ControlStrings:
    """The control strings and, as further control strings, each of their first characters."""
    tokens = frozenset(tokenizer.special_tokens)
    return _ControlStrings.of(tokens.union(_control_strings(tokenizer).firsts))


def _broken(strings: _ControlStrings, messages: list[Message], marks: _Marks) -> list[Message]:
    """The messages with every control string in their contents broken."""
    contents = [strings.broken(one.content, marks.break_) for one in messages]
    return [
        one if content == one.content else replace(one, content=content)
        for one, content in zip(messages, contents, strict=True)
    ]


def _render(
    tokenizer: Tokenizer,
    strings: _ControlStrings,
    broken: list[Message],
    marks: _Marks,
    cuts: list[tuple[int, bool]],
) -> list[str]:
    """Render the messages, broken at `strings`, up to each cut.

    The assistant's words are enclosed in `start` and `end`.
    """
    template = template_of(tokenizer)
    variables = tokenizer.template_variables
    variables |= {"generation_start": marks.start, "generation_end": marks.end}
    try:
        breaks = (strings.anywhere.pattern, marks.break_)
        tools = None
        if broken and broken[0].tools:
            tools = _broken_json(strings, json.loads(broken[0].tools), marks)
        plain = [_template_message(strings, one, marks) for one in broken]
        try:
            return render(template, Renderings(plain, cuts, variables, breaks, tools))
        except TemplateFailed:
            if not any(one.calls_at_end or one.role == "tool" for one in broken):
                raise
        # Some templates, such as Mistral's, require an id for every call.
        plain = [_template_message(strings, one, marks) for one in _with_ids(broken, marks)]
        return render(template, Renderings(plain, cuts, variables, breaks, tools))
    except RecursionError:
        raise UserError("a tool or its arguments are nested too deeply") from None
    except TemplateFailed as failure:
        reason = marks.remove(str(failure)).rstrip(".")
        remedy = "change the messages, or the folder's template"
        if any(message.role == "tool" for message in broken):
            remedy = _TOOL_REMEDY
        several = [place for place, one in enumerate(broken, 1) if one.calls_at_end > 1]
        if several:
            remedy = (
                f"message {several[0]} calls {broken[several[0] - 1].calls_at_end} tools at once: "
                "give each call a turn of its own, or leave the conversation out"
            )
        raise UserError(
            f"the chat template cannot render this conversation: {reason}; {remedy}"
        ) from failure


def _checked(tokenizer: Tokenizer, messages: Sequence[AnyMessage]) -> list[Message]:
    """The messages as `Message` objects. Tool calls become text if the template does not support
    them, and `tools` are removed if the template does not read them."""
    checked, names = check_messages(messages), names_in(tokenizer.chat_template or "")
    if ".tool_calls" not in names:
        checked = [replace(one, calls_at_end=0) if one.calls_at_end else one for one in checked]
    if "tools" not in names:
        checked = [replace(one, tools="") if one.tools else one for one in checked]
    return checked


def _template_message(
    strings: _ControlStrings, message: Message, marks: _Marks
) -> dict[str, object]:
    """A broken message as {role, content}, plus tool calls or `tool_call_id` in OpenAI's format."""
    ids = [strings.broken(id, marks.break_) for id in ids_in(message.call_ids)]
    if not message.calls_at_end:
        answers = {"tool_call_id": ids[0]} if ids and message.role == "tool" else {}
        return {"role": message.role, "content": message.content, **answers}
    words, calls = split_calls(marks.remove(message.content), message.calls_at_end)
    tool_calls: list[dict[str, object]] = [
        {"type": "function", "function": _broken_json(strings, call, marks)} for call in calls
    ]
    if len(ids) == len(calls):
        tool_calls = [{"id": id, **call} for id, call in zip(ids, tool_calls, strict=True)]
    # Without words the key `content` is missing, not empty, as in transformers.
    said = {"content": strings.broken(words, marks.break_)} if words else {}
    return {"role": message.role, **said, "tool_calls": tool_calls}


def _with_ids(messages: list[Message], marks: _Marks) -> list[Message]:
    """Give every tool call and tool answer without an id one.

    An id has nine letters or digits, as Mistral's template requires. It is derived from the
    conversation up to that point, so it is the same on every read, whatever follows. A tool's
    answers get the ids of the preceding calls, in order.
    """
    said, named, open_calls = hashlib.sha256(), list[Message](), list[str]()
    for message in messages:
        said.update(f"{message.role}\n{marks.remove(message.content)}\n".encode())
        ids = ids_in(message.call_ids)
        if message.role == "tool":
            answered = open_calls.pop(0) if open_calls else said.hexdigest()[:9]
            ids = ids or [answered]
        elif message.calls_at_end:
            numbers = range(message.calls_at_end)
            made = [
                hashlib.sha256(said.digest() + f"{n}".encode()).hexdigest()[:9] for n in numbers
            ]
            ids = ids if len(ids) == message.calls_at_end else made
            open_calls = [*ids]
        named.append(replace(message, call_ids=json.dumps(ids)) if ids else message)
    return named


def _broken_json(strings: _ControlStrings, value: Any, marks: _Marks) -> Any:
    if isinstance(value, str):
        return strings.broken(value, marks.break_)
    if isinstance(value, list):
        return [_broken_json(strings, one, marks) for one in value]
    if isinstance(value, dict):
        return {
            strings.broken(name, marks.break_): _broken_json(strings, one, marks)
            for name, one in value.items()
        }
    return value


def _rendered(
    tokenizer: Tokenizer, messages: list[Message], marks: _Marks, generation_prompt: bool
) -> tuple[str, _ControlStrings, list[Message]]:
    """Render a conversation; return the text, the strings that were broken, and the messages.

    A template that deletes words may assemble a control string from a message that contains none.
    Breaking each character that could begin one prevents this, but a template may search for text
    that begins with such a character. So this is done only if it changes the control strings found.
    """
    cuts = [(len(messages), generation_prompt)]
    strings = _control_strings(tokenizer)
    broken = _broken(strings, messages, marks)
    [full] = _render(tokenizer, strings, broken, marks, cuts)
    texts = [messages[0].tools, *(one.content for one in messages)]
    if any(first in text for first in strings.firsts for text in texts):
        beginnings = _beginnings(tokenizer)
        further = _broken(beginnings, messages, marks)
        if further != broken or messages[0].tools:
            [safe] = _render(tokenizer, beginnings, further, marks, cuts)
            if strings.whole.findall(safe) != strings.whole.findall(full):
                return safe, beginnings, further
    return full, strings, broken


_TOOL_REMEDY = "write the tool's turn as a user turn, or leave the conversation out"


def _require_tools(full: str, broken: list[Message], marks: _Marks) -> None:
    """Check that the rendered text contains the tools, their calls and their answers, as text or
    JSON: many templates omit them."""
    for tool in json.loads(broken[0].tools) if broken[0].tools else ():
        function = tool.get("function")
        name = (function if isinstance(function, dict) else tool).get("name")
        if isinstance(name, str) and name not in marks.remove(full):
            raise UserError(
                f"the chat template leaves out the tool {name!r}; describe the tools in the "
                "system message, and remove them from `tools`"
            )
    for place, message in enumerate(broken, 1):
        said = message.content.strip()
        as_json = json.dumps(said, ensure_ascii=False)[1:-1]
        if message.role == "tool" and said not in full and as_json not in full:
            raise UserError(
                f"the chat template leaves out the tool's answer in message {place}; {_TOOL_REMEDY}"
            )
        if not message.calls_at_end:
            continue
        for call in split_calls(marks.remove(message.content), message.calls_at_end)[1]:
            if call["name"] not in marks.remove(full):
                raise UserError(
                    f"the chat template leaves out the call of the tool {call['name']!r} in "
                    f"message {place}; write the call into its content, or leave it out"
                )


# The assistant's tokens.


def _mark_by_prefixes(
    tokenizer: Tokenizer,
    strings: _ControlStrings,
    broken: list[Message],
    marks: _Marks,
    full: str,
) -> str:
    """Mark the assistant's turns in `full`, rendered by a template without generation blocks.

    A turn begins where the conversation before it, rendered with a generation prompt, ends. It ends
    where the conversation up to it, rendered alone, ends. If a template writes earlier turns
    differently from the last one (dropping reasoning), the turn ends at the first stop token.
    The turn must contain the part of the message after its last control string; the part before it
    may be reasoning.
    """
    turns = [place for place, message in enumerate(broken) if message.role == "assistant"]
    cuts = [(place, True) for place in turns] + [(place + 1, False) for place in turns]
    rendered = _render(tokenizer, strings, broken, marks, cuts)
    before, upto = rendered[: len(turns)], rendered[len(turns) :]
    marked, done = "", 0
    for place, prompt, whole in zip(turns, before, upto, strict=True):
        start, end = len(prompt), _end_of_turn(tokenizer, full, prompt, whole)
        known = full.startswith(prompt) and done <= start < end
        if not known or _last_text(strings, broken[place], marks) not in full[start:end]:
            raise _not_shown(place + 1)
        marked += full[done:start] + marks.start + full[start:end] + marks.end
        done = end
    return marked + full[done:]


def _last_text(strings: _ControlStrings, message: Message, marks: _Marks) -> str:
    """The text of a message after its last control string, broken as in the message; for a message
    with tool calls, the name of the last tool."""
    content = marks.remove(message.content)
    if message.calls_at_end:
        content = split_calls(content, message.calls_at_end)[1][-1]["name"]
    last = strings.either.split(content)[-1]
    return strings.broken(last, marks.break_).strip()


def _not_shown(number: int) -> UserError:
    return UserError(
        "the chat template does not show which text is the assistant's (message "
        f"{number} is not found where its turn begins); put {{% generation %}} and "
        "{% endgeneration %} around the assistant's words in the template"
    )


def _end_of_turn(tokenizer: Tokenizer, full: str, prompt: str, whole: str) -> int:
    """Return the place in `full` after the turn's last control token, or after its text."""
    strings = _control_strings(tokenizer)
    if full.startswith(whole):
        tokens = list(strings.whole.finditer(whole, len(prompt)))
        only_blanks_follow = tokens and not whole[tokens[-1].end() :].strip()
        return tokens[-1].end() if only_blanks_follow else len(whole)
    for token in strings.whole.finditer(full, len(prompt)):
        if tokenizer.special_tokens[token.group()] in tokenizer.stop_ids:
            return token.end()
    return -1


def _prompt_and_answer(
    tokenizer: Tokenizer,
    strings: _ControlStrings,
    broken: list[Message],
    marks: _Marks,
    full: str,
) -> tuple[str, str]:
    """Return the prompt for the last answer, and that answer, marked.

    `full` is the rendered conversation. Text that the template writes after the answer follows the
    end mark.
    """
    if broken[-1].role != "assistant":
        raise _not_shown(len(broken))
    [prompt] = _render(tokenizer, strings, broken, marks, [(len(broken) - 1, True)])
    whole = prompt + _after_prompt(strings, broken, marks, prompt, full)
    start, end = len(prompt), _end_of_turn(tokenizer, whole, prompt, whole)
    if start == end or _last_text(strings, broken[-1], marks) not in whole[start:end]:
        raise _not_shown(len(broken))
    with contextlib.suppress(UserError):
        # Earlier answers may contain control tokens that the assistant itself says.
        prompt = _mark_by_prefixes(tokenizer, strings, broken[:-1], marks, prompt)
    return prompt, marks.start + whole[start:end] + marks.end + whole[end:]


def _after_prompt(
    strings: _ControlStrings, broken: list[Message], marks: _Marks, prompt: str, full: str
) -> str:
    """Return what follows `prompt`, the prompt for the last answer, in the conversation `full`.

    Some templates write different text before an answer than in its prompt. Mistral's puts the
    system message only into the last turn of a prompt: the answer is found after the text shared
    from the last question on. DeepSeek-R1's prompt opens the reasoning, and `full` contains no
    reasoning at all: the answer is taken from its message, and ends as in `full`.
    """
    if full.startswith(prompt):
        return full[len(prompt) :]
    question = broken[-2].content.strip() if len(broken) > 1 else ""
    if not question or broken[-1].calls_at_end:
        raise _not_shown(len(broken))
    ending = prompt.rpartition(question)[2]
    # If the text occurs equally often in both, the answer does not repeat it.
    if 0 < full.count(question + ending) == prompt.count(question + ending):
        return full.rpartition(question + ending)[2]
    said, words = _last_text(strings, broken[-1], marks), marks.remove(broken[-1].content).strip()
    before, _, after = full.rpartition(said) if said else ("", "", "")
    opening = prompt.removeprefix(before.rstrip())
    if opening == prompt or not ending.endswith(opening):
        raise _not_shown(len(broken))
    if strings.broken(words, marks.break_) == said:
        raise UserError(
            f"the chat template begins every answer with {opening.strip()!r}, and message "
            f"{len(broken)} holds no reasoning; begin the message with that, the reasoning (which "
            "may be empty) and its end, or set its weight to 0"
        )
    blanks = opening[len(opening.rstrip()) :]
    words = words.removeprefix(opening.strip()).removeprefix(blanks)
    return strings.broken(words, marks.break_) + after


class _Part(NamedTuple):
    """A part of a rendered conversation: a control token or a text, and what precedes it."""

    text: str
    assistant: bool
    control: bool
    after: After


class _Parts(NamedTuple):
    cut: list[_Part]
    last_only: bool


def _split_conversation(
    tokenizer: Tokenizer,
    messages: Sequence[AnyMessage],
    generation_prompt: bool,
    last_only: bool = False,
) -> _Parts:
    """A rendered conversation, split at whole control strings and at the assistant's marks.

    It is also split at the assistant's first word, because at generation time the prompt is encoded
    alone: a token that joined the prompt's line break to the answer could never be generated.
    """
    checked = _checked(tokenizer, messages)
    marks = _Marks.absent_from(tokenizer.chat_template or "", checked)
    full, strings, broken = _rendered(tokenizer, checked, marks, generation_prompt)
    _require_tools(full, broken, marks)
    asked = ""
    if marks.start in full:
        last = full.rindex(marks.start) if last_only else 0
        asked, full = full[:last], full[last:]
    elif any(message.role == "assistant" for message in checked):
        try:
            if not last_only:
                full = _mark_by_prefixes(tokenizer, strings, broken, marks, full)
        except UserError:
            last_only = not generation_prompt
        if last_only:
            asked, full = _prompt_and_answer(tokenizer, strings, broken, marks, full)
    cut = list[tuple[str, bool, bool]]()
    for text, speaks in ((asked, False), (full, True)):
        found = _pieces(_control_strings(tokenizer), text, marks, tokenizer.spoken_tokens)
        cut += [(piece, control, speaks and marked) for piece, control, marked in found]
    if tokenizer.taking_blanks:
        cut = [*without_taken_blanks(cut, tokenizer.taking_blanks)]
    parts: list[_Part] = []
    after: After = "nothing"
    for piece, control, speaks in cut:
        parts.append(_Part(piece, speaks, control, after))
        after = "control" if control else "text"
    return _Parts(parts, last_only)


def _ids(tokenizer: Tokenizer, part: _Part) -> list[int]:
    if part.control:
        return [tokenizer.special_tokens[part.text]]
    return tokenizer.encode_piece(part.text, part.after)


def _joined(parts: _Parts, ids: Sequence[Sequence[int]]) -> ChatTokens:
    marks = [part.assistant for part, new in zip(parts.cut, ids, strict=True) for _ in new]
    return ChatTokens([id for new in ids for id in new], marks, parts.last_only)


def _pieces(
    strings: _ControlStrings, text: str, marks: _Marks, spoken: Sequence[str]
) -> Iterator[tuple[str, bool, bool]]:
    """Yield (text without marks, is a control token, is the assistant's), in order.

    `spoken` are the control tokens that the assistant may say.
    """
    speaks = False
    for span in re.split(f"([{marks.start}{marks.end}])", text):
        if span in (marks.start, marks.end):
            speaks = span == marks.start
            continue
        if speaks and marks.break_ in span:
            for token in spoken:
                span = span.replace(f"{token[0]}{marks.break_}{token[1:]}", token)
        for place, piece in enumerate(strings.whole.split(span)):
            if piece:
                yield piece.replace(marks.break_, ""), place % 2 == 1, speaks
