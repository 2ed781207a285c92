"""Starting, stopping and continuing runs from the browser.

    GET  /start                     what can be started;  ?stage=sft&from=RUN its form
                                    ?stage=run&recipe=quickstart that of a recipe
    POST /start                     start what a form says, or show its command
    POST /stop, POST /continue      of a run that was started here

Anyone who can open the studio's pages can start whatever they could start in a terminal, including
their own reward functions: a form can do no more than the command that it shows. So starting is off
if the studio listens beyond this machine without a key. Everything is written below the folder that
is shown.
"""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from groundup.errors import UserError, shorten
from groundup.report.page import Block, Links, Listing, Note, Page, Section
from groundup.runs.console import printable
from groundup.runs.files import read_json_object
from groundup.runs.folder import has_begun
from groundup.serve.admission import Admission, BadRequest, log, read_form
from groundup.studio.commands import (
    OUT,
    RECIPE,
    Command,
    Step,
    arguments,
    below,
    free_path,
    named_from,
    values_of,
)
from groundup.studio.jobs import Job, Jobs, command_lines
from groundup.studio.runs import Run, Runs, is_own_file, is_place
from groundup.studio.start_pages import (
    AT_ONCE,
    BESIDE,
    busy_page,
    choice_page,
    command_blocks,
    continue_button,
    failure,
    form_page,
    next_steps,
    pending_page,
    recipe_page,
    run_address,
    start_address,
    stop_button,
    terminal_note,
)

# Seconds in which most commands with wrong arguments fail, in which most stop, and between two
# checks.
_FIRST_SECONDS, _STOP_SECONDS, _PAUSE = 3.0, 2.0, 0.1
RUN = "run"
_PLAIN_NAME = re.compile(r"\w[\w. -]{0,49}")
OFF = (
    "Nothing can be started here: this studio listens beyond this machine without a key, and "
    "anyone who can start runs can run programs. Set a key with --api-key; a form shows the "
    "command to start in a terminal."
)
Shown = Callable[[Page, int], Response]


@dataclass(frozen=True)
class _Start:
    """What a form requests: the arguments of its command, and the path of its output."""

    command: Command
    values: Mapping[str, str]
    path: str
    arguments: Sequence[str]


class StartRoutes:
    """Starts, stops and continues runs below the folder of `runs`.

    `commands` returns what can be started; `shown` makes a response of a page.
    """

    def __init__(
        self,
        runs: Runs,
        admission: Admission,
        commands: Callable[[], Mapping[str, Command]],
        shown: Shown,
    ) -> None:
        self._runs, self._commands, self._shown = runs, commands, shown
        self._here = Path.cwd()
        self._jobs = Jobs(runs.root, self._here)
        self._off = OFF if admission.is_open else ""
        self._start_lock = asyncio.Lock()

    def routes(self, admitted: Callable[..., Callable[..., object]]) -> list[Route]:
        return [
            Route("/start", admitted(self._form), methods=["GET"]),
            Route("/start", admitted(self._start), methods=["POST"]),
            Route("/stop", admitted(self._stop), methods=["POST"]),
            Route("/continue", admitted(self._continue), methods=["POST"]),
        ]

    async def shutdown(self) -> None:
        """Report what continues after the end of the studio."""
        for job in await asyncio.to_thread(self._jobs.alive):
            name = printable(job.path)
            log(f"{name} continues; groundup studio can show it again, and stop it")

    # Additions to the studio's other pages.

    def on_home(self, page: Page) -> Page:
        """The page of all runs, with started commands that are no run yet, or are a recipe."""
        links = [("Start a run", "/start")]
        for job in self._jobs.alive():
            if job.command == RUN:
                links.append((f"{job.path} is running", run_address(job.path)))
            elif self._runs.get(job.path) is None:
                links.append((f"{job.path} is starting", run_address(job.path)))
        return _with_links(page, links)

    def on_run(self, page: Page, run: Run) -> Page:
        """A run's page, with what can be done with it."""
        job, commands = self._job_of(run), self._commands()
        command = commands.get(run.stage)
        links = list[tuple[str, str]]()
        if self._steps(run.group, job):
            links.append(("Its recipe", run_address(run.group)))
        blocks: list[Block] = []
        # The process of a finished run lives on for a moment.
        goes_on = _is_in_progress(run, job)
        if job is not None and job.lives and run.state != "done":
            if not goes_on:
                blocks.append(Note("Its command was started, and has not begun to work yet."))
            blocks.append(stop_button(job, commands.get(job.command)))
        elif goes_on:
            blocks.append(terminal_note(run))
        elif run.state == "done" and command is not None:
            links.append(("Again with other settings", start_address(command.name, like=run.path)))
        elif command is not None and run.history.run.get("mine"):
            why = "It uses a learner's own parts, so it continues in a terminal: the same "
            blocks.append(Note(f"{why} command, with --mine."))
        elif command is not None:
            again = start_address(command.name, again=run.path)
            if job is not None and job.here == str(self._here):
                blocks += [] if self._off else [continue_button(job.path)]
                if job.failed:
                    change = start_address(job.command, again=job.path)
                    links.append(("Change the settings", change))
            elif run.path:  # nothing is written to the folder that is shown
                links.append(("Continue", again))
            links.append(("Again with other settings", start_address(command.name, like=run.path)))
        following = next_steps(commands, run)
        if following:
            links.append(("Continue from here", "#next"))
        sections = list(page.sections)
        if following:
            after = ("samples", "lineage", "inside")
            place = 1 + max(
                (i for i, one in enumerate(sections) if one.anchor in after), default=-1
            )
            sections.insert(place, Section("Continue from here", "next", following))
        if known := self._command_section(run, job, command):
            sections.append(Section("Its command", "command", known))
        page = _with_links(page, links)
        first, *rest = page.opening
        failed = [] if run.state == "done" else failure(job)
        return replace(page, opening=[first, *failed, *rest, *blocks], sections=sections)

    def other(self, path: str) -> Page | None:
        """The page of a path that is no run: of a recipe, or of a command that was just started."""
        job = self._jobs.of(path)
        if steps := self._steps(path, job):
            return self._recipe_page(path, steps, job)
        return None if job is None else pending_page(job, self._commands().get(job.command))

    def _recipe_page(self, path: str, steps: Sequence[Step], job: Job | None) -> Page:
        links, buttons = list[tuple[str, str]](), list[Block]()
        found = [self._runs.get(f"{path}/{step.name}".lstrip("/")) for step in steps]
        begun = [run for run in found if run is not None]
        going = [run for run in begun if _is_in_progress(run, self._job_of(run))]
        if job is not None and job.lives:
            buttons.append(stop_button(job, self._commands()[RUN]))
        elif going:
            buttons.append(terminal_note(going[0]))
        elif path and sum(run.state == "done" for run in begun) < len(steps):
            if job is not None and job.here == str(self._here):
                buttons += [] if self._off else [continue_button(path)]
                again = "Change the settings"
            else:
                again = "Continue"
            links.append((again, start_address(RUN, again=path)))
        plan = self._runs.root / path / "plan.json"
        planned = dict[str, object]()
        if is_own_file(plan):
            with suppress(UserError):
                planned = read_json_object(plan)
        each = list(zip(steps, found, strict=True))
        return recipe_page(self._runs, path, each, job, links, buttons, planned)

    def _steps(self, path: str, job: Job | None) -> Sequence[Step]:
        """The tables of the recipe that was begun or started at that path; else none."""
        recipes = self._commands()[RUN].recipes if RUN in self._commands() else None
        if recipes is None:
            return ()
        # Only a folder that holds a run, or for which a command was started here, can be named.
        if any(run.group == path for run in self._runs.all().values()) and (
            steps := recipes.steps(str(self._runs.root / path))
        ):
            return steps
        if job is None or job.command != RUN or job.path != path:
            return ()
        # Relative to here: a built-in recipe is a name, and a file is where it was.
        named = Path(job.here, os.path.expanduser(job.values.get(RECIPE, "")))
        return recipes.steps(named_from(named, self._here))

    def _job_of(self, run: Run) -> Job | None:
        """The command that was last started for a run, or for its recipe."""
        own, whole = self._jobs.of(run.path), self._jobs.of(run.group)
        if whole is None or whole.command != RUN or (own is not None and not whole.lives):
            return own
        return own if own is not None and own.lives else whole

    def _command_section(self, run: Run, job: Job | None, command: Command | None) -> list[Block]:
        if job is not None:
            return list(command_blocks(job))
        if command is None or not run.history.run.get("config"):
            return []
        with suppress(UserError):
            note = Note("Such a run is started by this command.")
            given = arguments(command, self._values(run, command, run.path))
            return [Listing(command_lines(given)), note]
        return []

    # Forms.

    async def _form(self, request: Request) -> Response:
        asked = dict(request.query_params.items())
        page = await asyncio.to_thread(self._form_page, asked)
        return self._shown(page, 200)

    def _form_page(self, asked: Mapping[str, str]) -> Page:
        if "stage" not in asked:
            return choice_page(self._commands(), self._off)
        command = self._command_of(asked["stage"])
        if "again" in asked:
            job = self._jobs.of(asked["again"])
            if job is not None and job.command == command.name and job.here == str(self._here):
                return self._page(command, job.values, goes_on=job.path)
            if command.recipes is not None and self._steps(asked["again"], job):
                return self._page(
                    command, self._recipe_values(asked["again"]), goes_on=asked["again"]
                )
            run = self._runs.require(asked["again"])
            return self._page(command, self._values(run, command, run.path), goes_on=run.path)
        if "like" in asked:
            return self._page(
                command, self._values(self._runs.require(asked["like"]), command, None)
            )
        if "from" in asked:
            return self._page(command, self._from(command, self._runs.require(asked["from"])))
        if command.recipes is not None and not asked.get(RECIPE):
            return self._page(command, {})  # its folder has the name of the recipe
        values = {RECIPE: asked[RECIPE]} if command.recipes is not None else {}
        return self._page(command, values | {OUT: self._proposed(command, "", values)})

    def _recipe_values(self, path: str) -> dict[str, str]:
        """The values of a form for a recipe that was begun in a terminal; the folder of a built-in
        one often has its name."""
        name = Path(path).name
        known = name in self._recipes(self._commands()[RUN])
        return {OUT: self._written(path)} | ({RECIPE: name} if known else {})

    def _recipes(self, command: Command) -> Mapping[str, str]:
        """The recipes that may be run: only built-in ones if the studio is open to everyone."""
        root = None if self._off else self._runs.root
        return {} if command.recipes is None else command.recipes.found(root)

    def _page(
        self,
        command: Command,
        values: Mapping[str, str],
        error: str = "",
        listing: str = "",
        busy: str = "",
        goes_on: str | None = None,
    ) -> Page:
        commands = self._commands()
        makes = {name: one.makes for name, one in commands.items()}
        runs = [(run, makes.get(run.stage, "")) for run in self._runs.all().values()]
        return form_page(
            command,
            values,
            here=self._here,
            runs=runs,
            recipes=self._recipes(command),
            out=self._proposed(command, "", values) if goes_on is None else self._written(goes_on),
            error=error,
            listing=listing,
            busy=busy,
            goes_on=goes_on,
            off=self._off,
        )

    def _from(self, command: Command, run: Run) -> dict[str, str]:
        """The values of a form that continues from a run: the run, and its own inputs."""
        commands = self._commands()
        values = {OUT: self._proposed(command, run.group)}
        own = commands.get(run.stage)
        taken = None if own is None else command.input_for(own.makes)
        if taken is None:
            raise BadRequest(f"groundup {command.subcommand} cannot continue from {run.label}")
        names = [taken]
        names += [one for one in command.settings if one.required and one.accepts and one != taken]
        above = [run, *self._above(run)]
        for one in names:
            for found in above:
                made = commands.get(found.stage)
                if made is not None and made.makes in one.accepts:
                    name = named_from(found.folder, self._here)
                    values[one.name] = name if one.type == "text" else shlex.quote(name)
                    break
        return values

    def _above(self, run: Run) -> list[Run]:
        """The runs that a run was made from, nearest first."""
        found, seen, open_ = list[Run](), {run.path}, [run]
        while open_:
            for _, path in self._runs.parents(open_.pop(0)).values():
                above = None if path is None or path in seen else self._runs.get(path)
                if above is not None:
                    seen.add(above.path)
                    found.append(above)
                    open_.append(above)
        return found

    def _values(self, run: Run, command: Command, out: str | None) -> dict[str, str]:
        """The values of a form to start such a run, in a new folder or in `out`."""

        def found(named: str) -> str:
            near = run.history.beside(named)
            # For an invalid name, such as one too long, os.path says that there is no such file.
            if not os.path.exists(near) or near == Path(named):
                return named
            return named_from(Path(os.path.realpath(near)), self._here)

        values = values_of(command, run.history.run.get("config", {}), found)
        written = self._proposed(command, run.group) if out is None else self._written(out)
        return values | {OUT: written}

    def _proposed(
        self, command: Command, group: str, values: Mapping[str, str] | None = None
    ) -> str:
        """An unused folder in that group, named after the stage or recipe."""
        name = Path((values or {}).get(RECIPE, "")).stem
        # For example a pattern, or an invalid name, which reading the recipe reports.
        if not _PLAIN_NAME.fullmatch(name):
            name = command.name
        lives = {job.path for job in self._jobs.alive()}
        root = self._jobs.root
        free = free_path(lambda path: path in lives or (root / path).exists(), group, name)
        return self._written(free)

    def _written(self, path: str) -> str:
        """The folder of a path, as a user would write it."""
        return named_from(self._jobs.root / path, self._here)

    def _command_of(self, name: str) -> Command:
        command = self._commands().get(name)
        if command is None:
            raise BadRequest(f"there is no stage {shorten(name)}; go back and choose one", None)
        return command

    # Submitted forms.

    async def _start(self, request: Request) -> Response:
        form = await read_form(request)
        command = await asyncio.to_thread(self._command_of, form.get("stage", ""))
        values = {one.name: form.get(one.name, "").strip() for one in command.settings}
        goes_on = form.get("again")

        async def form_response(error: str = "", listing: str = "", busy: str = "") -> Response:
            page = await asyncio.to_thread(
                self._page, command, values, error, listing, busy, goes_on
            )
            return self._shown(page, 400 if error else 200)

        try:
            wanted = await asyncio.to_thread(self._checked, command, values, goes_on)
        except UserError as error:
            return await form_response(str(error))
        if "show" in form:
            return await form_response(listing=command_lines(wanted.arguments))
        if self._off:
            raise BadRequest(OFF, status=403)
        async with self._start_lock:
            busy = await asyncio.to_thread(self._busy)
            if busy and BESIDE not in form:
                return await form_response(
                    _busy_message(busy), command_lines(wanted.arguments), busy=busy
                )
            try:
                # Another tab may have started it meanwhile.
                wanted = await asyncio.to_thread(self._checked, command, wanted.values, goes_on)
                job = await self._start_job(wanted)
            except UserError as error:
                return await form_response(str(error))
        if job.failed:
            return await form_response(job.complaint(), command_lines(wanted.arguments))
        return RedirectResponse(run_address(wanted.path), 303)

    async def _continue(self, request: Request) -> Response:
        form = await read_form(request)
        path = form.get("run", "")
        job = await asyncio.to_thread(self._job, path)
        command = await asyncio.to_thread(self._command_of, job.command)
        if self._off:
            raise BadRequest(OFF, status=403)
        if job.here != str(self._here):
            raise BadRequest(
                f"{path} was started in {job.here}, from where its command names its folders; "
                "start the studio there to continue it"
            )
        async with self._start_lock:
            busy = await asyncio.to_thread(self._busy)
            if busy and BESIDE not in form:
                page = busy_page(path, _busy_message(busy))
                return self._shown(page, 400)
            start = _Start(command, job.values, path, job.arguments)
            await asyncio.to_thread(self._check, start, path)
            await self._start_job(start)
        return RedirectResponse(run_address(path), 303)

    async def _stop(self, request: Request) -> Response:
        form = await read_form(request)
        path = form.get("run", "")
        job = await asyncio.to_thread(self._job, path)
        if job.lives:
            await asyncio.to_thread(self._jobs.stop, job, AT_ONCE in form)
            log(f"asked to stop: {printable(path)}")
            await self._until(lambda: not self._job(path).lives, _STOP_SECONDS)
        return RedirectResponse(run_address(path), 303)

    def _job(self, path: str) -> Job:
        job = self._jobs.of(path)
        if job is None:
            raise BadRequest(f"{shorten(path)} was not started here; go back to its page")
        return job

    def _checked(self, command: Command, values: Mapping[str, str], goes_on: str | None) -> _Start:
        """What is to be started, checked as far as possible before it is."""
        if self._off and command.recipes is not None:
            # A recipe's rewards are imported when it is read.
            given = values.get(RECIPE, "")
            if given not in self._recipes(command):
                raise UserError(
                    f"RECIPE={shorten(given)} is no built-in recipe, and others require a key: "
                    "start the studio with --api-key"
                )
        out = values.get(OUT) or self._proposed(command, "", values)
        path = below(self._jobs.root, self._here, out, is_place)
        values = {**values, OUT: self._written(path)}
        start = _Start(command, values, path, arguments(command, values, expand=not self._off))
        self._check(start, goes_on)
        return start

    def _check(self, start: _Start, goes_on: str | None) -> None:
        """Raise `UserError` for a command that cannot be started."""
        out, folder = start.values[OUT], self._jobs.root / start.path
        written = start.command.check(start.arguments)
        if os.path.realpath(self._here / written) != str(folder):
            raise UserError(f"--out={out!r} is not what would be written; name one folder")
        if start.path != goes_on and has_begun(folder):
            raise UserError(
                f"--out={out!r} holds something already; name another folder, or continue the run "
                "that is there from its page"
            )
        job = self._jobs.of(start.path)
        run = self._runs.get(start.path)
        if (job is not None and job.lives) or (run is not None and _is_in_progress(run, job)):
            raise UserError(f"--out={out!r} is written by a run in progress; name another folder")

    def _busy(self) -> str:
        """What is running below this folder, or was started from here."""
        alive = self._jobs.alive()
        own = {job.pid for job in alive}
        running = {job.path for job in alive}
        running |= {
            run.path
            for run in self._runs.all().values()
            if _is_in_progress(run, self._job_of(run)) and run.status.get("pid") not in own
        }
        return " and ".join(sorted(path or self._runs.root.name for path in running))

    async def _start_job(self, wanted: _Start) -> Job:
        """Start a command, and wait a few seconds in case it fails."""
        job = await asyncio.to_thread(
            self._jobs.start, wanted.path, wanted.command.name, wanted.values, wanted.arguments
        )

        def settled() -> bool:
            known = self._jobs.of(wanted.path)
            return known is None or not known.lives

        log(f"started: {printable(shlex.join(['groundup', *wanted.arguments]))}")
        await self._until(settled, _FIRST_SECONDS)
        return await asyncio.to_thread(self._jobs.of, wanted.path) or job

    async def _until(self, done: Callable[[], bool], seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until and not await asyncio.to_thread(done):
            await asyncio.sleep(_PAUSE)


def _is_in_progress(run: Run, job: Job | None) -> bool:
    """Whether a run is being written; one that was killed leaves its heartbeat as it was."""
    ended = job is not None and not job.lives and run.status.get("pid") == job.pid
    return run.state == "running" and not ended


def _busy_message(busy: str) -> str:
    return (
        f"{busy} is running, and two trainings on one machine take far more than twice as long; "
        "stop it first, wait for its end, or start this one anyway"
    )


def _with_links(page: Page, links: list[tuple[str, str]]) -> Page:
    """The page with more links among those at its top."""
    if not links:
        return page
    first = page.opening[0] if page.opening else None
    if isinstance(first, Links):
        return replace(page, opening=[Links([*first.links, *links]), *page.opening[1:]])
    return replace(page, opening=[Links(links), *page.opening])
