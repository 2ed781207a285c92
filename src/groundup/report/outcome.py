"""The outcome of an experiment: a folder with the numbers, tables, plots and a page.

result.json     settings, seed, versions, machine, every number, every row
table.md        the tables
NAME.png, .svg  one plot each
report.html     everything on one self-contained page
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from math import isfinite
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from pydantic import BaseModel

from groundup.errors import UserError
from groundup.maths.intervals import Interval
from groundup.report.claim import HELD, Claim
from groundup.report.figure import Plot, image
from groundup.report.page import (
    PAGE,
    Answer,
    Block,
    Box,
    Dialogue,
    Listing,
    Note,
    Page,
    Plots,
    Section,
    claims_by_mark,
    write_page,
)
from groundup.report.table import Table, markdown
from groundup.report.terminal import in_terminal
from groundup.runs.console import console, counted, say
from groundup.runs.files import (
    holds_only,
    is_number,
    is_sealed,
    is_unused,
    read_json_object,
    release,
    require_writable_folder,
    temporary_folder,
    write_bytes,
    write_json,
    write_text,
)
from groundup.runs.folder import Run, lock_folder
from groundup.runs.request import environment_facts, read_run, utc_now

SCHEMA = 1
RESULT = "result.json"
_VERSIONED = ("groundup", "numpy")


@runtime_checkable  # the tests check arguments
class Settings(Protocol):
    """The settings of an experiment: a folder, a seed, and all of them as JSON."""

    @property
    def out(self) -> Path: ...

    @property
    def seed(self) -> int: ...

    def model_dump(self, *, mode: str) -> dict[str, Any]: ...


def over_seeds(values: Sequence[float]) -> Interval:
    """Return the mean over several seeds, with the smallest and the largest value."""
    return Interval(sum(values) / len(values), min(values), max(values))


def check_folder(folder: Path, name: str, pieces: Collection[str] = ()) -> bool:
    """Check, before any work, that a folder holds nothing but this experiment.

    `pieces` are names of files that a stopped experiment may have left to continue from. Returns
    whether there are any results or pieces. Raises `UserError` for a file, another experiment's
    folder, other files, and a place that is not writable.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file, but an experiment needs a folder; choose another out")
    require_writable_folder(folder)
    if is_unused(folder):
        return False
    there = _previous(folder).get("experiment")
    if there is None and holds_only(folder, pieces):
        return True
    if isinstance(there, str):
        there = there.replace("isation", "ization")  # the spelling of earlier releases
    if there is None:
        raise UserError(
            f"{folder} already holds other files and no result of an experiment; "
            "choose another out or empty it yourself"
        )
    if there != name:
        raise UserError(
            f"{folder} holds the experiment {there!r}, not {name!r}; choose another out"
        )
    return True


@contextmanager
def working_in(folder: Path, name: str, pieces: Collection[str] = ()) -> Iterator[bool]:
    """Hold the lock of an experiment's folder while the block works there.

    Yields what `check_folder` returns. Raises `UserError` like it, and while another process works
    in the folder.
    """
    found, is_new = check_folder(folder, name, pieces), not folder.is_dir()
    folder.mkdir(parents=True, exist_ok=True)
    taken = lock_folder(folder)
    try:
        yield found
    finally:
        release(taken)
        if is_new:
            with suppress(OSError):  # it has an outcome
                folder.rmdir()


def begin(folder: Path, name: str) -> None:
    """Record in `folder`, a run of this experiment, that its outcome will be written there.

    A second call means that the experiment was stopped and resumed, so its total time is unknown.
    """
    resumed = (folder / RESULT).exists()
    write_json(folder / RESULT, {**_previous(folder), "experiment": name, "resumed": resumed})


def experiment(
    out: Path,
    name: str,
    config: BaseModel,
    make: Callable[[], None],
    parents: Mapping[str, Path] | None = None,
) -> Path:
    """Call `make` to write the outcome unless it is finished; a stopped experiment is resumed.

    Raises `UserError` for a folder of something else, or with other settings.
    """
    with Run.open(out, name, config, parents) as run:
        if run.finished:
            return run.folder
        begin(out, name)
        make()
        run.finish()
        return run.folder


def threads_of_runs(
    out: Path, threads: int | None, runs: Iterable[Path], *, finished: bool
) -> int | None:
    """Return the threads to continue with: those of the first of the experiment's `runs`.

    Other `threads` are allowed if everything is `finished` and nothing is left to compute; else
    raises `UserError`.
    """
    there = next((run for run in runs if is_sealed(run / "run.json")), None)
    if there is None:
        return threads
    begun: int | None = read_run(there)["config"].get("threads")
    if begun != threads and not finished:
        then, now = ("no --threads" if n is None else f"--threads {n}" for n in (begun, threads))
        raise UserError(
            f"{out} was begun with {then}, not with {now}; give {then}, or another --out"
        )
    return begun


def write(
    config: Settings,
    name: str,
    question: str,
    *,
    tables: Sequence[Table],
    plots: Sequence[Plot],
    remarks: Sequence[str],
    data: Mapping[str, Any],
    claims: Sequence[Claim] = (),
    texts: Mapping[str, str] | None = None,
    pieces: Collection[str] = (),
    seconds: float | None,
    planned_by_clock: bool = False,
) -> Path:
    """Write the outcome into `config.out`, replacing an earlier one of the same experiment.

    `remarks` are the findings in words, `claims` the tested claims, `data` every number behind the
    tables and plots, `texts` samples by model name, and `seconds` the duration of the experiment,
    None if a part was not timed. `planned_by_clock` says that the machine's speed decided how long
    models were trained. Prints the tables. Raises `UserError` like `check_folder`, with the same
    `pieces`.
    """
    check_folder(config.out, name, pieces)
    images = {
        f"{plot.name}.{format}": image(plot.figure, format)
        for plot in plots
        for format in ("png", "svg")
    }
    packages = (*_VERSIONED, *(["torch"] if "torch" in sys.modules else []))
    content = {
        "schema": SCHEMA,
        "experiment": name,
        "question": question,
        "created": utc_now(),
        "seconds": _whole_seconds(config, seconds),
        "planned_by_clock": planned_by_clock,
        "seed": config.seed,
        "config": config.model_dump(mode="json"),
        **environment_facts(packages),
        "files": [RESULT, "table.md", "report.html", *images],
        "tables": [table.to_json() for table in tables],
        "plots": [{"name": plot.name, "caption": plot.caption} for plot in plots],
        "remarks": list(remarks),
        "claims": _finite([one.to_json() | {"outcome": HELD[one.mark]} for one in claims]),
        "texts": dict(texts or {}),
        "data": _finite(data),
    }
    # The result comes first, so that an unfinished folder is recognized as this experiment's.
    stale = _written(config.out)
    with temporary_folder(config.out, first=RESULT, replaces=stale) as aside:
        write_json(aside / RESULT, content)
        for file, picture in images.items():
            write_bytes(aside / file, picture)
        write_text(aside / "table.md", "\n".join(map(markdown, tables)))
        write_page(aside / PAGE, outcome_page(content, tables, plots, claims))
    for table in tables:
        console.print(in_terminal(table))
    for remark in remarks:
        say(f"- {remark}")
    say(f"\n{config.out / 'report.html'}")
    return config.out


def outcome_page(
    content: Mapping[str, Any],
    tables: Sequence[Table],
    plots: Sequence[Plot],
    claims: Sequence[Claim] = (),
) -> Page:
    """Return the page of an experiment: findings, tables, plots, and how to reproduce it."""
    config, name = content["config"], content["experiment"]
    opening: list[Block] = []
    if config.get("quick"):
        quick = "This is the miniature (`--quick`), which shows that everything runs."
        opening.append(Note(f"{quick} Its numbers mean little."))
    if content["remarks"]:
        opening.append(Box("", content["remarks"]))
    sections = [Section(one.title, f"table-{n}", [one]) for n, one in enumerate(tables, start=1)]
    if claims:
        # A claim may state that something is worse, so its result is not "better" or "worse".
        tested = claims_by_mark(claims, {"yes": "Holds", "no": "Does not hold"})
        sections.append(Section("What was tested", "claims", tested))
    if plots:
        sections.append(Section("Plots", "plots", [Plots(plots)]))
    if content["texts"]:
        answers = [Answer(who, text) for who, text in content["texts"].items()]
        sections.append(Section("Samples", "samples", [Dialogue((), answers)]))
    lines = [
        f"groundup experiment {name}",
        ", ".join(f"{key}={value}" for key, value in config.items() if key != "out"),
        "",
        ", ".join(f"{package} {version}" for package, version in content["versions"].items()),
        "",
        f"{content['machine']['system']}, {counted(content['machine']['cores'], 'core')}; "
        f"{duration_text(content['seconds'])}; {content['created']}",
    ]
    same = "All numbers are in `result.json`. " + (
        "The machine's speed decided for how many steps models were trained, so the same settings "
        "give different numbers each time."
        if content["planned_by_clock"]
        else "The same settings with the same versions on the same kind of machine give the same "
        "numbers, except times."
    )
    again = Section("How to reproduce it", "again", [Listing("\n".join(lines)), Note(same)])
    return Page(
        title=f"groundup experiment: {name}",
        heading=name.replace("-", " ").capitalize(),
        lead=content["question"],
        opening=opening,
        sections=[*sections, again],
    )


def _whole_seconds(config: Settings, seconds: float | None) -> float | None:
    """Return the total duration if a single start measured it: this one or an earlier one."""
    before = _previous(config.out)
    if seconds is None and before.get("config") == config.model_dump(mode="json"):
        found = before.get("seconds")
        return found if is_number(found) else None
    return None if before.get("resumed") else seconds


def duration_text(seconds: float | None) -> str:
    """Describe the duration of an experiment."""
    return "in more than one start" if seconds is None else f"{seconds:.0f} seconds"


def _previous(folder: Path) -> dict[str, Any]:
    try:
        return read_json_object(folder / RESULT)
    except UserError:
        return {}


def _written(folder: Path) -> list[str]:
    """Return the plots that an earlier run wrote here; other files are left alone."""
    files = _previous(folder).get("files")
    names = [name for name in files if isinstance(name, str)] if isinstance(files, list) else []
    return [name for name in names if re.fullmatch(r"[\w-]+\.(png|svg)", name)]


def _finite(value: Any) -> Any:
    """Replace inf and nan, which JSON does not have, by null."""
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    if isinstance(value, Interval):
        return _finite(vars(value))
    return None if isinstance(value, float) and not isfinite(value) else value
