"""The settings of supervised fine-tuning, without torch."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from groundup.adapters.config import TuningConfig
from groundup.data.config import OwnDataConfig
from groundup.data.packs.manifest import GENERATED
from groundup.train.config import Traits
from groundup.train.ranges import Context, Epochs, Rows, Share, ShareBelowOne, Weight


class SFTConfig(TuningConfig, OwnDataConfig):
    """Fine-tuning: a model learns to answer in the assistant's role, or the language of a domain.

    Of conversations the assistant's words are learned, of documents every word.
    """

    traits: ClassVar[Traits] = Traits("conversations", True, "heldout_loss", 0.44)

    data: tuple[Path, ...] = Field(
        min_length=1,
        description="what to learn: .jsonl, .json, .csv or .parquet files of conversations or "
        "texts, .txt or .md files, folders of them, a data-stage folder, pack:NAME or "
        "hub:OWNER/NAME",
    )
    weights: tuple[Weight, ...] | None = Field(
        None,
        min_length=1,
        description="share of the tokens that each source of data gets (default: as it is large)",
    )
    rows: Rows | None = Field(  # type: ignore[assignment]  # None until the data are read
        None,
        description="rows of one context each in an optimizer step (default: as few as the data "
        "and the time need for enough steps, at most 16)",
    )
    context: Context | None = Field(
        None,
        description="tokens in a row (default: what the longest of your rows needs, at least 256 "
        "and at most 1024, within what the model was made for)",
    )
    validation: ShareBelowOne | None = Field(
        None,
        description="share of your own rows that is held out, by their hash (default: 0.05, and "
        "nothing of fewer than 200 rows, each of which may be all that tells a fact)",
    )
    replay: ShareBelowOne | None = Field(
        None,
        description="share of the tokens that are general text, against forgetting (default: 0.1 "
        "beside little data, up to 200,000 tokens, for models above 20 M parameters; else 0)",
    )
    replay_data: tuple[Path, ...] = Field(
        (Path("pack:wiki"),), min_length=1, description="the general text of replay"
    )
    layout: Literal["packed", "padded"] = Field(
        "packed",
        description="packed: several conversations side by side in a row, never seeing each "
        "other; padded: one to a row, beside others of like length",
    )
    epochs: Epochs | None = Field(  # type: ignore[assignment]  # None until the data are read
        None,
        description="passes over the data when neither steps nor minutes say (default: 2, of "
        "little data as many as 200 steps need, up to 16)",
    )
    balance: Share = Field(
        0.7,
        description="0 takes sources as large as they are, 1 gives every source the same say",
    )
    prompt_weight: Share = Field(
        0.0,
        description="weight in the loss of what the assistant did not say: the user's turns and "
        "the template's tokens",
    )
    multi_turn: Share = Field(
        0.0,
        description="share of conversations that go on from another, as the turns of a long chat",
    )
    mixture: dict[str, ShareBelowOne] = Field(
        {one.name: one.conversations for one in GENERATED},
        description="share of the conversations of a source or a generated set, beside the others: "
        "--mixture.world 0.9, in a recipe mixture = {world = 0.9}",
    )
    decay: Share | None = Field(  # type: ignore[assignment]  # None until the data are read
        None,
        description="share of the steps spent decaying to zero (default: 0.8, beside little data "
        "0.4)",
    )

    @model_validator(mode="after")
    def _shares_leave_something(self) -> Self:
        if sum(self.mixture.values()) > 1:
            raise ValueError(
                f"mixture={self.mixture} has shares of more than 1 together; give smaller ones"
            )
        return self

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
