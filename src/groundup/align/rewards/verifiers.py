"""Verifiers: rewards that check sums, formats, lengths, JSON, unit tests, sentiment.

    reward(prompts, completions, rows) -> one number for each

`rows` are the data rows of the prompts, with whatever a verifier compares with (`answer`, `tests`).
A verifiable reward cannot be talked into anything, but a learned one can (Lambert et al. 2024,
"Tülu 3", section 6). `open_reward` opens one by its name.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from importlib.machinery import PathFinder
from modulefinder import ModuleFinder
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import regex

from groundup.errors import UserError, nearest, shorten
from groundup.runs.console import counted
from groundup.runs.sandbox import Limits, Sandbox
from groundup.text.cleaning import word_spans

Rows = Sequence[Mapping[str, object]]
_PROGRAMS = Path(__file__).with_name("sandboxed")
# The limit of absolute values: far larger ones are mistakes, and their squares overflow.
LARGEST_REWARD = 1e9
REWARDS_ALLOWED = f"a number from {-LARGEST_REWARD:,.0f} to {LARGEST_REWARD:,.0f}"
_recipe_folder: ContextVar[Path | None] = ContextVar("_recipe_folder", default=None)


@runtime_checkable
class Reward(Protocol):
    """Scores completions in batches; `name` appears in logs and messages."""

    @property
    def name(self) -> str: ...

    def __call__(
        self, prompts: Sequence[str], completions: Sequence[str], rows: Rows
    ) -> list[float]: ...


@dataclass(frozen=True)
class Verifier:
    """A verifier of one completion at a time: from 0 (wrong) to 1 (right), for sentiment from -1.

    `needs` raises `UserError` for a prompt and row for which no completion can be checked.
    """

    name: str
    check: Callable[[str, str, Mapping[str, object]], float]
    needs: Callable[[str, Mapping[str, object]], object] = lambda prompt, row: None

    def __call__(
        self, prompts: Sequence[str], completions: Sequence[str], rows: Rows
    ) -> list[float]:
        return [self.check(*one) for one in zip(prompts, completions, rows, strict=True)]


# The verifiers.

# A number as people write it: with or without thousands separators, .5, -$5, 1e-3. A sign counts
# only for what follows it, as in 7-5. Exponents have at most two digits, so fractions hold them.
_NUMBER = re.compile(
    r"((?:(?<![\w.])[-−])?)\$?"
    r"(\d+(?:,\d{3}(?!\d))*(?:\.\d+)?(?:[eE][-+]?\d{1,2}\b)?|(?<![\w.])\.\d+)"
)
# A single number, or a solution with the mark that GSM8K sets (Cobbe et al. 2021).
_ANSWER = re.compile(rf"(?:.*####)?\s*{_NUMBER.pattern}\s*\.?\s*", re.DOTALL)
# A number in the prompt: whole or decimal, with or without separators; 05 is from a date or code.
_TERM = r"[-−]?(?!0\d)(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?"
_SUM = re.compile(rf"({_TERM})\s*(\+|-|−|\*|×|plus|minus|times)\s*({_TERM})", re.IGNORECASE)
_SIGNS = {"+": "+", "plus": "+", "-": "-", "−": "-", "minus": "-"}
# What adjoins a part of something else: a longer expression, a date, a code.
_SIGN = r"(?:[-+−–*×·/÷^%]|\b(?:plus|minus|times|divided by)\b)"
_BEFORE = re.compile(rf"(?:[\w.]|\d[,:]|{_SIGN}\s*[(\[]*\s*)\Z", re.IGNORECASE)
_AFTER = re.compile(rf"\w|[.,:]\d|\s*[)\]]*\s*(?:{_SIGN}|squared\b|=\s*[-−]?\d)", re.IGNORECASE)
# From one year to a later one, which is not meant as a difference.
_YEARS = re.compile(r"(?:1[5-9]|20)\d\d[-−](?:1[5-9]|20)\d\d")


def last_number(text: str) -> Fraction | None:
    """The last number in a text, which is read as its answer."""
    *_, found = [None, *_NUMBER.finditer(text)]
    return None if found is None else _exact("".join(found.groups()))


def _exact(number: str) -> Fraction:
    # Decimal reads any number of digits.
    return Fraction(Decimal(number.replace(",", "").replace("−", "-")))


def _sum(prompt: str, completion: str, row: Mapping[str, object]) -> float:
    """Whether the last number is the correct one."""
    return float(last_number(completion) == _result(prompt, row))


def _result(prompt: str, row: Mapping[str, object]) -> Fraction:
    """The row's `answer` if it is a number, else the prompt's sum, else the answer's last number.

    An answer in words that it does not know ("I can only add numbers up to 20") has none.
    """
    given = row.get("answer")
    answer = "" if given is None else str(given)
    right = last_number(answer) if _ANSWER.fullmatch(answer) else _asked(prompt)
    if right is None and answer:
        from groundup.data.packs.newcomers import says_unknown  # imported late: takes half a second

        right = None if says_unknown(answer) else last_number(answer)
    if right is None:
        raise UserError(
            f"the reward sum finds no sum in {shorten(prompt)} and no number in its row's "
            "'answer'; give prompts such as 'What is 7 + 5?', with two numbers and one sign, or an "
            "answer"
        )
    return right


def _asked(prompt: str) -> Fraction | None:
    """The result of the prompt's last sum; None if that is a part of something else."""
    *_, found = [None, *_SUM.finditer(prompt)]
    if (
        found is None
        or _BEFORE.search(prompt[: found.start()])
        or _AFTER.match(prompt, found.end())
        or (_YEARS.fullmatch(found[0]) and found[1] < found[3])
    ):
        return None
    first, sign, second = found.groups()
    a, b = _exact(first), _exact(second)
    kind = _SIGNS.get(sign.lower(), "*")
    return a + b if kind == "+" else a - b if kind == "-" else a * b


# A pattern that takes longer has exponential running time.
_PATTERN_SECONDS = 1.0
# Digits of a number of words: nobody writes a thousand million.
_LENGTH_DIGITS = 9


def _format(argument: str) -> Verifier:
    """Whether the completion matches the pattern; ^ is its start, \\Z its end.

    $ is its end or a final line break, as in every regular expression of Python.
    """
    try:
        pattern = regex.compile(argument, regex.DOTALL)
    except regex.error as error:
        raise UserError(
            f"format:{argument} is no regular expression ({error}); try format:^Yes"
        ) from None

    def check(prompt: str, completion: str, row: Mapping[str, object]) -> float:
        try:
            return float(pattern.search(completion, timeout=_PATTERN_SECONDS) is not None)
        except TimeoutError:
            raise UserError(
                f"format:{argument} takes more than {_PATTERN_SECONDS:g} s for "
                f"{shorten(completion)}; simplify the pattern"
            ) from None

    return Verifier(f"format:{argument}", check)


def _length(argument: str) -> Verifier:
    """1 at this number of words, falling to 0 at none and at twice as many.

    In scripts without spaces each letter is a word.
    """
    digits = argument.isascii() and argument.isdigit() and len(argument) <= _LENGTH_DIGITS
    if not (digits and int(argument)):
        raise UserError(
            f"{shorten(f'length:{argument}')} must name a number of words from 1 to "
            f"{10**_LENGTH_DIGITS - 1:,}; try length:20"
        )
    words = int(argument)
    return Verifier(
        f"length:{words}",
        lambda prompt, said, row: max(0.0, 1 - abs(len(word_spans(said)) - words) / words),
    )


def _no_json(name: str) -> None:
    """Refuse NaN and Infinity: Python reads them, but they are not JSON."""
    raise ValueError(name)


def _json(argument: str) -> Verifier:
    """Whether the completion is JSON; with keys, an object that has all of them."""
    keys = {key.strip() for key in argument.split(",") if key.strip()}

    def check(prompt: str, completion: str, row: Mapping[str, object]) -> float:
        try:
            found = json.loads(completion, parse_constant=_no_json)
        except (ValueError, RecursionError):
            return 0.0
        return float(not keys or (isinstance(found, dict) and keys <= found.keys()))

    return Verifier(f"json:{argument}" if argument else "json", check)


_TEST_LIMITS = Limits(
    wall_seconds=10, cpu_seconds=2, memory_bytes=512 * 2**20, isolated=True, no_effects=True
)
# A block of any language, as Python has several names; a fence that ends in its own line is no
# block. A fence of tildes begins a line: elsewhere tildes are operators.
_FENCE = re.compile(
    r"((?<!`)`{3,}|^~{3,}(?!~))(?:[^`\n]+\1|[^`\n]*\n(?P<code>.*?)(?:\1|\Z))",
    re.DOTALL | re.MULTILINE,
)


def _unit_test(prompt: str, completion: str, row: Mapping[str, object]) -> float:
    """The share of the row's `tests`, assertions in Python, that the completion's program passes.

    The program is the last fenced block that defines a function or a class, else the last block,
    else the whole completion. A test that does not end fails, and so do later ones for which no
    time is left.
    """
    tests = _tests(prompt, row)
    fenced = [found["code"] for found in _FENCE.finditer(completion) if found["code"]]
    programs = fenced or [completion]
    count = _passed(programs, tests)
    if count is None:  # one test may have ended the process of all
        count, until = 0, time.monotonic() + _TEST_LIMITS.wall_seconds
        for test in tests:
            if time.monotonic() < until:
                count += _passed(programs, [test]) or 0
    return count / len(tests)


def _tests(prompt: str, row: Mapping[str, object]) -> list[str]:
    tests = row.get("tests")
    tests = [tests] if isinstance(tests, str) else tests
    if not isinstance(tests, list) or not tests or not all(isinstance(t, str) for t in tests):
        raise UserError(
            f"the reward unit-test needs 'tests', a list of assertions, with {shorten(prompt)}; "
            "the row has " + (", ".join(sorted(row)) or "nothing")
        )
    return tests


def _passed(programs: Sequence[str], tests: Sequence[str]) -> int | None:
    """How many tests the program passes, in a separate process; None if that was ended."""
    sandbox = Sandbox(_PROGRAMS / "unit_test.py", _TEST_LIMITS)
    nonces = [secrets.token_hex() for _ in tests]
    try:
        found = sandbox.ask({"programs": programs, "tests": list(zip(tests, nonces, strict=True))})
    finally:
        sandbox.close()
    return None if found is None else sum(nonce in str(found) for nonce in nonces)


def _sentiment(prompt: str, completion: str, row: Mapping[str, object]) -> float:
    """The VADER sentiment of the completion alone, from -1 to 1."""
    from groundup.data.packs.vader import sentiment  # its lexicon may have to be downloaded

    return sentiment().compound(completion)


# By name.

_PLAIN = {
    "sum": Verifier("sum", _sum, _result),
    "unit-test": Verifier("unit-test", _unit_test, _tests),
    "sentiment": Verifier("sentiment", _sentiment),
}
_WITH_ARGUMENT = {"format": _format, "length": _length, "json": _json}
_KNOWN = "sum, unit-test, sentiment, json, json:KEY,KEY, length:WORDS, format:PATTERN"
# Per batch; a function with a model of its own needs minutes.
OWN_SECONDS = 300.0
_OWN_FORM = (
    "it is called as f(prompts, completions) or f(prompts, completions, rows), lists of equal "
    "length, and must return one number for each completion"
)


def is_verifier(spec: str) -> bool:
    """Whether this names a verifier, which precedes a folder of the same name."""
    name, colon, _ = spec.partition(":")
    return spec in _PLAIN or (name in _WITH_ARGUMENT and (bool(colon) or name == "json"))


def unjudged(spec: str, prompt: str, row: Mapping[str, object]) -> UserError | None:
    """Why this verifier can judge no answer to a prompt; None if it can, and for other rewards."""
    try:
        if spec in _PLAIN:
            _PLAIN[spec].needs(prompt, row)
    except UserError as why:
        return why
    return None


def says_right_or_wrong(spec: str) -> bool:
    """Whether this names a verifier whose values are always 0 or 1."""
    return is_verifier(spec) and spec.partition(":")[0] in ("sum", "format", "json")


def open_reward(spec: str) -> Reward:
    """The reward named `spec`: a verifier or `module:function`.

    A module is searched for in the current folder first, and imported at once. Raises `UserError`
    for anything else, including a reward model's folder.
    """
    name, colon, argument = spec.partition(":")
    if spec == "sentiment":
        _sentiment("", "", {})  # its lexicon may be missing: better reported before sampling
    if is_verifier(spec):
        return _PLAIN[spec] if spec in _PLAIN else _WITH_ARGUMENT[name](argument)
    if spec and Path(spec).is_dir():
        raise UserError(f"{spec} is a folder, and reward models are not read here; try {_KNOWN}")
    if name == "__main__" and colon:
        raise UserError(
            f"the reward {spec} is in the running program, but a reward is imported in a separate "
            "process; put it into a file and name it module:function"
        )
    if colon and argument.isidentifier() and all(map(str.isidentifier, name.split("."))):
        return OwnReward(spec)
    raise UserError(
        f"{spec!r} is not a reward; give {_KNOWN}, module:function, or a reward model's folder"
    )


def source_of(spec: str) -> Path | None:
    """The file of a user's reward function, `module:function`, which is not imported for that;
    None for other rewards, for missing files, and for functions of this package."""
    name, colon, _ = spec.partition(":")
    parts, places = name.split("."), [*_own_places(), *sys.path]
    if not colon or is_verifier(spec) or parts[0] == "groundup":
        return None
    if not all(map(str.isidentifier, parts)):
        return None
    found = None
    for count in range(1, len(parts) + 1):
        found = PathFinder.find_spec(".".join(parts[:count]), places)
        if found is None:
            return None
        places = list(found.submodule_search_locations or [])
    if found is None or found.origin is None or not os.path.isfile(found.origin):
        return None
    return _from_here(found.origin)


def modules_of(spec: str) -> dict[str, Path]:
    """The modules in a user's own folders that their reward function, `module:function`, imports,
    directly or indirectly, by their names; they are read, not imported."""
    name = spec.partition(":")[0]
    finder = ModuleFinder(_own_places(), excludes=["groundup"])
    # Opening the reward reports what cannot be imported.
    with contextlib.suppress(ImportError, SyntaxError, ValueError):
        finder.import_hook(name)
    files = {one: vars(found)["__file__"] for one, found in finder.modules.items() if one != name}
    return {one: _from_here(file) for one, file in sorted(files.items()) if file}


@contextlib.contextmanager
def module_search_path(folder: Path | None) -> Iterator[None]:
    """Search for a user's modules in this folder, a recipe's, before the current one."""
    before = _recipe_folder.set(folder)
    try:
        yield
    finally:
        _recipe_folder.reset(before)


def _own_places() -> list[str]:
    """The folders that are searched for a user's modules before all others."""
    folder, here = _recipe_folder.get(), os.getcwd()
    return [here] if folder is None else list(dict.fromkeys([str(folder.resolve()), here]))


def _from_here(file: str) -> Path:
    path, here = Path(file), Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


class OwnReward:
    """A user's function of (prompts, completions) or (prompts, completions, rows).

    Parameters with these names are passed by name, others by position; a function of `completions`
    and any keyword, as in trl, also gets the columns of the rows as keywords. It runs in a separate
    process, so that training can report what went wrong, whatever it does. Raises `UserError` for
    one that does not exist or cannot be called.
    """

    def __init__(self, name: str, seconds: float = OWN_SECONDS) -> None:
        self.name, self._seconds, self._places = name, seconds, _own_places()
        limits = Limits(wall_seconds=seconds, isolated=False)
        self._sandbox = Sandbox(_PROGRAMS / "own_reward.py", limits)
        # Misspelled names are better reported before sampling.
        self._ask({}, "to be imported")

    def __call__(
        self, prompts: Sequence[str], completions: Sequence[str], rows: Rows
    ) -> list[float]:
        batch = {"prompts": list(prompts), "completions": list(completions)}
        question = {**batch, "rows": [dict(row) for row in rows]}
        found = self._ask(question, f"for {counted(len(completions), 'completion')}")
        if len(found["values"]) != len(completions):
            raise UserError(
                f"the reward {self.name} gave "
                f"{counted(len(found['values']), 'value')} for "
                f"{counted(len(completions), 'completion')}; return one for each"
            )
        return [self._number(*one) for one in zip(found["values"], completions, strict=True)]

    def _ask(self, question: Mapping[str, object], what: str) -> dict[str, Any]:
        asked = {"function": self.name, "places": self._places, **question}
        found = self._sandbox.ask(asked)
        if found is None:
            raise UserError(
                f"the reward {self.name} ended its process or took more than {self._seconds:g} s "
                f"{what}; make it faster, or call it on its own to see"
            )
        if "returned" in found:
            raise UserError(
                f"the reward {self.name} returned {found['returned']}; return a list, one number "
                "for each completion"
            )
        module, _, name = self.name.partition(":")
        if "missing" in found:
            raise UserError(
                f"the reward {self.name} has no module {module} that can be imported "
                f"({found['missing']}); it is looked for in {' and '.join(self._places)} first"
            )
        if "known" in found:
            near = nearest(name, found["known"])
            raise UserError(
                f"the reward {self.name}: the module {module} has no function {name!r}; "
                + (f"did you mean {near!r}?" if near else "give one that it has")
            )
        if "refused" in found:
            raise UserError(
                f"the reward {self.name} cannot be called ({found['refused']}); {_OWN_FORM}"
            )
        if "failed" in found:
            raise UserError(f"the reward {self.name} failed ({found['failed']}); {_OWN_FORM}")
        return found

    def _number(self, value: str, completion: str) -> float:
        try:
            number = float(value)
        except ValueError:
            raise UserError(
                f"the reward {self.name} gave {value[:80]}, which is not a number; "
                "return one number for each completion"
            ) from None
        if not abs(number) <= LARGEST_REWARD:  # false for NaN, too
            raise UserError(
                f"the reward {self.name} gave {number} for the completion {shorten(completion)}; "
                f"return {REWARDS_ALLOWED}"
            )
        return number
