"""Generation: prompts in, completions out.

`generate` and `stream` are thin users of the `Engine`, which a server uses as well; `request` says
what is asked and answered, `sample` how a token is drawn.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from groundup.lm.engine import Engine, Event
from groundup.lm.model import CausalLM
from groundup.lm.reading import uncompiled
from groundup.lm.request import Admission, Completion, FinishReason, Request
from groundup.lm.sample import choose
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
    requests: Sequence[Request],
    tokenizer: Tokenizer | None = None,
    *,
    batch_size: int = 32,
    share_prefixes: bool = True,
) -> list[Completion]:
    """The completions of all requests, in their order, at most `batch_size` rows at a time.

    The tokenizer may be left out when every prompt is given as ids and no stop strings are.
    Raises `UserError` for a prompt that is empty or longer than the model's context, and whatever a
    request's mask raises.
    """
    engine = Engine(
        model,
        tokenizer,
        batch_size=batch_size,
        share_prefixes=share_prefixes,
        prompt_tokens=None,
    )
    admission = Admission(model.config, tokenizer)
    rows = [admission.row(request) for request in requests]
    # Neighbours of like length: little of a batch is padding. What comes first is the request
    # whose random numbers are first, so the order in which they run does not matter.
    for row in sorted(rows, key=lambda row: len(row.prompt)):
        engine.enqueue(row)
    while engine.unfinished:
        for event in engine.step():
            if event.error is not None:
                raise event.error
    return [row.completion() for row in rows]


def stream(model: CausalLM, tokenizer: Tokenizer, request: Request) -> Iterator[str]:
    """The completion's text piece by piece as it is drawn; joined, it is `generate`'s text.

    A piece never ends within a character, nor within what may turn out to be a stop string.
    """
    engine = Engine(model, tokenizer, batch_size=1)
    engine.submit(request)
    while engine.unfinished:
        yield from pieces(engine.step())


def pieces(events: Sequence[Event]) -> Iterator[str]:
    """The text of events that are all of one request; raises what its mask raised."""
    for event in events:
        if event.error is not None:
            raise event.error
        if event.text:
            yield event.text


@torch.inference_mode()
def reference_generate(
    model: CausalLM, requests: Sequence[Request], tokenizer: Tokenizer | None = None
) -> list[Completion]:
    """One row at a time and without a cache, the whole text read anew for each token: the oracle
    of `generate`."""
    admission = Admission(model.config, tokenizer)
    rows = [admission.row(request) for request in requests]
    for row in rows:
        while row.finish_reason is None:
            ids = torch.tensor([row.tokens], device=model.head.device)
            with uncompiled(model):
                logits = model.logits(Batch.of(ids))[:, -1]
            seen = torch.zeros_like(logits, dtype=torch.bool).index_fill(-1, ids[0], True)
            allowed = row.allowed(logits.shape[-1])
            choice = logits if allowed is None else logits.masked_fill(~allowed, -torch.inf)
            uniforms = torch.tensor([row.uniform()], device=logits.device)
            token = int(choose(choice, row.sampling, uniforms, seen))
            logprobs = logits.log_softmax(-1)[0]
            best = logprobs.topk(min(row.request.top_logprobs, len(logprobs)))
            top = dict(zip(best.indices.tolist(), best.values.tolist(), strict=True))
            row.push(token, float(logprobs[token]), top or None)
    return [row.completion() for row in rows]
