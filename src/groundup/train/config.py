"""The settings that all training stages share. Does not import torch, so that --help is fast."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from os.path import expanduser
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from groundup.deprecated import current_settings
from groundup.runs import ranks
from groundup.train.ranges import (
    Epochs,
    Evaluations,
    GradientClip,
    LearningRate,
    Minutes,
    Rows,
    Seed,
    Share,
    ShareBelowOne,
    Steps,
    Threads,
    WeightDecay,
)

Device = Literal["auto", "cpu", "cuda", "mps"]
DType = Literal["auto", "float32", "bfloat16"]
# Tokens of a forward and backward pass: more are no faster on CPUs and take more memory.
PASS_TOKENS = 4_096
# Descriptions of settings that several configs share.
DEVICE = "where to compute (auto: cuda, else mps, else cpu)"
THREADS = "CPU threads (default: all cores)"
OPTIMIZER = "optimizer of the weight matrices; embeddings, norms and adapters always use AdamW"

# The C library reads these before Python starts, so the command line sets them and restarts itself.
ENVIRONMENT = {
    # By default glibc returns large blocks to the kernel after every step and page-faults them in
    # again at the next; these settings keep the pages.
    "MALLOC_MMAP_THRESHOLD_": "33554432",
    "MALLOC_TRIM_THRESHOLD_": "8589934592",
    "MALLOC_TOP_PAD_": "268435456",
    # A waiting thread spins first. Next to another busy program, long spins make two threads slower
    # than one; short spins cost nothing on an idle machine.
    "GOMP_SPINCOUNT": "1000",
    # oneDNN and PyTorch each cache compiled kernels for the last 1,024 shapes of matrix products.
    # Answers have many lengths: of the 1.42 GB that a short PPO run took with only the first of the
    # two set, 0.48 GB were kernels that were never used again.
    "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "128",
    "LRU_CACHE_CAPACITY": "128",
}
# The threads of NumPy's products always spin while they wait. The networks of the experiments are
# small, and next to a busy program one thread is many times as fast as two.
NUMPY_ENVIRONMENT = {"OPENBLAS_NUM_THREADS": "1"}


class StageConfig(BaseModel):
    """The settings of every stage: a folder to write and a seed."""

    # `defer_build` builds the validator only when a config is created, not for --help.
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, defer_build=True)
    # Inherited settings that do not apply: refused with the reason, and not in --help.
    unused: ClassVar[frozenset[str]] = frozenset()

    out: Path = Field(description="the folder that this run writes")
    seed: Seed = Field(0, description="seed of all random numbers in this run")

    @field_validator("*")
    @classmethod
    def _expand_home(cls, value: Any) -> Any:
        """Replace a leading ~ in paths by the home folder, as a shell does."""
        if isinstance(value, tuple):
            return tuple(map(cls._expand_home, value))
        return Path(expanduser(value)) if isinstance(value, Path) else value


@dataclass(frozen=True)
class Traits:
    """Properties of a training stage for other modules, written to run.json with every run.

    `reads` is the kind of rows it learns from, `chats` whether its model answers rather than
    continues a text, `measure` the held-out measure in metrics.jsonl (lower is better). `share` is
    its share of a recipe's training time, relative to other stages, and `in_steps` the part of that
    time spent in optimizer steps.
    """

    reads: Literal["documents", "conversations", "preferences", "prompts", "labels"]
    chats: bool
    measure: str
    share: float = 0.0
    in_steps: float = 1.0


UNTRAINED = Traits("documents", False, "")


DecayShape = Literal["linear", "cosine"]


class TrainingConfig(StageConfig):
    """The settings of every training stage. 'auto' is resolved once and written to plan.json."""

    traits: ClassVar[Traits] = Traits("documents", False, "heldout_loss")
    # Stages on pairs need 2: both answers are read in one pass, each as long as the context.
    fewest_micro_rows: ClassVar[int] = 1

    minutes: Minutes | None = Field(
        None,
        description="minutes that training may take here, unless steps are given (default: no "
        "limit)",
    )
    steps: Steps | None = Field(
        None, description="optimizer steps (default: from minutes, else from epochs)"
    )
    epochs: Epochs = Field(
        1.0, description="passes over the data if neither steps nor minutes are given"
    )
    rows: Rows = Field(16, description="rows of one context each in an optimizer step")
    micro_rows: Rows | None = Field(
        None,
        description="rows in one forward and backward pass, at least two for pairs; for "
        "preferences it also decides which of them a step reads (default: as many as hold "
        f"{PASS_TOKENS:,} tokens, at most a process's part of the rows)",
    )
    optimizer: Literal["muon", "adamw"] = Field("muon", description=OPTIMIZER)
    learning_rate: LearningRate | None = Field(
        None,
        description="peak learning rate of the matrices (default: by the stage, the model's size "
        "and what is trained)",
    )
    embedding_learning_rate: LearningRate | None = Field(
        None,
        description="peak learning rate of embeddings and gains, with AdamW (default: likewise)",
    )
    weight_decay: WeightDecay = Field(0.0, description="decoupled weight decay")
    adam_beta1: ShareBelowOne = Field(
        0.9, description="share of AdamW's mean of gradients that a step keeps"
    )
    adam_beta2: ShareBelowOne = Field(
        0.95, description="share of AdamW's mean of squared gradients that a step keeps"
    )
    warmup: Share = Field(0.02, description="share of the steps spent warming up")
    decay: Share = Field(0.5, description="share of the steps spent decaying")
    decay_shape: DecayShape = Field(
        "linear", description="how the learning rate decays: by a line or by half a cosine"
    )
    decay_to: Share = Field(
        0.0, description="learning rate at the end of the decay, as a share of the peak"
    )
    evaluations: Evaluations = Field(
        4, description="number of evaluations on held-out text during training"
    )
    patience: Evaluations | None = Field(
        None,
        description="training ends after this many evaluations in a row without improvement; the "
        "best weights are kept (default: train to the end, keep the last)",
    )
    gradient_checkpointing: bool = Field(
        False, description="keep only each block's input and recompute the rest in backward"
    )
    gradient_clip: GradientClip = Field(1.0, description="largest gradient norm before clipping")
    save_every: Steps | None = Field(
        None, description="steps between checkpoints (default: about once a minute)"
    )
    device: Device = Field("auto", description=DEVICE)
    dtype: DType = Field(
        "auto", description="compute dtype (auto: bfloat16 if the processor supports it)"
    )
    compile: Literal["auto", "on", "off"] = Field(
        "auto",
        description="compile the blocks instead of using our kernels (auto: if there are no "
        "kernels for this processor, but a C++ compiler, and training takes over 5 minutes)",
    )
    threads: Threads | None = Field(None, description=THREADS)
    allow_inexact_resume: bool = Field(
        False,
        description="continue although torch, the device, the accelerator, dtype, compile mode, "
        "kernels, threads or the number of processes changed",
    )

    @model_validator(mode="before")
    @classmethod
    def _names_of_earlier_releases(cls, values: Any) -> Any:
        # After this validator JSON input counts as Python input, and strict configs then refuse
        # lists for tuples.
        is_named = isinstance(values, Mapping)
        return _as_tuples(current_settings(values, warns=True)) if is_named else values

    def micro(self, context: int) -> int:
        """Rows in one forward and backward pass."""
        # Each process that shares a step needs at least one pass.
        most = min(self.rows // ranks.size(), PASS_TOKENS // context)
        if self.micro_rows is not None:
            most = min(self.rows, self.micro_rows)
        return max(self.fewest_micro_rows, most)

    @model_validator(mode="after")
    def _phases_fit_into_the_run(self) -> Self:
        if self.decay is not None and self.warmup + self.decay > 1:
            raise ValueError(
                f"warmup={self.warmup:g} and decay={self.decay:g} are shares of the same steps, "
                f"and their sum exceeds 1; try decay={1 - self.warmup:g}"
            )
        return self


def _as_tuples(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _as_tuples(one) for name, one in value.items()}
    return tuple(map(_as_tuples, value)) if isinstance(value, list) else value
