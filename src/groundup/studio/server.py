"""`groundup studio`: a page on one's own machine of all that was trained or is training here.

    GET  /                  all runs below a folder, as a tree of their lineage
    GET  /runs/PATH         one run: curves, samples, plan, lineage;  /report/PATH its report
    GET  /talk              the page to talk in, and under /v1 the interface, of `groundup serve`
    POST /look              the page of `groundup xray` for a model and a text
    GET  /vote              blind votes on two answers, as in `groundup label` (`vote_routes`)
    /start /stop /continue  runs that are started and stopped from here (`start_routes`)

Pages are made from the runs' own files, one at a time, and can be read without JavaScript. Models,
and torch, are loaded when a user first needs one.
"""

from __future__ import annotations

import asyncio
import functools
import socket
import traceback
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from groundup.errors import UserError, shorten
from groundup.report.figure import Plot
from groundup.report.history import History
from groundup.report.page import PAGE, Page, html, live_script
from groundup.runs.console import printable, say
from groundup.runs.files import read_lines
from groundup.runs.growing import GrowingLog
from groundup.serve.admission import (
    Admission,
    BadRequest,
    log,
    read_form,
    refusal,
    security_headers,
    talk_page,
)
from groundup.serve.server import address, admission, answer
from groundup.studio.commands import Command
from groundup.studio.pages import MAX_LETTERS, home_page, refusal_page, run_page
from groundup.studio.runs import Run, Runs
from groundup.studio.start_routes import StartRoutes
from groundup.studio.vote_routes import VoteRoutes

if TYPE_CHECKING:
    from groundup.serve.api import API
    from groundup.serve.worker import Served
    from groundup.studio.models import OnDemand

Endpoint = Callable[[Request], Awaitable[Response]]
# The number of runs whose curves are kept, and the growth of a run after which they are drawn
# again: drawing takes as long as some steps.
_LOGS, _GROWN = 4, 1.03
_BATCH_SIZE, _WAITING = 16, 64
_PAGE_HEADERS = {
    **security_headers(script_src="'self'", connect_src="'self'", form_action="'self'"),
    "Cache-Control": "no-store",
}
# A run's folder may come from anywhere: its report is shown, but may do nothing.
_REPORT_HEADERS = security_headers(sandbox="")
_XRAY_HEADERS = security_headers(script_src="'unsafe-inline'")


@dataclass
class _Curves:
    """The curves drawn from a log, the log's lines, and how many there were."""

    log: GrowingLog
    lines: Sequence[object] | None = None
    count: int = 0
    plots: list[Plot] = field(default_factory=list)


class Studio:
    """The studio's pages, for requests that `admission` admits; `app` is the ASGI application.

    `open` loads a model by its name and folder. `look` makes the page of what a model in a folder
    does with a text, or with a message if the last argument is true. `commands` are those that can
    be started.
    """

    def __init__(
        self,
        root: Path,
        admission: Admission,
        open: Callable[[str, Path], Served],
        look: Callable[[str, Path, str, bool], str],
        commands: Callable[[], Mapping[str, Command]] = dict,
    ) -> None:
        self._runs, self._admission = Runs(root), admission
        self._open, self._look_inside = open, look
        self._begin = StartRoutes(self._runs, admission, commands, _shown)
        self._api: API | None = None
        self._all_models: OnDemand | None = None
        self._voting = VoteRoutes(self._runs, admission, self._on_demand, self._page, _refusal)
        # Pages are made one at a time: one thread draws plots, which slows a training little.
        self._making, self._looking, self._starting = asyncio.Lock(), asyncio.Lock(), asyncio.Lock()
        self._drawn = OrderedDict[Path, _Curves]()
        self._stack = AsyncExitStack()
        self.app = Starlette(
            routes=[
                Route("/", self._admitted(self._home)),
                Route("/runs/{path:path}", self._admitted(self._run)),
                Route("/report/{path:path}", self._admitted(self._report)),
                Route("/talk", self._admitted(self._talk)),
                Route("/look", self._admitted(self._look), methods=["POST"]),
                *self._voting.routes(self._admitted),
                Route("/live.js", self._admitted(self._script)),
                *self._begin.routes(self._admitted),
                Route("/v1/{rest:path}", _Passthrough(admission, self._models)),
            ],
            exception_handlers={HTTPException: self._not_found},
            lifespan=self._lifespan,
        )
        self.app.router.redirect_slashes = False

    @asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncIterator[None]:
        async with self._stack:
            yield

    async def stop(self) -> None:
        """Stop generating; waiting clients are told so."""
        await self._voting.stop()
        await self._begin.shutdown()
        if self._api is not None:
            await self._api.stop()

    # Pages.

    async def _home(self, _: Request) -> Response:
        return await self._page(lambda: self._begin.on_home(home_page(self._runs)))

    async def _run(self, request: Request) -> Response:
        def made() -> Page:
            path = request.path_params["path"]
            if self._runs.get(path) is None and (other := self._begin.other(path)) is not None:
                return other
            run = self._runs.require(path)
            samples = run.file("samples.jsonl")
            page = run_page(
                self._runs, run, self._curves(run), read_lines(samples) if samples else []
            )
            return self._begin.on_run(page, run)

        return await self._page(made)

    async def _report(self, request: Request) -> Response:
        def read() -> bytes:
            run = self._runs.require(request.path_params["path"])
            path = run.file(PAGE)
            if path is None:
                raise BadRequest(f"{run.label} has no report", status=404)
            return path.read_bytes()

        return HTMLResponse(await asyncio.to_thread(read), headers=_REPORT_HEADERS)

    async def _talk(self, _: Request) -> Response:
        return talk_page(home="/")

    async def _script(self, _: Request) -> Response:
        return Response(live_script(), media_type="text/javascript", headers=_PAGE_HEADERS)

    async def _look(self, request: Request) -> Response:
        form = await read_form(request)
        name, text = (form.get(one, "") for one in ("model", "text"))
        folder = (await asyncio.to_thread(self._runs.models)).get(name)
        if folder is None:
            raise BadRequest(
                f"there is no model {shorten(name)} here; go back to its run", status=404
            )
        if not text.strip():
            raise BadRequest("the text to look at is blank; go back and write one")
        if len(text) > MAX_LETTERS:
            raise BadRequest(
                f"a text to look at has at most {MAX_LETTERS:,} characters, and this one "
                f"{len(text):,}; go back and write another"
            )
        if self._looking.locked():
            raise BadRequest("another text is being looked at; try again in a while", status=429)
        async with self._looking:
            made = await asyncio.to_thread(self._look_inside, name, folder, text, "chat" in form)
        return HTMLResponse(made, headers=_XRAY_HEADERS)

    async def _page(self, made: Callable[[], Page]) -> Response:
        def drawn() -> bytes:
            return html(made()).encode("utf-8", errors="replace")

        async with self._making:
            return HTMLResponse(await asyncio.to_thread(drawn), headers=_PAGE_HEADERS)

    def _curves(self, run: Run) -> list[Plot]:
        """A run's curves so far, drawn again when there is visibly more of them."""
        path = run.file("metrics.jsonl")
        if path is None or not run.history.run:
            return []
        known = self._drawn.setdefault(path, _Curves(GrowingLog(path)))
        self._drawn.move_to_end(path)
        lines = known.log.lines()
        more = len(lines) - known.count
        grown = more and (run.state != "running" or len(lines) > _GROWN * known.count)
        if grown or lines is not known.lines:
            from groundup.report.plots import history_plots

            history = History(run.folder, run.history.run, run.history.plan, lines)
            has_read = bool(history.train) and float(history.tokens.max()) > 0
            known.plots = history_plots(run.name, history, whole=True) if has_read else []
            known.lines, known.count = lines, len(lines)
        if len(self._drawn) > _LOGS:
            self._drawn.popitem(last=False)
        return known.plots

    # Models.

    async def _on_demand(self) -> OnDemand:
        """All models, for everyone who uses them; a few of them are loaded at a time."""
        async with self._starting:
            if self._all_models is None:
                self._all_models = await asyncio.to_thread(self._new_models)
        return self._all_models

    def _new_models(self) -> OnDemand:
        # Imported late: it loads torch.
        from groundup.studio.models import OnDemand

        return OnDemand(self._runs.models, self._open)

    async def _models(self) -> API:
        """The interface to all models, started with the first request."""
        models = await self._on_demand()
        async with self._starting:
            if self._api is None:
                self._api = await asyncio.to_thread(self._new_api, models)
                await self._stack.enter_async_context(self._api.running())
        return self._api

    def _new_api(self, models: OnDemand) -> API:
        from groundup.serve.api import API

        return API(models, self._admission, batch_size=_BATCH_SIZE, waiting=_WAITING)

    # Admission and refusals.

    def _admitted(self, endpoint: Endpoint) -> Endpoint:
        """The endpoint for admitted requests, with its errors as pages."""

        @functools.wraps(endpoint)
        async def answer(request: Request) -> Response:
            try:
                self._admission.admit(request, keyed=True)
                return await endpoint(request)
            except ClientDisconnect:
                return Response(status_code=499)  # nobody reads it
            except BadRequest as error:
                return _refusal(error.status, str(error))
            except UserError as error:
                return _refusal(400, str(error))
            except Exception as error:
                traceback.print_exception(error)
                return _refusal(500, f"the server failed: {shorten(str(error))}")

        return answer

    async def _not_found(self, request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        path = shorten(request.url.path)[1:-1]
        return _refusal(error.status_code, f"{request.method} {path} is no address here")


def _shown(page: Page, status: int) -> Response:
    content = html(page).encode("utf-8", errors="replace")
    return HTMLResponse(content, status, headers=_PAGE_HEADERS)


class _Passthrough:
    """An ASGI application that passes admitted requests on to one that is made when needed."""

    def __init__(self, admission: Admission, made: Callable[[], Awaitable[API]]) -> None:
        self._admission, self._made = admission, made

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            # Other requests make nothing, and are refused in the interface's own form.
            self._admission.admit(Request(scope), keyed=True)
        except BadRequest as error:
            await refusal(error.status, error.to_json())(scope, receive, send)
        else:
            await (await self._made()).app(scope, receive, send)


def _refusal(status: int, why: str, *links: tuple[str, str]) -> Response:
    # A browser then asks for the key as a password; any user name will do.
    asks = {"WWW-Authenticate": 'Basic realm="groundup studio: the password is its key"'}
    headers = {**_PAGE_HEADERS, **(asks if status == 401 else {})}
    if status != 404:  # a browser asks for icons, too
        log(f"{status}, {printable(why)}")
    return HTMLResponse(html(refusal_page(status, why, links)), status, headers=headers)


def studio(
    root: Path,
    at: socket.socket,
    given_host: str,
    *,
    api_key: str | None,
    open: Callable[[str, Path], Served],
    look: Callable[[str, Path, str, bool], str],
    commands: Callable[[], Mapping[str, Command]] = dict,
) -> None:
    """Show the runs below a folder at that socket until Ctrl-C."""
    access = admission(at, given_host, api_key)
    shown = Studio(root, access, open, look, commands)
    say(f"Studio:      {address(at)} in a browser")
    say(f"Shown:       all runs below {root.resolve()}")
    answer(shown.app, at, access, shown.stop)
