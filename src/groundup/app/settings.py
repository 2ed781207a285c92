"""Turn a user's values into a stage's config, and report every error in one sentence."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from datetime import date, time
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from groundup.errors import UserError, known_names
from groundup.train.ranges import check_text, ranges

C = TypeVar("C", bound=BaseModel)


def configured(
    config: type[C],
    values: Mapping[str, Any],
    spell: Callable[[str], str] = str,
    prefix: str = "",
) -> C:
    """Return `values` as a config; no value is converted to another type.

    Raises `UserError` with one line per error; `spell` writes a field's name as the user knows
    it, and `prefix` precedes errors that concern several fields.
    """
    faults = [
        fault
        for name, value in values.items()
        if name in config.model_fields
        for fault in _invalid(config, name, value, spell)
    ]
    if faults:
        raise UserError("\n".join(faults))
    try:
        # As JSON, where a path is a string, so that strict mode accepts only strings for paths.
        return config.model_validate_json(json.dumps(values, default=str), strict=True)
    except UserError as error:
        raise UserError(f"{prefix}{error}") from None
    except ValidationError as error:
        found = error.errors()
        items = {fault["loc"][0] for fault in found if len(fault["loc"]) > 1}
        # Pydantic also reports a list with a wrong item as too short.
        lines = [
            _fault(config, dict(fault), spell, prefix)
            for fault in found
            if fault["type"] != "too_short" or fault["loc"][0] not in items
        ]
        raise UserError("\n".join(lines)) from None


_RULES = {
    "int": "must be a whole number",
    "float": "must be a number",
    "bool": "must be true or false",
    "string": "must be text in quotes",
    "path": "must be a path in quotes",
    "tuple": "must be a list",
    "dict": "must be a table of names, such as {world = …}",
    "too_short": "must not be empty",
}
_BOUNDS = {"greater_than", "greater_than_equal", "less_than", "less_than_equal", "finite_number"}


def _invalid(
    config: type[BaseModel], name: str, value: object, spell: Callable[[str], str]
) -> Iterator[str]:
    """Yield errors for values that JSON cannot represent and for impossible file names.

    These include TOML's dates, which as text would be valid paths.
    """
    field = config.model_fields[name]
    if isinstance(value, tuple | list):
        for one in value:
            yield from _invalid(config, name, one, spell)
    elif isinstance(value, date | time):
        yield f"{spell(name)}={value} is a date or a time, which no setting takes; put it in quotes"
    elif isinstance(value, float) and not math.isfinite(value):
        rules = "".join(f", {one.rule()}" for one in ranges(field))
        yield f"{spell(name)}={value} must be a finite number{rules}; {_remedy(config, name)}"
    elif isinstance(value, str | Path):
        try:
            # A recipe's paths are text; only the field's type says that they are paths.
            check_text(spell(name), Path(value) if Path in _types(field.annotation) else value)
        except UserError as error:
            yield str(error)


def _types(annotation: Any) -> Iterator[Any]:
    """Yield all parts of a type: for `tuple[Path, ...] | None`, they include Path."""
    yield annotation
    for part in get_args(annotation):
        yield from _types(part)


def _fault(
    config: type[BaseModel], fault: Mapping[str, Any], spell: Callable[[str], str], prefix: str
) -> str:
    """Return one of pydantic's errors as one sentence: the value, the rule, the remedy."""
    kind, context = fault["type"], fault.get("ctx", {})
    name = str(fault["loc"][0]) if fault["loc"] else ""
    if kind == "missing":
        return f"{spell(name)} is missing; give {config.model_fields[name].description}"
    if kind == "extra_forbidden":
        known = tuple(field for field in config.model_fields if field != "out")
        return (
            f"{spell(name)} is not a setting of this stage; "
            f"{known_names(name, known, 'its settings are')}"
        )
    if not name or kind == "value_error":  # a config's own rule, whose message is complete
        return prefix + str(fault["msg"]).removeprefix("Value error, ")
    given = fault["input"]
    if kind in _BOUNDS:
        rule = f"must be {next(ranges(config.model_fields[name])).rule(given)}"
    elif kind == "too_short" and given:
        rule = f"must have at least {context['min_length']}"
    elif kind == "literal_error":
        rule = f"must be one of {context['expected']}"
    else:
        rule = _RULES.get(kind, _RULES.get(kind.split("_")[0], f"cannot be used ({fault['msg']})"))
        number = next(ranges(config.model_fields[name]), None)
        if number is not None and kind.startswith(("int", "float")):
            rule += f", {number.rule()}"
    value = json.dumps(given, ensure_ascii=False, default=str)
    value = value if len(value) <= 120 else f"{value[:119]}…"
    return f"{spell(name)}={value} {rule}; {_remedy(config, name)}"


def _remedy(config: type[BaseModel], name: str) -> str:
    field = config.model_fields.get(name)
    if field is None or field.is_required():
        return f"give {field.description if field else 'another value'}"
    if field.default is None:
        return f"or leave it out: {field.description}"
    if field.default in ((), {}):  # an empty default does not show the form
        return f"or leave it out: {field.description}"
    return f"the default is {json.dumps(field.default, default=str)}"
