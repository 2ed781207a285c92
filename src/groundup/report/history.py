"""What a run folder says of how its model came to be: lineage, curves and costs."""

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
from groundup.runs.files import is_kept, is_number, read_json_object, read_kept
from groundup.runs.folder import is_metric, kept_hashes, read_metrics, read_run

# What each training stage measures on held-out material on the way, and what it is called.
HELDOUT = {
    "bits_per_byte": "held-out bits per byte",
    "heldout_loss": "held-out loss, nats per token",
    "heldout_accuracy": "held-out preference accuracy",
}

_POINTS_KEPT = 400


def heldout_names(own: str | None) -> dict[str, str]:
    """What may be measured on held-out material, by its key; a stage's own measure comes last."""
    return HELDOUT if own in (None, *HELDOUT) else HELDOUT | {str(own): str(own).replace("_", " ")}


@dataclass(frozen=True)
class Curve:
    """Values over the training tokens read before each."""

    name: str
    tokens: Float[np.ndarray, " points"]
    values: Float[np.ndarray, " points"]

    def to_json(self) -> dict[str, list[float]]:
        """At most 400 of its points, evenly; a run's metrics.jsonl has all of them."""
        last = len(self.tokens) - 1
        kept = np.unique(np.linspace(0, last, min(_POINTS_KEPT, last + 1)).astype(int))
        return {"tokens": self.tokens[kept].tolist(), "values": self.values[kept].tolist()}


@dataclass(frozen=True)
class History:
    """A run folder's own records; `of` gives None for a model from elsewhere.

    `run` and `plan` are run.json and plan.json, `train` and `evaluations` the lines of
    metrics.jsonl by kind, which are read when somebody asks for them: a long run has many. Who has
    read them gives the `lines`.
    """

    folder: Path
    run: dict[str, Any]
    plan: dict[str, Any]
    lines: Sequence[dict[str, Any]] | None = None

    @staticmethod
    def of(folder: Path) -> History | None:
        """Read a finished training run's folder; what is damaged in it is left out, and said."""
        files = [folder / name for name in ("run.json", "plan.json", "metrics.jsonl")]
        if not (is_kept(files[0]) and files[2].is_file()):
            return None
        try:
            run = read_run(folder)
        except UserError as error:
            _tell_once(f"{error}; how the model in {folder} came to be is left out")
            return None
        plan: dict[str, Any] = {}
        try:
            plan = read_kept(files[1], dict)
        except UserError as error:
            _tell_once(f"{error}; what training by it cost is left out")
        return History(folder, run, plan)

    @cached_property
    def _lines(self) -> list[dict[str, Any]]:
        if self.lines is not None:
            return [line for line in self.lines if is_metric(line)]
        return read_metrics(self.folder / "metrics.jsonl")

    @cached_property
    def train(self) -> list[dict[str, Any]]:
        # A step that was skipped for a bad gradient read nothing and has no loss.
        return [line for line in self._lines if line["kind"] == "train" and "loss" in line]

    @cached_property
    def evaluations(self) -> list[dict[str, Any]]:
        return [line for line in self._lines if line["kind"] == "evaluation"]

    @property
    def stage(self) -> str:
        return str(self.run["stage"])

    @property
    def chats(self) -> bool:
        """Whether the run taught its model to answer; of an unknown stage that is assumed."""
        return bool(self.run.get("traits", {}).get("chats", True))

    @property
    def reads(self) -> str | None:
        """The kind of rows that the run learned from: documents, conversations, preferences …"""
        found = self.run.get("traits", {}).get("reads")
        return found if isinstance(found, str) else None

    @property
    def measure(self) -> str | None:
        """The key of the stage's held-out measure in metrics.jsonl."""
        found = self.run.get("traits", {}).get("measure")
        return found if isinstance(found, str) else None

    @property
    def parent(self) -> Path | None:
        """The model this one was trained from."""
        described = self.run["parents"].get("model")
        if described is None:
            return None
        return self.beside(described["path"])

    def beside(self, named: str) -> Path:
        """A file or folder that run.json names, wherever it stands by now.

        Runs of one recipe stand side by side, also after the whole was moved elsewhere. Where the
        name is seen from another folder, something else may have it: then what has the content that
        the run was begun from counts.
        """
        path, beside = Path(named), self.folder.parent
        # The last parts of the name, as few as lead to something: data, data/documents/train.jsonl.
        parts = [part for part in path.parts if part not in (path.anchor, "..")]
        tails = [beside.joinpath(*parts[-count:]) for count in range(1, len(parts) + 1)]
        near = next(filter(os.path.exists, tails), beside / path.name)
        # Of a name that is none, such as one too long, os.path says that there is no such file.
        if not (os.path.exists(path) and os.path.exists(near)) or path.samefile(near):
            return path if os.path.exists(path) else near
        hashes = {one["path"]: one.get("sha256") for one in self.run["parents"].values()}
        with contextlib.suppress(OSError):  # damaged: then the name alone says
            status = near / "status.json"
            changed = (status if status.exists() else near).stat().st_mtime_ns
            return near if hashes.get(named) in _hashes(near, changed) else path
        return path

    def planned(self, name: str) -> float | None:
        """A number of the plan; None where it does not say."""
        value = self.plan.get(name)
        return float(value) if is_number(value) else None

    def reason(self, name: str) -> str:
        """What the plan says of a decision; nothing where it does not say."""
        reasons = self.plan.get("reasons")
        return str(reasons.get(name, "")) if isinstance(reasons, dict) else ""

    def setting(self, name: str) -> float | None:
        """A number of the run's settings; None where they do not say."""
        value = self.run["config"].get(name)
        return float(value) if is_number(value) else None

    @cached_property
    def tokens(self) -> Float[np.ndarray, " steps"]:
        """Tokens read up to and with each logged step."""
        return np.array([line["tokens"] for line in self.train], float)

    @cached_property
    def seconds(self) -> Float[np.ndarray, " steps"]:
        """Seconds spent in training steps up to and with each; evaluations and saves apart."""
        return np.cumsum(self._of_steps("seconds"))

    def loss(self) -> Curve:
        """Training loss, step by step."""
        return Curve("training loss", self.tokens, self._of_steps("loss"))

    def learning_rate(self) -> Curve:
        return Curve("learning rate", self.tokens, self._of_steps("learning_rate"))

    def heldout(self, *, own: bool = False) -> Curve | None:
        """What the stage measured on held-out material on the way, if it did.

        By its `own` measure, too, if that is none of those that models are compared by.
        """
        for key, name in heldout_names(self.measure if own else None).items():
            lines = [line for line in self.evaluations if is_number(line.get(key))]
            if lines and self.train:
                tokens = [self._at_step(line["step"], self.tokens) for line in lines]
                return Curve(name, np.array(tokens), np.array([line[key] for line in lines], float))
        return None

    def costs(self) -> dict[str, float]:
        """Steps, tokens, minutes, FLOPs, and the median share of the best products' speed.

        With `planned_minutes`, `peak_memory_bytes` and `planned_peak_memory_bytes` where the run
        says so: what was expected beside what it came to.
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
            **self._beside_plan(),
        }

    def _beside_plan(self) -> dict[str, float]:
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
        """The first evaluation from which on held-out bits per byte were below `level`, if any."""
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
        """DPO's held-out preferences on the way, by `pools`; empty where none were measured."""
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
        """The value at the last logged step up to `step`; 0 before the first."""
        past = int(np.searchsorted(self._steps, step, side="right"))
        return float(values[past - 1]) if past else 0.0

    @cached_property
    def _steps(self) -> Int[np.ndarray, " steps"]:
        return np.array([line["step"] for line in self.train], int)

    def _of_steps(self, name: str) -> Float[np.ndarray, " steps"]:
        return np.array([line.get(name, np.nan) for line in self.train], float)


@lru_cache(maxsize=64)
def _hashes(path: Path, changed: int) -> frozenset[str]:
    """The hashes of a file or folder as it was left at that time."""
    return kept_hashes(path)


@cache
def _tell_once(message: str) -> None:
    say(message)


def lineage(folder: Path) -> list[History]:
    """The training runs that led to a model, from the first to its own."""
    found: list[History] = []
    at: Path | None = folder
    while at is not None and at not in [one.folder for one in found]:
        history = History.of(at)
        if history is None:
            break
        found.insert(0, history)
        at = history.parent
    return found
