"""Reading the files people bring: plain text, JSON Lines, Parquet.

A bad line is never silently dropped and never a traceback: it is reported with its file, line
number and reason, counted and set aside. A file is refused as a whole only if it cannot be read
at all or if too many of its lines are bad.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from groundup.errors import UserError

ROLES = ("system", "user", "assistant")


@dataclass(frozen=True)
class Message:
    """One turn of a conversation: who speaks (system, user or assistant) and what."""

    role: str
    content: str


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


@dataclass(frozen=True)
class Preference:
    """Two answers to one prompt, of which people or facts prefer `chosen`."""

    prompt: tuple[Message, ...]
    chosen: str
    rejected: str
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


@dataclass(frozen=True)
class Asked:
    """What a model is to go on from: a text, or else messages that it is to answer.

    `settings` are all other fields of the row, among which may be its own ways to draw.
    """

    text: str | None
    messages: tuple[Message, ...]
    id: str | int | None
    line: int
    settings: Mapping[str, object]


@dataclass(frozen=True)
class BadLine:
    """A line that was set aside, and why."""

    file: str
    line: int
    reason: str

    def __str__(self) -> str:
        return f"{self.file}, line {self.line}: {self.reason}"


Row = TypeVar("Row")
Json = Mapping[str, object]


@dataclass(frozen=True)
class Records(Generic[Row]):
    """The good rows of a file in order, and the lines that were set aside."""

    rows: tuple[Row, ...]
    bad: tuple[BadLine, ...]


class _BadRow(Exception):
    """Why one row cannot be used; always caught here and made a BadLine."""


# What a row of each kind must hold.


def _text(row: Json, name: str) -> str:
    value = row.get(name)
    if name not in row:
        raise _BadRow(f"no {name!r}; it has {sorted(row)}")
    if not isinstance(value, str):
        raise _BadRow(f"{name!r} must be a string, not {type(value).__name__}")
    if not value.strip():
        raise _BadRow(f"{name!r} is empty")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise _BadRow(f"{name!r} holds half a surrogate pair at character {error.start}") from error
    return value


def _label(row: Json, name: str, default: str) -> str:
    return _text(row, name) if row.get(name) is not None else default


def _messages(value: object, name: str) -> tuple[Message, ...]:
    if not isinstance(value, list) or not value:
        raise _BadRow(f"{name!r} must be a list of at least one {{role, content}}")
    found = []
    for number, one in enumerate(value, 1):
        if not isinstance(one, Mapping):
            raise _BadRow(f"message {number} must be {{role, content}}")
        try:
            role, content = _text(one, "role"), _text(one, "content")
        except _BadRow as reason:
            raise _BadRow(f"message {number}: {reason}") from reason
        if role not in ROLES:
            raise _BadRow(f"message {number}: role {role!r} is none of {', '.join(ROLES)}")
        found.append(Message(role, content))
    return tuple(found)


def _prompt(row: Json) -> tuple[Message, ...]:
    if not isinstance(row.get("prompt"), list):
        return (Message("user", _text(row, "prompt")),)
    messages = _messages(row["prompt"], "prompt")
    if messages[-1].role != "user":
        raise _BadRow(f"the prompt must end with the user's turn, not the {messages[-1].role}'s")
    return messages


def _answer(row: Json, name: str) -> str:
    """An answer as a string or, as some tools write it, as a list of one assistant message."""
    if not isinstance(row.get(name), list):
        return _text(row, name)
    messages = _messages(row[name], name)
    if len(messages) != 1 or messages[0].role != "assistant":
        raise _BadRow(f"{name!r} must be a string or one message of the assistant")
    return messages[0].content


def _document(row: Json, file: str, line: int) -> Document:
    return Document(_text(row, "text"), _label(row, "source", file), _label(row, "id", str(line)))


def _conversation(row: Json, file: str, line: int) -> Conversation:
    if "messages" in row:
        messages = _messages(row["messages"], "messages")
    elif "prompt" in row:
        messages = (*_prompt(row), Message("assistant", _answer(row, "completion")))
    else:
        raise _BadRow(f"needs 'messages' or 'prompt' and 'completion'; it has {sorted(row)}")
    if all(message.role != "assistant" for message in messages):
        raise _BadRow("no message of the assistant, so there is nothing to learn")
    return Conversation(messages, _label(row, "source", file), _label(row, "group", f"line {line}"))


def _preference(row: Json, file: str, line: int) -> Preference:
    prompt = _prompt(row)
    chosen, rejected = _answer(row, "chosen"), _answer(row, "rejected")
    if chosen == rejected:
        raise _BadRow("'chosen' and 'rejected' are the same")
    group = _label(row, "group", prompt[-1].content)
    return Preference(prompt, chosen, rejected, _label(row, "source", file), group)


def _choice(row: Json, file: str, line: int) -> Choice:
    options, answer = row.get("options"), row.get("answer")
    if not isinstance(options, list) or len(options) < 2:
        raise _BadRow("'options' must be a list of at least two strings")
    texts = tuple(_text({"option": option}, "option") for option in options)
    if not isinstance(answer, int) or isinstance(answer, bool) or not 0 <= answer < len(texts):
        raise _BadRow(f"'answer' must be an index from 0 to {len(texts) - 1}, not {answer!r}")
    prompt = _text(row, "prompt")
    return Choice(prompt, texts, answer, _label(row, "source", file), _label(row, "group", prompt))


def _refusal(row: Json, file: str, line: int) -> RefusalPrompt:
    prompt, kind = _text(row, "prompt"), _text(row, "kind")
    if kind not in ("harmful", "benign"):
        raise _BadRow(f"'kind' must be harmful or benign, not {kind!r}")
    return RefusalPrompt(prompt, kind, _label(row, "source", file), _label(row, "group", prompt))


def _asked(row: Json, file: str, line: int) -> Asked:
    if "messages" not in row and "prompt" not in row:
        raise _BadRow(f"needs 'prompt' or 'messages'; it has {sorted(row)}")
    name = "messages" if "messages" in row else "prompt"
    text, messages = None, tuple[Message, ...]()
    if name == "prompt" and not isinstance(row["prompt"], list):
        text = _text(row, "prompt")
    else:
        messages = _messages(row[name], name)
        if messages[-1].role == "assistant":
            raise _BadRow(f"{name!r} ends with the assistant's turn, and there is none to answer")
    id = row.get("id")
    if isinstance(id, bool) or not isinstance(id, str | int | None):
        raise _BadRow(f"'id' must be a string or a whole number, not {type(id).__name__}")
    if isinstance(id, str):
        _text(row, "id")
    settings = {key: value for key, value in row.items() if key not in (name, "id")}
    return Asked(text, messages, id, line, settings)


def read_prompts(path: Path) -> Records[Asked]:
    """Prompts: the lines of a .txt file, or rows of {prompt} or {messages} with an optional id.

    Empty lines of a .txt file are no prompts. Raises UserError as `_read` and `read_text` do.
    """
    if path.suffix != ".txt":
        return _read(path, _asked)
    lines = enumerate(read_text(path).split("\n"), 1)
    return Records(tuple(Asked(text, (), None, n, {}) for n, text in lines if text.strip()), ())


def read_documents(path: Path) -> Records[Document]:
    """Rows of {text} with optional source and id. Raises UserError as `_read` does."""
    return _read(path, _document)


def read_conversations(path: Path) -> Records[Conversation]:
    """Rows of {messages} or {prompt, completion}. Raises UserError as `_read` does."""
    return _read(path, _conversation)


def read_preferences(path: Path) -> Records[Preference]:
    """Rows of {prompt, chosen, rejected}. Raises UserError as `_read` does."""
    return _read(path, _preference)


def read_choices(path: Path) -> Records[Choice]:
    """Rows of {prompt, options, answer}. Raises UserError as `_read` does."""
    return _read(path, _choice)


def read_refusals(path: Path) -> Records[RefusalPrompt]:
    """Rows of {prompt, kind}. Raises UserError as `_read` does."""
    return _read(path, _refusal)


def split(
    data: Path, kind: str, read: Callable[[Path], Records[Row]]
) -> tuple[Records[Row], Records[Row]]:
    """The training and held-out rows of a data-stage folder's `kind`, or of a file of one's own.

    Of a person's own file every twentieth row is held out, so long as one is left to train on.
    """
    if data.is_dir():
        return read(data / kind / "train.jsonl"), read(data / kind / "heldout.jsonl")
    whole = read(data)
    if len(whole.rows) < 2:
        return whole, Records((), ())
    train = tuple(row for place, row in enumerate(whole.rows) if place % 20)
    return Records(train, whole.bad), Records(whole.rows[::20], ())


def _read(path: Path, parse: Callable[[Json, str, int], Row]) -> Records[Row]:
    """Every row of a .jsonl or .parquet file.

    Raises UserError: no such file, a binary or empty one, a suffix that is neither, or more than a
    tenth of the lines (one is always forgiven) or all of them bad.
    """
    rows: list[Row] = []
    bad: list[BadLine] = []
    reader = _parquet_rows if path.suffix == ".parquet" else _json_rows
    for line, row in reader(path):
        try:
            if isinstance(row, _BadRow):
                raise row
            rows.append(parse(row, path.stem, line))
        except _BadRow as reason:
            bad.append(BadLine(str(path), line, str(reason)))
    if not rows and not bad:
        raise UserError(f"{str(path)!r} holds no lines; it needs at least one record")
    if not rows or len(bad) > max(1, (len(rows) + len(bad)) // 10):
        some = "; ".join(f"line {one.line}: {one.reason}" for one in bad[:3])
        raise UserError(
            f"{len(bad)} of {len(rows) + len(bad)} lines of {str(path)!r} are bad, and at most a "
            f"tenth may be: {some}{'; …' if len(bad) > 3 else ''}. Mend or remove these lines"
        )
    return Records(tuple(rows), tuple(bad))


def _json_rows(path: Path) -> Iterator[tuple[int, Json | _BadRow]]:
    if path.suffix not in (".jsonl", ".json", ".ndjson"):
        raise UserError(
            f"{str(path)!r} ends in {path.suffix!r}; records are read from .jsonl and .parquet"
        )
    # Only a line feed ends a line: JSON strings may hold U+2028 and other separators.
    for number, line in enumerate(_bytes(path).split(b"\n"), 1):
        if line.strip():
            yield number, _parse_line(line)


def _parse_line(line: bytes) -> Json | _BadRow:
    try:
        row = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        return _BadRow(f"not UTF-8 at byte {error.start} of the line")
    except RecursionError:
        return _BadRow("not JSON: nested too deeply")
    except ValueError as error:
        return _BadRow(f"not JSON: {error}")
    if not isinstance(row, dict):
        return _BadRow(f"must be a JSON object, not {type(row).__name__}")
    return row


def _parquet_rows(path: Path) -> Iterator[tuple[int, Json | _BadRow]]:
    _check_file(path)
    try:
        from pyarrow import ArrowException, parquet
    except ImportError as error:
        raise UserError(
            f"{str(path)!r} is a Parquet file and pyarrow is not installed; "
            "run pip install 'groundup[parquet]'"
        ) from error
    number = 0
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=1024):
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
    except (ArrowException, OSError) as error:
        raise UserError(
            f"{str(path)!r} cannot be read as Parquet after row {number} ({error}); write it anew"
        ) from error


# Whole files.


def read_text(path: Path) -> str:
    """A text file as it is, without a byte order mark, its line breaks made line feeds.

    Raises UserError: missing, empty, binary, or not UTF-8 (with the byte offset and the line).
    """
    content = _bytes(path)
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"{str(path)!r} is not UTF-8: byte {content[error.start]:#04x} at offset "
            f"{error.start}, line {line}; convert it, for example with "
            f"iconv -f WINDOWS-1252 -t UTF-8"
        ) from error
    if not text.strip():
        raise UserError(f"{str(path)!r} holds nothing but white space; it needs text")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _bytes(path: Path) -> bytes:
    _check_file(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(
            f"{str(path)!r} cannot be read ({error.strerror}); check who may read it"
        ) from error
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise UserError(f"{str(path)!r} is UTF-16; save it as UTF-8")
    if b"\x00" in content:
        where = content.index(b"\x00")
        raise UserError(
            f"{str(path)!r} is a binary file (a zero byte at offset {where}); "
            "give plain UTF-8 text, JSON Lines or Parquet"
        )
    return content.removeprefix(b"\xef\xbb\xbf")


def _check_file(path: Path) -> None:
    """That there is a file with something in it. Raises UserError with the nearest name."""
    if path.is_dir():
        raise UserError(f"{str(path)!r} is a folder; give a file inside it")
    if not path.exists():
        beside = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        near = difflib.get_close_matches(path.name, beside, n=1)
        hint = f"did you mean {near[0]!r}?" if near else "check the path"
        raise UserError(f"there is no file {str(path)!r}; {hint}")
    if path.stat().st_size == 0:
        raise UserError(f"{str(path)!r} is empty; it needs text")


def write_json_lines(path: Path, rows: Iterable[object]) -> int:
    """Dataclasses or dictionaries as JSON Lines; how many were written."""
    count = 0
    with path.open("w", encoding="utf-8", newline="\n") as file:
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
