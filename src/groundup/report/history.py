"""The training history of a model from its run folder: lineage, curves and costs."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from groundup.errors import UserError
from groundup.runs.console import say
from groundup.runs.content import recorded_hashes
from groundup.runs.files import is_number, is_sealed, read_json_object, read_sealed
from groundup.runs.folder import is_metric, read_metrics
from groundup.runs.request import read_run

# The held-out measures of training stages, with their names.
HELDOUT = {
    "bits_per_byte": "held-out bits per byte",
    "heldout_loss": "held-out loss, nats per token",
    "heldout_accuracy": "held-out preference accuracy",
}

_POINTS_KEPT = 400


def heldout_names(own: str | None) -> dict[str, str]:
    """Return the names of held-out measures by key; a stage's own measure comes last."""
    return HELDOUT if own in (None, *HELDOUT) else HELDOUT | {str(own): str(own).replace("_", " ")}


@dataclass(frozen=True)
class Curve:
    """Values over the number of training tokens read."""

    name: str
    tokens: Float[np.ndarray, " points"]
    values: Float[np.ndarray, " points"]

    def to_json(self) -> dict[str, list[float]]:
        """Return at most 400 evenly spaced points; a run's metrics.jsonl has all of them."""
        last = len(self.tokens) - 1
        kept = np.unique(np.linspace(0, last, min(_POINTS_KEPT, last + 1)).astype(int))
        return {"tokens": self.tokens[kept].tolist(), "values": self.values[kept].tolist()}


@dataclass(frozen=True)
class History:
    """The records of a run folder; `of` returns None for a model from elsewhere.

    `run` and `plan` are run.json and plan.json. `train` and `evaluations` are the lines of
    metrics.jsonl by kind, read on first use because a long run has many; `lines` are those lines if
    the caller has read them already.
    """

    folder: Path
    run: dict[str, Any]
    plan: dict[str, Any]
    lines: Sequence[dict[str, Any]] | None = None

    @staticmethod
    def of(folder: Path) -> History | None:
        """Read a finished training run's folder; damaged parts are left out and reported."""
        files = [folder / name for name in ("run.json", "plan.json", "metrics.jsonl")]
        if not (is_sealed(files[0]) and files[2].is_file()):
            return None
        try:
            run = read_run(folder)
        except UserError as error:
            _say_once(f"{error}; the training history of {folder} is left out")
            return None
        plan: dict[str, Any] = {}
        try:
            plan = read_sealed(files[1], dict)
        except UserError as error:
            _say_once(f"{error}; the planned costs of training are left out")
        return History(folder, run, plan)

    @cached_property
    def _lines(self) -> list[dict[str, Any]]:
        if self.lines is not None:
            return [line for line in self.lines if is_metric(line)]
        return read_metrics(self.folder / "metrics.jsonl")

    @cached_property
    def train(self) -> list[dict[str, Any]]:
        # A step that was skipped for a bad gradient has no loss.
        return [line for line in self._lines if line["kind"] == "train" and "loss" in line]

    @cached_property
    def evaluations(self) -> list[dict[str, Any]]:
        return [line for line in self._lines if line["kind"] == "evaluation"]

    @property
    def stage(self) -> str:
        return str(self.run["stage"])

    @property
    def chats(self) -> bool:
        """Whether the run taught its model to answer; assumed for an unknown stage."""
        return bool(self.run.get("traits", {}).get("chats", True))

    @property
    def reads(self) -> str | None:
        """The kind of rows that the run trained on: documents, conversations, preferences …"""
        found = self.run.get("traits", {}).get("reads")
        return found if isinstance(found, str) else None

    @property
    def measure(self) -> str | None:
        """The key of the stage's held-out measure in metrics.jsonl."""
        found = self.run.get("traits", {}).get("measure")
        return found if isinstance(found, str) else None

    @property
    def parent(self) -> Path | None:
        """The folder of the model that this one was trained from."""
        described = self.run["parents"].get("model")
        if described is None:
            return None
        return self.beside(described["path"])

    def beside(self, named: str) -> Path:
        """Return the current path of a file or folder that run.json names.

        Runs of one recipe are siblings, also after their common folder was moved. Seen from another
        working directory, the name may mean something else; then the path whose content matches the
        recorded hash is returned.
        """
        path, beside = Path(named), self.folder.parent
        # The shortest suffix of the name that exists: data, data/documents/train.jsonl.
        parts = [part for part in path.parts if part not in (path.anchor, "..")]
        tails = [beside.joinpath(*parts[-count:]) for count in range(1, len(parts) + 1)]
        near = next(filter(os.path.exists, tails), beside / path.name)
        # For an invalid name, such as one too long, os.path reports that it does not exist.
        if not (os.path.exists(path) and os.path.exists(near)) or path.samefile(near):
            return path if os.path.exists(path) else near
        hashes = {one["path"]: one.get("sha256") for one in self.run["parents"].values()}
        with contextlib.suppress(OSError):  # damaged: then only the name decides
            status = near / "status.json"
            changed = (status if status.exists() else near).stat().st_mtime_ns
            return near if hashes.get(named) in _hashes(near, changed) else path
        return path

    def planned(self, name: str) -> float | None:
        """Return a number of the plan; None if it has none."""
        value = self.plan.get(name)
        return float(value) if is_number(value) else None

    def reason(self, name: str) -> str:
        """Return the plan's reason for a decision; empty if it has none."""
        reasons = self.plan.get("reasons")
        return str(reasons.get(name, "")) if isinstance(reasons, dict) else ""

    def setting(self, name: str) -> float | None:
        """Return a number of the run's settings; None if they have none."""
        value = self.run["config"].get(name)
        return float(value) if is_number(value) else None

    @cached_property
    def tokens(self) -> Float[np.ndarray, " steps"]:
        """Tokens read up to and including each logged step."""
        return np.array([line["tokens"] for line in self.train], float)

    @cached_property
    def seconds(self) -> Float[np.ndarray, " steps"]:
        """Seconds of training steps up to and including each, without evaluations and saves."""
        return np.cumsum(self._of_steps("seconds"))

    def loss(self) -> Curve:
        """Return the training loss of each step."""
        return Curve("training loss", self.tokens, self._of_steps("loss"))

    def learning_rate(self) -> Curve:
        return Curve("learning rate", self.tokens, self._of_steps("learning_rate"))

    def heldout(self, *, own: bool = False) -> Curve | None:
        """Return the held-out measure during training, if any.

        With `own`, also the stage's own measure, even if models are not compared by it.
        """
        for key, name in heldout_names(self.measure if own else None).items():
            lines = [line for line in self.evaluations if is_number(line.get(key))]
            if lines and self.train:
                tokens = [self._at_step(line["step"], self.tokens) for line in lines]
                return Curve(name, np.array(tokens), np.array([line[key] for line in lines], float))
        return None

    def costs(self) -> dict[str, float]:
        """Return steps, tokens, minutes, FLOPs, and the median share of the peak product speed.

        `planned_minutes`, `peak_memory_bytes` and `planned_peak_memory_bytes` are included if the
        run recorded them.
        """
        tokens = float(self.tokens[-1]) if self.train else 0.0
        steps = float(self.seconds[-1]) if self.train else 0.0
        evaluated = sum(line["seconds"] for line in self.evaluations)
        shares = self._of_steps("peak_share")
        flops = self._of_steps("flops_per_second") * self._of_steps("seconds")
        return {
            "steps": len(self.train),
            "tokens": tokens,
            "minutes": (steps + evaluated) / 60,
            "flops": float(np.nansum(flops)),
            "tokens_per_second": tokens / steps if steps else 0.0,
            "peak_share": float(np.median(shares)) if len(shares) else 0.0,
            **self._planned_and_actual(),
        }

    def _planned_and_actual(self) -> dict[str, float]:
        expected = self.plan.get("expected")
        expected = expected if isinstance(expected, dict) else {}
        seconds, memory = expected.get("seconds"), expected.get("peak_memory_bytes")
        try:
            peak = read_json_object(self.folder / "status.json").get("peak_memory_bytes")
        except UserError:
            peak = None
        named = {
            "planned_minutes": seconds / 60 if is_number(seconds) else None,
            "peak_memory_bytes": peak,
            "planned_peak_memory_bytes": memory,
        }
        return {name: float(value) for name, value in named.items() if is_number(value)}

    def passed(self, level: float) -> dict[str, float] | None:
        """Return the first evaluation after which held-out bits per byte stayed below `level`."""
        first = None
        for line in reversed(self.evaluations):
            value = line.get("bits_per_byte")
            if value is None:  # a damaged line
                continue
            if not value < level:
                break
            first = line
        if first is None:
            return None
        return {
            "step": first["step"],
            "tokens": self._at_step(first["step"], self.tokens),
            "minutes": self._at_step(first["step"], self.seconds) / 60,
        }

    def gained(self, pools: Sequence[str]) -> dict[str, Curve]:
        """Return DPO's held-out preference accuracy during training, by `pools`, if measured."""
        found: dict[str, Curve] = {}
        lines = [line for line in self.evaluations if line.get("heldout_by_source")]
        for pool in pools:
            having = [line for line in lines if pool in line["heldout_by_source"]]
            if having and self.train:
                tokens = [self._at_step(line["step"], self.tokens) for line in having]
                values = [line["heldout_by_source"][pool]["estimate"] for line in having]
                name = HELDOUT["heldout_accuracy"]
                found[pool] = Curve(f"{name}, {pool}", np.array(tokens), np.array(values, float))
        return found

    def _at_step(self, step: int, values: Float[np.ndarray, " steps"]) -> float:
        """Return the value at the last logged step up to `step`; 0 before the first."""
        past = int(np.searchsorted(self._steps, step, side="right"))
        return float(values[past - 1]) if past else 0.0

    @cached_property
    def _steps(self) -> Int[np.ndarray, " steps"]:
        return np.array([line["step"] for line in self.train], int)

    def _of_steps(self, name: str) -> Float[np.ndarray, " steps"]:
        return np.array([line.get(name, np.nan) for line in self.train], float)


@lru_cache(maxsize=64)
def _hashes(path: Path, changed: int) -> frozenset[str]:
    """Return the hashes of a file or folder; `changed` is its modification time."""
    return recorded_hashes(path)


@cache
def _say_once(message: str) -> None:
    say(message)


def lineage(folder: Path) -> list[History]:
    """Return the training runs that led to a model, from the first to its own."""
    found: list[History] = []
    at: Path | None = folder
    while at is not None and at not in [one.folder for one in found]:
        history = History.of(at)
        if history is None:
            break
        found.insert(0, history)
        at = history.parent
    return found
