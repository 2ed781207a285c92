"""Data files in common formats: JSON Lines, a JSON list, CSV, Parquet, plain text.

This module knows file formats, not the contents of rows: it gives each row with its number, or the
reason why the row at that number cannot be read.
"""

from __future__ import annotations

import csv
import json
import re
import shlex
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from groundup.errors import UserError, installing, nearest, shorten
from groundup.runs.files import atomic_write, read_json_object, require_file
from groundup.runs.folder import is_finished
from groundup.runs.request import read_run
from groundup.text.rows import BadRow, Json

JSON_SUFFIXES = (".jsonl", ".json", ".ndjson")
CSV_SUFFIXES = (".csv", ".tsv")
ROW_SUFFIXES = (*JSON_SUFFIXES, *CSV_SUFFIXES, ".parquet")
# For help texts and messages.
ROW_KINDS = f"{', '.join(ROW_SUFFIXES[:-1])} or {ROW_SUFFIXES[-1]}"
TEXT_SUFFIXES = (".txt", ".md")
SUFFIXES = (*ROW_SUFFIXES, *TEXT_SUFFIXES)
# The first bytes of a compressed file, and the command that unpacks it; bzip2's name its default
# level, too, as a text may begin with less.
_UNPACKED_BY = {
    b"\x1f\x8b": "gunzip -k",
    b"\x28\xb5\x2f\xfd": "unzstd",
    b"\xfd7zXZ\x00": "unxz -k",
    b"BZh91AY&SY": "bunzip2 -k",
}


def suffix_of(path: Path) -> str:
    """The suffix that decides how a file is read, in lower case: A.JSONL is a .jsonl file."""
    return path.suffix.lower()


def rows_of(path: Path) -> Iterator[tuple[int, Json | BadRow]]:
    """The rows of a file with one of `ROW_SUFFIXES`, numbered from 1 like its lines.

    A .json file may be one list of rows, which are then numbered by index, or one row over several
    lines. Raises UserError for a file that cannot be read at all.
    """
    suffix = suffix_of(path)
    if suffix == ".parquet":
        return _parquet_rows(path)
    check_file(path)
    if suffix in CSV_SUFFIXES:
        return csv_rows(_bytes(path), path)
    if suffix not in JSON_SUFFIXES:
        raise UserError(
            f"{str(path)!r} ends in {path.suffix!r}; records are read from {ROW_KINDS} files"
        )
    return _json_rows(path)


def _json_rows(path: Path) -> Iterator[tuple[int, Json | BadRow]]:
    content = _bytes(path)
    if suffix_of(path) == ".json":
        if content.lstrip()[:1] == b"[":
            yield from enumerate(_json_list(content, path), 1)
            return
        whole = _parse_line(content)
        if not isinstance(whole, BadRow):
            yield 1, whole
            return
    else:
        _refuse_single_value(content, path)
    # Only a line feed ends a line: JSON strings may contain U+2028 and other separators.
    for number, line in enumerate(content.split(b"\n"), 1):
        if line.strip():
            yield number, _parse_line(line)


def _refuse_single_value(content: bytes, path: Path) -> None:
    """Raises UserError for a file of lines that is one list, or one row over several lines."""
    first, _, rest = content.strip().partition(b"\n")
    # A row that ends on its line is not the beginning of a longer one.
    if rest and isinstance(_parse_line(first), BadRow):
        with suppress(ValueError, RecursionError):
            whole = "list" if isinstance(json.loads(content.decode("utf-8")), list) else "object"
            raise UserError(
                f"{str(path)!r} is one {whole}, and a {suffix_of(path)} file has a row in each "
                "line; call it .json"
            )


def _json_list(content: bytes, path: Path) -> list[Json | BadRow]:
    """One big list, the usual form of Alpaca and ShareGPT data."""
    try:
        repeated = dict[int, BadRow]()
        objects = list[Json]()  # kept, as they are found by their ids

        def read(pairs: list[tuple[str, Any]]) -> Json:
            found = dict(pairs)
            if len(found) < len(pairs):
                objects.append(found)
                repeated[id(found)] = _repeated_key(pairs)
            return found

        rows = json.loads(content.decode("utf-8"), object_pairs_hook=read)
    except RecursionError:
        raise UserError(f"{str(path)!r} is not JSON: nested too deeply") from None
    except ValueError as error:
        raise UserError(
            f"{str(path)!r} is not JSON ({_json_error(error)}); fix it, or write it as JSON Lines "
            "with one row per line, where a bad row does not affect the others"
        ) from None
    return [(_fault_within(row, repeated) if repeated else None) or _object(row) for row in rows]


def _fault_within(row: Any, faults: Mapping[int, BadRow]) -> BadRow | None:
    """The fault of one of the objects in a row, by the object's id."""
    todo = [row]
    while todo:
        one = todo.pop()
        if id(one) in faults:
            return faults[id(one)]
        if isinstance(one, dict | list):
            todo.extend(one.values() if isinstance(one, dict) else one)
    return None


def _repeated_key(pairs: Sequence[tuple[str, Any]]) -> BadRow:
    names = [name for name, _ in pairs]
    name = next(one for one in names if names.count(one) > 1)
    return BadRow(f"the key {shorten(name)} stands more than once in an object; keep one of them")


def _without_repeated_keys(pairs: list[tuple[str, Any]]) -> Json:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise _repeated_key(pairs)
    return found


# Python alone would keep the last of several values.
_DECODER = json.JSONDecoder(object_pairs_hook=_without_repeated_keys)


def _parse_line(line: bytes) -> Json | BadRow:
    try:
        row = _DECODER.decode(line.decode("utf-8"))
        if isinstance(row, list):
            return BadRow("must be a JSON object, not list; call a file that is one list .json")
        return _object(row)
    except BadRow as reason:
        return reason
    except UnicodeDecodeError as error:
        return BadRow(f"not UTF-8 at byte {error.start} of the line")
    except RecursionError:
        return BadRow("not JSON: nested too deeply")
    except json.JSONDecodeError as error:
        return BadRow(f"not JSON: {error.msg} at column {error.colno}")
    except ValueError as error:
        return BadRow(_json_error(error))


def _json_error(error: ValueError) -> str:
    """The error message; for too large integers without Python's advice to change a setting."""
    if isinstance(error, json.JSONDecodeError | UnicodeDecodeError):
        return str(error)
    most = sys.get_int_max_str_digits()
    return f"a whole number has more than {most:,} digits; write it in quotes"


def _object(row: object) -> Json | BadRow:
    if not isinstance(row, dict):
        return BadRow(f"must be a JSON object, not {type(row).__name__}")
    return row


def _parquet_rows(path: Path) -> Iterator[tuple[int, Json | BadRow]]:
    check_file(path)
    try:
        from pyarrow import ArrowException, parquet
    except ImportError as error:
        raise UserError(
            f"{str(path)!r} is a Parquet file and pyarrow is not installed; "
            f"run {installing('parquet')}"
        ) from error
    number = 0
    try:
        with parquet.ParquetFile(path) as file:
            _require_distinct(file.schema_arrow.names, path)
            for batch in file.iter_batches(batch_size=1024):
                columns = {name: _values(batch, name, path) for name in batch.schema.names}
                for values in zip(*columns.values(), strict=True):
                    number += 1
                    yield number, dict(zip(columns, values, strict=True))
    except (ArrowException, OSError) as error:
        raise UserError(
            f"{str(path)!r} cannot be read as Parquet after row {number} ({error}); write it again"
        ) from error


def _values(batch: Any, name: str, path: Path) -> list[Any]:
    """A column of a Parquet file; raises UserError for values that Python cannot represent."""
    try:
        values: list[Any] = batch.column(name).to_pylist()
        return values
    except (ValueError, OverflowError, LookupError) as error:
        raise UserError(
            f"{str(path)!r} has values in the column {name!r} that cannot be read ({error}); leave "
            "the column out, or write it as UTF-8 text"
        ) from error


# Tables: a CSV file's first line names the columns (RFC 4180).

# Delimiters, the usual one first: spreadsheets write a semicolon where the comma is decimal.
_DELIMITERS = ",;\t|"
# A text may be longer than the csv module's default limit.
_LONGEST_CELL = 2**31 - 1
# Marks blanks that are part of a cell; no file contains it.
_KEPT = "\0"
# Excel may name the delimiter in the first line.
_SAID = re.compile(r"sep=(.)\s*")


def csv_rows(content: bytes, path: Path) -> Iterator[tuple[int, Json | BadRow]]:
    """The rows of a file's `content`, each with the number of its first line.

    Cells may contain line breaks within quotes; an empty cell is None, like an absent field in
    JSON. A row with the wrong number of cells, wrong quotes or invalid UTF-8 is a BadRow, and
    reading continues after it. Raises UserError for a header with two equal names.
    """
    # Bytes that are not UTF-8 become surrogates, which no valid text contains.
    text = content.decode("utf-8", "surrogateescape").replace("\r\n", "\n").replace("\r", "\n")
    lines = text.split("\n")
    first = next((place for place, line in enumerate(lines) if line.strip()), len(lines))
    if first == len(lines):
        return
    if said := _SAID.fullmatch(lines[first]):
        delimiter, first = said.group(1), first + 1
    else:
        delimiter = "\t" if suffix_of(path) == ".tsv" else _delimiter(lines, first)
    names: list[str] | None = None
    place = first
    while place < len(lines):
        if not lines[place].strip(" "):
            place += 1
            continue
        cells, end = _record(lines, place, delimiter)
        if names is None:
            names = _header(cells, path)
        elif isinstance(cells, BadRow) or any(map(str.strip, cells)):
            yield place + 1, _row(names, cells)
        place = end


def _delimiter(lines: list[str], first: int) -> str:
    """The delimiter that splits the header into the most columns."""

    def columns(delimiter: str) -> int:
        try:
            return len(_cells(lines, first, delimiter)[0])
        except csv.Error:
            return 0

    return max(_DELIMITERS, key=columns)


def _record(lines: list[str], place: int, delimiter: str) -> tuple[list[str] | BadRow, int]:
    """The cells of the record that begins on this line, and the number of the next line."""
    try:
        return _cells(lines, place, delimiter)
    except csv.Error as error:
        # In tab-separated files a quote is often just a character.
        if delimiter == "\t":
            return lines[place].split("\t"), place + 1
        # The wrong quote may have swallowed the following lines, which are read again.
        never = "is opened and never closed" if "end of data" in str(error) else "closes too early"
        return BadRow(f'a quote {never}; write "" for a quote within a quoted cell'), place + 1


def _cells(lines: list[str], place: int, delimiter: str) -> tuple[list[str], int]:
    """The cells; a quote after leading blanks opens a quoted cell, too.

    If the quotes then do not match, blanks and quote are part of the cell's text.
    """
    limit = csv.field_size_limit(_LONGEST_CELL)
    try:
        if delimiter != " ":
            with suppress(csv.Error):
                return _parsed(lines, place, delimiter, skip_blanks=True)
        return _parsed(lines, place, delimiter)
    finally:
        csv.field_size_limit(limit)


def _parsed(
    lines: list[str], place: int, delimiter: str, *, skip_blanks: bool = False
) -> tuple[list[str], int]:
    following = (f"{lines[number]}\n" for number in range(place, len(lines)))
    if skip_blanks:
        # The csv module would skip the blanks before every cell; keep those not before a quote.
        blanks = _blanks(delimiter)
        following = (blanks.sub(_KEPT, line) for line in following)
    reader = csv.reader(following, delimiter=delimiter, strict=True, skipinitialspace=skip_blanks)
    return [cell.replace(_KEPT, "") for cell in next(reader)], place + reader.line_num


@lru_cache
def _blanks(delimiter: str) -> re.Pattern[str]:
    """Finds leading blanks of a cell that are not followed by a quote."""
    return re.compile(f'(?<![^{re.escape(delimiter)}])(?= +[^ "])')


def _header(cells: list[str] | BadRow, path: Path) -> list[str]:
    if isinstance(cells, BadRow):
        raise UserError(f"the first line of {str(path)!r} names no columns: {cells}")
    names = [name.strip() for name in cells]
    _require_distinct(names, path)
    return names


def _require_distinct(names: list[str], path: Path) -> None:
    for name in names:
        if name and names.count(name) > 1:
            raise UserError(f"{str(path)!r} has two columns called {name!r}; rename one of them")


def _row(names: list[str], cells: list[str] | BadRow) -> Json | BadRow:
    if isinstance(cells, BadRow):
        return cells
    if len(cells) != len(names):
        return BadRow(
            f"it has {len(cells)} {'cell' if len(cells) == 1 else 'cells'} but the header has "
            f"{len(names)}; quote cells that contain the delimiter"
        )
    for name, cell in zip(names, cells, strict=True):
        try:
            cell.encode()
        except UnicodeEncodeError as error:
            byte = ord(cell[error.start]) - 0xDC00
            return BadRow(f"not UTF-8: byte {byte:#04x} in {name!r}; save the file as UTF-8")
    found = dict(zip(names, (cell if cell.strip() else None for cell in cells), strict=True))
    found.pop("", None)  # the row number of exported data frames
    return found


# Whole files.


def read_text(path: Path) -> str:
    """The content of a text file, without a byte order mark, with line feeds as line breaks.

    Raises UserError for a missing, empty or binary file, or one that is not UTF-8 (with the byte
    offset and the line).
    """
    content = _bytes(path)
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"{str(path)!r} is not UTF-8: byte {content[error.start]:#04x} at offset "
            f"{error.start}, line {line}; convert it from the encoding that it was saved in, with "
            "iconv -f WINDOWS-1252 -t UTF-8 (Western languages), or WINDOWS-1251 (Cyrillic), "
            "GB18030 (Chinese), SHIFT_JIS (Japanese) instead"
        ) from error
    if not text.strip():
        raise UserError(f"{str(path)!r} contains nothing but white space; it needs text")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _bytes(path: Path) -> bytes:
    check_file(path)
    content = _read(path)
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise UserError(f"{str(path)!r} is UTF-16; save it as UTF-8")
    if b"\x00" in content:
        where = content.index(b"\x00")
        raise UserError(
            f"{str(path)!r} is a binary file (a zero byte at offset {where}); "
            "give plain UTF-8 text, JSON Lines, CSV or Parquet"
        )
    return content.removeprefix(b"\xef\xbb\xbf")


def _read(path: Path, size: int = -1) -> bytes:
    """The first `size` bytes of a file, or all of them."""
    try:
        with path.open("rb") as file:
            return file.read(size)
    except OSError as error:
        raise UserError(
            f"{str(path)!r} cannot be read ({error.strerror}); check its permissions"
        ) from error


def check_there(path: Path) -> None:
    """Checks that a file or a folder exists. Raises UserError that suggests a similar name."""
    try:
        if path.exists():
            return
        if path.is_symlink():
            raise UserError(
                f"{str(path)!r} is a link to {str(path.readlink())!r}, which does not exist; "
                "mend the link"
            )
        siblings = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
    except OSError as error:  # a name that is too long, or an unreadable folder
        raise UserError(
            f"{str(path)[:200]!r} cannot be read ({error.strerror}); check the path"
        ) from error
    near = nearest(path.name, siblings)
    hint = "check the path" if near is None else f"did you mean {near!r}?"
    raise UserError(f"there is no file {str(path)!r}; {hint}")


def check_no_run(folder: Path) -> None:
    """Checks that a folder is neither a model's nor a run's, except that of finished data.

    Their files have the suffixes of data files, but are not data. Raises UserError.
    """
    is_model = any((folder / name).is_file() for name in ("config.json", "adapter_config.json"))
    is_model = is_model and any(folder.glob("*.safetensors"))
    described = None
    with suppress(UserError):  # missing or not written by groundup
        described = read_run(folder)
    if is_model or (described is not None and described["traits"]):
        raise UserError(
            f"{str(folder)!r} is a model's folder, not data; give the folder of groundup data "
            "build, or files of texts or rows"
        )
    # The last file written by a data stage.
    if described is None or (folder / "data.json").is_file():
        return
    run = f"the {described['stage']} run in {str(folder)!r}"
    if is_finished(folder):
        raise UserError(f"{run} made no data; give data of groundup data build, or your own")
    raise UserError(f"{run} was not finished; start its command again, or give other data")


def check_file(path: Path) -> None:
    """Checks that a file exists and is neither empty nor compressed.

    Raises UserError, which suggests a similar name for a missing file.
    """
    check_there(path)
    if path.is_dir():
        raise UserError(f"{str(path)!r} is a folder; give a file inside it")
    require_file(path)
    if path.stat().st_size == 0:
        raise UserError(f"{str(path)!r} is empty{_why_empty(path)}")
    first = _read(path, max(map(len, _UNPACKED_BY)))
    for begins, command in _UNPACKED_BY.items():
        if first.startswith(begins):
            raise UserError(
                f"{str(path)!r} is compressed; unpack it ({command} {shlex.quote(str(path))}) and "
                "give the file inside"
            )


def _why_empty(path: Path) -> str:
    """The reason recorded by the run that wrote a data folder for an empty part of it."""
    try:
        said = read_json_object(path.parent.parent / "status.json").get("empty")
    except UserError:
        said = None
    why = said.get(path.parent.name) if isinstance(said, dict) else None
    return f": {why}" if isinstance(why, str) else "; it needs text"


# Writing.


def write_json_lines(path: Path, rows: Iterable[object]) -> int:
    """Write dataclasses or dictionaries as JSON Lines; returns their number."""
    count = 0
    with (
        atomic_write(path) as partial,
        partial.open("w", encoding="utf-8", errors="backslashreplace", newline="\n") as file,
    ):
        for row in rows:
            content = row if isinstance(row, Mapping) else _as_json(row)
            file.write(json.dumps(content, ensure_ascii=False) + "\n")
            count += 1
    return count


def _as_json(value: object) -> object:
    """Dataclasses become objects, field by field (`asdict` copies deeply, ten times slower).

    Fields marked `omit_default`, such as a message's weight, are written only if not the default.
    """
    if hasattr(value, "__dataclass_fields__"):
        found = {}
        for name, field in value.__dataclass_fields__.items():
            content = getattr(value, name)
            if not field.metadata.get("omit_default") or content != field.default:
                found[name] = _as_json(content)
        return found
    if isinstance(value, tuple):
        return [_as_json(one) for one in value]
    return value
