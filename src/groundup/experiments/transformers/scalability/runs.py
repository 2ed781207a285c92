"""The runs: LSTM and GPT of four sizes on two texts, each for the same seconds of training.

A run's rate rises and then stays constant, so an evaluation at step s is the end of a run of s
steps (with the same warm-up), and one run gives the loss for every budget. With a rate that falls
to zero at the end, earlier evaluations would be worse than runs that end there. Compute-optimal
training needs no decay (Porian et al. 2024, section 4); neither family gets its additional gain.

Each family uses the best of several rates for its matrices, tried at one size and with a separate
seed, so that no seed both selects and evaluates. With Muon, a rate transfers well from one width to
another.

The number of steps follows from the minutes and the pace, which is measured once at the beginning;
RUN/steps.json stores it, so that a stopped experiment resumes with the same plan.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from groundup.errors import UserError
from groundup.experiments.transformers.cells import Cell, History, trained
from groundup.experiments.transformers.config import ScalabilityConfig
from groundup.experiments.transformers.language import (
    Material,
    Text,
    WindowStream,
    losses,
    non_overlapping,
)
from groundup.experiments.transformers.models import Architecture, recurrent, transformer
from groundup.experiments.transformers.scalability.costs import BEFORE, TIMED, settings
from groundup.experiments.transformers.scalability.crossing import Curve
from groundup.experiments.transformers.scalability.positions import by_position
from groundup.lm.model import CausalLM
from groundup.runs.console import say
from groundup.runs.files import is_count, is_sealed, read_sealed, write_sealed
from groundup.train.device import resolve, use_threads
from groundup.train.loss import next_token_loss
from groundup.train.pace import Pace, measure_pace, micro_batches

Kind = Literal["LSTM", "GPT"]
KINDS: tuple[Kind, ...] = ("LSTM", "GPT")
Unit = Literal["FLOPs", "s"]
UNITS: tuple[Unit, ...] = ("FLOPs", "s")
TEXTS: Mapping[Text, str] = {"world": "stories", "wiki": "Wikipedia"}
# Depth and width. Without embeddings about .026, .1, .3 and 1 million parameters, which should
# include the best size for half a minute; models of 3 million would have a hundred steps. LSTMs
# have one layer: with the same parameters, two layers took about sixty steps to begin to learn.
SIZES: Mapping[Kind, tuple[tuple[int, int], ...]] = {
    "LSTM": ((1, 56), (1, 112), (1, 192), (1, 352)),
    "GPT": ((2, 32), (2, 64), (3, 96), (3, 160)),
}
RATES: Mapping[Kind, tuple[float, ...]] = {
    "LSTM": (0.005, 0.01, 0.02),
    "GPT": (0.0025, 0.005, 0.01),
}
_EMBEDDING_RATE = 0.006
VOCAB, CONTEXT, ROWS, _HEAD_DIM = 512, 256, 8, 32
# The size whose rates are tried, the second largest, and the number added to the seed for that.
_TRIED_SIZE, _TRIED = -2, 10_000
# Evaluations, spaced geometrically, the first after a thirty-second of the steps.
_LOOKS, _FIRST_LOOK = 8, 1 / 32
_TOKENS, _QUICK_TOKENS, _QUICK_STEPS = 16_384, 1_024, 6
# The share of the minutes for runs and their evaluations; texts, paces, costs and report the rest.
_SHARE = 0.82
_MIN_SECONDS = 2.0
STEPS_FILE = "steps.json"
Steps = dict[Kind, list[int]]


@dataclass(frozen=True)
class Run:
    """A size of a family on a text, and its histories with all seeds."""

    kind: Kind
    text: Text
    make: Architecture
    histories: Sequence[History]

    @property
    def parameters(self) -> int:
        """The number of parameters without embeddings, which are also the head."""
        return inner_parameters(self.make)

    def curves_by(self, unit: Unit) -> list[Curve]:
        """The evaluations of each seed by the FLOPs or seconds of all steps until then.

        The time of a step does not depend on the seed, so the median step of all seeds counts:
        other programs' load during one run is not a property of its seed.
        """
        if unit == "FLOPs":
            each = float(ROWS * CONTEXT * self.make.shape.flops_per_token(CONTEXT))
        else:
            each = float(
                np.median([line["seconds"] for one in self.histories for line in one.steps])
            )
        return [
            Curve(
                [line["step"] * each for line in history.measured],
                [line["loss"] for line in history.measured],
            )
            for history in self.histories
        ]


def inner_parameters(make: Architecture) -> int:
    """The number of parameters without embeddings."""
    return make.shape.parameters - make.shape.vocab_size * make.shape.hidden_size


def architectures(kind: Kind, vocab_size: int, quick: bool) -> list[Architecture]:
    """A family's models, the smallest first; the miniature has two."""
    sizes = SIZES[kind][:2] if quick else SIZES[kind]
    if kind == "LSTM":
        return [
            recurrent("lstm", width=width, depth=depth, vocab_size=vocab_size, context=CONTEXT)
            for depth, width in sizes
        ]
    return [
        Architecture(
            transformer(
                width=width,
                depth=depth,
                heads=width // _HEAD_DIM,
                vocab_size=vocab_size,
                context=BEFORE[-1] + TIMED,
            )
        )
        for depth, width in sizes
    ]


# The plan.


def planned(config: ScalabilityConfig, text: Material) -> Steps:
    """The steps of each size, as computed when the experiment began."""
    if config.quick:
        return {kind: [_QUICK_STEPS] * 2 for kind in KINDS}
    path = config.out / STEPS_FILE
    if not is_sealed(path):
        write_sealed(path, {"steps": _computed_steps(config, text)})
    return read_sealed(path, _checked, say)


def _checked(found: dict[str, Any]) -> Steps:
    steps = found.get("steps")
    if isinstance(steps, dict) and all(
        isinstance(steps.get(kind), list)
        and len(steps[kind]) == len(SIZES[kind])
        and all(is_count(one) and one > 0 for one in steps[kind])
        for kind in KINDS
    ):
        return {kind: steps[kind] for kind in KINDS}
    raise UserError(f"{STEPS_FILE} contains no steps; give a new --out")


def _computed_steps(config: ScalabilityConfig, text: Material) -> Steps:
    say("measuring how fast models of these sizes train …")
    paces = {
        kind: [_pace(config, make, text) for make in architectures(kind, text.vocab_size, False)]
        for kind in KINDS
    }
    runs = len(TEXTS) * config.seeds * sum(map(len, paces.values())) + sum(map(len, RATES.values()))
    each = len(TEXTS) * config.seeds
    # Evaluating a token takes about as long as training on one.
    looked = sum(
        each * _LOOKS * _TOKENS * pace.token for found in paces.values() for pace in found
    ) + sum(
        each * len(text.heldout) * found[-1].token
        + len(RATES[kind]) * _LOOKS * _TOKENS * found[_TRIED_SIZE].token
        for kind, found in paces.items()
    )
    seconds = max(_MIN_SECONDS, (config.minutes * 60 * _SHARE - looked) / runs)
    say(
        f"{runs} runs of {seconds:.0f} s of training and on average {looked / runs:.0f} s of "
        f"evaluation: {(runs * seconds + looked) / 60:.0f} minutes, and about 5 for the rest"
    )
    tokens = ROWS * CONTEXT
    return {
        kind: [
            max(round(1 / _FIRST_LOOK), round(seconds * pace.tokens_per_second(tokens) / tokens))
            for pace in found
        ]
        for kind, found in paces.items()
    }


def _pace(config: ScalabilityConfig, make: Architecture, text: Material) -> Pace:
    timed = settings(config.out, config.threads)
    use_threads(timed)
    model, stream = make(0), WindowStream(text.train, CONTEXT, ROWS, 0)
    compute = resolve(timed, compile_by_default=False)
    return measure_pace(model, compute, micro_batches(stream, model), next_token_loss, muon=True)


# Training.


def tried(
    config: ScalabilityConfig, kind: Kind, text: Material, steps: Steps
) -> dict[float, float]:
    """The final loss at each rate that is tried."""
    make = architectures(kind, text.vocab_size, config.quick)[_TRIED_SIZE]
    seed = config.seed + _TRIED
    return {
        rate: trained(
            config,
            _cell(
                config,
                f"tried-{kind.lower()}-{rate:g}",
                make,
                text,
                steps[kind][_TRIED_SIZE],
                rate,
                seed,
                last=False,
            ),
        ).end["loss"]
        for rate in (RATES[kind][1:] if config.quick else RATES[kind])
    }


def run_all(
    config: ScalabilityConfig, kind: Kind, name: Text, text: Material, steps: Steps, rate: float
) -> list[Run]:
    """Train every size of a family on a text, unless it is trained."""
    found = architectures(kind, text.vocab_size, config.quick)
    runs = []
    for number, make in enumerate(found):
        depth, width = make.shape.num_hidden_layers, make.shape.hidden_size
        cells = [
            _cell(
                config,
                f"{name}-{kind.lower()}-{depth}x{width}-{seed}",
                make,
                text,
                steps[kind][number],
                rate,
                seed,
                last=number == len(found) - 1,
            )
            for seed in config.all_seeds
        ]
        runs.append(Run(kind, name, make, [trained(config, cell) for cell in cells]))
    return runs


def _cell(
    config: ScalabilityConfig,
    name: str,
    make: Architecture,
    text: Material,
    steps: int,
    rate: float,
    seed: int,
    *,
    last: bool,
) -> Cell:
    """A run; the `last` size's loss by position is also measured at the end."""
    looks = np.geomspace(max(1, _FIRST_LOOK * steps), steps, 3 if config.quick else _LOOKS)
    count = _QUICK_TOKENS if config.quick else _TOKENS
    whole = 2 * count if config.quick else len(text.heldout)
    return Cell(
        name,
        make,
        WindowStream(text.train, CONTEXT, ROWS, seed),
        seed,
        steps=steps,
        rows=ROWS,
        context=CONTEXT,
        rate=rate,
        embedding_rate=_EMBEDDING_RATE,
        optimizer="muon",
        measure=lambda model, step: measured(
            model, text, count, whole if last and step == steps else None
        ),
        dtype="auto",
        weight_decay=0.1,
        measured_at=sorted({round(one) for one in looks}),
        warmup=0.02,
        decay=0.0,
    )


def measured(model: CausalLM, text: Material, count: int, whole: int | None) -> dict[str, Any]:
    """Nats per token of the first `count` held-out tokens, and by position of the first `whole`."""
    starts = non_overlapping(text.heldout, CONTEXT, whole or count)
    found = losses(model, text.heldout, starts, CONTEXT)
    results: dict[str, Any] = {"loss": float(found[: max(1, count // CONTEXT)].mean())}
    if whole is not None:
        results["positions"] = by_position(found, text.heldout, starts)
    return results
