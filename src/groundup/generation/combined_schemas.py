"""Combinations of JSON Schemas: their conjunction (allOf), and whether they are exclusive (oneOf).

    merge([{minimum: 1}, {minimum: 2, maximum: 3}]) = {minimum: 2, maximum: 3}

The schemas have no $ref or allOf of their own. Source: json-schema.org/draft/2020-12, Core, section
10.2.1.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from groundup.errors import UserError

Keywords = Mapping[str, Any]
_NOTHING, _OBJECT = object(), frozenset({"object"})
_LOWER_LIMITS = {"minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties"}
_UPPER_LIMITS = {"maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties"}


def merge(schemas: Sequence[Keywords], place: str) -> Keywords | None:
    """One schema of the values that match all schemas; None if no value does.

    Raises `UserError` for keywords that cannot be merged.
    """
    found = dict[str, Any]()
    for schema in schemas:
        for word, value in schema.items():
            if word in found:
                value = _intersect(word, found[word], value, f"{place}/{word}")
            if value is _NOTHING:
                return None
            found[word] = value
    if any(isinstance(one.get("properties"), dict) for one in schemas):
        found["properties"] = _merge_properties(schemas)
    if sum(1 for one in schemas if one.keys() & {"prefixItems", "items"}) > 1 and (
        "prefixItems" in found
    ):
        raise _unsupported(f"{place}/prefixItems", "items of another schema")
    return found


def _intersect(word: str, one: Any, other: Any, place: str) -> Any:
    """The value of a keyword that two schemas have; _NOTHING if they exclude each other."""
    if canonical(one) == canonical(other):
        return one
    match one, other:
        case int() | float(), int() | float() if word in _LOWER_LIMITS | _UPPER_LIMITS:
            return max(one, other) if word in _LOWER_LIMITS else min(one, other)
        case list(), list() if word == "required":
            return [*one, *(name for name in other if name not in one)]
        case list(), list() if word == "enum":
            texts = {canonical(value) for value in other}
            return [value for value in one if canonical(value) in texts] or _NOTHING
    if word == "const":
        return _NOTHING
    if word == "type":
        kept = [type for type in _list(one) if _includes(other, type)]
        kept += [type for type in _list(other) if type not in kept and _includes(one, type)]
        return kept or _NOTHING
    if word == "additionalProperties" and isinstance(one, bool):
        return one and other
    if word == "additionalProperties" and isinstance(other, bool):
        return other and one
    if word in ("items", "additionalProperties", "propertyNames"):
        return {"allOf": [one, other]}
    if word == "uniqueItems":
        return one or other
    if word == "properties":
        return one  # `_merge_properties` merges them.
    raise _unsupported(place, "another one")


def _unsupported(place: str, other: str) -> UserError:
    return UserError(
        f"{place} of the schema is not supported together with {other}; write both as one schema"
    )


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _includes(types: Any, type: Any) -> bool:
    return type in _list(types) or (type == "integer" and "number" in _list(types))


def _merge_properties(schemas: Sequence[Keywords]) -> dict[str, Any]:
    """All properties, each with the conjunction of the schemas that apply to it."""
    properties = [one.get("properties") for one in schemas]
    known = [one if isinstance(one, dict) else {} for one in properties]
    found = dict[str, Any]()
    for name in dict.fromkeys(name for one in known for name in one):
        parts = [
            own.get(name, schema.get("additionalProperties", True))
            for schema, own in zip(schemas, known, strict=True)
        ]
        parts = [part for part in parts if part is not True]
        found[name] = parts[0] if len(parts) == 1 else {"allOf": parts} if parts else True
    return found


def canonical(value: Any) -> str:
    """A text that is the same for equal JSON values: 1 equals 1.0, but not true."""
    return json.dumps(_with_integers(value), sort_keys=True)


def _with_integers(value: Any) -> Any:
    """A value whose integral numbers are all of type int."""
    if isinstance(value, list):
        return [_with_integers(one) for one in value]
    if isinstance(value, dict):
        return {name: _with_integers(one) for name, one in value.items()}
    return int(value) if isinstance(value, float) and value.is_integer() else value


@dataclass(frozen=True)
class Outline:
    """The properties of a schema that distinguish its values from those of other schemas.

    `types` and `values` are those that it allows (None: any). For objects: the names that are
    required, those that the schema describes (None: unknown), whether all others are excluded, and
    the possible values of properties.
    """

    types: frozenset[str] | None
    values: frozenset[str] | None = None
    required: frozenset[str] = frozenset()
    names: frozenset[str] | None = None
    is_closed: bool = False
    values_of: Mapping[str, frozenset[str]] = field(default_factory=dict)

    def excludes(self, other: Outline) -> bool:
        """Whether no value that this schema's grammar writes matches the other schema.

        The grammar writes no properties that `names` lacks.
        """
        types = self.types, other.types
        if types[0] is not None and types[1] is not None and not types[0] & types[1]:
            return True
        if self.values is not None and other.values is not None:
            return not self.values & other.values
        if types != (_OBJECT, _OBJECT) or self.names is None:
            return False
        return (
            bool(other.required - self.names)
            or (other.is_closed and bool(self.required - (other.names or frozenset())))
            or any(name in self.required for name in self.distinguishing_names(other))
        )

    def distinguishing_names(self, other: Outline) -> list[str]:
        """The properties that never have the same value in both."""
        shared = self.values_of.keys() & other.values_of.keys()
        return sorted(n for n in shared if not self.values_of[n] & other.values_of[n])


def discriminators(outlines: Sequence[Outline], place: str) -> list[set[str]]:
    """For each option of a oneOf, the properties that it must have to exclude all other options.

    Raises `UserError` for options that may match the same value.
    """
    found = [set[str]() for _ in outlines]
    for i, one in enumerate(outlines):
        for j, other in enumerate(outlines[:i]):
            if one.excludes(other) and other.excludes(one):
                continue
            names = one.distinguishing_names(other)
            if not names:
                raise UserError(
                    f"{place} of the schema is not supported, because its options {j} and {i} may "
                    "match the same value; use anyOf, or give them a property whose const differs"
                )
            found[i].add(names[0])
            found[j].add(names[0])
    return found
