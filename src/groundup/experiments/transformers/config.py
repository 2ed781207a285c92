"""The settings of the experiments with transformers, without torch and without plots."""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator

from groundup.experiments.config import ExperimentConfig
from groundup.train.config import THREADS
from groundup.train.ranges import Minutes, Repeats, Steps, Threads


class TransformerExperimentConfig(ExperimentConfig):
    """Settings of all these experiments: seeds, each with its own model, and threads."""

    seeds: Repeats = Field(
        3,
        description="number of seeds for each model: N, N + 1, … of --seed N; 1 with --quick",
    )
    threads: Threads | None = Field(None, description=THREADS)

    @property
    def all_seeds(self) -> list[int]:
        """The seeds of each kind of model."""
        return [self.seed + n for n in range(self.seeds)]

    @model_validator(mode="before")
    @classmethod
    def _one_seed_of_the_miniature(cls, given: dict[str, Any]) -> dict[str, Any]:
        return given | {"seeds": 1} if given.get("quick") else given


class RecallConfig(TransformerExperimentConfig):
    """Associative recall: attention against recurrent networks of one to four times its width."""

    steps: Steps = Field(1_500, description="steps of each recurrent network")
    attention_steps: Steps = Field(600, description="steps of each transformer, which learns early")


class InductionConfig(TransformerExperimentConfig):
    """Attention-only models of one and two layers, on repeated blocks of random tokens."""

    steps: Steps = Field(600, description="steps of each model")


class CopyingConfig(TransformerExperimentConfig):
    """Copies of strings of random letters, and of strings longer than any in training."""

    steps: Steps = Field(500, description="steps of each model")


class PositionsConfig(TransformerExperimentConfig):
    """Five position encodings, in windows and strings longer than those of training."""

    steps: Steps = Field(400, description="steps of each model on the small world's stories")
    copying_steps: Steps = Field(500, description="steps of each model on strings to copy")


class AttentionCostConfig(TransformerExperimentConfig):
    """Multi-head, grouped-query, multi-query and windowed attention: loss, cache and speed."""

    steps: Steps = Field(100, description="steps of each model on the small world's stories")


class OptimizersConfig(TransformerExperimentConfig):
    """AdamW and Muon on one model, each at the best of several learning rates."""

    steps: Steps = Field(400, description="steps of each model on the small world's stories")


class ScalabilityConfig(TransformerExperimentConfig):
    """LSTM and GPT of four sizes on two texts: loss by compute, time and position, and costs."""

    minutes: Minutes = Field(
        40.0, description="total time on this machine; texts and timings take at least 5"
    )
