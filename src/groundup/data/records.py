"""Rows of each kind in their common layouts: required fields, and reading a file of rows.

    messages        {"messages": [{"role", "content"}, …]}             chat models' own
    ShareGPT        {"conversations": [{"from", "value"}, …]}          of human and gpt
    completions     {"prompt", "completion"}                           also response or answer
    Alpaca          {"instruction", "input", "output"}                 input may be empty
    Dolly           {"instruction", "context", "response"}             context may be empty
    documents       {"text"}                                           not a conversation

All but the last may have a `system` column. Contents may be lists of texts. An assistant turn with
OpenAI's `weight` 0 is not learned, and a row ends with its last learned answer. A tool call of the
assistant, in `tool_calls` or in its own turn, becomes part of its words: in the chat template's
format if that supports `tool_calls`, else between "<tool_call>" and "</tool_call>". A tool's answer
is a turn of the role `tool` and never learned. The tools themselves (a column `tools`) are
described by a chat template that supports `tools`; otherwise describe them in the system prompt.
Columns with other names need a mapping from our names to theirs, such as {"prompt": "question",
"completion": "answer"}.

Pairs of answers are {prompt, chosen, rejected}, or are made from votes {prompt, a, b, choice}
(`votes`). Both answers may be whole conversations that differ only in the last answer, with or
without the row's prompt before them; the prompt is then their common part. Without a prompt they
may be texts of turns that begin with "\\n\\nHuman:" and "\\n\\nAssistant:", as in HH-RLHF. A
table's cell may hold any of these turns as JSON. Questions with options are {prompt, options,
answer}. A good or bad answer is a conversation in any layout with a `label`, true or false (or 1
and 0).

Bad lines are never silently dropped and never cause a traceback: each is reported with its file,
line number and reason, counted and set aside. A file is refused as a whole only if it cannot be
read at all or if too many of its lines are bad.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Generic, TypeVar

from groundup.data.config import PROMPTS_OF_PAIRS, Columns
from groundup.data.fields import (
    answer,
    check_order,
    from_cell,
    is_missing,
    is_vote,
    label,
    messages,
    opening,
    optional,
    prompt,
    text,
    tools_in,
    truth,
    turns_of_text,
    with_system,
)
from groundup.data.files import CSV_SUFFIXES, read_text, rows_of, suffix_of
from groundup.errors import UserError, shorten
from groundup.runs.console import counted, say
from groundup.text.rows import (
    BadLine,
    BadRow,
    Choice,
    Conversation,
    Document,
    Json,
    Message,
    Preference,
    PromptRow,
    RefusalPrompt,
    UnpairedPreference,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from groundup.data.votes import Vote

T = TypeVar("T")


@dataclass(frozen=True)
class Records(Generic[T]):
    """The good rows of a file in order, and the lines that were set aside.

    `remark` is a further note about the file, or empty. With `distinct` repeated rows are
    duplicates; repeated votes are not, because they come from different people. `unread` are
    non-empty columns of pairs, labels and votes that are not read.
    """

    rows: tuple[T, ...]
    bad: tuple[BadLine, ...]
    remark: str = ""
    distinct: bool = False
    unread: tuple[str, ...] = ()


# Conversations and documents.

# Names of the answer next to a prompt, in order of precedence: other tools' names count only if
# they are unambiguous.
_OTHER_ANSWERS = ("response", "answer")


@dataclass(frozen=True)
class RowLayout:
    """A layout, recognized by its column `sign`; `columns` are all that it reads."""

    sign: str
    columns: tuple[str, ...]
    read: Callable[[Json], tuple[Message, ...]]


def _parse_prompt(row: Json) -> tuple[Message, ...]:
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
    if name not in row and is_vote(row):
        raise BadRow("this is a vote between two answers, which groundup dpo learns from")
    return (*prompt(row), Message("assistant", answer(row, name)))


# Dolly's names for Alpaca's input and output.
_DOLLY = ("context", "response")


def _parse_instruction(row: Json) -> tuple[Message, ...]:
    """Alpaca's `text` column repeats all three in its own template, and is not read."""
    context, said = _DOLLY if _is_dolly(row) else ("input", "output")
    return Message("user", _instruction(row, context)), Message("assistant", answer(row, said))


def _instruction(row: Json, context: str) -> str:
    """The instruction, and what it is about, if the column `context` says so."""
    asked, more = text(row, "instruction"), optional(row, context)
    return asked if more is None else f"{asked}\n\n{more}"


def _is_dolly(row: Json) -> bool:
    return row.get("output") is None and row.get("response") is not None


LAYOUTS = (
    RowLayout(
        "messages",
        ("messages", "system"),
        lambda row: messages(row["messages"], "messages", learned=True),
    ),
    RowLayout(
        "conversations",
        ("conversations", "system"),
        lambda row: messages(row["conversations"], "conversations", learned=True),
    ),
    RowLayout("prompt", ("prompt", "completion", "system"), _parse_prompt),
    RowLayout("instruction", ("instruction", "input", "output", "system"), _parse_instruction),
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


def renamed(row: Json, columns: Mapping[str, str]) -> Json:
    """The row with its columns renamed to ours, if it has those in the mapping."""
    mapped = {ours: row[theirs] for ours, theirs in columns.items() if theirs in row}
    # The mapping takes precedence over any other layout that the row may match.
    own = mapped.keys() - {"system", "group"}
    others = {layout.sign for layout in LAYOUTS if own and not own & set(layout.columns)}
    gone = others | set(columns.values()) if mapped else set()
    return {name: value for name, value in row.items() if name not in gone} | mapped


def layout_of(row: Json) -> RowLayout | None:
    """The first layout whose sign the row has; layouts without missing values come first."""
    # Parquet gives each row every column, so null means absent.
    borne = [layout for layout in LAYOUTS if row.get(layout.sign) is not None]
    borne = borne or [layout for layout in LAYOUTS if layout.sign in row]
    is_answered = any(row.get(name) is not None for name in ("completion", *_OTHER_ANSWERS))
    whole = (one for one in borne if one.sign != "prompt" or is_answered)
    return next(whole, borne[0] if borne else None)


# Columns that identify a row, from which nothing is learned.
_NAMES = {"source", "group", "id", "label"}
_KEYS_OF_TURNS = {"role", "content", "from", "value", "weight", "tool_calls", "function_call"}
_KEYS_OF_TURNS |= {"tool_call_id", "calls_at_end", "tools", "call_ids"}


def unread_columns(row: Json) -> set[str]:
    """The non-empty columns of a good row that are not read, and the unread keys of its turns."""
    layout = layout_of(row)
    read = {*_NAMES, *(layout.columns if layout else ("text",))}
    if layout is not None and layout.sign == "prompt" and row.get("completion") is None:
        read |= set(_OTHER_ANSWERS)
    if layout is not None and layout.sign == "instruction" and _is_dolly(row):
        read |= set(_DOLLY)
    return _unread(row, read, (layout.sign,) if layout else ())


def unread_columns_of_answers(row: Json) -> set[str]:
    """The same for a good row that is a pair, a vote, or an answer with a label."""
    if is_vote(row):
        from groundup.data.votes import COLUMNS as columns

        return _unread(row, {*_NAMES, *columns, "system"}, ("prompt",))
    if row.get("chosen") is None:
        return unread_columns(row)
    sides = ("prompt", "chosen", "rejected")
    asked = () if not is_missing(row.get("prompt")) else PROMPTS_OF_PAIRS
    return _unread(row, {*_NAMES, *sides, *asked, "system"}, (*sides, *asked))


def _unread(row: Json, read: set[str], conversations: Sequence[str]) -> set[str]:
    unread = {name for name in row if name not in read and not (name == "tools" and tools_in(row))}
    found = {name for name in unread if not is_missing(row[name]) and row[name] not in ([], {})}
    for name in conversations:
        turns = row.get(name)
        for turn in turns if isinstance(turns, list) else ():
            if isinstance(turn, Mapping):
                said = {key for key in turn if not is_missing(turn[key])}
                found |= {f"{name}.{key}" for key in said - _KEYS_OF_TURNS}
    return found


def conversation(row: Json, file: str, line: int) -> Conversation:
    """Parse a row of any layout as a conversation. Raises BadRow."""
    layout = layout_of(row)
    if layout is None:
        raise BadRow(f"{UNKNOWN}: its columns are {shorten(sorted(row))}; known are {KNOWN}")
    turns = with_system(row, _answered(layout.read(row)))
    group = label(row, "group", "") or opening(turns)
    return Conversation(turns, label(row, "source", file), group)


def _answered(turns: tuple[Message, ...]) -> tuple[Message, ...]:
    """The turns up to the last learned answer; there is nothing to learn from later turns."""
    check_order(turns)
    answers = {place: turn for place, turn in enumerate(turns, 1) if turn.role == "assistant"}
    if not answers:
        raise BadRow("no message of the assistant, so there is nothing to learn")
    learned = [place for place, turn in answers.items() if turn.weight == 1]
    if not learned:
        raise BadRow("every answer has weight 0: there is nothing to learn")
    return turns[: learned[-1]]


def document(row: Json, file: str, line: int) -> Document:
    """Parse a row as a document. Raises BadRow."""
    if "text" not in row and layout_of(row) is not None:
        raise BadRow(
            "no 'text', as it is a conversation, which groundup sft reads: leave its file out here"
        )
    return Document(text(row, "text"), label(row, "source", file), label(row, "id", str(line)))


def _is_labeled_false(row: Json) -> bool:
    """Whether a row is an answer that KTO should make less likely. A label of 0 may be a class
    number, so it counts only next to a completion."""
    label = str(row.get("label")).strip().lower()
    return label == "false" or (label in ("0", "0.0") and row.get("completion") is not None)


def conversation_or_document(row: Json, file: str, line: int) -> Conversation | Document:
    """Parse a row as a conversation, or as a document if it is none. Raises BadRow."""
    if layout_of(row) is None and "text" in row:
        return document(row, file, line)
    if _is_labeled_false(row):
        raise BadRow("this answer is labeled false, which groundup kto learns from; leave it out")
    return conversation(row, file, line)


# Other kinds.


def _preference(row: Json, file: str, line: int) -> Preference:
    asked, chosen, rejected = _pair(row)
    check_order(asked)
    if chosen == rejected:
        raise BadRow("'chosen' and 'rejected' are the same")
    group = label(row, "group", "") or opening(asked)
    return Preference(asked, chosen, rejected, label(row, "source", file), group)


def _pair(row: Json) -> tuple[tuple[Message, ...], str, str]:
    """The prompt and both answers, which may be whole conversations that contain the prompt."""
    sides = [from_cell(row.get(name), name) for name in ("chosen", "rejected")]
    has_prompt = not is_missing(row.get("prompt"))
    if not has_prompt:
        sides = [turns_of_text(side) for side in sides]
    whole = [side for side in sides if isinstance(side, list)]
    if len(whole) < 2 or max(map(len, whole)) < 2:
        row = _with_prompt(row)
        if row.get("prompt") is None:
            raise BadRow(
                f"no 'prompt'; it has {shorten(sorted(row))}. Say which column is which with "
                "--columns, as in --columns prompt=question. Without a prompt 'chosen' and "
                "'rejected' must both be lists of {role, content}, or texts of turns that begin "
                r"with '\n\nHuman:' and '\n\nAssistant:', with the prompt in them"
            )
        return prompt(row), answer(row, "chosen"), answer(row, "rejected")
    before = prompt(row) if has_prompt else ()
    chosen, rejected = (
        _whole(row, messages(side, name), before)
        for side, name in zip(whole, ("chosen", "rejected"), strict=True)
    )
    asked = chosen[:-1]
    if asked != rejected[:-1]:
        raise BadRow(
            "'chosen' and 'rejected' differ before the last answer, so no prompt is shared"
        )
    if chosen[-1].role != "assistant" or rejected[-1].role != "assistant" or not asked:
        raise BadRow("'chosen' and 'rejected' must end with the assistant's answer to a prompt")
    is_begun = asked[: len(before)] == before
    if not is_begun and before[-1].content.strip() != asked[-1].content.strip():
        raise BadRow("'prompt' differs from the prompt inside 'chosen' and 'rejected'")
    return asked, chosen[-1].content, rejected[-1].content


def _with_prompt(row: Json) -> Json:
    """The row with its `prompt`, which may be in Alpaca's or ShareGPT's columns."""
    if not is_missing(row.get("prompt")):
        return row
    if not is_missing(row.get("instruction")):
        return {**row, "prompt": _instruction(row, "input")}
    given = from_cell(row.get("conversations"), "conversations")
    return {**row, "prompt": given} if isinstance(given, list) and given else row


def _whole(
    row: Json, turns: tuple[Message, ...], before: tuple[Message, ...]
) -> tuple[Message, ...]:
    """The turns of an answer that is a conversation, after the prompt if they begin with the
    assistant's reply to it."""
    begins = turns[0].role == "assistant" and before
    return (*before, *turns) if begins else with_system(row, turns)


def _unpaired(row: Json, file: str, line: int) -> tuple[UnpairedPreference, ...]:
    """An answer with a label; a pair gives two of them."""
    if row.get("chosen") is not None or row.get("rejected") is not None:
        return _split_pair(_preference(row, file, line))
    if "label" not in row:
        raise BadRow(f"no 'label', which says true or false; it has {shorten(sorted(row))}")
    good = truth(row["label"])
    if good is None:
        raise BadRow(f"'label' must be true or false, or 1 or 0, not {shorten(row['label'])}")
    said = conversation(row, file, line)
    *asked, last = said.messages
    return (UnpairedPreference(tuple(asked), last.content, good, said.source, said.group),)


def _split_pair(pair: Preference) -> tuple[UnpairedPreference, ...]:
    """The chosen answer, labeled true, and the rejected one, labeled false."""
    return tuple(
        UnpairedPreference(pair.prompt, answer, good, pair.source, pair.group)
        for answer, good in ((pair.chosen, True), (pair.rejected, False))
    )


def _choice(row: Json, file: str, line: int) -> Choice:
    options, right = row.get("options"), row.get("answer")
    if not isinstance(options, list) or len(options) < 2:
        raise BadRow("'options' must be a list of at least two strings")
    texts = tuple(text({"option": option}, "option") for option in options)
    if not isinstance(right, int) or isinstance(right, bool) or not 0 <= right < len(texts):
        raise BadRow(f"'answer' must be an index from 0 to {len(texts) - 1}, not {shorten(right)}")
    asked = text(row, "prompt")
    return Choice(asked, texts, right, label(row, "source", file), label(row, "group", asked))


def _refusal(row: Json, file: str, line: int) -> RefusalPrompt:
    asked, kind = text(row, "prompt"), text(row, "kind")
    if kind not in ("harmful", "benign"):
        raise BadRow(f"'kind' must be harmful or benign, not {shorten(kind)}")
    return RefusalPrompt(asked, kind, label(row, "source", file), label(row, "group", asked))


def _asked(row: Json, file: str, line: int) -> PromptRow:
    # A table's rows have every column: null means absent.
    if row.get("messages") is None and row.get("prompt") is None:
        raise BadRow(f"needs 'prompt' or 'messages'; it has {shorten(sorted(row))}")
    name = "prompt" if row.get("messages") is None else "messages"
    said, turns = None, tuple[Message, ...]()
    given = row[name] if name == "messages" else from_cell(row[name], name)
    if name == "prompt" and not isinstance(given, list):
        said = text(row, "prompt")
    else:
        turns = messages(given, name)
        if turns[-1].role == "assistant":
            raise BadRow(f"{name!r} ends with the assistant's turn, and there is none to answer")
    system = None if turns else optional(row, "system")
    turns = with_system(row, turns) if turns else turns
    id = row.get("id")
    if isinstance(id, bool) or not isinstance(id, str | int | None):
        raise BadRow(f"'id' must be a string or a whole number, not {type(id).__name__}")
    if isinstance(id, str):
        text(row, "id")
    settings = {key: value for key, value in row.items() if key not in (name, "id", "system")}
    return PromptRow(said, turns, id, line, settings, system)


def _asked_or_answered(row: Json, file: str, line: int) -> PromptRow:
    """Like `_asked`; if the row has an answer, its prompt, with the `answer` among its settings."""
    columns: tuple[str, ...] = ("chosen", "rejected", "system")
    if row.get("prompt") is None and row.get("chosen") is not None:
        pair = _preference(row, file, line)
        asked, said = pair.prompt, pair.chosen
    else:
        layout = layout_of(row)
        if layout is None or layout.sign == "prompt":
            found = _asked(row, file, line)
            return replace(found, settings={**found.settings, **_reference(row)})
        if layout.sign == "messages" and layout.read(row)[-1].role != "assistant":
            return _asked(row, file, line)
        *before, last = conversation(row, file, line).messages
        asked, said, columns = tuple(before), last.content, layout.columns
    rest = {key: value for key, value in row.items() if key not in (*columns, "id")}
    if rest.get("answer") is None and not _is_labeled_false(row):
        rest["answer"] = said
    return PromptRow(None, asked, None, line, rest)


def _reference(row: Json) -> Json:
    """The `answer` of a prompt's row under another name; empty if it has none.

    An answer labeled false is not a reference, nor is one to a later turn.
    """
    if row.get("answer") is None and not _is_labeled_false(row):
        with contextlib.suppress(BadRow):
            if row.get("chosen") is None:
                return {"answer": _parse_prompt(row)[-1].content}
            asked, chosen, _ = _pair(row)
            if asked[-1].content.strip() == prompt(row)[-1].content.strip():
                return {"answer": chosen}
    return {}


def _with_numbers(asked: PromptRow) -> PromptRow:
    """The row with numbers parsed from cells, which are text; `stop` and `answer` stay text."""
    settings = {
        name: cell if name in ("stop", "answer") else _number(cell)
        for name, cell in asked.settings.items()
    }
    return replace(asked, settings=settings)


def _number(cell: object) -> object:
    for kind in (int, float):
        with contextlib.suppress(TypeError, ValueError):
            return kind(cell)  # type: ignore[call-overload, arg-type]
    return cell


# Reading a file.


def good_rows(records: Records[T]) -> tuple[T, ...]:
    """The good rows of a file; its bad lines are printed."""
    for line in records.bad:
        say(str(line))
    return records.rows


def rows_in(path: Path, read: Callable[[Path], Records[T]]) -> tuple[T, ...]:
    """The good rows of a file of a data folder; none if the file is missing or empty."""
    return good_rows(read(path)) if path.is_file() and path.stat().st_size > 0 else ()


def read_prompts(
    path: Path, *, answered: bool = False, rename: Columns | None = None
) -> Records[PromptRow]:
    """Prompts: the lines of a .txt file, or rows of {prompt} or {messages} with an optional id.

    With `answered` rows may include their answer: conversations in any layout become prompts
    without their last answer, and pairs of whole conversations without both answers. Empty lines of
    a .txt file are ignored. `rename` and errors are as in `read_rows` and `read_text`.
    """
    parse = _asked_or_answered if answered else _asked
    if suffix_of(path) in CSV_SUFFIXES:
        return read_rows(path, lambda *row: _with_numbers(parse(*row)), rename=rename)
    if suffix_of(path) != ".txt":
        return read_rows(path, parse, rename=rename)
    lines = enumerate(read_text(path).split("\n"), 1)
    return Records(tuple(PromptRow(line, (), None, n, {}) for n, line in lines if line.strip()), ())


def read_documents(path: Path) -> Records[Document]:
    """Rows of {text} with optional source and id. Raises UserError like `read_rows`."""
    return read_rows(path, document)


def read_conversations(path: Path) -> Records[Conversation]:
    """Conversations in any layout. Raises UserError like `read_rows`."""
    return read_rows(path, conversation)


def read_preferences(path: Path, rename: Columns | None = None) -> Records[Preference]:
    """Rows of {prompt, chosen, rejected}, or votes, from which the decided ones make pairs.

    `rename` and errors are as in `read_rows`.
    """
    # Rarely needed, and not by fine-tuning.
    from groundup.data.votes import Vote, vote

    unread = dict[str, None]()
    found = read_rows(path, _recording_unread(unread, vote, _preference), rename=rename)
    votes = [row for row in found.rows if isinstance(row, Vote)]
    given = tuple(row for row in found.rows if isinstance(row, Preference))
    if not votes:
        return Records(given, found.bad, distinct=True, unread=tuple(unread))
    made, remark = _pairs_of_votes(votes, path)
    return Records((*given, *made), found.bad, remark, unread=tuple(unread))


def _recording_unread(
    unread: dict[str, None], vote: Callable[[Json, str, int], Vote], other: Callable[..., T]
) -> Callable[[Json, str, int], Vote | T]:
    """Reads a vote or a row of the other kind, and records unread columns."""

    def read(row: Json, file: str, line: int) -> Vote | T:
        found = vote(row, file, line) if is_vote(row) else other(row, file, line)
        unread.update(dict.fromkeys(sorted(unread_columns_of_answers(row))))
        return found

    return read


def _pairs_of_votes(votes: Sequence[Vote], path: Path) -> tuple[list[Preference], str]:
    """The pairs made from a file's votes, and a remark on their number."""
    from groundup.data.votes import preferences

    made, left_out = preferences(votes, path.stem)
    counts = ", ".join(f"{reason}: {count}" for reason, count in left_out.items())
    whole = len(made) + sum(left_out.values())
    remark = f"{path}: {counted(len(made), 'pair')} of {counted(whole, 'vote')}"
    return made, remark + (f"; left out: {counts}" if counts else "")


def read_votes(path: Path) -> Records[Vote]:
    """Rows of {prompt, a, b, choice}, the unmodified log. Raises UserError like `read_rows`."""
    from groundup.data.votes import vote

    return read_rows(path, vote)


def read_unpaired_preferences(
    path: Path, rename: Columns | None = None
) -> Records[UnpairedPreference]:
    """Answers with a label, true or false, in any layout of conversations; a pair of {prompt,
    chosen, rejected}, or one made from votes, gives one of each. `rename` and errors are as in
    `read_rows`."""
    # Rarely needed, as above.
    from groundup.data.votes import Vote, vote

    unread = dict[str, None]()
    found = read_rows(path, _recording_unread(unread, vote, _unpaired), rename=rename)
    votes = [row for row in found.rows if isinstance(row, Vote)]
    labeled = [rows for rows in found.rows if isinstance(rows, tuple)]
    made, remark = _pairs_of_votes(votes, path) if votes else ([], "")
    rows = (row for rows in (*labeled, *map(_split_pair, made)) for row in rows)
    return Records(tuple(rows), found.bad, remark, unread=tuple(unread))


def read_choices(path: Path) -> Records[Choice]:
    """Rows of {prompt, options, answer}. Raises UserError like `read_rows`."""
    return read_rows(path, _choice)


def read_refusals(path: Path) -> Records[RefusalPrompt]:
    """Rows of {prompt, kind}. Raises UserError like `read_rows`."""
    return read_rows(path, _refusal)


def read_rows(
    path: Path,
    parse: Callable[[Json, str, int], T],
    *,
    refuse: bool = True,
    rename: Columns | None = None,
) -> Records[T]:
    """Every row of a file, parsed by `parse(row, file's stem, line)`.

    `rename` gives a row's columns our names.

    Raises UserError for a missing, binary or empty file, another suffix, a .json file of one object
    around the rows, and, unless `refuse` is False, for anything that `refuse_bad` refuses.
    """
    rows: list[T] = []
    bad: list[BadLine] = []
    row: Json | BadRow = {}
    # Rows have no reference cycles, and searching for them takes two fifths of the reading time.
    collects = gc.isenabled()
    gc.disable()
    try:
        for line, row in rows_of(path):
            try:
                if isinstance(row, BadRow):
                    raise row
                rows.append(parse(row if rename is None else rename(row), path.stem, line))
            except BadRow as reason:
                bad.append(BadLine(str(path), line, str(reason)))
    finally:
        if collects:
            gc.enable()
    if not rows and not bad:
        raise UserError(f"{str(path)!r} holds no lines; it needs at least one record")
    if not rows and len(bad) == 1 and suffix_of(path) == ".json":
        _refuse_wrapped(path, row)
    if refuse:
        if rename is not None and rename.seen and too_many_bad(len(rows), len(bad)):
            rename.check()  # they may be bad because a column is not there
        refuse_bad(path, len(rows), bad)
    return Records(tuple(rows), tuple(bad))


def _refuse_wrapped(path: Path, row: Json | BadRow) -> None:
    """Raises UserError for a file that is one object with the rows inside."""
    inside = (
        []
        if isinstance(row, BadRow)
        else [
            name
            for name, value in row.items()
            if isinstance(value, list) and value and all(isinstance(one, Mapping) for one in value)
        ]
    )
    if inside:
        raise UserError(
            f"{str(path)!r} is one object, not rows; the rows seem to be under {inside[0]!r}: "
            "write that list alone into the file"
        )


def too_many_bad(good: int, bad: int) -> bool:
    """Whether so many bad lines mean that the whole file is wrong, not just some lines."""
    return bad > 0 and (not good or bad > max(1, (good + bad) // 10))


def refuse_bad(path: Path, good: int, bad: Sequence[BadLine]) -> None:
    """Raises UserError if more than a tenth of the lines (one is always allowed) or all are bad.

    Then the whole file is probably wrong, not just some lines.
    """
    if too_many_bad(good, len(bad)):
        # Lines with the same fault are told once.
        first = {one.reason: one for one in reversed(bad)}
        told = sorted(first.values(), key=lambda one: one.line)
        some = "; ".join(f"line {one.line}: {one.reason}" for one in told[:3])
        raise UserError(
            f"{len(bad)} of {good + len(bad)} lines of {str(path)!r} are bad, and at most a "
            f"tenth may be: {some}{'; …' if len(bad) > 3 else ''}. Fix or remove these lines"
        )
