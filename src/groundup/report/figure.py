"""What a plot is and how it is saved; `plots` draws. Matplotlib is loaded with the first."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

# Narrow, with letters large for it: shown on a phone at two thirds of this, they are still read.
WIDTH = 5.4
STYLE: Any = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#999999",
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e6e6e6",
    "svg.fonttype": "path",
    "svg.hashsalt": "groundup",  # the same numbers give the same file
}


@dataclass(frozen=True)
class Plot:
    """A figure, the name of its files, and what it shows in words."""

    name: str
    caption: str
    figure: Any  # matplotlib's

    @property
    def is_wide(self) -> bool:
        """Whether it needs the whole width of a page."""
        return bool(self.figure.get_figwidth() > 1.2 * WIDTH)


def image(figure: Any, format: str, *, transparent: bool = False) -> bytes:
    """The figure as a file: "svg", where text is shapes and looks alike everywhere, or "png"."""
    from matplotlib import rc_context

    file = io.BytesIO()
    metadata = {"Date": None, "Creator": None} if format == "svg" else {"Software": None}
    with rc_context(STYLE):
        figure.savefig(file, format=format, dpi=160, metadata=metadata, transparent=transparent)
    return file.getvalue()
