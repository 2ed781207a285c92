"""Single fields of a row: a text, a label, turns of a conversation."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Mapping

from groundup.text.cleaning import key
from groundup.text.kinds import ROLES, BadRow, Json, Message

# Who speaks, by the names that are in use; ShareGPT's are human and gpt.
_ROLE_OF = {role: role for role in ROLES} | {
    "human": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "developer": "system",
}
_TOOL_ROLES = ("tool", "function", "function_call", "tool_call", "tool_response", "observation")


def shown(value: object) -> str:
    """A value or a list of names, short enough for a message."""
    text = repr(value)
    return text if len(text) <= 120 else f"{text[:117]}..."


def text(row: Json, name: str) -> str:
    """The field `name`, which must be a string that says something. Raises BadRow."""
    value = row.get(name)
    if name not in row:
        raise BadRow(f"no {name!r}; it has {shown(sorted(row))}")
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
    """Null, blank, or the NaN that tables write where there is nothing."""
    if isinstance(value, str):
        return not value.strip()
    return value is None or (isinstance(value, float) and math.isnan(value))


def optional(row: Json, name: str) -> str | None:
    """The field `name`, or None where it is absent or holds nothing. Raises BadRow."""
    return None if is_missing(row.get(name)) else text(row, name)


def label(row: Json, name: str, default: str) -> str:
    """What a row is called, as a string or a whole number; `default` where it says neither."""
    value = row.get(name)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    try:
        return optional(row, name) or default
    except BadRow:  # it is a name only, and spoils no row
        return default


def answer(row: Json, name: str) -> str:
    """An answer as a string or, as some tools write it, as a list of one assistant message."""
    if isinstance(row.get(name), list):
        turns = messages(row[name], name)
        if len(turns) != 1 or turns[0].role != "assistant":
            raise BadRow(f"{name!r} must be a string or one message of the assistant")
        return turns[0].content
    if name in row and is_missing(row[name]):
        raise BadRow(f"the answer, {name!r}, is empty, so there is nothing to learn")
    return text(row, name)


def prompt(row: Json, name: str = "prompt") -> tuple[Message, ...]:
    """What is asked: a string, or messages that end with the user's turn. Raises BadRow."""
    if not isinstance(row.get(name), list):
        return (Message("user", text(row, name)),)
    turns = messages(row[name], name)
    if turns[-1].role != "user":
        raise BadRow(f"the prompt must end with the user's turn, not the {turns[-1].role}'s")
    return turns


def messages(value: object, name: str) -> tuple[Message, ...]:
    """Turns of {role, content}, or of ShareGPT's {from, value}; empty system turns are left out.

    Raises BadRow, among others for a tool's turn and an empty answer.
    """
    if isinstance(value, str):  # as a table's cell holds a list
        with contextlib.suppress(ValueError, RecursionError):
            value = json.loads(value)
    if not isinstance(value, list) or not value:
        raise BadRow(f"{name!r} must be a list of at least one {{role, content}}")
    read = (_message(one, number) for number, one in enumerate(value, 1))
    found = tuple(one for one in read if one is not None)
    if not found:
        raise BadRow(f"{name!r} holds nothing but an empty turn of the system")
    return found


def _message(one: object, number: int) -> Message | None:
    if not isinstance(one, Mapping):
        raise BadRow(f"message {number} must be {{role, content}}, not {type(one).__name__}")
    # Parquet gives each row every column, so null means that it is not there.
    said = {name: value for name, value in one.items() if value is not None}
    role_name = "from" if "role" not in said and "from" in said else "role"
    content_name = "value" if "content" not in said and "value" in said else "content"
    try:
        role = _role(text(said, role_name))
        if role == "system" and is_missing(said.get(content_name)):
            return None
        if role == "assistant" and is_missing(said.get(content_name)):
            if said.keys() & {"tool_calls", "function_call"}:
                raise BadRow("it calls a tool, which is not learned from; leave the row out")
            raise BadRow("the assistant's answer is empty, so there is nothing to learn")
        return Message(role, text(said, content_name))
    except BadRow as reason:
        raise BadRow(f"message {number}: {reason}") from reason


def _role(given: str) -> str:
    lower = given.strip().lower()
    if lower in _TOOL_ROLES:
        raise BadRow(
            f"role {given!r} is a tool's, and only system, user and assistant are learned from; "
            "leave the row out, or put what the tool said into another turn"
        )
    if lower not in _ROLE_OF:
        raise BadRow(f"role {shown(given)} is none of {', '.join(ROLES)}")
    return _ROLE_OF[lower]


def check_order(turns: tuple[Message, ...]) -> None:
    """That turns go system (or none), user, assistant, user, and so on. Raises BadRow.

    All else is refused by most chat templates, or would be learned wrongly.
    """
    for place, turn in enumerate(turns[1:], 2):
        if turn.role == "system":
            raise BadRow(f"message {place} is of the system, which may only begin a conversation")
        if turn.role == turns[place - 2].role:
            raise BadRow(
                f"messages {place - 1} and {place} are both the {turn.role}'s; join them into one, "
                "or add the turn between them"
            )
    first = next((turn.role for turn in turns if turn.role != "system"), None)
    if first == "assistant":
        raise BadRow("it begins with the assistant's turn, which answers nothing")


def opening(turns: tuple[Message, ...]) -> str:
    """What a conversation begins with, up to the first answer: two answers to it are one group."""
    said = []
    for turn in turns:
        if turn.role == "assistant":
            break
        said.append(turn.content)
    return key("\n".join(said))
