"""Why do transformers scale where recurrent networks do not? LSTM and GPT compared.

Both are trained by the same loop on the same windows of the small world's stories and of Wikipedia,
in four sizes from 26 thousand parameters to a million, without embeddings. The questions are

    crossing    held-out loss over FLOPs and over seconds: from which budget on is a GPT ahead?
    positions   loss by the number of tokens read: which still gains when the context is long?
    costs       training speed by the length of windows; memory and time of a generated token

Seconds are this machine's, and FLOPs per second depend on the number of rows per batch: with more
rows an LSTM's steps have more parallel work, and it trains faster; here there are few, which suits
small budgets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from groundup.experiments.transformers.config import ScalabilityConfig
from groundup.experiments.transformers.findings import conclusions, intervals, number_cell
from groundup.experiments.transformers.language import Material, Text, material
from groundup.experiments.transformers.models import Architecture
from groundup.experiments.transformers.scalability import costs, crossing, positions
from groundup.experiments.transformers.scalability.crossing import Race
from groundup.experiments.transformers.scalability.positions import Compared
from groundup.experiments.transformers.scalability.runs import (
    CONTEXT,
    KINDS,
    ROWS,
    STEPS_FILE,
    TEXTS,
    UNITS,
    VOCAB,
    Kind,
    Run,
    architectures,
    planned,
    run_all,
    tried,
)
from groundup.report.figure import Plot
from groundup.report.outcome import RESULT, experiment, write
from groundup.report.plots import Look, log_x, looks, panels
from groundup.report.table import Table, short_number, text_table

NAME = "scalability"
QUESTION = "At how much compute does a GPT start to beat an LSTM, and what does each cost?"
Tried = Mapping[Kind, Mapping[float, float]]
Found = Mapping[Text, Mapping[Kind, Sequence[Run]]]


def run(config: ScalabilityConfig) -> Path:
    """Train all sizes, time the largest, and write the results. After a stop it resumes.

    Raises `UserError` for a folder with other files, and if Wikipedia cannot be downloaded.
    """
    return experiment(config.out, NAME, config, partial(_run, config))


def _run(config: ScalabilityConfig) -> None:
    begun = perf_counter()
    texts = _texts(config)
    steps = planned(config, texts["world"])
    rates: Tried = {kind: tried(config, kind, texts["world"], steps) for kind in KINDS}
    found: Found = {
        name: {kind: run_all(config, kind, name, text, steps, best(rates[kind])) for kind in KINDS}
        for name, text in texts.items()
    }
    largest: Mapping[str, Architecture] = {
        kind: architectures(kind, texts["world"].vocab_size, config.quick)[-1] for kind in KINDS
    }
    timed = costs.settings(config.out, config.threads)
    speeds = costs.tokens_per_second(largest, timed, config.quick)
    writing = costs.milliseconds(largest, timed, config.quick)
    (races, left_out), places = raced(found), compared(found)
    claims = [
        *(claim for race in races for claim in crossing.tested(race)),
        *(claim for one in places for claim in positions.tested(one)),
        *costs.tested(speeds, writing),
    ]
    write(
        config,
        NAME,
        QUESTION,
        tables=[
            crossing.table(races),
            positions.table(places),
            costs.speed_table(speeds),
            costs.writing_table(largest, writing),
            sizes_table(found),
        ],
        plots=[curves_plot(found, races), positions.plot(places), costs.plot(speeds)],
        remarks=[
            *map(crossing.sentence, races),
            *left_out,
            *conclusions(claims),
            *chosen(rates),
        ],
        claims=claims,
        data={
            "rates": {k: {f"{r:g}": loss for r, loss in one.items()} for k, one in rates.items()},
            "races": [crossing.numbers(race) for race in races],
            "runs": [
                numbers(one) for families in found.values() for f in families.values() for one in f
            ],
            "positions": {
                one.text: {"tokens_read": one.edges}
                | {kind: one.nats(kind).tolist() for kind in KINDS}
                for one in places
            },
            "costs": costs.numbers(largest, speeds, writing),
        },
        pieces=("cells", "text", STEPS_FILE, RESULT),
        seconds=perf_counter() - begun,
        planned_by_clock=not config.quick,
    )


def _texts(config: ScalabilityConfig) -> dict[Text, Material]:
    """The texts; the miniature has only the stories, which need no network."""
    names: list[Text] = ["world"] if config.quick else list(TEXTS)
    megabytes = 0.3 if config.quick else 8
    return {
        name: material(config.out / "text", name, vocab_size=VOCAB, megabytes=megabytes)
        for name in names
    }


def best(rates: Mapping[float, float]) -> float:
    """The rate with the lowest loss."""
    return min(rates, key=lambda rate: rates[rate])


# Report.


def raced(found: Found) -> tuple[list[Race], list[str]]:
    """The race on each text, by FLOPs and by seconds, and sentences about impossible ones."""
    races, left_out = list[Race](), list[str]()
    for name, families in found.items():
        for unit in UNITS:
            curves = {kind: [one.curves_by(unit) for one in families[kind]] for kind in KINDS}
            # Transposed from sizes and seeds to seeds and sizes.
            lstm, gpt = (list(zip(*curves[kind], strict=True)) for kind in ("LSTM", "GPT"))
            race = Race.of(TEXTS[name], unit, lstm, gpt)
            if race is None:
                left_out.append(
                    f"{TEXTS[name]}: the sizes were evaluated over disjoint ranges of {unit}, so "
                    "they cannot be compared; more minutes are needed."
                )
            else:
                races.append(race)
    return races, left_out


def compared(found: Found) -> list[Compared]:
    """The largest models of both families on each text."""
    of: list[Compared] = []
    for name, families in found.items():
        lstm, gpt = (
            [history.end["positions"] for history in families[kind][-1].histories]
            for kind in ("LSTM", "GPT")
        )
        of.append(Compared(TEXTS[name], lstm, gpt))
    return of


def chosen(rates: Tried) -> list[str]:
    """A sentence about the chosen rates, and those at the edge of the rates tried."""
    said = "; ".join(
        f"{kind} {best(found):g}, the best of {', '.join(f'{rate:g}' for rate in found)}"
        for kind, found in rates.items()
    )
    edge = [kind for kind, found in rates.items() if best(found) in (min(found), max(found))]
    beyond = f" Best at the edge of those tried, so better may exist: {' and '.join(edge)}."
    return [f"Rates of matrices: {said}." + beyond * bool(edge)]


def sizes_table(found: Found) -> Table:
    """A row per run: its size, its budget and its final loss."""
    every = [one for families in found.values() for family in families.values() for one in family]
    return text_table(
        "Final loss of every size",
        ("model and text", "parameters", "tokens", "FLOPs", "seconds", "nats per token"),
        tuple(
            (
                f"{title(one)}, {TEXTS[one.text]}",
                # Rounded before, as 999,712 would be 1e+03 k.
                short_number(float(f"{one.parameters:.3g}")),
                short_number(one.histories[0].end["step"] * ROWS * CONTEXT),
                short_number(one.curves_by("FLOPs")[0].used[-1]),
                f"{one.curves_by('s')[0].used[-1]:.1f}",
                number_cell([history.end["loss"] for history in one.histories]),
            )
            for one in every
        ),
        (
            "Parameters without embeddings. All were planned to train for the same time, by the "
            f"pace measured before, in steps of {ROWS} windows of {CONTEXT} tokens (with more "
            "windows at once an LSTM has more parallel work, and trains faster); their seconds are "
            "those of the median step of all seeds. The rate rises and then stays constant, so "
            "every evaluation is the end of a shorter run. "
            f"{intervals(len(every[0].histories))}",
        ),
    )


def title(one: Run) -> str:
    """A family and a size, such as "GPT 1 M"."""
    return f"{one.kind} {short_number(float(f'{one.parameters:.2g}'))}"


def curves_plot(found: Found, races: Sequence[Race]) -> Plot:
    """Loss over FLOPs and over seconds: every size thin, the best of each family thick."""
    figure, rows = panels(len(found), 2, width=9.0, height=3.6 * len(found))
    for row, (name, families) in zip(rows, found.items(), strict=True):
        for axes, unit in zip(row, UNITS, strict=True):
            for drawn, kind in zip(looks(KINDS).values(), KINDS, strict=True):
                for one in families[kind]:
                    curves = one.curves_by(unit)
                    used = np.mean([curve.used for curve in curves], axis=0)
                    mean = np.mean([curve.losses for curve in curves], axis=0)
                    axes.plot(used, mean, **drawn.both, linewidth=0.8, alpha=0.5, markersize=3)
                for race in races:
                    if (race.text, race.unit) == (TEXTS[name], unit):
                        _draw(axes, race, kind, drawn)
            axes.set_title(TEXTS[name])
            log_x(axes, "FLOPs" if unit == "FLOPs" else "seconds of training")
        row[0].set_ylabel("nats per token")
        row[0].legend(frameon=False)
    return Plot(
        "curves",
        "Held-out loss over FLOPs and over seconds: every size (thin), and the best of each family "
        "where it is known (thick). Lines are means, bands all seeds.",
        figure,
    )


def _draw(axes: Axes, race: Race, kind: Kind, drawn: Look) -> None:
    """A family's frontier: the mean, and a band over all seeds."""
    values = race.gpt if kind == "GPT" else race.lstm
    axes.plot(race.budgets, values.mean(0), **drawn.line, linewidth=2.2, label=kind)
    low, high = values.min(0), values.max(0)
    axes.fill_between(race.budgets, low, high, color=drawn.color, alpha=0.2, linewidth=0)


def numbers(one: Run) -> dict[str, Any]:
    """A run's evaluations, for result.json."""
    return {
        "kind": one.kind,
        "text": one.text,
        "parameters": one.parameters,
        "flops": one.curves_by("FLOPs")[0].used,
        "seconds": one.curves_by("s")[0].used,
        "losses": [curve.losses for curve in one.curves_by("s")],
    }
