"""Reads training runs from a table: parameters, tokens, loss and, if given, FLOPs.

It reads CSV, TSV, JSON Lines and a JSON array of objects, with the column names of the published
tables: `Model Size`, `Training Tokens`, `loss`, `Training FLOP` (Besiroglu et al. 2024), `n`, `d`,
`l`, `compute_budget`, `final_loss` and similar ones, in any spelling. Two of parameters, tokens and
FLOPs are enough in each row, since C = 6 N D. Units may be in brackets, Params (in millions),
Tokens (bn), FLOPs (1e18), Compute (PF-days), after the name, params_M, or after the number, 70M. In
a table with semicolons between columns the comma is the decimal sign, 3,12; otherwise it separates
thousands, 1,400. Rows that are equal in every column count once.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from groundup.errors import UserError, shorten
from groundup.report.table import listing
from groundup.runs.files import errors_naming

# Names without capitals, spaces and signs, in order of preference.
_NAMES: dict[str, tuple[str, ...]] = {
    "parameters": (
        *("parameters", "params", "nparams", "numparams", "nparameters", "numparameters"),
        *("totalparams", "totalparameters"),
        *("modelsize", "modelparameters", "parametercount", "size", "n"),
    ),
    "tokens": (
        *("tokens", "trainingtokens", "traintokens", "ntokens", "numtokens", "tokensseen"),
        *("totaltokens", "datasetsize", "datasize", "d"),
    ),
    "loss": (
        *("loss", "finalloss", "validationloss", "valloss", "evalloss", "testloss"),
        *("heldoutloss", "trainingloss", "trainloss", "l"),
    ),
    "flops": (
        *("flops", "flop", "trainingflops", "trainingflop", "trainflops", "totalflops"),
        *("computebudget", "compute", "budget", "c"),
    ),
}
# 1,400 and 1,400,000.5e3, but not 3,12; and the same if the comma is the decimal sign.
_THOUSANDS = re.compile(r"[1-9]\d{0,2}(,\d{3})+(\.\d*)?(e[+-]?\d+)?", re.IGNORECASE)
_THOUSANDS_BY_DOTS = re.compile(r"[1-9]\d{0,2}(\.\d{3})+,\d*(e[+-]?\d+)?", re.IGNORECASE)
_SUFFIXES = {"k": 1e3, "m": 1e6, "b": 1e9, "g": 1e9, "t": 1e12}
_PREFIXES = {"kilo": 1e3, "mega": 1e6, "giga": 1e9, "tera": 1e12, "peta": 1e15, "exa": 1e18}
_PREFIXES |= {"zetta": 1e21, "yotta": 1e24}
_UNITS = _SUFFIXES | _PREFIXES | {"p": 1e15, "e": 1e18, "z": 1e21, "y": 1e24}
_UNITS |= {"mn": 1e6, "mm": 1e6, "mio": 1e6, "mln": 1e6, "bn": 1e9, "bln": 1e9, "tn": 1e12}
_UNITS |= {"thousand": 1e3, "million": 1e6, "billion": 1e9, "trillion": 1e12}
_LONG = "|".join(_PREFIXES)
# In millions, B tokens, TFLOPs, x 10^18, 1e18, 1,000.
_UNIT = re.compile(
    rf"(?:in )?(?:[x×*] ?)?(?:([kmbgt]|[mbt]n|mm|mio|[mb]ln|thousand|(?:m|b|tr)illion|{_LONG}|"
    r"[pezy](?=[ -]?flop))|1((?:,?000)+)|(?:1e\+?|10(?:\^|\*\*))(\d\d?))s?(?: of)?[ -]?"
    r"(flops?|params?|parameters|tok(?:en)?s?)?"
)
# PF-days, petaflop/s-days.
_DAYS = re.compile(rf"(?:in )?([kmgtpezy]|{_LONG})[ -]?f(?:lops?)?(?:[/-]?s)?[ -]?days?")
_BRACKETS = re.compile(r"[(\[](.*?)[)\]]")
# Words that may be an unknown unit, unlike (active), (excl. embeddings) and so on.
_LIKE_WORDS = re.compile(
    r"thousand|illion|\b(?:[kmbgt]|[mbt]n|mm|mil|bil|mrd|days?|hours?|seconds?)\b|"
    rf"\b(?:[kmbgtpezy]-?(?:fs?\b|flop|tok|param)|(?:{_LONG})(?:\b|flop|tok|param))"
)
_LIKE_UNITS = re.compile(rf"\d|{_LIKE_WORDS.pattern}")
_MAX_BYTES, _MAX_ROWS = 100_000_000, 1_000_000
_LARGEST = 1e40
_SHOWN = 3


@dataclass(frozen=True)
class Runs:
    """One entry per training run; `flops` are 6 N D unless the table has its own."""

    parameters: Float[np.ndarray, " runs"]
    tokens: Float[np.ndarray, " runs"]
    losses: Float[np.ndarray, " runs"]
    flops: Float[np.ndarray, " runs"]

    @classmethod
    def of(
        cls,
        parameters: Sequence[float],
        tokens: Sequence[float],
        losses: Sequence[float],
        flops: Sequence[float] | None = None,
    ) -> Runs:
        n, d, loss = (np.asarray(one, float) for one in (parameters, tokens, losses))
        return cls(n, d, loss, 6 * n * d if flops is None else np.asarray(flops, float))

    def __len__(self) -> int:
        return len(self.losses)

    def chosen(self, kept: Bool[np.ndarray, " runs"]) -> Runs:
        """The runs that are marked in `kept`."""
        return Runs(*(getattr(self, name)[kept] for name in self.__dataclass_fields__))

    @property
    def flops_per_weight(self) -> float:
        """The median of FLOPs per parameter and token, usually 6."""
        return float(np.median(self.flops / (self.parameters * self.tokens)))


@dataclass(frozen=True)
class RunTable:
    """A table as read: its runs and their line numbers, its columns, and rows set aside."""

    runs: Runs
    lines: tuple[int, ...]
    columns: Mapping[str, str]
    bad: tuple[str, ...]


def read_table(path: Path, columns: Mapping[str, str] | None = None) -> RunTable:
    """Read a table of runs; `columns` names those of parameters, tokens, loss and flops.

    Invalid and repeated rows are set aside and listed in `bad`. Raises `UserError` for a file that
    is not such a table, and if no row is left.
    """
    rows, decimal_comma = _rows(path)
    if not rows:
        raise UserError(f"{path} has no rows; give one training run a row, under a line of names")
    names = {name: None for _, row in rows for name in row}
    found = _columns(path, list(names), columns or {})
    factors = {name: _factor(path, name, column) for name, column in found.items()}
    runs, lines, bad = list[tuple[float, ...]](), list[int](), list[str]()
    first = dict[str, int]()
    for line, row in rows:
        # One of the three sizes may be blank.
        blank = [name for name in factors if name != "loss" and _blank(row.get(found[name]))]
        left = blank if len(found) - len(blank) == 3 else []
        values = {
            name: _number(row.get(column), factors[name], decimal_comma=decimal_comma)
            for name, column in found.items()
            if name not in left
        }
        fault = next((name for name, value in values.items() if value is None), None)
        if fault is not None:
            given = shorten(row.get(found[fault]))
            rule = "a number above 0"
            if "," in given:
                sign = "is the decimal sign" if decimal_comma else "parts thousands, as in 1,400"
                rule += f"; the comma {sign}"
            bad.append(f"{path}, line {line}: {found[fault]}={given} must be {rule}")
        elif (same := first.setdefault(repr(sorted(row.items())), line)) != line:
            bad.append(f"{path}, line {line}: the same in every column as line {same}")
        else:
            runs.append(_completed({name: value for name, value in values.items() if value}))
            lines.append(line)
    if not runs:
        raise UserError(f"{bad[0]}; no row of {len(rows)} is a training run")
    table = np.array(runs).T
    return RunTable(Runs(*table), tuple(lines), found, tuple(bad))


def set_aside_messages(bad: Sequence[str]) -> list[str]:
    """Messages on rows that were set aside: the first few, and how many more."""
    said = [f"{one}; set aside" for one in bad[:_SHOWN]]
    return said if len(bad) <= _SHOWN else [*said, f"{len(bad) - _SHOWN} more rows set aside"]


def _completed(row: Mapping[str, float]) -> tuple[float, ...]:
    """Parameters, tokens, loss and FLOPs, with a missing one computed from the others."""
    n, d, flops = (row.get(name) for name in ("parameters", "tokens", "flops"))
    if n is None:
        assert d is not None and flops is not None
        n = flops / (6 * d)
    if d is None:
        assert flops is not None
        d = flops / (6 * n)
    return n, d, row["loss"], 6 * n * d if flops is None else flops


# Columns.


def _columns(path: Path, names: Sequence[str], asked: Mapping[str, str]) -> dict[str, str]:
    """The column of each quantity."""
    found = {}
    for name, known in _NAMES.items():
        if name in asked:
            if asked[name] not in names:
                listed = ", ".join(names[:20])
                raise UserError(
                    f"--{name}={shorten(asked[name])} is not a column of {path}; there are {listed}"
                )
            found[name] = asked[name]
            continue
        plain = {_plain(one): one for one in reversed(names)}
        column = next((plain[one] for one in known if one in plain), None)
        if column is not None and column not in found.values():
            found[name] = column
    sizes = [name for name in ("parameters", "tokens", "flops") if name not in found]
    lacking = [] if "loss" in found else ["loss (--loss)"]
    if len(sizes) > 1:  # two of three are enough
        options = [f"{'FLOPs' if name == 'flops' else name} (--{name})" for name in sizes]
        lacking.append(" or ".join(options) if len(sizes) == 2 else f"two of {listing(options)}")
    if lacking:
        raise UserError(
            f"{path} has no column for {' and '.join(lacking)} among "
            f"{shorten(', '.join(names))}; name it with its option"
        )
    return found


def _plain(name: str) -> str:
    """A column's name without capitals, units in brackets, spaces and signs."""
    return re.sub(r"[^a-z0-9]", "", _BRACKETS.sub("", name.lower()))


def _factor(path: Path, name: str, column: str) -> float:
    """The factor of a column's numbers, from the units in its brackets and after its name."""
    if name == "loss":  # the law keeps the loss's own unit
        return 1.0
    factors = _behind(name, column)
    for said in _BRACKETS.findall(column.lower()):
        for part in re.split(r"[,;](?!\d)", said):
            if (factor := _unit(part.strip())) is not None:
                factors.add(factor)
            elif _LIKE_UNITS.search(part) and _plain(part) not in (*_NAMES[name], "6nd"):
                factors.add(math.nan)
    if len(factors) > 1 or math.nan in factors:
        raise UserError(
            f"{path}: the unit in {shorten(column)} must be one such as (M), (billions) or "
            "(1e18); rename the column in the table"
        )
    return factors.pop() if factors else 1.0


def _unit(said: str) -> float | None:
    """The factor of a unit; None if it is unknown."""
    if (days := _DAYS.fullmatch(said)) is not None:
        return 86_400 * _UNITS[days[1]]
    if (unit := _UNIT.fullmatch(said)) is None:
        return None
    word, zeros, exponent, _ = unit.groups(default="")
    return _UNITS.get(word) or float(f"1e{exponent or zeros.count('0')}")


def _behind(name: str, column: str) -> set[float]:
    """The factor of a unit after a name, without brackets: params_M, tokensB; nan if unknown.

    A single letter counts only after a known name: train_T may be tokens of training.
    """
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", _BRACKETS.sub("", column))
    words = re.findall(r"[^\s_.-]+", spaced.lower())
    for at in range(len(words)):
        said = " ".join(words[at:])
        if (factor := _unit(said)) is None or said.lstrip("x×* ").replace(",", "").isdigit():
            continue  # tokens_1000 may be the tokens of a step
        if {_plain("".join(words[:at])), *words[max(0, at - 1) : at]} & {*_NAMES[name]}:
            return {factor}
        unit = _UNIT.fullmatch(said)
        if not said[0].isdigit() and (unit is None or unit[4]):  # PF-days, GFLOPs, B tokens
            return {factor}
        if at:
            return {math.nan}
    return {math.nan} if len(words) > 1 and _LIKE_WORDS.search(words[-1]) else set()


def _blank(value: object) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())


def _number(value: object, factor: float, *, decimal_comma: bool) -> float | None:
    """A positive number as written in a table: 7e9, 1,400, 70M; in the unit of its column."""
    if isinstance(value, str):
        written = value.strip().replace("_", "")
        if written[-1:].lower() in _SUFFIXES and len(written) > 1:
            factor = _SUFFIXES[written[-1].lower()]  # overrides the column's unit
            written = written[:-1].strip()
        if decimal_comma:
            if _THOUSANDS_BY_DOTS.fullmatch(written):
                written = written.replace(".", "")
            written = written.replace(",", ".")
        elif _THOUSANDS.fullmatch(written):
            written = written.replace(",", "")
        try:
            value = float(written)
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if isinstance(value, int) and value.bit_length() > 1000:
        return None
    number = float(value) * factor
    return number if math.isfinite(number) and 0 < number < _LARGEST else None


# Files.


def _rows(path: Path) -> tuple[list[tuple[int, dict[str, Any]]], bool]:
    """The rows of a file with their line numbers, and whether the comma is the decimal sign."""
    with errors_naming(path):
        if path.is_dir():
            raise UserError(f"{path} is a folder; give a file of rows, CSV or JSON Lines")
        if (size := path.stat().st_size) > _MAX_BYTES:
            raise UserError(f"{path} has {size / 1e6:.0f} MB; a table of runs has at most 100")
        content = path.read_bytes()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(f"{path} is not UTF-8 text; save the table as CSV") from None
    start = text.lstrip()[:1]
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    head = text.lstrip().split("\n", 1)[0]
    delimiter = None if start in ("[", "{") else max(",;\t", key=head.count)
    if delimiter is not None:
        found = _csv(text, delimiter)
    else:
        found = _array(path, text) if start == "[" else _jsonl(text)
    if len(found) > _MAX_ROWS:
        raise UserError(f"{path} has {len(found):,} rows; at most {_MAX_ROWS:,} runs are fitted")
    return found, delimiter == ";"


def _array(path: Path, text: str) -> list[tuple[int, dict[str, Any]]]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON ({error}); save it again") from None
    return [(n, one if isinstance(one, dict) else {}) for n, one in enumerate(value, start=1)]


def _jsonl(text: str) -> list[tuple[int, dict[str, Any]]]:
    found = list[tuple[int, dict[str, Any]]]()
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                value = json.loads(line)
            except (ValueError, RecursionError):
                value = None
            found.append((number, value if isinstance(value, dict) else {}))
    return found


def _csv(text: str, delimiter: str) -> list[tuple[int, dict[str, Any]]]:
    table = text.lstrip("\n")
    above = len(text) - len(table)  # blank lines
    reader = csv.DictReader(io.StringIO(table), delimiter=delimiter, skipinitialspace=True)
    try:
        return [
            (
                above + reader.line_num,
                {str(name): value for name, value in row.items() if name is not None},
            )
            for row in reader
        ]
    except csv.Error as error:
        raise UserError(
            f"line {above + reader.line_num} of the table is not CSV ({error})"
        ) from None
