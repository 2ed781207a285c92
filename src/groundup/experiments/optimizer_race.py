"""Which optimizer is fastest? All of them on the same network, each at its best learning rate.

A race is fair if all optimizers start from the same weights, see the same batches, take the same
number of steps, and have equally well tuned learning rates: many claims that one optimizer beats
another only show who tuned more (Choi et al. 2019, "On empirical comparisons of optimizers for deep
learning"; Schmidt, Schneider and Hennig 2021, "Descending through a crowded valley"). So every
optimizer tries the same grid of rates with the same seeds; validation images select the rate, and
test images, which select nothing, give the result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Integer
from matplotlib.axes import Axes

from groundup.experiments import digits
from groundup.experiments.config import OptimizerRaceConfig
from groundup.experiments.digits import Digits, Images
from groundup.maths.intervals import Interval, bootstrap_difference, wilson_interval
from groundup.maths.tensor import Tensor, no_grad
from groundup.nn.losses import cross_entropy
from groundup.nn.module import Sequential
from groundup.nn.optim import SGD, Adagrad, Adam, AdamW, Optimizer, RMSprop
from groundup.nn.training import minibatches, train
from groundup.report.figure import Plot
from groundup.report.outcome import over_seeds, working_in, write
from groundup.report.plots import BASELINE, looks, panels, smoothed
from groundup.report.table import Cell, Table, listing, number, percent, text_table
from groundup.runs.console import counted, say

NAME = "optimizer-race"
QUESTION = (
    "Which optimizer is fastest? Each trains the same network from the same weights on the same "
    "batches of handwritten digits, at its best learning rate."
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
_LOOKS = looks(OPTIMIZERS)
GUESSING = float(np.log(digits.CLASSES))  # the loss of the uniform distribution over the digits

Make = Callable[..., Optimizer]
"""(parameters, lr=…) -> an optimizer. All other settings are defaults."""
NEAR = 0.02  # a rate is good if its validation accuracy is this close to the optimizer's best


@dataclass(frozen=True)
class Plan:
    """The length of the race, and the rates to try."""

    steps: int
    rates: tuple[float, ...]
    batch: int = 64


FULL = Plan(steps=300, rates=tuple(10 ** (half / 2) for half in range(-8, 3)))  # 0.0001 to 10
QUICK = Plan(steps=25, rates=(0.001, 0.01, 0.1))


def run(config: OptimizerRaceConfig) -> Path:
    """Sweep every optimizer's learning rate, compare them at their best, and write the results.

    Raises `UserError` for a folder with other files, and without the pack digits.
    """
    with working_in(config.out, NAME):
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


# One training: one optimizer, one rate, one seed.


@dataclass(frozen=True)
class Training:
    """The results of one training; losses after it diverged are infinite."""

    course: Float[np.ndarray, " steps"]
    train_loss: float
    validation_loss: float
    validation_accuracy: float
    correct: Bool[np.ndarray, " test"]
    seconds_per_step: float


def trainings(
    make: Make, rate: float, data: Digits, plan: Plan, config: OptimizerRaceConfig
) -> Iterator[Training]:
    """Train once for each seed, which determines weights and batches."""
    for turn in range(config.seeds):
        rng = np.random.default_rng([config.seed, turn, 3])
        model = digits.network(rng)
        batches = minibatches((data.train.x, data.train.labels), plan.batch, rng)
        optimizer = make(model.parameters(), lr=rate)
        # Some rates are far too high; divergence is a result, not an error.
        with np.errstate(all="ignore"):
            history = train(model, batches, batch_loss, optimizer, steps=plan.steps)
            yield finished(model, history.losses, history.seconds, data, plan)


def batch_loss(model: Sequential, batch: tuple[np.ndarray, ...]) -> Tensor:
    """Mean cross-entropy of a batch of images and labels."""
    x, labels = batch
    loss: Tensor = cross_entropy(model(Tensor(x, requires_grad=False)), labels)
    return loss


def finished(
    model: Sequential,
    losses: Sequence[float],
    seconds: Sequence[float],
    data: Digits,
    plan: Plan,
) -> Training:
    """Measure a trained network on all three parts of the data."""
    course = np.full(plan.steps, np.inf)
    course[: len(losses)] = losses
    course[~np.isfinite(course)] = np.inf
    train_loss, _ = measure(model, data.train)
    validation_loss, validated = measure(model, data.validation)
    _, correct = measure(model, data.test)
    return Training(
        course,
        train_loss,
        validation_loss,
        float(validated.mean()),
        correct,
        seconds[-1] / len(seconds) if seconds else 0.0,
    )


def measure(model: Sequential, images: Images) -> tuple[float, Bool[np.ndarray, " n"]]:
    """The mean loss, infinite if it is not finite, and which images are classified correctly."""
    with no_grad():
        logits = model.eval()(Tensor(images.x, requires_grad=False))
        loss = cross_entropy(logits, images.labels).item()
    right = logits.data.argmax(axis=1) == images.labels
    return loss if np.isfinite(loss) else float("inf"), right


# A sweep: one optimizer, all rates, all seeds.


@dataclass(frozen=True)
class Rate:
    """A learning rate and its trainings, by seed."""

    rate: float
    trainings: list[Training]

    def over_seeds(self, what: str) -> Interval:
        return over_seeds([getattr(training, what) for training in self.trainings])

    @property
    def test_accuracy(self) -> Interval:
        """The mean over seeds, with Wilson's interval for the number of images."""
        n = len(self.trainings[0].correct)
        return wilson_interval(float(self.correct.mean()) * n, n)

    @property
    def correct(self) -> Float[np.ndarray, " test"]:
        """For each test image, the share of seeds that classified it correctly."""
        share: Float[np.ndarray, " test"] = np.mean(
            [training.correct for training in self.trainings], axis=0
        )
        return share


@dataclass(frozen=True)
class Sweep:
    """All trainings of one optimizer."""

    name: str
    rates: list[Rate]

    @property
    def best(self) -> Rate:
        """The rate with the highest mean validation accuracy; ties go to the lowest loss."""

        def merit(rate: Rate) -> tuple[float, float]:
            accuracy = rate.over_seeds("validation_accuracy").estimate
            # A sum in another order may differ in its last bit.
            return round(accuracy, 9), -rate.over_seeds("validation_loss").estimate

        return max(self.rates, key=merit)

    @property
    def at_the_edge(self) -> bool:
        """Whether the best rate is the lowest or highest tried, so that a better one may exist."""
        return self.best in (self.rates[0], self.rates[-1])

    @property
    def good(self) -> tuple[float, float]:
        """The ends of the range of good rates around the best one."""
        accuracy = [rate.over_seeds("validation_accuracy").estimate for rate in self.rates]
        low = high = self.rates.index(self.best)
        enough = max(accuracy) - NEAR
        while low > 0 and accuracy[low - 1] >= enough:
            low -= 1
        while high < len(accuracy) - 1 and accuracy[high + 1] >= enough:
            high += 1
        return self.rates[low].rate, self.rates[high].rate

    @property
    def milliseconds(self) -> float:
        """Milliseconds per step in the fastest training, which other programs disturbed least."""
        return 1000 * min(
            training.seconds_per_step for rate in self.rates for training in rate.trainings
        )

    def numbers(self) -> dict[str, Any]:
        names = ("train_loss", "validation_loss", "validation_accuracy")
        return {
            "best_rate": self.best.rate,
            "good_rates": self.good,
            "test_accuracy": self.best.test_accuracy,
            "milliseconds_per_step": self.milliseconds,
            "course": [training.course.tolist() for training in self.best.trainings],
            "rates": {
                f"{rate.rate:.2g}": {n: [getattr(h, n) for h in rate.trainings] for n in names}
                for rate in self.rates
            },
        }


def swept(name: str, make: Make, data: Digits, plan: Plan, config: OptimizerRaceConfig) -> Sweep:
    """Try every rate with every seed."""
    say(f"{name}: {len(plan.rates)} learning rates, {counted(config.seeds, 'seed')}")
    return Sweep(
        name, [Rate(rate, list(trainings(make, rate, data, plan, config))) for rate in plan.rates]
    )


# Report.


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
                f"{high / low:.2g} times\n{low:.2g} to {high:.2g}" if low < high else f"{low:.2g}",
                f"{sweep.milliseconds:.2f} ms",
            )
        )
    trainings, tried = sweeps[0].best.trainings, plan.rates
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
            f"The best rate has the highest validation accuracy of {len(tried)} rates from "
            f"{tried[0]:.2g} to {tried[-1]:.2g}; all other settings are defaults, and the momentum "
            f"is 0.9. Means over {counted(len(trainings), 'seed')} with the minimum and maximum; "
            f"for the test accuracy Wilson's 95 % interval for {len(trainings[0].correct)} images.",
            "Good rates are those around the best whose validation accuracy is within "
            f"{100 * NEAR:.0f} points of the optimizer's highest: the wider their range, the less "
            "the choice of the rate matters. The time of a step is from the optimizer's fastest "
            "training; other programs on the machine affect it.",
        ),
        ("guessing",),
    )


def remarks(sweeps: Sequence[Sweep]) -> list[str]:
    """Which optimizer is fastest, whether test images show it, and which is easy to tune."""
    loss = {sweep.name: sweep.best.over_seeds("train_loss") for sweep in sweeps}
    ranked = sorted(sweeps, key=lambda sweep: loss[sweep.name].estimate)
    first, last = ranked[0], ranked[-1]
    tied = [s.name for s in ranked[1:] if loss[s.name].low <= loss[first.name].high]
    ranges = {s.name: float(f"{s.good[1] / s.good[0]:.2g}") for s in sweeps}
    gap = bootstrap_difference(first.best.correct, last.best.correct)
    apart = (
        f"; by the spread of the seeds, it is not significantly different from {listing(tied)}"
        if tied
        else ""
    )
    if len(first.best.trainings) == 1:
        apart = "; with one seed, no difference is significant"
    sentences = [
        f"At the best rates, {first.name} reaches the lowest training loss, "
        f"{loss[first.name].estimate:.4f}{apart}. "
        f"{last.name} reaches the highest, {loss[last.name].estimate:.4f}.",
        f"The test accuracy of {first.name} minus that of {last.name} is "
        f"{100 * gap.estimate:+.1f} points (95 % interval {100 * gap.low:+.1f} to "
        f"{100 * gap.high:+.1f}): "
        + (
            "a significant difference for this number of images."
            if gap.low > 0 or gap.high < 0
            else "no significant difference for this number of images."
        ),
    ]
    widest, narrowest = max(ranges.values()), min(ranges.values())
    if widest > narrowest:
        sentences.append(
            f"The widest range of good rates covers a factor of {widest:.2g}: "
            f"{listing([name for name, factor in ranges.items() if factor == widest])}. "
            f"The narrowest covers {narrowest:.2g}."
        )
    edge = [sweep.name for sweep in sweeps if sweep.at_the_edge]
    if edge:
        sentences.append(
            f"Best at the edge of the rates tried, so a better rate may exist: {listing(edge)}."
        )
    return sentences


def course_plot(sweeps: Sequence[Sweep]) -> Plot:
    """Training loss over steps, each optimizer at its best rate."""
    figure, ((axes,),) = panels(width=8, height=4.6)
    for sweep in sweeps:
        # Diverged losses are clipped at the top of the plot.
        courses = np.stack(
            [
                smoothed(np.minimum(training.course, 10 * GUESSING))
                for training in sweep.best.trainings
            ]
        )
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
        "The smoothed loss of the training batches, each optimizer at its best rate; the band "
        "shows the minimum and maximum over the seeds.",
        figure,
    )


def sweep_plot(sweeps: Sequence[Sweep]) -> Plot:
    """Final training loss over the learning rate."""
    figure, ((axes,),) = panels(width=8, height=4.6)
    for sweep in sweeps:
        rates = np.array([rate.rate for rate in sweep.rates])
        ends = np.array(
            [[training.train_loss for training in rate.trainings] for rate in sweep.rates]
        ).T
        # Diverged losses are off the axis and shown as guessing.
        ends, best = np.minimum(ends, GUESSING), sweep.best
        _draw_band(axes, rates, ends, sweep.name, sweep.name)
        at = best.rate, min(best.over_seeds("train_loss").estimate, GUESSING)
        axes.plot(*at, **_LOOKS[sweep.name].marks, markersize=9)
    axes.axhline(GUESSING, **BASELINE, label="guessing, or worse")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("learning rate")
    axes.set_ylabel("final training loss, nats")
    figure.legend(loc="outside right upper", frameon=False)
    return Plot(
        "sweep",
        "The final loss over all training images, by learning rate; the band shows the minimum and "
        "maximum over the seeds, and the large marker is the rate that validation selected.",
        figure,
    )


def _draw_band(
    axes: Axes,
    x: Float[np.ndarray, " n"] | Integer[np.ndarray, " n"],
    trainings: Float[np.ndarray, "seeds n"],
    name: str,
    label: str,
) -> None:
    drawn = _LOOKS[name]
    # A few markers on each line, at different places: a curve has hundreds of steps.
    places = list(OPTIMIZERS).index(name) / len(OPTIMIZERS), 1.0
    every = max(1, len(x) // 8)
    axes.plot(
        x,
        trainings.mean(axis=0),
        **drawn.both,
        markersize=4,
        markevery=(int(every * places[0]), every),
        linewidth=1.5,
        label=label,
    )
    least, greatest = trainings.min(axis=0), trainings.max(axis=0)
    axes.fill_between(x, least, greatest, color=drawn.color, alpha=0.15, linewidth=0)
