"""What an experiment leaves: a folder with the numbers, a table, the plots, and a page to read.

result.json     settings, seed, versions, machine, every number, every row
table.md        the tables alone
NAME.png, .svg  one plot each
report.html     all of it on one page that needs nothing but itself
"""

from __future__ import annotations

import base64
import os
import platform
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from math import isfinite
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import jinja2
import rich.box
import rich.table
from matplotlib.figure import Figure
from rich.text import Text

from groundup.errors import UserError
from groundup.maths.intervals import Interval
from groundup.report.figures import image
from groundup.runs.console import console, say
from groundup.runs.files import (
    folder_aside,
    read_json_object,
    write_bytes,
    write_json,
    write_text,
)

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


@dataclass(frozen=True)
class Table:
    """Rows of text under columns; the first cell of a row is its name.

    A second line of a cell is set small, as an interval is. `baselines` are names of rows that
    were not learned, or that are there to be beaten.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    remarks: tuple[str, ...] = ()
    baselines: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        assert all(len(row) == len(self.columns) for row in self.rows), self.title
        assert set(self.baselines) <= {row[0] for row in self.rows}, self.title


@dataclass(frozen=True)
class Plot:
    """A figure, the name of its files, and what it shows in words."""

    name: str
    caption: str
    figure: Figure


def percent(share: Interval) -> str:
    """A cell of a table: a share in percent above its interval."""
    low, high = 100 * share.low, 100 * share.high
    return f"{100 * share.estimate:.1f} %\n{low:.1f} to {high:.1f}"


def number(value: Interval, digits: int = 3) -> str:
    """A cell of a table: a number above its interval."""
    return f"{value.estimate:.{digits}f}\n{value.low:.{digits}f} to {value.high:.{digits}f}"


def over_seeds(values: Sequence[float]) -> Interval:
    """The mean of what several seeds gave, with the least and the greatest of them."""
    return Interval(sum(values) / len(values), min(values), max(values))


def seeds(count: int) -> str:
    """How many, for a remark: "1 seed", "3 seeds"."""
    return f"{count} seed" if count == 1 else f"{count} seeds"


def claim(folder: Path, name: str) -> None:
    """Refuse, before any work, a folder that holds something else than this experiment.

    Raises `UserError` for a file, another experiment's folder, and files that are not ours.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file, but an experiment needs a folder; choose another out")
    if not folder.is_dir() or not any(folder.iterdir()):
        return
    there = _previous(folder).get("experiment")
    if isinstance(there, str):
        there = there.replace("isation", "ization")  # as earlier releases spelled it
    if there is None:
        raise UserError(
            f"{folder} already holds other files and no result of an experiment; "
            "choose another out or empty it yourself"
        )
    if there != name:
        raise UserError(
            f"{folder} holds the experiment {there!r}, not {name!r}; choose another out"
        )


def write(
    config: Settings,
    name: str,
    question: str,
    *,
    tables: Sequence[Table],
    plots: Sequence[Plot],
    remarks: Sequence[str],
    data: Mapping[str, Any],
    texts: Mapping[str, str] | None = None,
    seconds: float,
) -> Path:
    """Write the outcome into `config.out`, replacing an earlier one of the same experiment.

    `remarks` are the findings in words, `data` every number behind the tables and plots, `texts`
    samples by the name of their model, and `seconds` what the experiment took. Prints the tables.
    Raises `UserError` as `claim` does.
    """
    claim(config.out, name)
    images = {
        f"{plot.name}.{format}": image(plot.figure, format)
        for plot in plots
        for format in ("png", "svg")
    }
    content = {
        "schema": SCHEMA,
        "experiment": name,
        "question": question,
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "seconds": seconds,
        "seed": config.seed,
        "config": config.model_dump(mode="json"),
        "versions": {"python": platform.python_version()} | {p: version(p) for p in _VERSIONED},
        "machine": {"system": platform.platform(), "cores": os.cpu_count()},
        "files": [RESULT, "table.md", "report.html", *images],
        "tables": [vars(table) for table in tables],
        "plots": [{"name": plot.name, "caption": plot.caption} for plot in plots],
        "remarks": list(remarks),
        "texts": dict(texts or {}),
        "data": _finite(data),
    }
    # The result first, so that a folder which was not finished is known as this experiment's.
    stale = _written(config.out)
    with folder_aside(config.out, first=RESULT, replaces=stale) as aside:
        write_json(aside / RESULT, content)
        for file, picture in images.items():
            write_bytes(aside / file, picture)
        write_text(aside / "table.md", "\n".join(map(markdown, tables)))
        write_text(aside / "report.html", page(content, images))
    for table in tables:
        console.print(_terminal(table))
    for remark in remarks:
        say(f"- {remark}")
    say(f"\n{config.out / 'report.html'}")
    return config.out


def markdown(table: Table) -> str:
    """The table in GitHub's Markdown, with what is set small in brackets."""

    def line(cells: Sequence[str]) -> str:
        plain = (_one_line(cell).replace("|", "\\|") for cell in cells)
        return f"| {' | '.join(plain)} |"

    lines = [f"## {table.title}", "", line(table.columns)]
    lines += ["|" + " --- |" * len(table.columns), *map(line, table.rows)]
    for remark in table.remarks:
        lines += ["", remark]
    return "\n".join(lines) + "\n"


def page(content: Mapping[str, Any], images: Mapping[str, bytes]) -> str:
    """The page, made of the numbers of result.json beside its plots."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    sources = {
        file: "data:image/svg+xml;base64," + base64.b64encode(picture).decode("ascii")
        for file, picture in images.items()
        if file.endswith(".svg")
    }
    template = environment.get_template("outcome.html.jinja")
    return template.render(result=content, sources=sources)


def _terminal(table: Table) -> rich.table.Table:
    drawn = rich.table.Table(title=table.title, title_justify="left", box=rich.box.SIMPLE_HEAD)
    for place, column in enumerate(table.columns):
        drawn.add_column(Text(column), justify="left" if place == 0 else "right")
    for row in table.rows:
        style = "dim" if row[0] in table.baselines else None
        drawn.add_row(*(Text(cell) for cell in row), style=style)
    return drawn


def _one_line(cell: str) -> str:
    first, *more = cell.split("\n")
    return f"{first} ({', '.join(more)})" if more else first


def _previous(folder: Path) -> dict[str, Any]:
    try:
        return read_json_object(folder / RESULT)
    except UserError:
        return {}


def _written(folder: Path) -> list[str]:
    """The plots that an earlier run wrote here; what a person put beside them is nobody's."""
    files = _previous(folder).get("files")
    names = [name for name in files if isinstance(name, str)] if isinstance(files, list) else []
    return [name for name in names if re.fullmatch(r"[\w-]+\.(png|svg)", name)]


def _finite(value: Any) -> Any:
    """JSON has no inf and no nan: what diverged becomes null."""
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    if isinstance(value, Interval):
        return _finite(vars(value))
    return None if isinstance(value, float) and not isfinite(value) else value
