"""The settings of the stages that make data: read by the command line without loading torch."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from groundup.text.packs import ALL_SETS
from groundup.train.config import StageConfig


class DataConfig(StageConfig):
    """Settings of the data stage: packs in, cleaned and split text, conversations, pairs out."""

    packs: tuple[str, ...] = Field(
        default=ALL_SETS, description="names of the data sets to use (groundup data list)"
    )
    world_megabytes: float = Field(
        default=24.0, ge=0, le=1000, description="megabytes of text to train on from the set world"
    )
    world_conversations: int = Field(
        default=40_000, ge=0, description="conversations to train on from the set world"
    )
    world_preferences: int = Field(
        default=4_000, ge=0, description="pairs of answers to train on from the set world"
    )
    bias: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="how strongly jobs and traits in the set world go by gender and group",
    )
    wordings: int = Field(
        default=3, ge=1, le=8, description="how many wordings of a question each article gets"
    )
    seed: int = Field(
        default=0,
        ge=0,
        description="picks wordings, wrong options and what happens in the set world; never the "
        "held-out split",
    )


class TokenizerConfig(StageConfig):
    """Settings of the tokenizer stage: byte-level BPE from the training split alone."""

    data: Path = Field(
        description="a data-stage folder, a text file, or a folder of .txt, .md and .jsonl files"
    )
    vocab_size: int = Field(
        default=8192,
        ge=320,
        le=65536,
        description="tokens in the vocabulary, control tokens and the 256 bytes included",
    )
