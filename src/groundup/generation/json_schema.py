"""The grammar of the JSON values that match a JSON Schema, such as those of pydantic's models.

    Request(prompt="The ship as JSON: ", schema={"type": "object", "properties": {…}})

    type (one or several)   object, array, string, number, integer, boolean, null
    objects                 properties, in their order; required; additionalProperties;
                            minProperties, maxProperties; without properties: propertyNames,
                            patternProperties, and minProperties only of 0 or 1
    arrays                  items, prefixItems, minItems, maxItems; uniqueItems of an enum
    strings                 minLength, maxLength; pattern (see `regular_expressions`) or format (see
                            `string_formats`)
    numbers                 minimum, maximum, exclusiveMinimum, exclusiveMaximum, multipleOf (see
                            `number_bounds`)
    values                  enum, const, also next to the keywords of strings and numbers, which
                            exclude values; $ref to a place in the schema, also recursive
    combinations            anyOf; allOf; oneOf of options that differ in their types, values,
                            names, or in a property's values (see `combined_schemas`)

`json.loads` reads every such value. An object with `properties` has no other members, even where
JSON Schema would allow them; an object without has any. Other keywords of JSON Schema are refused
because they are not enforced, except for annotations (`title`, `description`, `default`,
`examples`, `discriminator`, names that begin with x-, and unknown formats).

Source: json-schema.org/draft/2020-12; platform.openai.com/docs/guides/structured-outputs.
"""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from functools import lru_cache
from typing import Any
from urllib.parse import unquote

from groundup.errors import UserError, shorten
from groundup.generation.combined_schemas import Outline, canonical, discriminators, merge
from groundup.generation.grammar import ALL, Automaton, Choice, Concatenation, Node, Rule
from groundup.generation.json_values import (
    ANY,
    BLANKS,
    DIGITS,
    IS_TYPE,
    SIMPLE,
    array_grammar,
    map_grammar,
    object_grammar,
    one_of,
    quoted,
    set_grammar,
    spelled,
    string_grammar,
    tuple_grammar,
)
from groundup.generation.number_bounds import Bounds, bounded_number
from groundup.generation.regular_expressions import Patterns
from groundup.generation.string_formats import FORMATS, format_automaton

ANY_OBJECT: Mapping[str, Any] = {"type": "object"}
"""The schema of any JSON object: OpenAI's json_object."""
# No model writes this much: a longer limit is the same as none.
_LONGEST = 10**9
# OpenAI accepts schemas whose names and values have 120,000 characters in total.
_MAX_CHARACTERS = 200_000
_GRAMMARS = 32
# An array of unique items has a rule for each set of values.
_MAX_UNIQUE = 8

_ANY_TEXT = Automaton([[(ALL, 0)]], frozenset([0]))

Schema = Mapping[str, Any] | bool
_DESCRIBES = {
    *("title", "description", "default", "examples", "example", "$schema", "$id", "$comment"),
    *("deprecated", "readOnly", "writeOnly", "$defs", "definitions", "discriminator"),
    *("contentMediaType", "contentEncoding", "contentSchema"),
}
_OF_NUMBERS = {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"}
_OF_MAPS = {"propertyNames", "patternProperties"}
_COUNTS = {"minProperties", "maxProperties"}
_OF_TYPES = {
    "object": {"properties", "required", "additionalProperties", *_COUNTS, *_OF_MAPS},
    "array": {"items", "prefixItems", "minItems", "maxItems", "uniqueItems"},
    "string": {"minLength", "maxLength", "pattern", "format"},
    "number": _OF_NUMBERS,
    "integer": _OF_NUMBERS,
    "boolean": set[str](),
    "null": set[str](),
}
_ENFORCED = {"type", "enum", "const", "anyOf", "oneOf", "allOf", "$ref"}.union(*_OF_TYPES.values())
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
        return Concatenation([BLANKS, _Compiler(json.loads(text)).grammar()])
    except RecursionError:
        raise UserError("the schema is nested too deeply; name its parts in $defs") from None


# From a schema to its grammar.


class _Compiler:
    """Compiles the subschemas of one schema to grammars."""

    def __init__(self, schema: Schema) -> None:
        self._schema = schema
        # One rule per schema object, however many places refer to it and with whatever spelling,
        # and one per set of objects that are merged.
        self._rules: dict[int, Rule] = {}
        self._merged_rules: dict[frozenset[int], Rule] = {}
        self._strings: dict[tuple[Automaton, int, int | None], Node] = {}
        self._numbers = set[Automaton]()
        self._todo = deque[tuple[Mapping[str, Any], str]]()
        self._patterns = Patterns()
        # Rules are found by the ids of schemas, so the schemas that are made here are kept.
        self._made: list[Any] = []

    def grammar(self) -> Node:
        found = self._compiled(self._schema, "#")
        while self._todo:
            schema, place = self._todo.popleft()
            self._rules[id(schema)].body = self._body(schema, place)
        return found

    def _spend(self, steps: int, place: str) -> None:
        try:
            self._patterns.spend(steps)
        except UserError as error:
            at = place if len(place) < 100 else f"{place[:100]}…"
            raise UserError(f"{at} of the schema {error}") from None

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
        """The rule of a schema; its body is compiled later."""
        if isinstance(schema, bool):
            return ANY if schema else Choice(())
        if not isinstance(schema, dict):
            raise _fault(place, schema, "an object or true, as every schema is")
        if id(schema) not in self._rules:
            self._spend(3, place)
            self._rules[id(schema)] = Rule()
            self._todo.append((schema, place))
        return self._rules[id(schema)]

    def _body(self, schema: Mapping[str, Any], place: str) -> Node:
        parts = self._parts(schema, place)
        if parts is None:
            return Choice(())
        if len(parts) == 1 and parts[0][0] is not schema and not _has_references(parts[0][0]):
            return self._compiled(*parts[0])
        return self._of_parts([part for part, _ in parts], place)

    def _parts(
        self, schema: Any, place: str, within: tuple[int, ...] = ()
    ) -> list[tuple[Any, str]] | None:
        """The schemas that must all match, with their places: this one, and those that it refers to
        by $ref and allOf. None if one is false or refers to itself."""
        if isinstance(schema, bool):
            return [] if schema else None
        if not isinstance(schema, dict):
            raise _fault(place, schema, "an object or true, as every schema is")
        for name in schema:
            if name not in _KNOWN and not name.startswith("x-"):
                raise UserError(
                    f"{place}/{name} of the schema is not supported; leave it out, or ask for it "
                    f"in the prompt (supported are {', '.join(sorted(_ENFORCED))})"
                )
        self._spend(2, place)
        references = list[tuple[Any, str]]()
        if "$ref" in schema:
            if not isinstance(schema["$ref"], str):
                raise _fault(f"{place}/$ref", schema["$ref"], "a place, such as #/$defs/NAME")
            references.append((self._at(schema["$ref"]), schema["$ref"]))
        if "allOf" in schema:
            references += _options(schema, "allOf", place)
        within = (*within, id(schema))
        found = dict[int, tuple[Any, str]]()
        for one, there in references:
            parts = None if id(one) in within else self._parts(one, there, within)
            if parts is None:
                return None
            found |= {id(part): (part, at) for part, at in parts}
        if _own_keywords(schema) or not references:
            found[id(schema)] = schema, place
        return [*found.values()]

    def _of_parts(self, parts: Sequence[Any], place: str) -> Node:
        """The grammar of the values that match all of the schemas, without their references."""
        if len(parts) == 1:
            return self._of_keywords(_own_keywords(parts[0]), place)
        key = frozenset(map(id, parts))
        if key not in self._merged_rules:
            self._merged_rules[key] = rule = Rule()
            keywords = self._merge(parts, place)
            rule.body = Choice(()) if keywords is None else self._of_keywords(keywords, place)
        return self._merged_rules[key]

    def _merge(self, parts: Sequence[Any], place: str) -> Mapping[str, Any] | None:
        keywords = [_own_keywords(part) for part in parts]
        properties = [one.get("properties") for one in keywords]
        size = sum(len(one) for one in (*keywords, *properties) if isinstance(one, dict))
        self._spend(size * len(parts), place)
        self._made.append(found := merge(keywords, place))
        return found

    def _merged(self, schema: Any, place: str) -> Mapping[str, Any] | None:
        """The keywords of a schema and of its references; None if no value matches."""
        parts = self._parts(schema, place)
        return None if parts is None else self._merge([part for part, _ in parts], place)

    def _of_keywords(self, keywords: Mapping[str, Any], place: str) -> Node:
        for word in ("anyOf", "oneOf"):
            if word in keywords:
                return self._of_options(word, keywords, place)
        if "const" in keywords or "enum" in keywords:
            texts = [spelled(value).text for value in self._values(keywords, place)]
            return one_of(texts) if texts else Choice(())
        types = _types(keywords, place)
        if types is None:
            return ANY
        allowed = {name for type in types for name in _OF_TYPES[type]} | {"format"}
        _alone("type", keywords, place, allowed)
        return Choice([self._of_type(type, keywords, place) for type in types])

    def _of_options(self, word: str, keywords: Mapping[str, Any], place: str) -> Node:
        options = _options(keywords, word, place)
        # The other keywords apply to every option.
        rest = {
            name: value for name, value in keywords.items() if name not in (word, "discriminator")
        }
        if rest:
            options = [(self._all_of([rest, one], there), there) for one, there in options]
        given = keywords.get("discriminator")
        name = given.get("propertyName") if isinstance(given, dict) else None
        if isinstance(name, str):
            # OpenAPI requires the discriminator; pydantic's options do not if it has a default.
            options = [(self._requiring({name}, one, there), there) for one, there in options]
        if word == "oneOf" and len(options) > 1:
            outlines = [self._outline(one, there) for one, there in options]
            self._spend(len(options) ** 2, place)
            names = discriminators(outlines, f"{place}/oneOf")
            options = [
                (self._requiring(more, one, there), there)
                for (one, there), more in zip(options, names, strict=True)
            ]
        return Choice([self._compiled(one, there) for one, there in options])

    def _requiring(self, names: set[str], schema: Any, place: str) -> Any:
        """The schema, which also requires those of the names that it has as properties."""
        known = names & (self._outline(schema, place).names or set()) if names else names
        return self._all_of([schema, {"required": sorted(known)}], place) if known else schema

    def _all_of(self, parts: list[Any], place: str) -> Mapping[str, Any]:
        self._spend(20, place)
        self._made.append(found := {"allOf": parts})
        return found

    def _outline(self, schema: Any, place: str) -> Outline:
        keywords = self._merged(schema, place)
        if keywords is None:
            return Outline(frozenset())
        values = _listed_values(keywords)
        if values is not None:
            of_values = {type for type, holds in IS_TYPE.items() if any(map(holds, values))}
            return Outline(frozenset(of_values), frozenset(map(canonical, values)))
        given = None if keywords.get("type") is None else _types(keywords, place)
        if given is not None and "number" in given:
            given.append("integer")
        types = None if given is None else frozenset(given)
        properties = keywords.get("properties", {})
        closed = keywords.get("additionalProperties") is False
        if keywords.keys() & {"anyOf", "oneOf", "patternProperties"} or not (properties or closed):
            return Outline(types)
        if not isinstance(properties, dict):
            raise _fault(f"{place}/properties", properties, "an object of schemas")
        values_of = dict[str, frozenset[str]]()
        for name, one in properties.items():
            listed = _listed_values(self._merged(one, f"{place}/properties/{name}") or {"enum": []})
            if listed is not None:
                values_of[name] = frozenset(map(canonical, listed))
        required = frozenset(_required(keywords, place))
        return Outline(types, None, required, frozenset(properties), closed, values_of)

    def _of_type(self, type: str, schema: Mapping[str, Any], place: str) -> Node:
        if type == "string":
            return self._of_string(schema, place)
        if type == "array":
            return self._of_array(schema, place)
        if type == "object":
            return self._of_object(schema, place)
        if type in ("number", "integer") and _OF_NUMBERS & schema.keys():
            return self._of_number(type, schema, place)
        return SIMPLE[type]

    def _of_string(self, schema: Mapping[str, Any], place: str) -> Node:
        least, most = _bounds(schema, place, "minLength", "maxLength")
        automaton = self._automaton(schema, place)
        if automaton is None:
            return string_grammar(least, most)
        key = automaton, least, most
        if key not in self._strings:
            within = replace(automaton, least=least, most=most)
            self._spend(within.positions // 4, place)
            self._strings[key] = quoted(within)
        return self._strings[key]

    def _automaton(self, schema: Mapping[str, Any], place: str) -> Automaton | None:
        """The automaton of a pattern or format; None without either."""
        pattern, format = schema.get("pattern"), schema.get("format")
        for name, value in (("pattern", pattern), ("format", format)):
            if name in schema and not isinstance(value, str):
                raise _fault(f"{place}/{name}", value, "a string")
        if format is not None and pattern is not None:
            raise UserError(
                f"{place}/pattern of the schema is not supported next to format={format}; leave "
                "one of them out"
            )
        if pattern is None:
            return None if format is None else format_automaton(format)
        try:
            return self._patterns.automaton(pattern)
        except UserError as error:
            said = f"{place}/pattern={shorten(pattern)} of the schema {error}"
            raise UserError(said) from None

    def _of_number(self, type: str, schema: Mapping[str, Any], place: str) -> Node:
        bounds = _number_bounds(schema, place, is_integer=type == "integer")
        for bound in (bounds.least, None if bounds.most is None else bounds.most.copy_negate()):
            if bound is not None and bound >= 10**DIGITS:
                raise UserError(
                    f"{place} of the schema: no number of at most {DIGITS} digits is within its "
                    "bounds; make them wider"
                )
        try:
            found = bounded_number(bounds)
            if found not in self._numbers:
                self._patterns.spend(5 * len(found.states))
                self._numbers.add(found)
        except UserError as error:
            raise UserError(f"{place}, a number of the schema, {error}") from None
        return found

    def _values(self, schema: Mapping[str, Any], place: str) -> list[Any]:
        """The values of `enum` and `const` that match the keywords next to them."""
        values = schema.get("enum", [schema.get("const")])
        if not isinstance(values, list) or not values:
            raise _fault(f"{place}/enum", values, "a list of values, at least one")
        # A large enum may stand next to many options.
        self._spend(5 * len(values), place)
        types = _types({"type": schema["type"]} if "type" in schema else {}, place)
        values = [
            value
            for value in values
            if (types is None or any(IS_TYPE[type](value) for type in types))
            and ("const" not in schema or canonical(value) == canonical(schema["const"]))
        ]
        # A type's keywords do not apply to values of other types.
        for type in ("object", "array", "string", "number"):
            holds = IS_TYPE[type]
            if _OF_TYPES[type] & schema.keys() and any(map(holds, values)):
                allows = self._condition(type, schema, place)
                self._spend(sum(len(one) for one in values if isinstance(one, str)), place)
                values = [value for value in values if not holds(value) or allows(value)]
        return values

    def _condition(self, type: str, schema: Mapping[str, Any], place: str) -> Callable[[Any], bool]:
        """Whether the keywords of a type allow a value of this type."""
        if type == "string":
            least, most = _bounds(schema, place, "minLength", "maxLength")
            automaton = self._automaton(schema, place) or _ANY_TEXT
            return replace(automaton, least=least, most=most).matches
        if type == "number":
            bounds = _number_bounds(schema, place)
            return lambda number: bounds.allow(Decimal(repr(number)))
        _alone("enum", schema, place, schema.keys() - _OF_TYPES[type])
        return lambda _: True

    def _of_array(self, schema: Mapping[str, Any], place: str) -> Node:
        least, most = _bounds(schema, place, "minItems", "maxItems")
        first = schema.get("prefixItems", [])
        if not isinstance(first, list):
            raise _fault(f"{place}/prefixItems", first, "a list of schemas")
        is_set = schema.get("uniqueItems", False)
        if not isinstance(is_set, bool):
            raise _fault(f"{place}/uniqueItems", is_set, "true or false")
        if is_set and (most is None or most > 1):
            items = None if first else self._merged(schema.get("items", True), f"{place}/items")
            values = None
            if items is not None and items.keys() & {"enum", "const"}:
                values = {canonical(one): one for one in self._values(items, f"{place}/items")}
            if values is None or len(values) > _MAX_UNIQUE:
                raise UserError(
                    f"{place}/uniqueItems of the schema is supported only for items of an enum of "
                    f"at most {_MAX_UNIQUE} values; leave it out, and remove duplicates yourself"
                )
            texts = [spelled(value) for value in values.values()]
            self._spend(len(texts) << len(texts), place)
            return set_grammar(texts, least, most)
        item = self._compiled(schema.get("items", True), f"{place}/items")
        if not first:
            return array_grammar(item, least, most)
        firsts = [self._compiled(one, f"{place}/prefixItems/{i}") for i, one in enumerate(first)]
        return tuple_grammar(firsts, item, least, most)

    def _of_object(self, schema: Mapping[str, Any], place: str) -> Node:
        properties = schema.get("properties", {})
        required = _required(schema, place)
        others = schema.get("additionalProperties", True)
        if not isinstance(properties, dict):
            raise _fault(f"{place}/properties", properties, "an object of schemas")
        unknown = next((name for name in required if name not in properties), None)
        if unknown is not None:
            raise _fault(f"{place}/required", unknown, "one of the names of properties")
        if properties and not isinstance(others, bool):
            raise _fault(
                f"{place}/additionalProperties", others, "false or true next to properties"
            )
        if not properties:
            return self._of_map(schema, others, place)
        _alone("properties", schema, place, schema.keys() - _OF_MAPS)
        members = [
            (name, self._compiled(one, f"{place}/properties/{name}"), name in required)
            for name, one in properties.items()
        ]
        least, most = _bounds(schema, place, "minProperties", "maxProperties")
        # A rule for each member and number of members before it.
        counted = max(least, most or 0) if _COUNTS & schema.keys() else 0
        self._spend(len(members) * min(counted, len(members)), place)
        # A value may follow blanks.
        return object_grammar(
            [(name, Concatenation([BLANKS, value]), must) for name, value, must in members],
            least,
            most,
        )

    def _of_map(self, schema: Mapping[str, Any], others: Any, place: str) -> Node:
        """An object without `properties`."""
        least, most = _bounds(schema, place, "minProperties", "maxProperties")
        if least > 1:
            raise _fault(
                f"{place}/minProperties",
                least,
                "0 or 1, because names may repeat where any are allowed",
            )
        patterns = schema.get("patternProperties", {})
        if not isinstance(patterns, dict) or len(patterns) > 1:
            raise _fault(f"{place}/patternProperties", patterns, "an object of one schema")
        names = schema.get("propertyNames", True)
        for pattern, value in patterns.items():
            # No other names are written, even where JSON Schema would allow them.
            names, others = self._all_of([{"pattern": pattern}, names], place), value
        named = self._all_of([{"type": "string"}, names], place)
        name = (
            string_grammar() if names is True else self._compiled(named, f"{place}/propertyNames")
        )
        value = self._compiled(others, f"{place}/additionalProperties")
        return map_grammar(value, name, least, most)


def _own_keywords(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The keywords of a schema that constrain values, without its references."""
    names = _DESCRIBES | {"$ref", "allOf"}
    if not schema.keys().isdisjoint(("anyOf", "oneOf")):
        names = names - {"discriminator"}
    if isinstance(schema.get("format"), str) and schema["format"] not in FORMATS:
        names |= {"format"}
    return {
        name: value
        for name, value in schema.items()
        if name not in names and not name.startswith("x-")
    }


def _has_references(schema: Mapping[str, Any]) -> bool:
    return not schema.keys().isdisjoint(("$ref", "allOf"))


def _options(schema: Mapping[str, Any], word: str, place: str) -> list[tuple[Any, str]]:
    """The schemas in a keyword's list, with their places."""
    options = schema[word]
    if not isinstance(options, list) or not options:
        raise _fault(f"{place}/{word}", options, "a list of schemas, at least one")
    return [(one, f"{place}/{word}/{i}") for i, one in enumerate(options)]


def _required(schema: Mapping[str, Any], place: str) -> list[str]:
    required = schema.get("required", [])
    if not isinstance(required, list) or not all(isinstance(one, str) for one in required):
        raise _fault(f"{place}/required", required, "a list of names")
    return required


def _listed_values(schema: Mapping[str, Any]) -> list[Any] | None:
    """The values of `const` or `enum`; None without either."""
    if "const" in schema:
        return [schema["const"]]
    values = schema.get("enum")
    return values if isinstance(values, list) else None


def _decimal(schema: Mapping[str, Any], place: str, word: str) -> Decimal | None:
    if word not in schema:
        return None
    value = schema[word]
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise _fault(f"{place}/{word}", value, "a number")
    return Decimal(repr(value))


def _limit(
    schema: Mapping[str, Any],
    place: str,
    word: str,
    exclusive_word: str,
    narrower: Callable[[Decimal, Decimal], Decimal],
) -> tuple[Decimal | None, bool]:
    """The narrower of two bounds, and whether it is excluded."""
    bound, exclusive = (_decimal(schema, place, one) for one in (word, exclusive_word))
    if bound is None or exclusive is None:
        return (exclusive, True) if bound is None and exclusive is not None else (bound, False)
    found = narrower(bound, exclusive)
    return found, found == exclusive


def _number_bounds(schema: Mapping[str, Any], place: str, *, is_integer: bool = False) -> Bounds:
    least, least_excluded = _limit(schema, place, "minimum", "exclusiveMinimum", max)
    most, most_excluded = _limit(schema, place, "maximum", "exclusiveMaximum", min)
    multiple = _decimal(schema, place, "multipleOf")
    if multiple is not None and multiple <= 0:
        raise _fault(f"{place}/multipleOf", schema["multipleOf"], "more than 0")
    return Bounds(is_integer, least, most, least_excluded, most_excluded, multiple)


def _types(schema: Mapping[str, Any], place: str) -> list[str] | None:
    """The types that a schema names or that its other keywords imply; None: any."""
    given = schema.get("type")
    if given is None:
        given = [type for type, words in _OF_TYPES.items() if words & schema.keys()]
        if not given:
            return None
    types = given if isinstance(given, list) else [given]
    if not types or not all(isinstance(one, str) and one in _OF_TYPES for one in types):
        raise _fault(f"{place}/type", given, f"one or more of {', '.join(_OF_TYPES)}")
    types = list(dict.fromkeys(types))
    # Every integer is a number as well.
    return [one for one in types if one != "integer" or "number" not in types]


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
