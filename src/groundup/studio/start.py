"""Starting, stopping and continuing runs from the browser: what is asked, and what is done.

    GET  /start                     what can be started;  ?stage=sft&from=RUN its form
    POST /start                     start what a form says, or show its command
    POST /stop, POST /continue      of a run that was started here

Whom the studio's door admits may start whatever he could start in a terminal, functions of his own
for a reward as well: he can do no more by a form than by the command that it shows. So it is off
where strangers are admitted, beyond this machine without a key. What is written lies below the
folder that is shown.
"""

from __future__ import annotations

import asyncio
import os
import shlex
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from groundup.errors import UserError, shorten
from groundup.report.page import Block, Links, Listing, Note, Page, Section
from groundup.runs.console import printable
from groundup.runs.folder import has_begun
from groundup.serve.admission import Admission, BadRequest, read_form, tell
from groundup.studio.forms import (
    AT_ONCE,
    BESIDE,
    busy_page,
    choice_page,
    command_blocks,
    continue_button,
    failure,
    form_page,
    next_steps,
    run_address,
    start_address,
    stop_button,
    unborn_page,
)
from groundup.studio.jobs import Job, Jobs, command_lines
from groundup.studio.runs import Run, Runs, is_place
from groundup.studio.words import OUT, Kind, as_typed, below, blamed, free_path, typed_again, words

_FORM_BYTES, _MOST_FIELDS = 2**17, 200
# Most of what is wrong with a command that its form did not know is said so soon.
_FIRST_SECONDS, _STOP_SECONDS, _PAUSE = 3.0, 2.0, 0.1
OFF = (
    "Nothing can be started here: this studio listens beyond this machine and asks for no key, and "
    "whoever can start runs can run programs. Give it one with --api-key; a form shows the command "
    "to start in a terminal."
)
Shown = Callable[[Page, int], Response]


@dataclass(frozen=True)
class _Wanted:
    """What a form asks for: the words of its command, and the path of the run that it writes."""

    kind: Kind
    typed: Mapping[str, str]
    path: str
    words: tuple[str, ...]


class Starting:
    """Starts, stops and continues runs below the folder of `runs`.

    `kinds` are what can be started, known when somebody asks; `shown` makes an answer of a page.
    """

    def __init__(
        self,
        runs: Runs,
        door: Admission,
        kinds: Callable[[], Mapping[str, Kind]],
        shown: Shown,
    ) -> None:
        self._runs, self._kinds, self._shown = runs, kinds, shown
        self._here = Path.cwd()
        self._jobs = Jobs(runs.root, self._here)
        self._off = OFF if door.is_open else ""
        self._one_at_a_time = asyncio.Lock()

    def routes(self, admitted: Callable[..., Callable[..., object]]) -> list[Route]:
        return [
            Route("/start", admitted(self._form), methods=["GET"]),
            Route("/start", admitted(self._start), methods=["POST"]),
            Route("/stop", admitted(self._stop), methods=["POST"]),
            Route("/continue", admitted(self._continue), methods=["POST"]),
        ]

    async def leave(self) -> None:
        """Say what goes on when the studio ends."""
        for job in await asyncio.to_thread(self._jobs.alive):
            name = printable(job.path)
            tell(f"{name} goes on; groundup studio shows it again, and stops it")

    # What stands on the studio's other pages.

    def on_home(self, page: Page) -> Page:
        """The page of all runs, with what was started and is no run yet."""
        links = [("Start a run", "/start")]
        for job in self._jobs.alive():
            if self._runs.one(job.path) is None:
                links.append((f"{job.path} is starting", run_address(job.path)))
        return _with_links(page, links)

    def on_run(self, page: Page, run: Run) -> Page:
        """A run's page, with what can be done with it."""
        job, kinds = self._jobs.of(run.path), self._kinds()
        kind = kinds.get(run.stage)
        links = list[tuple[str, str]]()
        blocks: list[Block] = []
        # One that is done goes on for a moment, to say so.
        goes_on = _goes_on(run, job)
        if job is not None and job.lives and run.state != "done":
            if not goes_on:
                blocks.append(Note("Its command has been started and has not come to work yet."))
            blocks.append(stop_button(job, kind))
        elif goes_on:
            pid = run.status.get("pid", "its number")
            stops = f"Ctrl-C in its terminal stops it, or `kill -INT {pid}`."
            blocks.append(Note(f"It was not started from this page. {stops}"))
        elif run.state == "done" and kind is not None:
            links.append(("Again with other settings", start_address(kind.name, like=run.path)))
        elif kind is not None and run.history.run.get("mine"):
            why = "It is computed with a learner's own parts, and goes on in a terminal: the same "
            blocks.append(Note(f"{why} command, with --mine."))
        elif kind is not None:
            again = start_address(kind.name, again=run.path)
            if job is not None and job.here == str(self._here):
                blocks += [] if self._off else [continue_button(run.path)]
                links += [("Change the settings", again)] if job.failed else []
            elif run.path:  # the folder that is shown is none that is written here
                links.append(("Continue", again))
            links.append(("Again with other settings", start_address(kind.name, like=run.path)))
        following = next_steps(kinds, run)
        if following:
            links.append(("Go on from here", "#next"))
        sections = list(page.sections)
        if following:
            after = ("samples", "lineage", "inside")
            place = 1 + max(
                (i for i, one in enumerate(sections) if one.anchor in after), default=-1
            )
            sections.insert(place, Section("Go on from here", "next", following))
        if known := self._command(run, job, kind):
            sections.append(Section("Its command", "command", known))
        page = _with_links(page, links)
        first, *rest = page.opening
        failed = [] if run.state == "done" else failure(job)
        return replace(page, opening=[first, *failed, *rest, *blocks], sections=sections)

    def unborn(self, path: str) -> Page | None:
        """The page of a run that was started here and of which there is nothing yet."""
        job = self._jobs.of(path)
        if job is None:
            return None
        return unborn_page(job, self._kinds().get(job.kind))

    def _command(self, run: Run, job: Job | None, kind: Kind | None) -> list[Block]:
        if job is not None:
            return list(command_blocks(job))
        if kind is None or not run.history.run.get("config"):
            return []
        with suppress(UserError):
            told = Note("Such a run is started by this command.")
            return [Listing(command_lines(words(kind, self._typed(run, kind, run.path)))), told]
        return []

    # Forms.

    async def _form(self, request: Request) -> Response:
        asked = dict(request.query_params.items())
        page = await asyncio.to_thread(self._form_page, asked)
        return self._shown(page, 200)

    def _form_page(self, asked: Mapping[str, str]) -> Page:
        if "stage" not in asked:
            return choice_page(self._kinds(), self._off)
        kind = self._kind(asked["stage"])
        if "again" in asked:
            job = self._jobs.of(asked["again"])
            if job is not None and job.kind == kind.name and job.here == str(self._here):
                return self._page(kind, job.typed, goes_on=job.path)
            run = self._found(asked["again"])
            return self._page(kind, self._typed(run, kind, run.path), goes_on=run.path)
        if "like" in asked:
            return self._page(kind, self._typed(self._found(asked["like"]), kind, None))
        if "from" in asked:
            return self._page(kind, self._from(kind, self._found(asked["from"])))
        return self._page(kind, {OUT: self._proposed(kind, "")})

    def _found(self, path: str) -> Run:
        run = self._runs.one(path)
        if run is None:
            raise BadRequest(
                f"there is no run {shorten(path)} below {self._runs.root}; it may have been moved",
                status=404,
            )
        return run

    def _page(
        self,
        kind: Kind,
        typed: Mapping[str, str],
        why: str = "",
        command: str = "",
        busy: str = "",
        goes_on: str | None = None,
    ) -> Page:
        kinds = self._kinds()
        makes = {name: one.makes for name, one in kinds.items()}
        runs = [(run, makes.get(run.stage, "")) for run in self._runs.all().values()]
        return form_page(
            kind,
            typed,
            here=self._here,
            runs=runs,
            out=self._proposed(kind, "") if goes_on is None else self._written(goes_on),
            faults=list(blamed(kind, why)),
            why=why,
            command=command,
            busy=busy,
            goes_on=goes_on,
            off=self._off,
        )

    def _from(self, kind: Kind, run: Run) -> dict[str, str]:
        """What a form begins with that goes on from a run: it, and what it was made from itself."""
        kinds = self._kinds()
        typed = {OUT: self._proposed(kind, run.group)}
        own = kinds.get(run.stage)
        taken = None if own is None else kind.input_for(own.makes)
        if taken is None:
            raise BadRequest(f"groundup {kind.command} cannot go on from {run.label}")
        names = [taken]
        names += [one for one in kind.settings if one.required and one.accepts and one != taken]
        above = [run, *self._above(run)]
        for one in names:
            for found in above:
                made = kinds.get(found.stage)
                if made is not None and made.makes in one.accepts:
                    name = as_typed(found.folder, self._here)
                    typed[one.name] = name if one.how == "line" else shlex.quote(name)
                    break
        return typed

    def _above(self, run: Run) -> list[Run]:
        """The runs that a run was made from, nearest first."""
        found, seen, open_ = list[Run](), {run.path}, [run]
        while open_:
            for _, path in self._runs.parents(open_.pop(0)).values():
                above = None if path is None or path in seen else self._runs.one(path)
                if above is not None:
                    seen.add(above.path)
                    found.append(above)
                    open_.append(above)
        return found

    def _typed(self, run: Run, kind: Kind, out: str | None) -> dict[str, str]:
        """What would be typed to start such a run, in a folder of its own or the one named."""

        def found(named: str) -> str:
            near = run.history.beside(named)
            # Of a name that is none, such as one too long, os.path says that there is no such file.
            if not os.path.exists(near) or near == Path(named):
                return named
            return as_typed(Path(os.path.realpath(near)), self._here)

        typed = typed_again(kind, run.history.run.get("config", {}), found)
        written = self._proposed(kind, run.group) if out is None else self._written(out)
        return typed | {OUT: written}

    def _proposed(self, kind: Kind, group: str) -> str:
        lives = {job.path for job in self._jobs.alive()}
        root = self._jobs.root
        free = free_path(lambda path: path in lives or (root / path).exists(), group, kind.name)
        return self._written(free)

    def _written(self, path: str) -> str:
        """The folder of a path, as a person would write it."""
        return as_typed(self._jobs.root / path, self._here)

    def _kind(self, name: str) -> Kind:
        kind = self._kinds().get(name)
        if kind is None:
            raise BadRequest(f"there is no stage {shorten(name)}; go back and choose one", None)
        return kind

    # What forms ask for.

    async def _start(self, request: Request) -> Response:
        form = await read_form(request, _FORM_BYTES, _MOST_FIELDS)
        kind = await asyncio.to_thread(self._kind, form.get("stage", ""))
        typed = {one.name: form.get(one.name, "").strip() for one in kind.settings}
        goes_on = form.get("again")

        async def told(why: str = "", command: str = "", busy: str = "") -> Response:
            page = await asyncio.to_thread(self._page, kind, typed, why, command, busy, goes_on)
            return self._shown(page, 400 if why else 200)

        try:
            wanted = await asyncio.to_thread(self._wanted, kind, typed, goes_on)
        except UserError as error:
            return await told(str(error))
        if "show" in form:
            return await told(command=command_lines(wanted.words))
        if self._off:
            raise BadRequest(OFF, status=403)
        async with self._one_at_a_time:
            busy = await asyncio.to_thread(self._busy)
            if busy and BESIDE not in form:
                return await told(_beside(busy), command_lines(wanted.words), busy=busy)
            try:
                # Another tab may have begun it meanwhile.
                wanted = await asyncio.to_thread(self._wanted, kind, wanted.typed, goes_on)
                job = await self._begun(wanted)
            except UserError as error:
                return await told(str(error))
        if job.failed:
            return await told(job.complaint(), command_lines(wanted.words))
        return RedirectResponse(run_address(wanted.path), 303)

    async def _continue(self, request: Request) -> Response:
        form = await read_form(request, _FORM_BYTES, _MOST_FIELDS)
        path = form.get("run", "")
        job = await asyncio.to_thread(self._job, path)
        kind = await asyncio.to_thread(self._kind, job.kind)
        if self._off:
            raise BadRequest(OFF, status=403)
        if job.here != str(self._here):
            raise BadRequest(
                f"{path} was started in {job.here}, from where its command names its folders; "
                "start the studio there to continue it"
            )
        async with self._one_at_a_time:
            busy = await asyncio.to_thread(self._busy)
            if busy and BESIDE not in form:
                page = busy_page(path, _beside(busy))
                return self._shown(page, 400)
            wanted = await asyncio.to_thread(self._wanted, kind, job.typed, path)
            await self._begun(wanted)
        return RedirectResponse(run_address(path), 303)

    async def _stop(self, request: Request) -> Response:
        form = await read_form(request, _FORM_BYTES, _MOST_FIELDS)
        path = form.get("run", "")
        job = await asyncio.to_thread(self._job, path)
        if job.lives:
            await asyncio.to_thread(self._jobs.stop, job, AT_ONCE in form)
            tell(f"asked to stop: {printable(path)}")
            await self._until(lambda: not self._job(path).lives, _STOP_SECONDS)
        return RedirectResponse(run_address(path), 303)

    def _job(self, path: str) -> Job:
        job = self._jobs.of(path)
        if job is None:
            raise BadRequest(f"{shorten(path)} was not started here; go back to its page")
        return job

    def _wanted(self, kind: Kind, typed: Mapping[str, str], goes_on: str | None) -> _Wanted:
        """What is to be started, checked as far as it can be before it is."""
        out = typed.get(OUT) or self._proposed(kind, "")
        path = below(self._jobs.root, self._here, out, is_place)
        folder = self._jobs.root / path
        given = words(kind, {**typed, OUT: self._written(path)})
        written = kind.check(given)
        if os.path.realpath(self._here / written) != str(folder):
            raise UserError(f"--out={out!r} is not what would be written; name one folder")
        if path != goes_on and has_begun(folder):
            raise UserError(
                f"--out={out!r} holds something already; name another folder, or continue the run "
                "that is there from its page"
            )
        job = self._jobs.of(path)
        run = self._runs.one(path)
        if (job is not None and job.lives) or (run is not None and _goes_on(run, job)):
            raise UserError(f"--out={out!r} is written by a run that goes on; name another folder")
        return _Wanted(kind, {**typed, OUT: self._written(path)}, path, tuple(given))

    def _busy(self) -> str:
        """What runs by now, below this folder or started from here."""
        running = {
            run.path
            for run in self._runs.all().values()
            if run.state == "running" and _goes_on(run, self._jobs.of(run.path))
        }
        running |= {job.path for job in self._jobs.alive()}
        return " and ".join(sorted(path or self._runs.root.name for path in running))

    async def _begun(self, wanted: _Wanted) -> Job:
        """Start it, and look on until it has begun its run, has failed, or takes its time."""
        job = await asyncio.to_thread(
            self._jobs.start, wanted.path, wanted.kind.name, wanted.typed, wanted.words
        )

        def settled() -> bool:
            known = self._jobs.of(wanted.path)
            return known is None or not known.lives

        tell(f"started: {printable(shlex.join(['groundup', *wanted.words]))}")
        await self._until(settled, _FIRST_SECONDS)
        return await asyncio.to_thread(self._jobs.of, wanted.path) or job

    async def _until(self, done: Callable[[], bool], seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until and not await asyncio.to_thread(done):
            await asyncio.sleep(_PAUSE)


def _goes_on(run: Run, job: Job | None) -> bool:
    """Whether a run is written; one that was killed leaves its heartbeat as it was."""
    ended = job is not None and not job.lives and run.status.get("pid") == job.pid
    return run.state == "running" and not ended


def _beside(busy: str) -> str:
    return (
        f"{busy} runs now, and two trainings on one machine take far more than twice as long; stop "
        "it first, wait for its end, or start this one beside it all the same"
    )


def _with_links(page: Page, links: list[tuple[str, str]]) -> Page:
    """The page with more links among those at its top."""
    if not links:
        return page
    first = page.opening[0] if page.opening else None
    if isinstance(first, Links):
        return replace(page, opening=[Links([*first.links, *links]), *page.opening[1:]])
    return replace(page, opening=[Links(links), *page.opening])
