"""The studio's pages to start runs with: which stage, its form, a command that has no run yet."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import quote, urlencode

from groundup.report.fields import Button, Field, Fields, Settings
from groundup.report.page import Block, Box, Fold, Links, Listing, Live, Note, Page, Section
from groundup.report.table import Cell, Column, Part, Row, Table
from groundup.studio.jobs import Job, command_lines
from groundup.studio.runs import Run
from groundup.studio.words import NO, OUT, YES, Kind, Setting, as_typed

_SOON = 2
# Of what a command complains of, as much as is read.
_LINES, _LETTERS = 8, 600
BESIDE, AT_ONCE = "beside", "at_once"


def start_address(kind: str, **about: str) -> str:
    """Where the form of a kind of step is, filled in from the run that is named."""
    return f"/start?{urlencode({'stage': kind} | about)}"


def run_address(path: str) -> str:
    return f"/runs/{quote(path)}"


# Which stage.


def choice_page(kinds: Mapping[str, Kind], off: str) -> Page:
    """All that can be started."""
    rows = [
        (kind, Row(kind.command, [Cell(kind.help)], href=start_address(kind.name)))
        for kind in kinds.values()
    ]
    table = Table(
        [Column("what it does", words=True)], _grouped(rows), corner="command", title="Stages"
    )
    opening: list[Block] = [Links([("All runs", "/")]), *([Box(off)] if off else []), table]
    lead = "Each is a command of the terminal as well, and its form shows which."
    return _page("Start a run", lead, opening, [])


def next_steps(kinds: Mapping[str, Kind], run: Run) -> list[Block]:
    """What a finished run can be an input of."""
    own = kinds.get(run.stage)
    if own is None or run.state != "done":
        return []
    taking = [(kind, kind.input_for(own.makes)) for kind in kinds.values()]
    # First what goes on with what a run has made, and then what only reads something of it.
    taking.sort(key=lambda one: one[1] is not None and one[1].name != one[0].start)
    rows = [
        (kind, _following(kind, taken, start_address(kind.name, **{"from": run.path})))
        for kind, taken in taking
        if taken is not None
    ]
    if not rows:
        return []
    columns = [Column("what it does", words=True)]
    return [Table(columns, _grouped(rows), corner="command", title="Go on from here")]


def _following(kind: Kind, taken: Setting, href: str) -> Row:
    is_start = taken.name == kind.start or taken.positional
    note = "" if is_start else f"this run is its {taken.name.replace('_', ' ')}"
    return Row(kind.command, [Cell(kind.help, note)], href=href)


def _grouped(rows: Sequence[tuple[Kind, Row]]) -> list[Row | Part]:
    groups: dict[str, list[Row | Part]] = {}
    for kind, row in rows:
        groups.setdefault(kind.group, [Part(kind.group)]).append(row)
    return [row for group in groups.values() for row in group]


# Its form.


def form_page(
    kind: Kind,
    typed: Mapping[str, str],
    *,
    here: Path,
    runs: Sequence[tuple[Run, str]],
    out: str,
    faults: Sequence[tuple[str, str]] = (),
    why: str = "",
    command: str = "",
    busy: str = "",
    goes_on: str | None = None,
    off: str = "",
) -> Page:
    """The form of a stage with what is `typed` in it.

    `runs` are those shown, each with what it makes, and `out` is the folder that is proposed.
    `why` nothing was started stands on top, and at the fields what is wrong with them; `command` is
    what the form amounts to, `busy` what runs by now, `goes_on` the run that is continued, and
    `off` why nothing may be started here.
    """
    opening: list[Block] = [Links([("All runs", "/"), ("Another stage", "/start")])]
    opening += [Box(line) for line in (off,) if line]
    if why:
        opening.append(_told("Nothing was started", why))
    if command:
        opening += ["The form amounts to this command:", Listing(command)]
    opening += [Note(one) for one in kind.more]
    at_fields = dict(faults)
    leading = [one for one in kind.settings if one.leads]
    groups = [Fields("", [_field(one, typed, at_fields, out) for one in leading])]
    rest: dict[str, list[Setting]] = {}
    for one in kind.settings:
        if not one.leads:
            rest.setdefault(one.group, []).append(one)
    for title, some in rest.items():
        # What is wrong, and what was written, is not hidden from whoever wrote it.
        written = any(typed.get(one.name) or one.name in at_fields for one in some)
        fields = [_field(one, typed, at_fields, out) for one in some]
        title = "More settings" if len(rest) == 1 else f"More settings: {title.lower()}"
        groups.append(Fields(title, fields, folded=True, unfolded=written))
    first = [] if off else [("start", "Start" if goes_on is None else "Continue")]
    settings = Settings(
        "settings",
        "/start",
        {"stage": kind.name} | ({} if goes_on is None else {"again": goes_on}),
        groups,
        [*first, ("show", "Show the command")],
        _offers(kind, runs, here),
        {BESIDE: f"start it beside {busy} all the same"} if busy and not off else {},
    )
    note = Note(
        f"What is left empty takes its default. Folders and files are named as in a terminal in "
        f"`{here}`; several are written side by side, one with spaces in quotation marks."
    )
    lead = kind.help if goes_on is None else f"{kind.help} It goes on with `{goes_on or here}`."
    return _page(f"groundup {kind.command}", lead, [*opening, note, settings], [])


def _field(one: Setting, typed: Mapping[str, str], faults: Mapping[str, str], out: str) -> Field:
    choices = (YES, NO) if one.how == "flag" else one.choices
    empty = one.default or (out if one.name == OUT else "")
    if choices:
        empty = f"default: {one.default}" if one.default else "by default"
    said = one.said + (" (name=value, side by side)" if one.how == "table" else "")
    value = typed.get(one.name, "")
    # What is no choice is kept, to be seen beside what is said of it.
    if choices and value and value not in choices:
        choices = (*choices, value)
    label = one.name.replace("_", " ")
    return Field(
        name=one.name,
        label=label[:1].upper() + label[1:],
        option=one.option,
        said=said[:1].upper() + said[1:],
        value=value,
        empty=empty,
        choices=choices,
        offers="-".join(one.accepts) + ("-side-by-side" if one.how == "several" else "")
        if one.accepts
        else "",
        needed=one.required,
        fault=faults.get(one.name, ""),
    )


def _offers(kind: Kind, runs: Sequence[tuple[Run, str]], here: Path) -> dict[str, Sequence[str]]:
    """The finished runs that each input may name."""
    found: dict[str, Sequence[str]] = {}
    for one in kind.settings:
        if one.accepts:
            names = [
                as_typed(run.folder, here)
                for run, makes in runs
                if makes in one.accepts and run.state == "done"
            ]
            found["-".join(one.accepts)] = names
            found["-".join(one.accepts) + "-side-by-side"] = list(map(shlex.quote, names))
    return found


# A command.


def unborn_page(job: Job, kind: Kind | None) -> Page:
    """A command that was started for a run of which there is nothing yet, or nothing any more."""
    links = [("All runs", "/")]
    if not job.lives and kind is not None:
        links.append(("Change the settings", start_address(job.kind, again=job.path)))
    opening: list[Block] = [
        Links(links),
        *failure(job),
        *([stop_button(job, kind)] if job.lives else []),
    ]
    ended = "it failed" if job.failed else "it has ended, and there is no run in its folder"
    lead = "It is starting." if job.lives else f"{ended[:1].upper()}{ended[1:]}."
    section = Section("Its command", "command", list(command_blocks(job, folded=False)))
    return _page(job.path, lead, opening, [section], _SOON)


def failure(job: Job | None) -> list[Block]:
    """Why the command that was started last for a run has failed, where it has."""
    if job is None or not job.failed:
        return []
    return [_told("The command failed", job.complaint())]


def command_blocks(job: Job, folded: bool = True) -> Iterator[Block]:
    """The command of a run, and what it has written."""
    yield Listing(command_lines(job.words))
    said = job.said().strip()
    if said:
        listing = Listing(said)
        yield Fold("What it wrote", [listing]) if folded else listing
    yield Note(f"All of its output is in `{job.log}`.")


def stop_button(job: Job, kind: Kind | None) -> Button:
    if job.asked_to_stop:
        said = "It was asked to stop, and saves what it has; a second time ends it at once."
        hidden = {"run": job.path, AT_ONCE: "on"}
        return Button("stop-at-once", "/stop", hidden, "Stop at once", said)
    said = "As Ctrl-C does. "
    if kind is not None and kind.resumes:
        said += "It is saved first, and can go on from there."
    else:
        said += "What it has done so far may have to be done again."
    return Button("stop", "/stop", {"run": job.path}, "Stop", said)


def continue_button(path: str, words: str = "Continue", **more: str) -> Button:
    said = "The same command again: it goes on from what it saved."
    return Button("continue", "/continue", {"run": path} | more, words, said)


def busy_page(path: str, why: str) -> Page:
    """What is asked before a run goes on beside another."""
    opening: list[Block] = [
        Links([("All runs", "/"), (path, run_address(path))]),
        Box(why),
        continue_button(path, "Continue all the same", **{BESIDE: "on"}),
    ]
    return _page(f"Continue {path}", "Nothing was started.", opening, [])


def _told(what: str, why: str) -> Box:
    """What came to nothing, and why: one sentence, or a point for each."""
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
