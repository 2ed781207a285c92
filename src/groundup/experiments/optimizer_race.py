"""Which optimizer is fastest? All of them on the same network, each at its best learning rate.

A race is fair if everyone starts from the same weights, sees the same batches and takes as many
steps, and if everyone's learning rate was looked for with the same care: most claims that one
optimizer beats another are claims about who tuned more (Choi et al. 2019, "On empirical comparisons
of optimizers for deep learning"; Schmidt, Schneider and Hennig 2021, "Descending through a crowded
valley"). So every optimizer tries the same grid of rates with the same seeds; the validation images
choose among them, and the test images, which nobody chose by, tell the result.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from time import perf_counter

import numpy as np
from jaxtyping import Float, Integer
from matplotlib.axes import Axes

from groundup.experiments import digits
from groundup.experiments.config import OptimizerRaceConfig
from groundup.experiments.sweep import NEAR, Make, Plan, Sweep, swept
from groundup.maths.intervals import bootstrap_difference
from groundup.nn.optim import SGD, Adagrad, Adam, AdamW, RMSprop
from groundup.report.figure import Plot
from groundup.report.outcome import check_folder, seeds, write
from groundup.report.plots import BASELINE, COLORS, panels
from groundup.report.table import Cell, Table, number, percent, text_table

NAME = "optimizer-race"
QUESTION = (
    "Which optimizer is fastest? Each trains the same network from the same weights on the same "
    "batches of handwritten digits, at the learning rate that suits it best."
)
OPTIMIZERS: dict[str, Make] = {
    "SGD": SGD,
    "momentum": partial(SGD, momentum=0.9),
    "Nesterov": partial(SGD, momentum=0.9, nesterov=True),
    "AdaGrad": Adagrad,
    "RMSProp": RMSprop,
    "Adam": Adam,
    "AdamW": AdamW,
}
_COLOURS = dict(zip(OPTIMIZERS, (*COLORS, "#000000"), strict=True))
_DASHED = frozenset({"Nesterov", "AdamW"})  # which run close beside momentum and Adam
GUESSING = float(np.log(digits.CLASSES))  # the loss of saying 1/10 for each digit

FULL = Plan(steps=300, rates=tuple(10 ** (half / 2) for half in range(-8, 3)))  # 0.0001 to 10
QUICK = Plan(steps=25, rates=(0.001, 0.01, 0.1))


def run(config: OptimizerRaceConfig) -> Path:
    """Sweep every optimizer's learning rate, compare them at their best, and write the outcome.

    Raises `UserError` for a folder of something else, and without the pack digits.
    """
    check_folder(config.out, NAME)
    begun, plan = perf_counter(), QUICK if config.quick else FULL
    data = digits.load(config.seed)
    sweeps = [swept(name, make, data, plan, config) for name, make in OPTIMIZERS.items()]
    return write(
        config,
        NAME,
        QUESTION,
        tables=[table(sweeps, plan)],
        plots=[course_plot(sweeps), sweep_plot(sweeps)],
        remarks=remarks(sweeps),
        data={sweep.name: sweep.numbers() for sweep in sweeps},
        seconds=perf_counter() - begun,
    )


# What is told of it.


def table(sweeps: Sequence[Sweep], plan: Plan) -> Table:
    """Each optimizer at its best rate."""
    rows: list[tuple[str | Cell, ...]] = [
        ("guessing", "", f"{GUESSING:.3f}", "10.0 %", "10.0 %", "", "")
    ]
    for sweep in sweeps:
        best, (low, high) = sweep.best, sweep.good
        rows.append(
            (
                sweep.name,
                f"{best.rate:.2g}",
                number(best.over_seeds("train_loss"), 4),
                percent(best.over_seeds("validation_accuracy")),
                percent(best.test_accuracy),
                f"{high / low:.2g} times\n{low:.2g} to {high:.2g}",
                f"{sweep.milliseconds:.2f} ms",
            )
        )
    heats, tried = sweeps[0].best.heats, plan.rates
    return text_table(
        f"After {plan.steps} steps of {plan.batch} images",
        (
            "optimizer",
            "best rate",
            "train loss",
            "validation accuracy",
            "test accuracy",
            "good rates",
            "a step",
        ),
        rows,
        (
            f"The best rate has the highest validation accuracy of {len(tried)} from "
            f"{tried[0]:.2g} to {tried[-1]:.2g}; all other settings are defaults, and the momentum "
            f"is 0.9. Means over {seeds(len(heats))} with the least and the greatest; for the test "
            f"accuracy Wilson's 95 % interval for {len(heats[0].correct)} images.",
            "Good rates are those around the best whose validation accuracy is within "
            f"{100 * NEAR:.0f} points of the optimizer's highest: the wider their range, the less "
            "it matters to know the rate. A step is timed in the optimizer's fastest heat, and "
            "times differ with whatever else the machine did.",
        ),
        ("guessing",),
    )


def remarks(sweeps: Sequence[Sweep]) -> list[str]:
    """Who was fastest, whether it can be told on new images, who is easy to set."""
    loss = {sweep.name: sweep.best.over_seeds("train_loss") for sweep in sweeps}
    ranked = sorted(sweeps, key=lambda sweep: loss[sweep.name].estimate)
    first, last = ranked[0], ranked[-1]
    tied = [s.name for s in ranked[1:] if loss[s.name].low <= loss[first.name].high]
    ranges = {s.name: float(f"{s.good[1] / s.good[0]:.2g}") for s in sweeps}
    gap = bootstrap_difference(first.best.correct, last.best.correct)
    told = [
        f"At the best rates {first.name} comes furthest down the training loss, to "
        f"{loss[first.name].estimate:.4f}"
        + (f"; by the spread of the seeds it cannot be told from {_listed(tied)}." if tied else ".")
        + f" {last.name} comes least far, to {loss[last.name].estimate:.4f}.",
        f"The test accuracy of {first.name} less that of {last.name} is "
        f"{100 * gap.estimate:+.1f} points (95 % interval {100 * gap.low:+.1f} to "
        f"{100 * gap.high:+.1f}): "
        + (
            "a difference that so many images can show."
            if gap.low > 0 or gap.high < 0
            else "no difference that so many images could show."
        ),
        f"The widest range of good rates covers a factor of {max(ranges.values()):.2g}: "
        f"{_listed([name for name, factor in ranges.items() if factor == max(ranges.values())])}. "
        f"The narrowest covers {min(ranges.values()):.2g}.",
    ]
    edge = [sweep.name for sweep in sweeps if sweep.at_the_edge]
    if edge:
        told.append(f"At the edge of the rates tried, and perhaps better beyond: {_listed(edge)}.")
    return told


def _listed(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else names[0]


def course_plot(sweeps: Sequence[Sweep]) -> Plot:
    """Training loss over steps, everyone at its best rate."""
    figure, ((axes,),) = panels(width=8, height=4.6)
    for sweep in sweeps:
        courses = np.stack([_smoothed(heat.course) for heat in sweep.best.heats])
        steps = np.arange(1, courses.shape[1] + 1)
        label = f"{sweep.name}, {sweep.best.rate:.2g}"
        _draw_band(axes, steps, courses, sweep.name, label)
    axes.axhline(GUESSING, **BASELINE, label="guessing")
    axes.set_yscale("log")
    axes.set_xlabel("steps")
    axes.set_ylabel("training loss, nats")
    figure.legend(loc="outside right upper", frameon=False)
    return Plot(
        "courses",
        "The loss of the training batches, smoothed, everyone at its best rate; the band is from "
        "the least to the greatest of the seeds.",
        figure,
    )


def sweep_plot(sweeps: Sequence[Sweep]) -> Plot:
    """Training loss at the end over the learning rate."""
    figure, ((axes,),) = panels(width=8, height=4.6)
    for sweep in sweeps:
        rates = np.array([rate.rate for rate in sweep.rates])
        ends = np.array([[heat.train_loss for heat in rate.heats] for rate in sweep.rates]).T
        # What diverged has no place on the axis, and is as bad as guessing or worse.
        ends, best = np.minimum(ends, GUESSING), sweep.best
        _draw_band(axes, rates, ends, sweep.name, sweep.name)
        at = best.rate, min(best.over_seeds("train_loss").estimate, GUESSING)
        axes.plot(*at, "o", color=_COLOURS[sweep.name], markersize=7)
    axes.axhline(GUESSING, **BASELINE, label="guessing, or worse")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("learning rate")
    axes.set_ylabel("training loss at the end, nats")
    figure.legend(loc="outside right upper", frameon=False)
    return Plot(
        "sweep",
        "The loss over all training images at the end, by learning rate; the band is from the "
        "least to the greatest of the seeds, and the dot is the rate that validation chose.",
        figure,
    )


def _draw_band(
    axes: Axes,
    x: Float[np.ndarray, " n"] | Integer[np.ndarray, " n"],
    heats: Float[np.ndarray, "seeds n"],
    name: str,
    label: str,
) -> None:
    colour, style = _COLOURS[name], "--" if name in _DASHED else "-"
    axes.plot(x, heats.mean(axis=0), style, color=colour, linewidth=1.5, label=label)
    least, greatest = heats.min(axis=0), heats.max(axis=0)
    axes.fill_between(x, least, greatest, color=colour, alpha=0.15, linewidth=0)


def _smoothed(course: Float[np.ndarray, " steps"]) -> Float[np.ndarray, " steps"]:
    """The mean of each loss and those before it, up to a pass over the images or so."""
    window = min(20, len(course))
    total = np.cumsum(np.concatenate([np.zeros(1), np.minimum(course, 10 * GUESSING)]))
    at = np.arange(1, len(course) + 1)
    start = np.maximum(at - window, 0)
    smooth: Float[np.ndarray, " steps"] = (total[at] - total[start]) / (at - start)
    return smooth
