"""The grammar of the JSON values that match a JSON Schema: the keywords of OpenAI's strict mode.

    Request(prompt="The ship as JSON: ", schema={"type": "object", "properties": {…}})

    type (one or several)   object, array, string, number, integer, boolean, null
    objects                 properties, in their order; required; additionalProperties
    arrays, strings         items, minItems, maxItems; minLength, maxLength
    values                  enum, const; anyOf; $ref to a place in the schema, also recursive

`json.loads` reads every such value. An object with `properties` has no other members, even where
JSON Schema would allow them; an object without has any. Other keywords of JSON Schema are refused
because they are not enforced, except for annotations (`title`, `description`, `default`,
`examples`).

Source: json-schema.org/draft/2020-12; platform.openai.com/docs/guides/structured-outputs.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import groupby
from typing import Any
from urllib.parse import unquote

from groundup.errors import UserError, shorten
from groundup.generation.grammar import (
    CHARACTER,
    DONE,
    Choice,
    Concatenation,
    Literal,
    Node,
    Repeat,
    Rule,
    Table,
)

ANY_OBJECT: Mapping[str, Any] = {"type": "object"}
"""The schema of any JSON object: OpenAI's json_object."""
# Integers of this many digits are exact in float64, which most readers use; Python refuses numbers
# of thousands of digits. Exponents of two digits keep every number finite.
_DIGITS = 15
# Limits blanks and digits, which a model could repeat forever. This many blanks indent deep
# objects, and this many digits are more than float64 keeps.
_MAX_REPEATS = 40
# No model writes this much: a longer limit is the same as none.
_LONGEST = 10**9
# OpenAI accepts schemas whose names and values have 120,000 characters in total.
_MAX_CHARACTERS = 200_000
_GRAMMARS = 32

Schema = Mapping[str, Any] | bool
_DESCRIBES = {
    *("title", "description", "default", "examples", "example", "$schema", "$id", "$comment"),
    *("deprecated", "readOnly", "writeOnly", "$defs", "definitions"),
}
_OF_TYPES = {
    "object": {"properties", "required", "additionalProperties"},
    "array": {"items", "minItems", "maxItems"},
    "string": {"minLength", "maxLength"},
    "number": set[str](),
    "integer": set[str](),
    "boolean": set[str](),
    "null": set[str](),
}
_ENFORCED = {"type", "enum", "const", "anyOf", "$ref"}.union(*_OF_TYPES.values())
_KNOWN = _ENFORCED | _DESCRIBES


def json_grammar(schema: Schema) -> Node:
    """The grammar of a schema's values after optional blanks; cached by the schema's JSON.

    Raises `UserError` for an invalid schema, and for unsupported keywords with their place.
    """
    if not isinstance(schema, Mapping | bool):
        raise UserError(f'schema={shorten(schema)} must be a JSON Schema, such as {{"type": …}}')
    try:
        text = json.dumps(schema, ensure_ascii=False, allow_nan=False)
        text.encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise UserError(f"schema={shorten(schema)} is not JSON: {error}") from None
    if len(text) > _MAX_CHARACTERS:
        raise UserError(
            f"the schema has {len(text):,} characters; at most {_MAX_CHARACTERS:,} are supported, "
            "so make it smaller"
        )
    return _grammar(text)


@lru_cache(_GRAMMARS)
def _grammar(text: str) -> Node:
    try:
        return Concatenation([BLANKS, _Compiler(json.loads(text)).referred("#")])
    except RecursionError:
        raise UserError("the schema is nested too deeply; name its parts in $defs") from None


def object_grammar(members: Sequence[tuple[str, Node, bool]]) -> Node:
    """The grammar of objects with these members in this order: name, value, whether required."""
    first: Node = _text("}")
    later: Node = first
    for name, value, is_required in reversed(members):
        parts: list[Node] = [_spelled(name), BLANKS, _text(":"), value, BLANKS, later]
        begun, continued = Concatenation(parts), Concatenation([_text(","), BLANKS, *parts])
        first = begun if is_required else Choice([begun, first])
        later = continued if is_required else Choice([continued, later])
    return _bracketed("{", first)


# Any JSON value.


def _bytes(*some: str | Iterable[int]) -> Table:
    """One of these bytes."""
    found = [byte for one in some for byte in (one.encode() if isinstance(one, str) else one)]
    return Table([dict.fromkeys(found, DONE)])


def _text(text: str) -> Literal:
    return Literal(text.encode())


def _optional(*parts: Node) -> Node:
    return Repeat(Concatenation(parts), 0, 1)


BLANKS = Repeat(_bytes(" \t\n\r"), 0, _MAX_REPEATS)
_DIGIT = _bytes("0123456789")


def _bracketed(opened: str, inner: Node) -> Rule:
    """An opening bracket, blanks, and `inner`, which ends with the closing bracket."""
    return Rule(nests=True, body=Concatenation([_text(opened), BLANKS, inner]))


def _string(least: int = 0, most: int | None = None) -> Node:
    return Concatenation([_text('"'), Repeat(CHARACTER, least, most), _text('"')])


def _array(item: Node, least: int = 0, most: int | None = None) -> Node:
    following = Concatenation([_text(","), BLANKS, item, BLANKS])
    more = Repeat(following, max(least - 1, 0), None if most is None else most - 1)
    some = Concatenation([item, BLANKS, more, _text("]")])
    none = [_text("]")] if least == 0 else []
    return _bracketed("[", Choice([*none, *([some] if most != 0 else [])]))


def _map(value: Node) -> Node:
    """An object with any names."""
    member = Concatenation([_string(), BLANKS, _text(":"), BLANKS, value, BLANKS])
    more = Repeat(Concatenation([_text(","), BLANKS, member]))
    some = Concatenation([member, more, _text("}")])
    return _bracketed("{", Choice([_text("}"), some]))


def _spelled(value: object) -> Literal:
    return _text(json.dumps(value, ensure_ascii=False))


def one_of(texts: Iterable[bytes]) -> Node:
    """One of several texts, which may have common prefixes."""
    options = list[Node]()
    for _, group in groupby(sorted(set(texts)), key=lambda text: text[:1]):
        alike = list(group)
        shared = _shared(alike)
        rests = [text[shared:] for text in alike]
        begun = Literal(alike[0][:shared])
        if len(alike) == 1:
            options.append(begun)
            continue
        if not rests[0]:
            options.append(begun)
            rests = rests[1:]
        options.append(Concatenation([begun, one_of(rests)]))
    return options[0] if len(options) == 1 else Choice(options)


def _shared(texts: Sequence[bytes]) -> int:
    """The length in bytes of the common prefix of sorted texts."""
    first, last = texts[0], texts[-1]
    return next((i for i, byte in enumerate(first) if byte != last[i]), len(first))


_INTEGER = Concatenation(
    [
        _optional(_text("-")),
        Choice(
            [
                _text("0"),
                Concatenation([_bytes("123456789"), Repeat(_DIGIT, 0, _DIGITS - 1)]),
            ]
        ),
    ]
)
_NUMBER = Concatenation(
    [
        _INTEGER,
        _optional(_text("."), Repeat(_DIGIT, 1, _MAX_REPEATS + 1)),
        _optional(_bytes("eE"), _optional(_bytes("+-")), Repeat(_DIGIT, 1, 2)),
    ]
)
_BOOLEAN, _NULL = Choice([_text("true"), _text("false")]), _text("null")
_ANY = Rule()
_ANY.body = Choice([_map(_ANY), _array(_ANY), _string(), _NUMBER, _BOOLEAN, _NULL])
_SIMPLE: dict[str, Node] = {
    "number": _NUMBER,
    "integer": _INTEGER,
    "boolean": _BOOLEAN,
    "null": _NULL,
}
_IS_TYPE: dict[str, Callable[[Any], bool]] = {
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "string": lambda value: isinstance(value, str),
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "integer": lambda value: not isinstance(value, bool) and value in _whole(value),
    "boolean": lambda value: isinstance(value, bool),
    "null": lambda value: value is None,
}


def _whole(value: Any) -> list[int]:
    return [int(value)] if isinstance(value, int | float) else []


# From a schema to its grammar.


class _Compiler:
    """Compiles the subschemas of one schema to grammars."""

    def __init__(self, schema: Schema) -> None:
        self._schema = schema
        # One rule per schema object, however many places refer to it and with whatever spelling.
        self._rules: dict[int, Rule] = {}

    def referred(self, pointer: str) -> Node:
        """The grammar of the subschema at a JSON pointer."""
        return self._compiled(self._at(pointer), pointer)

    def _at(self, pointer: str) -> Any:
        found: Any = self._schema
        for part in pointer.split("/")[1:]:
            name = unquote(part).replace("~1", "/").replace("~0", "~")
            if isinstance(found, list) and re.fullmatch("[0-9]{1,9}", name):
                found = found[int(name)] if int(name) < len(found) else None
            else:
                found = found.get(name) if isinstance(found, dict) else None
        if found is None or pointer.partition("/")[0] != "#":
            raise UserError(
                f"$ref={shorten(pointer)} is not a place in the schema; refer to one, such as "
                "#/$defs/NAME"
            )
        return found

    def _compiled(self, schema: Any, place: str) -> Node:
        if isinstance(schema, bool):
            return _ANY if schema else Choice(())
        if not isinstance(schema, dict):
            raise _fault(place, schema, "an object or true, as every schema is")
        if id(schema) not in self._rules:
            self._rules[id(schema)] = rule = Rule()
            rule.body = self._of_keywords(schema, place)
        return self._rules[id(schema)]

    def _of_keywords(self, schema: Mapping[str, Any], place: str) -> Node:
        for name in schema:
            if name not in _KNOWN:
                raise UserError(
                    f"{place}/{name} of the schema is not supported; leave it out, or ask for it "
                    f"in the prompt (supported are {', '.join(sorted(_ENFORCED))})"
                )
        if "$ref" in schema:
            _alone("$ref", schema, place)
            if not isinstance(schema["$ref"], str):
                raise _fault(f"{place}/$ref", schema["$ref"], "a place, such as #/$defs/NAME")
            return self.referred(schema["$ref"])
        if "anyOf" in schema:
            _alone("anyOf", schema, place)
            options = schema["anyOf"]
            if not isinstance(options, list) or not options:
                raise _fault(f"{place}/anyOf", options, "a list of schemas, at least one")
            return Choice(
                [self._compiled(one, f"{place}/anyOf/{i}") for i, one in enumerate(options)]
            )
        if "const" in schema or "enum" in schema:
            return _values(schema, place)
        types = _types(schema, place)
        if types is None:
            return _ANY
        _alone("type", schema, place, {name for type in types for name in _OF_TYPES[type]})
        return Choice([self._of_type(type, schema, place) for type in types])

    def _of_type(self, type: str, schema: Mapping[str, Any], place: str) -> Node:
        if type == "string":
            return _string(*_bounds(schema, place, "minLength", "maxLength"))
        if type == "array":
            item = self._compiled(schema.get("items", True), f"{place}/items")
            return _array(item, *_bounds(schema, place, "minItems", "maxItems"))
        if type == "object":
            return self._of_object(schema, place)
        return _SIMPLE[type]

    def _of_object(self, schema: Mapping[str, Any], place: str) -> Node:
        properties = schema.get("properties", {})
        required = schema.get("required", [])
        others = schema.get("additionalProperties", True)
        if not isinstance(properties, dict):
            raise _fault(f"{place}/properties", properties, "an object of schemas")
        if not isinstance(required, list) or not all(isinstance(one, str) for one in required):
            raise _fault(f"{place}/required", required, "a list of names")
        unknown = next((name for name in required if name not in properties), None)
        if unknown is not None:
            raise _fault(f"{place}/required", unknown, "one of the names of properties")
        if properties and not isinstance(others, bool):
            raise _fault(
                f"{place}/additionalProperties", others, "false or true next to properties"
            )
        if not properties:
            none = others is False
            value = self._compiled(others, f"{place}/additionalProperties")
            return object_grammar([]) if none else _map(value)
        members = [
            (name, self._compiled(one, f"{place}/properties/{name}"), name in required)
            for name, one in properties.items()
        ]
        # A value may follow blanks.
        return object_grammar(
            [(name, Concatenation([BLANKS, value]), must) for name, value, must in members]
        )


def _types(schema: Mapping[str, Any], place: str) -> list[str] | None:
    """The types that a schema names or that its other keywords imply; None: any."""
    given = schema.get("type")
    if given is None:
        found = [type for type, words in _OF_TYPES.items() if words & schema.keys()]
        return found or None
    types = given if isinstance(given, list) else [given]
    if not types or not all(isinstance(one, str) and one in _OF_TYPES for one in types):
        raise _fault(f"{place}/type", given, f"one or more of {', '.join(_OF_TYPES)}")
    types = list(dict.fromkeys(types))
    # Every integer is a number as well.
    return [one for one in types if one != "integer" or "number" not in types]


def _values(schema: Mapping[str, Any], place: str) -> Node:
    """One of the values of `enum` or `const`."""
    _alone("enum", schema, place, {"type", "const"})
    values = schema.get("enum", [schema.get("const")])
    if not isinstance(values, list) or not values:
        raise _fault(f"{place}/enum", values, "a list of values, at least one")
    types = _types({"type": schema["type"]} if "type" in schema else {}, place)
    kept = [
        value
        for value in values
        if (types is None or any(_IS_TYPE[type](value) for type in types))
        and ("const" not in schema or _same(value, schema["const"]))
    ]
    texts = [_spelled(value).text for value in kept]
    return one_of(texts) if texts else Choice(())


def _same(one: Any, other: Any) -> bool:
    """Whether two values are the same JSON; True differs from 1."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


def _bounds(
    schema: Mapping[str, Any], place: str, lower: str, upper: str
) -> tuple[int, int | None]:
    least, most = schema.get(lower, 0), schema.get(upper)
    for name, value in ((lower, least), (upper, 0 if most is None else most)):
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise _fault(f"{place}/{name}", value, "a whole number, 0 or more")
    if most is not None and most < least:
        raise _fault(f"{place}/{upper}", most, f"at least {lower}, which is {least}")
    return min(least, _LONGEST), None if most is None or most > _LONGEST else most


def _alone(word: str, schema: Mapping[str, Any], place: str, beside: Iterable[str] = ()) -> None:
    """Refuse other keywords next to `word`, except those in `beside` and annotations."""
    other = next((one for one in schema if one not in {word, *beside, *_DESCRIBES}), None)
    if other is not None:
        raise UserError(
            f"{place}/{other} of the schema is not supported next to {word}; leave it out, or "
            "ask for it in the prompt"
        )


def _fault(place: str, value: object, rule: str) -> UserError:
    return UserError(f"{place}={shorten(value)} of the schema must be {rule}")
