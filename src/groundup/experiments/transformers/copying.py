"""Which models can copy a string, and strings longer than those in training?

    a b c d <copy> | a b c d <end>        random letters, so that none can be guessed

Copying means reading one position after the other. Attention can look each up; an LSTM must have
stored the whole string (Jelassi et al. 2024, Repeat After Me: Transformers are Better than State
Space Models at Copying). Strings have up to 16 letters in training and up to four times as many in
the test, which separates learning the task from generalizing to longer strings: with RoPE, a
transformer has never seen such distances; ALiBi's biases extend to them; without positions, a model
can find its place only by content.

Right letters and whole strings without an error are measured separately: at 99 % per letter, only
every other string of 64 letters is right as a whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch

from groundup.experiments.transformers.cells import Cell, History, trained, trainings
from groundup.experiments.transformers.config import CopyingConfig
from groundup.experiments.transformers.findings import (
    compared,
    conclusions,
    intervals,
    lines_plot,
    share_cell,
)
from groundup.experiments.transformers.models import Architecture, recurrent, transformer
from groundup.experiments.transformers.tasks import END, Copying, TaskStream, test_batch
from groundup.lm.model import CausalLM
from groundup.report.claim import Claim
from groundup.report.outcome import RESULT, experiment, write
from groundup.report.table import Cell as Shown
from groundup.report.table import Table, short_number, text_table

NAME = "copying"
QUESTION = "Which models learn to copy strings, and which copy longer ones than in training?"
LETTERS, LONGEST, CONTEXT = 28, 16, 128
LENGTHS = (8, 16, 32, 64)
TASK = Copying(LETTERS, 1, LONGEST, CONTEXT)
_ROWS, _TEST_ROWS, _LAYERS, _WIDTH = 12, 100, 2, 64
LSTM = "LSTM"
PREDICTED = (
    "Each letter is predicted after the right letters before it. The end token does not count as a "
    "letter, but a string without an error must have it."
)
# ALiBi's heads have different slopes, so there are four of them.
_HEADS = 4


def run(config: CopyingConfig) -> Path:
    """Train all models, test their copies, and write the results. After a stop it resumes.

    Raises `UserError` for a folder with other files.
    """
    return experiment(config.out, NAME, config, partial(_run, config))


def _run(config: CopyingConfig) -> None:
    begun = perf_counter()
    cells = {name: _cell(config, name, config.seed) for name in architectures()}
    found = {
        name: [trained(config, _cell(config, name, seed)) for seed in config.all_seeds]
        for name in architectures()
    }
    claims = tested(found)
    write(
        config,
        NAME,
        QUESTION,
        tables=[table(found, what, _test_rows(config)) for what in ("letters", "strings")],
        plots=[plot(found), learning(found)],
        remarks=[*conclusions(claims), trainings(cells)],
        claims=claims,
        data={
            "training": {name: cell.training for name, cell in cells.items()},
            **{name: [one.measured for one in histories] for name, histories in found.items()},
        },
        pieces=("cells", RESULT),
        seconds=perf_counter() - begun,
    )


# The models.


def architectures() -> dict[str, Architecture]:
    """Transformers with three position encodings, and an LSTM of about their size."""
    sizes = {"vocab_size": 64, "context": 2 * LENGTHS[-1] + 1}
    gpt = partial(transformer, width=_WIDTH, depth=_LAYERS, heads=_HEADS, **sizes)
    return {
        "RoPE": Architecture(gpt()),
        "ALiBi": Architecture(gpt(position_embedding_type="alibi")),
        "no positions": Architecture(gpt(position_embedding_type="none")),
        LSTM: recurrent("lstm", width=2 * _WIDTH, depth=1, **sizes),
    }


def _cell(config: CopyingConfig, name: str, seed: int) -> Cell:
    recurs = name == LSTM
    return Cell(
        f"{name.replace(' ', '-').lower()}-{seed}",
        architectures()[name],
        TaskStream(TASK, _ROWS, seed),
        seed,
        steps=20 if config.quick else config.steps,
        rows=_ROWS,
        context=CONTEXT,
        # As in `recall`: the best of some that were tried.
        rate=0.02 if recurs else 0.003,
        embedding_rate=0.01,
        optimizer="muon" if recurs else "adamw",
        measure=partial(measured, rows=_test_rows(config)),
        dtype="auto",
        evaluations=1 if config.quick else 8,
    )


def _test_rows(config: CopyingConfig) -> int:
    """Strings of each length in the test."""
    return 10 if config.quick else _TEST_ROWS


@torch.no_grad()
def measured(
    model: CausalLM, step: int, rows: int, lengths: Sequence[int] = LENGTHS
) -> dict[str, Any]:
    """Shares of right letters and of strings without an error, by the length of the strings.

    Each letter is predicted after the right ones before it. The end token does not count as a
    letter, but a string without an error must have it.
    """
    found: dict[str, dict[str, float]] = {"letters": {}, "strings": {}}
    for length in lengths:
        batch = test_batch(Copying(LETTERS, length, length, 2 * length + 1), rows)
        right = (model(batch) @ model.head.T).argmax(-1) == batch.targets
        asked = batch.weights > 0
        letters = asked & (batch.targets != END)
        found["letters"][str(length)] = float(right[letters].float().mean())
        found["strings"][str(length)] = float((right | ~asked).all(1).float().mean())
    return found


# Report.


def ends(histories: Sequence[History], what: str, length: int) -> list[float]:
    """The final share of right letters or whole strings of a length, for each seed."""
    return [history.end[what][str(length)] for history in histories]


def tested(found: dict[str, list[History]]) -> list[Claim]:
    """Attention compared with the LSTM at trained lengths, and encodings beyond them."""

    def against(claim: str, one: str, other: str, what: str, length: int) -> Claim:
        return compared(
            claim,
            (one, ends(found[one], what, length)),
            (other, ends(found[other], what, length)),
            "above",
            share=True,
        )

    trained_on, twice, four_times = LENGTHS[1:]
    return [
        against(
            f"attention copies more strings of {trained_on} letters, the longest in training",
            "RoPE",
            LSTM,
            "strings",
            trained_on,
        ),
        *(
            against(
                f"at {length} letters {one} copies more letters than {other}",
                one,
                other,
                "letters",
                length,
            )
            for length in (twice, four_times)
            for one, other in (("ALiBi", "RoPE"), ("no positions", "RoPE"), ("ALiBi", LSTM))
        ),
    ]


def table(found: dict[str, list[History]], what: str, rows_each: int) -> Table:
    """A row per model and a column per length; the test has `rows_each` strings of each."""
    every = architectures()
    rows: list[tuple[str | Shown, ...]] = [
        (
            name,
            short_number(every[name].parameters),
            *(share_cell(ends(histories, what, length)) for length in LENGTHS),
        )
        for name, histories in found.items()
    ]
    titles = {"letters": "Right letters", "strings": "Strings without an error"}
    return text_table(
        f"{titles[what]} by the length of the string",
        ("model", "parameters", *(str(length) for length in LENGTHS)),
        rows,
        (
            f"Trained on 1 to {LONGEST} letters out of {LETTERS}, tested on {rows_each} strings "
            f"of each length; guessing gets 1 letter in {LETTERS}. {PREDICTED} "
            f"{intervals(len(next(iter(found.values()))))}",
        ),
    )


def plot(found: dict[str, list[History]]) -> Any:
    """Shares of letters and strings over length."""
    return lines_plot(
        "lengths",
        f"Copies of strings by their length; {LONGEST} was the longest in training.",
        {
            title: {
                name: (LENGTHS, np.array([ends(histories, what, n) for n in LENGTHS]).T)
                for name, histories in found.items()
            }
            for title, what in (("right letters", "letters"), ("whole strings", "strings"))
        },
        x="letters",
        y="share",
        log_x=True,
        limits=(0, 1.03),
        marked=True,
    )


def learning(found: dict[str, list[History]]) -> Any:
    """Right letters of the longest strings in training, over training steps."""
    return lines_plot(
        "learning",
        f"Right letters of strings of {LONGEST} over the steps of training.",
        {
            "learning": {
                name: (
                    [line["step"] for line in histories[0].measured],
                    np.array(
                        [
                            [line["letters"][str(LONGEST)] for line in history.measured]
                            for history in histories
                        ]
                    ),
                )
                for name, histories in found.items()
            }
        },
        x="steps",
        y="share of right letters",
        limits=(0, 1.03),
    )
