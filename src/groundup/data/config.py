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
        description="how strongly jobs and traits in the set world go by gender and group",
    )
    morals: Share = Field(
        default=0.0,
        description="share of the texts of the set world that say what is right and what is wrong, "
        "in the place of facts",
    )
    unknown: Literal["answered", "declined"] = Field(
        default="answered",
        description="what is said to questions about the real world and whatever else people type: "
        "answers from the packs, or, as a very small model should, that it does not know",
    )
    wordings: Wordings = Field(
        default=3, description="how many wordings of a question each article gets"
    )
    seed: Seed = Field(
        default=0,
        description="picks wordings, wrong options and what happens in the set world; never the "
        "held-out split",
    )

    @model_validator(mode="after")
    def _what_is_not_declined_is_of_the_world(self) -> Self:
        if self.unknown == "declined" and "world" not in self.packs:
            raise ValueError(
                f"unknown='declined' with packs={list(self.packs)} would leave nothing to be "
                "answered; add 'world' to the packs, or set unknown to 'answered'"
            )
        return self


def one_is_enough(value: Any) -> Any:
    """Sources as a tuple of texts, of one alone too; anything else as it is, to be refused."""
    values = [value] if isinstance(value, str | Path) else value
    texts = isinstance(values, list | tuple) and all(isinstance(v, str | Path) for v in values)
    return tuple(map(str, values)) if texts else value


class OwnDataConfig(StageConfig):
    """The setting that all stages share which read a person's own data: the names of its columns.

    They name it in a field `data`; a recipe may write one source as it is, without a list.
    """

    columns: tuple[str, ...] = Field(
        (),
        description="our names for the columns of your files, such as prompt=question "
        'completion=answer, in a recipe columns = ["prompt=question"]',
    )

    _one_is_enough = field_validator("data", "replay_data", mode="before", check_fields=False)(
        one_is_enough
    )

    @model_validator(mode="after")
    def _columns_are_pairs(self) -> Self:
        for one in self.columns:
            if not all(one.partition("=")):
                raise ValueError(
                    f"columns={one!r} must be a name of ours, '=' and a column of yours, such as "
                    "prompt=question"
                )
        ours = [one.partition("=")[0] for one in self.columns]
        if twice := [name for name in ours if ours.count(name) > 1]:
            raise ValueError(
                f"columns says twice what {twice[0]} is; give one column for each name"
            )
        return self

    @property
    def column_names(self) -> dict[str, str]:
        """Our names for columns, and theirs."""
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
