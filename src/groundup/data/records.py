"""Reading the files people bring: rows of each kind from JSON Lines, JSON, CSV and Parquet.

A bad line is never silently dropped and never a traceback: it is reported with its file, line
number and reason, counted and set aside. A file is refused as a whole only if it cannot be read
at all or if too many of its lines are bad.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Generic, TypeVar

from groundup.data.csv_files import CSV_SUFFIXES
from groundup.data.fields import answer, check_order, label, messages, prompt, shown, text
from groundup.data.layouts import conversation, document
from groundup.data.row_files import read_text, rows_of
from groundup.data.split import AnyRow, hold_out
from groundup.errors import UserError
from groundup.runs.files import written_aside
from groundup.text.rows import (
    ROLES,
    Asked,
    BadLine,
    BadRow,
    Choice,
    Conversation,
    Document,
    Json,
    Message,
    Preference,
    RefusalPrompt,
)

# What rows hold is part of this page: whoever reads files needs one import.
__all__ = [
    "OWN_HELDOUT",
    "ROLES",
    "Asked",
    "BadLine",
    "Choice",
    "Conversation",
    "Document",
    "Message",
    "Preference",
    "Records",
    "RefusalPrompt",
    "read_choices",
    "read_conversations",
    "read_documents",
    "read_preferences",
    "read_prompts",
    "read_refusals",
    "read_rows",
    "read_text",
    "refuse_bad",
    "split",
    "write_json_lines",
]

# Of a person's own rows.
OWN_HELDOUT = 0.05

Row = TypeVar("Row")


@dataclass(frozen=True)
class Records(Generic[Row]):
    """The good rows of a file in order, and the lines that were set aside."""

    rows: tuple[Row, ...]
    bad: tuple[BadLine, ...]


# What a row of each kind must hold; conversations and documents stand in `layouts`.


def _preference(row: Json, file: str, line: int) -> Preference:
    asked = prompt(row)
    check_order(asked)
    chosen, rejected = answer(row, "chosen"), answer(row, "rejected")
    if chosen == rejected:
        raise BadRow("'chosen' and 'rejected' are the same")
    group = label(row, "group", asked[-1].content)
    return Preference(asked, chosen, rejected, label(row, "source", file), group)


def _choice(row: Json, file: str, line: int) -> Choice:
    options, right = row.get("options"), row.get("answer")
    if not isinstance(options, list) or len(options) < 2:
        raise BadRow("'options' must be a list of at least two strings")
    texts = tuple(text({"option": option}, "option") for option in options)
    if not isinstance(right, int) or isinstance(right, bool) or not 0 <= right < len(texts):
        raise BadRow(f"'answer' must be an index from 0 to {len(texts) - 1}, not {shown(right)}")
    asked = text(row, "prompt")
    return Choice(asked, texts, right, label(row, "source", file), label(row, "group", asked))


def _refusal(row: Json, file: str, line: int) -> RefusalPrompt:
    asked, kind = text(row, "prompt"), text(row, "kind")
    if kind not in ("harmful", "benign"):
        raise BadRow(f"'kind' must be harmful or benign, not {shown(kind)}")
    return RefusalPrompt(asked, kind, label(row, "source", file), label(row, "group", asked))


def _asked(row: Json, file: str, line: int) -> Asked:
    if "messages" not in row and "prompt" not in row:
        raise BadRow(f"needs 'prompt' or 'messages'; it has {shown(sorted(row))}")
    name = "messages" if "messages" in row else "prompt"
    said, turns = None, tuple[Message, ...]()
    if name == "prompt" and not isinstance(row["prompt"], list):
        said = text(row, "prompt")
    else:
        turns = messages(row[name], name)
        if turns[-1].role == "assistant":
            raise BadRow(f"{name!r} ends with the assistant's turn, and there is none to answer")
    id = row.get("id")
    if isinstance(id, bool) or not isinstance(id, str | int | None):
        raise BadRow(f"'id' must be a string or a whole number, not {type(id).__name__}")
    if isinstance(id, str):
        text(row, "id")
    settings = {key: value for key, value in row.items() if key not in (name, "id")}
    return Asked(said, turns, id, line, settings)


def _asked_in_cells(row: Json, file: str, line: int) -> Asked:
    """As `_asked`, with numbers as cells hold them: as text."""
    asked = _asked(row, file, line)
    settings = {
        name: cell if name == "stop" else _number(cell) for name, cell in asked.settings.items()
    }
    return replace(asked, settings=settings)


def _number(cell: object) -> object:
    for kind in (int, float):
        with contextlib.suppress(TypeError, ValueError):
            return kind(cell)  # type: ignore[call-overload, arg-type]
    return cell


def read_prompts(path: Path) -> Records[Asked]:
    """Prompts: the lines of a .txt file, or rows of {prompt} or {messages} with an optional id.

    Empty lines of a .txt file are no prompts. Raises UserError as `read_rows` and `read_text` do.
    """
    if path.suffix in CSV_SUFFIXES:
        return read_rows(path, _asked_in_cells)
    if path.suffix != ".txt":
        return read_rows(path, _asked)
    lines = enumerate(read_text(path).split("\n"), 1)
    return Records(tuple(Asked(line, (), None, n, {}) for n, line in lines if line.strip()), ())


def read_documents(path: Path) -> Records[Document]:
    """Rows of {text} with optional source and id. Raises UserError as `read_rows` does."""
    return read_rows(path, document)


def read_conversations(path: Path) -> Records[Conversation]:
    """Conversations in any layout of `layouts`. Raises UserError as `read_rows` does."""
    return read_rows(path, conversation)


def read_preferences(path: Path) -> Records[Preference]:
    """Rows of {prompt, chosen, rejected}. Raises UserError as `read_rows` does."""
    return read_rows(path, _preference)


def read_choices(path: Path) -> Records[Choice]:
    """Rows of {prompt, options, answer}. Raises UserError as `read_rows` does."""
    return read_rows(path, _choice)


def read_refusals(path: Path) -> Records[RefusalPrompt]:
    """Rows of {prompt, kind}. Raises UserError as `read_rows` does."""
    return read_rows(path, _refusal)


def split(
    data: Path, kind: str, read: Callable[[Path], Records[AnyRow]]
) -> tuple[Records[AnyRow], Records[AnyRow]]:
    """The training and held-out rows of a data-stage folder's `kind`, or of a file of one's own.

    Of a person's own file about every twentieth row is held out, by its hash.
    """
    if data.is_dir():
        heldout = data / kind / "heldout.jsonl"
        # A set may have nothing of a kind to hold out, and its file is then empty.
        is_empty = heldout.is_file() and not heldout.stat().st_size
        nothing: Records[AnyRow] = Records((), ())
        return read(data / kind / "train.jsonl"), nothing if is_empty else read(heldout)
    whole = read(data)
    train, out = hold_out(whole.rows, OWN_HELDOUT)
    return Records(tuple(train), whole.bad), Records(tuple(out), ())


def read_rows(
    path: Path, parse: Callable[[Json, str, int], Row], *, refuse: bool = True
) -> Records[Row]:
    """Every row of a file of rows, made by `parse` of (row, file's stem, line).

    Raises UserError: no such file, a binary or empty one, another suffix, and, unless `refuse` is
    False, what `refuse_bad` refuses.
    """
    rows: list[Row] = []
    bad: list[BadLine] = []
    for line, row in rows_of(path):
        try:
            if isinstance(row, BadRow):
                raise row
            rows.append(parse(row, path.stem, line))
        except BadRow as reason:
            bad.append(BadLine(str(path), line, str(reason)))
    if not rows and not bad:
        raise UserError(f"{str(path)!r} holds no lines; it needs at least one record")
    if refuse:
        refuse_bad(path, len(rows), bad)
    return Records(tuple(rows), tuple(bad))


def refuse_bad(path: Path, good: int, bad: Sequence[BadLine]) -> None:
    """Raises UserError if more than a tenth of the lines (one is always forgiven) or all are bad.

    In so many there is something wrong with the file, and not with some of its lines.
    """
    if not good or len(bad) > max(1, (good + len(bad)) // 10):
        some = "; ".join(f"line {one.line}: {one.reason}" for one in bad[:3])
        raise UserError(
            f"{len(bad)} of {good + len(bad)} lines of {str(path)!r} are bad, and at most a "
            f"tenth may be: {some}{'; …' if len(bad) > 3 else ''}. Mend or remove these lines"
        )


def write_json_lines(path: Path, rows: Iterable[object]) -> int:
    """Dataclasses or dictionaries as JSON Lines; how many were written."""
    count = 0
    with (
        written_aside(path) as partial,
        partial.open("w", encoding="utf-8", errors="backslashreplace", newline="\n") as file,
    ):
        for row in rows:
            content = row if isinstance(row, Mapping) else _as_json(row)
            file.write(json.dumps(content, ensure_ascii=False) + "\n")
            count += 1
    return count


def _as_json(value: object) -> object:
    """Dataclasses become objects, field by field (`asdict` copies deeply, ten times slower)."""
    if hasattr(value, "__dataclass_fields__"):
        return {name: _as_json(getattr(value, name)) for name in value.__dataclass_fields__}
    if isinstance(value, tuple):
        return [_as_json(one) for one in value]
    return value
