"""Text generated under a JSON Schema is readable by `json.loads` and valid under the schema."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.conftest import TinyModel

from groundup.errors import UserError
from groundup.generation.constraint import Constraint, State, Vocabulary
from groundup.generation.generate import generate, reference_generate
from groundup.generation.grammar import Choice, Concatenation, Repeat, Rule, nodes_of
from groundup.generation.json_schema import ANY_OBJECT, json_grammar
from groundup.generation.request import Request
from groundup.generation.sampling import Sampling
from groundup.lm.config import ModelConfig
from groundup.text.bpe import train_bpe
from groundup.text.tokenizer import Tokenizer

# Without what is wider than the mask: integers of 16 digits, exponents of three, 65 brackets, and
# escaped surrogate halves.
ANY = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**15) + 1, 10**15 - 1)
    | st.floats(-1e9, 1e9).map(lambda x: round(x, 4))
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=12,
)


# Bytes, and some longer tokens; a few of these end within a character.
TOKENIZER = Tokenizer.from_bpe(train_bpe(['{"a": "é€", "b": ["€ab"]}, '] * 4, 285))
ENDS = {0, 2}
CONFIG = ModelConfig.of(width=64, depth=1, vocab_size=320, context=64, heads=1, kv_heads=1)
VOCABULARY = Vocabulary(CONFIG, TOKENIZER)
TOKENS = [TOKENIZER.token_bytes(id) for id in range(320)]


def constrained(schema: Any) -> Constraint:
    found: Constraint = VOCABULARY.constraint(json_grammar(schema))
    return found


def after(text: bytes, schema: Any = ANY_OBJECT) -> State | None:
    constraint = constrained(schema)
    state: State | None = constraint.begin
    for byte in text:
        state = None if state is None else constraint.step(state, byte)
    return state


def is_whole(state: State | None) -> bool:
    return state is not None and None in state.stacks


def sampled(schema: Any, seed: int, left: int = 250) -> str:
    """A text of tokens sampled from those that are allowed."""
    dice, constraint = random.Random(seed), constrained(schema)
    state, text = constraint.begin, b""
    left += state.fewest
    while not is_whole(state):
        allowed = constraint.allowed(state, left).nonzero()[:, 0].tolist()
        # Blanks would only use up the room.
        id = dice.choice([one for one in allowed if TOKENS[one].strip()] or allowed)
        left -= 1
        text, state = text + TOKENS[id], constraint.after(state, id)
    return text.decode()


@settings(deadline=None, max_examples=150)
@given(value=st.dictionaries(st.text(), ANY), indent=st.sampled_from([None, 0, 2, "\t"]))
def test_every_object_is_read_to_its_end(value: dict[str, Any], indent: int | str | None) -> None:
    for separators in (None, (",", ":"), (" , ", "\r\n:")):
        text = json.dumps(value, ensure_ascii=False, indent=indent, separators=separators)
        assert is_whole(after(text.encode())), text


@pytest.mark.parametrize(
    ("begun", "again"),
    [
        *(("", " "), ("{", "\n"), ('{"a"', " "), ('{"a":', "\t"), ('{"a":[', " "), ('{"a":1', " ")),
        *(('{"a":1,', " "), ('{"a":1.', "3"), ('{"a":', "1")),
    ],
)
def test_blanks_and_digits_are_limited(begun: str, again: str) -> None:
    read_of_it = [after(f"{begun}{again * count}".encode()) is not None for count in range(100)]
    assert 10 < sum(read_of_it) < 50 and read_of_it == sorted(read_of_it, reverse=True)


def narrow(number: str) -> float:
    if re.fullmatch(r"-?\d{1,15}(\.\d+)?([eE][+-]?\d{1,2})?", number) is None:
        raise ValueError(f"{number} is wider than the mask")
    return float(number)


@pytest.mark.long
@settings(deadline=None, max_examples=400)
@given(value=st.dictionaries(st.text('ab\\"/é\n'), ANY), data=st.data())
def test_an_object_with_an_error_is_read_as_python_reads_it(
    value: dict[str, Any], data: st.DataObject
) -> None:
    text = bytearray(json.dumps(value, ensure_ascii=False).encode())
    place = data.draw(st.integers(0, len(text) - 1))
    put = data.draw(
        st.sampled_from([b"", *(bytes([one]) for one in b'{}[]":,0127-.eE \\nutx\n\x00')])
    )
    text[place : place + data.draw(st.integers(0, 2))] = put
    try:
        found = json.loads(text.decode(), parse_int=narrow, parse_float=narrow)
    except ValueError:
        found = None
    assert is_whole(after(text.strip())) == isinstance(found, dict), bytes(text)


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        ('{"a": 0}', True),
        ('{"a": -0.10e-05}', True),
        ('{"a": 00}', False),
        ('{"a": -}', False),
        ('{"a": 1.}', False),
        ('{"a": .5}', False),
        ('{"a": 1e}', False),
        ('{"a": +1}', False),
        ('{"a": NaN}', False),
        ('{"a": 1e999}', False),
        ('{"a": 999999999999999}', True),
        ('{"a": 9999999999999999}', False),
        ('{"a": truefalse}', False),
        ('{"a": tru}', False),
        ('{"\\u00e9": "\\ud7ff"}', True),
        ('{"a": "\\ud800"}', False),
        ('{"a": "\\x"}', False),
        ('{"a": "\n"}', False),
        ('{"a" 1}', False),
        ('{"a": 1,}', False),
        ('{"a": [1,]}', False),
        ('{"a": [}', False),
        ('{"a": [1}', False),
        ('{"a": 1]', False),
        ("{1: 2}", False),
        ("[]", False),
        ("{} ", False),
        ("{}{}", False),
        ("\n {\t}", True),
        ('{"a": ' + "[" * 63 + "]" * 63 + "}", True),
        ('{"a": ' + "[" * 64 + "]" * 64 + "}", False),
    ],
)
def test_accepts_objects_only(text: str, is_one: bool) -> None:
    assert is_whole(after(text.encode())) is is_one


# Schemas, and what they describe.

PERSON: dict[str, Any] = {
    "type": "object",
    "title": "A person",
    "properties": {
        "name": {"type": "string", "minLength": 1, "maxLength": 6, "description": "called so"},
        "age": {"type": "integer"},
        "height": {"type": ["number", "null"]},
        "tags": {"type": "array", "items": {"enum": ["red", "rose", "é€", 3]}, "maxItems": 2},
        "home": {"anyOf": [{"$ref": "#/$defs/place"}, {"const": "none"}]},
        "friend": {"anyOf": [{"$ref": "#"}, {"type": "null"}]},
        "more": {"type": "object", "additionalProperties": {"type": "boolean"}},
    },
    "required": ["name", "tags", "friend"],
    "additionalProperties": False,
    "$defs": {
        "place": {
            "type": "object",
            "properties": {"at": {"type": "array", "items": {"type": "number"}, "minItems": 2}},
            "required": ["at"],
            "additionalProperties": False,
        }
    },
}
SCHEMAS: dict[str, Any] = {
    "any": {},
    "true": True,
    "an object": ANY_OBJECT,
    "a person": PERSON,
    "a text": {"type": "string", "maxLength": 4},
    "a number": {"type": "number"},
    "all optional": {"properties": {"a": {"type": "null"}, "ab": {}, "b": {"type": "boolean"}}},
    "nothing": {"type": "object", "additionalProperties": False},
    "pairs": {"type": "array", "minItems": 1, "maxItems": 3, "items": {"maxItems": 2}},
    "an escape": {"enum": ['"\\\n', "\u20ac", True, None, 1.5, {"a": [1]}, "\u20acb"]},
    "a tree": {
        "type": "object",
        "properties": {"left": {"anyOf": [{"$ref": "#"}, {"const": 0}]}, "right": {"const": 1}},
        "required": ["left", "right"],
    },
    "one of several": {
        "oneOf": [
            {
                "type": "object",
                "properties": {"kind": {"const": "a"}, "x": {"type": "null"}},
                "required": ["x"],
            },
            {
                "type": "object",
                "properties": {"kind": {"enum": ["b", "c"]}, "x": {"const": 1}},
                "required": ["x"],
            },
            {
                "type": "object",
                "properties": {"y": {"const": 2}},
                "required": ["y"],
                "additionalProperties": False,
            },
            {"oneOf": [{"const": "d"}, {"const": "e"}], "type": "string"},
            {"type": ["integer", "boolean"], "maximum": 9},
        ]
    },
    "beside its options": {
        "type": "object",
        "properties": {"a": {"type": "integer"}, "b": {"type": "string", "maxLength": 2}},
        "additionalProperties": False,
        "anyOf": [{"required": ["a"]}, {"required": ["b"], "properties": {"a": {"const": 5}}}],
    },
    "all of several": {
        "$ref": "#/$defs/small",
        "allOf": [
            {"properties": {"a": {"minimum": 3}, "b": {"minLength": 1}}, "required": ["b"]},
            {"properties": {"b": {"maxLength": 3, "type": "string"}, "a": {"maximum": 120}}},
        ],
        "$defs": {
            "small": {
                "type": ["object", "null"],
                "properties": {"a": {"type": "number"}, "b": {}},
                "required": ["a"],
                "additionalProperties": False,
            }
        },
    },
    "a list of two recursive schemas": {
        "allOf": [{"$ref": "#/$defs/one"}, {"$ref": "#/$defs/other"}],
        "$defs": {
            "one": {"type": "object", "properties": {"in": {"$ref": "#/$defs/one"}}},
            "other": {"type": "object", "properties": {"in": {"$ref": "#/$defs/other"}}},
        },
    },
    "a tuple": {
        "type": "array",
        "prefixItems": [{"type": "boolean"}, {"const": 1}],
        "items": {"type": "null"},
        "minItems": 1,
        "maxItems": 4,
    },
    "a property of any value": {
        "allOf": [{"properties": {"a": True}}, {"properties": {"b": {}}, "required": ["a"]}]
    },
    "a closed tuple": {"prefixItems": [{"const": 1}, {"const": 2}], "items": False},
    "a set": {
        "type": "array",
        "items": {"enum": ["a", 1, 1.0, None, "b"]},
        "uniqueItems": True,
        "minItems": 1,
        "maxItems": 3,
    },
    "a set of strings": {"items": {"enum": ["a", 1], "type": "string"}, "uniqueItems": True},
    "unknown formats": {
        "anyOf": [
            {"type": "integer", "format": "int32"},
            {"enum": ["a"], "format": "letter"},
            {"type": "array", "items": {"format": "any", "type": "null"}},
        ]
    },
    "a map": {
        "type": "object",
        "propertyNames": {"enum": ["a", "b", 3]},
        "additionalProperties": {"type": "integer", "multipleOf": 3, "exclusiveMaximum": 30},
        "minProperties": 1,
        "maxProperties": 2,
    },
    "values within bounds": {
        "anyOf": [
            {"enum": [1, 2.5, 4, 8, "1", None], "minimum": 2, "exclusiveMaximum": 8},
            {"enum": ["a", "ab", "éé", "abc"], "type": "string", "minLength": 2, "maxLength": 2},
            {"enum": ["red", "dark red", 7], "pattern": "^[a-z]*$"},
            {"enum": [3, 6, 9, 10], "allOf": [{"multipleOf": 3}], "anyOf": [{"minimum": 6}]},
            {"const": False, "maximum": 0, "pattern": "a", "items": {}, "properties": {}},
        ]
    },
    "two or three of four": {
        "properties": {name: {"type": "null"} for name in "abcd"},
        "required": ["b"],
        "minProperties": 2,
        "maxProperties": 3,
        "additionalProperties": False,
    },
    "at least one of two": {
        "properties": {"a": {"const": 1}, "b": {"const": 2}},
        "minProperties": 1,
        "additionalProperties": False,
    },
}
IS: dict[str, Callable[[Any], bool]] = {
    "object": lambda one: isinstance(one, dict),
    "array": lambda one: isinstance(one, list),
    "string": lambda one: isinstance(one, str),
    "number": lambda one: type(one) in (int, float),
    "integer": lambda one: type(one) is int,
    "boolean": lambda one: isinstance(one, bool),
    "null": lambda one: one is None,
}


def alike(one: Any, other: Any) -> bool:
    return json.dumps(one) == json.dumps(other)


def describes(schema: Any, value: Any, root: Any) -> bool:
    """Whether a schema describes a value, for the keywords in these tests."""
    if isinstance(schema, bool):
        return schema
    found = [True]
    if "$ref" in schema:
        place = root
        for name in schema["$ref"].split("/")[1:]:
            place = place[name]
        found.append(describes(place, value, root))
    if "anyOf" in schema:
        found.append(any(describes(one, value, root) for one in schema["anyOf"]))
    if "oneOf" in schema:
        found.append(sum(describes(one, value, root) for one in schema["oneOf"]) == 1)
    found += [describes(one, value, root) for one in schema.get("allOf", ())]
    if "type" in schema:
        types = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
        found.append(any(IS[one](value) for one in types))
    if "enum" in schema:
        found.append(any(alike(value, one) for one in schema["enum"]))
    if "const" in schema:
        found.append(alike(value, schema["const"]))
    if isinstance(value, str | list):
        name = "Length" if isinstance(value, str) else "Items"
        least, most = schema.get(f"min{name}", 0), schema.get(f"max{name}", len(value))
        found.append(least <= len(value) <= most)
    if isinstance(value, str):
        found.append(re.search(schema.get("pattern", ""), value) is not None)
    if type(value) in (int, float):
        found.append(schema.get("minimum", value) <= value <= schema.get("maximum", value))
        found.append("exclusiveMaximum" not in schema or value < schema["exclusiveMaximum"])
        found.append(value % schema.get("multipleOf", 1) == 0 or "multipleOf" not in schema)
    if isinstance(value, list):
        first = schema.get("prefixItems", [])
        found += [describes(part, one, root) for part, one in zip(first, value, strict=False)]
        found += [describes(schema.get("items", True), one, root) for one in value[len(first) :]]
        found.append("uniqueItems" not in schema or len({*value}) == len(value))
    if isinstance(value, dict):
        found.append(len(value) >= schema.get("minProperties", 0))
        found.append(len(value) <= schema.get("maxProperties", len(value)))
        found += [describes(schema.get("propertyNames", True), one, root) for one in value]
        known = schema.get("properties", {})
        found.append({*schema.get("required", [])} <= value.keys())
        for name, one in value.items():
            part = known.get(name, schema.get("additionalProperties", True))
            found.append(describes(part, one, root))
    return all(found)


@pytest.mark.parametrize(
    ("value", "is_one"),
    [
        ({"name": "Ann", "tags": [], "friend": None}, True),
        ({"name": "é€é€é€", "age": -3, "tags": ["é€", 3], "friend": None, "more": {}}, True),
        ({"name": "A", "height": None, "tags": [], "home": "none", "friend": None}, True),
        ({"name": "A", "tags": [], "home": {"at": [1, 2.5]}, "friend": None}, True),
        ({"name": "A", "tags": [], "friend": {"name": "B", "tags": [], "friend": None}}, True),
        ({"name": "A", "tags": [], "friend": None, "more": {"a": True, "b": False}}, True),
        ({"name": "", "tags": [], "friend": None}, False),
        ({"name": "abcdefg", "tags": [], "friend": None}, False),
        ({"name": "A", "age": 1.5, "tags": [], "friend": None}, False),
        ({"name": "A", "tags": ["ro"], "friend": None}, False),
        ({"name": "A", "tags": [3, 3, 3], "friend": None}, False),
        ({"name": "A", "tags": [], "home": {"at": [1]}, "friend": None}, False),
        ({"name": "A", "tags": [], "friend": {"name": "B"}}, False),
        ({"name": "A", "tags": []}, False),
        ({"name": "A", "tags": [], "friend": None, "other": 1}, False),
        ({"name": "A", "tags": [], "friend": None, "more": {"a": 1}}, False),
    ],
)
def test_values_that_a_schema_describes(value: Any, is_one: bool) -> None:
    assert describes(PERSON, value, PERSON) is is_one
    for indent in (None, 2):
        text = json.dumps(value, ensure_ascii=False, indent=indent)
        assert is_whole(after(text.encode(), PERSON)) is is_one


@pytest.mark.parametrize(
    ("name", "text", "is_one"),
    [
        ("one of several", '{"kind": "a", "x": null}', True),
        ("one of several", '{"kind": "c", "x": 1}', True),
        ("one of several", '{"kind": "c", "x": null}', False),
        ("one of several", '{"y": 2}', True),
        ("one of several", '"e"', True),
        ("one of several", "9", True),
        ("one of several", "10", False),
        ("beside its options", '{"a": 7}', True),
        ("beside its options", '{"a": 5, "b": "é"}', True),
        ("beside its options", "{}", False),
        ("all of several", '{"a": 3.5, "b": "abc"}', True),
        ("all of several", "null", True),
        ("all of several", '{"a": 2, "b": "abc"}', False),
        ("all of several", '{"a": 3, "b": ""}', False),
        ("all of several", '{"a": 3}', False),
        ("a list of two recursive schemas", '{"in": {"in": {}}}', True),
        ("a tuple", "[true, 1, null]", True),
        ("a tuple", "[false]", True),
        ("a tuple", "[]", False),
        ("a tuple", "[true, 2]", False),
        ("a tuple", "[true, 1, null, null, null]", False),
        ("a closed tuple", "[1, 2]", True),
        ("a closed tuple", "[1, 2, 3]", False),
        ("a set", '[null, "b"]', True),
        ("a set", '["b", "b"]', False),
        ("a set", "[1, 1.0]", False),
        ("a set", '["a", "b", 1, null]', False),
        ("a set of strings", '["a"]', True),
        ("a set of strings", "[1]", False),
        ("a property of any value", '{"a": null, "b": [1]}', True),
        ("a property of any value", '{"b": 1}', False),
        ("unknown formats", '"a"', True),
        ("unknown formats", "7", True),
        ("unknown formats", "[null]", True),
        ("a map", '{"b": -3}', True),
        ("a map", '{"c": 3}', False),
        ("a map", '{"a": 30}', False),
        ("a map", '{"a": 4}', False),
        ("a map", "{}", False),
        ("values within bounds", "1", False),
        ("values within bounds", "2.5", True),
        ("values within bounds", "8", False),
        ("values within bounds", '"1"', True),
        ("values within bounds", "null", True),
        ("values within bounds", '"a"', False),
        ("values within bounds", '"éé"', True),
        ("values within bounds", '"abc"', False),
        ("values within bounds", '"red"', True),
        ("values within bounds", '"dark red"', False),
        ("values within bounds", "7", True),
        ("values within bounds", "3", False),
        ("values within bounds", "9", True),
        ("values within bounds", "10", False),
        ("values within bounds", "false", True),
        ("two or three of four", '{"b": null}', False),
        ("two or three of four", '{"a": null, "c": null}', False),
        ("two or three of four", '{"b": null, "d": null}', True),
        ("two or three of four", '{"a": null, "b": null, "c": null}', True),
        ("two or three of four", '{"a": null, "b": null, "c": null, "d": null}', False),
        ("at least one of two", "{}", False),
        ("at least one of two", '{"b": 2}', True),
        ("at least one of two", '{"a": 1, "b": 2}', True),
    ],
)
def test_combined_schemas(name: str, text: str, is_one: bool) -> None:
    assert describes(SCHEMAS[name], json.loads(text), SCHEMAS[name]) is is_one
    assert is_whole(after(text.encode(), SCHEMAS[name])) is is_one


def test_schemas_that_are_merged_stay_distinct() -> None:
    """Their rules are found by their ids, which Python would reuse."""

    def within(leaf: Callable[[int], Any], depth: int = 3, n: int = 0) -> Any:
        parts = {f"{i}": within(leaf, depth - 1, 5 * n + i) for i in range(5)} if depth else {}
        return {"properties": parts} if depth else leaf(n)

    bounds = within(lambda n: {"minimum": n})
    schema = {"allOf": [within(lambda _: {"type": "integer"}), bounds]}
    for n in range(125):
        texts = [f'{{"{n // 25}": {{"{n // 5 % 5}": {{"{n % 5}": {n - m}}}}}}}' for m in (0, 1)]
        assert [is_whole(after(text.encode(), schema)) for text in texts] == [True, False], n


@pytest.mark.parametrize("name", SCHEMAS)
@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 2**32), left=st.integers(0, 60))
def test_a_text_ends_within_its_limit_and_is_valid(name: str, seed: int, left: int) -> None:
    """Tokens are sampled among the allowed ones, JSON's own characters more often."""
    schema, dice = SCHEMAS[name], random.Random(seed)
    constraint = constrained(schema)
    state, text, left = constraint.begin, b"", left + constraint.begin.fewest + 1
    while True:
        allowed = constraint.allowed(state, left).nonzero()[:, 0].tolist()
        assert allowed and left > 0
        likely = [one for one in allowed if one in ENDS or TOKENS[one] in b'{}[]":,10.e\\u']
        id = dice.choice(likely if likely and dice.random() < 0.7 else allowed)
        left -= 1
        if id in ENDS:
            break
        text += TOKENS[id]
        state = constraint.after(state, id)
    value = json.loads(text)
    assert describes(schema, value, schema), text


# Schemas of random keywords and combinations; `a` and `b` name two of them.
LEAVES: list[Any] = [
    *(True, {"type": ["string", "null"]}, {"type": "boolean"}, {"type": "number"}, {"minimum": 2}),
    *(
        {"type": "integer", "maximum": 5},
        {"multipleOf": 3},
        {"const": 3},
        {"enum": [3, "ab", True]},
    ),
    *({"type": "string", "maxLength": 3}, {"pattern": "^a", "minLength": 2}, {"$ref": "#/$defs/a"}),
    *({"type": "array", "maxItems": 2}, {"items": {"$ref": "#/$defs/b"}}, {"$ref": "#/$defs/b"}),
    {"type": "object", "properties": {"k": {"const": 1}, "v": {"$ref": "#/$defs/a"}}},
    {"type": "object", "properties": {"k": {"const": 2}}, "required": ["k"]},
    {"properties": {"k": {"type": "integer"}, "v": {}}, "additionalProperties": False},
    {"type": "object", "additionalProperties": {"$ref": "#/$defs/b"}, "maxProperties": 1},
]


def combinations(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    several = st.lists(inner, min_size=1, max_size=3)
    words = st.tuples(st.sampled_from(["anyOf", "oneOf", "allOf"]), several)
    more = st.sampled_from([one for one in LEAVES if one is not True] + [{}] * 10)
    return st.builds(lambda word, one: {word[0]: word[1], **one}, words, more) | st.builds(
        lambda value, name: {"type": "object", "properties": {name: value}, "required": [name]},
        inner,
        st.sampled_from("kv"),
    )


COMBINED = st.recursive(st.sampled_from(LEAVES), combinations, max_leaves=6)
# A reference to itself in a list or an object, as the oracle would not end without.
NAMED = st.builds(lambda one: {"type": ["array", "string"], "items": one}, COMBINED) | st.builds(
    lambda one: {"type": "object", "properties": {"v": one}}, COMBINED
)
VALUES = [None, True, 3, 4, 6, -2.5, "ab", "a", "b", "abcd", [], [3], ["ab", 4], [[]]]


@settings(deadline=None, max_examples=200)
@given(schema=st.fixed_dictionaries({"allOf": st.tuples(COMBINED)}), a=NAMED, b=NAMED)
def test_combined_schemas_describe_what_is_written(schema: Any, a: Any, b: Any) -> None:
    schema = {"allOf": [*schema["allOf"]], "$defs": {"a": a, "b": b}}
    try:
        texts = [sampled(schema, seed, 20) for seed in range(3)]
    except UserError:
        return
    for text in texts:
        assert describes(schema, json.loads(text), schema), text
    for value in VALUES:
        if is_whole(after(json.dumps(value).encode(), schema)):
            assert describes(schema, value, schema), value


def test_without_room_it_takes_the_shortest_way() -> None:
    constraint = constrained(PERSON)
    state, text = constraint.begin, b""
    while not is_whole(state):
        id = int(constraint.allowed(state, 1).nonzero()[0])
        text, state = text + TOKENS[id], constraint.after(state, id)
    value = json.loads(text)
    assert describes(PERSON, value, PERSON) and value.keys() == {"name", "tags", "friend"}


@settings(deadline=None, max_examples=100)
@given(
    texts=st.lists(st.text('ab"é€', max_size=7), max_size=6),
    most=st.none() | st.integers(0, 9),
    pattern=st.sampled_from(
        [None, "", "^a*[^b]", "é$", '^(ab|b)*[€"]?$', "^[^\\s]{2,5}$", "^(ab)*$"]
    ),
)
def test_allowed_tokens_in_a_string_are_those_that_can_be_completed(
    texts: list[str], most: int | None, pattern: str | None
) -> None:
    """Found by their lengths within strings, they equal those of a walk byte by byte."""
    items: dict[str, Any] = {"type": "string", "minLength": 2}
    items |= {} if most is None else {"maxLength": most + 2}
    items |= {} if pattern is None else {"pattern": pattern}
    schema = {"type": "array", "items": items}
    constraint = constrained(schema)
    state: State | None = constraint.begin
    for byte in json.dumps(texts, ensure_ascii=False).encode()[:-1]:
        following = None if state is None else constraint.step(state, byte)
        if following is None:
            break
        state = following
        for left in (3, 6, 100, 10**6):
            allowed = constraint.allowed(state, left)
            for id, token in enumerate(TOKENS):
                there: State | None = state if token and id != 1 else None
                for one in token:
                    there = None if there is None else constraint.step(there, one)
                fits = there is not None and there.fewest + 2 <= left
                if id in ENDS:
                    fits = None in state.stacks
                if state.fewest + 1 <= left:
                    assert bool(allowed[id]) is fits, (token, left)


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        ({"type": "string", "not": {"const": "a"}}, "#/not of the schema is not supported"),
        (
            {"properties": {"a": {"items": {"type": "integer", "minimun": 0}}}},
            "#/properties/a/items/minimun of the schema is not supported",
        ),
        ({"anyOf": [{"if": {}}]}, "#/anyOf/0/if of the schema is not supported"),
        (
            {"enum": [[1], "a"], "minItems": 0},
            "#/minItems of the schema is not supported next to enum",
        ),
        ({"const": {}, "required": []}, "#/required of the schema is not supported next to enum"),
        ({"enum": ["a"], "maxLength": -1}, "#/maxLength=-1 of the schema must be a whole number"),
        ({"type": "string", "maxItems": 2}, "#/maxItems .* is not supported next to type"),
        ({"type": "text"}, "#/type='text' of the schema must be one or more of object, array"),
        ({"type": []}, r"#/type=\[\] of the schema must be"),
        ({"properties": {"a": 1}}, "#/properties/a=1 of the schema must be an object or true"),
        ({"properties": []}, r"#/properties=\[\] of the schema must be an object of schemas"),
        ({"required": ["a"]}, "#/required='a' of the schema must be one of the names"),
        ({"required": "a"}, "#/required='a' of the schema must be a list of names"),
        ({"maxLength": -1}, "#/maxLength=-1 of the schema must be a whole number, 0 or more"),
        ({"minItems": 2, "maxItems": 1}, "#/maxItems=1 .* at least minItems, which is 2"),
        ({"enum": []}, r"#/enum=\[\] of the schema must be a list of values"),
        ({"anyOf": {}}, "#/anyOf={} of the schema must be a list of schemas"),
        ({"$ref": "#/$defs/a"}, "'#/[$]defs/a' is not a place in the schema"),
        ({"$ref": "other.json"}, "'other.json' is not a place in the schema"),
        (
            {"properties": {"a": {}}, "additionalProperties": {"type": "string"}},
            "#/additionalProperties=.* must be false or true next to properties",
        ),
        ({"pattern": 1}, "#/pattern=1 of the schema must be a string"),
        ({"pattern": "(?=a)"}, r"#/pattern='\(\?=a\)' of the schema has look-around or flags"),
        ({"pattern": "a", "format": "date"}, "#/pattern .* not supported next to format=date"),
        ({"minimum": "1"}, "#/minimum='1' of the schema must be a number"),
        ({"exclusiveMaximum": True}, "#/exclusiveMaximum=True of the schema must be a number"),
        ({"minimum": 10**15}, "# of the schema: no number of at most 15 digits is within"),
        ({"multipleOf": 0}, "#/multipleOf=0 of the schema must be more than 0"),
        ({"type": "integer", "multipleOf": 10**9 + 7}, "takes more than 10,000 states"),
        ({"oneOf": {}}, "#/oneOf={} of the schema must be a list of schemas"),
        ({"oneOf": [{"type": "number"}, {"type": "integer"}]}, "#/oneOf .* options 0 and 1 may"),
        ({"oneOf": [{"const": [1]}, {"const": [1.0]}]}, "#/oneOf .* options 0 and 1 may match"),
        ({"oneOf": [{}, {"type": "null"}]}, "#/oneOf .* options 0 and 1 may match the same"),
        ({"allOf": []}, r"#/allOf=\[\] of the schema must be a list of schemas"),
        ({"allOf": [{"pattern": "a"}, {"pattern": "b"}]}, "#/pattern .* together with another one"),
        ({"allOf": [1]}, "#/allOf/0=1 of the schema must be an object or true"),
        ({"prefixItems": {}}, "#/prefixItems={} of the schema must be a list of schemas"),
        (
            {"items": {"type": "string"}, "uniqueItems": True},
            "#/uniqueItems .* only for items of an enum",
        ),
        ({"type": "object", "minProperties": 2}, "#/minProperties=2 of the schema must be 0 or 1"),
        ({"properties": {"a": {}}, "propertyNames": {}}, "#/propertyNames .* next to properties"),
        ({"patternProperties": {"a": {}, "b": {}}}, "#/patternProperties=.* an object of one"),
        ({"enum": [float("nan")]}, "is not JSON"),
        ({"const": "\ud800"}, "is not JSON"),
    ],
)
def test_unsupported_keywords_are_rejected_with_their_place(schema: Any, why: str) -> None:
    with pytest.raises(UserError, match=why):
        Request(prompt="a", schema=schema)


def test_unsatisfiable_schemas_are_rejected() -> None:
    child = {"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]}
    for schema in (
        child,
        {"$ref": "#"},
        False,
        {"enum": [1], "type": "string"},
        {"enum": [1, 2], "minimum": 3},
        {"enum": ["a", "é"], "type": "string", "minLength": 2},
        {"properties": {"a": {}, "b": {}}, "minProperties": 3},
        {"properties": {"a": {}, "b": {}}, "required": ["a", "b"], "maxProperties": 1},
    ):
        with pytest.raises(UserError, match="no text satisfies this schema"):
            constrained(schema)


# Schemas of strangers, who would keep a server busy or fill its memory.


def nested(depth: int) -> dict[str, Any]:
    one = {
        "type": ["object", "object"],
        "properties": {} if not depth else {"a": nested(depth - 1)},
    }
    return one | {"required": [*one["properties"]]}


def test_a_grammar_has_as_many_parts_as_its_schema() -> None:
    assert len(nodes_of(json_grammar(nested(60)))) < 60 * 20
    spellings = [f"#/$defs/{'a' * n}{'%61' * (9 - n)}" for n in range(9)]
    within = ["#/$defs/aaaaaaaaa" + "/properties/a" * n for n in range(9)]
    refs = {"anyOf": [{"$ref": one} for one in spellings + within]}
    grammar = json_grammar(refs | {"$defs": {"aaaaaaaaa": nested(60)}})
    assert len(nodes_of(grammar)) < 60 * 20


def test_parts_come_before_those_that_use_them() -> None:
    """So one round computes all properties, in any order of optional names."""
    nodes = nodes_of(json_grammar({"properties": {f"a{n}": {"const": n} for n in range(50)}}))
    place = {node: i for i, node in enumerate(nodes)}
    for node in nodes:
        match node:
            case Choice(parts) | Concatenation(parts):
                assert all(place[one] < place[node] for one in parts)
            case Repeat(item):
                assert place[item] < place[node]
            case Rule(body=body):
                assert place[body] < place[node]


def test_an_ambiguous_schema_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    # Every bracket may belong to either option: after n of them, 2^n texts are possible.
    twice = {"anyOf": [{"items": {"$ref": "#"}}, {"items": {"$ref": "#"}}]}
    with pytest.raises(UserError, match="the schema leaves too much open at once"):
        after(b"[" * 30, twice)
    # A hundred in every state is not much, but it is in all states that a vocabulary leads to.
    strings = {"anyOf": [{"type": "string", "maxLength": n} for n in range(100)]}
    state = after(b'"', strings)
    assert state is not None
    monkeypatch.setattr("groundup.generation.constraint._MAX_OPENED", 5000)
    with pytest.raises(UserError, match="the schema leaves too much open at once"):
        constrained(strings).allowed(state, 50)


def test_schemas_with_too_many_parts_are_rejected() -> None:
    parts = [json_grammar({"enum": [*range(n, 10**5, 16)]}) for n in range(16)]
    with pytest.raises(UserError, match="parts in total; at most 100,000"):
        Constraint(Choice(parts), VOCABULARY)


def nested_twice(depth: int) -> dict[str, Any]:
    """Each refers to the next one twice, so that there are 2^depth paths to the last."""
    places = {f"a{n}": {"allOf": [{"$ref": f"#/$defs/a{n + 1}"}] * 2} for n in range(depth)}
    return {"$ref": "#/$defs/a0", "$defs": places | {f"a{depth}": {}}}


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        ({"pattern": "(a{1000}){1000}"}, "positions with its repeats; at most 20,000"),
        ({"pattern": "(" * 5 + "a" + "{999999999})" * 5}, "positions with its repeats"),
        ({"pattern": ".*a.{300}"}, "has, with the rest of the schema, too many states"),
        ({"pattern": "(" * 5000 + "a" + ")" * 5000}, "nested too deeply"),
        ({"pattern": "^(a|b)+$", "maxLength": 10**6}, "too many states"),
        ({"prefixItems": [{"pattern": f"^(a|b)*a(a|b){{{n}}}$"} for n in range(99)]}, "too many"),
        (nested_twice(30), "too many states"),
        ({"enum": [*range(9999)], "anyOf": [{"minimum": n} for n in range(99)]}, "too many states"),
        ({"properties": {f"{n}": {} for n in range(999)}, "minProperties": 99**9}, "too many stat"),
        # Each option is merged with the keywords next to it, without end.
        ({"type": "object", "anyOf": [{"$ref": "#"}, {"$ref": "#"}]}, "too many states"),
        ({"oneOf": [{"const": n} for n in range(1000)]}, "too many states"),
    ],
)
def test_schemas_that_take_too_many_steps_are_refused(schema: Any, why: str) -> None:
    with pytest.raises(UserError, match=why):
        json_grammar(schema)


def test_automata_of_too_many_positions_are_refused() -> None:
    parts = [json_grammar({"pattern": "^(ab)+$", "maxLength": 60_000 + n}) for n in range(4)]
    with pytest.raises(UserError, match="parts in total; at most 100,000"):
        Constraint(Choice(parts), VOCABULARY)


def test_the_fewest_tokens_are_found_in_time_in_any_order_of_the_states() -> None:
    """Each bracket leads back to the one before, so rounds through all states would be many."""
    depth = 40
    pattern = "^" + "(a" * depth + "b)*" * depth + "$"
    constraint = constrained({"pattern": pattern})
    assert constraint.begin.fewest == 2
    state = after(b'"' + b"a" * depth, {"pattern": pattern})
    assert state is not None and state.fewest == depth + 1


def test_very_large_bounds_are_ignored() -> None:
    assert is_whole(after(b'"ab"', {"type": "string", "maxLength": 10**400}))
    constraint = constrained({"type": "string", "minLength": 10**400})
    assert bool(constraint.allowed(constraint.begin, 50).any())
    assert not is_whole(after(b'"ab"', {"type": "string", "minLength": 10**400}))


def test_the_cache_of_a_grammar_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    text = json.dumps([[[1, "a"], {"b": None}]] * 4).encode()
    monkeypatch.setattr("groundup.generation.constraint._STACKS", 30)
    constraint = Constraint(json_grammar(True), VOCABULARY)
    state: State | None = constraint.begin
    for byte in text:
        assert state is not None
        state = constraint.step(state, byte)
        assert sum(len(one.stacks) for one in constraint._states.values()) <= 30
    assert is_whole(state)


def test_a_request_has_one_kind_of_constraint(tokenizer: Tokenizer, tiny_model: TinyModel) -> None:
    for more in ({"stop": ("}",)}, {"stop_ids": (3,)}, {"min_new_tokens": 2}, {"ignore_eos": True}):
        with pytest.raises(UserError, match=f"{next(iter(more))}=.* does not go with a schema"):
            Request(prompt="a", schema=ANY_OBJECT, sampling=Sampling(**more))
    with pytest.raises(UserError, match="has schema and mask; give one of them"):
        Request(prompt="a", schema=ANY_OBJECT, mask=lambda _: None)
    with pytest.raises(UserError, match="a schema constrains text and needs a tokenizer"):
        generate(tiny_model(), [Request([3], schema=ANY_OBJECT)])


# Models.


def requests(schema: Any, count: int, length: int = 120, **more: Any) -> list[Request]:
    dice = random.Random(0)
    return [
        Request(
            [dice.randrange(3, 320) for _ in range(dice.randrange(1, 9))],
            sampling=Sampling(temperature=20.0, max_new_tokens=length, seed=seed, **more),
            schema=schema,
        )
        for seed in range(count)
    ]


def test_every_answer_with_room_to_end_is_valid(
    tiny_model: TinyModel, tokenizer: Tokenizer
) -> None:
    """With a nearly random model, also with a bias towards JSON's own characters."""
    model = tiny_model(max_position_embeddings=128)
    bias = {tokenizer.encode(one)[0]: 60 for one in '{}[]":,\\ 0d8-.etruflasn'}
    asked = [
        request
        for schema in (ANY_OBJECT, PERSON, SCHEMAS["a tree"])
        for more in ({}, {"logit_bias": bias})
        for request in requests(schema, 12, 90, **more)
    ]
    told = generate(model, asked, tokenizer)
    values = [json.loads(one.text) for one in told]
    assert {one.finish_reason for one in told} == {"stop"}
    for request, value in zip(asked, values, strict=True):
        assert describes(request.schema, value, request.schema), value
    assert len({json.dumps(value) for value in values}) > 30, "the test should see many values"


def test_an_answer_without_room_is_the_beginning_of_a_value(
    tiny_model: TinyModel, tokenizer: Tokenizer
) -> None:
    told = generate(tiny_model(), requests(PERSON, 8, 10), tokenizer)
    assert {one.finish_reason for one in told} == {"length"}
    assert all(after(one.text.encode(), PERSON) for one in told)


def test_batched_equals_single(tiny_model: TinyModel, tokenizer: Tokenizer) -> None:
    model = tiny_model(max_position_embeddings=128)
    asked = requests(ANY_OBJECT, 2, length=20) + requests(PERSON, 2, length=50)
    asked += asked[:2]  # sampled again, in a batch with others of the same prompt
    told = generate(model, asked, tokenizer)
    assert [one.ids for one in told] == [
        one.ids for one in reference_generate(model, asked, tokenizer)
    ]
    assert len({tuple(one.ids) for one in told}) > 4


def test_a_model_without_an_end_token_is_rejected(
    tiny_model: TinyModel, tokenizer: Tokenizer
) -> None:
    config = tiny_model().config
    assert min(tokenizer.stop_ids) < config.vocab_size
    Vocabulary(config, tokenizer)
    tokenizer = Tokenizer(tokenizer.content, {})
    object.__setattr__(tokenizer, "stop_ids", frozenset())
    with pytest.raises(UserError, match="no end token"):
        Vocabulary(tiny_model(eos_token_ids=()).config, tokenizer)
