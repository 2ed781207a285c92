"""The server's addresses: OpenAI's interface to the models that are served.

    GET  /                                              a page to talk with them in a browser
    GET  /v1/models  /v1/models/NAME  /health
    POST /v1/chat/completions  /v1/completions          with "stream": true piece by piece

When a client disconnects, its completions are cancelled. Requests that cannot be answered are
refused in OpenAI's form, `{"error": {"message", "type", "param", "code"}}`.
"""

from __future__ import annotations

import asyncio
import time
import traceback
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import (
    AbstractAsyncContextManager,
    aclosing,
    asynccontextmanager,
    contextmanager,
)
from typing import TypeVar

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from groundup.errors import UserError, nearest, shorten
from groundup.formats.weights import listed
from groundup.generation.engine import Event
from groundup.generation.request import Completion, PromptTooLong
from groundup.lm.logprobs import NON_FINITE_LOGITS
from groundup.runs.console import counted
from groundup.serve.admission import (
    JSON,
    Admission,
    BadRequest,
    encoded,
    log,
    read_body,
    refusal,
    refused,
    talk_page,
)
from groundup.serve.async_engine import AsyncEngine
from groundup.serve.models import Models
from groundup.serve.protocol import (
    ChatCompletionRequest,
    CompletionRequest,
    GenerationRequest,
    parsed,
)
from groundup.serve.replies import ChatReply, CompletionReply, Json, Reply
from groundup.serve.worker import Busy, RowEvent, Served, Stopped

T = TypeVar("T")
Endpoint = Callable[[Request], Awaitable[Response]]
B = TypeVar("B", bound=GenerationRequest)
# Keeps proxies from waiting for a stream's end before they pass it on.
_STREAMED = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}


class API:
    """Answers the requests that `admission` admits; `app` is the ASGI application."""

    def __init__(
        self, models: Models, admission: Admission, *, batch_size: int, waiting: int
    ) -> None:
        self._models, self._admission = models, admission
        self._created = int(time.time())
        self._engine = AsyncEngine(batch_size=batch_size, waiting=waiting)
        across = Middleware(
            CORSMiddleware,
            allow_origins=list(admission.allow_origins),
            allow_methods=["GET", "POST"],
            allow_headers=["*"],
        )
        self.app = Starlette(
            routes=[
                Route("/", self._checked(self._page, keyed=False)),
                Route("/health", self._checked(self._health, keyed=False)),
                Route("/v1/models", self._checked(self._list)),
                Route("/v1/models/{name:path}", self._checked(self._show)),
                Route("/v1/chat/completions", self._checked(self._chat), methods=["POST"]),
                Route("/v1/completions", self._checked(self._complete), methods=["POST"]),
            ],
            middleware=[across] if admission.allow_origins else [],
            exception_handlers={HTTPException: _not_found},
            lifespan=self._lifespan,
        )
        self.app.router.redirect_slashes = False

    @asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncIterator[None]:
        async with self.running():
            yield

    def running(self) -> AbstractAsyncContextManager[None]:
        """A context in which models compute, for applications that pass requests on to `app`."""
        return self._engine.running()

    async def _page(self, _: Request) -> Response:
        return talk_page()

    async def _health(self, _: Request) -> Response:
        status = "ok" if self._engine.is_alive else "stopped"
        health = {"status": status, "unfinished": self._engine.unfinished}
        return JSON(health, 200 if self._engine.is_alive else 503)

    async def stop(self) -> None:
        """Stop generating; waiting clients are told so."""
        await self._engine.stop()

    # Models.

    async def _list(self, _: Request) -> Response:
        names = await self._models.names()
        models = [self._entry(name, self._models.loaded(name)) for name in names]
        return JSON({"object": "list", "data": models})

    async def _show(self, request: Request) -> Response:
        served = await self._served(request.path_params["name"])
        return JSON(self._entry(served.name, served))

    def _entry(self, name: str, served: Served | None) -> Json:
        """A model's entry in the list; one that is not loaded yet has only a name."""
        entry: Json = {
            "id": name,
            "object": "model",
            "created": self._created,
            "owned_by": "groundup",
        }
        if served is None:
            return entry
        return entry | {
            "max_model_len": served.model.config.max_position_embeddings,
            "about": served.about,
            "suggestions": served.suggestions,
            "guarded": served.guard is not None,
        }

    async def _served(self, name: str | None) -> Served:
        """The model with this name; without a name, the only one that there is."""
        if name is None:
            names = await self._models.names()
            if len(names) != 1:
                raise BadRequest(f"model is missing; served are {listed(names) or 'none'}", "model")
            name = next(iter(names))
        served = await self._models.load(name)
        if served is None:
            names = await self._models.names()
            near = nearest(name[:200], names)
            hint = "served" if near is None else f"did you mean {near!r}? Served"
            said = f"model={shorten(name)} is not served; {hint} are {listed(names) or 'none'}"
            raise BadRequest(said, "model", "model_not_found", 404)
        return served

    # Completions.

    async def _chat(self, request: Request) -> Response:
        body = await _parsed(ChatCompletionRequest, request)
        served = await self._served(body.model)
        self._engine.require_room(body.n)
        made = self._engine.rows(served, lambda: [body.request(served)], body.n)
        rows = await _unless_disconnected(request, made)
        calls = body.call_format(served)
        reply = ChatReply(served, rows, with_logprobs=body.logprobs, calls=calls)
        events = self._engine.events(served, rows, streams=body.stream)
        return await self._reply(request, body, reply, events)

    async def _complete(self, request: Request) -> Response:
        body = await _parsed(CompletionRequest, request)
        served = await self._served(body.model)
        self._engine.require_room(len(body.prompts) * body.n)
        made = self._engine.rows(served, lambda: body.requests(served), body.n)
        rows = await _unless_disconnected(request, made)
        reply = CompletionReply(served, rows, logprobs=body.logprobs, echo=body.echo)
        if body.echo and body.logprobs is not None:
            for row in rows[:: body.n]:
                known = self._engine.prompt_logprobs(served, row.prompt, body.logprobs)
                reply.prompt_logprobs += [await _unless_disconnected(request, known)] * body.n
        events = self._engine.events(served, rows, streams=body.stream)
        return await self._reply(
            request, body, reply, _empty_events(len(rows)) if body.only_echoes else events
        )

    async def _reply(
        self,
        request: Request,
        body: GenerationRequest,
        reply: Reply,
        events: AsyncGenerator[RowEvent],
    ) -> Response:
        if not body.stream:
            with _logged(reply):
                return JSON(await _unless_disconnected(request, reply.whole(events)))
        chunks = reply.chunks(events, tells_usage=body.stream_options.include_usage)
        # The first chunk is awaited here, so that a refusal has a status of its own.
        first = await _unless_disconnected(request, anext(chunks))

        async def stream() -> AsyncIterator[bytes]:
            with _logged(reply):
                async with aclosing(events):
                    try:
                        yield _event(first)
                        async for chunk in chunks:
                            yield _event(chunk)
                    except Exception as error:
                        yield _event(_error_response(error)[1])
                    yield b"data: [DONE]\n\n"

        return StreamingResponse(stream(), media_type="text/event-stream", headers=_STREAMED)

    # Admission and refusals.

    def _checked(self, endpoint: Endpoint, *, keyed: bool = True) -> Endpoint:
        """The endpoint behind its checks, with its errors as responses in OpenAI's form."""

        async def answer(request: Request) -> Response:
            try:
                self._admission.admit(request, keyed=keyed)
                return await endpoint(request)
            except ClientDisconnect:
                return Response(status_code=499)  # nobody reads it
            except Exception as error:
                status, said = _error_response(error)
                return refusal(status, said)

        return answer


async def _parsed(kind: type[B], request: Request) -> B:
    """The body of a request. Raises BadRequest."""
    return await asyncio.to_thread(parsed, kind, await read_body(request))


async def _unless_disconnected(request: Request, made: Awaitable[T]) -> T:
    """Await `made`, but cancel it when the client disconnects.

    Raises ClientDisconnect.
    """
    making = asyncio.ensure_future(made)
    leaving = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait({making, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not making.done():
            raise ClientDisconnect
        return making.result()
    finally:
        making.cancel()
        leaving.cancel()
        await asyncio.gather(making, leaving, return_exceptions=True)


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _empty_events(rows: int) -> AsyncGenerator[RowEvent]:
    """The events of rows for which nothing is generated."""
    for index in range(rows):
        yield RowEvent(index, Event(index, completion=Completion("", [], [], "length")))


@contextmanager
def _logged(reply: Reply) -> Iterator[None]:
    """Print an answer's token counts in the terminal, however it ends."""
    try:
        yield
    finally:
        if reply.completions or reply.generated:
            took = f"{reply.seconds:.2f} s"
            ended = "" if len(reply.completions) == len(reply.rows) else "; not finished"
            name, read = reply.served.name, counted(reply.read, "token")
            log(f"{name}: {read} read, {reply.generated:,} generated in {took}{ended}")


# Responses.


def _event(content: Json) -> bytes:
    return b"data: " + encoded(content) + b"\n\n"


def _error_response(error: Exception) -> tuple[int, Json]:
    """The status of an error, and its response."""
    if isinstance(error, BadRequest):
        return error.status, error.to_json()
    if isinstance(error, PromptTooLong):
        # Clients that do not look at the code recognize these words.
        said = f"prompt is too long: {error}"
        return 400, refused(said, code="context_length_exceeded")
    if isinstance(error, UserError):
        # Damaged weights are not the client's fault.
        is_theirs = str(error) != NON_FINITE_LOGITS
        type = "invalid_request_error" if is_theirs else "server_error"
        return 400 if is_theirs else 500, refused(str(error), type=type)
    if isinstance(error, Busy):
        busy = "too many completions are waiting; try again in a while"
        return 429, refused(busy, code="rate_limit_exceeded", type="rate_limit_error")
    if isinstance(error, Stopped):
        return 503, refused("the server is being stopped", type="server_error")
    traceback.print_exception(error)
    return 500, refused(f"the server failed: {shorten(str(error))}", type="server_error")


async def _not_found(request: Request, error: Exception) -> Response:
    """The response to an unknown address, or to a method that it does not support."""
    assert isinstance(error, HTTPException)
    path = shorten(request.url.path)[1:-1]
    there = "GET /v1/models, POST /v1/chat/completions and POST /v1/completions"
    said = refused(f"{request.method} {path} is not an address of this server; there are {there}")
    return JSON(said, error.status_code, headers=error.headers)
