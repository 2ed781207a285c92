"""What a client may ask: the bodies of OpenAI's interface, and the requests that they become.

Fields have OpenAI's names; `top_k`, `min_p`, `repetition_penalty`, `min_tokens`, `ignore_eos` and
`stop_token_ids`, which it lacks, have vLLM's. What nothing here could honor is refused and not
passed over: a client that asks for JSON alone, say, relies on getting it.

Source: platform.openai.com/docs/api-reference, chat completions and completions.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal, TypeVar

from annotated_types import Ge, Le, Len
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from groundup.data.fields import messages as turns_of
from groundup.data.fields import with_system
from groundup.errors import UserError, known_names, shorten
from groundup.generation.request import Request
from groundup.generation.sampling import Sampling
from groundup.text.chat import NO_TOOLS, leaves_tools_out
from groundup.text.rows import BadRow, Conversation, as_dicts
from groundup.text.tokenizer import Tokenizer
from groundup.train import ranges

# OpenAI's bounds: nobody draws more answers of one request, or looks at more tokens.
Copies = Annotated[int, Ge(1), Le(128)]
TopLogprobs = Annotated[int, Ge(0), Le(20)]
# What a completion is long where its request does not say; a chat goes on to the model's end.
_COMPLETION_TOKENS = 16
B = TypeVar("B", bound="Asked")


class Refused(Exception):
    """A request that is not answered: why, the field it is about, OpenAI's code and the status."""

    def __init__(
        self,
        message: str,
        param: str | None = None,
        code: str | None = None,
        status: int = 400,
    ) -> None:
        super().__init__(message)
        self.param, self.code, self.status = param, code, status


class StreamOptions(BaseModel):
    """What else a stream says."""

    model_config = ConfigDict(extra="forbid", strict=True)
    include_usage: bool = False
    include_obfuscation: bool = False  # of padding against eavesdroppers, which there is none of


class Asked(BaseModel):
    """What both kinds of bodies have."""

    model_config = ConfigDict(extra="forbid", strict=True)

    model: str | None = None
    temperature: ranges.Temperature | None = None
    top_p: ranges.TopP | None = None
    top_k: Annotated[int, Ge(-1)] | None = None  # vLLM's −1 keeps all, as 0 does
    min_p: ranges.Share | None = None
    repetition_penalty: ranges.RepetitionPenalty | None = None
    max_tokens: ranges.NewTokens | None = None
    min_tokens: Annotated[int, Ge(0)] | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    stop_token_ids: list[int] | None = None
    ignore_eos: bool | None = None
    n: Copies | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    # Taken in the one value that changes nothing.
    presence_penalty: Literal[0] | None = None
    frequency_penalty: Literal[0] | None = None
    logit_bias: Annotated[dict[str, float], Len(0, 0)] | None = None
    # Of the account that OpenAI's service keeps; here there is none.
    user: object = None
    metadata: object = None
    store: object = None
    service_tier: object = None
    safety_identifier: object = None
    prompt_cache_key: object = None
    prompt_cache_retention: object = None

    @property
    def copies(self) -> int:
        return self.n or 1

    @property
    def longest(self) -> int | None:
        """The most tokens of an answer, where it says so."""
        return self.max_tokens

    @property
    def tells_usage(self) -> bool:
        return self.stream_options is not None and self.stream_options.include_usage

    def sampling(self, own: Sampling) -> Sampling:
        """How to draw: as the body says, else as the model's `own` settings do.

        A request without a seed gets a fresh one.
        """
        stops = [self.stop] if isinstance(self.stop, str) else self.stop
        given: dict[str, Any] = {
            "temperature": self.temperature,
            "top_p": self.top_p,
            "top_k": None if self.top_k is None else max(self.top_k, 0),
            "min_p": self.min_p,
            "repetition_penalty": self.repetition_penalty,
            "max_new_tokens": self.longest,
            "min_new_tokens": self.min_tokens,
            "seed": secrets.randbits(32) if self.seed is None else self.seed % 2**63,
            "stop": None if stops is None else tuple(stops),
            "stop_ids": None if self.stop_token_ids is None else tuple(self.stop_token_ids),
            "ignore_eos": self.ignore_eos,
        }
        try:
            return replace(own, **{name: v for name, v in given.items() if v is not None})
        except UserError as error:
            raise Refused(str(error)) from None


class Function(BaseModel):
    """A function that the model may call; more of it only the chat template reads."""

    model_config = ConfigDict(extra="allow", strict=True)
    name: str


class Tool(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    type: Literal["function"]
    function: Function


class ResponseFormat(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    type: Literal["text"]


class ChatBody(Asked):
    """The body of POST /v1/chat/completions."""

    messages: list[Any]
    max_completion_tokens: ranges.NewTokens | None = None
    logprobs: bool | None = None
    top_logprobs: TopLogprobs | None = None
    tools: list[Tool] | None = None
    tool_choice: Literal["none", "auto"] | None = None
    parallel_tool_calls: bool | None = None
    response_format: ResponseFormat | None = None
    modalities: list[Literal["text"]] | None = None

    @property
    def longest(self) -> int | None:
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens

    @property
    def may_call(self) -> bool:
        """Whether calls of tools are to be found in the answer."""
        return bool(self.tools) and self.tool_choice != "none"

    @property
    def most_likely(self) -> int:
        """The number of likeliest tokens to tell at each place."""
        return (self.top_logprobs or 0) if self.logprobs else 0

    @model_validator(mode="after")
    def _has_logprobs(self) -> ChatBody:
        if self.top_logprobs and not self.logprobs:
            raise ValueError(f"top_logprobs={self.top_logprobs} needs logprobs=true beside it")
        return self

    def request(self, tokenizer: Tokenizer, own: Sampling) -> Request:
        """The request that the assistant answers. Raises Refused for messages of another form."""
        given = [tool.model_dump() for tool in self.tools or ()] if self.may_call else []
        try:
            turns = with_system(
                {"tools": given}, turns_of(self.messages, "messages", may_be_empty=True)
            )
        except BadRow as error:
            raise Refused(str(error), "messages") from None
        if given and leaves_tools_out(tokenizer, [Conversation(turns, "", "")]):
            raise Refused(
                f"tools={shorten([one['function']['name'] for one in given])}: {NO_TOOLS}"
            )
        return Request(
            messages=as_dicts(turns), sampling=self.sampling(own), top_logprobs=self.most_likely
        )


class CompletionBody(Asked):
    """The body of POST /v1/completions: a text, tokens, or a list of either."""

    prompt: (
        str
        | Annotated[list[str], Len(1)]
        | Annotated[list[int], Len(1)]
        | Annotated[list[list[int]], Len(1)]
    )
    logprobs: TopLogprobs | None = None
    echo: bool | None = None
    best_of: Literal[1] | None = None
    suffix: Literal[""] | None = None

    @property
    def longest(self) -> int | None:
        return _COMPLETION_TOKENS if self.max_tokens is None else self.max_tokens

    def requests(self, own: Sampling) -> list[Request]:
        """A request for each prompt."""
        sampling = self.sampling(own)
        # A list of lists may begin with an empty one, which is refused as a prompt.
        several = isinstance(self.prompt, list) and isinstance(self.prompt[0], str | list)
        prompts: Sequence[Any] = self.prompt if several else [self.prompt]
        return [
            Request(
                prompt=one if isinstance(one, str) else None,
                prompt_ids=None if isinstance(one, str) else one,
                sampling=sampling,
                top_logprobs=self.logprobs or 0,
            )
            for one in prompts
        ]


def parsed(kind: type[B], body: bytes) -> B:
    """The body as one of a kind. Raises Refused, with the field that it is about."""
    try:
        value = json.loads(body)
    except RecursionError:
        raise Refused("the body is nested too deeply") from None
    except ValueError as error:  # no JSON, or no UTF-8
        raise Refused(f"the body is no JSON: {error}") from None
    if not isinstance(value, Mapping):
        raise Refused(f"the body must be a JSON object, not {shorten(value)}")
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        raise _refused(kind, value, error) from None


def _refused(kind: type[Asked], value: Mapping[str, Any], error: ValidationError) -> Refused:
    """The first fault of a body, in words."""
    fault = error.errors()[0]
    if not fault["loc"]:
        return Refused(str(fault["ctx"]["error"]))
    name = str(fault["loc"][0])
    if fault["type"] == "missing":
        return Refused(f"{'.'.join(map(str, fault['loc']))} is missing", name)
    if fault["type"] == "extra_forbidden" and len(fault["loc"]) == 1:
        hint = known_names(name, sorted(kind.model_fields), "there are")
        return Refused(f"{name} is no field of this request; {hint}", name)
    said = _BOUNDS.get(fault["type"], fault["msg"].removeprefix("Input should be "))
    rule = _RULES.get(name) or said.format(**fault.get("ctx", {}))
    return Refused(f"{name}={shorten(value[name])} must be {rule}", name)


_BOUNDS = {
    "greater_than_equal": "at least {ge:g}",
    "greater_than": "more than {gt:g}",
    "less_than_equal": "at most {le:g}",
    "less_than": "less than {lt:g}",
    "finite_number": "a finite number",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "a text",
    "list_type": "a list",
}
# What a value must be that is taken in one form alone, and what to do instead.
_RULES = {
    "presence_penalty": "0, as there is none here; repetition_penalty=1.1 does the like",
    "frequency_penalty": "0, as there is none here; repetition_penalty=1.1 does the like",
    "logit_bias": "left out, as there is none here",
    "response_format": '{"type": "text"}, as no other form is enforced here; ask for it in words',
    "tool_choice": '"auto" or "none", as no call is enforced here',
    "best_of": "left out, as one completion is drawn for each of n",
    "suffix": "left out, as nothing is filled in here",
    "modalities": '["text"]',
    "prompt": "a text, a list of texts, a list of token ids, or a list of such lists",
    "tools": 'a list of {"type": "function", "function": {"name": …}}',
    "stop": "a text or a list of texts",
}
