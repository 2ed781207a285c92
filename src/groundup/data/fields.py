"""Single fields of a row: a text, a label, the turns of a conversation."""

from __future__ import annotations

import contextlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import replace

from groundup.errors import shorten
from groundup.text.cleaning import normal_form
from groundup.text.rows import (
    CALL,
    ROLES,
    BadRow,
    Json,
    Message,
    call_text,
    ids_in,
    split_calls,
)

# The names of speakers in use; ShareGPT's are human and gpt.
_ROLE_OF = {role: role for role in ROLES} | {
    "human": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "developer": "system",
    "function": "tool",
    "ipython": "tool",
    "tool_response": "tool",
    "observation": "tool",
}
# The types of text parts in a content, in OpenAI's two interfaces.
_TEXTS = ("text", "input_text", "output_text")
_TRUTH_VALUES = {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False}
# Assistant turns that contain nothing but a tool call.
_CALLS = ("function_call", "tool_call")
_SAID = {"content", "value", "tool_calls", "function_call"}
# The start of a turn in the texts of HH-RLHF (Bai et al. 2022), with its speaker.
_SPOKEN = re.compile(r"(?:\A|\n\n)(Human|Assistant):")
# The start of a list of turns that Python has printed into a cell.
_PRINTED = re.compile(r"\s*\[\s*\{\s*'(?:role|content|from|value)'\s*:")


def text(row: Json, name: str) -> str:
    """The field `name`, which must be a non-blank string. Raises BadRow."""
    value = row.get(name)
    if name not in row:
        raise BadRow(f"no {name!r}; it has {shorten(sorted(row))}")
    if not isinstance(value, str | None):
        raise BadRow(f"{name!r} must be a string, not {type(value).__name__}")
    if value is None or not value.strip():
        raise BadRow(f"{name!r} is empty")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise BadRow(f"{name!r} holds half a surrogate pair at character {error.start}") from error
    return value


def is_missing(value: object) -> bool:
    """Null, blank, or the NaN that tables use for missing values."""
    if isinstance(value, str):
        return not value.strip()
    return value is None or (isinstance(value, float) and math.isnan(value))


def optional(row: Json, name: str) -> str | None:
    """The field `name`, or None if it is absent or blank. Raises BadRow."""
    return None if is_missing(row.get(name)) else text(row, name)


def label(row: Json, name: str, default: str) -> str:
    """Returns a row's name, a string or an integer, or `default` if it has neither."""
    value = row.get(name)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    try:
        return optional(row, name) or default
    except BadRow:  # only a name, so not worth rejecting the row
        return default


def truth(value: object, words: Mapping[str, bool] | None = None) -> bool | None:
    """Returns the value of a label: a truth value, 1 or 0, or one of these as text, as in cells.

    `words` adds other spellings. None for anything else.
    """
    return {**_TRUTH_VALUES, **(words or {})}.get(str(value).strip().lower())


def answer(row: Json, name: str) -> str:
    """An answer as a string or, as some tools write it, as one assistant message or a list of
    one."""
    given = from_cell(row.get(name), name)
    if isinstance(given, Mapping):
        given = [given]
    if isinstance(given, list):
        turns = messages(given, name)
        if len(turns) != 1 or turns[0].role != "assistant":
            raise BadRow(f"{name!r} must be a string or one message of the assistant")
        return turns[0].content
    if name in row and is_missing(row[name]):
        raise BadRow(f"the answer, {name!r}, is empty, so there is nothing to learn")
    return text(row, name)


def prompt(row: Json, name: str = "prompt") -> tuple[Message, ...]:
    """Returns the prompt: one string, or messages that end with the user's turn, after the row's
    `system`. Raises BadRow."""
    given = from_cell(row.get(name), name)
    if not isinstance(given, list):
        return with_system(row, (Message("user", text(row, name)),))
    turns = messages(given, name)
    if turns[-1].role not in ("user", "tool"):
        raise BadRow(f"the prompt must end with the user's turn, not the {turns[-1].role}'s")
    return with_system(row, turns)


def with_system(row: Json, turns: tuple[Message, ...]) -> tuple[Message, ...]:
    """Returns the turns after the text of the row's column `system`, if they do not begin with a
    system turn, and with the tools of its column `tools`. Raises BadRow."""
    system = optional(row, "system")
    if system is not None and turns[0].role != "system":
        turns = (Message("system", system), *turns)
    tools = tools_in(row)
    return (replace(turns[0], tools=tools), *turns[1:]) if tools else turns


def tools_in(row: Json) -> str:
    """The field `tools` as JSON, if it is a list of objects or, in a cell, JSON of one."""
    given = row.get("tools")
    given = _parsed(given) if isinstance(given, str) else given
    if not isinstance(given, list) or not all(isinstance(one, Mapping) for one in given):
        return ""
    return text({"tools": json.dumps(given, ensure_ascii=False)}, "tools") if given else ""


def from_cell(value: object, name: str) -> object:
    """Returns the list of turns that a table's cell holds as text, or else the value itself.

    Any other list may be the text of a turn. Raises BadRow for a list as printed by Python.
    """
    if not isinstance(value, str) or not value.lstrip().startswith("["):
        return value
    if _PRINTED.match(value):
        raise _printed_list(name)
    found = _parsed(value)
    return found if isinstance(found, list) and found and all(map(_is_turn, found)) else value


def turns_of_text(value: object) -> object:
    """Returns the turns of a text in the format of HH-RLHF, or else the value itself.

    Each begins with "\\n\\nHuman:" or "\\n\\nAssistant:", the first one at the start.
    """
    if not isinstance(value, str):
        return value
    before, *spoken = _SPOKEN.split(value)
    if before.strip() or not spoken:
        return value
    said = zip(spoken[::2], spoken[1::2], strict=True)
    return [{"from": who, "value": content.strip()} for who, content in said]


def _is_turn(one: object) -> bool:
    if not isinstance(one, Mapping) or _SAID.isdisjoint(one):
        return False
    role = str(one.get("role", one.get("from"))).strip().lower()
    return role in _ROLE_OF or role in _CALLS


def _printed_list(name: str) -> BadRow:
    return BadRow(
        f"the cell {name!r} is not JSON but a list as printed by Python; save the data as "
        "JSON Lines or Parquet, which keep lists"
    )


def messages(
    value: object, name: str, *, learned: bool = False, may_be_empty: bool = False
) -> tuple[Message, ...]:
    """Turns of {role, content}, or of ShareGPT's {from, value}; empty system turns are left out.

    With `learned`, an answer of `weight` 0 keeps that weight. If nothing is learned, the user's and
    the assistant's turns may be empty (`may_be_empty`), as from a model that ends at once.

    A tool call becomes part of the assistant's content, between "<tool_call>" and "</tool_call>",
    unless the chat template has its own format: it is learned, like everything the assistant says.
    The tool's answer, which may be empty, is not. Raises BadRow, also for an empty answer of the
    assistant.
    """
    if isinstance(value, str):  # a list in a table's cell
        value = _parsed(value)
        if isinstance(value, str) and value.lstrip().startswith("["):
            raise _printed_list(name)
    if not isinstance(value, list) or not value:
        raise BadRow(f"{name!r} must be a list of at least one {{role, content}}")
    read = (_message(one, number, learned, may_be_empty) for number, one in enumerate(value, 1))
    found: list[Message] = []
    for turn in read:
        if turn is None:
            continue
        # Some data has the text before a call as a separate turn.
        if found and found[-1].role == turn.role == "assistant" and turn.content.startswith(CALL):
            said = found.pop()
            least = min(said.weight, turn.weight)
            calls, ids = turn.calls_at_end, ids_in(turn.call_ids)
            if calls and not split_calls(turn.content, calls)[0]:
                calls, ids = calls + said.calls_at_end, ids_in(said.call_ids) + ids
            turn = Message(
                "assistant", f"{said.content}\n{turn.content}", least, calls, call_ids=_listed(ids)
            )
        found.append(turn)
    if not found:
        raise BadRow(f"{name!r} holds nothing but an empty system turn")
    return tuple(found)


def _message(one: object, number: int, weighted: bool, may_be_empty: bool) -> Message | None:
    if not isinstance(one, Mapping):
        raise BadRow(f"message {number} must be {{role, content}}, not {type(one).__name__}")
    # Parquet gives each row every column, so null means absent.
    said = {name: value for name, value in one.items() if value is not None}
    role_name = "from" if "role" not in said and "from" in said else "role"
    content_name = "value" if "content" not in said and "value" in said else "content"
    try:
        given = text(said, role_name)
        role, content = _role(given), _joined(said.get(content_name))
        if role == "system" and is_missing(content):
            return None
        calls: list[object] = []
        if role == "assistant":
            calls = _tool_calls(said)
            if given.strip().lower() in _CALLS:
                content, calls = None, [content, *calls]
            words = [] if is_missing(content) else [text({content_name: content}, content_name)]
            content = "\n".join([*words, *map(_call, calls)])
            if not content and not may_be_empty:
                raise BadRow("the assistant's answer is empty, so there is nothing to learn")
            if weighted and said.get("weight", 1) not in (0, 1):
                raise BadRow("'weight' must be 0 or 1")
        ids = _call_ids(said, role, calls)
        if role == "tool" and is_missing(content) and not _SAID.isdisjoint(one):
            # Many tools answer with nothing, and their answers are not learned.
            return Message(role, "", call_ids=ids)
        if may_be_empty and isinstance(content, str) and not content.strip():
            return Message(role, content)
        weight = int(said.get("weight", 1)) if weighted and role == "assistant" else 1
        # A call that is already text stays text for every template.
        as_text = any(isinstance(one, str) and one.lstrip().startswith(CALL) for one in calls)
        known = 0 if as_text else len(calls) or _calls_at_end(said, content)
        content = text({content_name: content}, content_name)
        return Message(role, content, weight, known, tools_in(said), ids)
    except BadRow as reason:
        raise BadRow(f"message {number}: {reason}") from reason


def _role(given: str) -> str:
    lower = given.strip().lower()
    if lower in _CALLS:
        return "assistant"
    if lower not in _ROLE_OF:
        raise BadRow(f"role {shorten(given)} is not one of {', '.join(ROLES)}")
    return _ROLE_OF[lower]


def _joined(content: object) -> object:
    """The content; a list of texts, as in OpenAI's interface, is joined to one text."""
    if not isinstance(content, list):
        return content
    parts = []
    for number, part in enumerate(content, 1):
        is_text = isinstance(part, Mapping) and part.get("type", "text") in _TEXTS
        said = part.get("text") if isinstance(part, Mapping) and is_text else part
        if not isinstance(said, str):
            kind = part.get("type") if isinstance(part, Mapping) else type(part).__name__
            raise BadRow(f"part {number} of its content is {shorten(kind)}, but only text is read")
        parts.append(said)
    return "\n".join(parts)


def _tool_calls(said: Json) -> list[object]:
    """The calls next to a turn's content, in OpenAI's current or former format."""
    calls = said.get("tool_calls", [])
    if not isinstance(calls, list):
        raise BadRow(f"'tool_calls' must be a list, not {type(calls).__name__}")
    return [*calls, *([said["function_call"]] if "function_call" in said else [])]


def _calls_at_end(said: Json, content: object) -> int:
    """The number of calls at the end of a content, as recorded in rows that groundup wrote."""
    calls = said.get("calls_at_end", 0)
    if not calls:
        return 0
    with contextlib.suppress(ValueError):
        if isinstance(calls, int) and isinstance(content, str):
            split_calls(content, calls)
            return calls
    raise BadRow(f"'calls_at_end' is {shorten(calls)}, but the content does not end with that many")


def _call_ids(said: Json, role: str, calls: list[object]) -> str:
    """The ids of a turn's calls, or of the call that a tool answers, if each has one."""
    given = [call.get("id") if isinstance(call, Mapping) else None for call in calls]
    if role == "tool":
        given = [said.get("tool_call_id")]
    if not any(given):  # the format of groundup's own rows
        with contextlib.suppress(ValueError, RecursionError):
            given = list[object](ids_in(str(said.get("call_ids", ""))))
    ids = [id for id in given if isinstance(id, str) and id]
    return _listed(ids if len(ids) == len(given) else [])


def _listed(ids: list[str]) -> str:
    return text({"id": json.dumps(ids, ensure_ascii=False)}, "id") if ids else ""


def _call(call: object) -> str:
    """A tool call as text."""
    if isinstance(call, str):
        if call.lstrip().startswith(CALL):
            return call
        call = _parsed(call)
    function = call.get("function") if isinstance(call, Mapping) else None
    if isinstance(call, Mapping) and isinstance(function, Mapping):
        call = function
    if not isinstance(call, Mapping) or not isinstance(call.get("name"), str):
        raise BadRow(f"a tool call must be {{name, arguments}}, not {shorten(call)}")
    arguments = call.get("arguments", {})
    arguments = _parsed(arguments) if isinstance(arguments, str) else arguments
    return call_text(call["name"], arguments)


def _parsed(value: str) -> object:
    """Returns the value of a JSON string, or the string itself."""
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


def check_order(turns: tuple[Message, ...]) -> None:
    """Checks that turns go system (or none), user, assistant, user, and so on. Raises BadRow.

    After the assistant, tools may answer, and then the assistant again. Most chat templates refuse
    any other order, or it would be learned wrongly.
    """
    for place, turn in enumerate(turns[1:], 2):
        if turn.role == "system":
            raise BadRow(f"message {place} is the system's, which may only begin a conversation")
        before = turns[place - 2].role
        if turn.role == "tool" and before not in ("assistant", "tool"):
            raise BadRow(f"message {place} is a tool's, but the assistant called none before it")
        if turn.role == before != "tool":
            raise BadRow(
                f"messages {place - 1} and {place} are both the {turn.role}'s; join them into one, "
                "or add the turn between them"
            )
    first = next((turn.role for turn in turns if turn.role != "system"), None)
    if first in ("assistant", "tool"):
        raise BadRow(f"it begins with the {first}'s turn, which answers nothing")


def opening(turns: tuple[Message, ...]) -> str:
    """Returns the turns before the first answer: conversations that share them are one group.

    System prompts are left out, because a question has the same answer under different ones.
    """
    said = []
    for turn in turns:
        if turn.role == "assistant":
            break
        if turn.role != "system":
            said.append(turn.content)
    return normal_form("\n".join(said))


def is_vote(row: Json) -> bool:
    """Whether a row is a vote instead of a pair of answers."""
    return {"a", "b", "choice"} <= row.keys() and "chosen" not in row
