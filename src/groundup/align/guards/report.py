"""How well a guard works, on messages and answers that it was not trained on.

    stopped, harmful      the share of harmful rows that it stops (recall)
    stopped, benign       the share of benign rows that it stops wrongly (false positives)
    right when it stops   the share of stopped rows that are harmful (precision), which depends on
                          the numbers of both
    ROC-AUC               how well its score ranks them, for all thresholds

and the same for n-grams, whose threshold was set by the same rows. Intervals resample whole groups
(an act, a question). The numbers are in result.json, and the same run gives the same file; the time
per message is in cost.json.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from groundup.align.guards.config import GuardConfig
from groundup.align.guards.examples import USES, Labeled, Sides, Use
from groundup.align.guards.model import TrainedGuard
from groundup.maths.intervals import Interval
from groundup.maths.roc import roc_auc_interval, roc_curve
from groundup.report.claim import MIN_GROUPS
from groundup.report.estimate import Estimate, mean_change, rate
from groundup.report.figure import Plot
from groundup.report.outcome import RESULT
from groundup.report.page import PAGE, Block, Box, Note, Page, Plots, Section, write_page
from groundup.report.plots import BASELINE, looks, panels
from groundup.report.table import Cell, Column, Part, Row, Table, number, percent, points
from groundup.report.terminal import in_terminal
from groundup.runs.console import console
from groundup.runs.folder import Run

COST = "cost.json"
# Messages that are timed one by one, and together.
_TIMED, _TOGETHER = 30, 64
_MEASURES: Mapping[str, Callable[[Interval], Cell]] = {
    "stopped, harmful": percent,
    "stopped, benign": percent,
    "right when it stops": percent,
    "ROC-AUC": number,
}


@dataclass(frozen=True)
class Filter:
    """Scores of all held-out rows, and for each use the threshold above which a row is stopped."""

    name: str
    scores: Float[np.ndarray, " rows"]
    thresholds: Mapping[Use, float]


@dataclass(frozen=True)
class OfUse:
    """The held-out rows of one use, and which of them each filter stops."""

    use: Use
    rows: list[Labeled]
    scores: dict[str, Float[np.ndarray, " rows"]]
    stopped: dict[str, Bool[np.ndarray, " rows"]]

    @property
    def harmful(self) -> Bool[np.ndarray, " rows"]:
        return np.array([row.harmful for row in self.rows], bool)

    @property
    def groups(self) -> list[str]:
        return [row.group for row in self.rows]

    def rate(self, name: str, some: Bool[np.ndarray, " rows"]) -> Estimate | None:
        """The share of some rows that a filter stops."""
        if not some.any():
            return None
        return rate(self.stopped[name][some].astype(float), groups=self._of(some))

    def apart(self, some: Bool[np.ndarray, " rows"]) -> Estimate | None:
        """How many more of some rows the first filter stops than the second."""
        if not some.any():
            return None
        first, second = (one[some].astype(float) for one in self.stopped.values())
        return mean_change(first, second, groups=self._of(some))

    def measures(self, name: str) -> dict[str, Estimate]:
        """All measures of a filter for this use."""
        harmful = self.harmful
        stops = self.stopped[name]
        found = {
            "stopped, harmful": self.rate(name, harmful),
            "stopped, benign": self.rate(name, ~harmful),
        }
        if stops.any():
            right = harmful[stops].astype(float)
            found["right when it stops"] = rate(right, groups=self._of(stops))
        if harmful.any() and not harmful.all():
            area = roc_auc_interval(self.scores[name], harmful, clusters=self.groups)
            count = len(set(self.groups))
            found["ROC-AUC"] = Estimate(
                area.estimate, area.low, area.high, len(self.rows), count, 0.5
            )
        return {name: one for name, one in found.items() if one is not None}

    def sources(self) -> list[tuple[str, Bool[np.ndarray, " rows"]]]:
        """The sources of rows, each with the mask of its rows."""
        of = np.array([row.source for row in self.rows])
        return [(str(source), of == source) for source in sorted(set(of.tolist()))]

    def worst(self, name: str) -> tuple[str, Estimate] | None:
        """The source whose benign rows a filter stops most, and their share, if there are several.

        That is the one with the highest low end; sources with a handful of groups are left out.
        """
        shares = [
            (source, share)
            for source, some in self.sources()
            if (share := self.rate(name, some & ~self.harmful)) is not None
            and share.groups >= MIN_GROUPS
        ]
        return max(shares, key=lambda one: one[1].low) if len(shares) > 1 else None

    def _of(self, some: Bool[np.ndarray, " rows"]) -> list[str]:
        return [self.rows[i].group for i in np.flatnonzero(some)]


def by_use(rows: Sequence[Labeled], filters: Sequence[Filter]) -> list[OfUse]:
    """The held-out rows by use, for the uses that have thresholds."""
    found = []
    for use in USES:
        at = [i for i, row in enumerate(rows) if row.use == use]
        if at and all(use in one.thresholds for one in filters):
            scores = {one.name: one.scores[at] for one in filters}
            stopped = {one.name: one.scores[at] > one.thresholds[use] for one in filters}
            found.append(OfUse(use, [rows[i] for i in at], scores, stopped))
    return found


# The report.


def write_report(
    run: Run, config: GuardConfig, guard: TrainedGuard, filters: Sequence[Filter], sides: Sides
) -> None:
    """Write result.json, cost.json and report.html, and print the tables."""
    found = by_use(sides.heldout, filters)
    cost = milliseconds(guard, sides.heldout)
    run.write(RESULT, to_json(config, found, sides))
    run.write(COST, {"milliseconds": cost})
    tables = [worth_table(config, found), source_table(found)] if found else []
    opening: list[Block] = [Box(opening_words(found, cost))]
    sections = [Section(one.title, f"table-{n}", [one]) for n, one in enumerate(tables, start=1)]
    if drawn := [plot(one) for one in found if "ROC-AUC" in one.measures("guard")]:
        sections.append(Section("At every threshold", "roc", [Plots(drawn)]))
    sections.append(Section("What this does not say", "limits", [Note(text) for text in _LIMITS]))
    lead = (
        f"Learned from {len(sides.train):,} rows, thresholds set by {len(sides.calibration):,} "
        f"others, measured on {len(sides.heldout):,} that were held out."
    )
    page = Page("Guard", "What the guard stops, rightly and wrongly", lead, opening, sections)
    write_page(run.folder / PAGE, page)
    for one in tables:
        console.print(in_terminal(one))


def opening_words(found: Sequence[OfUse], cost: Mapping[str, float]) -> str:
    """The two shares that count for each use, the source of most false positives, and the time."""
    said = []
    for one in found:
        measures = one.measures("guard")
        words = [
            f"{measures[name].estimate:.0%} of {kind} {one.use}s"
            for name, kind in (("stopped, harmful", "harmful"), ("stopped, benign", "benign"))
            if name in measures
        ]
        said.append(f"It stops {' and '.join(words)}.")
        if worst := one.worst("guard"):
            source, wrongly = worst
            said.append(
                f"Of benign {one.use}s of {source} it stops {wrongly.estimate:.0%} "
                f"({wrongly.low:.0%} to {wrongly.high:.0%})."
            )
    if not found:
        said.append("Nothing is held out, so nothing was measured; give more rows.")
    told = ", ".join(f"{value:.2g} ms {name}" for name, value in cost.items())
    return f"{' '.join(said)} It takes {told}." if cost else " ".join(said)


def milliseconds(guard: TrainedGuard, rows: Sequence[Labeled]) -> dict[str, float]:
    """The time to read a message: alone, as a median, and among many."""
    messages = [row.message for row in rows if row.use == "message"][:_TOGETHER]
    if not messages:
        return {}
    guard.scores(messages[:1])
    times = []
    for message in messages[:_TIMED]:
        begun = perf_counter()
        guard.scores([message])
        times.append(perf_counter() - begun)
    begun = perf_counter()
    guard.scores(messages)
    together = (perf_counter() - begun) / len(messages)
    return {
        "for a message alone": 1000 * float(np.median(times)),
        f"each for {len(messages)} together": 1000 * together,
    }


def to_json(config: GuardConfig, found: Sequence[OfUse], sides: Sides) -> dict[str, Any]:
    """All numbers of the page except the times."""
    rows = {"train": sides.train, "calibration": sides.calibration, "heldout": sides.heldout}
    return {
        "rows": {name: len(of) for name, of in rows.items()},
        "false_positives": config.false_positives,
        "uses": {
            one.use: {
                name: {
                    "all": {k: v.to_json() for k, v in one.measures(name).items()},
                    "by_source": {
                        source: {
                            kind: told.to_json()
                            for kind, of in (("harmful", one.harmful), ("benign", ~one.harmful))
                            if (told := one.rate(name, some & of)) is not None
                        }
                        for source, some in one.sources()
                    },
                }
                for name in one.scores
            }
            for one in found
        },
    }


def worth_table(config: GuardConfig, found: Sequence[OfUse]) -> Table:
    """What both filters stop for each use, rightly and wrongly, and their difference."""
    rows: list[Row | Part] = []
    for one in found:
        rows.append(Part(f"{one.use.capitalize()}s"))
        all_of = [one.measures(name) for name in one.scores]
        apart = {
            "stopped, harmful": one.apart(one.harmful),
            "stopped, benign": one.apart(~one.harmful),
        }
        for name, shown in _MEASURES.items():
            if any(name in of for of in all_of):
                cells = [shown(of[name]) if name in of else None for of in all_of]
                change = apart.get(name)
                items = next(of[name] for of in all_of if name in of)
                note = f"{items.items:,} of {items.groups:,} groups"
                rows.append(Row(name, [*cells, None if change is None else points(change)], note))
    columns = [Column("guard"), Column("n-grams", base=True), Column("guard more")]
    remarks = [
        f"Thresholds were set so that at most {config.false_positives:.0%} of benign rows, one "
        "per group, from sources with harmful rows are stopped. With 95 % intervals from "
        "resampling whole groups; n-grams are a logistic regression on words and pairs of words, "
        "trained on the same rows."
    ]
    return Table(columns, rows, title="What it stops", remarks=remarks)


def source_table(found: Sequence[OfUse]) -> Table:
    """What both filters stop of each source, for harmful and for benign rows."""
    rows: list[Row | Part] = []
    for one in found:
        for title, of in (("harmful", one.harmful), ("benign", ~one.harmful)):
            parts = [(source, some & of) for source, some in one.sources() if (some & of).any()]
            if not parts:
                continue
            rows.append(Part(f"{one.use.capitalize()}s that are {title}"))
            for source, some in parts:
                told = [one.rate(name, some) for name in one.scores]
                cells = [None if shown is None else percent(shown) for shown in told]
                rows.append(Row(source, [*cells, Cell(f"{int(some.sum()):,}")]))
    columns = [Column("guard stops"), Column("n-grams stop", base=True), Column("rows")]
    return Table(columns, rows, title="By where rows are from")


_LIMITS = (
    "Labels are the small world's truth and, for harm-scores, people's scores of answers; a real "
    "message counts as harmful if those who know declined it. A message unlike the training data "
    "is judged by what it resembles.",
    "Each message is read by itself, at most to the model's context: harm that is spread over "
    "several turns, or in words unlike any that were learned, may pass.",
    "The guarantee on false positives is for rows of groups (acts, questions) that are drawn like "
    "those that set the thresholds. Other acts, other wordings and a model's own answers are not: "
    "the held-out rows show how far it holds.",
)


def plot(one: OfUse) -> Plot:
    """The ROC curves of both filters, with marks at their thresholds."""
    figure, [[axes]] = panels()
    axes.plot([0, 1], [0, 1], label="guessing", **BASELINE)
    drawn = looks(one.scores)
    for name, scores in one.scores.items():
        wrongly, rightly = roc_curve(scores, one.harmful)
        axes.plot(wrongly, rightly, **drawn[name].line, label=name)
        at = [float(one.stopped[name][of].mean()) for of in (~one.harmful, one.harmful)]
        axes.plot(*at, **drawn[name].marks)
    axes.set_xlabel("share of what is benign")
    axes.set_ylabel("share of what is harmful")
    axes.legend(frameon=False)
    caption = f"{one.use.capitalize()}s stopped at every threshold; marks are those that are set."
    return Plot(f"roc-{one.use}", caption, figure)
