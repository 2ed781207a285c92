"""The report on overoptimization: tables, plots, and sentences computed from the numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from groundup.experiments.config import OveroptimizationConfig
from groundup.experiments.overoptimization_laws import Curve, block_length
from groundup.maths.intervals import Interval
from groundup.report.figure import Plot
from groundup.report.outcome import write
from groundup.report.plots import BASELINE, COLORS, GREY, panels
from groundup.report.table import Cell as TableCell
from groundup.report.table import Table, percent, short_number, text_table
from groundup.runs.console import counted

NAME = "overoptimization"
QUESTION = (
    "How far can a reward model be optimized before the gold reward falls, and do data from before "
    "that point predict it?"
)


@dataclass(frozen=True)
class Cell:
    """All seeds' proxies of one size and number of labels; PPO is against the first seed's.

    PPO is not tried on every cell.
    """

    size: str
    labels: int
    parameters: int
    accuracy: Interval
    best_of_n: Curve
    ensemble: Curve
    ppo: Curve | None


@dataclass(frozen=True)
class Found:
    """Every cell, and PPO against the ensemble of one of them, `with_ensemble`."""

    cells: list[Cell]
    with_ensemble: Cell
    ppo_ensemble: Curve | None
    base: float
    prompts: int
    seeds: int
    n: int
    episodes: int


@dataclass(frozen=True)
class Method:
    """A method of optimization: its title, its file, and its curve in a cell."""

    title: str
    file: str
    curve: Callable[[Cell], Curve | None]

    def tried(self, found: Found) -> list[tuple[Cell, Curve]]:
        """The cells that this method was tried on, with its curves."""
        both = ((cell, self.curve(cell)) for cell in found.cells)
        return [(cell, curve) for cell, curve in both if curve is not None]


CHOICE = Method("Best of n", "best-of-n", lambda cell: cell.best_of_n)
POLICY = Method("PPO", "ppo", lambda cell: cell.ppo)
METHODS = (CHOICE, POLICY)


def write_outcome(config: OveroptimizationConfig, found: Found, seconds: float) -> Path:
    """Write tables, plots, remarks and every number."""
    return write(
        config,
        NAME,
        QUESTION,
        tables=[table(found, method) for method in METHODS],
        plots=[*(plot(found, method) for method in METHODS), ensemble_plot(found)],
        remarks=remarks(found),
        data={
            "base": found.base,
            "cells": [
                {
                    "size": cell.size,
                    "parameters": cell.parameters,
                    "labels": cell.labels,
                    "accuracy": cell.accuracy,
                    "best_of_n": cell.best_of_n.to_json(),
                    "best_of_n_by_ensemble": cell.ensemble.to_json(),
                    "ppo": None if cell.ppo is None else cell.ppo.to_json(),
                }
                for cell in found.cells
            ],
            "ppo_against_ensemble": None
            if found.ppo_ensemble is None
            else {
                "size": found.with_ensemble.size,
                "labels": found.with_ensemble.labels,
                **found.ppo_ensemble.to_json(),
            },
        },
        seconds=seconds,
    )


# Tables.


def table(found: Found, method: Method) -> Table:
    """Each cell under one method: its distance, the most gold and where, and prediction errors."""
    rows = [
        _row(f"{_labelled(cell)}\n{_parameters(cell)}", percent(cell.accuracy), curve)
        for cell, curve in method.tried(found)
    ]
    if method is POLICY and found.ppo_ensemble is not None:
        title = f"{_labelled(found.with_ensemble)}\nensemble of {found.seeds}"
        rows.append(_row(title, TableCell(""), found.ppo_ensemble))
    return text_table(
        method.title,
        (
            "proxy, labels",
            "accuracy",
            "√nats",
            "proxy",
            "most gold",
            "at √nats",
            "final gold",
            "error of law",
            "error of constant",
        ),
        rows,
        (
            "Gains of proxy and gold over the fine-tuned model, whose gold reward is "
            f"{found.base:.3f}. Accuracy: the share of held-out pairs that the proxy orders as "
            f"gold does, the mean over {counted(found.seeds, 'seed')} with the minimum and "
            "maximum. The most gold and its distance are those of the law fitted to all points, "
            "with a 95 % interval; – if gold does not fall again.",
            "Errors are root mean squares of predicting the further half of the distance (in "
            "√nats) from the nearer one: with the law, and with a constant gold reward.",
            _how(found, method),
        ),
    )


def _row(title: str, accuracy: TableCell, curve: Curve) -> tuple[str | TableCell, ...]:
    return (
        title,
        accuracy,
        f"{curve.d[-1]:.1f}",
        f"{curve.proxy[-1]:+.2f}",
        f"{curve.highest:+.3f}",
        _peak(curve),
        f"{curve.reached:+.3f}",
        *_errors(curve),
    )


def _how(found: Found, method: Method) -> str:
    if method is POLICY:
        return (
            f"One policy against the first seed's proxy; a point is an iteration of "
            f"{found.episodes} answers, and final gold is the mean of three. Intervals resample "
            f"blocks of {block_length(len(method.tried(found)[-1][1].d))} successive iterations of "
            "that one seed, and do not include the variation between seeds."
        )
    return (
        f"Means over {counted(found.seeds, 'seed')} and {found.prompts} held-out prompts with "
        f"{found.n} answers each; intervals resample seeds and groups of prompts."
    )


def _size(cell: Cell) -> str:
    return cell.size.replace("x", "×")


def _labelled(cell: Cell) -> str:
    return f"{_size(cell)}, {cell.labels:,}"


def _parameters(cell: Cell) -> str:
    return f"{short_number(cell.parameters)} parameters"


def _peak(curve: Curve) -> str:
    peak = curve.fitted.peak
    if peak.estimate >= curve.d[-1]:
        return "–"
    return f"{peak.estimate:.2f}\n{peak.low:.2f} to {_until(peak, curve)}"


def _until(peak: Interval, curve: Curve) -> str:
    return f"{peak.high:.2f}" if peak.high < curve.d[-1] else "beyond"


def _errors(curve: Curve) -> tuple[str, str]:
    one = curve.prediction
    return ("", "") if one is None else (f"{one.error:.3f}", f"{one.constant:.3f}")


# Sentences.


def remarks(found: Found) -> list[str]:
    """Sentences computed from the numbers."""
    said = [_of_accuracy(found)]
    for method in METHODS:
        said += [
            _of_turning(found, method),
            *_of_size(found, method),
            *_of_prediction(found, method),
        ]
    return said + _of_ensemble(found)


def _of_accuracy(found: Found) -> str:
    cells = found.cells
    first, last = cells[0], cells[-1]
    return (
        f"The proxies of {_size(first)} with {first.labels:,} labels order "
        f"{first.accuracy.estimate:.0%} of the held-out pairs as gold does, those of "
        f"{_size(last)} with {last.labels:,} labels {last.accuracy.estimate:.0%}."
    )


def _of_turning(found: Found, method: Method) -> str:
    tried = method.tried(found)
    turned = [cell for cell, curve in tried if curve.turns]
    said = (
        f"{method.title}: gold rises and falls again in {len(turned)} of {len(tried)} cells (the "
        "whole interval of the peak is within the measured distances, and gold up to it is above "
        "the fine-tuned model's)"
    )
    _, curve = tried[-1]
    if curve.turns:
        peak = curve.fitted.peak
        return (
            f"{said}. Against the largest proxy with most labels gold peaks at {peak.estimate:.1f} "
            f"√nats ({peak.low:.1f} to {peak.high:.1f}) with a gain of {curve.highest:+.3f}, of "
            f"which {curve.reached:+.3f} is left at {curve.d[-1]:.1f}."
        )
    if curve.reached < 0:
        return (
            f"{said}. Against the largest proxy with most labels gold has fallen by "
            f"{-curve.reached:.3f} at {curve.d[-1]:.1f} √nats, without a certain rise before."
        )
    return (
        f"{said}. Against the largest proxy with most labels no overoptimization is seen up to "
        f"{curve.d[-1]:.1f} √nats, where gold has gained {curve.reached:+.3f}."
    )


def _of_size(found: Found, method: Method) -> list[str]:
    """Whether larger proxies and more labels leave more gold at a distance that all reached.

    With one size or one number of labels, only the other is compared; with both, nothing is.
    """
    tried = method.tried(found)
    shared = min(float(curve.d[-1]) for _, curve in tried)
    left = {
        (cell.size, cell.labels): float(curve.fitted.best(np.array([shared]))[0])
        for cell, curve in tried
    }
    sizes = list(dict.fromkeys(cell.size for cell in found.cells))
    labels = list(dict.fromkeys(cell.labels for cell in found.cells))
    by_size = [((sizes[-1], some), (sizes[0], some)) for some in labels]
    by_labels = [((size, labels[-1]), (size, labels[0])) for size in sizes]
    larger, more = (
        [left[a] > left[b] for a, b in pairs if a != b and a in left and b in left]
        for pairs in (by_size, by_labels)
    )
    compared = [
        f"with the {most} than with the {least} at {sum(some)} of {len(some)} {places}"
        for some, most, least, places in (
            (larger, "largest proxy", "smallest", "numbers of labels"),
            (more, "most labels", "fewest", "sizes"),
        )
        if some
    ]
    return [
        f"{method.title}: at {shared:.1f} √nats, which all reached, the law has more gold "
        f"{', and '.join(compared)}."
    ] * bool(compared)


def _of_prediction(found: Found, method: Method) -> list[str]:
    predictions = [curve.prediction for _, curve in method.tried(found)]
    some = [one for one in predictions if one is not None]
    if not some:
        return []
    nearer = sum(one.error < one.constant for one in some)
    by_law, by_constant = (
        float(np.median([getattr(one, name) for one in some])) for name in ("error", "constant")
    )
    return [
        f"{method.title}: the law of the nearer half predicts the further one better than a "
        f"constant does in {nearer} of {len(some)} cells; the median error is {by_law:.3f} against "
        f"{by_constant:.3f}."
    ]


def _of_ensemble(found: Found) -> list[str]:
    if found.seeds < 2:
        return []
    above = sum(cell.ensemble.reached > cell.best_of_n.reached for cell in found.cells)
    said = [
        f"Best of {found.n} by an ensemble of {found.seeds} proxies, less half their variance, has "
        f"more gold than by one of them in {above} of {len(found.cells)} cells."
    ]
    cell, curve = found.with_ensemble, found.ppo_ensemble
    if curve is not None and cell.ppo is not None:
        said.append(
            f"PPO against the ensemble of {_size(cell)} with {cell.labels:,} labels ends at gold "
            f"{curve.reached:+.3f} and {curve.d[-1]:.1f} √nats, and against one of them at "
            f"{cell.ppo.reached:+.3f} and {cell.ppo.d[-1]:.1f}."
        )
    return said


# Plots.


def plot(found: Found, method: Method) -> Plot:
    """Gold above and proxy below, one column per size and one color per number of labels."""
    sizes = list(dict.fromkeys(cell.size for cell in found.cells))
    labels = dict.fromkeys(cell.labels for cell in found.cells)
    colors = {many: COLORS[number % len(COLORS)] for number, many in enumerate(labels)}
    figure, rows = panels(2, len(sizes), width=3.2 * len(sizes), height=6.0)
    for column, size in enumerate(sizes):
        gold, proxy = rows[0][column], rows[1][column]
        for cell, curve in method.tried(found):
            if cell.size != size:
                continue
            color = colors[cell.labels]
            _draw_gold(gold, curve, color, f"{cell.labels:,} labels")
            proxy.plot(curve.d, curve.proxy, "o", color=color, markersize=3)
            gold.set_title(f"{_size(cell)}, {_parameters(cell)}")
        proxy.set_xlabel("√nats")
    for row in rows:
        _share_range(row)
    rows[0][0].set_ylabel("gold gained")
    rows[1][0].set_ylabel("proxy gained")
    rows[0][0].plot([], [], "-", color=GREY, label="the law")
    rows[0][0].plot([], [], "--", color=GREY, label="predicted from the nearer half")
    key = {
        name: handle
        for axes in rows[0]
        for handle, name in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    order = [f"{many:,} labels" for many in labels]  # then the lines
    names = sorted(key, key=lambda name: order.index(name) if name in order else len(order))
    figure.legend(
        [key[name] for name in names], names, loc="outside lower center", ncols=5, frameon=False
    )
    return Plot(
        method.file,
        f"{method.title}: gains of gold and proxy over the fine-tuned model, by distance. Lines "
        "are the paper's law fitted to all points; dashed lines are predictions of the further "
        "half from the nearer one.",
        figure,
    )


def _draw_gold(axes: Axes, curve: Curve, color: str, label: str) -> None:
    axes.plot(curve.d, curve.gold, "o", color=color, markersize=3, label=label)
    d = np.linspace(0, curve.d[-1], 100)
    axes.plot(d, curve.fitted.best(d), color=color, linewidth=1.2)
    if curve.prediction is not None:
        beyond = d[d >= curve.prediction.until]
        axes.plot(beyond, curve.prediction.fit(beyond), "--", color=color, linewidth=1)
    axes.axhline(0, **BASELINE)


def _share_range(row: Sequence[Axes]) -> None:
    """Set one range for all, from the measurements: a predicted line may leave it."""
    dots = [line for axes in row for line in axes.get_lines() if line.get_marker() == "o"]
    d, gains = (
        np.concatenate([np.asarray(values, float) for values in some])
        for some in zip(*(line.get_data() for line in dots), strict=True)
    )
    room = 0.08 * float(np.ptp(gains)) + 1e-3
    for axes in row:
        axes.set_ylim(float(gains.min()) - room, float(gains.max()) + room)
        axes.set_xlim(-0.03 * float(d.max()), 1.03 * float(d.max()))


def ensemble_plot(found: Found) -> Plot:
    """One proxy compared with the ensemble of all seeds, for both methods."""
    figure, [[choice, policy]] = panels(1, 2, width=8.6, height=3.8)
    cell = found.with_ensemble
    _draw_gold(choice, cell.best_of_n, COLORS[0], "one proxy")
    _draw_gold(choice, cell.ensemble, COLORS[1], f"ensemble of {found.seeds}")
    if cell.ppo is not None:
        _draw_gold(policy, cell.ppo, COLORS[0], "one proxy")
    if found.ppo_ensemble is not None:
        _draw_gold(policy, found.ppo_ensemble, COLORS[1], f"ensemble of {found.seeds}")
    choice.set_title("Best of n")
    policy.set_title("PPO")
    for axes in (choice, policy):
        _share_range([axes])
        axes.set_xlabel("√nats")
        axes.set_ylabel("gold gained")
        axes.legend(frameon=False, fontsize=8)
    return Plot(
        "ensemble",
        f"Gold gained with one proxy of {_size(cell)} and {cell.labels:,} labels, and with the "
        "mean of all seeds' less half their variance.",
        figure,
    )
