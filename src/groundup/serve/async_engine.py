"""The engine for a server's loop: rows in, their events out, behind a guard if there is one.

    async with engine.running():
        rows = await engine.rows(served, [request])
        async for place, event in engine.answers(served, rows, streams=True):
            ...

Whoever stops reading has the rest cancelled.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import torch

from groundup.errors import UserError
from groundup.generation.engine import Event
from groundup.generation.guarded import Guard, asked_of, stopped_by, stopped_completion
from groundup.generation.request import (
    Completion,
    InputProcessor,
    Request,
    SequenceState,
    TopLogprobs,
)
from groundup.lm.logprobs import NO_NUMBERS
from groundup.lm.model import in_eval_mode, uncompiled
from groundup.serve.worker import Answer, Served, Ticket, Worker
from groundup.train.batch import Batch

# Positions whose logits are made together: of a vocabulary of 150,000 they are 40 megabytes.
_POSITIONS = 64
PromptLogprobs = tuple[list[float], list[TopLogprobs]]


class AsyncEngine:
    """Answers for the models that are served. Its methods are called in one event loop."""

    def __init__(self, *, batch_size: int, most_waiting: int) -> None:
        self._worker = Worker(self._post, batch_size=batch_size, most_waiting=most_waiting)
        self._queues: dict[Ticket, asyncio.Queue[Answer]] = {}
        # One thread at a time reads texts, and one asks guards: neither is made for several.
        self._reading, self._guarding = asyncio.Lock(), asyncio.Lock()

    @property
    def unfinished(self) -> int:
        """The number of completions that run or wait."""
        return self._worker.unfinished

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """A context in which the thread computes."""
        self._loop = asyncio.get_running_loop()
        self._worker.start()
        try:
            yield
        finally:
            await asyncio.to_thread(self._worker.close)

    async def rows(self, served: Served, requests: Sequence[Request]) -> list[SequenceState]:
        """The requests as tokens; equal ones are numbered, so that each draws its own answer.

        Raises `UserError` for a prompt that is empty or longer than the model's context.
        """

        def process() -> list[SequenceState]:
            # Of this call alone: a seed that is asked for again gives the same again.
            processor = InputProcessor(served.model.config, served.tokenizer)
            return [processor.process(one) for one in requests]

        async with self._reading:
            return await asyncio.to_thread(process)

    async def answers(
        self, served: Served, rows: Sequence[SequenceState], *, streams: bool = False
    ) -> AsyncIterator[Answer]:
        """The events of rows as they come: of each token if it `streams`, else of the end alone.

        Behind a guard there is one event for each row. Raises Busy where too many wait, and what a
        row ended by.
        """
        if served.guard is None:
            async for answer in self._events(served, rows, streams):
                yield answer
            return
        for place, completion in enumerate(await self._behind(served.guard, served, rows)):
            yield Answer(place, Event(place, text=completion.text, completion=completion))

    async def completions(self, served: Served, rows: Sequence[SequenceState]) -> list[Completion]:
        """The completions of rows, in their order. Raises as `answers` does."""
        found: dict[int, Completion] = {}
        async for place, event in self.answers(served, rows):
            assert event.completion is not None
            found[place] = event.completion
        return [found[place] for place in range(len(rows))]

    async def prompt_logprobs(
        self, served: Served, ids: Sequence[int], likeliest: int
    ) -> PromptLogprobs:
        """log p in nats of every token of a prompt but the first, and the likeliest of each place.

        Raises `UserError` for a model whose logits are no numbers.
        """
        done = self._worker.call(lambda: _prompt_logprobs(served, ids, likeliest))
        return await asyncio.wrap_future(done)

    async def _events(
        self, served: Served, rows: Sequence[SequenceState], streams: bool
    ) -> AsyncIterator[Answer]:
        queue = asyncio.Queue[Answer]()
        ticket = self._worker.submit(served, rows, streams=streams)
        self._queues[ticket] = queue
        left = len(rows)
        try:
            while left:
                answer = await queue.get()
                left -= answer.event.finished
                if answer.event.error is not None:
                    raise answer.event.error
                yield answer
        finally:
            del self._queues[ticket]
            if left:
                self._worker.cancel(ticket)

    async def _behind(
        self, guard: Guard, served: Served, rows: Sequence[SequenceState]
    ) -> list[Completion]:
        """The completions that a guard lets through, and its sentence for the others."""
        asked = [asked_of(row.request, served.tokenizer) for row in rows]
        through = [i for i, stops in enumerate(await self._stopped(guard, asked)) if not stops]
        found = [stopped_completion()] * len(rows)
        made = [answer async for answer in self._events(served, [rows[i] for i in through], False)]
        said = {through[place]: event.completion for place, event in made}
        texts = [one.text for one in said.values() if one is not None]
        late = await self._stopped(guard, [asked[i] for i in said], texts)
        for (i, completion), stops in zip(said.items(), late, strict=True):
            if completion is not None and not stops:
                found[i] = completion
        return found

    async def _stopped(
        self, guard: Guard, messages: Sequence[str], answers: Sequence[str] | None = None
    ) -> list[bool]:
        async with self._guarding:
            found = await asyncio.to_thread(stopped_by, guard, messages, answers)
        stops: list[bool] = found.tolist()
        return stops

    # From the thread to the loop: once for a step, and not for each of its events.

    def _post(self, answers: Sequence[tuple[Ticket, Answer]]) -> None:
        self._loop.call_soon_threadsafe(self._hand_out, answers)

    def _hand_out(self, answers: Sequence[tuple[Ticket, Answer]]) -> None:
        for ticket, answer in answers:
            if (queue := self._queues.get(ticket)) is not None:  # or it was cancelled meanwhile
                queue.put_nowait(answer)


@torch.inference_mode()
def _prompt_logprobs(served: Served, ids: Sequence[int], likeliest: int) -> PromptLogprobs:
    model = served.model
    chosen, tops = list[float](), list[TopLogprobs]()
    with in_eval_mode(model), uncompiled(model), served.answering():
        hidden = model(Batch.of(torch.tensor([ids], device=model.like.device)))[0]
        targets = torch.tensor(ids[1:], device=model.like.device)
        for start in range(0, len(targets), _POSITIONS):
            these = targets[start : start + _POSITIONS]
            states = hidden[start : start + len(these)]
            logp = model.lm_head(states).float().log_softmax(-1)
            if not bool(logp[:, 0].isfinite().all()):
                raise UserError(NO_NUMBERS)
            chosen += logp.gather(-1, these[:, None])[:, 0].tolist()
            best = logp.topk(min(likeliest, logp.shape[-1]))
            pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
            tops += [dict(zip(ids, values, strict=True)) for ids, values in pairs]
    return chosen, tops
