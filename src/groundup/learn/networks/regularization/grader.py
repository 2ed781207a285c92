"""Trials of 2.5: against `nn.Dropout` and the early stopping of the training stages."""

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any, cast

import numpy as np
import torch

from groundup.learn.exercise import Trial
from groundup.maths import Tensor
from groundup.nn.layers import Dropout
from groundup.runs.folder import Run
from groundup.train.early_stopping import EarlyStopping
from groundup.train.optim import Optimizer
from groundup.tune.config import SFTConfig


def trials(seed: int) -> Iterator[Trial]:
    """Dropout in training and evaluation, then histories."""
    rng = np.random.default_rng(seed)
    yield _dropout("four numbers", np.array([1.0, 2.0, 3.0, 4.0]), 0.25, seed, True)
    yield _dropout("a matrix", rng.normal(size=(4, 5)), 0.4, seed, True)
    yield _dropout("in evaluation", rng.normal(size=(2, 3)), 0.4, seed, False)
    yield _dropout("nothing is dropped", rng.normal(size=3), 0.0, seed, True)
    for about, losses, patience in (
        ("the lesson's", [3.0, 2.5, 2.2, 2.3, 2.1, 2.4, 2.2, 1.9], 2),
        ("it always gets better", [3.0, 2.0, 1.0], 2),
        ("it only gets worse", [1.0, 2.0, 3.0, 4.0], 1),
        ("equal values", [2.0, 1.0, 1.0, 1.0, 1.0, 0.5], 3),
        ("a late best", [3.0, 3.5, 2.0, 2.5, 2.2, 2.1, 1.5], 3),
        ("large losses", [4e6, 3e6, 2e6, 1e6], 5),
        ("it gets better by a little", [1.0, 0.999999, 0.999998, 0.999997], 2),
    ):
        yield _stop(about, losses, patience)


class _Draws:
    """A generator whose next numbers are known."""

    def __init__(self, u: np.ndarray) -> None:
        self.u = u

    def random(self, shape: tuple[int, ...], dtype: object) -> np.ndarray:
        return self.u


def _dropout(about: str, x: np.ndarray, p: float, seed: int, training: bool) -> Trial:
    # Evenly spaced, so that some are dropped and some kept with any seed; and one u equal to p,
    # which is kept.
    spread = [*((np.arange(x.size - 1) + 0.5) / x.size), p]
    u = np.random.default_rng(seed).permutation(spread).reshape(x.shape)
    layer = Dropout(p, rng=0)
    layer.rng = cast(Any, _Draws(u))
    if not training:
        layer.eval()
    expected = layer(Tensor(x)).data

    def run(part: ModuleType) -> Any:
        return part.dropout(x, p, u, training)

    shown = {"x": x, "p": p, "u": u, "training": training}
    return Trial(f"dropout, {about}", run, expected, shown)


@cache
def _stopped(losses: tuple[float, ...], patience: int) -> list[int]:
    """The stop and the best step of the product's early stopping on these losses."""
    with TemporaryDirectory() as folder:
        run = Run(Path(folder), "lesson", None)
        optimizer = Optimizer.__new__(Optimizer)  # one without a model
        optimizer.masters = {"w": torch.zeros(1)}
        config = SFTConfig(model=run.folder, data=(run.folder,), out=run.folder, patience=patience)
        stopping = EarlyStopping(run, optimizer, config)
        for step, loss in enumerate(losses):
            line = {"kind": "evaluation", "step": step, "heldout_loss": loss}
            with open(run.folder / "metrics.jsonl", "a") as file:
                file.write(json.dumps(line) + "\n")
            if stopping.ends_training(step):
                break
        steps, values = stopping._so_far()
        return [step, steps[values.index(min(values))]]


def _stop(about: str, losses: list[float], patience: int) -> Trial:
    def run(part: ModuleType) -> Any:
        return [int(one) for one in part.early_stop(losses, patience)]

    shown = {"losses": losses, "patience": patience}
    expected = _stopped(tuple(losses), patience)
    return Trial(f"early_stop, {about}", run, expected, shown)
