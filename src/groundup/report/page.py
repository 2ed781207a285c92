"""How a page is made: templates beside this file, whatever is put into them shown as text."""

from __future__ import annotations

from pathlib import Path

import jinja2

from groundup.report.plots import short_number
from groundup.runs.files import write_bytes

PAGE = "report.html"


def page_environment() -> jinja2.Environment:
    """Templates in which every value is escaped and every missing one an error."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["short"] = short_number
    return environment


def write_page(folder: Path, html: str) -> None:
    """Write the page of a folder; a reader sees the old one or the whole new one."""
    write_html(folder / PAGE, html)


def write_html(path: Path, html: str) -> None:
    """Write a page; what UTF-8 cannot hold, as half of a surrogate pair, becomes '?'."""
    write_bytes(path, html.encode("utf-8", errors="replace"))
