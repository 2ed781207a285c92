"""What a plot is and how it is saved; `plots` draws. Matplotlib is loaded with the first."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from functools import cached_property
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

    @cached_property
    def svg(self) -> bytes:
        """The picture of a page, made once: it takes a third of a second."""
        return image(self.figure, "svg", transparent=True)

    @cached_property
    def in_words(self) -> str:
        """What is drawn, with its numbers; of a picture without any its caption."""
        return in_words(self.figure) or self.caption

    @property
    def is_wide(self) -> bool:
        """Whether it needs the whole width of a page."""
        return bool(self.figure.get_figwidth() > 1.2 * WIDTH)


def in_words(figure: Any) -> str:
    """What a figure draws, for who hears a page: titles, axes, and the numbers of each series.

    A series over named rows says each row's value, another one where it begins and ends.
    """
    said = []
    for axes in figure.axes:
        title = next(filter(None, (axes.get_title(place) for place in ("left", "center"))), "")
        across, upwards = axes.get_xlabel(), axes.get_ylabel()
        over = f"{upwards} over {across}" if across and upwards else across or upwards
        series = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
        parts = [_series_in_words(axes, name, one) for name, one in series.items()]
        texts = (" ".join(one.get_text().split()) for one in axes.texts)
        said.append(": ".join(filter(None, (title, over, "; ".join(filter(None, parts))))))
        said += [f"Beside it: {', '.join(known)}"] if (known := [*filter(None, texts)]) else []
    # The marks that keep matplotlib from reading a name as a formula or as hidden, and the breaks
    # of a long one: within a word, and between two.
    text = re.sub(r"\\(?=\$)|\u200b\n?", "", ". ".join(filter(None, said)))
    return text.replace("\n", " ")


def _series_in_words(axes: Any, name: str, drawn: Any) -> str:
    from matplotlib.ticker import FixedLocator, PercentFormatter

    line = drawn[0] if isinstance(drawn, tuple) else drawn  # of points with intervals
    if not hasattr(line, "get_xdata") or not len(line.get_xdata()):
        return name
    x, y = ([float(value) for value in of()] for of in (line.get_xdata, line.get_ydata))
    if not isinstance(axes.yaxis.get_major_locator(), FixedLocator):
        return f"{name} from {y[0]:.3g} at {x[0]:.3g} to {y[-1]:.3g} at {x[-1]:.3g}"
    if line.get_linestyle() == ":":  # a level to compare with, of one row or of all
        return ""
    unit = 100 if isinstance(axes.xaxis.get_major_formatter(), PercentFormatter) else 1
    rows = [" ".join(label.get_text().split()) for label in axes.get_yticklabels()]
    # Models stand a little above and below their row.
    values = (f"{rows[round(at)]} {unit * one:.3g}" for one, at in zip(x, y, strict=True))
    return f"{name} {', '.join(values)}"


def image(figure: Any, format: str, *, transparent: bool = False) -> bytes:
    """The figure as a file: "svg", where text is shapes and looks alike everywhere, or "png"."""
    from matplotlib import rc_context

    file = io.BytesIO()
    metadata = {"Date": None, "Creator": None} if format == "svg" else {"Software": None}
    with rc_context(STYLE):
        figure.savefig(file, format=format, dpi=160, metadata=metadata, transparent=transparent)
    return file.getvalue()
