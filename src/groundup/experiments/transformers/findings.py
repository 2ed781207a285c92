"""Statistics over seeds: means with intervals, tested differences, curves.

Each seed trains its own model, so statements about a kind of model use Student's interval over
seeds, which is wide for three. Two kinds are compared seed by seed, since they read the same
batches; a difference is significant if its interval excludes zero.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float

from groundup.maths.intervals import student_interval
from groundup.report.claim import Better, Claim
from groundup.report.estimate import Estimate
from groundup.report.figure import Plot
from groundup.report.plots import BASELINE, legend, look, panels
from groundup.report.table import Cell, number, percent

# Student's interval accounts for few seeds; one seed has no interval.
MIN_SEEDS = 2
Line = tuple[Sequence[float], Float[np.ndarray, "seeds points"]]


def over(values: Sequence[float]) -> Estimate:
    """The mean over seeds with its 95 % interval."""
    found = student_interval([float(value) for value in values])
    return Estimate(found.estimate, found.low, found.high, len(values), len(values))


def share_over(values: Sequence[float]) -> Estimate:
    """The mean of shares over seeds, with its 95 % interval clipped to 0 and 1."""
    found = over(values)
    return replace(found, low=max(0.0, found.low), high=min(1.0, found.high))


def compared(
    claim: str,
    one: tuple[str, Sequence[float]],
    other: tuple[str, Sequence[float]],
    wanted: Better,
    *,
    unit: str = "nats",
    share: bool = False,
) -> Claim:
    """The claim that `one` is above or below `other`; each is a name and a value per seed."""
    (model, values), (than, others) = one, other
    change = over([a - b for a, b in zip(values, others, strict=True)])
    return Claim(
        claim,
        change,
        unit,
        wanted,
        model=model,
        other=than,
        values=(float(np.mean(others)), float(np.mean(values))),
        share=share,
        fewest=MIN_SEEDS,
    )


def conclusions(claims: Sequence[Claim]) -> list[str]:
    """A sentence for each decided claim, and one for all undecided ones.

    The page lists the numbers of the undecided claims with the others. The last sentence gives the
    number of claims, since each is tested without a correction for the others.
    """
    said = {"yes": "", "no": "Not so: "}
    sentences = [f"{said[one.mark]}{one.claim}: {one.shown}." for one in claims if one.mark in said]
    several, single = list[str](), list[str]()
    for one in claims:
        if one.mark == "open":
            (several if np.isfinite(one.measured.high) else single).append(one.claim)
    if several:
        sentences.append(f"Not significant: {'; '.join(several)}.")
    if single:
        sentences.append(f"One seed allows no conclusion: {'; '.join(single)}.")
    if (tests := len(claims) - len(single)) > 1:
        sentences.append(
            f"{tests} claims are tested at 95 % each, without correction: of twenty without a true "
            "difference, one is significant by chance."
        )
    return [one[0].upper() + one[1:] for one in sentences]


def share_cell(values: Sequence[float]) -> Cell:
    """A share over seeds for a table."""
    found = percent(share_over(values))
    return found if len(values) > 1 else Cell(found.value)


def number_cell(values: Sequence[float], digits: int = 3, most: float = np.inf) -> Cell:
    """A number over seeds for a table; its interval is clipped to 0 and `most`."""
    found = over(values)
    cell = number(replace(found, low=max(0.0, found.low), high=min(most, found.high)), digits)
    return cell if len(values) > 1 else Cell(cell.value)


def intervals(count: int) -> str:
    """A remark on how a table's numbers come from `count` seeds."""
    if count < MIN_SEEDS:
        return "One seed, which has no interval."
    return f"Means over {count} seeds with Student's 95 % interval."


def lines_plot(
    name: str,
    caption: str,
    panes: Mapping[str, Mapping[str, Line]],
    *,
    x: str,
    y: str,
    log_x: bool = False,
    level: tuple[str, float] | None = None,
    limits: tuple[float, float] | None = None,
    marked: bool = False,
) -> Plot:
    """Lines by label, in panes by title: the mean over seeds, and a band over all of them.

    `marked` also shows the points of lines that have few.
    """
    figure, [row] = panels(1, len(panes), width=max(5.4, 4.2 * len(panes)), height=3.8)
    labels = list(dict.fromkeys(label for lines in panes.values() for label in lines))
    for axes, (title, lines) in zip(row, panes.items(), strict=True):
        for label, (at, values) in lines.items():
            place = look(labels.index(label))
            # A single point is only visible with a marker.
            style = place.both if marked or len(at) == 1 else place.line
            axes.plot(at, values.mean(0), label=label, markersize=4, **style)
            axes.fill_between(
                at, values.min(0), values.max(0), color=place.color, alpha=0.15, linewidth=0
            )
        if level is not None:
            axes.axhline(level[1], label=level[0], **BASELINE)
        if log_x:
            axes.set_xscale("log", base=2)
            ticks = sorted({float(one) for at, _ in lines.values() for one in at})
            axes.set_xticks(ticks, [f"{one:g}" for one in ticks])
        if limits is not None:
            axes.set_ylim(*limits)
        axes.set_title(title)
        axes.set_xlabel(x)
    row[0].set_ylabel(y)
    legend(figure, most=4, size=8)
    return Plot(name, f"{caption} Lines are means, bands all seeds.", figure)
