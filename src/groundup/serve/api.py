"""The server's addresses: OpenAI's interface over the models that are served.

    GET  /                                              a page to talk with them in a browser
    GET  /v1/models  /v1/models/NAME  /health
    POST /v1/chat/completions  /v1/completions          with "stream": true piece by piece

A client that leaves has its completions cancelled. What cannot be answered is refused in OpenAI's
form, `{"error": {"message", "type", "param", "code"}}`.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import time
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any, TypeVar
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from groundup.errors import UserError, known_names, shorten
from groundup.generation.request import PromptTooLong
from groundup.report.page import drawn_html
from groundup.runs.console import counted, say
from groundup.serve.async_engine import AsyncEngine
from groundup.serve.protocol import ChatBody, CompletionBody, Refused, parsed
from groundup.serve.replies import ChatReply, CompletionReply, Json, Reply
from groundup.serve.worker import Busy, Served

T = TypeVar("T")
Handler = Callable[[Request], Awaitable[Response]]
# A conversation of a million tokens has some four megabytes.
_MOST_BYTES = 8 * 2**20
# The page runs and fetches nothing but what is in it and on this server, and stands in no other.
_ALONE = {
    "Content-Security-Policy": "default-src 'none'; script-src 'unsafe-inline'; "
    "style-src 'unsafe-inline'; connect-src 'self'; img-src data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
}
# Proxies must not wait for a stream's end before they pass it on.
_STREAMED = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}


class API:
    """What the addresses do; `app` is the ASGI application.

    With an `api_key` all of /v1 asks for it. Pages of `allow_origins` may use it in a browser, and
    no others ("*": all). A request must name one of `allow_hosts` as its host if there are any: a
    name that a stranger's page has turned to this machine is none of them (DNS rebinding).
    """

    def __init__(
        self,
        models: Sequence[Served],
        *,
        batch_size: int,
        most_waiting: int,
        api_key: str | None = None,
        allow_origins: Sequence[str] = (),
        allow_hosts: Sequence[str] = (),
    ) -> None:
        self._models = {one.name: one for one in models}
        self._api_key, self._created = api_key, int(time.time())
        self._origins, self._hosts = allow_origins, allow_hosts
        self._engine = AsyncEngine(batch_size=batch_size, most_waiting=most_waiting)
        across = Middleware(
            CORSMiddleware,
            allow_origins=list(allow_origins),
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
            middleware=[across] if allow_origins else [],
            exception_handlers={HTTPException: _no_address},
            lifespan=self._lifespan,
        )

    @asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncIterator[None]:
        async with self._engine.running():
            yield

    async def _page(self, _: Request) -> Response:
        return HTMLResponse(drawn_html("chat.html.jinja", None), headers=_ALONE)

    async def _health(self, _: Request) -> Response:
        return JSONResponse({"status": "ok", "unfinished": self._engine.unfinished})

    # Models.

    async def _list(self, _: Request) -> Response:
        return JSONResponse({"object": "list", "data": [*map(self._told, self._models.values())]})

    async def _show(self, request: Request) -> Response:
        return JSONResponse(self._told(self._served(request.path_params["name"])))

    def _told(self, served: Served) -> Json:
        return {
            "id": served.name,
            "object": "model",
            "created": self._created,
            "owned_by": "groundup",
            "max_model_len": served.model.config.max_position_embeddings,
            "about": served.about,
            "tries": served.tries,
        }

    def _served(self, name: str | None) -> Served:
        """The model of a name; without one, the only one that there is."""
        if name is None and len(self._models) == 1:
            return next(iter(self._models.values()))
        if name is None:
            raise Refused(f"model is missing; served are {', '.join(self._models)}", "model")
        if name not in self._models:
            hint = known_names(name, self._models, "served are")
            raise Refused(
                f"model={shorten(name)} is not served; {hint}", "model", "model_not_found", 404
            )
        return self._models[name]

    # Completions.

    async def _chat(self, request: Request) -> Response:
        body = parsed(ChatBody, await _read(request))
        served = self._served(body.model)
        asked = body.request(served.tokenizer, served.sampling)
        rows = await self._engine.rows(served, [asked] * body.copies)
        reply = ChatReply(served, rows, with_logprobs=bool(body.logprobs), may_call=body.may_call)
        return await self._reply(request, reply, bool(body.stream), body.tells_usage)

    async def _complete(self, request: Request) -> Response:
        body = parsed(CompletionBody, await _read(request))
        served, copies = self._served(body.model), body.copies
        asked = body.requests(served.sampling)
        rows = await self._engine.rows(served, [one for one in asked for _ in range(copies)])
        reply = CompletionReply(served, rows, logprobs=body.logprobs, echo=bool(body.echo))
        if body.echo and body.logprobs is not None:
            for row in rows[::copies]:
                known = self._engine.prompt_logprobs(served, row.prompt, body.logprobs)
                reply.prompt_logprobs += [await known] * copies
        return await self._reply(request, reply, bool(body.stream), body.tells_usage)

    async def _reply(
        self, request: Request, reply: Reply, stream: bool, tells_usage: bool
    ) -> Response:
        answers = self._engine.answers(reply.served, reply.rows, streams=stream)
        if not stream:
            with _logged(reply):
                return _JSON(await _while_there(request, reply.whole(answers)))
        chunks = reply.chunks(answers, tells_usage=tells_usage)
        # With the first one awaited here, what is refused has a status of its own.
        first = await _while_there(request, anext(chunks))

        async def events() -> AsyncIterator[bytes]:
            with _logged(reply):
                try:
                    yield _event(first)
                    async for chunk in chunks:
                        yield _event(chunk)
                except Exception as error:
                    yield _event(_failure(error)[1])
                yield b"data: [DONE]\n\n"

        return StreamingResponse(events(), media_type="text/event-stream", headers=_STREAMED)

    # Who may ask, and what is refused.

    def _checked(self, handler: Handler, *, keyed: bool = True) -> Handler:
        """The handler behind its checks, with what it raises in OpenAI's form."""

        async def handle(request: Request) -> Response:
            try:
                self._admit(request, keyed)
                return await handler(request)
            except ClientDisconnect:
                return Response(status_code=499)  # nobody reads it
            except Exception as error:
                status, body = _failure(error)
                return _JSON(body, status)

        return handle

    def _admit(self, request: Request, keyed: bool) -> None:
        host, origin = request.url.hostname, request.headers.get("origin")
        if self._hosts and host not in self._hosts:
            raise Refused(
                f"host={shorten(host)} must be one of {', '.join(self._hosts)}", status=403
            )
        # A browser says whose page it is that asks.
        is_own = origin is not None and urlsplit(origin).netloc == request.url.netloc
        if not (origin is None or is_own or {origin, "*"} & set(self._origins)):
            raise Refused(
                f"pages of {shorten(origin)} may not ask; --allow-origins admits them",
                status=403,
            )
        given = request.headers.get("authorization", "").removeprefix("Bearer ").encode()
        if keyed and self._api_key and not secrets.compare_digest(given, self._api_key.encode()):
            raise Refused(
                "the API key is missing or wrong; send the one of groundup serve --api-key as "
                "Authorization: Bearer KEY",
                code="invalid_api_key",
                status=401,
            )


async def _read(request: Request) -> bytes:
    """The body of a request, up to what any conversation may have."""
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > _MOST_BYTES:
            raise Refused(f"the body has more than {_MOST_BYTES:,} bytes; send less", status=413)
    return bytes(body)


async def _while_there(request: Request, made: Awaitable[T]) -> T:
    """What is being made, unless the client leaves before: then it is not made any further.

    Raises ClientDisconnect.
    """
    making = asyncio.ensure_future(made)
    leaving = asyncio.ensure_future(_left(request))
    try:
        await asyncio.wait({making, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not making.done():
            raise ClientDisconnect
        return making.result()
    finally:
        making.cancel()
        leaving.cancel()
        await asyncio.gather(making, leaving, return_exceptions=True)


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


@contextmanager
def _logged(reply: Reply) -> Iterator[None]:
    """Tell of an answer when it has ended, however it did."""
    begun = time.monotonic()
    try:
        yield
    finally:
        seconds, counts = time.monotonic() - begun, reply.usage()
        ended = len(reply.completions) == len(reply.rows)
        say(
            f"{time.strftime('%H:%M:%S')}  {reply.served.name}: "
            f"{counted(counts['prompt_tokens'], 'token')} read, "
            f"{counts['completion_tokens']:,} drawn in {seconds:.2f} s"
            f"{'' if ended else '; not finished'}"
        )


# What is sent.


class _JSON(JSONResponse):
    def render(self, content: Any) -> bytes:
        return _encoded(content)


def _encoded(content: Json) -> bytes:
    # Half a surrogate pair, which a model may write into a call, has no bytes but an escape.
    return json.dumps(content, ensure_ascii=False, allow_nan=False).encode(
        errors="backslashreplace"
    )


def _event(content: Json) -> bytes:
    return b"data: " + _encoded(content) + b"\n\n"


def _failure(error: Exception) -> tuple[int, Json]:
    """The status of an error, and what is said of it."""
    if isinstance(error, Refused):
        return error.status, _said(str(error), error.param, error.code)
    if isinstance(error, PromptTooLong):
        return 400, _said(str(error), code="context_length_exceeded")
    if isinstance(error, UserError):
        return 400, _said(str(error))
    if isinstance(error, Busy):
        busy = "too many completions wait already; ask again in a while"
        return 429, _said(busy, code="rate_limit_exceeded", type="rate_limit_error")
    traceback.print_exception(error)
    return 500, _said(f"the server failed: {shorten(str(error))}", type="server_error")


def _said(
    message: str,
    param: str | None = None,
    code: str | None = None,
    type: str = "invalid_request_error",
) -> Json:
    return {"error": {"message": message, "type": type, "param": param, "code": code}}


async def _no_address(request: Request, error: Exception) -> Response:
    """What is said at an address that there is not, or to a method that it does not take."""
    assert isinstance(error, HTTPException)
    there = "GET /v1/models, POST /v1/chat/completions and POST /v1/completions"
    message = (
        f"{request.method} {shorten(request.url.path)[1:-1]} is no address here; there are {there}"
    )
    return _JSON(_said(message), error.status_code, headers=error.headers)
