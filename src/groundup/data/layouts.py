"""How people lay out conversations, and which layout a row has.

    messages        {"messages": [{"role", "content"}, …]}             chat models' own
    ShareGPT        {"conversations": [{"from", "value"}, …]}          of human and gpt
    completions     {"prompt", "completion"}                           also response or answer
    Alpaca          {"instruction", "input", "output"}                 input may be empty
    documents       {"text"}                                           no conversation at all

All but the last may name a `system` beside. Contents may be lists of texts. What the assistant asks
of a tool, as `tool_calls` or in a turn of its own, becomes part of its words; what the tool answers
is a turn of the role `tool` and never learned. The tools themselves (a column `tools`) are not
read: tell of them in the system prompt. Columns of other names are made known by a mapping from
our names to theirs, as {"prompt": "question", "completion": "answer"}.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from groundup.data.fields import (
    answer,
    check_order,
    label,
    messages,
    opening,
    optional,
    prompt,
    shown,
    text,
)
from groundup.errors import UserError
from groundup.text.rows import BadRow, Conversation, Document, Json, Message

# What an answer is called beside a prompt, in this order where there are several: other tools'
# names only count where they leave no doubt.
_OTHER_ANSWERS = ("response", "answer")


@dataclass(frozen=True)
class Layout:
    """A layout is known by its column `sign`; `columns` are all that it reads."""

    sign: str
    columns: tuple[str, ...]
    read: Callable[[Json], tuple[Message, ...]]


def _of_messages(row: Json) -> tuple[Message, ...]:
    return messages(row["messages"], "messages")


def _of_conversations(row: Json) -> tuple[Message, ...]:
    return messages(row["conversations"], "conversations")


def _of_prompt(row: Json) -> tuple[Message, ...]:
    name = "completion"
    if row.get(name) is None:
        others = [one for one in _OTHER_ANSWERS if row.get(one) is not None]
        if len(others) > 1:
            raise BadRow(
                f"both {' and '.join(map(repr, others))} may be the answer; name it with "
                f"--columns completion={others[0]}"
            )
        name = others[0] if others else name
    if name not in row and "chosen" in row and "rejected" in row:
        raise BadRow("this is a pair of answers (chosen, rejected), which groundup dpo learns from")
    return (*prompt(row), Message("assistant", answer(row, name)))


def _of_instruction(row: Json) -> tuple[Message, ...]:
    """Alpaca's `text` column repeats all three in a template of its own, and is not read."""
    asked = text(row, "instruction")
    if (more := optional(row, "input")) is not None:
        asked = f"{asked}\n\n{more}"
    return Message("user", asked), Message("assistant", answer(row, "output"))


LAYOUTS = (
    Layout("messages", ("messages", "system"), _of_messages),
    Layout("conversations", ("conversations", "system"), _of_conversations),
    Layout("prompt", ("prompt", "completion", "system"), _of_prompt),
    Layout("instruction", ("instruction", "input", "output", "system"), _of_instruction),
)
COLUMNS = (
    *dict.fromkeys(column for layout in LAYOUTS for column in layout.columns),
    "text",
    "group",
)
KNOWN = (
    "{messages}, {conversations}, {prompt, completion}, {instruction, input, output} for "
    "conversations and {text} for documents"
)
UNKNOWN = "unknown layout"


def check_columns(columns: Mapping[str, str]) -> None:
    """That a mapping is of our names. Raises UserError for another."""
    for ours, theirs in columns.items():
        if ours not in COLUMNS:
            raise UserError(
                f"--columns {ours}={theirs}: {ours!r} is no column that is read; those are "
                f"{', '.join(COLUMNS)}, and after the '=' stands the name in your file"
            )


def renamed(row: Json, columns: Mapping[str, str]) -> Json:
    """The row with its columns called as ours are, where it has those that the mapping names."""
    mapped = {ours: row[theirs] for ours, theirs in columns.items() if theirs in row}
    # What is mapped is meant: no other layout that the row may be in as well comes into question.
    own = mapped.keys() - {"system", "group"}
    others = {layout.sign for layout in LAYOUTS if own and not own & set(layout.columns)}
    gone = others | set(columns.values()) if mapped else set()
    return {name: value for name, value in row.items() if name not in gone} | mapped


def layout_of(row: Json) -> Layout | None:
    """The first layout whose sign the row bears; one that it fills before one that it does not."""
    # Parquet gives each row every column, so null means that it is not there.
    borne = [layout for layout in LAYOUTS if row.get(layout.sign) is not None]
    borne = borne or [layout for layout in LAYOUTS if layout.sign in row]
    whole = (one for one in borne if one.sign != "prompt" or _has_answer(row))
    return next(whole, borne[0] if borne else None)


def _has_answer(row: Json) -> bool:
    return any(row.get(name) is not None for name in ("completion", *_OTHER_ANSWERS))


def conversation(row: Json, file: str, line: int) -> Conversation:
    """The conversation that a row is, in whichever layout. Raises BadRow."""
    layout = layout_of(row)
    if layout is None:
        raise BadRow(f"{UNKNOWN}: its columns are {shown(sorted(row))}; known are {KNOWN}")
    turns = _answered(layout.read(row))
    system = optional(row, "system")
    if system is not None and turns[0].role != "system":
        turns = (Message("system", system), *turns)
    group = label(row, "group", "") or opening(turns)
    return Conversation(turns, label(row, "source", file), group)


def _answered(turns: tuple[Message, ...]) -> tuple[Message, ...]:
    """The turns up to the last answer: a question at the end is odd, but nothing to learn from."""
    check_order(turns)
    answers = [place for place, turn in enumerate(turns, 1) if turn.role == "assistant"]
    if not answers:
        raise BadRow("no message of the assistant, so there is nothing to learn")
    return turns[: answers[-1]]


def document(row: Json, file: str, line: int) -> Document:
    """The document that a row is. Raises BadRow."""
    return Document(text(row, "text"), label(row, "source", file), label(row, "id", str(line)))


def conversation_or_document(row: Json, file: str, line: int) -> Conversation | Document:
    """Whichever of the two a row is: a document only where it is no conversation. Raises BadRow."""
    if layout_of(row) is None and "text" in row:
        return document(row, file, line)
    return conversation(row, file, line)
