"""The settings of supervised fine-tuning, without torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from groundup.adapters.config import TuningConfig


class SFTConfig(TuningConfig):
    """Fine-tuning: a model learns to answer in the assistant's role, or the language of a domain.

    Of conversations the assistant's words are learned, of documents every word.
    """

    data: tuple[Path, ...] = Field(
        min_length=1,
        description="what to learn: .jsonl, .json or .parquet files of conversations or texts, "
        ".txt or .md files, folders of them, a data-stage folder, pack:NAME or hub:OWNER/NAME",
    )
    columns: tuple[str, ...] = Field(
        (),
        description="our names for the columns of your files, such as prompt=question "
        "completion=answer",
    )
    weights: tuple[float, ...] | None = Field(
        None,
        min_length=1,
        description="share of the tokens that each source of data gets (default: as it is large)",
    )
    validation: float = Field(
        0.05, ge=0, lt=1, description="share of your own rows that is held out, by their hash"
    )
    replay: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="share of the tokens that are general text, against forgetting",
    )
    replay_data: tuple[Path, ...] = Field(
        (Path("pack:wiki"),), min_length=1, description="the general text of replay"
    )
    layout: Literal["packed", "padded"] = Field(
        "packed",
        description="packed: several conversations side by side in a row, never seeing each "
        "other; padded: one to a row, beside others of like length",
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
    decay: float = Field(0.8, ge=0, le=1, description="share of the steps spent decaying to zero")

    @field_validator("data", "replay_data", mode="before")
    @classmethod
    def _one_is_enough(cls, value: Any) -> Any:
        """A recipe may write one source as it is, without the list around it."""
        values = [value] if isinstance(value, str | Path) else value
        texts = isinstance(values, list | tuple) and all(isinstance(v, str | Path) for v in values)
        return tuple(map(str, values)) if texts else value

    @model_validator(mode="after")
    def _weights_fit_the_data(self) -> Self:
        if self.weights is None:
            return self
        if len(self.weights) != len(self.data):
            raise ValueError(
                f"weights={list(self.weights)} are {len(self.weights)} and data names "
                f"{len(self.data)} sources; give one weight for each"
            )
        if min(self.weights) < 0 or sum(self.weights) == 0:
            raise ValueError(
                f"weights={list(self.weights)} must be 0 or more and not all 0; try "
                f"{' '.join('1' for _ in self.weights)}"
            )
        return self

    @model_validator(mode="after")
    def _replay_is_something_else(self) -> Self:
        if self.replay and (same := set(self.data) & set(self.replay_data)):
            raise ValueError(
                f"replay_data={str(min(same))!r} is what is fine-tuned on already; give other, "
                "general text, or leave replay out"
            )
        return self

    @model_validator(mode="after")
    def _columns_are_pairs(self) -> Self:
        for one in self.columns:
            ours, sign, theirs = one.partition("=")
            if not (ours and sign and theirs):
                raise ValueError(
                    f"columns={one!r} must be a name of ours, '=' and a column of yours, such as "
                    "prompt=question"
                )
        return self

    @property
    def column_names(self) -> Mapping[str, str]:
        """Our names for columns, and theirs."""
        pairs = (one.partition("=") for one in self.columns)
        return {ours: theirs for ours, _, theirs in pairs}
