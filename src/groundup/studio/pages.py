"""The studio's pages as data: all runs as a tree of their lineage, and one run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from groundup.report.figure import Plot
from groundup.report.form import Button, Field, Fieldset, Form
from groundup.report.history import History
from groundup.report.page import (
    PAGE,
    Answer,
    Block,
    Box,
    Dialogue,
    Fold,
    Heading,
    Links,
    Listing,
    Live,
    Note,
    Page,
    Plots,
    Section,
)
from groundup.report.table import Cell, Column, Mark, Part, Row, Table, in_bytes, short_number
from groundup.runs.console import counted, duration
from groundup.studio.runs import Run, Runs, State

# Seconds after which a page reloads: while something runs, and otherwise.
_SOON, _LATER = 5, 20
# A page's limits: prompts of a run, and texts of each before they are unfolded; unfolded texts;
# characters of a file.
_SAMPLES, _TEXTS, _LETTERS = 8, 200, 20_000
# More than the tokens that an X-ray looks at; it reports what it leaves out.
MAX_LETTERS = 2_000
_NEVER = datetime.fromtimestamp(0, UTC)
RUN_COLUMNS = [
    Column(title)
    for title in ("state", "steps", "training loss", "held out", "size", "started", "talk")
]
# The settings that have another name in the plan than in its reasons.
_PLACES = {
    "heads": "model.num_attention_heads",
    "width": "model.hidden_size",
    "learning_rate": "rates.matrices",
}
# What the names of some parents do not say.
_ROLES = {"ptx": "fine-tuning data read next to its own", "replay": "text read next to its own"}
_MARKS: Mapping[State, Mark] = {"done": "yes", "damaged": "no"}


def home_page(runs: Runs) -> Page:
    """All runs below the folder, those of a recipe together, each below what it was made from."""
    found = runs.all()
    running = [run for run in found.values() if run.state == "running"]
    now = f"{len(running)} running now" if running else "none is running now"
    lead = f"{counted(len(found), 'run')} below `{runs.root}`; {now}."
    any_model = any(run.holds_model for run in found.values())
    links = [("Talk to a model", "/talk"), ("Vote on answers", "/vote")] if any_model else []
    opening: list[Block] = [Links(links)] if links else []
    if runs.cut:
        opening.append(Note("There is more below this folder; give a folder further down."))
    if found:
        opening.append(_runs_table(runs, found))
    else:
        begin = ["`groundup quickstart`", "`groundup run RECIPE`, a journey of your own"]
        why = "Nothing was trained here yet. Begin with a whole journey, from text to a model that "
        opening.append(Box(f"{why}chats; this page shows it as it goes.", begin))
    return _page("Runs", lead, opening, [], _SOON if running else _LATER)


def run_page(runs: Runs, run: Run, plots: Sequence[Plot], samples: Sequence[Any]) -> Page:
    """One run, from its own files: its progress, its curves, its samples and its lineage."""
    lead = f"{run.stage or 'A run'}, {run.state}"
    lead += f"; started {_when(run.begun)}." if run.begun is not None else "."
    links = [("All runs", "/")]
    if run.holds_model:
        links += [("Talk to it", _talk(run)), ("Look inside", "#inside")]
        links.append(("Vote on its answers", f"/vote?{urlencode({'model': run.label})}"))
    if run.file(PAGE) is not None:
        links.append(("Its report", f"/report/{quote(run.path)}"))
    opening: list[Block] = [Links(links)]
    if run.why:
        opening.append(Box(_sentence(f"{run.state}: {run.why}")))
    row = replace(run_row(runs, run), href="")
    opening.append(Table(RUN_COLUMNS[:5], [replace(row, cells=row.cells[:5])], corner="run"))
    history = run.history
    sections = [
        Section("Curves", "curves", [Plots(plots)] if plots else []),
        Section("What it wrote", "samples", _samples(samples)),
        Section("Lineage", "lineage", list(_lineage(runs, run))),
        Section("Look inside", "inside", [_inside(run)] if run.holds_model else []),
        Section("Plan", "plan", _plan(history)),
        Section("How it was started", "settings", _settings(history.run)),
        Section("Data and model card", "files", list(_files(run))),
    ]
    kept = [section for section in sections if section.blocks]
    return _page(run.label, lead, opening, kept, _SOON if run.state == "running" else _LATER)


def look_links(root: Path, name: str, folder: Path) -> list[tuple[str, str]]:
    """The links on the page of what a model below the root does with a text."""
    path = folder.relative_to(root.resolve()).as_posix()
    run = f"/runs/{quote('' if path == '.' else path)}"
    return [("All runs", "/"), (name, run), ("Another text", f"{run}#inside")]


def refusal_page(status: int, why: str, links: Sequence[tuple[str, str]] = ()) -> Page:
    """The page of a request that is refused."""
    blocks: list[Block] = [Links([*links, ("All runs", "/")]), Box(_sentence(why))]
    return Page(f"groundup studio: {status}", "This cannot be shown", "", blocks, [])


def _page(
    title: str, lead: str, opening: Sequence[Block], sections: Sequence[Section], seconds: float
) -> Page:
    whole, live = f"{title} · groundup studio", Live("/live.js", seconds)
    return Page(whole, title, lead, opening, sections, generator="groundup studio", live=live)


# All runs.


def _runs_table(runs: Runs, found: Mapping[str, Run]) -> Table:
    rows = list[Row | Part]()
    for group, tree in _trees(runs, found):
        rows.append(Part(group or runs.root.name))
        rows += [run_row(runs, *one) for one in tree]
    said = [f"**{run.label}**: {run.why}" for run in found.values() if run.why]
    if any(run.holds_model for run in found.values()):
        said.append("To see what a model does with a text, open the page of its run.")
    return Table(RUN_COLUMNS, rows, corner="run", title="Runs", remarks=said)


def _trees(
    runs: Runs, found: Mapping[str, Run]
) -> Iterator[tuple[str, Sequence[tuple[Run, int, str]]]]:
    """The runs of each folder, last started first, each with its depth in the tree or its origin.

    A run is below the last made of its inputs: data come before a tokenizer, and a tokenizer before
    a model.
    """
    made_from = {
        path: {at for _, at in runs.parents(run).values() if at is not None and at in found}
        for path, run in found.items()
    }
    heights: dict[str, int] = {}

    def height(path: str, below: frozenset[str] = frozenset()) -> int:
        # A damaged run.json may say anything, even that a run is made from itself.
        if path not in heights:
            above = (height(one, below | {path}) for one in made_from[path] - below)
            heights[path] = 1 + max(above, default=0)
        return heights[path]

    groups: dict[str, list[Run]] = {}
    below: dict[str | None, list[tuple[Run, str]]] = {}
    for path, run in sorted(found.items(), key=lambda one: (one[1].begun or _NEVER, one[0])):
        groups.setdefault(run.group, []).append(run)
        above = [one for one in made_from[path] if height(one) < height(path)]
        last = max(above, key=lambda one: (height(one), one), default="")
        is_near = bool(above) and found[last].group == run.group
        below.setdefault(last if is_near else None, []).append((run, "" if is_near else last))

    def tree(path: str | None, depth: int) -> Iterator[tuple[Run, int, str]]:
        for run, elsewhere in below.get(path, ()):
            yield run, depth, elsewhere
            yield from tree(run.path, depth + 1)

    rows = list(tree(None, 0))
    for group in sorted(groups, key=lambda one: groups[one][-1].begun or _NEVER, reverse=True):
        yield group, [one for one in rows if one[0].group == group]


def run_row(runs: Runs, run: Run, depth: int = 0, elsewhere: str = "") -> Row:
    """A run in a table of runs, at a depth below others, or made from something elsewhere."""
    parameters = run.history.planned("parameters")
    cells = [
        _state(run),
        _steps(run),
        _number(run.latest.loss),
        _number(run.latest.heldout, run.latest.measure.removeprefix("held-out ")),
        Cell(
            in_bytes(runs.size(run)),
            f"{short_number(parameters)} parameters" if parameters else "",
        ),
        None if run.begun is None else Cell(_when(run.begun)),
        Cell("Talk", href=_talk(run)) if run.holds_model else Cell(""),
    ]
    notes = (run.stage if run.stage != run.name else "", f"from {elsewhere}" if elsewhere else "")
    return Row(run.name, cells, ", ".join(filter(None, notes)), href=_address(run), depth=depth)


def _state(run: Run) -> Cell:
    note = ""
    if run.state == "running" and run.heard is not None:
        ago = max(0.0, (datetime.now(UTC) - run.heard).total_seconds())
        note = "updated just now" if ago < 10 else f"updated {duration(ago)} ago"
    return Cell(run.state, note, mark=_MARKS.get(run.state, ""))


def _steps(run: Run) -> Cell | None:
    if run.steps is None:
        return None
    done, planned = run.steps
    if run.state == "done":
        seconds = run.status.get("seconds")
        took = f"in {duration(seconds)}" if isinstance(seconds, float) else ""
        return Cell(f"{done:,}", took)
    left = "" if run.seconds_left is None else f"{duration(run.seconds_left)} left"
    # How much of a damaged run is intact is not known.
    share = None if run.state == "damaged" else min(1.0, done / planned)
    return Cell(f"{done:,} of {planned:,}", left, share=share)


def _number(value: float | None, note: str = "") -> Cell | None:
    return None if value is None else Cell(f"{value:.3f}", note)


# One run.


def _samples(samples: Sequence[Any]) -> list[Block]:
    """The texts that a model wrote during training, by prompt."""
    by_prompt: dict[str, list[Answer]] = {}
    for one in samples:
        prompt, text = one.get("prompt"), one.get("text")
        if isinstance(prompt, str) and isinstance(text, str):
            who = f"after step {one['step']:,}"
            by_prompt.setdefault(prompt, []).append(Answer(who, text[:_LETTERS]))
    blocks: list[Block] = []
    for prompt, answers in list(by_prompt.items())[:_SAMPLES]:
        few = _spread(answers, _SAMPLES)
        blocks.append(Dialogue([("the prompt", prompt)], few))
        if len(few) < len(answers):
            title = "All texts" if len(answers) <= _TEXTS else f"The last {_TEXTS} texts"
            blocks.append(Fold(f"{title} of this prompt", [Dialogue([], answers[-_TEXTS:])]))
    if len(by_prompt) > _SAMPLES:
        more = f"{_SAMPLES} of {len(by_prompt):,} prompts; `samples.jsonl` has all."
        blocks.append(Note(f"Shown are the first {more}"))
    return blocks


def _spread(answers: Sequence[Answer], most: int) -> Sequence[Answer]:
    """The first and the last, and more early than late ones between: most is learned at first."""
    if len(answers) <= most:
        return answers
    last = len(answers) - 1
    places = {round((last + 1) ** (i / (most - 1))) - 1 for i in range(most)} | {last}
    return [answers[place] for place in sorted(places)]


def _lineage(runs: Runs, run: Run) -> Iterator[Block]:
    above = [
        Row(said, [_role(name)], href="" if path is None else f"/runs/{quote(path)}")
        for name, (said, path) in runs.parents(run).items()
    ]
    below = [
        Row(one.label, [_role(name)], one.stage, href=_address(one))
        for one in runs.all().values()
        for name, (_, path) in runs.parents(one).items()
        if path == run.path
    ]
    for title, rows in (("Made from", above), ("Used by", below)):
        if rows:
            yield Heading(title)
            yield Table([Column("role", words=True)], rows, corner="run or file", title=title)


def _role(name: str) -> Cell:
    return Cell(name, _ROLES.get(name.split()[0], ""))


def _inside(run: Run) -> Form:
    label = "A text that the model reads; the page shows what it does with each token"
    fields = [Field("text", label, type="textarea", max_length=MAX_LETTERS, required=True)]
    if run.history.chats:
        fields.append(Field("chat", "as a message to answer", type="checkbox"))
    hidden = {"model": run.label}
    return Form("/look", [Fieldset("", fields)], [Button("Look inside")], hidden)


def _plan(history: History) -> list[Block]:
    """The resolved plan, with its reasons."""
    reasons = history.plan.get("reasons")
    reasons = reasons if isinstance(reasons, dict) else {}
    flat = dict(_flat({name: one for name, one in history.plan.items() if name != "reasons"}))
    settings = {k: v for k, v in history.run.get("config", {}).items() if v is not None}
    layout = history.plan.get("layout")
    known = settings | (layout if isinstance(layout, dict) else {}) | flat
    known |= {name: flat[place] for name, place in _PLACES.items() if place in flat}
    columns = [Column("value", words=True), Column("reason", words=True)]
    why = [
        Row(name, [Cell(shown(known[name])) if name in known else None, Cell(str(reason))])
        for name, reason in reasons.items()
    ]
    rest = [Row(name, [Cell(shown(value))]) for name, value in flat.items()]
    blocks: list[Block] = [Table(columns, why, corner="decided", title="Plan")] if why else []
    if rest:
        blocks.append(Fold("All of the plan", [Table(columns[:1], rest, corner="setting")]))
    return blocks


def _settings(described: Mapping[str, Any]) -> list[Block]:
    """The run's settings, and its machine and versions."""
    config = _flat({k: v for k, v in described.get("config", {}).items() if v is not None})
    about = {
        name: described[name]
        for name in ("started", "versions", "machine", "git", "mine")
        if described.get(name)
    }
    return [
        Fold(title, [Table([Column("value", words=True)], rows, corner="name")])
        for title, found in (("Settings", config), ("Machine and versions", _flat(about)))
        if (rows := [Row(name, [Cell(shown(value))]) for name, value in found])
    ]


def _files(run: Run) -> Iterator[Block]:
    """The files that describe its data and its model, as they are."""
    titles = {"data.json": "Data", "README.md": "Model card"}
    for name, title in titles.items():
        path = run.file(name)
        if path is not None and (text := _text(path)):
            yield Fold(f"{title} ({name})", [Listing(text)])


def _text(path: Path) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            text = file.read(_LETTERS + 1)
    except OSError:
        return ""
    return text if len(text) <= _LETTERS else f"{text[:_LETTERS]}\n…"


def _flat(values: Mapping[str, Any], before: str = "") -> list[tuple[str, Any]]:
    """Each value by its name; names in nested tables are joined by dots."""
    found = list[tuple[str, Any]]()
    for name, value in values.items():
        whole = f"{before}{name}"
        inner = value if isinstance(value, dict) and before.count(".") < 3 else None
        found += _flat(inner, f"{whole}.") if inner else [(whole, value)]
    return found


def shown(value: object) -> str:
    """A value of a config or plan in words."""
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1e4 else f"{value:.4g}"
    if isinstance(value, dict):
        text = "; ".join(f"{name}: {shown(one)}" for name, one in value.items())
    else:
        text = ", ".join(map(shown, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= 500 else f"{text[:500]} …"


def _address(run: Run) -> str:
    return f"/runs/{quote(run.path)}"


def _talk(run: Run) -> str:
    return f"/talk?{urlencode({'model': run.label})}"


def _when(time: datetime) -> str:
    return time.astimezone().strftime("%Y-%m-%d %H:%M")


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}{'' if text.endswith('.') else '.'}"
