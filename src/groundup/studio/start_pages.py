"""The studio's pages for starting runs: the stages, a stage's form, commands without a run yet."""

from __future__ import annotations

import platform
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from groundup.report.form import Button, Field, Fieldset, Form, filled
from groundup.report.page import Block, Box, Fold, Links, Listing, Live, Note, Page, Section
from groundup.report.table import Cell, Column, Part, Row, Table
from groundup.runs.console import counted
from groundup.studio.commands import NO, OUT, RECIPE, YES, Command, Setting, Step, named_from
from groundup.studio.jobs import Job, command_lines
from groundup.studio.pages import RUN_COLUMNS, run_row, shown
from groundup.studio.runs import Run, Runs

_SOON, _LATER = 2, 10
# The most of a command's complaint that is shown: lines, and characters of a line.
_LINES, _LETTERS = 8, 600
BESIDE, AT_ONCE = "beside", "at_once"


def start_address(command: str, **about: str) -> str:
    """The address of a command's form, filled in from the run or recipe that is named."""
    return f"/start?{urlencode({'stage': command} | about)}"


def run_address(path: str) -> str:
    return f"/runs/{quote(path)}"


# Which stage.


def choice_page(commands: Mapping[str, Command], off: str) -> Page:
    """Everything that can be started."""
    rows = [
        (command, Row(command.subcommand, [Cell(command.help)], href=start_address(command.name)))
        for command in commands.values()
    ]
    table = Table(
        [Column("what it does", words=True)], _grouped(rows), corner="command", title="Commands"
    )
    opening: list[Block] = [Links([("All runs", "/")]), *([Box(off)] if off else []), table]
    lead = "Each is a command of the terminal as well, and its form shows which."
    return _page("Start a run", lead, opening, [])


def next_steps(commands: Mapping[str, Command], run: Run) -> list[Block]:
    """The commands that can take a finished run as an input."""
    own = commands.get(run.stage)
    if own is None or run.state != "done":
        return []
    taking = [(command, command.input_for(own.makes)) for command in commands.values()]
    # First the commands that continue with what the run has made, then those that only read it.
    taking.sort(key=lambda one: one[1] is not None and one[1].name != one[0].start)
    rows = [
        (command, _following(command, taken, start_address(command.name, **{"from": run.path})))
        for command, taken in taking
        if taken is not None
    ]
    if not rows:
        return []
    columns = [Column("what it does", words=True)]
    return [Table(columns, _grouped(rows), corner="command", title="Continue from here")]


def _following(command: Command, taken: Setting, href: str) -> Row:
    is_start = taken.name == command.start or taken.positional
    note = "" if is_start else f"this run is its {taken.name.replace('_', ' ')}"
    return Row(command.subcommand, [Cell(command.help, note)], href=href)


def _grouped(rows: Sequence[tuple[Command, Row]]) -> list[Row | Part]:
    groups: dict[str, list[Row | Part]] = {}
    for command, row in rows:
        groups.setdefault(command.group, [Part(command.group)]).append(row)
    return [row for group in groups.values() for row in group]


# Its form.


def form_page(
    command: Command,
    values: Mapping[str, str],
    *,
    here: Path,
    runs: Sequence[tuple[Run, str]],
    recipes: Mapping[str, str],
    out: str,
    error: str = "",
    listing: str = "",
    busy: str = "",
    goes_on: str | None = None,
    off: str = "",
) -> Page:
    """The form of a command, with `values` filled in.

    `runs` are those shown, each with what it makes, `recipes` those that can be run, each with its
    purpose, and `out` is the proposed folder. `error` says why nothing was started, with a line per
    field; `listing` is the form's command, `busy` names what is running, `goes_on` is the run that
    is continued, and `off` says why nothing may be started here.
    """
    opening: list[Block] = [Links([("All runs", "/"), ("Another stage", "/start")])]
    opening += [Box(off)] if off else []
    if error:
        opening.append(_failure_box("Nothing was started", error))
    if listing:
        opening += ["The form stands for this command:", Listing(listing)]
    opening += [Note(one) for one in command.notes]
    opening += recipe_blocks(command, values, recipes)
    leading = [_field(one, out) for one in command.settings if one.leading]
    rest: dict[str, list[Field]] = {}
    for one in command.settings:
        if not one.leading:
            rest.setdefault(one.group, []).append(_field(one, out))
    fieldsets = [Fieldset("", leading)]
    for title, fields in rest.items():
        legend = "More settings" if len(rest) == 1 else f"More settings: {title.lower()}"
        fieldsets.append(Fieldset(legend, fields, folded=True))
    fieldsets = filled(fieldsets, values, error)
    buttons = [Button("Show the command", "show")]
    if not off:
        buttons.insert(0, Button("Start" if goes_on is None else "Continue", "start"))
        if busy:
            beside = Field(BESIDE, f"start it although {busy} is running", type="checkbox")
            fieldsets.append(Fieldset("", [beside]))
    form = Form(
        "/start",
        fieldsets,
        buttons,
        {"stage": command.name} | ({} if goes_on is None else {"again": goes_on}),
        suggestions=_suggestions(command, runs, recipes, here),
    )
    note = Note(
        f"Empty fields take their defaults. Folders and files are named as in a terminal in "
        f"`{here}`, also by patterns such as `texts/*.txt`; separate several by spaces, and put "
        "names with spaces in quotation marks."
    )
    lead = command.help + ("" if goes_on is None else f" It continues `{goes_on or here}`.")
    return _page(f"groundup {command.subcommand}", lead, [*opening, note, form], [])


def _field(one: Setting, out: str) -> Field:
    choices = (YES, NO) if one.type == "flag" else one.choices
    empty = f"default: {one.default}" if one.default else "by default"
    help = one.help + (" (name=value, separated by spaces)" if one.type == "table" else "")
    label = one.name.replace("_", " ")
    return Field(
        one.name,
        label[:1].upper() + label[1:],
        help[:1].upper() + help[1:],
        "select" if choices else "text",
        placeholder="" if choices else one.default or (out if one.name == OUT else ""),
        options=[("", empty), *((each, each) for each in choices)] if choices else (),
        suggestions=_list_of(one),
        required=one.required,
        flag=one.option,
    )


def _list_of(one: Setting) -> str:
    """The name of the list of suggestions for a setting."""
    return "-".join(one.accepts) + ("-side-by-side" if one.accepts and one.type == "list" else "")


def _suggestions(
    command: Command, runs: Sequence[tuple[Run, str]], recipes: Mapping[str, str], here: Path
) -> dict[str, Sequence[str]]:
    """The existing finished runs and recipes that each setting may name."""
    found: dict[str, Sequence[str]] = {}
    for one in command.settings:
        if one.accepts:
            names = [
                named_from(run.folder, here)
                for run, makes in runs
                if makes in one.accepts and run.state == "done"
            ]
            found[_list_of(one)] = names if one.type == "text" else list(map(shlex.quote, names))
    if command.recipes is not None:
        found[RECIPE] = list(recipes)
    return found


# A recipe.


def recipe_blocks(
    command: Command, values: Mapping[str, str], recipes: Mapping[str, str]
) -> Iterator[Block]:
    """The tables of the chosen recipe; without one, all recipes."""
    if command.recipes is None:
        return
    chosen = values.get(RECIPE, "")
    # Following a link must not read any other file.
    if chosen in recipes and (steps := command.recipes.steps(chosen)):
        rows = [Row(one.name, [Cell(one.stage), Cell(one.settings)]) for one in steps]
        columns = [Column("stage"), Column("settings", words=True)]
        yield Table(columns, rows, corner="run", title="Runs of this recipe")
        return
    rows = [
        Row(name, [Cell(what)], href=start_address(command.name, **{RECIPE: name}))
        for name, what in recipes.items()
    ]
    yield Table([Column("what it does", words=True)], rows, corner=RECIPE, title="Recipes")


def recipe_page(
    runs: Runs,
    path: str,
    steps: Sequence[tuple[Step, Run | None]],
    job: Job | None,
    links: Sequence[tuple[str, str]],
    buttons: Sequence[Block],
    plan: Mapping[str, Any],
) -> Page:
    """A recipe in its folder: its runs, including those to come, its plan and its command."""
    nothing = [Cell("")] * (len(RUN_COLUMNS) - 1)
    rows = [
        Row(step.name, [Cell("not begun"), *nothing], step.stage)
        if run is None
        else run_row(runs, run)
        for step, run in steps
    ]
    done = sum(run is not None and run.state == "done" for _, run in steps)
    lives = job is not None and job.lives
    lead = f"A recipe{', running' * lives}: {done} of {counted(len(steps), 'run')} done."
    opening: list[Block] = [Links([("All runs", "/"), *links]), *failure(job), *buttons]
    opening.append(Table(RUN_COLUMNS, rows, corner="run", title="Runs of this recipe"))
    written = [] if job is None else list(command_blocks(job))
    sections = [
        Section("Plan", "plan", list(_planned(plan))),
        Section("Its command", "command", written),
    ]
    kept = [one for one in sections if one.blocks]
    return _page(path or runs.root.name, lead, opening, kept, _SOON if lives else _LATER)


def _planned(plan: Mapping[str, Any]) -> Iterator[Block]:
    """The plan made from the minutes; the file of another program may hold anything."""
    reasons, settings = plan.get("reasons"), plan.get("settings")
    if not isinstance(reasons, dict) or not isinstance(settings, dict):
        return
    rows = []
    for name, reason in reasons.items():
        table, _, setting = name.partition(".")
        values = settings.get(table)
        value = values.get(setting) if isinstance(values, dict) else None
        rows.append(Row(name, [Cell(shown(value)), Cell(str(reason))]))
    columns = [Column("value"), Column("reason", words=True)]
    yield f"For {shown(plan.get('minutes'))} minutes on this machine."
    yield Table(columns, rows, corner="decided", title="Plan")


# A command.


def pending_page(job: Job, command: Command | None) -> Page:
    """A command that was started for a run that does not exist yet, or no longer exists."""
    links = [("All runs", "/")]
    if not job.lives and command is not None:
        links.append(("Change the settings", start_address(job.command, again=job.path)))
    opening: list[Block] = [
        Links(links),
        *failure(job),
        *([stop_button(job, command)] if job.lives else []),
    ]
    ended = "it failed" if job.failed else "it has ended, and there is no run in its folder"
    lead = "It is starting." if job.lives else f"{ended[:1].upper()}{ended[1:]}."
    section = Section("Its command", "command", list(command_blocks(job, folded=False)))
    return _page(job.path, lead, opening, [section], _SOON)


def failure(job: Job | None) -> list[Block]:
    """Why the command that was last started for a run has failed, if it has."""
    if job is None or not job.failed:
        return []
    return [_failure_box("The command failed", job.complaint())]


def command_blocks(job: Job, folded: bool = True) -> Iterator[Block]:
    """The command of a run, and its output."""
    yield Listing(command_lines(job.arguments))
    said = job.said().strip()
    if said:
        listing = Listing(said)
        yield Fold("What it wrote", [listing]) if folded else listing
    yield Note(f"All of its output is in `{job.log}`.")


def terminal_note(run: Run) -> Note:
    """How to stop a run that was not started here."""
    pid, host = run.status.get("pid"), run.status.get("host", platform.node())
    if host != platform.node():
        return Note(f"It runs on {host}, where Ctrl-C in its terminal stops it.")
    stops = "Ctrl-C in its terminal stops it" + (f", or `kill -INT {pid}`." if pid else ".")
    return Note(f"It was not started from this page. {stops}")


def stop_button(job: Job, command: Command | None) -> Form:
    if job.asked_to_stop:
        note = "It was asked to stop, and saves what it has; a second time ends it at once."
        button = Button("Stop at once", AT_ONCE, note=note)
        return Form("/stop", [], [button], {"run": job.path}, "stop-at-once")
    note = "As Ctrl-C does. "
    if command is not None and command.resumes:
        note += "It is saved first, and can continue from there."
    else:
        note += "What it has done so far may have to be done again."
    return Form("/stop", [], [Button("Stop", note=note)], {"run": job.path}, "stop")


def continue_button(path: str, label: str = "Continue", **more: str) -> Form:
    note = "The same command again: it continues from what it saved."
    button = Button(label, note=note)
    return Form("/continue", [], [button], {"run": path} | more, "continue")


def busy_page(path: str, busy: str) -> Page:
    """The question whether a run is to continue next to another."""
    opening: list[Block] = [
        Links([("All runs", "/"), (path, run_address(path))]),
        Box(busy),
        continue_button(path, "Continue anyway", **{BESIDE: "on"}),
    ]
    return _page(f"Continue {path}", "Nothing was started.", opening, [])


def _failure_box(what: str, why: str) -> Box:
    """What failed, and why: in one sentence, or in several points."""
    lines = [line[:_LETTERS] for line in why.splitlines()[:_LINES]]
    return Box(f"{what}: {lines[0]}") if len(lines) == 1 else Box(f"{what}.", lines)


def _page(
    title: str,
    lead: str,
    opening: Sequence[Block],
    sections: Sequence[Section],
    seconds: float | None = None,
) -> Page:
    live = None if seconds is None else Live("/live.js", seconds)
    whole = f"{title} · groundup studio"
    return Page(whole, title, lead, opening, sections, generator="groundup studio", live=live)
