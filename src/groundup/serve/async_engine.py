"""The engine for a server's loop: rows in, their events out, behind a guard if there is one.

    async with engine.running():
        rows = await engine.rows(served, lambda: [request], copies=1)
        async for index, event in engine.events(served, rows, streams=True):
            ...

When a caller stops reading, the rest is cancelled.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from functools import partial
from typing import TypeVar

import torch

from groundup.errors import UserError
from groundup.generation.engine import Event
from groundup.generation.guarded import admitted, checked, guarded_text
from groundup.generation.prefill import read
from groundup.generation.request import (
    Completion,
    PromptTooLong,
    Request,
    SequenceState,
    TopLogprobs,
    prompt_ids,
)
from groundup.lm.logprobs import NON_FINITE_LOGITS
from groundup.lm.model import in_eval_mode
from groundup.serve.worker import RowEvent, Served, Ticket, Worker
from groundup.train.batch import Batch

T = TypeVar("T")
# Tokens of a scored prompt that are read between two steps, and positions whose logits are computed
# together: with a vocabulary of 150,000 they take 40 megabytes.
_PIECE, _POSITIONS = 512, 64


def _require_shorter(served: Served, request: Request) -> None:
    """Raise PromptTooLong for texts that cannot fit however they are tokenized, before they are:
    megabytes of text would delay all other requests."""
    texts = [request.prompt or "", *(str(one["content"]) for one in request.messages or ())]
    context, length = served.model.config.max_position_embeddings, sum(map(len, texts))
    if length > context * served.tokenizer.longest_token:
        raise PromptTooLong(
            f"the prompt has {length:,} characters, more than the model's context of {context:,} "
            "tokens can hold; shorten it"
        )


class AsyncEngine:
    """Answers for the models that are served. Its methods are called in one event loop."""

    def __init__(self, *, batch_size: int, waiting: int) -> None:
        self._worker = Worker(self._post, batch_size=batch_size, waiting=waiting)
        self._queues: dict[Ticket, asyncio.Queue[RowEvent]] = {}
        # One thread at a time tokenizes: tokenizers are not made for several.
        self._reading = asyncio.Lock()
        # One prompt at a time is scored, so that only one cache is needed.
        self._scoring = asyncio.Lock()

    @property
    def unfinished(self) -> int:
        """The number of completions that run or wait."""
        return self._worker.unfinished

    @property
    def is_alive(self) -> bool:
        """Whether the worker's thread is alive."""
        return self._worker.is_alive

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """A context in which the worker's thread computes."""
        self._loop = asyncio.get_running_loop()
        self._worker.start()
        try:
            yield
        finally:
            await self.stop()

    async def stop(self) -> None:
        """Stop computing; rows that have not ended get Stopped."""
        await asyncio.to_thread(self._worker.close)

    def require_room(self, rows: int) -> None:
        """Raise Busy if so many rows may not wait now, `UserError` if they never may."""
        self._worker.require_room(rows)

    async def rows(
        self, served: Served, requests: Callable[[], Sequence[Request]], copies: int
    ) -> list[SequenceState]:
        """The rows of the requests that a function returns, as tokens, `copies` of each.

        Equal ones are numbered, so that each gets a different answer, and the same one again for
        the same seed. Raises what the function raises, and `UserError` for a prompt that is empty
        or longer than the model's context.
        """

        def process() -> list[SequenceState]:
            config, tokenizer = served.model.config, served.tokenizer
            found, seen = list[SequenceState](), Counter[tuple[int, ...]]()
            for request in requests():
                _require_shorter(served, request)
                prompt = prompt_ids(config, request, tokenizer)
                for _ in range(copies):
                    copy = seen[tuple(prompt)]
                    seen[tuple(prompt)] += 1
                    found.append(SequenceState(config, request, prompt, copy, tokenizer))
            return found

        async with self._reading:
            return await asyncio.to_thread(process)

    async def events(
        self, served: Served, rows: Sequence[SequenceState], *, streams: bool = False
    ) -> AsyncGenerator[RowEvent]:
        """The events of rows as they come: of every token if it `streams`, else only of the end.

        Behind a guard there is one event per row. Raises what `Worker.submit` raises, and the
        error that ended a row.
        """
        if served.guard is None:
            async with aclosing(self._unguarded(served, rows, streams)) as found:
                async for one in found:
                    yield one
            return
        for index, completion in enumerate(await self._behind_guard(served, rows)):
            yield RowEvent(index, Event(index, text=completion.text, completion=completion))

    async def prompt_logprobs(
        self, served: Served, ids: Sequence[int], top_logprobs: int
    ) -> tuple[list[float], list[TopLogprobs]]:
        """log p in nats of every token of a prompt but the first, and the most likely at each
        place.

        The prompt is read in pieces, between which other requests continue. Raises `UserError` for
        a model whose logits are not finite.
        """
        model = served.model
        chosen, tops = list[float](), list[TopLogprobs]()

        @torch.inference_mode()
        def read_piece(start: int) -> None:
            piece = torch.tensor([ids[start : start + _PIECE]])
            positions = torch.arange(start, start + piece.shape[1])[None]
            with in_eval_mode(model), served.answering():
                hidden = read(model, Batch.at(piece, positions), cache)[0]
            targets = torch.tensor(ids[start + 1 : start + 1 + len(hidden)], device=hidden.device)
            for first in range(0, len(targets), _POSITIONS):
                these = targets[first : first + _POSITIONS]
                logits = model.lm_head(hidden[first : first + len(these)])
                logp = logits.float().log_softmax(-1)
                if bool(logp[:, 0].isnan().any()):
                    raise UserError(NON_FINITE_LOGITS)
                chosen.extend(logp.gather(-1, these[:, None])[:, 0].tolist())
                best = logp.topk(min(top_logprobs, logp.shape[-1]))
                pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
                tops.extend(dict(zip(*pair, strict=True)) for pair in pairs)

        async with self._scoring:
            cache = model.empty_cache(1, len(ids))
            for start in range(0, len(ids), _PIECE):
                await self._call(partial(read_piece, start))
        return chosen, tops

    async def _call(self, function: Callable[[], T]) -> T:
        """Run a function that computes, when nothing else does, and return its result."""
        return await asyncio.wrap_future(self._worker.call(function))

    async def _unguarded(
        self, served: Served, rows: Sequence[SequenceState], streams: bool
    ) -> AsyncGenerator[RowEvent]:
        queue = asyncio.Queue[RowEvent]()
        ticket = self._worker.submit(served, rows, streams=streams)
        self._queues[ticket] = queue
        left = len(rows)
        try:
            while left:
                one = await queue.get()
                left -= one.event.finished
                if one.event.error is not None:
                    raise one.event.error
                yield one
        finally:
            del self._queues[ticket]
            if left:
                self._worker.cancel(ticket)

    async def _behind_guard(
        self, served: Served, rows: Sequence[SequenceState]
    ) -> list[Completion]:
        """The completions that the guard lets through, and its sentence for the others."""
        guard = served.guard
        assert guard is not None
        asked = [guarded_text(row.request, served.tokenizer) for row in rows]
        through = await self._call(lambda: admitted(guard, asked))
        made: dict[int, Completion] = {}
        async with aclosing(self._unguarded(served, [rows[i] for i in through], False)) as found:
            async for index, event in found:
                assert event.completion is not None
                made[through[index]] = event.completion
        return await self._call(lambda: checked(guard, asked, made))

    # From the thread to the loop: once per step, not once per event.

    def _post(self, events: Sequence[tuple[Ticket, RowEvent]]) -> None:
        self._loop.call_soon_threadsafe(self._dispatch, events)

    def _dispatch(self, events: Sequence[tuple[Ticket, RowEvent]]) -> None:
        for ticket, event in events:
            if (queue := self._queues.get(ticket)) is not None:  # or it was cancelled meanwhile
                queue.put_nowait(event)
