"""One thread computes for all clients: requests join and leave the engine's running batch.

    worker = Worker(post, …)                           # post(pairs) is called from the thread
    ticket = worker.submit(served, rows)               # from any thread
    post([(ticket, RowEvent(row, event)), …])          # after every step, for those that wait
    worker.cancel(ticket)

A server's event loop only reads and writes; it never waits for a model. There is one thread instead
of one per model, because two models that compute at once wait for the same cores.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple, TypeVar
from weakref import WeakKeyDictionary

import torch

from groundup.adapters.attach import active_adapter, adapter_names, using_adapter
from groundup.errors import UserError
from groundup.generation.engine import Engine, Event
from groundup.generation.guarded import Guard
from groundup.generation.request import SequenceState
from groundup.generation.sampling import Sampling
from groundup.lm.model import CausalLM
from groundup.serve.tool_calls import CallFormat, call_format
from groundup.text.tokenizer import Tokenizer

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Served:
    """A model under the name by which clients request it.

    `sampling` has the settings that a request leaves out; `longest` is then the maximum number of
    tokens of an answer, None as many as fit. `about` describes the model to people, in paragraphs,
    and `suggestions` are questions to ask it. `adapter` is the adapter that is active under this
    name, None for the model without any. A `guard` stops messages and answers.
    """

    name: str
    model: CausalLM
    tokenizer: Tokenizer
    sampling: Sampling
    longest: int | None = None
    about: tuple[str, ...] = ()
    suggestions: tuple[str, ...] = ()
    adapter: str | None = None
    guard: Guard | None = None

    def answering(self) -> AbstractContextManager[None]:
        """A context in which the model has the adapter of this name."""
        if not self._has_adapters or active_adapter(self.model) == self.adapter:
            return nullcontext()
        return using_adapter(self.model, self.adapter)

    @cached_property
    def call_format(self) -> CallFormat | None:
        """How its chat template writes tool calls, if the format is known."""
        return call_format(self.tokenizer)

    @cached_property
    def _has_adapters(self) -> bool:
        return bool(adapter_names(self.model))


class RowEvent(NamedTuple):
    """An event, and the index of the ticket's row that it belongs to."""

    row: int
    event: Event


Post = Callable[[Sequence[tuple["Ticket", RowEvent]]], None]


@dataclass(eq=False)
class Ticket:
    """Rows that were submitted together. With `streams`, every token is posted, else the end."""

    served: Served
    rows: Sequence[SequenceState]
    streams: bool
    ids: dict[int, int] = field(default_factory=dict)
    """The index of each row that has not ended, by the engine's number."""


class Busy(Exception):
    """More completions wait than the server accepts."""


class Stopped(Exception):
    """The thread does not compute any more."""


class Worker:
    """The thread, and an engine for every name that was requested."""

    def __init__(self, post: Post, *, batch_size: int, waiting: int) -> None:
        self._post, self._batch_size = post, batch_size
        self._most = batch_size + waiting
        # A model that is no longer served or used frees its memory; unfinished answers hold it by
        # their tickets.
        self._engines = WeakKeyDictionary[Served, Engine]()
        self._tickets = WeakKeyDictionary[Served, dict[int, Ticket]]()
        # What other threads have requested, which is done between two steps.
        self._wake = threading.Condition()
        self._orders: list[Callable[[], None]] = []
        self._calls: deque[tuple[Callable[[], Any], Future[Any]]] = deque()
        self._closed = False
        self._unfinished = 0
        # A new thread would begin with PyTorch's own number of threads.
        self._threads = torch.get_num_threads()
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    @property
    def unfinished(self) -> int:
        """The number of completions that run or wait."""
        return self._unfinished

    @property
    def is_alive(self) -> bool:
        """Whether the thread computes."""
        return self._thread.is_alive()

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """End the thread after its current step; rows that have not ended get Stopped."""
        with suppress(Stopped):
            self._order(self._close)
        self._thread.join()

    def submit(
        self, served: Served, rows: Sequence[SequenceState], *, streams: bool = False
    ) -> Ticket:
        """Queue rows that were made for the model.

        Raises Busy if too many are waiting, `UserError` for more than may ever wait, and Stopped
        after the end.
        """
        self.require_room(len(rows))
        ticket = Ticket(served, rows, streams)
        with self._wake:
            self._unfinished += len(rows)
        self._order(lambda: self._enqueue(ticket))
        return ticket

    def cancel(self, ticket: Ticket) -> None:
        """Drop the rows of a ticket that have not ended; nothing more is posted for them."""
        with suppress(Stopped):  # then nothing more is posted anyway
            self._order(lambda: self._drop(ticket))

    def require_room(self, rows: int) -> None:
        """Raise Busy or `UserError` as `submit` does for this number of rows."""
        if rows > self._most:
            raise UserError(
                f"{rows:,} completions are requested at once, and this server takes {self._most:,} "
                "together; request fewer, or start it with a larger --waiting"
            )
        if self._unfinished + rows > self._most:
            raise Busy

    def call(self, function: Callable[[], T]) -> Future[T]:
        """Run a function while nothing else computes, one such function between two steps.

        Raises Stopped after the end; if the end comes before its turn, the future raises it.
        """
        done = Future[T]()
        self._order(lambda: self._calls.append((function, done)))
        return done

    def _order(self, order: Callable[[], None]) -> None:
        with self._wake:
            if self._closed:
                raise Stopped
            self._orders.append(order)
            self._wake.notify()

    # In the thread.

    def _run(self) -> None:
        torch.set_num_threads(self._threads)
        try:
            self._compute()
        finally:
            self._end_all()

    def _end_all(self) -> None:
        """Tell everyone who waits that the thread has ended."""
        with self._wake:
            self._closed = True
            orders, self._orders = self._orders, []
        for order in orders:
            order()
        for served in list(self._engines):
            self._fail(served, Stopped())
        for _, done in self._calls:
            if done.set_running_or_notify_cancel():
                done.set_exception(Stopped())

    def _compute(self) -> None:
        while not self._closed:
            with self._wake:
                self._wake.wait_for(lambda: self._orders or self._calls or self._busy())
                orders, self._orders = self._orders, []
            self._do(orders)
            # Otherwise finished orders would be held here until the next ones.
            del orders

    def _do(self, orders: Sequence[Callable[[], None]]) -> None:
        for order in orders:
            order()
        if self._calls:
            _call(*self._calls.popleft())
        for served, engine in list(self._engines.items()):
            if engine.unfinished:
                self._step(served, engine)

    def _busy(self) -> bool:
        return any(engine.unfinished for engine in self._engines.values())

    def _close(self) -> None:
        with self._wake:
            self._closed = True

    def _enqueue(self, ticket: Ticket) -> None:
        served = ticket.served
        try:
            engine = self._engine_of(served)
        except Exception as error:  # out of memory
            self._finish(len(ticket.rows))
            failed = Event(0, error=error)
            self._post([(ticket, RowEvent(index, failed)) for index in range(len(ticket.rows))])
            return
        for index, row in enumerate(ticket.rows):
            id = engine.enqueue(row)
            ticket.ids[id] = index
            self._tickets[served][id] = ticket

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
            self._end(ticket, id)
            try:
                self._engines[ticket.served].cancel(id)
            except Exception as error:
                self._fail(ticket.served, error)
                return

    def _step(self, served: Served, engine: Engine) -> None:
        """Generate one more token for every running row of a model, and post it."""
        try:
            with served.answering():
                events = engine.step()
        except Exception as error:  # out of memory
            self._fail(served, error)
        else:
            self._tell(served, events)

    def _fail(self, served: Served, error: Exception) -> None:
        """End all requests of an engine that cannot go on; the next request gets a new one."""
        del self._engines[served]
        self._tell(served, [Event(id, error=error) for id in self._tickets[served]])

    def _tell(self, served: Served, events: Sequence[Event]) -> None:
        posted = []
        for event in events:
            ticket = self._tickets[served][event.id]
            if ticket.streams or event.finished:
                posted.append((ticket, RowEvent(ticket.ids[event.id], event)))
            if event.finished:
                self._end(ticket, event.id)
        if posted:
            self._post(posted)

    def _end(self, ticket: Ticket, id: int) -> None:
        del ticket.ids[id], self._tickets[ticket.served][id]
        self._finish(1)

    def _finish(self, rows: int) -> None:
        with self._wake:
            self._unfinished -= rows


def _call(function: Callable[[], T], done: Future[T]) -> None:
    if not done.set_running_or_notify_cancel():
        return
    try:
        done.set_result(function())
    except Exception as error:
        done.set_exception(error)
