"""Cells of an experiment: one model, trained with one seed and measured during training.

An experiment is a table of cells. Each is a run in `OUT/cells/NAME`, trained by the common loop and
measured at fixed steps. A stopped experiment resumes in the middle of a cell, and finished cells
are read from their folders.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Literal

from groundup.experiments.transformers.config import TransformerExperimentConfig
from groundup.experiments.transformers.models import Architecture
from groundup.formats.hf_config import config_to_hf
from groundup.lm.model import CausalLM
from groundup.runs.console import counted, say
from groundup.runs.files import read_lines
from groundup.train.batch import Batch, Stream
from groundup.train.config import TrainingConfig
from groundup.train.loss import next_token_loss
from groundup.train.plan import Trained
from groundup.train.stage import Job, run_stage

Measured = dict[str, Any]
Optimizer = Literal["muon", "adamw"]
TITLES: Mapping[Optimizer, str] = {"adamw": "AdamW", "muon": "Muon"}


@dataclass(frozen=True)
class Cell:
    """A model, its data and training settings, and `measure(model, step)`.

    `rate` is the peak learning rate of matrices; embeddings and gains have `embedding_rate`, by
    default the same. `measured_at` are steps to measure at in addition to those of `evaluations`.
    `warmup` and `decay` are the shares of the steps in which rates rise and fall.
    """

    name: str
    make: Architecture
    stream: Stream[Batch]
    seed: int
    steps: int
    rows: int
    context: int
    rate: float
    measure: Callable[[CausalLM, int], Measured]
    embedding_rate: float | None = None
    optimizer: Optimizer = "adamw"
    evaluations: int = 1
    dtype: Literal["auto", "float32", "bfloat16"] = "float32"
    weight_decay: float = 0.0
    evaluates_first: bool = False
    measured_at: Sequence[int] = ()
    warmup: float = 0.1
    decay: float = 0.5

    @property
    def training(self) -> Measured:
        """The training settings, for result.json."""
        return {
            "optimizer": self.optimizer,
            "rate": self.rate,
            "embedding_rate": self.embedding_rate or self.rate,
            "steps": self.steps,
            "rate_choice": "fixed",
        }


@dataclass(frozen=True)
class History:
    """A cell's evaluations, and the metrics of every training step."""

    measured: list[Measured]
    steps: list[Measured]

    @property
    def end(self) -> Measured:
        """The last evaluation."""
        return self.measured[-1]

    @property
    def seconds(self) -> float:
        """The time of training, without evaluation."""
        return float(sum(line["seconds"] for line in self.steps))


def trainings(cells: Mapping[str, Cell]) -> str:
    """A sentence with each model's optimizer, rate and number of steps."""
    alike = dict[str, list[str]]()
    for name, cell in cells.items():
        how = f"{TITLES[cell.optimizer]} at {cell.rate:g} for {counted(cell.steps, 'step')}"
        alike.setdefault(how, []).append(name)
    said = "; ".join(f"{how}: {', '.join(names)}" for how, names in alike.items())
    return (
        f"Trained by {said}. Rates are those of matrices, and fixed: this experiment tries no "
        "others."
    )


def trained(config: TransformerExperimentConfig, cell: Cell) -> History:
    """Train and measure a cell, unless it is done."""
    folder = config.out / "cells" / cell.name
    shape = cell.make.shape
    rates = (cell.rate, cell.embedding_rate or cell.rate)
    settings = TrainingConfig(
        out=folder,
        seed=cell.seed,
        rows=cell.rows,
        micro_rows=cell.rows,
        steps=cell.steps,
        optimizer=cell.optimizer,
        learning_rate=cell.rate,
        embedding_learning_rate=rates[1],
        weight_decay=cell.weight_decay,
        warmup=cell.warmup,
        decay=cell.decay,
        evaluations=cell.evaluations,
        threads=config.threads,
        # All timings of the experiments, and the batches of `measure`, are on the CPU.
        device="cpu",
        dtype=cell.dtype,
        compile="off",
    )
    job: Job[Batch, CausalLM] = Job(
        settings,
        Trained.whole(shape, cell.context, rates, "as the experiment has them"),
        model=lambda: cell.make(cell.seed),
        stream=lambda steps: cell.stream,
        loss=next_token_loss,
        evaluate=cell.measure,
        save=lambda model, plan: None,
        context=cell.context,
        rows_per_epoch=cell.rows * cell.steps,
        model_config=config_to_hf(shape),
        evaluates_first=cell.evaluates_first,
        evaluates_at=cell.measured_at,
    )
    begun = perf_counter()
    run_stage(settings, "cell", {}, lambda run: job)
    lines = read_lines(folder / "metrics.jsonl")
    history = History(
        [line for line in lines if line["kind"] == "evaluation"],
        [line for line in lines if line["kind"] == "train"],
    )
    say(f"{cell.name}: {perf_counter() - begun:.0f} s")
    return history
