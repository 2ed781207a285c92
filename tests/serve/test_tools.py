"""Tool calls: tools in the prompt, and calls in the answer."""

from __future__ import annotations

import json
from datetime import date
from typing import Annotated, Any

import openai
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field, StringConstraints
from tests.conftest import TinyModel
from tests.serve.conftest import GREEDY, Serve
from torch.nn.functional import cross_entropy

from groundup.generation.json_schema import json_grammar
from groundup.serve.admission import BadRequest
from groundup.serve.protocol import ChatCompletionRequest, parsed
from groundup.serve.tool_calls import (
    HERMES,
    CallFormat,
    CallsHeldBack,
    arguments_grammar,
    call_format,
)
from groundup.serve.worker import Served
from groundup.text.bpe import train_bpe
from groundup.text.chat import encode_chat
from groundup.text.rows import call_text
from groundup.text.tokenizer import Tokenizer
from groundup.train.batch import Batch

CALL = call_text("weather", {"city": "Köln"})
TOOLS: list[dict[str, Any]] = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
        },
    }
]
# Lists the tools, and writes calls as they occur in the answer.
TEMPLATE = (
    "{% if tools %}{{ '<|im_start|>system\n' }}{% for tool in tools %}{{ tool | tojson }}"
    "{% endfor %}{{ '<|im_end|>\n' }}{% endif %}{% for m in messages %}{{ '<|im_start|>' + m.role "
    "+ '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
ASKED = [{"role": "user", "content": "Is it warm?"}]


@pytest.fixture(scope="module")
def text_tokenizer() -> Tokenizer:
    said = f"Is it warm? I look. {CALL} It rains."
    return Tokenizer.from_bpe(train_bpe([said] * 4, 320)).with_template(TEMPLATE)


def by_heart(tiny_model: TinyModel, tokenizer: Tokenizer, answer: str, tools: Any) -> Served:
    """A model that has memorized one answer, and its prompt with tools."""
    first = {**ASKED[0], "tools": json.dumps(tools)} if tools else ASKED[0]
    prompt = encode_chat(tokenizer, [first], generation_prompt=True).ids
    ids = torch.tensor([[*prompt, *tokenizer.encode(answer), tokenizer.im_end]])
    model = tiny_model(vocab_size=384, max_position_embeddings=512)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(80):
        logits = model.logits(Batch.of(ids[:, :-1]))[0, len(prompt) - 1 :]
        loss = cross_entropy(logits, ids[0, len(prompt) :])
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
    assert loss.item() < 0.05
    return Served("tiny", model.eval(), tokenizer, GREEDY)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("words", ["", "I look.\n"])
def test_a_call_is_separated_from_words(
    serve: Serve, tiny_model: TinyModel, text_tokenizer: Tokenizer, words: str, stream: bool
) -> None:
    # The template gets what the client sent.
    running = serve(by_heart(tiny_model, text_tokenizer, words + CALL, TOOLS))
    asked: dict[str, Any] = {"model": "tiny", "messages": ASKED, "tools": TOOLS, "max_tokens": 99}
    found: Any = running.client.chat.completions.create(**asked, stream=stream)
    if stream:
        parts = [part.choices[0] for part in found]
        content = "".join(part.delta.content or "" for part in parts)
        calls = [call for part in parts for call in part.delta.tool_calls or ()]
        reason = parts[-1].finish_reason
    else:
        choice = found.choices[0]
        content, calls = choice.message.content or "", choice.message.tool_calls
        reason = choice.finish_reason
    assert (content, reason) == (words.strip(), "tool_calls")
    assert [one.function.name for one in calls] == ["weather"]
    assert json.loads(calls[0].function.arguments) == {"city": "Köln"}
    assert len(calls[0].id) == 9 and calls[0].id.isalnum()


def test_a_tool_result_is_read(
    serve: Serve, tiny_model: TinyModel, text_tokenizer: Tokenizer
) -> None:
    """The client sends back the call in OpenAI's form and the tool's result."""
    served = by_heart(tiny_model, text_tokenizer, CALL, TOOLS)
    client = serve(served).client
    asked: dict[str, Any] = {"model": "tiny", "tools": TOOLS, "max_tokens": 99}
    first: Any = client.chat.completions.create(messages=ASKED, **asked)
    call = first.choices[0].message.tool_calls[0]
    told = {"role": "tool", "tool_call_id": call.id, "content": "It rains."}
    messages = [*ASKED, first.choices[0].message.model_dump(), told]
    found = client.chat.completions.create(messages=messages, **asked)
    written = [
        {**ASKED[0], "tools": json.dumps(TOOLS)},
        {"role": "assistant", "content": CALL, "calls_at_end": 1},
        {"role": "tool", "content": "It rains."},
    ]
    expected = encode_chat(text_tokenizer, written, generation_prompt=True).ids
    assert found.usage is not None and found.usage.prompt_tokens == len(expected)


def test_without_tools_text_that_looks_like_a_call_is_text(
    serve: Serve, tiny_model: TinyModel, text_tokenizer: Tokenizer
) -> None:
    client = serve(by_heart(tiny_model, text_tokenizer, CALL, None)).client
    for more in ({}, {"tools": TOOLS, "tool_choice": "none"}):
        found: Any = client.chat.completions.create(
            model="tiny", messages=ASKED, max_tokens=99, **more
        )
        assert found.choices[0].message.content == CALL
        assert found.choices[0].finish_reason == "stop"
        assert found.choices[0].message.tool_calls is None


@pytest.mark.parametrize(
    ("written", "words", "arguments"),
    [
        ('<tool_call>{"name": "f", "arguments": {"a": 1}}</tool_call>', "", ['{"a": 1}']),
        ('I look. <tool_call>{"name": "f"}</tool_call>\nWait.', "I look.", ["{}"]),
        ('<tool_call>{"name": "f", "arguments": "{\\"a\\": 1}"}', "", ['{"a": 1}']),
        (f"{CALL}\n{CALL}", "", ['{"city": "Köln"}'] * 2),
        # Invalid calls are words, and so is one whose arguments would be lost.
        ("Write <tool_call> so.", "Write <tool_call> so.", []),
        ('<tool_call>{"name": "f", "parameters": {"a": 1}}</tool_call>', None, []),
        ("<tool_call>[1]</tool_call>", None, []),
    ],
)
def test_calls_are_found_in_all_formats(
    written: str, words: str | None, arguments: list[str]
) -> None:
    found, calls = HERMES.calls_in(written)
    assert found == (written if words is None else words)
    assert [one["function"]["arguments"] for one in calls] == arguments


PIECES = st.sampled_from(["", "I look. ", "\n", " ", "<tool", "_call>", "<tool_call>\n", CALL, "<"])


@given(st.lists(PIECES, max_size=6).map("".join), st.data())
def test_a_streamed_answer_equals_the_whole_one_for_any_chunks(
    text: str, data: st.DataObject
) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    held, shown = CallsHeldBack(HERMES), ""
    for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True):
        shown += held.push(text[start:end])
    rest, calls = held.finish()
    words, expected = HERMES.calls_in(text)
    assert shown + rest == words
    assert [one["function"] for one in calls] == [one["function"] for one in expected]


# Required calls.

# Llama 3 writes calls as JSON alone, Mistral with control tokens.
LLAMA = TEMPLATE.replace(
    "m.content +",
    '(m.content if not m.tool_calls else \'{"name": "\' + m.tool_calls[0].function.name + \'", '
    "\"parameters\": ' + (m.tool_calls[0].function.arguments | tojson) + '}') +",
)
MISTRAL = TEMPLATE.replace(
    "m.content +",
    "(m.content if not m.tool_calls else '<|endoftext|>' + (m.tool_calls[0].function | tojson)) +",
)
TWO = [
    *TOOLS,
    {
        "type": "function",
        "function": {
            "name": "wait",
            "strict": True,
            "parameters": {
                "type": "object",
                "properties": {"days": {"enum": [1, 2]}},
                "required": ["days"],
                "additionalProperties": False,
            },
        },
    },
]


def random_model(tiny_model: TinyModel, tokenizer: Tokenizer) -> Served:
    model = tiny_model(vocab_size=384, max_position_embeddings=1024)
    return Served("tiny", model, tokenizer, GREEDY)


def test_the_call_format_comes_from_the_template(text_tokenizer: Tokenizer) -> None:
    assert call_format(text_tokenizer) == HERMES
    llama = call_format(text_tokenizer.with_template(LLAMA))
    assert llama == CallFormat("", "parameters", "", False)
    assert call_format(text_tokenizer.with_template(MISTRAL)) is None


@pytest.mark.parametrize("template", [TEMPLATE, LLAMA])
@pytest.mark.parametrize("named", [True, False])
def test_an_untrained_model_calls_when_required(
    serve: Serve, tiny_model: TinyModel, text_tokenizer: Tokenizer, template: str, named: bool
) -> None:
    client = serve(random_model(tiny_model, text_tokenizer.with_template(template))).client
    choice: Any = {"type": "function", "function": {"name": "wait"}} if named else "required"
    asked: dict[str, Any] = {
        "model": "tiny", "messages": ASKED, "tools": TWO, "tool_choice": choice,
        "max_tokens": 160, "temperature": 2.0, "seed": 4,
    }  # fmt: skip
    found: Any = client.chat.completions.create(**asked, n=6)
    assert {one.finish_reason for one in found.choices} == {"tool_calls"}
    for one in found.choices:
        assert one.message.content is None
        for call in one.message.tool_calls:
            arguments = json.loads(call.function.arguments)
            if call.function.name == "wait":
                assert arguments in ({"days": 1}, {"days": 2})
            else:
                assert not named and {*arguments} <= {"city"}
        assert len(one.message.tool_calls) == 1 or (not named and template == TEMPLATE)
    parts = [part.choices[0] for part in client.chat.completions.create(**asked, stream=True)]
    assert "".join(part.delta.content or "" for part in parts) == ""
    streamed = [call.function for part in parts for call in part.delta.tool_calls or ()]
    expected = [call.function for call in found.choices[0].message.tool_calls]
    assert [(one.name, one.arguments) for one in streamed] == [
        (one.name, one.arguments) for one in expected
    ]


class Wait(BaseModel):
    until: date
    days: int = Field(ge=1, le=30)
    why: Annotated[str, StringConstraints(pattern="^[a-z]+( [a-z]+)*$", max_length=20)]


def test_arguments_of_a_strict_function_are_valid_for_its_pydantic_model(
    serve: Serve, tiny_model: TinyModel, text_tokenizer: Tokenizer
) -> None:
    client = serve(random_model(tiny_model, text_tokenizer)).client
    asked: dict[str, Any] = {"model": "tiny", "messages": ASKED, "max_tokens": 200}
    tool = openai.pydantic_function_tool(Wait, name="wait")
    found = client.chat.completions.parse(
        **asked, tools=[tool], tool_choice="required", temperature=2.0, seed=4, n=3
    )
    calls = [call for one in found.choices for call in one.message.tool_calls or ()]
    assert len(calls) >= 3
    assert all(isinstance(call.function.parsed_arguments, Wait) for call in calls)


@pytest.mark.parametrize("template", [TEMPLATE, LLAMA])
def test_a_strict_function_is_called_by_its_schema_or_not_at_all(
    serve: Serve, tiny_model: TinyModel, text_tokenizer: Tokenizer, template: str
) -> None:
    """From a model that has learned to call another function."""
    tokenizer = text_tokenizer.with_template(template)
    answer = CALL
    if template == LLAMA:
        answer = '{"name": "weather", "parameters": {"city": "Köln"}}'
    served = by_heart(tiny_model, tokenizer, answer, TWO[1:])
    asked: dict[str, Any] = {"model": "tiny", "messages": ASKED, "tools": TWO[1:]}
    found: Any = serve(served).client.chat.completions.create(**asked, max_tokens=200)
    message = found.choices[0].message
    for call in message.tool_calls or ():
        assert call.function.name == "wait"
        assert json.loads(call.function.arguments) in ({"days": 1}, {"days": 2})
    assert "weather" not in (message.content or "") or not message.tool_calls


@pytest.mark.parametrize(
    ("tool", "path"),
    [
        (3, "tools[1]"),
        ({"function": {"name": "f"}}, "tools[1].type"),
        ({"type": "function"}, "tools[1].function"),
        ({"type": "function", "function": {}}, "tools[1].function.name"),
        ({"type": "function", "function": {"name": 3}}, "tools[1].function.name"),
        ({"type": "function", "function": {"name": "f"}, "a": 1}, "tools[1].a"),
        (
            {
                "type": "function",
                "function": {"name": "f", "strict": True, "parameters": {"not": {}}},
            },
            "tools[1].function.parameters",
        ),
    ],
    ids=str,
)
def test_an_error_in_a_tool_has_its_path(
    serve: Serve, tiny_model: TinyModel, text_tokenizer: Tokenizer, tool: Any, path: str
) -> None:
    client = serve(random_model(tiny_model, text_tokenizer)).client
    with pytest.raises(openai.BadRequestError) as found:
        client.chat.completions.create(model="tiny", messages=ASKED, tools=[*TOOLS, tool])
    assert found.value.param == path


@pytest.mark.parametrize(
    ("given", "path"),
    [
        ({"stop": ["a", 3]}, "stop"),
        ({"tool_choice": {"type": "function", "function": {}}}, "tool_choice"),
        ({"tool_choice": "any"}, "tool_choice"),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "a"}}},
         "response_format.json_schema.schema"),
        ({"stream_options": {"usage": True}}, "stream_options.usage"),
        ({"temperature": "hot"}, "temperature"),
    ],
    ids=str,
)  # fmt: skip
def test_an_error_in_a_field_has_its_path(given: dict[str, Any], path: str) -> None:
    """That of a field of several types ends at the field."""
    with pytest.raises(BadRequest) as found:
        parsed(ChatCompletionRequest, json.dumps({"messages": ASKED, **given}).encode())
    assert found.value.param == path


def test_tool_grammars_are_cached(tiny_model: TinyModel, text_tokenizer: Tokenizer) -> None:
    """A new grammar has its own masks, each a walk through the whole vocabulary."""
    served = random_model(tiny_model, text_tokenizer)
    for more in ({}, {"tool_choice": "required"}):
        bodies = [
            ChatCompletionRequest.model_validate({"messages": ASKED, "tools": TWO, **more})
            for _ in range(2)
        ]
        first, again = (body.request(served).grammar for body in bodies)
        assert first is again is not None


def test_a_function_without_parameters_in_its_schema_has_none() -> None:
    none = json_grammar({"type": "object", "additionalProperties": False})
    assert arguments_grammar({"name": "f"}) is none
    assert arguments_grammar({"name": "f", "parameters": {}}) is none


def test_required_calls_are_rejected_for_an_unknown_format(
    serve: Serve, tiny_model: TinyModel, text_tokenizer: Tokenizer
) -> None:
    running = serve(random_model(tiny_model, text_tokenizer.with_template(MISTRAL)))
    body = {"messages": ASKED, "tools": TWO, "max_tokens": 2}
    for more in ({"tool_choice": "required"}, {}):
        found = running.post("/v1/chat/completions", **body, **more)
        assert found.status_code == 400
        assert "cannot be enforced, as the chat template writes tool calls" in found.text
    assert running.post("/v1/chat/completions", **body | {"tools": TOOLS}).status_code == 200


def test_text_streams_immediately_in_a_format_without_a_marker() -> None:
    held = CallsHeldBack(CallFormat("", "parameters", "", False))
    assert [held.push(one) for one in ("It ", "rains", " {")] == ["It", " rains", " {"]
    assert held.finish() == ("", [])
    held = CallsHeldBack(CallFormat("", "parameters", "", False))
    written = '{"name": "f", "parameters": {"a": 1}}'
    assert [held.push(one) for one in written] == [""] * len(written)
    assert [one["function"]["name"] for one in held.finish()[1]] == ["f"]
