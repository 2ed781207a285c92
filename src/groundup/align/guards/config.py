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
    """A guard: a filter of messages and answers, trained on examples labeled harmful or not."""

    traits: ClassVar[Traits] = Traits("labels", False, "guard_loss", 0.1)

    model: Path = Field(description="the folder of the fine-tuned model that training starts from")
    data: Path = Field(
        description=f"a data-stage folder, or a {ROW_KINDS} file of prompts, with or without an "
        "answer, each with a label (true: harmful)"
    )
    false_positives: ShareOfRows = Field(
        0.05,
        description="share of benign messages, and of benign answers, that it may stop; this sets "
        "its thresholds",
    )
    examples: Questions = Field(
        1000,
        description="maximum number of training rows of each source and kind; a tenth of it for "
        "sources without harmful rows",
    )
    optimizer: Literal["muon", "adamw"] = Field("adamw", description=OPTIMIZER)
    warmup: Share = Field(0.05, description="share of the steps spent warming up")
    decay: Share = Field(0.9, description="share of the steps spent decaying to zero")
