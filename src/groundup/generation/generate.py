"""Generation: prompts in, completions out.

`generate` and `stream` are thin wrappers of the `Engine`, which the server uses as well. `request`
defines requests and completions, `sampling` picks tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch

from groundup.adapters.attach import active_adapter, adapter_names, using_adapter
from groundup.errors import UserError, shorten
from groundup.generation.engine import BATCH_SIZE, Engine, Event
from groundup.generation.guarded import Guard, complete_guarded, guard_of, guarding
from groundup.generation.penalties import SeenTokens
from groundup.generation.request import Completion, FinishReason, InputProcessor, Request
from groundup.generation.sampling import restricted, sample
from groundup.lm.model import CausalLM, in_eval_mode, uncompiled
from groundup.text.tokenizer import Tokenizer
from groundup.train.batch import Batch

__all__ = [
    "Completion",
    "Engine",
    "Event",
    "FinishReason",
    "Request",
    "generate",
    "reference_generate",
    "stream",
]


def generate(
    model: CausalLM,
    requests: Iterable[Request],
    tokenizer: Tokenizer | None = None,
    *,
    batch_size: int = BATCH_SIZE,
    share_prefixes: bool = True,
    guard: Guard | None = None,
) -> list[Completion]:
    """The completions of all requests, in their order, at most `batch_size` rows at a time.

    Requests for different adapters run one group after the other; afterwards the model's active
    adapter is what it was. `tokenizer` may be None if every prompt is given as ids and no request
    has stop strings. `guard` filters requests and answers; None uses the guard set by `guarding`.
    Raises `UserError` for a prompt that is empty or longer than the model's context, for an adapter
    that the model does not have, and re-raises whatever a request's mask raises.
    """
    _check_loaded(model, tokenizer, guard)
    requests = _checked_requests(requests)
    guard = guard_of(model) if guard is None else guard
    if guard is not None:
        with guarding(model, None):
            return complete_guarded(
                guard,
                requests,
                tokenizer,
                lambda some: generate(
                    model, some, tokenizer, batch_size=batch_size, share_prefixes=share_prefixes
                ),
            )
    processor = InputProcessor(model.config, tokenizer, adapter_names(model))
    rows = [processor.process(request) for request in requests]
    for adapter in dict.fromkeys(row.request.adapter for row in rows):
        # `Engine.step` enters and leaves eval mode itself, which takes as long as a token of a
        # small model; so it is done once here. Cache and decoding use the model's own dtype.
        exact = torch.autocast(model.like.device.type, enabled=False)
        with in_eval_mode(model), _with_adapter(model, adapter), exact:
            engine = Engine(
                model,
                tokenizer,
                batch_size=batch_size,
                share_prefixes=share_prefixes,
                prompt_tokens=None,
            )
            # Neighbors of similar length need little padding. Random numbers belong to the
            # requests, so the order in which they run does not change results.
            group = [row for row in rows if row.request.adapter == adapter]
            for row in sorted(group, key=lambda row: len(row.prompt)):
                engine.enqueue(row)
            while engine.unfinished:
                for event in engine.step():
                    if event.error is not None:
                        raise event.error
    return [row.completion() for row in rows]


def _check_loaded(model: object, tokenizer: object, guard: object = None) -> None:
    """Refuse a path where a loaded object is expected."""
    both = "model, tokenizer = groundup.load(folder)"
    guards = "guard = groundup.align.guards.model.load_guard(folder)"
    for name, value, how in (
        ("model", model, both),
        ("tokenizer", tokenizer, both),
        ("guard", guard, guards),
    ):
        if isinstance(value, str | Path):
            raise UserError(f"{name}={shorten(str(value))} is a path; load it first: {how}")


def _checked_requests(requests: Iterable[Request]) -> list[Request]:
    """Refuse a single request, and items that are not requests."""
    if isinstance(requests, str | Request) or not isinstance(requests, Iterable):
        kind = type(requests).__name__
        raise UserError(f"requests is a single {kind}, but several are expected; pass a list of it")
    requests = list(requests)
    for place, one in enumerate(requests):
        if not isinstance(one, Request):
            raise UserError(
                f"requests[{place}]={shorten(one)} is of type {type(one).__name__}; write "
                "groundup.Request(prompt=…) to continue a text, or Request(messages=[…]) to chat"
            )
    return requests


def _with_adapter(model: CausalLM, adapter: str | None) -> AbstractContextManager[None]:
    """A context in which the model uses that adapter; None keeps the active one."""
    as_it_is = adapter is None or adapter == active_adapter(model)
    return nullcontext() if as_it_is else using_adapter(model, adapter)


def stream(model: CausalLM, tokenizer: Tokenizer, request: Request) -> Iterator[str]:
    """Yield the completion's text in pieces as it is generated; joined, it is `generate`'s text.

    A piece never ends within a character or within a possible beginning of a stop string. With a
    guard there is a single piece, because a guard reads whole answers.
    """
    _check_loaded(model, tokenizer)
    if guard_of(model) is not None:
        yield generate(model, [request], tokenizer)[0].text
        return
    with _with_adapter(model, request.adapter):
        engine = Engine(model, tokenizer, batch_size=1)
        engine.submit(request)
    while engine.unfinished:
        # Between two pieces the caller may use the model for something else.
        with _with_adapter(model, request.adapter):
            events = engine.step()
        yield from pieces(events)


def pieces(events: Sequence[Event]) -> Iterator[str]:
    """The text of one request's events; raises the error of a failed request."""
    for event in events:
        if event.error is not None:
            raise event.error
        if event.text:
            yield event.text


@torch.inference_mode()
def reference_generate(
    model: CausalLM, requests: Sequence[Request], tokenizer: Tokenizer | None = None
) -> list[Completion]:
    """The slow oracle of `generate`: one row at a time, without a cache, reading the whole text
    again for each token."""
    processor = InputProcessor(model.config, tokenizer, adapter_names(model))
    rows = [processor.process(request) for request in requests]
    for row in rows:
        while row.finish_reason is None:
            ids = torch.tensor([row.tokens], device=model.like.device)
            with in_eval_mode(model), uncompiled(model), _with_adapter(model, row.request.adapter):
                logits = model.logits(Batch.of(ids))[:, -1]
            seen = torch.zeros_like(logits, dtype=torch.bool).index_fill(-1, ids[0], True)
            counts = torch.zeros_like(logits, dtype=torch.int32)
            for drawn in row.ids:
                counts[0, drawn] += 1
            allowed = row.allowed(logits.shape[-1])
            choice = logits if allowed is None else restricted(logits, allowed)
            uniforms = torch.tensor([row.uniform()], dtype=torch.float32, device=logits.device)
            token = int(sample(choice, row.sampling, uniforms, SeenTokens(seen, counts)))
            logprobs = logits.log_softmax(-1)[0]
            best = logprobs.topk(min(row.request.top_logprobs, len(logprobs)))
            top = dict(zip(best.indices.tolist(), best.values.tolist(), strict=True))
            row.push(token, float(logprobs[token]), top or None)
    return [row.completion() for row in rows]
