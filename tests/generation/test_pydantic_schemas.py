"""Texts under the schemas of pydantic's models are valid for these models.

Pydantic is the oracle: its validation does not use the schemas that it emits.
"""

from __future__ import annotations

import datetime
import enum
import ipaddress
import json
import uuid
from typing import Annotated, Any, Literal, Optional

import pytest
from pydantic import (
    UUID4,
    AnyUrl,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    HttpUrl,
    IPvAnyAddress,
    Json,
    NonNegativeFloat,
    PositiveInt,
    StringConstraints,
    TypeAdapter,
)
from tests.conftest import TinyModel
from tests.generation.test_json_schema import TOKENIZER, after, is_whole, sampled

from groundup.generation.generate import generate
from groundup.generation.request import Request
from groundup.generation.sampling import Sampling


class Color(enum.StrEnum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Event(BaseModel):
    model_config = ConfigDict(extra="forbid")
    day: datetime.date
    at: datetime.datetime
    starts: datetime.time
    lasts: datetime.timedelta
    seen: AwareDatetime | None = None


class Account(BaseModel):
    id: uuid.UUID
    key: UUID4
    email: Annotated[str, Field(json_schema_extra={"format": "email"}, pattern=None)]
    name: Annotated[
        str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*$", min_length=3, max_length=8)
    ]
    code: Annotated[str, StringConstraints(pattern=r"^[A-Z]{3}-\d{4}$")]
    word: Annotated[str, StringConstraints(pattern=r"ab+")]


class Machine(BaseModel):
    v4: ipaddress.IPv4Address
    v6: ipaddress.IPv6Address
    any: IPvAnyAddress
    home: AnyUrl | None
    other: AnyUrl


class Rating(BaseModel):
    stars: int = Field(ge=0, le=10)
    share: float = Field(gt=0, lt=1)
    fives: int = Field(multiple_of=5)
    below: int = Field(lt=-3)
    year: int = Field(ge=1987, le=2041)
    price: float = Field(ge=0, multiple_of=0.01)
    count: PositiveInt
    weight: NonNegativeFloat
    heat: float = Field(ge=-273.15, le=1e3, allow_inf_nan=False)


class Cat(BaseModel):
    kind: Literal["cat"] = "cat"
    lives: int = Field(ge=0, le=9)


class Dog(BaseModel):
    kind: Literal["dog", "hound"] = "dog"
    good: bool


class Home(BaseModel):
    pet: Annotated[Cat | Dog, Field(discriminator="kind")]
    pets: list[Annotated[Cat | Dog, Field(discriminator="kind")]] = Field(max_length=2)
    either: Cat | Dog | None = None


class Basket(BaseModel):
    pair: tuple[int, str]
    some: Annotated[list[int], Field(min_length=1, max_length=3)]
    colors: set[Color]
    levels: dict[str, int]
    by_color: dict[Color, bool]
    by_name: dict[Annotated[str, StringConstraints(pattern="^[ab]+$")], int]
    few: Annotated[dict[str, bool], Field(min_length=1, max_length=2)]
    mixed: int | str
    literal: Literal["a", 1, None]
    level: Level = Field(Level.LOW, description="how high", examples=[2])
    color: Color = Field(Color.RED, deprecated=True)
    maybe: Optional[float] = None  # noqa: UP045, as it is often written


class Tree(BaseModel):
    value: int = Field(ge=0, lt=100)
    children: list[Tree] = Field(default=[], max_length=2)


class Old(BaseModel):
    """With a schema as pydantic 1 wrote it: references are in allOf."""

    color: Color
    small: int = Field(ge=3, le=12)

    @classmethod
    def model_json_schema(cls, *_: Any, **__: Any) -> dict[str, Any]:
        return {
            "title": "Old",
            "type": "object",
            "properties": {
                "color": {
                    "title": "C",
                    "default": "red",
                    "allOf": [{"$ref": "#/definitions/Color"}],
                },
                "small": {
                    "allOf": [{"type": "number"}, {"minimum": 3}],
                    "type": "integer",
                    "maximum": 12,
                },
            },
            "required": ["color", "small"],
            "definitions": {"Color": {"title": "Color", "enum": ["red", "blue"], "type": "string"}},
        }


MODELS: dict[type[BaseModel], list[str]] = {
    Event: [
        '{"day": "2024-02-29", "at": "2026-12-31T23:59:59Z", "starts": "08:00:00+01:00",'
        ' "lasts": "P3DT4H"}',
        '{"day": "0001-01-01", "at": "1999-01-01T00:00:00.25-05:30", "starts": "23:59:59.999999Z",'
        ' "lasts": "PT0S", "seen": null}',
    ],
    Account: [
        '{"id": "123e4567-e89b-12d3-a456-426614174000", "key":'
        ' "f47ac10b-58cc-4372-a567-0e02b2c3d479", "email": "a.b+c@sub.example.org",'
        ' "name": "a_1", "code": "ABC-0123", "word": "xx\\"é abbb"}'
    ],
    Machine: [
        '{"v4": "192.168.0.1", "v6": "2001:db8::1", "any": "::ffff:1.2.3.4", "home":'
        ' "https://example.org:8080/a/b?c=d&e=%20#f", "other": "ftp://1.2.3.4/"}',
        '{"v4": "0.0.0.0", "v6": "::", "any": "255.255.255.255", "home": null,'
        ' "other": "mailto:a@b.c"}',
    ],
    Rating: [
        '{"stars": 10, "share": 0.5, "fives": -15, "below": -4, "year": 1999, "price": 12.34,'
        ' "count": 1, "weight": 0, "heat": -273.15}',
        '{"stars": 0, "share": 0.001, "fives": 0, "below": -1000, "year": 2041, "price": 0,'
        ' "count": 999999999999999, "weight": 70.25, "heat": 1000.0}',
    ],
    Home: [
        '{"pet": {"kind": "cat", "lives": 9}, "pets": []}',
        '{"pet": {"kind": "hound", "good": true}, "pets": [{"kind": "cat", "lives": 0},'
        ' {"kind": "dog", "good": false}], "either": {"lives": 3}}',
    ],
    Basket: [
        '{"pair": [1, "a"], "some": [1, 2, 3], "colors": ["blue", "red"], "levels": {"é": 1},'
        ' "by_color": {"red": true}, "by_name": {"ab": 1}, "few": {"x": true}, "mixed": "a",'
        ' "literal": null, "level": 2, "color": "blue", "maybe": null}',
        '{"pair": [-1, ""], "some": [0], "colors": [], "levels": {}, "by_color": {},'
        ' "by_name": {}, "few": {"x": true, "y": false}, "mixed": 3, "literal": 1}',
    ],
    Tree: [
        '{"value": 0, "children": [{"value": 99}, {"value": 1, "children": [{"value": 2}]}]}',
    ],
    Old: ['{"color": "blue", "small": 12}'],
}


@pytest.mark.parametrize("model", MODELS)
def test_valid_texts_are_accepted(model: type[BaseModel]) -> None:
    for text in MODELS[model]:
        model.model_validate_json(text)
        assert is_whole(after(text.encode(), model.model_json_schema())), text
        # Without blanks.
        dense = json.dumps(json.loads(text), ensure_ascii=False, separators=(",", ":"))
        assert is_whole(after(dense.encode(), model.model_json_schema())), dense


@pytest.mark.parametrize("model", MODELS)
def test_sampled_texts_are_valid(model: type[BaseModel]) -> None:
    texts = [sampled(model.model_json_schema(), seed) for seed in range(25)]
    for text in texts:
        model.model_validate_json(text)
    assert len({*texts}) > 5, "the test should see many values"


WRONG: dict[type[BaseModel], dict[str, list[str]]] = {
    Event: {
        "day": ['"2023-02-29"', '"2024-13-01"', '"1900-02-29"', '"24-01-01"', '"2024-04-31"', "5"],
        "at": ['"2024-02-30T00:00:00Z"', '"2024-02-03T24:00:00Z"', '"2024-02-03T1:00Z"'],
        "starts": ['"8:00:00Z"', '"08:60:00Z"'],
        "lasts": ['"P"', '"PT"', '"P1H"'],
    },
    Account: {
        "id": ['"123e4567e89b12d3a456"', '"123e4567-e89b-12d3-a456-42661417400g"'],
        "key": ['"f47ac10b-58cc-1372-a567-0e02b2c3d479"', '"f47ac10b-58cc-4372-c567-0e02b2c3d479"'],
        "name": ['"ab"', '"abcdefghi"', '"_abc"', '"aBc"', '"abc "'],
        "code": ['"ABC-012"', '"abc-0123"', '" ABC-0123"', '"ABC-0123\\n"'],
        "word": ['"xyz"', '""'],
    },
    Machine: {
        "v4": ['"256.0.0.1"', '"1.2.3"', '"01.2.3.4"'],
        "v6": ['"1::2::3"', '"12345::"', '"1:2:3:4:5:6:7"', '":1"'],
        "home": ['"example.org"', '"http://"', '"http://a b"'],
    },
    Rating: {
        "stars": ["11", "-1", "1.5", "100"],
        "share": ["0", "1", "0.0", "1.0", "-0.5"],
        "fives": ["3", "12"],
        "below": ["-3", "0", "5"],
        "year": ["1986", "2042", "199", "19990"],
        "count": ["0", "-1"],
        "weight": ["-0.1", "-1"],
        "heat": ["-273.16", "1000.1", "-1000", "NaN"],
    },
    Home: {
        "pet": ['{"kind": "cow", "lives": 1}', '{"lives": 1}', '{"kind": "cat", "good": true}'],
        "pets": ['[{"kind": "cat", "lives": 10}]', "[{}]"],
    },
    Basket: {
        "pair": ["[1]", '[1, "a", 2]', '["a", "a"]', "[]"],
        "some": ["[]", "[1, 2, 3, 4]"],
        "colors": ['["green"]'],
        "levels": ['{"a": "b"}'],
        "by_color": ['{"green": true}'],
        "by_name": ['{"abc": 1}', '{"": 1}'],
        "few": ["{}", '{"a": true, "b": true, "c": true}'],
        "literal": ["2", '"b"', "false"],
        "level": ["3"],
    },
    Tree: {"value": ["100", "-1"], "children": ['[{"value": 100}]', "[{}]"]},
    Old: {"color": ['"green"'], "small": ["2", "13"]},
}


@pytest.mark.parametrize("model", MODELS)
def test_invalid_texts_are_not_accepted(model: type[BaseModel]) -> None:
    """One field at a time is invalid."""
    good = json.loads(MODELS[model][0])
    for name, texts in WRONG[model].items():
        for text in texts:
            fields = {field: json.dumps(value) for field, value in good.items()} | {name: text}
            whole = "{" + ", ".join(f'"{one}": {value}' for one, value in fields.items()) + "}"
            with pytest.raises(ValueError, match=r"."):
                model.model_validate_json(whole)
            assert not is_whole(after(whole.encode(), model.model_json_schema())), whole


def test_a_url_has_a_maximum_length_and_any_scheme() -> None:
    """The schema of HttpUrl states the length, but not the scheme."""
    schema = TypeAdapter(HttpUrl).json_schema()
    longest = "https://a.example/" + "b" * (2083 - 18)
    assert is_whole(after(f'"{longest}"'.encode(), schema))
    assert not is_whole(after(f'"{longest}b"'.encode(), schema))


@pytest.mark.parametrize(
    ("format", "good", "bad"),
    [
        (
            "hostname",
            ["a", "a-b.c", ".".join(["a" * 30] * 6)],
            ["a" * 64, ".".join(["a" * 60] * 5)],
        ),
        ("hostname", ["xn--a.org"], ["-a", "a-", "a..b", "1.2.3.4", ".a", ""]),
        (
            "email",
            ["a.b@c.de", "a" * 32 + "@" + "b." * 5 + "c"],
            ["a" * 65 + "@b.c", "a@b", "a..b@c.d"],
        ),
        (
            "email",
            [],
            [".a@b.c", "a.@b.c", "a@" + "b" * 64 + ".c", "a@" + ("b" * 60 + ".") * 5 + "c"],
        ),
    ],
)
def test_names_of_hosts_keep_to_the_limits_of_their_standards(
    format: str, good: list[str], bad: list[str]
) -> None:
    schema = {"type": "string", "format": format}
    assert [is_whole(after(f'"{text}"'.encode(), schema)) for text in good] == [True] * len(good)
    assert [is_whole(after(f'"{text}"'.encode(), schema)) for text in bad] == [False] * len(bad)


def test_unknown_formats_are_annotations() -> None:
    kinds: list[Any] = [Json[int], bytes, Annotated[str, Field(json_schema_extra={"x-a": 1})]]
    for kind in kinds:
        assert is_whole(after('"é 1"'.encode(), TypeAdapter(kind).json_schema()))


def test_answers_of_a_random_model_are_valid(tiny_model: TinyModel) -> None:
    model = tiny_model(max_position_embeddings=512)
    asked = [
        Request(
            [3 + seed],
            sampling=Sampling(temperature=20.0, max_new_tokens=400, seed=seed),
            schema=kind.model_json_schema(),
        )
        for kind in (Event, Rating, Home)
        for seed in range(3)
    ]
    told = generate(model, asked, TOKENIZER)
    assert {one.finish_reason for one in told} == {"stop"}
    for kind, one in zip(
        [kind for kind in (Event, Rating, Home) for _ in range(3)], told, strict=True
    ):
        kind.model_validate_json(one.text)
