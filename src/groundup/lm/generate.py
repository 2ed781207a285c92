"""Generation: prompts in, completions out, one token of every row at a time.

A prompt is read in one pass that fills the KV cache; from then on each new token costs one step.
Rows of different lengths stand in one batch because a token's place in the cache is its position.
A row that has finished leaves, so the others do not pay for it.

Random numbers belong to a request, not to a batch: they follow from its seed, its prompt and how
many equal requests came before it. So a request gets the same tokens alone or in company, in any
order, while the same request asked four times gets four different answers.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from groundup.errors import UserError
from groundup.lm.cache import KVCache
from groundup.lm.model import CausalLM
from groundup.lm.sample import Sampling, choose
from groundup.text.chat import encode_chat
from groundup.text.tokenizer import StreamDecoder, Tokenizer
from groundup.train.batch import Batch

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True)
class Request:
    """One prompt, given in exactly one of three ways, and how to continue it.

    `prompt` is text that a document begins with; `messages` a conversation that the assistant
    answers; `prompt_ids` tokens as they are.
    """

    prompt_ids: Sequence[int] | None = None
    prompt: str | None = None
    messages: Sequence[Mapping[str, str]] | None = None
    sampling: Sampling = field(default_factory=Sampling)

    def __post_init__(self) -> None:
        given = [n for n in ("prompt_ids", "prompt", "messages") if getattr(self, n) is not None]
        if len(given) != 1:
            raise UserError(
                f"a request has {' and '.join(given) or 'no prompt'}; "
                "give exactly one of prompt_ids, prompt and messages"
            )


@dataclass(frozen=True)
class Completion:
    """What the model answered.

    `ids` are all tokens drawn, the closing control token included: it is part of what the policy
    chose. `logprobs` are theirs in nats under the model's own distribution, before temperature
    and filters. `text` leaves out control tokens and what follows a stop string; it is empty
    where no tokenizer was given.
    """

    text: str
    ids: list[int]
    logprobs: list[float]
    finish_reason: FinishReason


def generate(
    model: CausalLM,
    requests: Sequence[Request],
    tokenizer: Tokenizer | None = None,
    *,
    batch_size: int = 32,
) -> list[Completion]:
    """The completions of all requests, in their order, at most `batch_size` rows at a time.

    The tokenizer may be left out when every prompt is given as ids and no stop strings are.
    Raises `UserError` for a prompt that is empty or longer than the model's context.
    """
    rows = _rows(model, requests, tokenizer)
    for together in _batches(rows, batch_size):
        engine = _Engine(model, together)
        while engine.unfinished:
            engine.advance()
    return [row.completion() for row in rows]


def stream(model: CausalLM, tokenizer: Tokenizer, request: Request) -> Iterator[str]:
    """The completion's text piece by piece as it is drawn; joined, it is `generate`'s text.

    A piece never ends within a character, nor within what may turn out to be a stop string.
    """
    [row] = _rows(model, [request], tokenizer)
    engine = _Engine(model, [row])
    shown = 0
    while engine.unfinished:
        engine.advance()
        yield from row.pieces[shown:]
        shown = len(row.pieces)


def _rows(model: CausalLM, requests: Sequence[Request], tokenizer: Tokenizer | None) -> list[_Row]:
    stop_ids = frozenset(model.config.eos_token_ids)
    if tokenizer is not None:
        stop_ids |= frozenset(tokenizer.stop_ids)
    rows: list[_Row] = []
    asked = Counter[str]()
    for request in requests:
        prompt = _prompt_ids(model, request, tokenizer)
        sampling = request.sampling
        # Not Python's own hash of strings, which differs from one process to the next.
        identity = f"{sampling.seed} {prompt}"
        name = hashlib.sha256(f"{identity} {asked[identity]}".encode()).digest()
        asked[identity] += 1
        generator = torch.Generator().manual_seed(int.from_bytes(name[:8], "little", signed=True))
        limit = min(sampling.max_new_tokens, model.config.max_position_embeddings - len(prompt))
        uniforms = torch.rand(limit, generator=generator)
        text = None if tokenizer is None else _Text(tokenizer, sampling.stop)
        rows.append(_Row(prompt, sampling, uniforms, stop_ids, text))
    return rows


def _prompt_ids(model: CausalLM, request: Request, tokenizer: Tokenizer | None) -> list[int]:
    config = model.config
    if request.prompt_ids is not None:
        ids = list(request.prompt_ids)
        if request.sampling.stop and tokenizer is None:
            raise UserError("stop strings need a tokenizer; pass it to generate, or stop by ids")
    elif tokenizer is None:
        raise UserError("a prompt given as text needs a tokenizer; pass it, or give prompt_ids")
    elif request.messages is not None:
        ids = encode_chat(tokenizer, request.messages, generation_prompt=True).ids
    else:
        assert request.prompt is not None
        # A document begins with this token in training, so it does here.
        start = [] if config.bos_token_id is None else [config.bos_token_id]
        ids = start + tokenizer.encode(request.prompt)
    if not ids:
        raise UserError("the prompt is empty; give the model at least one token to continue")
    if len(ids) > config.max_position_embeddings:
        raise UserError(
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


def _batches(rows: Sequence[_Row], batch_size: int) -> Iterator[list[_Row]]:
    """Rows of one way of sampling and of like length, so that little of a batch is padding."""
    if batch_size < 1:
        raise UserError(f"batch_size={batch_size} must be 1 or more; try 32")
    ways: dict[object, list[_Row]] = {}
    for row in rows:
        ways.setdefault(row.sampling.filters, []).append(row)
    for way in ways.values():
        ordered = sorted(way, key=lambda row: len(row.prompt))
        for start in range(0, len(ordered), batch_size):
            yield ordered[start : start + batch_size]


class _Row:
    """A completion while it grows."""

    def __init__(
        self,
        prompt: list[int],
        sampling: Sampling,
        uniforms: Float[Tensor, " limit"],
        stop_ids: frozenset[int],
        text: _Text | None,
    ) -> None:
        self.prompt, self.sampling, self.uniforms = prompt, sampling, uniforms
        self.limit = len(uniforms)
        self.ids: list[int] = []
        self.logprobs: list[float] = []
        self.pieces: list[str] = []
        # A prompt that fills the context leaves room for nothing.
        self.finish_reason: FinishReason | None = None if self.limit else "length"
        self._stop_ids, self._text = stop_ids, text

    def push(self, token: int, logprob: float) -> None:
        self.ids.append(token)
        self.logprobs.append(logprob)
        if token in self._stop_ids:
            self.finish_reason = "stop"
        elif self._text is not None:
            self.pieces.append(self._text.push(token))
            if self._text.stopped:
                self.finish_reason = "stop"
        if self.finish_reason is None and len(self.ids) == self.limit:
            self.finish_reason = "length"
        if self.finish_reason is not None and self._text is not None:
            self.pieces.append(self._text.finish())

    def completion(self) -> Completion:
        assert self.finish_reason is not None
        return Completion("".join(self.pieces), self.ids, self.logprobs, self.finish_reason)


class _Text:
    """Tokens turned into text that never has to be taken back.

    What may be the beginning of a stop string is held until the next tokens decide.
    """

    def __init__(self, tokenizer: Tokenizer, stop: tuple[str, ...]) -> None:
        self._decoder = StreamDecoder(tokenizer)
        self._stop, self._held = stop, ""
        self.stopped = False

    def push(self, token: int) -> str:
        return self._show(self._decoder.push(token))

    def finish(self) -> str:
        """The rest, once no more tokens come."""
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
    """How many characters at the end of `text` are the beginning of `stop`."""
    longest = min(len(text), len(stop) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)


class _Engine:
    """The rows of one batch, their cache, and the hidden state from which the next token comes."""

    def __init__(self, model: CausalLM, rows: Sequence[_Row]) -> None:
        self._model = model
        self._rows = [row for row in rows if row.finish_reason is None]
        if self._rows:
            self._prefill()

    @property
    def unfinished(self) -> bool:
        return any(row.finish_reason is None for row in self._rows)

    @torch.inference_mode()
    def _prefill(self) -> None:
        """Read all prompts in one pass, padded on the right to the longest."""
        rows, model = self._rows, self._model
        device = model.head.device
        lengths = torch.tensor([len(row.prompt) for row in rows])
        longest, limit = int(lengths.max()), max(row.limit for row in rows)
        input_ids = torch.zeros(len(rows), longest, dtype=torch.int64)
        self._uniforms = torch.zeros(len(rows), limit)
        for i, row in enumerate(rows):
            input_ids[i, : len(row.prompt)] = torch.tensor(row.prompt)
            self._uniforms[i, : row.limit] = row.uniforms
        self._uniforms = self._uniforms.to(device)
        self._seen = None
        if rows[0].sampling.repetition_penalty != 1:
            self._seen = torch.zeros(len(rows), model.config.vocab_size, dtype=torch.bool)
            for i, row in enumerate(rows):
                self._seen[i, row.prompt] = True
            self._seen = self._seen.to(device)
        # The last token of a completion is drawn but never read.
        slots = max(len(row.prompt) + row.limit - 1 for row in rows)
        self._cache = KVCache.empty(model.config, len(rows), slots, like=model.head)
        self._positions = lengths.to(device)
        with _uncompiled(model):
            hidden = model(Batch.of(input_ids.to(device)), self._cache)
        self._hidden = hidden[torch.arange(len(rows), device=device), self._positions - 1]
        self._drawn = 0

    @torch.inference_mode()
    def advance(self) -> None:
        """One more token for every row that has not finished."""
        if self._drawn:
            self._leave()
            self._read()
        tokens, logprobs = self._draw()
        for row, token, logprob in zip(self._rows, tokens.tolist(), logprobs.tolist(), strict=True):
            if row.finish_reason is None:
                row.push(token, logprob)
        self._tokens = tokens
        self._drawn += 1

    def _draw(self) -> tuple[Int[Tensor, " rows"], Float[Tensor, " rows"]]:
        logits = (self._hidden @ self._model.head.T).float()
        sampling = self._rows[0].sampling
        tokens = choose(logits, sampling, self._uniforms[:, self._drawn], self._seen)
        chosen = logits.gather(-1, tokens[:, None])[:, 0]
        if self._seen is not None:
            self._seen.scatter_(-1, tokens[:, None], True)
        return tokens, chosen - logits.logsumexp(-1)

    def _read(self) -> None:
        """Put the drawn tokens through the model."""
        ids, positions = self._tokens[:, None], self._positions[:, None]
        zeros = torch.zeros_like(ids)
        batch = Batch(ids, zeros, zeros.float(), positions, zeros)
        with _uncompiled(self._model):
            self._hidden = self._model(batch, self._cache)[:, 0]
        # A finished row that has not left yet writes on its last slot, where no one else looks.
        self._positions = (self._positions + 1).clamp_max(self._cache.slots - 1)

    def _leave(self) -> None:
        """Let finished rows go once they are a quarter: each time the cache is copied."""
        kept = [i for i, row in enumerate(self._rows) if row.finish_reason is None]
        if 4 * len(kept) > 3 * len(self._rows):
            return
        index = torch.tensor(kept, device=self._tokens.device)
        self._rows = [self._rows[i] for i in kept]
        self._cache = self._cache.select(index)
        self._tokens, self._positions = self._tokens[index], self._positions[index]
        self._uniforms = self._uniforms[index]
        if self._seen is not None:
            self._seen = self._seen[index]


def _uncompiled(model: CausalLM) -> AbstractContextManager[object]:
    """Blocks compiled for training's one shape must not be compiled anew at every token."""
    return torch.compiler.set_stance("force_eager") if model.compiled else nullcontext()


@torch.inference_mode()
def reference_generate(
    model: CausalLM, requests: Sequence[Request], tokenizer: Tokenizer | None = None
) -> list[Completion]:
    """One row at a time and without a cache, the whole text read anew for each token: the oracle
    of `generate`."""
    rows = _rows(model, requests, tokenizer)
    for row in rows:
        while row.finish_reason is None:
            ids = torch.tensor([row.prompt + row.ids], device=model.head.device)
            with _uncompiled(model):
                logits = model.logits(Batch.of(ids))[:, -1]
            seen = torch.zeros_like(logits, dtype=torch.bool).index_fill(-1, ids[0], True)
            uniforms = row.uniforms[len(row.ids), None].to(logits.device)
            token = int(choose(logits, row.sampling, uniforms, seen))
            row.push(token, float(logits.log_softmax(-1)[0, token]))
    return [row.completion() for row in rows]
