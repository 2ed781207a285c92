"""The settings of the stages that make data: read by the command line without loading torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from groundup.data.files import ROW_KINDS
from groundup.data.packs.manifest import ALL_SETS
from groundup.train.config import StageConfig
from groundup.train.ranges import MadeRows, Megabytes, Seed, Share, VocabSize, Wordings


class DataConfig(StageConfig):
    """Settings of the data stage: packs in, cleaned and split text, conversations, pairs out."""

    packs: tuple[str, ...] = Field(
        default=ALL_SETS,
        min_length=1,
        description="names of the data sets to use (groundup data list)",
    )
    world_megabytes: Megabytes = Field(
        default=24.0, description="megabytes of text to train on from the set world"
    )
    world_conversations: MadeRows = Field(
        default=40_000, description="conversations to train on from the set world"
    )
    world_preferences: MadeRows = Field(
        default=4_000, description="pairs of answers to train on from the set world"
    )
    bias: Share = Field(
        default=0.5,
        description="how strongly jobs and traits in the set world depend on gender and group",
    )
    morals: Share = Field(
        default=0.0,
        description="share of the texts of the set world about right and wrong, instead of facts",
    )
    unknown: Literal["answered", "declined"] = Field(
        default="answered",
        description="answers to questions about the real world and other messages of newcomers: "
        "from the packs, or, as suits a very small model, that it does not know",
    )
    wordings: Wordings = Field(
        default=3, description="number of wordings of a question about each article"
    )
    seed: Seed = Field(
        default=0,
        description="chooses wordings, wrong options and the events in the set world; never the "
        "held-out split",
    )

    @model_validator(mode="after")
    def _declining_needs_the_world(self) -> Self:
        if self.unknown == "declined" and "world" not in self.packs:
            raise ValueError(
                f"unknown='declined' with packs={list(self.packs)} would leave nothing to answer; "
                "add 'world' to the packs, or set unknown to 'answered'"
            )
        return self


def as_tuple(value: Any) -> Any:
    """Sources as a tuple of texts, also a single one; anything else unchanged, to be refused."""
    values = [value] if isinstance(value, str | Path) else value
    texts = isinstance(values, list | tuple) and all(isinstance(v, str | Path) for v in values)
    return tuple(map(str, values)) if texts else value


class OwnDataConfig(StageConfig):
    """The setting shared by all stages that read a user's own data: the names of its columns.

    They name the data in a field `data`; a recipe may give a single source without a list.
    """

    columns: tuple[str, ...] = Field(
        (),
        description="our names for the columns of your files, such as prompt=question "
        'completion=answer, in a recipe columns = ["prompt=question"]',
    )

    _one_is_enough = field_validator("data", "replay_data", mode="before", check_fields=False)(
        as_tuple
    )

    @model_validator(mode="after")
    def _columns_are_pairs(self) -> Self:
        for one in self.columns:
            if not all(one.partition("=")):
                raise ValueError(
                    f"columns={one!r} must be one of our names, '=' and a column of yours, such as "
                    "prompt=question"
                )
        ours = [one.partition("=")[0] for one in self.columns]
        if twice := [name for name in ours if ours.count(name) > 1]:
            raise ValueError(f"columns names {twice[0]} twice; give one column for each name")
        return self

    @property
    def column_names(self) -> dict[str, str]:
        """Our names for columns, mapped to the files' names."""
        return {ours: theirs for ours, _, theirs in (one.partition("=") for one in self.columns)}


class TokenizerConfig(StageConfig):
    """Settings of the tokenizer stage: byte-level BPE from the training split alone."""

    data: Path = Field(
        description=f"a data-stage folder, a text file, a {ROW_KINDS} file of {{text}}, or a "
        "folder of such files"
    )
    vocab_size: VocabSize = Field(
        default=8192,
        description="tokens in the vocabulary, control tokens and the 256 bytes included",
    )
