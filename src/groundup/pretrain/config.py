"""The settings of pre-training, without torch."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Self

from pydantic import Field, model_validator

from groundup.data.packs.manifest import GENERATED
from groundup.lm.config import ModelConfig
from groundup.train.config import TrainingConfig, Traits
from groundup.train.ranges import (
    Depth,
    Evaluations,
    FreshContext,
    Heads,
    ShareBelowOne,
    WeightDecay,
    Width,
)


class PretrainConfig(TrainingConfig):
    """Train a language model from nothing on documents.

    What is left unset is planned from `minutes` (or `depth`) and the speed of this machine, and
    shown with its reason before training starts.
    """

    traits: ClassVar[Traits] = Traits("documents", False, "bits_per_byte", 0.44)

    data: Path = Field(description="a data-stage folder, a text file or a folder of texts")
    tokenizer: Path = Field(description="folder of the tokenizer")
    depth: Depth | None = Field(None, description="layers (default: from minutes)")
    width: Width | None = Field(None, description="features per token (default: from depth)")
    heads: Heads | None = Field(None, description="attention heads (default: width / 64)")
    kv_heads: Heads | None = Field(None, description="key-value heads (default: heads / 3)")
    context: FreshContext = Field(256, description="tokens the model sees at once")
    mixture: dict[str, tuple[ShareBelowOne, ShareBelowOne]] = Field(
        {one.name: one.documents for one in GENERATED},
        description="share of the rows of a source or a generated set, beside the others, at first "
        "and at the end; it moves evenly in between: --mixture.world 0.7 0.15, in a recipe "
        "mixture = {world = [0.7, 0.15]}",
    )
    weight_decay: WeightDecay = Field(0.1, description="decoupled weight decay")
    evaluations: Evaluations = Field(
        8, description="how often held-out text is measured on the way"
    )
    prompt: str = Field(
        "The history of", description="what the sample at every evaluation continues"
    )

    @model_validator(mode="after")
    def _shares_leave_something(self) -> Self:
        if any(sum(shares) > 1 for shares in zip(*self.mixture.values(), strict=True)):
            raise ValueError(
                f"mixture={self.mixture} has shares of more than 1 together; give smaller ones"
            )
        return self

    @model_validator(mode="after")
    def _is_a_shape(self) -> Self:
        """Refuse a width that the heads do not divide, before anything is prepared."""
        if self.width is not None:
            ModelConfig.of(
                width=self.width,
                depth=self.depth or 1,
                vocab_size=64,
                context=self.context,
                heads=self.heads,
                kv_heads=self.kv_heads,
            )
        return self
