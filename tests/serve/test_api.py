"""The server through OpenAI's client: its answers equal those of `generate`."""

from __future__ import annotations

import json
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import date
from typing import Annotated, Any, Literal

import httpx
import openai
import pytest
import torch
from pydantic import BaseModel, Field, StringConstraints
from tests.conftest import TinyModel
from tests.generation.test_guarded import Words
from tests.serve.conftest import GREEDY, Running, Serve, connected, serving

from groundup.adapters.attach import add_lora, use_adapter
from groundup.generation.generate import generate
from groundup.generation.guarded import SENTENCE
from groundup.generation.request import Request
from groundup.generation.sampling import Sampling
from groundup.lm.logprobs import score
from groundup.serve.worker import Served
from groundup.text.example import Example
from groundup.text.tokenizer import Tokenizer

ASKED = [{"role": "user", "content": "the sea"}]
HOT = {"temperature": 1.5, "max_tokens": 12}


def drawn(served: Served, sampling: Sampling, count: int = 1, top_logprobs: int = 0) -> Any:
    one = Request(messages=ASKED, sampling=sampling, top_logprobs=top_logprobs)
    return generate(served.model, [one] * count, served.tokenizer)


def say(running: Running, messages: Any = ASKED, **settings: Any) -> Any:
    return running.client.chat.completions.create(
        model=settings.pop("model", "tiny"), messages=messages, **settings
    )


def tokens_of(told: Any) -> list[str]:
    return [token for one in told for token in one.tokens]


def go_on(running: Running, prompt: Any, **settings: Any) -> Any:
    return running.client.completions.create(model="tiny", prompt=prompt, **settings)


# Answers.


def test_models_are_listed_and_found_by_name(serve: Serve, tiny: Served) -> None:
    running = serve(tiny, replace(tiny, name="runs/other"))
    listed = running.client.models.list().data
    assert [one.id for one in listed] == ["tiny", "runs/other"]
    assert running.client.models.retrieve("runs/other").id == "runs/other"
    assert listed[0].model_dump()["max_model_len"] == 64
    with pytest.raises(openai.NotFoundError, match=r"did you mean 'tiny'\? Served are tiny"):
        running.client.models.retrieve("tin")


def test_an_answer_equals_that_of_generate(serve: Serve, tiny: Served) -> None:
    running = serve(tiny)
    found = say(running, max_tokens=12)
    expected = drawn(tiny, replace(GREEDY, max_new_tokens=12))[0]
    assert found.choices[0].message.content == expected.text != ""
    assert found.choices[0].message.role == "assistant"
    assert found.choices[0].finish_reason == "length"
    assert found.usage.completion_tokens == 12
    assert found.usage.total_tokens == found.usage.prompt_tokens + 12
    # A single model needs no name, and an answer continues to the end of the context.
    whole = httpx.post(f"{running.address}/v1/chat/completions", json={"messages": ASKED}).json()
    assert whole["usage"]["total_tokens"] == 64 and whole["model"] == "tiny"


@pytest.mark.parametrize("settings", [{}, {"logprobs": True, "top_logprobs": 2}])
def test_a_joined_stream_is_the_whole_answer(
    serve: Serve, tiny: Served, settings: dict[str, Any]
) -> None:
    running = serve(tiny)
    asked = {**HOT, "seed": 7, "n": 2, **settings}
    whole = say(running, **asked)
    parts = list(say(running, stream=True, stream_options={"include_usage": True}, **asked))
    assert parts[-1].choices == [] and parts[-1].usage == whole.usage
    assert len({part.id for part in parts}) == 1
    for choice in whole.choices:
        own = [p.choices[0] for p in parts[:-1] if p.choices[0].index == choice.index]
        assert own[0].delta.role == "assistant"
        assert "".join(p.delta.content or "" for p in own) == choice.message.content
        assert [p.finish_reason for p in own if p.finish_reason] == [choice.finish_reason]
        if settings:
            told = [one for p in own if p.logprobs for one in p.logprobs.content]
            assert [one.token for one in told] == [one.token for one in choice.logprobs.content]
    texts = [choice.message.content for choice in whole.choices]
    assert texts[0] != texts[1]


def test_a_seed_reproduces_an_answer(serve: Serve, tiny: Served) -> None:
    running = serve(tiny)
    expected = drawn(tiny, Sampling(temperature=1.5, max_new_tokens=12, seed=3), 2)
    for _ in range(2):
        found = say(running, **HOT, seed=3, n=2)
        assert [one.message.content for one in found.choices] == [one.text for one in expected]
    fresh = {say(running, **HOT).choices[0].message.content for _ in range(4)}
    assert len(fresh) == 4


def test_log_probabilities_are_those_of_sampling(serve: Serve, tiny: Served) -> None:
    sampling = replace(GREEDY, max_new_tokens=5)
    expected = drawn(tiny, sampling, top_logprobs=3)[0]
    found = say(serve(tiny), max_tokens=5, logprobs=True, top_logprobs=3)
    told = found.choices[0].logprobs.content
    assert [one.logprob for one in told] == pytest.approx(expected.logprobs, abs=1e-5)
    assert b"".join(bytes(one.bytes) for one in told).decode(errors="replace") == expected.text
    for one, best in zip(told, expected.top_logprobs, strict=True):
        assert [other.logprob for other in one.top_logprobs] == pytest.approx([*best.values()])
        assert one.top_logprobs[0].token == one.token


def test_penalties_equal_those_of_generate(serve: Serve, tiny: Served) -> None:
    running = serve(tiny)
    ways: list[dict[str, float]] = [
        {},
        {"presence_penalty": 1.5},
        {"frequency_penalty": -2},
        {"presence_penalty": -2, "frequency_penalty": 0.7},
    ]
    expected = [drawn(tiny, replace(GREEDY, max_new_tokens=20, **way))[0].text for way in ways]  # type: ignore[arg-type]
    found = [say(running, max_tokens=20, **way).choices[0].message.content for way in ways]
    assert found == expected and len({*found}) == len(ways)
    # Where a request does not say, the model's own settings count.
    own = replace(tiny, sampling=replace(GREEDY, presence_penalty=1.5))
    assert say(serve(own), max_tokens=20).choices[0].message.content == expected[1]
    assert say(serve(own), max_tokens=20, presence_penalty=0).choices[0].message.content == found[0]


SHIP = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 4}, "sails": {"enum": [1, 2]}},
    "required": ["name", "sails"],
    "additionalProperties": False,
}


@pytest.mark.parametrize("is_any", [True, False])
def test_an_answer_is_json_of_the_requested_schema(
    serve: Serve, tiny_model: TinyModel, tokenizer: Tokenizer, is_any: bool
) -> None:
    running = serve(Served("tiny", tiny_model(max_position_embeddings=128), tokenizer, GREEDY))
    settings: dict[str, Any] = {"temperature": 100, "max_tokens": 60, "seed": 1}
    described = {"name": "ship", "strict": True, "schema": SHIP}
    settings["response_format"] = (
        {"type": "json_object"} if is_any else {"type": "json_schema", "json_schema": described}
    )
    choices = say(running, n=12, **settings).choices
    assert {one.finish_reason for one in choices} == {"stop"}
    values = [json.loads(one.message.content) for one in choices]
    for value in values:
        assert isinstance(value, dict)
        assert is_any or (len(value["name"]) <= 4 and value["sails"] in (1, 2) and len(value) == 2)
    assert is_any or len({value["name"] for value in values}) > 3
    streamed = [
        part.choices[0].delta.content or "" for part in say(running, stream=True, **settings)
    ]
    assert "".join(streamed) == choices[0].message.content
    # Three tokens are enough for {} and the model's end, and for no ship.
    short = say(running, **settings | {"max_tokens": 3}).choices[0]
    assert short.finish_reason == ("stop" if is_any else "length")


class Sail(BaseModel):
    kind: Literal["sail"] = "sail"
    area: float = Field(gt=0, le=99.5)


class Oar(BaseModel):
    kind: Literal["oar"] = "oar"
    count: int = Field(ge=2, le=40, multiple_of=2)


class Ship(BaseModel):
    launched: date
    code: Annotated[str, StringConstraints(pattern=r"^[A-Z]{2}-\d{3}$")]
    moved_by: list[Annotated[Sail | Oar, Field(discriminator="kind")]] = Field(min_length=1)


def test_the_client_parses_answers_as_a_pydantic_model(
    serve: Serve, tiny_model: TinyModel, tokenizer: Tokenizer
) -> None:
    """The client sends the model's schema and validates the answer."""
    running = serve(Served("tiny", tiny_model(max_position_embeddings=512), tokenizer, GREEDY))
    ways: dict[str, Any] = {"temperature": 100, "max_tokens": 150}
    told = [
        running.client.chat.completions.parse(
            model="tiny", messages=ASKED, response_format=Ship, seed=seed, **ways
        )
        for seed in range(3)
    ]
    assert len({str(one.choices[0].message.parsed) for one in told}) == 3
    assert all(isinstance(one.choices[0].message.parsed, Ship) for one in told)


def test_biases_equal_those_of_generate(serve: Serve, tiny: Served) -> None:
    running = serve(tiny)
    plain = drawn(tiny, replace(GREEDY, max_new_tokens=8))[0]
    other = next(id for id in range(3, 300) if id not in plain.ids)
    ways: list[dict[str, float]] = [{str(plain.ids[0]): -100}, {str(other): 100}]
    expected = [drawn(tiny, replace(GREEDY, max_new_tokens=8, logit_bias=way))[0] for way in ways]
    assert plain.ids[0] not in expected[0].ids and {*expected[1].ids} == {other}
    for way, one in zip(ways, expected, strict=True):
        found = say(running, max_tokens=8, logit_bias=way).choices[0].message.content
        streamed = say(running, max_tokens=8, logit_bias=way, stream=True)
        assert found == one.text
        assert "".join(part.choices[0].delta.content or "" for part in streamed) == one.text
        assert go_on(running, "a", max_tokens=4, logit_bias=way).choices[0].text


def test_texts_and_token_ids_are_continued(serve: Serve, tiny: Served) -> None:
    running, texts = serve(tiny), ["The sea", "over the ship"]
    requests = [Request(prompt=one, sampling=replace(GREEDY, max_new_tokens=16)) for one in texts]
    expected = [one.text for one in generate(tiny.model, requests, tiny.tokenizer)]
    assert [one.text for one in go_on(running, texts).choices] == expected
    assert go_on(running, "The sea").choices[0].text == expected[0]
    ids = [[0, *tiny.tokenizer.encode(one)] for one in texts]
    assert [one.text for one in go_on(running, ids).choices] == expected
    assert go_on(running, ids[1]).choices[0].text == expected[1]
    assert go_on(running, texts[0], echo=True).choices[0].text == texts[0] + expected[0]
    streamed = go_on(running, texts, echo=True, stream=True)
    joined = ["", ""]
    for part in streamed:
        joined[part.choices[0].index] += part.choices[0].text
    assert joined == [text + more for text, more in zip(texts, expected, strict=True)]


@pytest.mark.parametrize("stream", [False, True])
def test_an_echo_has_the_prompts_log_probabilities(
    serve: Serve, tiny: Served, stream: bool
) -> None:
    """As requested by harnesses that measure a model through its server."""
    prompt = "the ship sails over the sea"
    ids = [0, *tiny.tokenizer.encode(prompt)]
    [expected] = score(tiny.model, [Example(ids, [True] * len(ids))], context=64)
    asked = {"echo": True, "logprobs": 2, "max_tokens": 1, "stream": stream}
    found = go_on(serve(tiny), prompt, **asked)
    choices = [part.choices[0] for part in found] if stream else found.choices
    told = [one.logprobs for one in choices if one.logprobs is not None]
    values = [value for one in told for value in one.token_logprobs]
    assert values[0] is None and len(values) == len(ids) + 1
    assert values[1:-1] == pytest.approx(expected.tolist(), abs=1e-5)
    tops = [top for one in told for top in one.top_logprobs]
    assert tops[0] is None and all(2 <= len(top) <= 3 for top in tops[1:])
    for top, name, value in zip(tops[1:], tokens_of(told)[1:], values[1:], strict=True):
        assert top[name] == value
    text = "".join(one.text for one in choices)
    tokens = tokens_of(told)[:-1]
    places = [place for one in told for place in one.text_offset][:-1]
    assert tokens[0] == "<|endoftext|>" and "".join(tokens[1:]) == prompt
    for token, place in zip(tokens[1:], places[1:], strict=True):
        assert text[place:].startswith(token)


def test_a_long_prompt_is_scored_in_chunks(
    serve: Serve, tiny_model: TinyModel, tokenizer: Tokenizer
) -> None:
    long = Served("tiny", tiny_model(max_position_embeddings=2048), tokenizer, GREEDY)
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(3, 300, (1200,), generator=generator).tolist()
    [expected] = score(long.model, [Example(ids, [True] * len(ids))], context=2048)
    found = go_on(serve(long), ids, echo=True, logprobs=1, max_tokens=0, n=2)
    for choice in found.choices:
        values = choice.logprobs.token_logprobs
        assert values[0] is None and values[1:] == pytest.approx(expected.tolist(), abs=1e-4)
        assert choice.finish_reason == "length"
    assert found.usage.completion_tokens == 0 and found.usage.prompt_tokens == 1200


def test_a_text_begins_as_in_training_by_default(serve: Serve, tiny: Served) -> None:
    running, count = serve(tiny), len(tiny.tokenizer.encode("the sea"))
    for settings, expected in ({}, count + 1), ({"add_special_tokens": False}, count):
        found = go_on(running, "the sea", max_tokens=2, extra_body=settings)
        assert found.usage.prompt_tokens == expected


def test_stop_strings_end_an_answer_before_them(serve: Serve, tiny: Served) -> None:
    running = serve(tiny)
    whole = say(running, max_tokens=12).choices[0].message.content
    cut = whole[4:6]
    found = say(running, max_tokens=12, stop=cut).choices[0]
    assert found.message.content == whole[: whole.index(cut)] and found.finish_reason == "stop"


def test_an_empty_message_is_accepted(serve: Serve, tiny: Served) -> None:
    """From a model that ends at once, whose answer the client sends back."""
    said = [*ASKED, {"role": "assistant", "content": ""}, {"role": "user", "content": ""}]
    found = say(serve(tiny), said, max_tokens=4)
    request = Request(messages=said, sampling=replace(GREEDY, max_new_tokens=4))
    expected = generate(tiny.model, [request], tiny.tokenizer)
    assert found.choices[0].message.content == expected[0].text


# Many clients.


def test_concurrent_clients_get_the_same_answers_as_single_ones(serve: Serve, tiny: Served) -> None:
    other = replace(tiny, name="other")
    running = serve(tiny, other)
    seeds = range(12)
    with ThreadPoolExecutor(12) as pool:
        found = list(
            pool.map(
                lambda seed: (
                    say(running, **HOT, seed=seed, model=("tiny", "other")[seed % 2])
                    .choices[0]
                    .message.content
                ),
                seeds,
            )
        )
    sampled = Sampling(temperature=1.5, max_new_tokens=12)
    assert found == [drawn(tiny, replace(sampled, seed=seed))[0].text for seed in seeds]
    assert running.wait_until_idle()


@pytest.mark.parametrize("stream", [False, True])
def test_a_disconnected_clients_generation_stops(
    serve: Serve, tiny_model: TinyModel, tokenizer: Tokenizer, stream: bool
) -> None:
    long = Served("long", tiny_model(max_position_embeddings=65_536), tokenizer, GREEDY)
    running = serve(long)
    body = json.dumps({"messages": ASKED, "max_tokens": 60_000, "stream": stream})
    with connected(running) as connection:
        head = (
            f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}"
        )
        connection.sendall(f"{head}\r\n\r\n{body}".encode())
        if stream:
            assert connection.recv(1000).startswith(b"HTTP/1.1 200")
        else:
            while not running.unfinished():
                pass
        assert running.unfinished() == 1
    assert running.wait_until_idle()


def test_too_many_waiting_requests_are_rejected_temporarily(
    serve: Serve, tiny_model: TinyModel, tokenizer: Tokenizer
) -> None:
    long = Served("tiny", tiny_model(max_position_embeddings=65_536), tokenizer, GREEDY)
    running = serve(long, batch_size=1, waiting=1)
    with say(running, max_tokens=60_000, stream=True) as first:
        next(iter(first))
        with pytest.raises(openai.RateLimitError, match="too many completions are waiting"):
            say(running, n=2)
        with pytest.raises(openai.RateLimitError):
            say(running, n=2, stream=True)
    assert running.wait_until_idle()
    assert say(running, max_tokens=2).usage.completion_tokens == 2


def test_a_request_that_can_never_fit_is_rejected(serve: Serve, tiny: Served) -> None:
    running = serve(tiny, batch_size=2, waiting=2)
    with pytest.raises(openai.BadRequestError, match=r"5 completions .* takes 4 together"):
        say(running, n=5)
    with pytest.raises(openai.BadRequestError, match="20,000 completions"):
        go_on(running, ["a"] * 200, n=100)
    assert say(running, n=4, max_tokens=2).usage.completion_tokens == 8


def test_a_failed_engine_is_replaced(
    serve: Serve, tiny: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    running = serve(tiny)

    def no_memory(*_: object, **__: object) -> torch.Tensor:
        raise MemoryError("no memory left")

    embed = tiny.model.model.embed_tokens
    vars(embed)["forward"] = no_memory
    try:
        for settings in ({}, {"stream": True}):
            with pytest.raises(openai.InternalServerError, match="no memory left"):
                say(running, max_tokens=2, **settings)
    finally:
        del vars(embed)["forward"]
    assert say(running, max_tokens=2).usage.completion_tokens == 2
    assert running.unfinished() == 0


def test_each_adapter_answers_under_its_own_name(
    serve: Serve, tiny_model: TinyModel, tokenizer: Tokenizer
) -> None:
    model = tiny_model()
    for name in ("one", "two"):
        add_lora(model, rank=4, name=name, seed=len(name))
        with torch.no_grad():
            for part, weights in model.named_parameters():
                if f"lora_B.{name}" in part:
                    weights.normal_(0, 0.5)
    names = {"plain": None, "one": "one", "two": "two"}
    served = [
        Served(key, model, tokenizer, GREEDY, adapter=adapter) for key, adapter in names.items()
    ]
    use_adapter(model, None)
    expected = []
    for adapter in names.values():
        use_adapter(model, adapter)
        expected.append(drawn(served[0], replace(GREEDY, max_new_tokens=8))[0].text)
    assert len(set(expected)) == 3
    running = serve(*served)
    with ThreadPoolExecutor(6) as pool:
        asked = [*names] * 2
        found = list(pool.map(lambda name: say(running, model=name, max_tokens=8), asked))
    assert [one.choices[0].message.content for one in found] == expected * 2


# Guards.


@pytest.mark.parametrize("stream", [False, True])
def test_a_guard_stops_messages_and_answers(serve: Serve, tiny: Served, stream: bool) -> None:
    plain = drawn(tiny, replace(GREEDY, max_new_tokens=6))[0].text

    def answer(running: Running, text: str) -> tuple[str, str]:
        messages = [{"role": "user", "content": text}]
        found = say(running, messages, max_tokens=6, stream=stream)
        if not stream:
            return found.choices[0].message.content, found.choices[0].finish_reason
        parts = [part.choices[0] for part in found]
        return "".join(one.delta.content or "" for one in parts), parts[-1].finish_reason

    let_through = serve(replace(tiny, guard=Words("bad")))
    assert answer(let_through, "the sea") == (plain, "length")
    assert answer(let_through, "a bad sea") == (SENTENCE, "content_filter")
    assert answer(serve(replace(tiny, guard=Words("\0", plain))), "the sea") == (
        SENTENCE,
        "content_filter",
    )


# Rejected requests.

BAD = {
    "no JSON": ("{", "the body is not JSON"),
    "no object": ("[1]", r"must be a JSON object, not \[1\]"),
    "no UTF-8": (b"\xff\xfe{}", "the body is not JSON"),
    "nested": ("[" * 200_000, "nested too deeply"),
    "nothing": ({}, "messages is missing"),
    "an unknown field": ({"temprature": 1}, "did you mean 'temperature'"),
    "no content": ({"messages": [{"role": "user", "contents": "hi"}]}, "'content'"),
    "null content": ({"messages": [{"role": "user", "content": None}]}, "'content' is empty"),
    "half a name": ({"\ud800": 1}, "unicode"),
    "many stops": ({"stop": ["a"] * 17}, "up to 16 of them"),
    "an option of none": ({"stream_options": {"foo": 1}}, "an object such as"),
    "more than it may be": (
        {"min_tokens": 9, "max_tokens": 5},
        "min_tokens=9 must be 0 .off. to max_tokens=5",
    ),
    "beyond all bounds": ({"max_tokens": 10**11}, "must be at most 10,000,000"),
    "no messages": ({"messages": []}, "must be a list of at least one"),
    "a stranger": ({"messages": [{"role": "king", "content": "a"}]}, "role 'king' is not one of"),
    "half a character": ({"messages": [{"role": "user", "content": "\ud800"}]}, "surrogate"),
    "a picture": (
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
        "'image_url', but only text is read",
    ),
    "too hot": ({"temperature": -1}, "temperature=-1 must be at least 0"),
    "no number": ({"temperature": "hot"}, "temperature='hot' must be a number"),
    "not finite": ('{"messages": [], "top_p": NaN}', "top_p=nan must be"),
    "no tokens": ({"max_tokens": 0}, "max_tokens=0 must be at least 1"),
    "too many": ({"n": 129}, "n=129 must be at most 128"),
    "an empty stop": ({"stop": [""]}, "stop=.* must be a list of strings that are not empty"),
    "a schema that is not enforced": (
        {
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "a", "schema": {"items": {"not": {}}}},
            }
        },
        "#/items/not of the schema is not supported",
    ),
    "a schema without a value": (
        {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": False}}},
        "no text satisfies this schema",
    ),
    "no schema": (
        {"response_format": {"type": "json_schema"}},
        'must be {"type": "text"}, {"type": "json_object"} or {"type": "json_schema"',
    ),
    "a call of none": ({"tool_choice": "required"}, "requires a call, but there are no tools"),
    "a call of another": (
        {
            "tool_choice": {"type": "function", "function": {"name": "g"}},
            "tools": [{"type": "function", "function": {"name": "f"}}],
        },
        "tool_choice='g' is not one of the tools; there are f",
    ),
    "a choice of none": ({"tool_choice": "any"}, 'must be "none", "auto", "required" or'),
    "JSON that ends elsewhere": (
        {"response_format": {"type": "json_object"}, "stop": "}"},
        "stop='}' does not go with response_format=json_object",
    ),
    "JSON of tools": (
        {
            "response_format": {"type": "json_object"},
            "tools": [{"type": "function", "function": {"name": "f"}}],
        },
        "tools=.* does not go with response_format=json_object",
    ),
    "much presence": ({"presence_penalty": 2.1}, "presence_penalty=2.1 must be at most 2"),
    "much frequency": ({"frequency_penalty": -3}, "frequency_penalty=-3 must be at least -2"),
    "much bias": ({"logit_bias": {"5": 101}}, "logit_bias=.* with a number of -100 to 100"),
    "a bias of a word": ({"logit_bias": {"a": 1}}, "logit_bias=.* must be token ids"),
    "a bias of no number": ({"logit_bias": {"5": "a"}}, "logit_bias=.* must be up to 1,024 token"),
    "a bias of no token": ({"logit_bias": {"999": 1}}, "token id 999, outside .* of 320"),
    "tools of none": (
        {"tools": [{"type": "function", "function": {"name": "f"}}]},
        "the chat template does not support `tools`",
    ),
    "most likely of none": ({"top_logprobs": 3}, "requires logprobs=true"),
    "too long": (
        {"messages": [{"role": "user", "content": "the sea " * 60}]},
        "prompt is too long: the prompt has .* more than the model's context of 64; shorten it",
    ),
    "much too long": (
        {"messages": [{"role": "user", "content": "the sea " * 9000}]},
        "prompt is too long: the prompt has 72,000 characters",
    ),
    "another model": ({"model": "gpt-4"}, "model='gpt-4' is not served; served are tiny"),
}


@pytest.mark.parametrize("name", BAD)
def test_unanswerable_requests_are_rejected_with_a_reason(
    serve: Serve, tiny: Served, name: str
) -> None:
    running = serve(tiny)
    given, why = BAD[name]
    if isinstance(given, dict):
        messages = {} if name == "nothing" else {"messages": ASKED}
        given = json.dumps({**messages, **given})
    found = httpx.post(f"{running.address}/v1/chat/completions", content=given)
    assert found.status_code in (400, 404)
    error = found.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert re.search(why, error["message"]), error["message"]
    assert say(running, max_tokens=2).usage.completion_tokens == 2


def test_invalid_prompts_are_rejected(serve: Serve, tiny: Served) -> None:
    running = serve(tiny)
    for prompt in ([], [[]], [1.5], [["a"]], 3, None, [-1], [999]):
        content = json.dumps({"prompt": prompt})
        found = httpx.post(f"{running.address}/v1/completions", content=content)
        assert found.status_code == 400, (prompt, found.text)
    assert go_on(running, "", max_tokens=2).usage.completion_tokens == 2


def test_a_failing_model_reports_it_and_others_continue(
    serve: Serve, tiny: Served, tiny_model: TinyModel
) -> None:
    broken = tiny_model()
    with torch.no_grad():
        broken.model.norm.weight.fill_(float("nan"))
    running = serve(tiny, replace(tiny, name="broken", model=broken))
    for settings in ({}, {"stream": True}):
        with pytest.raises(openai.APIStatusError, match="logits are not finite"):
            say(running, model="broken", **settings)
    with pytest.raises(openai.APIStatusError, match="logits are not finite"):
        running.client.completions.create(
            model="broken", prompt="the sea", echo=True, logprobs=1, max_tokens=1
        )
    assert say(running, max_tokens=2).usage.completion_tokens == 2


def test_a_too_large_body_is_rejected(serve: Serve, tiny: Served) -> None:
    running = serve(tiny)
    found = httpx.post(f"{running.address}/v1/chat/completions", content=b" " * (8 * 2**20 + 1))
    assert found.status_code == 413 and "send less" in found.json()["error"]["message"]


def test_unknown_paths_are_reported(serve: Serve, tiny: Served) -> None:
    running = serve(tiny)
    for method, path, status in (("GET", "/v2", 404), ("GET", "/v1/completions", 405)):
        found = httpx.request(method, f"{running.address}{path}")
        assert found.status_code == status
        assert "/v1/chat/completions" in found.json()["error"]["message"]


# Access.


def test_an_api_key_is_required(serve: Serve, tiny: Served) -> None:
    running = serve(tiny, api_key="secret")
    assert say(running, max_tokens=2).usage.completion_tokens == 2

    def asked(at: Running, sent: str | None) -> httpx.Response:
        headers = {} if sent is None else {"Authorization": sent.encode()}
        return httpx.get(f"{at.address}/v1/models", headers=headers)

    for sent in (None, "", "secret", "Basic secret", "Bearer", "Bearer wrong", "Bearer sécret"):
        found = asked(running, sent)
        assert found.status_code == 401 and found.json()["error"]["code"] == "invalid_api_key"
        assert found.headers["www-authenticate"] == "Bearer"
    assert asked(running, "bearer  secret").status_code == 200
    assert asked(serve(tiny, api_key="sécret"), "Bearer sécret").status_code == 200
    assert httpx.get(f"{running.address}/health").json()["status"] == "ok"


def test_an_error_lists_a_few_models(serve: Serve, tiny: Served) -> None:
    running = serve(*(replace(tiny, name=f"model-{number}") for number in range(99)))
    answer = running.post("/v1/completions", prompt="The", model="model-1000")
    said = answer.json()["error"]["message"]
    assert answer.status_code == 404 and "and 96 more" in said and len(said) < 200
    assert "did you mean" in said


def test_foreign_origins_are_rejected(serve: Serve, tiny: Served) -> None:
    def asked(running: Running, **headers: str) -> httpx.Response:
        return httpx.get(f"{running.address}/v1/models", headers=headers)

    closed = serve(tiny, hosts=["localhost", "127.0.0.1"])
    assert asked(closed).status_code == 200
    assert asked(closed, Origin=closed.address).status_code == 200
    assert asked(closed, Origin="http://evil.example").status_code == 403
    # A stranger's name that leads here (DNS rebinding).
    assert asked(closed, Host="evil.example").status_code == 403
    for host in ("", "evil.example:999999", "a`b.evil"):
        assert asked(closed, Host=host).status_code == 403
    assert asked(closed, Origin="http://[").status_code == 403
    # Other machines may ask, and pages of this server, but no page whose name was led here.
    wide = serve(tiny, is_local=False)
    assert asked(wide, Host="192.0.2.7:80").status_code == 200
    address = {"Host": "192.0.2.7:80", "Origin": "http://192.0.2.7:80"}
    assert asked(wide, **address).status_code == 200
    led = {"Host": "evil.example", "Origin": "http://evil.example"}
    assert asked(wide, **led).status_code == 403
    # Nor may it read, for which browsers send no origin; with a key it cannot.
    assert asked(wide, Host="evil.example").status_code == 403
    assert asked(wide, Host="localhost").status_code == 200
    keyed = serve(tiny, is_local=False, api_key="right")
    key = {"Authorization": "Bearer right"}
    assert asked(keyed, Host="models.example", **key).status_code == 200
    # Nor may pages of its own by that name, unless they send the key; and no others.
    own = {"Host": "models.example:80", "Origin": "http://models.example:80"}
    assert asked(keyed, **own, **key).status_code == 200
    assert asked(keyed, **own | {"Origin": "https://models.example:80"}, **key).status_code == 200
    assert asked(keyed, **own).status_code == 401
    assert asked(keyed, **own, Authorization="Bearer wrong").status_code == 401
    for stranger in ("http://evil.example", "http://models.example", "null"):
        assert asked(keyed, **own | {"Origin": stranger}, **key).status_code == 403
    # Without a key, only pages at an address or name of this machine are served.
    assert httpx.get(f"{keyed.address}/health", headers=own).status_code == 403
    # On this machine other names are rejected, with or without a key.
    near = serve(tiny, api_key="right")
    assert asked(near, **own, **key).status_code == 403
    # Such as a picture in another site's page; a link in it still works.
    other = {"Sec-Fetch-Site": "cross-site"}
    assert asked(closed, **other, **{"Sec-Fetch-Dest": "image"}).status_code == 403
    assert asked(closed, **other, **{"Sec-Fetch-Dest": "document"}).status_code == 200
    assert asked(closed, **{"Sec-Fetch-Site": "same-origin"}).status_code == 200
    opened = serve(tiny, allow_origins=["http://page.example"])
    found = asked(opened, Origin="http://page.example")
    assert found.headers["access-control-allow-origin"] == "http://page.example"
    assert asked(opened, Origin="http://evil.example").status_code == 403
    preflight = httpx.options(
        f"{opened.address}/v1/chat/completions",
        headers={"Origin": "http://page.example", "Access-Control-Request-Method": "POST"},
    )
    assert preflight.status_code == 200


def test_the_computing_thread_ends_with_the_server(tiny: Served) -> None:
    def threads() -> set[str]:
        return {thread.name for thread in threading.enumerate()}

    with serving(tiny):
        assert "engine" in threads()
    assert "engine" not in threads()
