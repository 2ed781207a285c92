"""Does attention recall what a recurrent state cannot hold? Pairs of keys and values, then keys.

    k v k v k v … | k k k …        the answer to each queried key is its value

Attention looks up a value at its position, and its cache grows with the text. An LSTM or GRU must
store all pairs in a state of fixed size, so it should need a larger one for more pairs (Arora et
al. 2023, Zoology, where this task explains most of the gap between such models and transformers).
Two layers of attention without an MLP are compared with one layer of an LSTM or GRU of one, two and
four times the width; all are trained and tested on every number of pairs.

The sizes train within seconds on a CPU. Steps and rates are the best of some that were tried for
each kind: AdamW for attention, Muon for recurrent networks, which with AdamW did not begin to learn
in time which value belongs to which key.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch

from groundup.experiments.transformers.cells import Cell, History, trained, trainings
from groundup.experiments.transformers.config import RecallConfig
from groundup.experiments.transformers.findings import (
    compared,
    conclusions,
    intervals,
    lines_plot,
    share_cell,
)
from groundup.experiments.transformers.models import Architecture, attention_only, recurrent
from groundup.experiments.transformers.tasks import TEST_SEED, Recall, TaskStream
from groundup.lm.model import CausalLM
from groundup.report.claim import Claim
from groundup.report.outcome import RESULT, experiment, write
from groundup.report.table import Table, short_number, text_table
from groundup.runs.console import counted

NAME = "recall"
QUESTION = "Does attention recall what a recurrent network of the same width cannot hold?"
WIDTH, TIMES = 32, (1, 2, 4)
TASK = Recall(vocab_size=64, pairs=(1, 2, 4, 8, 16))
_ROWS, _TEST_QUESTIONS = 32, 1_600
ATTENTION = f"attention {WIDTH}"
# The accuracy from which a number of pairs counts as held.
HELD = 0.9


@dataclass(frozen=True)
class ModelKind:
    """A kind of model with a history for each seed."""

    name: str
    make: Architecture
    histories: list[History]

    def accuracy(self, pairs: int) -> list[float]:
        """The share of right answers for this number of pairs, for each seed."""
        return [history.end["accuracy"][str(pairs)] for history in self.histories]

    @property
    def held(self) -> int:
        """The largest number of pairs with a mean accuracy of at least nine tenths; 0 if none."""
        return max((n for n in TASK.pairs if np.mean(self.accuracy(n)) >= HELD), default=0)


def run(config: RecallConfig) -> Path:
    """Train and test all models, and write the results. After a stop it resumes.

    Raises `UserError` for a folder with other files.
    """
    return experiment(config.out, NAME, config, partial(_run, config))


def _run(config: RecallConfig) -> None:
    begun = perf_counter()
    cells = {name: _cell(config, name, config.seed) for name in architectures()}
    found = [
        ModelKind(
            name, make, [trained(config, _cell(config, name, seed)) for seed in config.all_seeds]
        )
        for name, make in architectures().items()
    ]
    claims = tested(found)
    write(
        config,
        NAME,
        QUESTION,
        tables=[table(found)],
        plots=[
            lines_plot(
                "capacity",
                "Right answers over the number of pairs.",
                {
                    "recall": {
                        one.name: (TASK.pairs, np.array([one.accuracy(n) for n in TASK.pairs]).T)
                        for one in found
                    }
                },
                x="pairs",
                y="share of right answers",
                log_x=True,
                limits=(0, 1.03),
                marked=True,
            )
        ],
        remarks=[*remarks(found, claims), trainings(cells)],
        claims=claims,
        data={one.name: {**numbers(one), **cells[one.name].training} for one in found},
        pieces=("cells", RESULT),
        seconds=perf_counter() - begun,
    )


# The models.


def architectures() -> dict[str, Architecture]:
    sizes = {"vocab_size": TASK.vocab_size, "context": TASK.context}
    found = {ATTENTION: attention_only(width=WIDTH, depth=2, heads=1, **sizes)}
    for cell in ("lstm", "gru"):
        for times in TIMES:
            name = f"{cell.upper()} {times * WIDTH}"
            found[name] = recurrent(cell, width=times * WIDTH, depth=1, **sizes)
    return found


def _cell(config: RecallConfig, name: str, seed: int) -> Cell:
    attends = name == ATTENTION
    steps = config.attention_steps if attends else config.steps
    return Cell(
        f"{name.replace(' ', '-').lower()}-{seed}",
        architectures()[name],
        TaskStream(TASK, _ROWS, seed),
        seed,
        steps=20 if config.quick else steps,
        rows=_ROWS,
        context=TASK.context,
        rate=0.003 if attends else 0.02,
        embedding_rate=0.01,
        optimizer="adamw" if attends else "muon",
        measure=measured,
        dtype="auto",
        evaluations=1 if config.quick else 10,
    )


@torch.no_grad()
def measured(model: CausalLM, step: int) -> dict[str, Any]:
    """The share of right answers for each number of pairs, among all tokens."""
    found = {}
    for pairs in TASK.pairs:
        batch = TASK.batch(np.random.default_rng(TEST_SEED), _TEST_QUESTIONS // pairs, pairs)
        asked = batch.weights > 0
        right = (model(batch)[asked] @ model.head.T).argmax(-1) == batch.targets[asked]
        found[str(pairs)] = float(right.float().mean())
    return {"accuracy": found}


# Report.


def tested(found: Sequence[ModelKind]) -> list[Claim]:
    """Attention compared with each recurrent network at the most pairs, and wide with narrow."""
    of, most = {one.name: one for one in found}, TASK.pairs[-1]
    claims = [
        compared(
            f"attention answers more than the {one.name} of {most} pairs",
            (ATTENTION, of[ATTENTION].accuracy(most)),
            (one.name, one.accuracy(most)),
            "above",
            share=True,
        )
        for one in found
        if one.name != ATTENTION
    ]
    for cell in ("LSTM", "GRU"):
        wide, narrow = (of[f"{cell} {times * WIDTH}"] for times in (TIMES[-1], TIMES[0]))
        claims.append(
            compared(
                f"a state of {TIMES[-1]} times the width lets the {cell} answer more of 8 pairs",
                (wide.name, wide.accuracy(8)),
                (narrow.name, narrow.accuracy(8)),
                "above",
                share=True,
            )
        )
    return claims


def remarks(found: Sequence[ModelKind], claims: Sequence[Claim]) -> list[str]:
    """Sentences computed from the numbers."""
    held = "; ".join(f"{one.name}: {one.held}" for one in found)
    return [
        f"The most pairs of which {HELD:.0%} are answered, on average over the seeds: {held}.",
        *conclusions(claims),
    ]


def table(found: Sequence[ModelKind]) -> Table:
    """A row per model: the size of its state, and its accuracies."""
    return text_table(
        "Right answers by the number of pairs",
        ("model", "parameters", "state", *(counted(n, "pair") for n in TASK.pairs)),
        tuple(
            (
                one.name,
                short_number(one.make.parameters),
                f"{one.make.state_floats(TASK.context):,}",
                *(share_cell(one.accuracy(n)) for n in TASK.pairs),
            )
            for one in found
        ),
        (
            f"State: numbers kept after {TASK.context} tokens, the length of {TASK.pairs[-1]} "
            "pairs with their queries; attention's grow with the text, the others' do not. "
            f"{TASK.vocab_size // 2} keys and as many values; a model that knows only the set of "
            "values answers 1 in n right for n pairs. "
            f"{intervals(len(found[0].histories))}",
        ),
    )


def numbers(one: ModelKind) -> Mapping[str, Any]:
    """All measurements of a kind of model, for result.json."""
    return {
        "parameters": one.make.parameters,
        "state_floats": one.make.state_floats(TASK.context),
        "held_pairs": one.held,
        "accuracy": {str(n): one.accuracy(n) for n in TASK.pairs},
        "history": [
            {str(line["step"]): line["accuracy"] for line in history.measured}
            for history in one.histories
        ],
        "seconds": [history.seconds for history in one.histories],
    }
