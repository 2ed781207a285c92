"""One thread computes for all clients: their requests join and leave the engine's running batch.

    worker = Worker(post)                              # post(pairs) is called from the thread
    ticket = worker.submit(served, rows)               # from any thread
    post([(ticket, Answer(place, event)), …])          # after every step, for those that wait
    worker.cancel(ticket)

A server's own loop only reads and writes; it never waits for a model. One thread, and not one for
each model, because the products of two models at a time wait for the same cores.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

import torch

from groundup.adapters.attach import active_adapter, using_adapter
from groundup.generation.engine import BATCH_SIZE, Engine, Event
from groundup.generation.guarded import Guard
from groundup.generation.request import SequenceState
from groundup.generation.sampling import Sampling
from groundup.lm.model import CausalLM
from groundup.text.tokenizer import Tokenizer

T = TypeVar("T")
# Completions that may wait for a place in the batch, by default.
WAITING = 256


@dataclass(frozen=True, eq=False)
class Served:
    """A model under the name by which clients ask for it.

    `sampling` is how it draws where a request does not say. People are told what it is `about`, in
    paragraphs, and what one `tries` first. `adapter` is the one of the model's adapters that
    answers under this name, None the model without any. A `guard` stops messages and answers.
    """

    name: str
    model: CausalLM
    tokenizer: Tokenizer
    sampling: Sampling
    about: tuple[str, ...] = ()
    tries: tuple[str, ...] = ()
    adapter: str | None = None
    guard: Guard | None = None

    def answering(self) -> AbstractContextManager[None]:
        """A context in which the model is the one that this name means."""
        as_it_is = active_adapter(self.model) == self.adapter
        return nullcontext() if as_it_is else using_adapter(self.model, self.adapter)


class Answer(NamedTuple):
    """An event of the row that stands at `place` among those of its ticket."""

    place: int
    event: Event


Post = Callable[[Sequence[tuple["Ticket", Answer]]], None]


@dataclass(eq=False)
class Ticket:
    """Rows that were handed in together. With `streams` every token is told, else only the end."""

    served: Served
    rows: Sequence[SequenceState]
    streams: bool
    ids: dict[int, int] = field(default_factory=dict)
    """The engine's number of each row that has not ended, and the row's place."""


class Busy(Exception):
    """More completions wait than the server takes."""


class Worker:
    """The thread, and an engine for every name that was asked for."""

    def __init__(
        self, post: Post, *, batch_size: int = BATCH_SIZE, most_waiting: int = WAITING
    ) -> None:
        self._post, self._batch_size = post, batch_size
        self._most = batch_size + most_waiting
        self._engines: dict[Served, Engine] = {}
        self._tickets: dict[Served, dict[int, Ticket]] = {}
        # What other threads ask for, which is done between two steps.
        self._wake = threading.Condition()
        self._orders: list[Callable[[], None]] = []
        self._closed = False
        self._unfinished = 0
        # A thread begins with the number of threads that PyTorch itself would take.
        self._threads = torch.get_num_threads()
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    @property
    def unfinished(self) -> int:
        """The number of completions that run or wait."""
        return self._unfinished

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """End the thread after the step that it is at."""
        self._order(self._close)
        self._thread.join()

    def submit(
        self, served: Served, rows: Sequence[SequenceState], *, streams: bool = False
    ) -> Ticket:
        """Queue rows that were made for the model. Raises Busy where too many wait already."""
        ticket = Ticket(served, rows, streams)
        with self._wake:
            if self._unfinished + len(rows) > self._most:
                raise Busy
            self._unfinished += len(rows)
        self._order(lambda: self._enqueue(ticket))
        return ticket

    def cancel(self, ticket: Ticket) -> None:
        """Drop what has not ended of a ticket; nothing more is told of it."""
        self._order(lambda: self._drop(ticket))

    def call(self, function: Callable[[], T]) -> Future[T]:
        """Run a function between two steps, when nothing else computes."""
        done = Future[T]()

        def run() -> None:
            if not done.set_running_or_notify_cancel():
                return
            try:
                done.set_result(function())
            except Exception as error:
                done.set_exception(error)

        self._order(run)
        return done

    def _order(self, order: Callable[[], None]) -> None:
        with self._wake:
            self._orders.append(order)
            self._wake.notify()

    # What runs in the thread.

    def _run(self) -> None:
        torch.set_num_threads(self._threads)
        while not self._closed:
            with self._wake:
                self._wake.wait_for(lambda: self._orders or self._busy())
                orders, self._orders = self._orders, []
            for order in orders:
                order()
            for served, engine in list(self._engines.items()):
                if engine.unfinished:
                    self._step(served, engine)

    def _busy(self) -> bool:
        return any(engine.unfinished for engine in self._engines.values())

    def _close(self) -> None:
        self._closed = True

    def _enqueue(self, ticket: Ticket) -> None:
        try:
            engine = self._engine_of(ticket.served)
        except Exception as error:  # no memory for it
            self._finish(len(ticket.rows))
            failed = Event(0, error=error)
            self._post([(ticket, Answer(place, failed)) for place in range(len(ticket.rows))])
            return
        for place, row in enumerate(ticket.rows):
            id = engine.enqueue(row)
            ticket.ids[id] = place
            self._tickets[ticket.served][id] = ticket

    def _engine_of(self, served: Served) -> Engine:
        if served not in self._engines:
            with served.answering():
                self._engines[served] = Engine(
                    served.model,
                    served.tokenizer,
                    batch_size=self._batch_size,
                    reproducible=False,
                )
            self._tickets[served] = {}
        return self._engines[served]

    def _drop(self, ticket: Ticket) -> None:
        for id in list(ticket.ids):
            self._engines[ticket.served].cancel(id)
            self._end(ticket, id)

    def _step(self, served: Served, engine: Engine) -> None:
        """One more token for every running row of a name, told to those who wait for it."""
        tickets = self._tickets[served]
        try:
            with served.answering():
                events = engine.step()
        except Exception as error:
            # The engine cannot go on (no memory left), and the next request gets a new one.
            del self._engines[served]
            events = [Event(id, error=error) for id in tickets]
        told = []
        for event in events:
            ticket = tickets[event.id]
            if ticket.streams or event.finished:
                told.append((ticket, Answer(ticket.ids[event.id], event)))
            if event.finished:
                self._end(ticket, event.id)
        if told:
            self._post(told)

    def _end(self, ticket: Ticket, id: int) -> None:
        del ticket.ids[id], self._tickets[ticket.served][id]
        self._finish(1)

    def _finish(self, rows: int) -> None:
        with self._wake:
            self._unfinished -= rows
