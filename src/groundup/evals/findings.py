"""What the numbers say in words, each sentence with the interval that it rests on.

Two models are compared item by item, and a sentence holds only if the whole interval lies on its
side. What does not hold is said as plainly.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from groundup.evals.measured import POOLED, Measured
from groundup.evals.preference import length_margins, preference_accuracy, preference_gain
from groundup.evals.run import Evaluated

Verdict = Literal["yes", "no", "cannot be told"]


@dataclass(frozen=True)
class Finding:
    """A claim, and the measured difference that must lie below or above `level` for it."""

    claim: str
    measured: Measured
    unit: str
    wanted: Literal["below", "above"]
    level: float = 0.0

    @property
    def verdict(self) -> Verdict:
        """Whether the claim holds, its contrary does, or the interval allows both."""
        lower, higher = self.measured.high < self.level, self.measured.low > self.level
        if lower or higher:
            return "yes" if lower == (self.wanted == "below") else "no"
        return "cannot be told"

    def to_json(self) -> dict[str, Any]:
        return {
            "claim": self.claim,
            "verdict": self.verdict,
            "wanted": self.wanted,
            "level": self.level,
            "unit": self.unit,
            **self.measured.to_json(),
        }


def findings(models: Sequence[Evaluated]) -> list[Finding]:
    """Everything that the stages promise, put to the test."""
    by_folder = {model.folder.resolve(): model for model in models}
    found: list[Finding] = []
    for model in models:
        parent = None
        if model.history is not None and model.history.parent is not None:
            parent = by_folder.get(model.history.parent.resolve())
        if model.stage == "pretrain":
            found += _against_counting(model)
        if model.stage == "sft" and parent is not None:
            found += _after_tuning(model, parent)
        if model.stage == "dpo":
            found += _after_preferences(model, parent)
        if model.stage in ("sft", "dpo") and model.stops is not None:
            claim = f"{model.name} ends more than half of its answers by itself"
            found.append(Finding(claim, model.stops, "share of answers", "above", 0.5))
    return found


def _against_counting(model: Evaluated) -> Iterator[Finding]:
    for order, counted in sorted(model.material.ngrams.items()):
        difference = model.bits.minus(counted.bits)[POOLED]
        claim = f"{model.name} predicts held-out text better than {order}-gram counting"
        yield Finding(claim, difference, "bits per byte", "below")


def _after_tuning(model: Evaluated, parent: Evaluated) -> Iterator[Finding]:
    if model.loss is None or parent.loss is None or model.material is not parent.material:
        return
    difference = model.loss.minus(parent.loss)[POOLED]
    claim = f"{model.name} predicts the assistant's answers better than {parent.name}"
    yield Finding(claim, difference, "nats per token", "below")


def _after_preferences(model: Evaluated, parent: Evaluated | None) -> Iterator[Finding]:
    """By both of its preferences: its own log-probability, and the reward it was trained by."""
    pairs = model.material.pairs
    ways = {"own log-probability": model.margins}
    if model.margins is not None and model.reference_margins is not None:
        ways["implicit reward"] = model.margins - model.reference_margins
    for way, margins in ways.items():
        if margins is None:
            continue
        who = f"{model.name}'s {way}"
        accuracy = preference_accuracy(margins, pairs)[POOLED]
        yield Finding(f"{who} prefers better than chance", accuracy, "accuracy", "above", 0.5)
        gain = preference_gain(margins, length_margins(pairs), pairs)[POOLED]
        yield Finding(f"{who} prefers better than 'the longer answer'", gain, "accuracy", "above")
        if model.reference_margins is not None:
            name = parent.name if parent is not None else "its reference"
            gain = preference_gain(margins, model.reference_margins, pairs)[POOLED]
            claim = f"{who} prefers better than {name}'s log-probability"
            yield Finding(claim, gain, "accuracy", "above")


def passing(models: Sequence[Evaluated]) -> Mapping[str, Mapping[int, dict[str, float] | None]]:
    """For each pre-training run and n-gram order, when the run first came below counting.

    Compared on the very bytes that the run reads at its evaluations on the way.
    """
    return {
        model.name: {
            order: model.history.passed(counted.on_the_way)
            for order, counted in sorted(model.material.ngrams.items())
        }
        for model in models
        if model.history is not None and model.stage == "pretrain"
    }
