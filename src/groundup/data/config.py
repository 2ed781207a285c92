"""The settings of the stages that make data: read by the command line without loading torch."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from groundup.data.files import ROW_KINDS
from groundup.data.packs.manifest import ALL_SETS
from groundup.errors import UserError, known_names
from groundup.text.rows import Json
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


class ColumnsConfig(StageConfig):
    """The setting shared by all stages that read a user's own rows: the names of their columns."""

    columns: tuple[str, ...] = Field(
        (),
        description="our names for the columns of your files, such as prompt=question "
        'completion=answer, in a recipe columns = ["prompt=question"]',
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


# Where the prompt of a pair is in LLaMA-Factory's two layouts, Alpaca's and ShareGPT's.
PROMPTS_OF_PAIRS = ("instruction", "input", "conversations")
# The columns of pairs and labels; those of prompts may have any name, for verifiers.
PAIR_COLUMNS = ("prompt", "chosen", "rejected", "system", "group", *PROMPTS_OF_PAIRS)
LABELED_COLUMNS = (*PAIR_COLUMNS, "messages", "completion", "output", "label")
# Where a row's prompt may be.
_PROMPTS = {"prompt", "messages", "conversations", "instruction"}


class Columns:
    """Renames the columns of rows to ours, and remembers all columns that the rows had.

    `names` maps our names to the files' own, by `rename(row, names)`. Raises UserError for a name
    that is none of the `known` ones.
    """

    def __init__(
        self,
        names: Mapping[str, str],
        known: Collection[str] | None = None,
        rename: Callable[[Json, Mapping[str, str]], Json] | None = None,
    ) -> None:
        for ours, theirs in names.items():
            if known is not None and ours not in known:
                raise UserError(
                    f"--columns {ours}={theirs}: {ours!r} is not one of the columns that are read: "
                    f"{', '.join(known)}; put the name in your file after the '='"
                )
        self.names = names
        self._rename = _renamed if rename is None else rename
        self.seen: dict[str, None] = {}

    def __call__(self, row: Json) -> Json:
        self.seen.update(dict.fromkeys(row))
        return self._rename(row, self.names)

    def check(self) -> None:
        """Raises UserError for a mapping to a column that no row had."""
        for ours, theirs in self.names.items():
            if theirs not in self.seen:
                known = known_names(theirs, self.seen, "there are:")
                raise UserError(
                    f"--columns {ours}={theirs}: no row has a column {theirs!r}; {known}"
                )


def _renamed(row: Json, names: Mapping[str, str]) -> Json:
    mapped = {ours: row[theirs] for ours, theirs in names.items() if theirs in row}
    gone = set(names.values()) if mapped else set()
    if not _PROMPTS.isdisjoint(mapped):  # the mapping takes precedence over the row's other layout
        gone |= _PROMPTS
    return {name: value for name, value in row.items() if name not in gone} | mapped


class OwnDataConfig(ColumnsConfig):
    """Settings of stages that read several sources, given in a field `data`.

    A recipe may give a single source without a list.
    """

    _one_is_enough = field_validator("data", "replay_data", mode="before", check_fields=False)(
        as_tuple
    )


class TokenizerConfig(StageConfig):
    """Settings of the tokenizer stage: byte-level BPE from the training split alone."""

    data: Path = Field(
        description=f"a data-stage folder, a text file, a {ROW_KINDS} file of {{text}}, or a "
        "folder or hub:OWNER/NAME of such files"
    )
    vocab_size: VocabSize = Field(
        default=8192,
        description="tokens in the vocabulary, control tokens and the 256 bytes included",
    )
