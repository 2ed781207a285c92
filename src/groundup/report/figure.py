"""Plots as data, and saving them; `plots` draws. Matplotlib is imported on first use."""

from __future__ import annotations

import contextlib
import io
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

# Narrow, with relatively large letters, which are readable on a phone at two thirds of this width.
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


# Fonts with the letters that matplotlib's own font lacks, where they are installed.
_MORE_FONTS = (
    *("Noto Sans CJK SC", "Noto Sans CJK JP", "PingFang SC", "Hiragino Sans", "WenQuanYi Zen Hei"),
    *("Noto Sans Arabic", "Noto Sans Hebrew", "Noto Sans Devanagari", "Noto Sans Thai"),
    "Arial Unicode MS",
)


@contextlib.contextmanager
def drawing() -> Iterator[None]:
    """Let matplotlib draw in the style of all plots.

    A name may have letters of any script. Those that no font has are drawn as boxes, without a
    warning for each.
    """
    from matplotlib import rc_context

    with warnings.catch_warnings(), rc_context({**STYLE, "font.family": _fonts()}):
        warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from font", UserWarning)
        yield


@cache
def _fonts() -> list[str]:
    from matplotlib.font_manager import get_font_names

    installed = set(get_font_names())
    return ["DejaVu Sans", *(name for name in _MORE_FONTS if name in installed)]


@dataclass(frozen=True)
class Plot:
    """A figure with its file name and caption."""

    name: str
    caption: str
    figure: Any  # matplotlib's

    @cached_property
    def svg(self) -> bytes:
        """The picture for a page, rendered once because it takes a third of a second."""
        return image(self.figure, "svg", transparent=True)

    @cached_property
    def in_words(self) -> str:
        """A description with the numbers of the series; the caption if there are none."""
        return in_words(self.figure) or self.caption

    @property
    def is_wide(self) -> bool:
        """Whether it needs the whole width of a page."""
        return bool(self.figure.get_figwidth() > 1.2 * WIDTH)


def in_words(figure: Any) -> str:
    """Describe a figure for screen readers: titles, axes, and the numbers of each series.

    A series over named rows is described by each row's value, others by their first and last point.
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
    # Removes the marks that keep matplotlib from reading a name as a formula or as hidden, and the
    # line breaks of a long name within and between words.
    text = re.sub(r"\\(?=\$)|\u200b\n?", "", ". ".join(filter(None, said)))
    return text.replace("\n", " ")


def _series_in_words(axes: Any, name: str, drawn: Any) -> str:
    from matplotlib.ticker import FixedLocator, PercentFormatter

    line = drawn[0] if isinstance(drawn, tuple) else drawn  # a tuple has points with intervals
    if not hasattr(line, "get_xdata") or not len(line.get_xdata()):
        return name
    x, y = ([float(value) for value in of()] for of in (line.get_xdata, line.get_ydata))
    if not isinstance(axes.yaxis.get_major_locator(), FixedLocator):
        return f"{name} from {y[0]:.3g} at {x[0]:.3g} to {y[-1]:.3g} at {x[-1]:.3g}"
    if line.get_linestyle() == ":":  # a reference level, of one row or of all
        return ""
    unit = 100 if isinstance(axes.xaxis.get_major_formatter(), PercentFormatter) else 1
    rows = [" ".join(label.get_text().split()) for label in axes.get_yticklabels()]
    # Models are offset a little above and below their row.
    values = (f"{rows[round(at)]} {unit * one:.3g}" for one, at in zip(x, y, strict=True))
    return f"{name} {', '.join(values)}"


def image(figure: Any, format: str, *, transparent: bool = False) -> bytes:
    """Return the figure as a file: "svg", with text as shapes, which look the same everywhere, or
    "png"."""
    file = io.BytesIO()
    metadata = {"Date": None, "Creator": None} if format == "svg" else {"Software": None}
    with drawing():
        figure.savefig(file, format=format, dpi=160, metadata=metadata, transparent=transparent)
    return file.getvalue()
