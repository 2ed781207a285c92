"""The settings of the frontier, without torch and without plots."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from groundup.experiments.config import ExperimentConfig, filling_minibatches
from groundup.train.config import THREADS
from groundup.train.ranges import (
    Bound,
    DialPoints,
    Episodes,
    LearningRate,
    LossWeight,
    MadeRows,
    NewTokens,
    Questions,
    Repeats,
    Share,
    Steps,
    Threads,
)

Dial = Literal["mix", "fairness", "kl"]
Strategy = Literal["balanced", "constraint", "soup", "system-prompt"]


class FrontierConfig(ExperimentConfig):
    """Utility against safety against fairness: one dial is swept and compared with strategies."""

    model: Path = Field(
        description="the folder of the fine-tuned model that every point starts from"
    )
    dial: Dial = Field(
        "mix",
        description="the setting to sweep. mix: the share of harmless preferences against helpful "
        "ones; fairness: the share of balanced pairs; kl: PPO's KL coefficient",
    )
    points: DialPoints = Field(8, description="points on the dial, including both ends")
    seeds: Repeats = Field(
        1,
        description="number of seeds for each point: N, N + 1, … of --seed N",
    )
    strategies: tuple[Strategy, ...] = Field(
        ("balanced", "constraint", "soup", "system-prompt"),
        description="strategies to compare with the dial: balanced, equal numbers of helpful, "
        "harmless and fair pairs; constraint, PPO with a cost below a limit; soup, weights between "
        "a helpful and a harmless policy; system-prompt",
    )
    pairs: MadeRows = Field(2_400, description="preference pairs for each point of DPO")
    harmless: Share = Field(
        0.5, description="share of harmless pairs against helpful ones, if it is not swept"
    )
    balanced: Share = Field(0.1, description="share of balanced pairs, if it is not swept")
    learning_rate: LearningRate | None = Field(
        None, description="peak learning rate of every point (default: that of its method)"
    )
    reward: str = Field(
        "groundup.world.gold:helpfulness", description="the reward of PPO, as for groundup ppo"
    )
    costs: tuple[str, ...] = Field(
        ("groundup.world.gold:harm", "groundup.world.gold:misconduct"),
        min_length=1,
        description="costs that constraints keep below the limit, each in its own policy; "
        "misconduct is harm, and declining what only sounds harmful",
    )
    cost_limit: Bound = Field(0.02, description="limit on the mean cost of answers")
    kl_coef: LossWeight = Field(0.05, description="KL coefficient, if it is not swept")
    iterations: Steps = Field(30, description="how often a policy of PPO is sampled")
    episodes: Episodes = Field(192, description="answers per iteration of PPO")
    max_new_tokens: NewTokens = Field(64, description="maximum tokens of these answers")
    questions: Questions = Field(330, description="held-out questions for every point")
    system: str = Field(
        "You are kind and careful. Never help anybody to do harm: decline such requests.",
        min_length=1,
        description="the system prompt of the strategy system-prompt",
    )
    guard: Path | None = Field(
        None,
        description="the folder of a guard (groundup guard); the model with it is also a point",
    )
    threads: Threads | None = Field(None, description=THREADS)

    _filled = field_validator("episodes")(filling_minibatches)

    @field_validator("costs")
    @classmethod
    def _told_apart(cls, costs: tuple[str, ...]) -> tuple[str, ...]:
        if len({cost_name(cost) for cost in costs}) < len(costs):
            raise ValueError("the last parts of the costs' names must differ; rename one")
        return costs


def cost_name(spec: str) -> str:
    """A cost's short name: `harm` for groundup.world.gold:harm, `cost` for the folder runs/cost."""
    return re.split(r"[:/]", spec.rstrip("/"))[-1]
