"""The settings that every training stage shares. Torch-free, so that --help answers at once."""

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
    Steps,
    Threads,
    WeightDecay,
)

Device = Literal["auto", "cpu", "cuda", "mps"]
DType = Literal["auto", "float32", "bfloat16"]
# Tokens of a forward and backward pass: more are no faster on CPUs and only take memory.
PASS_TOKENS = 4_096
# How settings are told that several configs have.
DEVICE = "where to compute (auto: cuda, else mps, else cpu)"
THREADS = "CPU threads (default: all cores)"
OPTIMIZER = "optimizer of the weight matrices; embeddings, norms and adapters always have AdamW"

# Read by the C library before Python starts, so the command line sets them and starts itself anew.
ENVIRONMENT = {
    # glibc hands large blocks back to the kernel after every step and page-faults them in again at
    # the next; these keep the pages.
    "MALLOC_MMAP_THRESHOLD_": "33554432",
    "MALLOC_TRIM_THRESHOLD_": "8589934592",
    "MALLOC_TOP_PAD_": "268435456",
    # A thread that waits for another spins first. Long spins beside any other busy program make two
    # threads slower than one; short ones cost nothing on a quiet machine.
    "GOMP_SPINCOUNT": "1000",
    # oneDNN keeps a compiled kernel for each of the last 1,024 shapes of a product, and so does
    # PyTorch. Answers come in many lengths: of 1.42 GB that a short PPO run took with the first of
    # the two set, 0.48 were of kernels that nobody asked for again.
    "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "128",
    "LRU_CACHE_CAPACITY": "128",
}
# The threads of NumPy's products cannot be told to wait quietly. The networks of the experiments
# are small, and beside a busy program one thread is many times as fast as two.
NUMPY_ENVIRONMENT = {"OPENBLAS_NUM_THREADS": "1"}


class StageConfig(BaseModel):
    """What every stage has: a folder to write and a seed."""

    # What checks values is built where one is made, and not for --help.
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, defer_build=True)
    # Settings of its kind that have no meaning here: refused with the reason, and not in --help.
    unused: ClassVar[frozenset[str]] = frozenset()

    out: Path = Field(description="the folder that this run writes")
    seed: Seed = Field(0, description="seed of everything random in this run")

    @field_validator("*")
    @classmethod
    def _of_home(cls, value: Any) -> Any:
        """A path that begins with ~, which a shell would have replaced by the home folder."""
        if isinstance(value, tuple):
            return tuple(map(cls._of_home, value))
        return Path(expanduser(value)) if isinstance(value, Path) else value


@dataclass(frozen=True)
class Traits:
    """What other parts must know of a training stage, written to run.json with every run of it.

    `reads` is the kind of rows it learns from, `chats` whether its model answers rather than
    continues a text, `measure` the held-out measure in metrics.jsonl (the lower, the better).
    `share` is its share of the time that a recipe plans for training, relative to that of other
    stages, and `in_steps` what optimizer steps get of it.
    """

    reads: Literal["documents", "conversations", "preferences", "prompts", "labels"]
    chats: bool
    measure: str
    share: float = 0.0
    in_steps: float = 1.0


NOTHING_TRAINED = Traits("documents", False, "")


class TrainingConfig(StageConfig):
    """What every training stage has. 'auto' is resolved once and written to plan.json."""

    traits: ClassVar[Traits] = Traits("documents", False, "heldout_loss")
    # The two answers of a pair are read in one pass, and each may be as long as the context.
    fewest_micro_rows: ClassVar[int] = 1

    minutes: Minutes | None = Field(
        None,
        description="minutes that training may take here, where steps do not say (default: no "
        "limit)",
    )
    steps: Steps | None = Field(
        None, description="optimizer steps (default: from minutes, else from epochs)"
    )
    epochs: Epochs = Field(
        1.0, description="passes over the data when neither steps nor minutes say"
    )
    rows: Rows = Field(16, description="rows of one context each in an optimizer step")
    micro_rows: Rows | None = Field(
        None,
        description="rows in one forward and backward pass, two at least where pairs are learned "
        "from; which preferences a step reads follows from it (default: as many as hold "
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
        description="peak learning rate of embeddings and gains, by AdamW (default: likewise)",
    )
    weight_decay: WeightDecay = Field(0.0, description="decoupled weight decay")
    warmup: Share = Field(0.02, description="share of the steps spent warming up")
    decay: Share = Field(0.5, description="share of the steps spent decaying to zero")
    evaluations: Evaluations = Field(
        4, description="how often held-out text is measured on the way"
    )
    patience: Evaluations | None = Field(
        None,
        description="evaluations in a row without a better one after which training ends; the "
        "best weights are kept (default: train to the end, keep the last)",
    )
    gradient_checkpointing: bool = Field(
        False, description="keep only each block's input and compute the rest again in backward"
    )
    gradient_clip: GradientClip = Field(1.0, description="largest gradient norm let through")
    save_every: Steps | None = Field(
        None, description="steps between checkpoints (default: about once a minute)"
    )
    device: Device = Field("auto", description=DEVICE)
    dtype: DType = Field("auto", description="compute type; bfloat16 where the processor has it")
    compile: Literal["auto", "on", "off"] = Field(
        "auto",
        description="compile the blocks instead of using our kernels (auto: where there are none "
        "for this processor, with a C++ compiler and over 5 minutes)",
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
        # Seen here, what was JSON is so no more, and a strict config takes no list for a tuple.
        is_named = isinstance(values, Mapping)
        return _as_tuples(current_settings(values, warns=True)) if is_named else values

    def micro(self, context: int) -> int:
        """Rows in one forward and backward pass."""
        # Each of the processes that share a step has a pass.
        most = min(self.rows // ranks.size(), PASS_TOKENS // context)
        if self.micro_rows is not None:
            most = min(self.rows, self.micro_rows)
        return max(self.fewest_micro_rows, most)

    @model_validator(mode="after")
    def _phases_fit_into_the_run(self) -> Self:
        if self.decay is not None and self.warmup + self.decay > 1:
            raise ValueError(
                f"warmup={self.warmup:g} and decay={self.decay:g} are shares of the same steps and "
                f"together more than 1; try decay={1 - self.warmup:g}"
            )
        return self


def _as_tuples(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _as_tuples(one) for name, one in value.items()}
    return tuple(map(_as_tuples, value)) if isinstance(value, list) else value
