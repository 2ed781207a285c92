"""The settings of the stages that make data: read by the command line without loading torch."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from groundup.text.packs import ALL_SETS


class DataConfig(BaseModel):
    """Settings of the data stage: packs in, cleaned and split text, conversations, pairs out."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    out: Path = Field(description="folder to write the data to")
    packs: tuple[str, ...] = Field(
        default=ALL_SETS, description="names of the data sets to use (groundup data list)"
    )
    wordings: int = Field(
        default=3, ge=1, le=8, description="how many wordings of a question each article gets"
    )
    seed: int = Field(
        default=0, description="picks wordings and wrong options; never the held-out split"
    )


class TokenizerConfig(BaseModel):
    """Settings of the tokenizer stage: byte-level BPE from the training split alone."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    out: Path = Field(description="folder to write the tokenizer to")
    data: Path = Field(
        description="a data-stage folder, a text file, or a folder of .txt, .md and .jsonl files"
    )
    vocab_size: int = Field(
        default=8192,
        ge=320,
        le=65536,
        description="tokens in the vocabulary, control tokens and the 256 bytes included",
    )
