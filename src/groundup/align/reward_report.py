"""How good a reward model is, on pairs that it was not trained on.

    accuracy      share of the pairs whose chosen answer has the higher reward; a tie counts half
    calibration   are pairs of 80 % confidence, sigmoid(|r(A) - r(B)|) = 0.8, right in 80 %?
    length        do longer answers get higher rewards? Then optimizing the reward teaches length
                  (Singhal et al. 2023, "A long way to go", section 3)
    labels        accuracy during the first pass, from an eighth of the labels on

Intervals resample whole groups of prompts, with all answers to them. Measures that need more pairs
are left out and named. The numbers are in result.json, and the same run gives the same file.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Shaped

from groundup.maths.calibration import (
    ReliabilityBin,
    calibration_error_by_chance,
    expected_calibration_error,
    reliability_curve,
)
from groundup.maths.correlation import rank_correlation_interval
from groundup.maths.intervals import Interval
from groundup.report.estimate import POOLED, BySource, rate
from groundup.report.figure import Plot
from groundup.report.outcome import RESULT
from groundup.report.page import PAGE, Block, Box, Page, Plots, Section, write_page
from groundup.report.plots import BASELINE, COLORS, calibration_plot, panels
from groundup.report.table import Cell, Column, Part, Row, Table, number, percent
from groundup.report.terminal import in_terminal
from groundup.runs.console import console, counted, say
from groundup.runs.files import read_lines
from groundup.runs.folder import Run

PerAnswer = Float[np.ndarray, " answers"]
PerPair = Float[np.ndarray, " pairs"]
_GUESSING = 0.5
# With fewer answers a correlation says nothing: of two it is always 1 or -1.
_MIN_ANSWERS = 6
_BINS = 40


@dataclass(frozen=True)
class HeldoutPairs:
    """Held-out pairs by a reward model: unscaled margins, scaled rewards, lengths in tokens.

    `prompts` is the prompt index of each pair and `answered` that of each answer; `groups` has the
    group of each prompt; `chosen` and `rejected` are the indices of a pair's answers.
    """

    rewards: PerAnswer
    lengths: Int[np.ndarray, " answers"]
    answered: Int[np.ndarray, " answers"]
    chosen: Int[np.ndarray, " pairs"]
    rejected: Int[np.ndarray, " pairs"]
    margins: Float[np.ndarray, " pairs"]
    prompts: Int[np.ndarray, " pairs"]
    groups: tuple[str, ...]
    sources: tuple[str, ...]

    @property
    def right(self) -> PerPair:
        """1 where the chosen answer has the higher reward, 0 where the lower, 0.5 for a tie."""
        return _share(self.margins)

    @property
    def longer(self) -> PerPair:
        """1 where the chosen answer is the longer one, 0 where the shorter, 0.5 for equal ones."""
        return _share(self.lengths[self.chosen] - self.lengths[self.rejected])

    def within_prompts(self, values: PerAnswer) -> PerAnswer:
        """Each answer's value minus the mean of all answers to its prompt."""
        means = np.bincount(self.answered, values) / np.bincount(self.answered)
        apart: PerAnswer = values - means[self.answered]
        return apart


def _share(apart: Shaped[np.ndarray, " pairs"]) -> PerPair:
    won: PerPair = (np.sign(apart) + 1) / 2
    return won


@dataclass(frozen=True)
class Calibration:
    """How well its confidence is calibrated; `by_chance` is the error of a perfect calibration."""

    error: float
    by_chance: float
    curve: list[ReliabilityBin]


@dataclass(frozen=True)
class Point:
    """Held-out accuracy after a number of training labels, counting repetitions."""

    step: int
    labels: int
    accuracy: dict[str, float]


@dataclass(frozen=True)
class Measured:
    """All measures of a reward model; None for those that its held-out pairs do not allow."""

    accuracy: BySource
    loss: float | None
    calibration: Calibration | None
    longer: BySource
    over_answers: Interval | None
    within_prompts: Interval | None
    course: list[Point]
    missing: list[str]


# Measuring.


def accuracies(values: Float[np.ndarray, " pairs"], pairs: HeldoutPairs) -> BySource:
    """The mean over all pairs and, if there are several sources, over those of each."""
    of, groups = np.array(pairs.sources), np.array(pairs.groups)[pairs.prompts]
    names = sorted(set(pairs.sources))
    parts = {POOLED: np.ones(len(of), bool)}
    parts |= {name: of == name for name in names if name and len(names) > 1}
    return {
        name: rate(values[some], groups=groups[some].tolist(), chance=_GUESSING)
        for name, some in parts.items()
    }


def calibration(pairs: HeldoutPairs) -> Calibration:
    """The confidence in the preferred answer, against how often that is the chosen one."""
    sure = 1 / (1 + np.exp(-np.abs(pairs.margins)))
    return Calibration(
        expected_calibration_error(sure, pairs.right),
        calibration_error_by_chance(sure),
        reliability_curve(sure, pairs.right),
    )


def measured(pairs: HeldoutPairs | None, course: Sequence[Point]) -> Measured:
    """All measures of the pairs; without pairs, the names of what is missing."""
    if pairs is None:
        missing = ["accuracy", "calibration", "the part of length"]
        return Measured({}, None, None, {}, None, None, list(course), missing)
    missing = []
    lengths = pairs.lengths.astype(float)
    groups = [pairs.groups[prompt] for prompt in pairs.answered]
    correlations: list[Interval | None] = []
    for name, of_rewards, of_lengths in (
        ("the correlation with length", pairs.rewards, lengths),
        (
            "the correlation with length within prompts",
            pairs.within_prompts(pairs.rewards),
            pairs.within_prompts(lengths),
        ),
    ):
        varies = all(len(set(values.tolist())) > 1 for values in (of_rewards, of_lengths))
        if len(lengths) < _MIN_ANSWERS or not varies:
            correlations.append(None)
            missing.append(name)
            continue
        correlations.append(rank_correlation_interval(of_rewards, of_lengths, clusters=groups))
    return Measured(
        accuracies(pairs.right, pairs),
        float(np.logaddexp(0, -pairs.margins).mean()),
        calibration(pairs),
        accuracies(pairs.longer, pairs),
        correlations[0],
        correlations[1],
        list(course),
        missing,
    )


def course_of(run: Run) -> list[Point]:
    """The run's evaluations from its metrics.jsonl."""
    path = run.folder / "metrics.jsonl"
    lines = read_lines(path) if path.is_file() else []
    return [
        Point(line["step"], line["labels"], line["heldout"])
        for line in lines
        if line.get("kind") == "evaluation" and "labels" in line and "heldout" in line
    ]


# The report.


def write_report(run: Run, pairs: HeldoutPairs | None, labels: int, read: int) -> None:
    """Write result.json and report.html, and print the table, or that nothing was measured.

    `labels` is the size of the training set, of which training has read `read` labels.
    """
    found = measured(pairs, course_of(run))
    run.write(RESULT, to_json(found, pairs, labels))
    lead = f"Trained on {f'{read:,} of ' * (read < labels)}{counted(labels, 'pair')}"
    opening = [] if not found.missing else [Box(not_measured(found, pairs))]
    sections = []
    if pairs is None:
        say(not_measured(found, pairs))
    else:
        shown = table(found, labels)
        console.print(in_terminal(shown))
        blocks: list[Block] = [shown, Plots(plots(found, pairs, labels))]
        sections.append(Section("On held-out pairs", "heldout", blocks))
        lead += f" and measured on {counted(len(pairs.margins), 'held-out pair')}"
    page = Page("Reward model", "What the reward model tells apart", f"{lead}.", opening, sections)
    write_page(run.folder / PAGE, page)


def not_measured(found: Measured, pairs: HeldoutPairs | None) -> str:
    """What could not be measured, why, and what would help."""
    what = ", ".join(found.missing)
    if pairs is None:
        return f"Not measured: {what}. No pair is held out; give more pairs, of several prompts."
    return (
        f"Not measured: {what}. The {len(pairs.lengths)} held-out answers are too few, or all "
        "equal; give more pairs."
    )


def to_json(found: Measured, pairs: HeldoutPairs | None, labels: int) -> dict[str, Any]:
    """All numbers of the page."""
    told: dict[str, Any] = {
        "pairs": {"train": labels, "heldout": 0 if pairs is None else len(pairs.margins)},
        "accuracy": {name: one.to_json() for name, one in found.accuracy.items()},
        "preference_loss": found.loss,
        "calibration": None,
        "length": {
            "correlation": _interval(found.over_answers),
            "correlation_within_prompts": _interval(found.within_prompts),
            "longer_is_better": {name: one.to_json() for name, one in found.longer.items()},
        },
        "course": [vars(point) for point in found.course],
        "not_measured": found.missing,
    }
    if found.calibration is not None:
        told["calibration"] = {
            "ece": found.calibration.error,
            "ece_by_chance": found.calibration.by_chance,
            "curve": [
                {"confidence": one.confidence, "count": one.count, **vars(one.accuracy)}
                for one in found.calibration.curve
            ],
        }
    if pairs is not None:
        sides = {"chosen": pairs.chosen, "rejected": pairs.rejected}
        told["rewards"] = {
            name: {"mean": float(of.mean()), "deviation": float(of.std())}
            for name, of in ((name, pairs.rewards[places]) for name, places in sides.items())
        }
    return told


def _interval(found: Interval | None) -> dict[str, float] | None:
    return None if found is None else {k: vars(found)[k] for k in ("estimate", "low", "high")}


def table(found: Measured, labels: int) -> Table:
    """Every measure in one table: a number with its interval, and what it was measured on."""
    rows: list[Row | Part] = []
    if found.accuracy:
        rows.append(Part("The chosen answer has the higher reward"))
    for name, one in found.accuracy.items():
        title = "all held-out pairs" if name == POOLED else name
        rows.append(
            Row(title, [percent(one), Cell(f"{one.items:,} of {counted(one.groups, 'group')}")])
        )
    if found.longer:
        longer = found.longer[POOLED]
        shorter = longer.mapped(lambda accuracy: 1 - accuracy)
        for title, level in (("the longer answer", longer), ("the shorter answer", shorter)):
            rows.append(Row(f"always {title}", [percent(level), None], base=True))
    if found.calibration is not None and found.loss is not None:
        error, by_chance = found.calibration.error, found.calibration.by_chance
        rows.append(Part("How sure it is"))
        honest = Cell(f"{by_chance:.3f} if honest")
        rows.append(Row("calibration error (ECE)", [Cell(f"{error:.3f}"), honest]))
        guessed = Cell(f"guessing {math.log(2):.3f}")
        rows.append(Row("loss, nats a pair", [Cell(f"{found.loss:.3f}"), guessed]))
    lengths = {"over all answers": found.over_answers, "within a prompt": found.within_prompts}
    if any(lengths.values()):
        rows.append(Part("Rank correlation of reward and length in tokens"))
    rows += [Row(name, [number(one, 2), None]) for name, one in lengths.items() if one is not None]
    rows += _course_rows(found.course, labels)
    columns = [Column("held out"), Column("measured on")]
    remarks = [
        "With 95 % intervals from resampling whole groups, which are prompts if the data name no "
        "others; guessing is right on half of all pairs."
    ]
    if found.course:
        remarks.append(
            "Accuracy after part of the labels is that of this run at that point, with the "
            "learning rate that it had: a run on so few labels would have ended with a lower one."
        )
    if found.missing:
        remarks.append(f"Not measured, for lack of held-out pairs: {', '.join(found.missing)}.")
    return Table(columns, rows, title="The reward model", remarks=remarks)


def _course_rows(course: Sequence[Point], labels: int) -> list[Row | Part]:
    rows: list[Row | Part] = []
    for point in course:
        passes = point.labels / labels
        title = counted(point.labels, "label") if passes <= 1 else f"{passes:.3g} times all labels"
        accuracy = Interval(*(point.accuracy[end] for end in ("estimate", "low", "high")))
        rows.append(Row(title, [percent(accuracy), Cell(f"step {point.step:,}")]))
    return [Part("Accuracy on the way, after"), *rows] if rows else []


# Drawing.


def plots(found: Measured, pairs: HeldoutPairs, labels: int) -> list[Plot]:
    """Calibration, rewards of both sides, reward against length, and accuracy over labels."""
    drawn = [reward_plot(pairs), length_plot(pairs)]
    if found.calibration is not None:
        curve = found.calibration.curve
        drawn.insert(0, calibration_plot("Calibration", {"reward model": curve}))
    return [*drawn, course_plot(found.course, labels)] if found.course else drawn


def reward_plot(pairs: HeldoutPairs) -> Plot:
    """Histograms of the scaled rewards of chosen and of rejected answers."""
    figure, [[axes]] = panels()
    edges = np.histogram_bin_edges(pairs.rewards, bins=_BINS).tolist()
    for name, places, color in (
        ("chosen", pairs.chosen, COLORS[0]),
        ("rejected", pairs.rejected, COLORS[1]),
    ):
        axes.hist(pairs.rewards[places], bins=edges, color=color, alpha=0.55, label=name)
    axes.set_xlabel("reward")
    axes.set_ylabel("answers")
    axes.legend(frameon=False)
    caption = (
        "Rewards of the chosen and the rejected answers of held-out pairs; 0 is the mean and 1 the "
        "deviation of the answers of the model that it is to score."
    )
    return Plot("rewards", caption, figure)


def length_plot(pairs: HeldoutPairs) -> Plot:
    """Reward against length, answer by answer."""
    figure, [[axes]] = panels()
    axes.plot(pairs.lengths, pairs.rewards, ".", color=COLORS[0], alpha=0.35, markersize=4)
    axes.set_xlabel("tokens of the answer")
    axes.set_ylabel("reward")
    return Plot("length", "Reward against length of every held-out answer.", figure)


def course_plot(course: Sequence[Point], labels: int) -> Plot:
    """Held-out accuracy over the labels read, with its interval."""
    figure, [[axes]] = panels()
    read = [point.labels for point in course]
    for end, style in (("low", ":"), ("high", ":"), ("estimate", "o-")):
        axes.plot(read, [point.accuracy[end] for point in course], style, color=COLORS[0])
    axes.axhline(_GUESSING, label="guessing", **BASELINE)
    axes.axvline(labels, color=COLORS[1], linewidth=1, label="every label once")
    axes.set_xlabel("labels read")
    axes.set_ylabel("held-out accuracy")
    axes.legend(frameon=False)
    caption = "Held-out accuracy on the way through the labels; dots between are the interval."
    return Plot("labels", caption, figure)
