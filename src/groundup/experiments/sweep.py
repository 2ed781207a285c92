"""A sweep over learning rates: one optimizer, every rate, every seed, one network of digits."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from groundup.experiments import digits
from groundup.experiments.config import OptimizerRaceConfig
from groundup.experiments.digits import Digits, Images
from groundup.maths.intervals import Interval, wilson_interval
from groundup.maths.tensor import Tensor, no_grad
from groundup.nn.losses import cross_entropy
from groundup.nn.module import Sequential
from groundup.nn.optim import Optimizer
from groundup.nn.training import minibatches, train
from groundup.report.outcome import over_seeds, seeds
from groundup.runs.console import say

Make = Callable[..., Optimizer]
"""(parameters, lr=…) -> an optimizer. What is not named here has its default."""
NEAR = 0.02  # a rate is good if its validation accuracy is so near to the optimizer's best


@dataclass(frozen=True)
class Plan:
    """How long a race is, and which rates are tried."""

    steps: int
    rates: tuple[float, ...]
    batch: int = 64


# One heat: one optimizer, one rate, one seed.


@dataclass(frozen=True)
class Heat:
    """How one training went; losses after it diverged are infinite."""

    course: Float[np.ndarray, " steps"]
    train_loss: float
    validation_loss: float
    validation_accuracy: float
    correct: Bool[np.ndarray, " test"]
    seconds_per_step: float


def heats(
    make: Make, rate: float, data: Digits, plan: Plan, config: OptimizerRaceConfig
) -> Iterator[Heat]:
    """Train once for each seed, which alone decides weights and batches."""
    for turn in range(config.seeds):
        rng = np.random.default_rng([config.seed, turn, 3])
        model = digits.network(rng)
        batches = minibatches((data.train.x, data.train.labels), plan.batch, rng)
        optimizer = make(model.parameters(), lr=rate)
        # Some rates are far too high, and what explodes then is the finding.
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
) -> Heat:
    """Measure a trained network on all three parts of the data."""
    course = np.full(plan.steps, np.inf)
    course[: len(losses)] = losses
    course[~np.isfinite(course)] = np.inf
    train_loss, _ = measure(model, data.train)
    validation_loss, validated = measure(model, data.validation)
    _, correct = measure(model, data.test)
    return Heat(
        course,
        train_loss,
        validation_loss,
        float(validated.mean()),
        correct,
        seconds[-1] / len(seconds) if seconds else 0.0,
    )


def measure(model: Sequential, images: Images) -> tuple[float, Bool[np.ndarray, " n"]]:
    """The mean loss, infinite where it is no number, and which images are read rightly."""
    with no_grad():
        logits = model.eval()(Tensor(images.x, requires_grad=False))
        loss = cross_entropy(logits, images.labels).item()
    right = logits.data.argmax(axis=1) == images.labels
    return loss if np.isfinite(loss) else float("inf"), right


# A sweep: one optimizer, all rates, all seeds.


@dataclass(frozen=True)
class Rate:
    """A learning rate and what came of it, seed by seed."""

    rate: float
    heats: list[Heat]

    def over_seeds(self, what: str) -> Interval:
        return over_seeds([getattr(heat, what) for heat in self.heats])

    @property
    def test_accuracy(self) -> Interval:
        """The mean over seeds, with Wilson's interval for so many images, whatever the seeds."""
        n = len(self.heats[0].correct)
        return wilson_interval(float(self.correct.mean()) * n, n)

    @property
    def correct(self) -> Float[np.ndarray, " test"]:
        """For each test image, in which share of the seeds it was read rightly."""
        share: Float[np.ndarray, " test"] = np.mean([heat.correct for heat in self.heats], axis=0)
        return share


@dataclass(frozen=True)
class Sweep:
    """Everything that one optimizer did."""

    name: str
    rates: list[Rate]

    @property
    def best(self) -> Rate:
        """The rate of the highest mean validation accuracy; of equals, of the least loss."""

        def merit(rate: Rate) -> tuple[float, float]:
            accuracy = rate.over_seeds("validation_accuracy").estimate
            # A sum of shares in another order may differ in its last bit.
            return round(accuracy, 9), -rate.over_seeds("validation_loss").estimate

        return max(self.rates, key=merit)

    @property
    def at_the_edge(self) -> bool:
        """Whether a better rate may lie beyond those that were tried."""
        return self.best in (self.rates[0], self.rates[-1])

    @property
    def good(self) -> tuple[float, float]:
        """The ends of the range around the best rate whose rates are all good."""
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
        """Of a step, in the fastest heat: the others shared the machine with somebody."""
        return 1000 * min(heat.seconds_per_step for rate in self.rates for heat in rate.heats)

    def numbers(self) -> dict[str, Any]:
        names = ("train_loss", "validation_loss", "validation_accuracy")
        return {
            "best_rate": self.best.rate,
            "good_rates": self.good,
            "test_accuracy": self.best.test_accuracy,
            "milliseconds_per_step": self.milliseconds,
            "course": [heat.course.tolist() for heat in self.best.heats],
            "rates": {
                f"{rate.rate:.2g}": {n: [getattr(h, n) for h in rate.heats] for n in names}
                for rate in self.rates
            },
        }


def swept(name: str, make: Make, data: Digits, plan: Plan, config: OptimizerRaceConfig) -> Sweep:
    """Try every rate with every seed."""
    say(f"{name}: {len(plan.rates)} learning rates, {seeds(config.seeds)}")
    return Sweep(
        name, [Rate(rate, list(heats(make, rate, data, plan, config))) for rate in plan.rates]
    )
