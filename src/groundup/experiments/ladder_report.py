"""The ladder's report: tables, learning curves, and sentences that compare the rungs.

Every sentence is computed. A rung counts as better than another only if the interval of their
difference, document by document, excludes 0, and if its worst seed is better than the other's best;
otherwise the report says that the difference is not significant.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float, Integer
from matplotlib.axes import Axes

from groundup.experiments.config import LadderConfig
from groundup.maths.intervals import Interval, bootstrap_ratio
from groundup.report.claim import MIN_GROUPS
from groundup.report.figure import Plot
from groundup.report.outcome import over_seeds, write
from groundup.report.plots import BASELINE, GREY, Look, legend, look, panels
from groundup.report.table import Table, number, text_table
from groundup.runs.console import counted

_QUESTION = (
    "Which language model predicts held-out text best, if every network trains for the same short "
    "time on the NumPy engine, and how does it compare with counting?"
)


@dataclass(frozen=True)
class Point:
    """A point of a learning curve: bits per byte of the `glance` text after some training."""

    step: int
    seconds: float
    bits_per_byte: float


@dataclass(frozen=True, eq=False)
class Result:
    """One rung in one vocabulary: its bits and its costs. Networks have several seeds."""

    name: str
    vocabulary: str
    kind: Literal["chance", "counted", "network", "less text"]
    bits: Float[np.ndarray, "seeds documents"]
    bytes: Integer[np.ndarray, "documents"]
    glance: float
    """Bits per byte of the held-out part that the learning curves are measured on."""
    parameters: int = 0
    tokens: int = 0
    """Read in training, repeats included."""
    seconds: tuple[float, ...] = ()
    curves: tuple[tuple[Point, ...], ...] = ()
    losses: tuple[tuple[float, ...], ...] = ()
    sample: str = ""

    @property
    def by_seed(self) -> Interval:
        """Bits per byte: the mean over seeds, with the minimum and maximum."""
        return over_seeds((self.bits.sum(axis=1) / self.bytes.sum()).tolist())

    @property
    def interval(self) -> Interval:
        """Bits per byte of the mean over seeds, with a bootstrap interval over documents."""
        return bootstrap_ratio(self.bits.mean(axis=0), self.bytes)

    def minus(self, other: Result) -> Interval:
        """The difference in bits per byte to `other` on the same documents."""
        return bootstrap_ratio(self.bits.mean(axis=0) - other.bits.mean(axis=0), self.bytes)

    @property
    def too_few(self) -> bool:
        """Whether there are too few documents for any conclusion."""
        return len(self.bytes) < MIN_GROUPS

    def beats(self, other: Result) -> bool:
        """Whether it is better beyond the variation of documents and seeds."""
        if self.too_few:
            return False
        return self.minus(other).high < 0 and self.by_seed.high < other.by_seed.low


def write_report(
    config: LadderConfig, name: str, results: Sequence[Result], seconds: float
) -> Path:
    """Write the folder of the experiment."""
    ladders = _by_vocabulary(results)
    return write(
        config,
        name,
        _QUESTION,
        tables=[table(results), rung_by_rung(ladders)],
        plots=[curves(ladders)],
        remarks=[remark for ladder in ladders for remark in remarks(ladder)],
        data={"results": [_numbers(result) for result in results]},
        texts={f"{one.name}, {one.vocabulary}": one.sample for one in results if one.sample},
        seconds=seconds,
        planned_by_clock=config.steps is None and not config.quick,
    )


def _by_vocabulary(results: Sequence[Result]) -> list[list[Result]]:
    names = dict.fromkeys(result.vocabulary for result in results)
    return [[result for result in results if result.vocabulary == name] for name in names]


def _numbers(result: Result) -> dict[str, object]:
    return asdict(result) | {
        "bits": result.bits.tolist(),
        "bytes": result.bytes.tolist(),
        "by_seed": result.by_seed,
        "interval": result.interval,
    }


# The tables


def table(results: Sequence[Result]) -> Table:
    """Bits per byte against training time, parameters and tokens read."""
    documents, size = len(results[0].bytes), results[0].bytes.sum()
    networks = [one for one in results if one.curves]
    times = [seconds for one in networks for seconds in one.seconds]
    return text_table(
        "Bits per byte against training time",
        ("rung", "bits per byte ↓\n95 % interval", "training", "parameters", "tokens read"),
        tuple(
            (
                _name(one),
                number(one.interval),
                f"{np.mean(one.seconds):.1f} s" if one.seconds else "",
                f"{one.parameters:,}" if one.parameters else "",
                f"{one.tokens:,}" if one.tokens else "",
            )
            for one in results
        ),
        remarks=(
            f"Measured on {size:,} bytes from {documents} documents that no rung has seen; the "
            "intervals come from resampling whole documents. A network is trained on windows from "
            f"random places, and its row is the mean of {counted(len(networks[0].bits), 'seed')}. "
            "A counting model reads its text once, and its parameters are the distinct n-grams in "
            "it.",
            f"One training of a network took {min(times):.1f} to {max(times):.1f} s. The number of "
            "steps is fixed beforehand from the time of a few steps, so on a busy machine the "
            "times are less equal than they should be.",
        ),
        baselines=tuple(_name(one) for one in results if not one.curves),
    )


def rung_by_rung(ladders: Sequence[Sequence[Result]]) -> Table:
    """Each rung compared with the one below it: the difference, the seeds and the verdict."""
    pairs = [pair for ladder in ladders for pair in pairwise(_climbed(ladder))]
    alone = all(len(one.bits) == 1 for _, one in pairs)
    return text_table(
        "Does each rung beat the one before?",
        ("rung", "change in bits per byte\n95 % interval", "seeds\nminimum to maximum", "verdict"),
        tuple(
            (
                _name(one),
                signed(one.minus(before)),
                number(one.by_seed) if one.curves else "",
                verdict(one, before),
            )
            for before, one in pairs
        ),
        remarks=(
            "The change is measured document by document, so that difficulty common to both "
            "cancels. A rung beats another if the interval excludes 0 and its worst seed is better "
            f"than the other's best. Fewer than {MIN_GROUPS} documents allow no conclusion."
            + (" One seed does not show the variation between seeds." if alone else ""),
        ),
        baselines=tuple(_name(one) for _, one in pairs if not one.curves),
    )


def verdict(one: Result, other: Result) -> str:
    """Whether `one` is better than `other`, in words."""
    if one.too_few:
        return "too few documents to tell"
    if one.beats(other):
        return f"beats {other.name}"
    if other.beats(one):
        return f"does not beat {other.name} at this size: worse"
    return f"not significantly different from {other.name}"


def signed(difference: Interval) -> str:
    """A cell: a difference above its interval."""
    return f"{difference.estimate:+.3f}\n{difference.low:+.3f} to {difference.high:+.3f}"


def _name(one: Result) -> str:
    return f"{one.name}\n{one.vocabulary}"


def _climbed(ladder: Sequence[Result]) -> list[Result]:
    return [result for result in ladder if result.kind != "less text"]


# The plot


def curves(ladders: Sequence[Sequence[Result]]) -> Plot:
    """Bits per byte over seconds of training, one panel per vocabulary, counting as lines."""
    figure, [axes] = panels(1, len(ladders), width=9.6, height=4.4)
    for panel in axes[1:]:
        panel.sharex(axes[0])
        panel.sharey(axes[0])
    for ladder, panel in zip(ladders, axes, strict=True):
        for place, one in enumerate(one for one in ladder if one.curves):
            _draw_curves(panel, one, look(place))
        for one in ladder:
            if one.kind == "counted":
                _draw_level(panel, one)
        panel.set_title(ladder[0].vocabulary, loc="left")
        panel.set_xlabel("seconds of training")
    axes[0].set_ylabel("bits per byte")
    axes[0].set_xlim(left=0)
    legend(figure, most=4)
    caption = (
        "Held-out bits per byte over the seconds of training, on a smaller part of the text than "
        "in the table. Lines are means over seeds, bands their minimum and maximum; dotted lines "
        "are counting models."
    )
    return Plot("curves", caption, figure)


def _draw_curves(panel: Axes, one: Result, drawn: Look) -> None:
    """The mean of the seeds, and a band from their minimum to their maximum."""
    seconds = np.array([[point.seconds for point in curve] for curve in one.curves]).mean(axis=0)
    bits = np.array([[point.bits_per_byte for point in curve] for curve in one.curves])
    low, high = bits.min(axis=0), bits.max(axis=0)
    panel.fill_between(seconds, low, high, color=drawn.color, alpha=0.2, linewidth=0)
    panel.plot(seconds, bits.mean(axis=0), **drawn.both, markersize=3, label=one.name)


def _draw_level(panel: Axes, one: Result) -> None:
    """A counting model's bits per byte, as a line with its name."""
    panel.axhline(one.glance, **BASELINE)
    panel.annotate(
        one.name,
        (1.0, one.glance),
        xycoords=("axes fraction", "data"),
        xytext=(0, 2),
        textcoords="offset points",
        ha="right",
        va="bottom",
        color=GREY,
        fontsize=8,
    )


# The sentences


def remarks(ladder: Sequence[Result]) -> list[str]:
    """The best network against counting, and the rungs that do not beat the one below."""
    networks = [result for result in ladder if result.curves]
    counts = [result for result in ladder if result.kind == "counted"]
    best = min(networks, key=lambda result: result.by_seed.estimate)
    where = f"In {ladder[0].vocabulary}"
    rivals = [min(counts, key=lambda result: result.by_seed.estimate)]
    rivals += [result for result in ladder if result.kind == "less text"]
    said = [f"{where}, {_against(best, rival)}." for rival in rivals]
    if best.too_few:
        which = "which rung beats the one below"
        return [*said, f"{where}, there are too few documents to tell {which}."]
    broken = [
        f"{one.name} {verdict(one, before)}"
        for before, one in pairwise(_climbed(ladder))
        if not one.beats(before)
    ]
    return [*said, f"{where}, {'; '.join(broken) if broken else 'every rung beats the one below'}."]


def _against(best: Result, count: Result) -> str:
    what = f"{count.name} ({count.tokens:,} tokens counted in {count.seconds[0]:.1f} s)"
    if best.too_few:
        said = f"there are too few documents to tell the best network, {best.name}, from {what}"
    elif best.beats(count):
        said = f"the best network, {best.name}, beats {what}"
    elif count.beats(best):
        said = f"no network beats {what}; the best is {best.name}"
    else:
        said = f"the best network, {best.name}, is not significantly different from {what}"
    both = f"{best.by_seed.estimate:.3f} bits per byte against {count.by_seed.estimate:.3f}"
    return f"{said}: {both}, after {best.tokens:,} tokens in {np.mean(best.seconds):.0f} s"
