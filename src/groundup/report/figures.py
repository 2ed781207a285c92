"""Figures in the look of the reports."""

from __future__ import annotations

import io
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from groundup.report.plots import COLORS

GREY = "#777777"
BASELINE: dict[str, Any] = {"color": GREY, "linestyle": ":", "linewidth": 1.2}
"""How a line to beat is drawn: chance, or what needs no learning."""
_STYLE: Any = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#999999",
    "axes.titlesize": 10,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e6e6e6",
    "svg.fonttype": "path",
    "svg.hashsalt": "groundup",  # the same numbers give the same file
}


def panels(
    rows: int = 1, columns: int = 1, *, width: float = 5.4, height: float = 3.5
) -> tuple[Figure, list[list[Axes]]]:
    """A figure of `width` by `height` inches, and its axes by row and column."""
    with rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False)
    return figure, [list(row) for row in axes]


def frame_of_picture(axes: Axes) -> None:
    """Leave nothing of the axes but the frame, for what is looked at and not read off."""
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(False)
    for spine in axes.spines.values():
        spine.set_visible(True)


def image(figure: Figure, format: str) -> bytes:
    """The figure as a file: "svg", where text is shapes and looks alike everywhere, or "png"."""
    file = io.BytesIO()
    metadata = {"Date": None, "Creator": None} if format == "svg" else {"Software": None}
    with rc_context(_STYLE):
        figure.savefig(file, format=format, dpi=160, metadata=metadata)
    return file.getvalue()


__all__ = ["BASELINE", "COLORS", "GREY", "frame_of_picture", "image", "panels"]
