"""How much sooner does Muon reach a loss than AdamW, each at its best learning rate?

AdamW scales the step of every number of a matrix separately; Muon replaces a matrix's momentum by
the nearest orthogonal matrix, so that the step is equally long in all directions (`train.optim`).
The same small GPT reads the same batches of the small world's stories; embeddings and gains use
AdamW in both cases, at one rate. Rates of the matrices are tried with a separate seed, and the best
rate of each is compared over other seeds, so that no seed both selects and evaluates.

The report gives the final loss, and when the faster one first reached the slower one's final loss,
in steps and in seconds, since Muon's steps cost more. In the second half of a run rates fall to
zero, so losses are comparable only at the end; before, they show which is ahead, but not by how
much a shorter run would have been.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter

import numpy as np

from groundup.experiments.transformers.cells import TITLES, Cell, History, Optimizer, trained
from groundup.experiments.transformers.config import OptimizersConfig
from groundup.experiments.transformers.findings import (
    MIN_SEEDS,
    compared,
    conclusions,
    intervals,
    lines_plot,
    number_cell,
    over,
    share_over,
)
from groundup.experiments.transformers.language import (
    Material,
    WindowStream,
    heldout_loss,
    material,
)
from groundup.experiments.transformers.models import Architecture, transformer
from groundup.report.claim import Claim
from groundup.report.figure import Plot
from groundup.report.outcome import RESULT, experiment, write
from groundup.report.plots import look, panels
from groundup.report.table import Table, text_table

NAME = "optimizers"
QUESTION = "How much sooner does Muon reach a loss than AdamW, each at its best learning rate?"
RATES: Mapping[Optimizer, tuple[float, ...]] = {
    "adamw": (0.001, 0.002, 0.004, 0.008),
    "muon": (0.0025, 0.005, 0.01, 0.02),
}
_EMBEDDING_RATE = 0.006
_VOCAB, _WIDTH, _LAYERS, _HEADS, _CONTEXT, _ROWS = 512, 128, 4, 4, 128, 24
_TOKENS, _EVALUATIONS = 8_192, 20
# Added to the seed when rates are tried, so that the comparison has other seeds.
_TRIED = 10_000


@dataclass(frozen=True)
class Tuned:
    """An optimizer: its loss at each rate tried, the best rate, and its histories there."""

    name: Optimizer
    tried: Mapping[float, float]
    histories: Sequence[History]

    @property
    def rate(self) -> float:
        return min(self.tried, key=lambda rate: self.tried[rate])

    @property
    def at_the_edge(self) -> bool:
        """Whether the best rate is the lowest or highest tried, so that a better one may exist."""
        return self.rate in (min(self.tried), max(self.tried))

    @property
    def ends(self) -> list[float]:
        """The final loss of each seed."""
        return [history.end["loss"] for history in self.histories]

    @property
    def step_seconds(self) -> list[float]:
        """The median time of a step, for each seed."""
        return [float(np.median([line["seconds"] for line in c.steps])) for c in self.histories]


def run(config: OptimizersConfig) -> Path:
    """Try the rates, train at the best ones, and write the results. After a stop it resumes.

    Raises `UserError` for a folder with other files.
    """
    return experiment(config.out, NAME, config, partial(_run, config))


def _run(config: OptimizersConfig) -> None:
    begun = perf_counter()
    text = material(
        config.out / "text", "world", vocab_size=_VOCAB, megabytes=0.3 if config.quick else 4
    )
    found = [_tuned(config, name, text) for name in TITLES]
    claims = tested(*found)
    write(
        config,
        NAME,
        QUESTION,
        tables=[table(*found)],
        plots=[courses_plot(found), rates_plot(found)],
        remarks=[sooner(*found), *conclusions(claims), *edges(found)],
        claims=claims,
        data={
            one.name: {
                "tried": {f"{rate:g}": loss for rate, loss in one.tried.items()},
                "rate": one.rate,
                "histories": [history.measured for history in one.histories],
                "step_seconds": one.step_seconds,
            }
            for one in found
        },
        pieces=("cells", "text", RESULT),
        seconds=perf_counter() - begun,
    )


def _tuned(config: OptimizersConfig, name: Optimizer, text: Material) -> Tuned:
    rates = RATES[name][1:3] if config.quick else RATES[name]
    tried = {
        rate: trained(config, _cell(config, name, rate, config.seed + _TRIED, text)).end["loss"]
        for rate in rates
    }
    best = min(tried, key=lambda rate: tried[rate])
    histories = [
        trained(config, _cell(config, name, best, seed, text)) for seed in config.all_seeds
    ]
    return Tuned(name, tried, histories)


def _cell(
    config: OptimizersConfig, name: Optimizer, rate: float, seed: int, text: Material
) -> Cell:
    count = 1_024 if config.quick else _TOKENS
    shape = transformer(
        width=_WIDTH,
        depth=_LAYERS,
        heads=_HEADS,
        vocab_size=text.vocab_size,
        context=_CONTEXT,
    )
    return Cell(
        f"{name}-{rate:g}-{seed}",
        Architecture(shape),
        WindowStream(text.train, _CONTEXT, _ROWS, seed),
        seed,
        steps=6 if config.quick else config.steps,
        rows=_ROWS,
        context=_CONTEXT,
        rate=rate,
        embedding_rate=_EMBEDDING_RATE,
        optimizer=name,
        measure=lambda model, step: {"loss": heldout_loss(model, text, _CONTEXT, count)},
        dtype="auto",
        weight_decay=0.1,
        evaluations=3 if config.quick else _EVALUATIONS,
        evaluates_first=True,
    )


# Report.


def reached(history: History, loss: float) -> float:
    """The step at which the history first reaches `loss`, linearly interpolated.

    Infinite if it never does.
    """
    before = history.measured[0]
    for line in history.measured:
        if line["loss"] <= loss:
            fall = before["loss"] - line["loss"]
            share = (before["loss"] - loss) / fall if fall > 0 else 0.0
            return float(before["step"] + share * (line["step"] - before["step"]))
        before = line
    return float("inf")


def ahead(adamw: Tuned, muon: Tuned) -> tuple[Tuned, Tuned]:
    """The one with the lower mean final loss, and the other."""
    return (muon, adamw) if np.mean(muon.ends) <= np.mean(adamw.ends) else (adamw, muon)


def shares(adamw: Tuned, muon: Tuned) -> list[float]:
    """The share of steps after which the better one has the other's final loss, seed by seed."""
    first, second = ahead(adamw, muon)
    pairs = zip(first.histories, second.histories, strict=True)
    return [reached(one, other.end["loss"]) / other.end["step"] for one, other in pairs]


def tested(adamw: Tuned, muon: Tuned) -> list[Claim]:
    """Claims about the final loss and the time of a step."""
    return [
        compared(
            "after the same number of steps Muon's loss is lower",
            ("Muon", muon.ends),
            ("AdamW", adamw.ends),
            "below",
        ),
        compared(
            "a step of Muon takes longer",
            ("Muon", [1_000 * one for one in muon.step_seconds]),
            ("AdamW", [1_000 * one for one in adamw.step_seconds]),
            "above",
            unit="ms",
        ),
    ]


def sooner(adamw: Tuned, muon: Tuned) -> str:
    """A sentence about when the better one has the other's final loss, in steps and in seconds."""
    if len(adamw.histories) < MIN_SEEDS:
        return "One seed allows no conclusion: which of the two is sooner."
    first, second = ahead(adamw, muon)
    steps = shares(adamw, muon)
    if not np.isfinite(steps).all():
        return (
            f"{TITLES[first.name]} ends lower on average, but does not reach "
            f"{TITLES[second.name]}'s final loss with every seed."
        )
    if tested(adamw, muon)[0].mark == "open":
        return (
            f"{TITLES[first.name]} ends lower on average, but the difference of the final losses "
            "is not significant, so it is open which of the two is sooner."
        )
    longer = [a / b for a, b in zip(first.step_seconds, second.step_seconds, strict=True)]
    found = share_over(steps)
    time = over([share * ratio for share, ratio in zip(steps, longer, strict=True)])
    return (
        f"{TITLES[first.name]} has {TITLES[second.name]}'s final loss after {found.estimate:.0%} "
        f"of its steps ({found.low:.0%} to {found.high:.0%}) and, since a step takes "
        f"{np.mean(longer):.2f} times as long here, {time.estimate:.0%} of its time "
        f"({max(0.0, time.low):.0%} to {time.high:.0%})."
    )


def edges(found: Sequence[Tuned]) -> list[str]:
    """A sentence about the optimizers whose best rate was the lowest or highest tried, if any."""
    names = [TITLES[one.name] for one in found if one.at_the_edge]
    return [
        f"Best at the edge of the rates tried, so a better rate may exist: {', '.join(names)}."
    ] * bool(names)


def table(*found: Tuned) -> Table:
    """A row per optimizer at its best rate."""
    return text_table(
        "Each optimizer at its best rate",
        ("optimizer", "best rate", "nats per token", "ms per step"),
        tuple(
            (
                TITLES[one.name],
                f"{one.rate:g}",
                number_cell(one.ends),
                number_cell([1_000 * value for value in one.step_seconds], 1),
            )
            for one in found
        ),
        (
            f"Held-out stories after {found[0].histories[0].end['step']} steps of "
            f"{_ROWS * _CONTEXT:,} tokens. Rates tried: "
            + "; ".join(
                f"{TITLES[one.name]} {', '.join(f'{rate:g}' for rate in one.tried)}"
                for one in found
            )
            + f". {intervals(len(found[0].histories))}",
        ),
    )


def courses_plot(found: Sequence[Tuned]) -> Plot:
    """Loss over steps, and over seconds of training."""
    steps, seconds = {}, {}
    for one in found:
        lines = [line for line in one.histories[0].measured if line["step"]]
        at = [line["step"] for line in lines]
        values = np.array(
            [[line["loss"] for line in c.measured if line["step"]] for c in one.histories]
        )
        steps[TITLES[one.name]] = (at, values)
        seconds[TITLES[one.name]] = ([float(np.mean(one.step_seconds)) * n for n in at], values)
    return lines_plot(
        "histories",
        "Held-out loss over steps and over seconds, each at its best rate.",
        {"steps": steps, "seconds of steps": seconds},
        x="so far",
        y="nats per token",
    )


def rates_plot(found: Sequence[Tuned]) -> Plot:
    """The final loss over the rate."""
    figure, [[axes]] = panels(height=3.8)
    for place, one in enumerate(found):
        rates, losses = zip(*one.tried.items(), strict=True)
        axes.plot(rates, losses, **look(place).both, label=TITLES[one.name])
    axes.set_xscale("log")
    axes.set_xlabel("learning rate of the matrices")
    axes.set_ylabel("nats per token")
    axes.legend(frameon=False)
    return Plot("rates", "The final loss by the rate, with the seed that selects the rate.", figure)
