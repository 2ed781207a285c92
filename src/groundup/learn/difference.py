"""The first position where two values differ, and a sentence about the kind of difference.

A grader that says only "wrong" teaches nothing. Most mistakes leave a pattern in the numbers: all
are twice too large, the signs are flipped, rows and columns are exchanged, a mean was not taken.
This module looks for such patterns, the most specific first.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from groundup.maths.tensor import Tensor

RETURNS_NOTHING = "The function returns nothing: does it end with `return` and the result?"
_WHOLE = 24  # the most numbers of a value that is shown whole


@dataclass(frozen=True)
class Difference:
    """The first position where two values differ, both values there, and a hint or ""."""

    where: str
    yours: str
    expected: str
    hint: str = ""
    whole: tuple[str, str] | None = None
    """Both values in full, if they are short enough to read."""


def compare(
    yours: Any,
    expected: Any,
    *,
    rtol: float,
    atol: float,
    inputs: Mapping[str, object] | None = None,
) -> Difference | None:
    """Return the first difference, None if there is none.

    Compares numbers, strings, arrays, tensors of both engines, and lists, tuples and dictionaries
    of these. NaN equals NaN. With `inputs`, a hint can say which of their lengths a factor is.
    """
    if yours is None and expected is not None:
        return Difference("", "None", short(expected), RETURNS_NOTHING)
    if expected is None or isinstance(expected, str | bytes | bool | np.bool_):
        return _compare_plain(yours, expected)
    if isinstance(expected, Mapping):
        return _compare_mappings(yours, expected, rtol, atol, inputs)
    if isinstance(expected, list | tuple):
        return _compare_sequences(yours, expected, rtol, atol, inputs)
    return _compare_arrays(yours, expected, rtol, atol, inputs or {})


def short(value: object) -> str:
    """Format a value for a learner: few digits, few rows."""
    family, array = _array(value)
    if array is None or isinstance(value, list | tuple | str | bool):
        text = repr(value)
        return text if len(text) <= 400 else f"{text[:400]} …"
    if array.ndim == 0:
        return f"{array.item():.6g}" if array.dtype.kind == "f" else str(array.item())
    if array.dtype.kind == "f":
        array = array.round(4) + 0.0  # without the minus of a 0
    text = np.array2string(array, precision=4, suppress_small=True, threshold=60, edgeitems=3)
    name = {"torch": "torch tensor, ", "tensor": "Tensor, "}.get(family, "")
    about = f"{name}shape {array.shape}" if array.ndim > 1 or array.size > 12 or name else ""
    return f"{text}   ({about})" if about and "\n" not in text else text


def _compare_plain(yours: Any, expected: Any) -> Difference | None:
    if isinstance(expected, bool | np.bool_):
        same = isinstance(yours, bool | np.bool_) and bool(yours) == bool(expected)
        if not isinstance(yours, bool | np.bool_):
            kind = "a number" if isinstance(yours, int | float | np.number) else _kind_of(yours)
            hint = f"A boolean is expected (True or False), and yours is {kind}."
            return Difference("", short(yours), short(expected), hint)
    else:
        same = type(yours) is type(expected) and yours == expected
    if same:
        return None
    hint = _string_hint(yours, expected) if isinstance(expected, str) else ""
    return Difference("", short(yours), short(expected), hint)


def _string_hint(yours: Any, expected: str) -> str:
    """Say how a string differs from the expected one."""
    if not isinstance(yours, str):
        return f"A string is expected, and yours is {_kind_of(yours)}."
    if yours.casefold() == expected.casefold():
        return "The strings differ only in capital letters."
    if "".join(yours.split()) == "".join(expected.split()):
        return "The strings differ only in whitespace."
    pairs = zip(yours, expected, strict=False)
    same = next((n for n, (a, b) in enumerate(pairs) if a != b), min(len(yours), len(expected)))
    if not same:
        return ""
    before = expected[max(0, same - 60) : same]
    # One line of each is enough.
    rest = [text[same : same + 60] for text in (yours, expected)]
    yours, expected = (f'"{text}"' if text else "nothing" for text in rest)
    return f'After "{before}" yours has {yours} instead of {expected}.'


def _compare_mappings(
    yours: Any, expected: Mapping[Any, Any], rtol: float, atol: float, inputs: Any
) -> Difference | None:
    if not isinstance(yours, Mapping):
        hint = f"A dictionary is expected, and yours is of type {type(yours).__name__}."
        return Difference("", short(yours), short(expected), hint)
    for key in expected:
        if key not in yours:
            hint = f"The entry {key!r} is missing."
            return Difference("", short(list(yours)), short(list(expected)), hint)
    more = [key for key in yours if key not in expected]
    if more:
        hint = f"The entry {more[0]!r} should not be there."
        return Difference("", short(list(yours)), short(list(expected)), hint)
    pairs = ((f"[{key!r}]", yours[key], value) for key, value in expected.items())
    return _first(pairs, rtol, atol, inputs)


def _compare_sequences(
    yours: Any, expected: list[Any] | tuple[Any, ...], rtol: float, atol: float, inputs: Any
) -> Difference | None:
    array = _array(yours)[1]
    if array is not None and array.ndim and not isinstance(yours, list | tuple):
        yours = list(yours)
    if not isinstance(yours, list | tuple):
        hint = f"{_count_of(expected)} expected, and yours is one {type(yours).__name__}."
        return Difference("", short(yours), short(expected), hint)
    if len(yours) != len(expected):
        hint = f"{_count_of(expected)} expected, and yours has {len(yours)}."
        return Difference("", short(yours), short(expected), hint)
    pairs = (
        (f"[{place}]", one, value)
        for place, (one, value) in enumerate(zip(yours, expected, strict=True))
    )
    found = _first(pairs, rtol, atol, inputs)
    is_text = any(isinstance(value, str) for value in expected)
    if found is not None and (not found.hint or is_text) and len(yours) > 1:
        backwards = zip(yours[::-1], expected, strict=True)
        if all(compare(one, value, rtol=rtol, atol=atol) is None for one, value in backwards):
            return replace(found, hint="The values are right but in reverse order.")
    return found


def _count_of(expected: list[Any] | tuple[Any, ...]) -> str:
    return "1 value is" if len(expected) == 1 else f"{len(expected)} values are"


def _first(
    pairs: Iterable[tuple[str, Any, Any]], rtol: float, atol: float, inputs: Any
) -> Difference | None:
    """The first difference among several pairs, with the position of the pair prepended."""
    for where, yours, expected in pairs:
        found = compare(yours, expected, rtol=rtol, atol=atol, inputs=inputs)
        if found is not None:
            return replace(found, where=where + found.where)
    return None


# Numbers and arrays of them.


def _compare_arrays(
    yours: Any, expected: Any, rtol: float, atol: float, inputs: Mapping[str, object]
) -> Difference | None:
    kind, e = _array(expected)
    family, y = _array(yours)
    assert e is not None, f"an expected value of {type(expected).__name__} is not compared"
    if y is None:
        hint = f"Numbers are expected, and yours is of type {type(yours).__name__}."
        return Difference("", short(yours), short(expected), hint)
    if kind in ("torch", "tensor") and family != kind:
        wanted = {"torch": "a torch tensor", "tensor": "a Tensor of groundup.maths"}[kind]
        hint = f"The result should be {wanted}, and yours is {_kind_of(yours)}."
        if family == "list" and any(_array(one)[0] == kind for one in yours):
            hint += " Join its tensors into one: stack puts them along a new dimension."
        elif y.shape == e.shape and _close(y, e, rtol, atol).all():
            hint += (
                " The numbers are right, but the record of how they were computed is lost, so no "
                "gradient can flow back. Use the tensors' own operations."
            )
        return Difference("", short(yours), short(expected), hint)
    if family in ("torch", "tensor") and kind == "numpy" and e.ndim:
        hint = f"The result should be a NumPy array, and yours is {_kind_of(yours)}."
        return Difference("", short(yours), short(expected), hint)
    whole = (short(yours), short(expected)) if 1 < max(y.size, e.size) <= _WHOLE else None
    if y.shape != e.shape:
        hint = _shape_hint(y, e, rtol, atol)
        return Difference(
            "", f"shape {y.shape}", f"shape {e.shape}", hint, whole or (short(y), short(e))
        )
    if e.dtype.kind == "b" and y.dtype.kind != "b" and e.ndim:
        dtype = "torch.bool" if kind == "torch" else "bool"
        hint = (
            f"Booleans are expected, and yours are numbers: use dtype={dtype}, or compare with > 0."
        )
        return Difference("", f"dtype {y.dtype}", f"dtype {e.dtype}", hint, whole)
    if e.dtype.kind in "iu" and y.dtype.kind == "f" and e.ndim:
        hint = f"Integers are expected ({e.dtype}), and yours are {y.dtype}."
        return Difference("", f"dtype {y.dtype}", f"dtype {e.dtype}", hint, whole)
    right = _close(y, e, rtol, atol)
    if right.all():
        return _compare_dtypes(yours, expected) if kind == family == "torch" else None
    place = tuple(int(i) for i in np.argwhere(~right)[0])
    mine, theirs = _distinguishable(y[place], e[place])
    return Difference(
        where=f"[{', '.join(map(str, place))}]" if place else "",
        yours=mine,
        expected=theirs,
        hint=_value_hint(y, e, right, rtol, atol, inputs),
        whole=whole,
    )


def _compare_dtypes(yours: Any, expected: Any) -> Difference | None:
    """Compare the dtypes of two torch tensors with the same numbers."""
    if yours.dtype == expected.dtype or not expected.dtype.is_floating_point:
        return None
    hint = (
        f"The numbers are right, but their dtype should be {expected.dtype}: the next step "
        "computes in the dtype of the inputs. A constant of a wider dtype widens the result."
    )
    return Difference("", f"dtype {yours.dtype}", f"dtype {expected.dtype}", hint)


def _distinguishable(yours: Any, expected: Any) -> tuple[str, str]:
    """Format both numbers with the fewest digits, at least six, that show a difference."""
    for digits in range(6, 18):
        mine, theirs = (
            f"{x:.{digits}g}" if x.dtype.kind == "f" else str(x) for x in (yours, expected)
        )
        if mine != theirs:
            break
    return mine, theirs


def _array(value: object) -> tuple[str, np.ndarray | None]:
    """The kind of a value, and the value as an array; None if it is not numeric."""
    if isinstance(value, Tensor):
        return "tensor", value.data
    if type(value).__module__.partition(".")[0] == "torch" and hasattr(value, "detach"):
        detached = value.detach().cpu()
        if detached.dtype.is_floating_point:
            detached = detached.double()
        return "torch", detached.numpy()
    if isinstance(value, np.ndarray | np.generic):
        array = np.asarray(value)
        return "numpy", array if array.dtype.kind in "biuf" else None
    if isinstance(value, bool | int | float):
        return "number", np.asarray(value)
    if isinstance(value, list | tuple):
        try:
            array = np.asarray(value)
        except (ValueError, TypeError, RuntimeError):  # rows of different lengths, or tensors
            return "", None
        return "list", array if array.dtype.kind in "biuf" else None
    return "", None


def _kind_of(value: object) -> str:
    family, _ = _array(value)
    names = {"numpy": "a NumPy array", "torch": "a torch tensor", "number": "a plain number"}
    names |= {"tensor": "a Tensor of groundup.maths", "list": "a list"}
    return names.get(family, f"of type {type(value).__name__}")


def _close(y: np.ndarray, e: np.ndarray, rtol: float, atol: float) -> np.ndarray:
    if y.dtype.kind == "b" and e.dtype.kind == "b":
        return np.asarray(y == e)
    with np.errstate(all="ignore"):
        found: np.ndarray = np.isclose(
            y.astype(float), e.astype(float), rtol=rtol, atol=atol, equal_nan=True
        )
        return found


def _shape_hint(y: np.ndarray, e: np.ndarray, rtol: float, atol: float) -> str:
    """Say what is wrong with the shape."""

    def same(values: np.ndarray) -> bool:
        return values.shape == e.shape and bool(_close(values, e, rtol, atol).all())

    if y.ndim > 1 and y.T.shape == e.shape and same(y.T):
        return "The numbers are right, but rows and columns are exchanged: transpose the result."
    if y.size == e.size and same(y.reshape(e.shape)):
        return "The numbers are right, but their shape is not: reshape, or look for a dimension " \
            "of length 1 that was kept or lost (keepdims)."  # fmt: skip
    with np.errstate(all="ignore"):
        for dims in [None, *range(y.ndim)] if y.size else []:
            if same(np.asarray(y.mean(axis=dims))):
                return f"Yours must still be averaged{_over(dims)}."
            if same(np.asarray(y.sum(axis=dims))):
                return f"Yours must still be summed{_over(dims)}."
    if y.ndim == 0:
        return "Yours is a single number: was something summed or averaged over too much?"
    if e.ndim == 1 and y.shape == (len(e), len(e)):
        return (
            f"A column of shape ({len(e)}, 1) met a row of shape ({len(e)},): broadcasting made "
            "every pair of them. Give both the same shape first."
        )
    if y.shape == e.shape[::-1]:
        return "Rows and columns are exchanged."
    return ""


def _over(dims: int | None) -> str:
    return "" if dims is None else f" over dimension {dims}"


def _value_hint(
    y: np.ndarray,
    e: np.ndarray,
    right: np.ndarray,
    rtol: float,
    atol: float,
    inputs: Mapping[str, object],
) -> str:
    """Say what is wrong with the values; both arrays have the same shape."""
    one_index = e.size == 1 and y.dtype.kind in "iu" and e.dtype.kind in "iu"
    y, e = y.astype(float), e.astype(float)
    rtol, atol = max(rtol, 1e-6), max(atol, 1e-9)

    def same(values: np.ndarray) -> bool:
        return values.shape == e.shape and bool(_close(values, e, rtol, atol).all())

    if (np.isnan(y) & ~np.isnan(e)).any():
        return "NaN comes from 0 / 0, the logarithm or root of a negative number, or inf - inf."
    if (np.isinf(y) & np.isfinite(e)).any():
        return "inf comes from exp of a large number, from 1 / 0, or from log 0."
    if not np.isfinite(e).all():
        return ""
    if y.size > 1 and not y.any():
        return "Yours is 0 everywhere."
    with np.errstate(all="ignore"):
        if same(-y):
            return "The sign is flipped: every number is the negative of the expected one."
        if y.ndim == 2 and y.shape[0] == y.shape[1] and same(y.T):
            return "Rows and columns are exchanged: transpose."
        for dim in range(y.ndim):
            if same(np.flip(y, dim)):
                return f"The numbers are in reverse order along dimension {dim}."
            for by in (1, -1):
                if y.shape[dim] > 2 and same(np.roll(y, by, dim)):
                    return f"The numbers are shifted by one position along dimension {dim}."
        off = np.abs(y - e).max() / max(np.abs(e).max(), 1e-300)
        if off < 2e-3:
            return (
                f"Nearly right: the error is at most {off:.1g} of the largest number. Look for "
                "lost digits: float32, a rounded constant, a small term left out."
            )
        # One of two indices or counts is easily twice the other by chance.
        factor = None if one_index else _factor(y, e, rtol)
        if factor is not None:
            return _factor_hint(factor, {} if e.size == 1 else inputs)
        if y.size > 1 and np.ptp(y - e) <= atol + rtol * np.abs(e).max():
            return f"Every number is off by the same {(y - e).flat[0]:.4g}."
        marks = {
            "Yours is the exponential of what is expected: a logarithm is missing, or one exp "
            "too many.": np.log(y),
            "Yours is the logarithm of what is expected: an exp is missing.": np.exp(y),
            "Yours is the square root of what is expected.": y * y,
            "Yours is the square of what is expected: a root is missing.": np.sqrt(y),
            "Yours is one minus what is expected.": 1 - y,
            "Yours is one over what is expected.": 1 / y,
        }
        # One of two integers is easily the exponential of the other by chance, as 1 of 0.
        chance = e.size == 1 and float(y.flat[0]).is_integer() and float(e.flat[0]).is_integer()
        for sentence, values in marks.items():
            if not chance and same(values):
                return sentence
        if np.isclose(np.abs(y), np.abs(e), rtol=rtol, atol=atol).all():
            return "The magnitudes are right, but some of the signs are flipped."
        if y.size > 1 and np.allclose(np.sort(y, None), np.sort(e, None), rtol=rtol, atol=atol):
            return "The numbers are right but in another order."
    return _edge_hint(right)


def _factor(y: np.ndarray, e: np.ndarray, rtol: float) -> float | None:
    """The one factor between all of the learner's numbers and the expected ones, if any."""
    counts = (e != 0) & (y != 0)
    if not counts.any() or ((e != 0) != (y != 0)).any():
        return None
    ratios = y[counts] / e[counts]
    alike = np.ptp(ratios) <= 10 * rtol * abs(ratios.flat[0])
    # Any single number is a multiple of any other: then only a factor with a name is a hint.
    if alike and (ratios.size > 1 or _factor_name(float(ratios.flat[0]))):
        return float(ratios.flat[0])
    return None


_NAMED = {
    2.0: "",
    0.5: "",
    100.0: "a percentage where a share is expected",
    0.01: "a share where a percentage is expected",
    math.log(2): "that is ln 2: nats and bits are exchanged",
    1 / math.log(2): "that is 1 / ln 2: nats and bits are exchanged",
    math.pi: "that is π",
    180 / math.pi: "degrees where radians are expected",
}


def _factor_name(factor: float) -> str | None:
    for value, meaning in _NAMED.items():
        if math.isclose(factor, value, rel_tol=1e-4):
            return meaning or "a factor of two"
    return None


def _factor_hint(factor: float, inputs: Mapping[str, object]) -> str:
    said = f"Every number is {factor:.4g} times the expected one"
    meaning = _factor_name(factor)
    lengths: dict[int, str] = {}
    for name, value in inputs.items():
        _, array = _array(value)
        for dim, length in enumerate(array.shape if array is not None else ()):
            if length > 1:
                lengths.setdefault(length, f"the length of dimension {dim} of {name}")
    for length, name in lengths.items():
        for value in (length, 1 / length):
            if math.isclose(factor, value, rel_tol=1e-4):
                return f"{said}, and {length} is {name}: are a sum and a mean exchanged?"
        for value, sign in ((length**0.5, f"√{length}"), (length**-0.5, f"1 / √{length}")):
            if math.isclose(factor, value, rel_tol=1e-4):
                return f"{said}, and that is {sign}, where {length} is {name}."
        if length > 2:
            for value in (length / (length - 1), (length - 1) / length):
                if math.isclose(factor, value, rel_tol=1e-4):
                    return f"{said}: are n and n - 1 exchanged? n = {length} is {name}."
    return f"{said}: {meaning}." if meaning and meaning != "a factor of two" else f"{said}."


def _edge_hint(right: np.ndarray) -> str:
    """Say so if only the first or only the last entry of a dimension is wrong."""
    for dim in range(right.ndim):
        if right.shape[dim] < 4:  # of three, a single wrong entry is likely to be at an edge
            continue
        wrong = ~np.asarray(right.all(axis=tuple(d for d in range(right.ndim) if d != dim)))
        for place, name in ((0, "first"), (-1, "last")):
            if wrong[place] and wrong.sum() == 1:
                return f"Only the {name} along dimension {dim} is wrong: look at that edge."
    return ""
