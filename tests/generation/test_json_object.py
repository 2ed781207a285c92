"""What is written under the mask of a JSON object, `json.loads` reads."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.conftest import TinyModel

from groundup.errors import UserError
from groundup.generation.generate import generate, reference_generate
from groundup.generation.json_object import BEGIN, END, JSONObject, State, read
from groundup.generation.request import Request
from groundup.generation.sampling import Sampling
from groundup.text.tokenizer import Tokenizer

# Without what is wider than the mask: whole numbers of 16 digits, exponents of three, 65 brackets,
# and escaped halves of characters.
ANY = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**15) + 1, 10**15 - 1)
    | st.floats(-1e9, 1e9).map(lambda x: round(x, 4))
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=12,
)


def after(text: bytes) -> State | None:
    state: State | None = BEGIN
    for byte in text:
        state = None if state is None else read(state, byte)
    return state


@settings(deadline=None, max_examples=150)
@given(value=st.dictionaries(st.text(), ANY), indent=st.sampled_from([None, 0, 2, "\t"]))
def test_every_object_is_read_to_its_end(value: dict[str, Any], indent: int | str | None) -> None:
    for separators in (None, (",", ":"), (" , ", "\r\n:")):
        text = json.dumps(value, ensure_ascii=False, indent=indent, separators=separators)
        assert after(text.encode()) == END, text


@pytest.mark.parametrize(
    ("begun", "again"),
    [
        *(("", " "), ("{", "\n"), ('{"a"', " "), ('{"a":', "\t"), ('{"a":[', " "), ('{"a":1', " ")),
        *(('{"a":1,', " "), ('{"a":1.', "3"), ('{"a":', "1")),
    ],
)
def test_neither_blanks_nor_digits_go_on_for_ever(begun: str, again: str) -> None:
    read_of_it = [after(f"{begun}{again * count}".encode()) is not None for count in range(100)]
    assert 10 < sum(read_of_it) < 50 and read_of_it == sorted(read_of_it, reverse=True)


def narrow(number: str) -> float:
    if re.fullmatch(r"-?\d{1,15}(\.\d+)?([eE][+-]?\d{1,2})?", number) is None:
        raise ValueError(f"{number} is wider than the mask")
    return float(number)


@settings(deadline=None, max_examples=400)
@given(value=st.dictionaries(st.text('ab\\"/é\n'), ANY), data=st.data())
def test_an_object_with_a_fault_is_read_as_python_reads_it(
    value: dict[str, Any], data: st.DataObject
) -> None:
    text = bytearray(json.dumps(value, ensure_ascii=False).encode())
    place = data.draw(st.integers(0, len(text) - 1))
    put = data.draw(
        st.sampled_from([b"", *(bytes([one]) for one in b'{}[]":,0127-.eE \\nutx\n\x00')])
    )
    text[place : place + data.draw(st.integers(0, 2))] = put
    try:
        found = json.loads(text.decode(errors="replace"), parse_int=narrow, parse_float=narrow)
    except ValueError:
        found = None
    assert (after(text.strip()) == END) == isinstance(found, dict), bytes(text)


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
def test_what_is_an_object(text: str, is_one: bool) -> None:
    assert (after(text.encode()) == END) is is_one


def requests(mask: Any, count: int, length: int = 120) -> list[Request]:
    dice = random.Random(0)
    return [
        Request(
            [dice.randrange(3, 320) for _ in range(dice.randrange(1, 9))],
            sampling=Sampling(temperature=20.0, max_new_tokens=length, seed=seed),
            mask=mask,
        )
        for seed in range(count)
    ]


def test_every_answer_that_ends_is_an_object(tiny_model: TinyModel, tokenizer: Tokenizer) -> None:
    """Of a model as good as random, which draws the tokens of JSON's own letters more often."""
    model = tiny_model(max_position_embeddings=128)
    whole = JSONObject(model.config, tokenizer)
    few = torch.zeros(320, dtype=torch.bool)
    few[
        [*tokenizer.stop_ids, *(tokenizer.encode(one)[0] for one in '{}[]":,\\ 0d8-.etruflasn')]
    ] = True

    def mask(ids: Sequence[int]) -> torch.Tensor:
        return whole(ids) & few

    told = generate(model, [*requests(mask, 150), *requests(whole, 50)], tokenizer)
    ended = [one for one in told if one.finish_reason == "stop"]
    values = [json.loads(one.text) for one in ended]
    assert all(isinstance(value, dict) for value in values)
    assert len([value for value in values if value]) > 20, (
        "the test should see objects of something"
    )
    for one in told:
        if one.finish_reason == "length":
            assert after(one.text.rstrip("\ufffd").encode()) not in (None, END)


def test_in_company_as_alone_with_one_mask_for_all(
    tiny_model: TinyModel, tokenizer: Tokenizer
) -> None:
    model = tiny_model(max_position_embeddings=128)
    asked = requests(JSONObject(model.config, tokenizer), 4, length=20)
    asked += asked[:2]  # drawn anew, beside the others of the same prompt
    told = generate(model, asked, tokenizer)
    assert [one.ids for one in told] == [
        one.ids for one in reference_generate(model, asked, tokenizer)
    ]
    assert len({tuple(one.ids) for one in told}) > 4


def test_a_model_without_an_end_is_refused(tiny_model: TinyModel, tokenizer: Tokenizer) -> None:
    config = tiny_model().config
    assert min(tokenizer.stop_ids) < config.vocab_size
    JSONObject(config, tokenizer)
    tokenizer = Tokenizer(tokenizer.content, {})
    object.__setattr__(tokenizer, "stop_ids", frozenset())
    with pytest.raises(UserError, match="no token that ends its answers"):
        JSONObject(tiny_model(eos_token_ids=()).config, tokenizer)
