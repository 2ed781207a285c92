"""The addresses of blind votes in the studio.

    GET  /vote              what to compare;          POST /vote       begins it, and leads to
    GET  /vote/KEY          two answers, blind;       POST /vote/KEY   one choice, and back to it
    GET  /vote/KEY/result   what was voted, and the last vote to undo
    GET  /vote/KEY/answers  the ratings, and whose the answers were

After every POST the browser is redirected to a page (303), so that reloading votes on nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from groundup.errors import UserError
from groundup.report.page import Page, ballot_script
from groundup.serve.admission import Admission, BadRequest, read_form
from groundup.studio.runs import Runs
from groundup.studio.vote_pages import (
    answers_page,
    ballot_page,
    begin_page,
    heldout,
    parse_form,
    result_page,
    waiting_page,
)
from groundup.studio.vote_records import VoteRecords

if TYPE_CHECKING:
    from groundup.studio.models import OnDemand
    from groundup.studio.votes import Votes

Endpoint = Callable[[Request], Awaitable[Response]]
# Seconds after which a page that waits for answers reloads.
_AGAIN = 1


class VoteRoutes:
    """The endpoints; `models` returns all models, and `page` makes a response.

    `wrong` makes the response to a request that fails, with a link.
    """

    def __init__(
        self,
        runs: Runs,
        admission: Admission,
        models: Callable[[], Awaitable[OnDemand]],
        page: Callable[[Callable[[], Page]], Awaitable[Response]],
        wrong: Callable[[int, str, tuple[str, str]], Response],
    ) -> None:
        self._runs, self._models, self._page, self._wrong = runs, models, page, wrong
        # If anyone who reaches this machine may vote, no voter may name a file to read or write.
        self._is_open = admission.is_open
        self._records = VoteRecords(runs.root)
        self._made: Votes | None = None
        self._loading: set[asyncio.Task[Votes]] = set()

    def routes(self, admitted: Callable[[Endpoint], Endpoint]) -> list[Route]:
        key = "/vote/{key:str}"
        return [
            Route("/vote", admitted(self._form)),
            Route("/vote", admitted(self._begin), methods=["POST"]),
            Route("/vote.js", admitted(self._script)),
            Route(key, admitted(self._leading(self._ballot))),
            Route(key, admitted(self._leading(self._vote)), methods=["POST"]),
            Route(f"{key}/result", admitted(self._leading(self._result))),
            Route(f"{key}/answers", admitted(self._leading(self._answers))),
        ]

    async def stop(self) -> None:
        """Stop sampling."""
        if self._made is not None:
            await self._made.stop()

    async def _votes(self) -> Votes:
        models = await self._models()
        if self._made is None:
            made = await asyncio.to_thread(self._new_votes, models)
            self._made = self._made or made
        return self._made

    def _new_votes(self, models: OnDemand) -> Votes:
        # Imported late: it loads torch.
        from groundup.studio.votes import Votes

        runs = self._runs
        return Votes(
            runs.root,
            runs.models,
            lambda: heldout(runs),
            models,
            self._records,
            self._is_open,
        )

    async def _form(self, request: Request) -> Response:
        if not self._loading:  # while the form is filled in, the sampling code is loaded
            self._loading.add(asyncio.create_task(self._votes()))
        asked = request.query_params
        return await self._page(lambda: self._begin_page(self._values(asked)))

    def _values(self, asked: Mapping[str, str]) -> Mapping[str, str]:
        """The form's first values: a model, or those of earlier votes."""
        before = self._records.read(asked.get("like", ""))
        if before is not None:
            return before.values
        return {"model": asked["model"]} if asked.get("model") else {}

    def _begin_page(self, values: Mapping[str, str], error: str = "") -> Page:
        # If everyone may vote, the prompts and names of others are private.
        records = {} if self._is_open else self._records.all()
        return begin_page(self._runs, values, records, error, self._is_open)

    async def _begin(self, request: Request) -> Response:
        form = await read_form(request)
        try:
            key = await (await self._votes()).begin(parse_form(form))
        except UserError as error:
            why = str(error)
            answer = await self._page(lambda: self._begin_page(form, why))
            answer.status_code = 400
            return answer
        return RedirectResponse(f"/vote/{key}", 303)

    async def _ballot(self, request: Request) -> Response:
        key = request.path_params["key"]
        position = await (await self._votes()).position(key)
        if position.is_over:
            return RedirectResponse(f"/vote/{key}/result", 303)
        if position.shown is not None:
            return await self._page(lambda: ballot_page(position, key))
        answer = await self._page(lambda: waiting_page(position.voting, key))
        answer.headers["Refresh"] = str(_AGAIN)
        return answer

    async def _vote(self, request: Request) -> Response:
        key, form = request.path_params["key"], await read_form(request)
        votes = await self._votes()
        try:
            said = (form.get(name, "") for name in ("choice", "comparison", "last"))
            await votes.vote(key, *said)
        except (BadRequest, UserError) as error:
            # For example the terminal is writing the log, or the page is from before a restart.
            status = error.status if isinstance(error, BadRequest) else 409
            return self._wrong(status, str(error), ("Back to the answers", f"/vote/{key}"))
        return RedirectResponse(f"/vote/{key}", 303)

    async def _result(self, request: Request) -> Response:
        key = request.path_params["key"]
        votes = await self._votes()
        position = await votes.position(key)
        log = await asyncio.to_thread(votes.log, position.voting)
        return await self._page(lambda: result_page(position, key, log, self._runs.root))

    async def _answers(self, request: Request) -> Response:
        key = request.path_params["key"]
        position = await (await self._votes()).reveal(key)
        if position.voting.comparisons is None:  # what was voted on is not known yet, either
            return RedirectResponse(f"/vote/{key}", 303)
        return await self._page(lambda: answers_page(position, key))

    def _leading(self, endpoint: Endpoint) -> Endpoint:
        """The endpoint; its refusals link to where votes begin."""

        async def answer(request: Request) -> Response:
            try:
                return await endpoint(request)
            except (BadRequest, UserError) as error:
                status = error.status if isinstance(error, BadRequest) else 400
                return self._wrong(status, str(error), ("Begin again", "/vote"))

        return answer

    async def _script(self, _: Request) -> Response:
        answer = Response(ballot_script(), media_type="text/javascript")
        answer.headers["X-Content-Type-Options"] = "nosniff"
        return answer
