"""The requests that clients send: the bodies of OpenAI's interface.

Fields have OpenAI's names; `top_k`, `min_p`, `repetition_penalty`, `min_tokens`, `ignore_eos`,
`stop_token_ids` and `add_special_tokens`, which it lacks, have vLLM's. Fields that cannot be
honored are refused instead of ignored: a client that sends `best_of`, say, relies on it. Text never
becomes a control token, not even in a completion's prompt; clients that need these send ids.

Source: platform.openai.com/docs/api-reference, chat completions and completions.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal, TypeVar

from annotated_types import Ge, Le, Len
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from groundup.data.fields import messages as turns_of
from groundup.data.fields import with_system
from groundup.errors import UserError, known_names, shorten
from groundup.generation.grammar import Node
from groundup.generation.json_schema import ANY_OBJECT, Schema
from groundup.generation.request import Request
from groundup.generation.sampling import Sampling
from groundup.serve.admission import BadRequest
from groundup.serve.tool_calls import HERMES, CallFormat, arguments_grammar, calls_grammar
from groundup.serve.worker import Served
from groundup.text.chat import NO_TOOLS, omits_tools
from groundup.text.rows import BadRow, Conversation, as_dicts
from groundup.train import ranges

# OpenAI's bounds: nobody needs more answers to one request, or more of the most likely tokens.
_Copies = Annotated[int, Ge(1), Le(128)]
# They are searched for at every token; OpenAI takes four.
_Stop = Annotated[str, Len(0, 1000)]
_MostLikely = Annotated[int, Ge(0), Le(20)]
# The default length of a completion; a chat continues to the model's end.
_COMPLETION_TOKENS = 16
# The fields of a message that are read; a client may add others.
_MESSAGE_FIELDS = {"role", "content", "tool_calls", "function_call", "tool_call_id"}
# Our settings that have other names in requests.
_NAMES = {
    "max_new_tokens": "max_tokens",
    "min_new_tokens": "min_tokens",
    "stop_ids": "stop_token_ids",
}
B = TypeVar("B", bound="GenerationRequest")


class StreamOptions(BaseModel):
    """What else a stream reports."""

    model_config = ConfigDict(extra="forbid", strict=True)
    include_usage: bool = False
    include_obfuscation: bool = False  # padding against eavesdroppers, which is never sent


class GenerationRequest(BaseModel):
    """The fields of both kinds of requests."""

    model_config = ConfigDict(extra="forbid", strict=True)

    model: str | None = None
    temperature: ranges.Temperature | None = None
    top_p: ranges.TopP | None = None
    top_k: Annotated[int, Ge(-1)] | None = None  # vLLM's −1 keeps all, as 0 does
    min_p: ranges.Share | None = None
    repetition_penalty: ranges.RepetitionPenalty | None = None
    presence_penalty: ranges.TokenPenalty | None = None
    frequency_penalty: ranges.TokenPenalty | None = None
    max_tokens: ranges.NewTokens | None = None
    min_tokens: Annotated[int, Ge(0)] | None = None
    seed: int | None = None
    stop: _Stop | Annotated[list[_Stop], Len(0, 16)] | None = None
    stop_token_ids: Annotated[list[int], Len(0, 1024)] | None = None
    ignore_eos: bool = False
    n: _Copies = 1
    stream: bool = False
    stream_options: StreamOptions = StreamOptions()
    logit_bias: Annotated[dict[str, float], Len(0, 1024)] | None = None
    # Fields about an account at OpenAI's service; here there is none.
    user: object = None
    metadata: object = None
    store: object = None
    service_tier: object = None
    safety_identifier: object = None
    prompt_cache_key: object = None
    prompt_cache_retention: object = None

    @property
    def longest(self) -> int | None:
        """The maximum number of tokens of an answer, if given."""
        return self.max_tokens

    def sampling(self, own: Sampling, longest: int) -> Sampling:
        """The sampling settings: the body's, else the model's `own`, by default up to `longest`
        tokens.

        A request without a seed gets a fresh one. Raises BadRequest for values out of range.
        """
        stops = [self.stop] if isinstance(self.stop, str) else self.stop
        given: dict[str, Any] = {
            "temperature": self.temperature,
            "top_p": self.top_p,
            "top_k": None if self.top_k is None else max(self.top_k, 0),
            "min_p": self.min_p,
            "repetition_penalty": self.repetition_penalty,
            "presence_penalty": self.presence_penalty,
            "frequency_penalty": self.frequency_penalty,
            "max_new_tokens": longest if self.longest is None else max(self.longest, 1),
            "min_new_tokens": self.min_tokens,
            "seed": secrets.randbits(32) if self.seed is None else self.seed % 2**63,
            "stop": None if stops is None else tuple(stops),
            "stop_ids": None if self.stop_token_ids is None else tuple(self.stop_token_ids),
            "ignore_eos": self.ignore_eos,
            "logit_bias": self.logit_bias,
        }
        try:
            return replace(own, **{name: v for name, v in given.items() if v is not None})
        except UserError as error:
            said = str(error)
            for ours, theirs in _NAMES.items():
                said = said.replace(ours, theirs)
            raise BadRequest(said, said.partition("=")[0]) from None


class Function(BaseModel):
    """A function that the model may call; only the chat template reads its other fields."""

    model_config = ConfigDict(extra="allow", strict=True)
    name: str
    strict: bool | None = None


class Tool(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    type: Literal["function"]
    function: Function


class NamedFunction(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    name: str


class NamedTool(BaseModel):
    """The tool that must be called."""

    model_config = ConfigDict(extra="forbid", strict=True)
    type: Literal["function"]
    function: NamedFunction


class JSONSchema(BaseModel):
    """The schema of an answer; enforced whether `strict` or not."""

    model_config = ConfigDict(extra="forbid", strict=True)
    name: str
    json_schema: dict[str, Any] | bool = Field(alias="schema")
    strict: bool | None = None
    description: str | None = None


class ResponseFormat(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    type: Literal["text", "json_object", "json_schema"]
    json_schema: JSONSchema | None = None

    @property
    def schema_of_answer(self) -> Schema | None:
        """The schema of the answer, if it must be JSON."""
        given = None if self.json_schema is None else self.json_schema.json_schema
        return {"text": None, "json_object": ANY_OBJECT, "json_schema": given}[self.type]

    @model_validator(mode="after")
    def _has_schema(self) -> ResponseFormat:
        if (self.json_schema is not None) != (self.type == "json_schema"):
            raise ValueError("a schema is given with type json_schema, and only then")
        return self


class ChatCompletionRequest(GenerationRequest):
    """The body of POST /v1/chat/completions."""

    messages: list[Any]
    max_completion_tokens: ranges.NewTokens | None = None
    logprobs: bool = False
    top_logprobs: _MostLikely = 0
    tools: list[Tool] = []
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    parallel_tool_calls: bool | None = None
    response_format: ResponseFormat | None = None
    modalities: list[Literal["text"]] | None = None

    @property
    def longest(self) -> int | None:
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens

    @property
    def may_call(self) -> bool:
        """Whether to look for tool calls in the answer."""
        return bool(self.tools) and self.tool_choice != "none"

    @property
    def must_call(self) -> bool:
        """Whether the answer must be tool calls and nothing else."""
        return self.tool_choice == "required" or isinstance(self.tool_choice, NamedTool)

    @property
    def _enforced(self) -> str | None:
        """What is enforced on the answer, in the words of the request."""
        if self.response_format is not None and self.response_format.type != "text":
            return f"response_format={self.response_format.type}"
        if self.must_call:
            named = self.tool_choice if isinstance(self.tool_choice, str) else "a function"
            return f"tool_choice={named}"
        is_strict = any(tool.function.strict for tool in self.tools)
        return "a strict function" if self.may_call and is_strict else None

    @model_validator(mode="after")
    def _check_tool_choice(self) -> ChatCompletionRequest:
        names = [tool.function.name for tool in self.tools]
        if self.must_call and not names:
            raise ValueError("tool_choice requires a call, but there are no tools; give some")
        if isinstance(self.tool_choice, NamedTool) and self.tool_choice.function.name not in names:
            name = self.tool_choice.function.name
            hint = known_names(name[:200], names, "there are")
            raise ValueError(f"tool_choice={shorten(name)} is not one of the tools; {hint}")
        return self

    @model_validator(mode="after")
    def _check_no_other_end(self) -> ChatCompletionRequest:
        others = ["stop", "stop_token_ids", "min_tokens", "ignore_eos"]
        if self.may_call and (self._enforced or "").startswith("response_format"):
            others.append("tools")
        given = [name for name in others if getattr(self, name)]
        if self._enforced is not None and given:
            raise ValueError(
                f"{given[0]}={shorten(getattr(self, given[0]))} does not go with {self._enforced}, "
                "whose answer ends where it is whole; leave one of them out"
            )
        return self

    @model_validator(mode="after")
    def _check_logprobs(self) -> ChatCompletionRequest:
        if self.top_logprobs and not self.logprobs:
            raise ValueError(f"top_logprobs={self.top_logprobs} requires logprobs=true")
        return self

    def request(self, served: Served) -> Request:
        """The request that the assistant answers. Raises BadRequest for invalid messages."""
        said = [
            {name: one[name] for name in one if name in _MESSAGE_FIELDS}
            if isinstance(one, Mapping)
            else one
            for one in self.messages
        ]
        tools = [one.model_dump(exclude_unset=True) for one in self.tools] if self.may_call else []
        try:
            turns = turns_of(said, "messages", may_be_empty=True)
            turns = with_system({"tools": tools}, turns)
        except BadRow as error:
            raise BadRequest(str(error), "messages") from None
        if tools and omits_tools(served.tokenizer, [Conversation(turns, "", "")]):
            raise BadRequest(
                f"tools={shorten([one.function.name for one in self.tools])}: {NO_TOOLS}", "tools"
            )
        longest = served.longest or served.model.config.max_position_embeddings
        form = self.response_format
        try:
            return Request(
                messages=as_dicts(turns),
                sampling=self.sampling(served.sampling, longest),
                top_logprobs=self.top_logprobs,
                schema=None if form is None else form.schema_of_answer,
                grammar=self._grammar(served),
            )
        except UserError as error:
            field = "tools" if form is None or form.type == "text" else "response_format"
            raise BadRequest(str(error), field) from None

    def call_format(self, served: Served) -> CallFormat | None:
        """The format of the calls to look for in the answer; None for an answer without calls."""
        return (served.call_format or HERMES) if self.may_call else None

    def _grammar(self, served: Served) -> Node | None:
        """The grammar of the answer, if tools must be called, or only as they are described."""
        if not self.may_call or self._enforced is None:
            return None
        format = served.call_format
        if format is None:
            raise UserError(
                f"{self._enforced} cannot be enforced, as the chat template writes tool calls in "
                'an unknown format; use tool_choice="auto", without strict, or ask for the call in '
                "words"
            )
        only = self.tool_choice.function.name if isinstance(self.tool_choice, NamedTool) else None
        tools = tuple(
            (one.function.name, _arguments_grammar(one.function, f"tools[{place}].function"))
            for place, one in enumerate(self.tools)
            if only in (None, one.function.name)
        )
        several = self.parallel_tool_calls is not False and only is None
        return calls_grammar(format, tools, must=self.must_call, several=several)


def _arguments_grammar(function: Function, place: str) -> Node:
    try:
        return arguments_grammar(function.model_dump())
    except UserError as error:
        raise BadRequest(str(error), f"{place}.parameters") from None


class CompletionRequest(GenerationRequest):
    """The body of POST /v1/completions: a text, tokens, or a list of either."""

    prompt: Any
    max_tokens: Annotated[int, Ge(0), Le(10_000_000)] | None = None
    logprobs: _MostLikely | None = None
    echo: bool = False
    best_of: Literal[1] | None = None
    suffix: Literal[""] | None = None
    add_special_tokens: bool = True  # whether a text begins as texts did in training

    @field_validator("prompt")
    @classmethod
    def _is_prompt(cls, value: Any) -> Any:
        """Checked by hand, as pydantic would collect an error for each of a million items."""
        if not (isinstance(value, str) or _are_ids(value)):
            prompts = value if isinstance(value, list) and value else [None]
            if not (all(isinstance(one, str) for one in prompts) or all(map(_are_ids, prompts))):
                raise ValueError("no prompt")
        return value

    @property
    def prompts(self) -> Sequence[str | list[int]]:
        several = isinstance(self.prompt, list) and not isinstance(self.prompt[0], int)
        return self.prompt if several else [self.prompt]

    @property
    def only_echoes(self) -> bool:
        """Whether nothing is to be generated."""
        return self.max_tokens == 0

    @model_validator(mode="after")
    def _check_echo(self) -> CompletionRequest:
        if self.only_echoes and not self.echo:
            raise ValueError("max_tokens=0 generates nothing; set echo=true to get the prompt")
        return self

    def requests(self, served: Served) -> list[Request]:
        """A request for each prompt."""
        sampling = self.sampling(served.sampling, served.longest or _COMPLETION_TOKENS)
        prompts = self.prompts
        if not self.add_special_tokens:
            encode = served.tokenizer.encode
            prompts = [encode(one) if isinstance(one, str) else one for one in prompts]
        return [
            Request(
                prompt=one if isinstance(one, str) else None,
                prompt_ids=None if isinstance(one, str) else one,
                sampling=sampling,
                top_logprobs=self.logprobs or 0,
            )
            for one in prompts
        ]


def _are_ids(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and {*map(type, value)} == {int}


def parsed(kind: type[B], body: bytes) -> B:
    """The parsed body of a request. Raises BadRequest, with the field that it is about."""
    try:
        given = json.loads(body)
    except RecursionError:
        raise BadRequest("the body is nested too deeply") from None
    except ValueError as error:  # not JSON, not UTF-8, or a number of thousands of digits
        raise BadRequest(f"the body is not JSON: {error}") from None
    if not isinstance(given, Mapping):
        raise BadRequest(f"the body must be a JSON object, not {shorten(given)}")
    # A field that is null counts as left out.
    value = {name: one for name, one in given.items() if one is not None}
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        raise _bad_request(kind, value, error) from None


def _bad_request(
    kind: type[GenerationRequest], value: Mapping[str, Any], error: ValidationError
) -> BadRequest:
    """The first error of a body, in words."""
    fault = error.errors()[0]
    if not fault["loc"]:
        return BadRequest(str(fault.get("ctx", {}).get("error", fault["msg"])))
    name = str(fault["loc"][0])
    if fault["type"] == "missing" and len(fault["loc"]) == 1:
        return BadRequest(f"{name} is missing", name)
    if fault["type"] == "extra_forbidden" and len(fault["loc"]) == 1:
        hint = known_names(name[:200], sorted(kind.model_fields), "there are")
        return BadRequest(f"{shorten(name)[1:-1]} is not a field of this request; {hint}", name)
    bounds = next(ranges.ranges(kind.model_fields[name]), None)
    rule = _RULES.get(name) or _TYPES.get(fault["type"])
    if rule is None:
        is_number = bounds is not None and isinstance(value[name], int | float)
        rule = bounds.rule(value[name]) if bounds and is_number else fault["msg"]
    path = _path(fault["loc"], value, is_missing=fault["type"] == "missing")
    return BadRequest(f"{name}={shorten(value[name])} must be {rule}", path)


def _path(loc: Sequence[int | str], value: Any, *, is_missing: bool) -> str:
    """The path of an error in a body, as OpenAI writes it: tools[0].function.name."""
    path = ""
    for place, part in enumerate(loc, 1):
        if isinstance(part, int) and isinstance(value, list):
            path, value = f"{path}[{part}]", value[part]
        elif isinstance(value, Mapping) and (part in value or (is_missing and place == len(loc))):
            path, value = f"{path}.{part}" if path else str(part), value.get(part)
        # Other parts are pydantic's names for the types of a union.
    return path


_TYPES = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "a text",
    "list_type": "a list",
    "finite_number": "a finite number",
}
# The rule for fields whose type alone does not say it, with the remedy.
_RULES = {
    "logit_bias": 'up to 1,024 token ids with a number of -100 to 100 each, such as {"42": -100}',
    "response_format": '{"type": "text"}, {"type": "json_object"} or {"type": "json_schema", '
    '"json_schema": {"name": …, "schema": {…}}}',
    "tool_choice": '"none", "auto", "required" or {"type": "function", "function": {"name": …}}',
    "best_of": "left out, as one completion is generated for each of n",
    "suffix": "left out, as infilling is not supported",
    "modalities": '["text"]',
    "prompt": "a text, a list of texts, a list of token ids, or a list of such lists",
    "tools": 'a list of {"type": "function", "function": {"name": …}}',
    "stop": "a text or a list of up to 16 of them, each of up to 1,000 characters",
    "stop_token_ids": "a list of up to 1,024 token ids",
    "stream_options": 'an object such as {"include_usage": true}',
}
