"""The settings of the guard stage, without torch."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from groundup.data.files import ROW_KINDS
from groundup.train.config import OPTIMIZER, Traits
from groundup.train.ranges import Questions, Share, ShareOfRows
from groundup.tune.config import TuningConfig


class GuardConfig(TuningConfig):
    """A guard: a filter of messages and answers, learned from what is called harmful or not."""

    traits: ClassVar[Traits] = Traits("labels", False, "guard_loss", 0.1)

    model: Path = Field(description="the folder of the fine-tuned model whose body it starts from")
    data: Path = Field(
        description=f"a data-stage folder, or a {ROW_KINDS} file of prompts, with or without an "
        "answer, each with a label (true: harmful)"
    )
    false_positives: ShareOfRows = Field(
        0.05,
        description="share of benign messages that it may stop, and of benign answers; its "
        "thresholds are set by it",
    )
    examples: Questions = Field(
        1000,
        description="rows of each source and kind that are learned from, at most; a tenth of it of "
        "sources that hold nothing harmful",
    )
    optimizer: Literal["muon", "adamw"] = Field("adamw", description=OPTIMIZER)
    warmup: Share = Field(0.05, description="share of the steps spent warming up")
    decay: Share = Field(0.9, description="share of the steps spent decaying to zero")
