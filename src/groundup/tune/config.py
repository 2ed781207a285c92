"""The settings of supervised fine-tuning, without torch."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from groundup.train.config import TrainingConfig


class SFTConfig(TrainingConfig):
    """Supervised fine-tuning: a model learns to answer in the assistant's role."""

    model: Path = Field(description="folder of the model to start from")
    data: Path = Field(
        description="a data-stage folder, or a .jsonl or .parquet file of conversations"
    )
    epochs: float = Field(
        2.0, gt=0, description="passes over the conversations when neither steps nor minutes say"
    )
    balance: float = Field(
        0.7,
        ge=0,
        le=1,
        description="0 takes sources as large as they are, 1 gives every source the same say",
    )
    prompt_weight: float = Field(
        0.0,
        ge=0,
        le=1,
        description="weight in the loss of what the assistant did not say: the user's turns and "
        "the template's tokens",
    )
    chained: float = Field(
        0.0,
        ge=0,
        le=1,
        description="share of conversations that go on from another, as the turns of a long chat",
    )
    world: float = Field(
        0.75,
        ge=0,
        lt=1,
        description="share of the conversations that are the small world's, where there are both",
    )
    learning_rate: float = Field(0.01, gt=0, description="peak learning rate of the matrices")
    embedding_learning_rate: float = Field(
        0.003, gt=0, description="peak learning rate of embeddings and gains (AdamW)"
    )
    decay: float = Field(0.8, ge=0, le=1, description="share of the steps spent decaying to zero")
