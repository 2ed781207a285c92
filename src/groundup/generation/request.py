"""Requests, completions, and the state of a sequence between the two.

Random numbers belong to a request, not to a batch: they depend only on its seed, its prompt and the
number of equal requests before it. A request therefore gets the same tokens alone or in a batch, in
any order, while the same request submitted four times gets four different answers.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import index
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float32
from torch import Tensor

from groundup.errors import UserError, shorten
from groundup.generation.constraint import Constraint, Vocabulary
from groundup.generation.grammar import Node
from groundup.generation.json_schema import Schema, json_grammar
from groundup.generation.sampling import Sampling, as_int
from groundup.lm.config import ModelConfig
from groundup.text.chat import encode_chat
from groundup.text.tokenizer import END_OF_TEXT, StreamDecoder, Tokenizer

FinishReason = Literal["stop", "length", "cancelled", "content_filter"]
LogitMask = Callable[[Sequence[int]], Bool[Tensor, " vocab"] | None]
TopLogprobs = dict[int, float]


@dataclass(frozen=True)
class Request:
    """One prompt, given in exactly one of three ways, and how to continue it.

    `prompt` is the text that a document begins with; `messages` is a conversation that the
    assistant answers; `prompt_ids` are token ids. `top_logprobs` is the number of most likely
    tokens to return at each position. `mask` constrains the output: before each token it receives
    the completion's ids so far and returns which tokens may come next, or None for all; it is
    applied before temperature and filters. `schema` restricts the output to one JSON value that
    matches it, which ends within `max_new_tokens` if the shortest such value fits (see
    `json_schema`); `grammar` restricts it to a text of any other grammar. `adapter` names the
    adapter of the model that answers; None uses the model as it is.
    """

    prompt_ids: Sequence[int] | None = None
    prompt: str | None = None
    messages: Sequence[Mapping[str, str]] | None = None
    sampling: Sampling = field(default_factory=Sampling)
    top_logprobs: int = 0
    mask: LogitMask | None = None
    adapter: str | None = None
    schema: Schema | None = None
    grammar: Node | None = None

    def __post_init__(self) -> None:
        given = [n for n in ("prompt_ids", "prompt", "messages") if getattr(self, n) is not None]
        if len(given) != 1:
            raise UserError(
                f"a request has {' and '.join(given) or 'no prompt'}; "
                "give exactly one of prompt_ids, prompt and messages"
            )
        if self.prompt is not None and not isinstance(self.prompt, str):
            kind = type(self.prompt).__name__
            raise UserError(f"prompt={shorten(self.prompt)} is of type {kind}; give a text")
        if not isinstance(self.sampling, Sampling):
            raise UserError(
                f"sampling={shorten(self.sampling)} is of type {type(self.sampling).__name__}; "
                "write groundup.generation.sampling.Sampling(temperature=…)"
            )
        top = as_int(self.top_logprobs)
        if top is None or top < 0:
            raise UserError(
                f"top_logprobs={shorten(self.top_logprobs)} must be 0 (none) or more; try 5"
            )
        if self.mask is not None and not callable(self.mask):
            raise UserError(
                f"mask={shorten(self.mask)} is of type {type(self.mask).__name__}; give a "
                "function that gets the ids so far and returns one bool for each token of the model"
            )
        if self.schema is not None:
            json_grammar(self.schema)  # refuses unsupported schemas before generation begins
        kinds = [n for n in ("schema", "grammar", "mask") if getattr(self, n) is not None]
        if len(kinds) > 1:
            raise UserError(f"a request has {' and '.join(kinds)}; give one of them")
        if kinds and kinds != ["mask"]:
            elsewhere = ("stop", "stop_ids", "min_new_tokens", "ignore_eos")
            for name in (one for one in elsewhere if getattr(self.sampling, one)):
                raise UserError(
                    f"{name}={shorten(getattr(self.sampling, name))} does not go with a "
                    f"{kinds[0]}, which determines where the text ends; leave one of them out"
                )


@dataclass(frozen=True)
class Completion:
    """What the model answered.

    `ids` are all sampled tokens, including the closing control token or stop id, because the policy
    chose it too. `logprobs` are their log-probabilities in nats under the model's own distribution,
    before mask, penalty, temperature and filters. `top_logprobs` are those of the most likely
    tokens, best first, if requested. `text` omits control tokens, a stop id, and what follows a
    stop string; it is empty without a tokenizer.
    """

    text: str
    ids: list[int]
    logprobs: list[float]
    finish_reason: FinishReason
    top_logprobs: list[TopLogprobs] | None = None


class PromptTooLong(UserError):
    """A prompt of more tokens than the model's context."""


class SequenceState:
    """A request while its completion grows: one row of a batch.

    `read` is the number of tokens of prompt and completion whose keys are in the cache.
    """

    def __init__(
        self,
        config: ModelConfig,
        request: Request,
        prompt: list[int],
        copy: int,
        tokenizer: Tokenizer | None,
    ) -> None:
        self.request, self.prompt, self.sampling = request, prompt, request.sampling
        self.id, self.read = -1, 0
        self.limit = min(self.sampling.max_new_tokens, config.max_position_embeddings - len(prompt))
        self.ids: list[int] = []
        self.logprobs: list[float] = []
        self.top_logprobs: list[TopLogprobs] = []
        self.pieces: list[str] = []
        # A prompt that fills the context leaves no room for a token.
        self.finish_reason: FinishReason | None = None if self.limit else "length"
        ends = frozenset(config.eos_token_ids)
        self._detokenizer = None
        if tokenizer is not None:
            ends |= tokenizer.stop_ids
            self._detokenizer = Detokenizer(tokenizer, self.sampling.stop)
        if self.sampling.ignore_eos:
            ends = frozenset()
        self.stop_ids = ends | frozenset(self.sampling.stop_ids)
        self._constraint = _constraint(config, request, tokenizer)
        self._state = None if self._constraint is None else self._constraint.begin
        unknown = next((i for i in self.sampling.biases if i >= config.vocab_size), None)
        if unknown is not None:
            raise UserError(
                f"logit_bias has token id {unknown}, outside the model's vocabulary of "
                f"{config.vocab_size}; leave it out"
            )
        self._seed = _seed(self.sampling.seed, prompt, copy)
        self._uniforms: Float32[np.ndarray, " limit"] | None = None

    @property
    def tokens(self) -> list[int]:
        """Prompt and completion."""
        return self.prompt + self.ids

    @property
    def longest(self) -> int:
        """The most tokens that the cache has to hold; the last sampled token is never read."""
        return len(self.prompt) + self.limit - 1

    @property
    def constrained(self) -> bool:
        """Whether `allowed` may exclude tokens now or later."""
        is_masked = self.request.mask is not None or self._constraint is not None
        return is_masked or len(self.ids) < self.sampling.min_new_tokens

    def uniform(self) -> float:
        """Returns the random number of the next token; all are generated at the first call."""
        if self._uniforms is None:
            generator = torch.Generator().manual_seed(self._seed)
            drawn = torch.rand(self.limit, generator=generator, dtype=torch.float32)
            self._uniforms = drawn.numpy()
        return float(self._uniforms[len(self.ids)])

    def allowed(self, vocab: int) -> Bool[Tensor, " vocab"] | None:
        """Returns the tokens that may come next: those the mask allows, and no end before
        `min_new_tokens`.

        Raises `UserError` if no token is left.
        """
        allowed = self._masked(vocab)
        if len(self.ids) >= self.sampling.min_new_tokens or not self.stop_ids:
            return allowed
        ends = [id for id in self.stop_ids if id < vocab]
        allowed = torch.ones(vocab, dtype=torch.bool) if allowed is None else allowed.clone()
        allowed[ends] = False
        if not bool(allowed.any()):
            raise UserError(
                f"min_new_tokens={self.sampling.min_new_tokens} requires more than {len(self.ids)} "
                "tokens, but only an end token is allowed now; lower it, or let the mask allow more"
            )
        return allowed

    def _masked(self, vocab: int) -> Bool[Tensor, " vocab"] | None:
        if self._constraint is not None and self._state is not None:
            return self._constraint.allowed(self._state, self.limit - len(self.ids))
        if self.request.mask is None:
            return None
        given = self.request.mask(tuple(self.ids))
        if given is None:
            return None
        rule = f"it must return one bool for each of the model's {vocab} tokens, or None"
        try:
            allowed = torch.as_tensor(given)
        except (TypeError, ValueError, RuntimeError):
            raise UserError(f"a mask returned {shorten(given)}; {rule}") from None
        if allowed.dtype != torch.bool or allowed.shape != (vocab,):
            raise UserError(
                f"a mask returned {allowed.dtype} of shape {tuple(allowed.shape)}; {rule}"
            )
        if not bool(allowed.any()):
            raise UserError(
                f"after {len(self.ids)} tokens a mask allows no token at all; let it allow the end "
                "of the text, or stop there by max_new_tokens or stop strings"
            )
        return allowed

    def push(self, token: int, logprob: float, top: TopLogprobs | None) -> str:
        """Append a token; returns the text that later tokens can no longer change."""
        self.ids.append(token)
        self.logprobs.append(logprob)
        if top is not None:
            self.top_logprobs.append(top)
        shown = ""
        if token in self.stop_ids:
            self.finish_reason = "stop"
        elif self._constraint is not None and self._state is not None:
            self._state = self._constraint.after(self._state, token)
        if self.finish_reason is None and self._detokenizer is not None:
            shown = self._detokenizer.push(
                token, may_stop=len(self.ids) > self.sampling.min_new_tokens
            )
            if self._detokenizer.stopped:
                self.finish_reason = "stop"
        if self.finish_reason is None and len(self.ids) == self.limit:
            self.finish_reason = "length"
        if self.finish_reason is not None:
            shown += self._finish()
        self.pieces.append(shown)
        return shown

    def cancel(self) -> None:
        self.finish_reason = "cancelled"
        self.pieces.append(self._finish())

    def completion(self) -> Completion:
        assert self.finish_reason is not None
        top = self.top_logprobs if self.request.top_logprobs else None
        text = "".join(self.pieces)
        return Completion(text, self.ids, self.logprobs, self.finish_reason, top)

    def _finish(self) -> str:
        """Returns the held-back text, and frees the random numbers."""
        self._uniforms = None
        return "" if self._detokenizer is None else self._detokenizer.finish()


def _constraint(
    config: ModelConfig, request: Request, tokenizer: Tokenizer | None
) -> Constraint | None:
    """The constraint that a request's schema or grammar puts on its tokens."""
    grammar = request.grammar if request.schema is None else json_grammar(request.schema)
    if grammar is None:
        return None
    if tokenizer is None:
        raise UserError("a schema constrains text and needs a tokenizer; pass it to generate")
    return Vocabulary.of(config, tokenizer).constraint(grammar)


def _seed(seed: int, prompt: list[int], copy: int) -> int:
    # Python's own hash of strings differs between processes.
    name = hashlib.sha256(f"{seed} {prompt} {copy}".encode()).digest()
    return int.from_bytes(name[:8], "little", signed=True)


class InputProcessor:
    """Turns requests into sequences for one model.

    Requests with the same prompt, sampling and adapter are counted, so that each gets different
    random numbers. `adapters` are the names that a request may use.
    """

    def __init__(
        self, config: ModelConfig, tokenizer: Tokenizer | None, adapters: Sequence[str] = ()
    ) -> None:
        self._config, self._tokenizer, self._adapters = config, tokenizer, adapters
        self._counts = Counter[bytes]()

    def process(self, request: Request, copy: int | None = None) -> SequenceState:
        """Raises `UserError` for a prompt that is empty or longer than the model's context, and for
        an adapter that the model does not have."""
        if request.adapter is not None and request.adapter not in self._adapters:
            raise UserError(
                f"adapter={request.adapter!r} is not available here (there is "
                f"{', '.join(self._adapters) or 'none'}); load it with the model, or leave adapter "
                "out"
            )
        prompt = prompt_ids(self._config, request, self._tokenizer)
        if copy is None:
            asked = f"{request.sampling} {request.adapter!r} {prompt}"
            identity = hashlib.sha256(asked.encode()).digest()
            copy = self._counts[identity]
            self._counts[identity] += 1
        return SequenceState(self._config, request, prompt, copy, self._tokenizer)


def whole_ids(ids: Sequence[int]) -> list[int]:
    """The ids of a list, array or tensor as Python integers; raises `UserError` for others."""
    try:
        return [index(id) for id in ids]
    except TypeError:
        raise UserError(
            f"prompt_ids={shorten(ids)} must be a list of whole numbers; "
            "give it what tokenizer.encode returns"
        ) from None


def prompt_ids(config: ModelConfig, request: Request, tokenizer: Tokenizer | None) -> list[int]:
    """The tokens of a request's prompt.

    Raises `UserError` for an empty prompt, one longer than the context, and ids that are unknown or
    not integers.
    """
    if request.prompt_ids is not None:
        ids = whole_ids(request.prompt_ids)  # the seed depends on how they print
        if request.sampling.stop and tokenizer is None:
            raise UserError("stop strings need a tokenizer; pass it to generate, or stop by ids")
    elif tokenizer is None:
        raise UserError("a prompt given as text needs a tokenizer; pass it, or give prompt_ids")
    elif request.messages is not None:
        ids = encode_chat(tokenizer, request.messages, generation_prompt=True).ids
    else:
        assert request.prompt is not None
        ids = opening_ids(config, tokenizer) + tokenizer.encode(request.prompt)
    if not ids:
        raise UserError("the prompt is empty; give the model at least one token to continue")
    if len(ids) > config.max_position_embeddings:
        raise PromptTooLong(
            f"the prompt has {len(ids)} tokens, more than the model's context of "
            f"{config.max_position_embeddings}; shorten it"
        )
    outside = next((i for i in ids if not 0 <= i < config.vocab_size), None)
    if outside is not None:
        raise UserError(
            f"token id {outside} is outside the model's vocabulary of {config.vocab_size}; "
            "use the tokenizer that belongs to this model"
        )
    return ids


def opening_ids(config: ModelConfig, tokenizer: Tokenizer) -> list[int]:
    """The ids with which documents begin in training, and therefore prompts as well.

    These are the tokenizer's own (Llama's <s>), else the model's `bos_token_id` if it is
    <|endoftext|>, as in our models, or is also the end token. In other models the first token has
    another meaning: SmolLM2's opens a message.
    """
    if found := tokenizer.opening_ids:
        return found
    first, end = config.bos_token_id, tokenizer.special_tokens.get(END_OF_TEXT, tokenizer.eos_id)
    return [first] if first is not None and first == end else []


# Text.


class Detokenizer:
    """Turns tokens into text piece by piece; a piece is never taken back.

    What may be the beginning of a stop string is held back until the next tokens decide.
    """

    def __init__(self, tokenizer: Tokenizer, stop: tuple[str, ...]) -> None:
        self._decoder = StreamDecoder(tokenizer)
        self._stop, self._held = stop, ""
        self.stopped = False

    def push(self, token: int, *, may_stop: bool = True) -> str:
        """Returns what can be shown now; with `may_stop` false, stop strings are ignored."""
        text = self._decoder.push(token)
        return self._show(text) if may_stop else text

    def finish(self) -> str:
        """Returns the held-back text after the last token."""
        shown = self._show(self._decoder.finish())
        return shown if self.stopped else shown + self._held

    def _show(self, text: str) -> str:
        if self.stopped:
            return ""
        self._held += text
        found = [at for at in map(self._held.find, self._stop) if at >= 0]
        if found:
            self.stopped = True
            return self._held[: min(found)]
        kept = max((_overlap(self._held, stop) for stop in self._stop), default=0)
        cut = len(self._held) - kept
        shown, self._held = self._held[:cut], self._held[cut:]
        return shown


def _overlap(text: str, stop: str) -> int:
    """The length of the longest suffix of `text` that is a proper prefix of `stop`."""
    longest = min(len(text), len(stop) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)
