"""The settings of the alignment stages, without torch."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from groundup.adapters.config import TuningConfig
from groundup.train.config import Traits
from groundup.train.ranges import Beta, LossWeight, Share


class DPOConfig(TuningConfig):
    """Direct preference optimisation: raise what people prefer over what they do not."""

    # A quarter of the time goes into what the reference thinks of each pair.
    traits: ClassVar[Traits] = Traits("preferences", True, "preference_loss", 0.12, in_steps=0.75)

    model: Path = Field(description="folder of the fine-tuned model: start and reference alike")
    data: Path = Field(
        description="a data-stage folder, a .jsonl, .csv or .parquet file of pairs, or the votes "
        "of groundup label"
    )
    beta: Beta = Field(0.1, description="how dearly moving away from the reference is paid")
    nll: LossWeight = Field(
        1.0, description="weight of the chosen answer's own loss; 0 is plain DPO"
    )
    # Muon follows every direction of a gradient equally far, and so forgets how to speak while it
    # learns to prefer; AdamW at a small rate does not.
    optimizer: Literal["muon", "adamw"] = Field(
        "adamw", description="what trains the matrices; AdamW trains the rest either way"
    )
    warmup: Share = Field(0.1, description="share of the steps spent warming up")
