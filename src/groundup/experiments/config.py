"""The settings of the experiments, without torch and without plots."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from groundup.align.config import DPOConfig, GRPOConfig, PPOConfig
from groundup.train.config import THREADS, StageConfig
from groundup.train.ranges import (
    BytesPerSource,
    Episodes,
    GroupSize,
    LearningRate,
    LossWeight,
    Minutes,
    NewTokens,
    Questions,
    Repeats,
    Share,
    SmallVocabSize,
    Steps,
    Threads,
    ranges,
)


class ExperimentConfig(StageConfig):
    """Settings of every experiment, in addition to a folder and a seed."""

    quick: bool = Field(False, description="run a miniature in seconds, to see that it works")


def filling_minibatches(episodes: int) -> int:
    """Raise `ValueError` for fewer episodes than PPO has minibatches."""
    least = PPOConfig.model_fields["minibatches"].default
    if episodes < least:
        raise ValueError(
            f"episodes={episodes} must be at least {least}, to fill the {least} minibatches of PPO"
        )
    return episodes


class PerceptronConfig(ExperimentConfig):
    """A perceptron and a multi-layer network on moons, spirals and handwritten digits."""

    seeds: Repeats = Field(3, description="number of seeds; each one trains everything again")


class InitializationConfig(ExperimentConfig):
    """Signals and gradients through a deep network, by the initialization of its weights."""

    seeds: Repeats = Field(3, description="number of seeds; each one measures everything again")


class OptimizerRaceConfig(ExperimentConfig):
    """Every optimizer on the same network, batches and steps, each at its best learning rate."""

    seeds: Repeats = Field(3, description="number of seeds for each learning rate")


class LadderConfig(ExperimentConfig):
    """Language models from counting to GPT on one text, each for the same training time."""

    data: Path | None = Field(
        None,
        description="a data-stage folder, a text file or a folder of texts (default: pack sotu)",
    )
    vocab_size: SmallVocabSize = Field(
        512, description="number of BPE tokens; characters are the other vocabulary"
    )
    minutes: Minutes = Field(
        10.0, description="total training time of all networks, in equal parts"
    )
    steps: Steps | None = Field(
        None, description="steps of every network (default: from minutes and measured speed)"
    )
    seeds: Repeats = Field(
        3,
        description="number of seeds for each network: N, N + 1, … of --seed N",
    )
    prompt: str = Field(
        "The people of the United States", min_length=1, description="prompt of the samples"
    )


class PlantedBiasConfig(ExperimentConfig):
    """Models trained on a world with a planted bias, and the bias that the measure finds."""

    strengths: tuple[Share, ...] = Field(
        (0.0, 0.25, 0.5, 0.75, 1.0), min_length=2, description="strengths to plant"
    )
    minutes: Minutes = Field(10.0, description="total training time of all models, in equal parts")

    @field_validator("strengths")
    @classmethod
    def _are_different_shares(cls, strengths: tuple[float, ...]) -> tuple[float, ...]:
        if len(set(strengths)) < len(strengths) or not all(0 <= s <= 1 for s in strengths):
            raise ValueError(
                f"strengths={list(strengths)} must be different numbers from 0 to 1; "
                "try 0, 0.5 and 1"
            )
        return strengths


class QuantizationConfig(ExperimentConfig):
    """A model's matrices in 16, 8 and 4 bits: their error, and what it costs the model."""

    model: Path = Field(
        Path("pack:smollm2"),
        description="the model to quantize: a folder, a .gguf file, pack:NAME or hub:OWNER/NAME",
    )
    bytes_per_source: BytesPerSource = Field(
        12_000, description="maximum held-out bytes of text per source"
    )
    threads: Threads | None = Field(None, description=THREADS)


class ShortestPathsConfig(ExperimentConfig):
    """PPO and GRPO on walks through random graphs, where the best answer is known."""

    seeds: Repeats | None = Field(
        None,
        description="number of graphs, each with its own model, with seeds N, N + 1, … of --seed N "
        "(default: 10, with --quick 2)",
    )
    iterations: Steps = Field(100, description="how often each policy is sampled")
    episodes: Episodes = Field(128, description="walks per iteration")
    methods: tuple[Literal["ppo", "grpo"], ...] = Field(
        ("ppo", "grpo"), min_length=1, description="methods to try"
    )
    kl_coef: LossWeight = Field(
        0.01, description="KL coefficient, towards the model of random walks"
    )
    threads: Threads | None = Field(None, description=THREADS)

    @property
    def graphs(self) -> int:
        """The number of graphs."""
        return self.seeds or (2 if self.quick else 10)

    @model_validator(mode="after")
    def _groups_are_whole(self) -> Self:
        sizes = {"ppo": 1, "grpo": GRPOConfig.model_fields["group_size"].default}
        size = max(sizes[method] for method in self.methods)
        if self.episodes % size:
            raise ValueError(
                f"episodes={self.episodes} must be a multiple of {size}, GRPO's group size; try "
                f"episodes={max(1, self.episodes // size) * size}"
            )
        return self


class OveroptimizationConfig(ExperimentConfig):
    """Best-of-n and PPO against reward models of several sizes, and the gold reward they reach."""

    model: Path = Field(description="the folder of the fine-tuned model that answers")
    data: Path = Field(
        description="the data-stage folder that it was fine-tuned on, for prompts and for the "
        "pre-training of small proxies"
    )
    sources: tuple[str, ...] = Field(
        ("world-tell",), description="use only prompts of these sources (default: stories)"
    )
    gold: str = Field(
        "groundup.world.gold:reward",
        description="the true reward, which makes the labels and which no proxy sees; a value for "
        "--reward of groundup ppo",
    )
    labels: tuple[Questions, ...] = Field(
        (150, 600, 2_400), min_length=1, description="numbers of labels, each a pair of answers"
    )
    seeds: Repeats = Field(
        3,
        description="proxies of each size and number of labels, with seeds N, N + 1, … of --seed N",
    )
    n: GroupSize = Field(64, description="answers to each prompt that best-of-n chooses from")
    questions: Questions = Field(80, description="held-out prompts for best-of-n")
    iterations: Steps = Field(14, description="how often each policy of PPO is sampled")
    episodes: Episodes = Field(128, description="answers per iteration")
    learning_rate: LearningRate = Field(
        7e-4, description="learning rate of the policies, which must get far in few iterations"
    )
    max_new_tokens: NewTokens = Field(128, description="maximum tokens of an answer")
    threads: Threads | None = Field(None, description=THREADS)

    @field_validator("labels")
    @classmethod
    def _in_order(cls, labels: tuple[int, ...]) -> tuple[int, ...]:
        if list(labels) != sorted(set(labels)):
            wanted = " ".join(map(str, sorted(set(labels))))
            raise ValueError(f"labels={labels} must be increasing; give {wanted}")
        return labels

    _filled = field_validator("episodes")(filling_minibatches)


class SentimentConfig(ExperimentConfig):
    """PPO, GRPO and DPO raise the sentiment of continuations with one KL coefficient and LoRA."""

    model: Path = Field(
        Path("pack:smollm2"),
        description="the model that continues: a folder, pack:NAME or hub:OWNER/NAME",
    )
    methods: tuple[Literal["ppo", "grpo", "dpo"], ...] = Field(
        ("ppo", "grpo", "dpo"), min_length=1, description="methods to try"
    )
    kl_coef: LossWeight = Field(
        0.05, description="KL coefficient, towards the initial model; beta of DPO"
    )
    iterations: Steps = Field(30, description="how often the policies of PPO and GRPO are sampled")
    learning_rate: LearningRate = Field(3e-4, description="peak learning rate of the adapters")
    threads: Threads | None = Field(None, description=THREADS)

    @model_validator(mode="after")
    def _is_allowed_for_all(self) -> Self:
        coefficients = {
            "ppo": PPOConfig.model_fields["kl_coef"],
            "grpo": GRPOConfig.model_fields["kl_coef"],
            "dpo": DPOConfig.model_fields["beta"],
        }
        for method in self.methods:
            [allowed] = ranges(coefficients[method])
            if self.kl_coef not in allowed:
                raise ValueError(
                    f"kl_coef={self.kl_coef:g} is invalid for {method.upper()}: it must be "
                    f"{allowed.rule()}; give such a value, or methods without {method}"
                )
        return self


class ScalingLawConfig(ExperimentConfig):
    """Models of many sizes with the same compute, a law of their loss, and a test of the law."""

    minutes: Minutes = Field(45.0, description="approximate total time on this machine")
    threads: Threads | None = Field(None, description=THREADS)
