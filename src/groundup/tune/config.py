"""The settings of the stages that start from a model, and of fine-tuning, without torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from groundup.data.config import OwnDataConfig
from groundup.data.files import ROW_KINDS
from groundup.data.packs.manifest import GENERATED
from groundup.text.rows import TemplateVariables
from groundup.train.config import StageConfig, TrainingConfig, Traits
from groundup.train.ranges import (
    Alpha,
    Context,
    Epochs,
    Rank,
    RateRatio,
    Rows,
    Share,
    ShareBelowOne,
    Weight,
    check_mixture,
)

# The general text for replay if none is given, none is in the data folder, and the model's training
# data is unknown.
GENERAL = (Path("pack:wiki"),)


class TuningConfig(TrainingConfig):
    """The settings of every stage that starts from a model: which one, and what is trained."""

    model: Path = Field(description="the folder of the model to start from")
    context: Context | None = Field(
        None,
        description="tokens in a row (default: the model's context, at most 1024)",
    )
    adapter: Literal["none", "lora", "qlora"] = Field(
        "none",
        description="what is trained: none, the whole model; lora, small matrices added to the "
        "frozen ones; qlora, the same with frozen matrices in 4 bits",
    )
    lora_rank: Rank = Field(16, description="rank of the added matrices")
    lora_alpha: Alpha = Field(32.0, description="their product is scaled by alpha / rank")
    lora_dropout: ShareBelowOne = Field(
        0.0, description="share of the added matrices' inputs that is dropped"
    )
    lora_targets: tuple[str, ...] | None = Field(
        None,
        min_length=1,
        description="layers to adapt, by the ends of their names, such as q_proj v_proj "
        "(default: every linear layer of the blocks)",
    )
    use_rslora: bool = Field(
        False, description="scale by alpha / sqrt(rank), for large ranks (rank-stabilized LoRA)"
    )
    use_dora: bool = Field(
        False, description="train the norm of each row of a matrix separately (DoRA)"
    )
    lora_plus: RateRatio = Field(
        1.0, description="learning rate of B relative to that of A (LoRA+; its paper uses 16)"
    )
    block_size: Literal[64, 128] = Field(
        64, description="weights that share a scale in qlora's 4 bits"
    )
    double_quant: bool = Field(True, description="store qlora's scales themselves in 8 bits")

    @model_validator(mode="after")
    def _adapters_are_asked_for(self) -> Self:
        """Refuse settings of an adapter that is not used instead of ignoring them."""
        fields = ["lora_rank", "lora_alpha", "lora_dropout", "lora_targets", "use_rslora"]
        fields += ["use_dora", "lora_plus"]
        unused = {"none": [*fields, "block_size", "double_quant"]}
        unused["lora"] = ["block_size", "double_quant"]
        if self.adapter != "none" and self.embedding_learning_rate is not None:
            raise ValueError(
                f"embedding_learning_rate={self.embedding_learning_rate:g} has no meaning with "
                f"adapter={self.adapter!r}, with which embeddings are not trained; leave it out"
            )
        for name in unused.get(self.adapter, []):
            if getattr(self, name) != type(self).model_fields[name].default:
                needed = "qlora" if name in ("block_size", "double_quant") else "lora"
                raise ValueError(
                    f"{name}={getattr(self, name)!r} has no meaning with adapter="
                    f"{self.adapter!r}; add adapter={needed!r}, or leave {name} out"
                )
        return self


class SFTConfig(TuningConfig, OwnDataConfig):
    """Fine-tuning: a model learns to answer as the assistant, or the language of a domain.

    In conversations it learns the assistant's words, in documents every word.
    """

    traits: ClassVar[Traits] = Traits("conversations", True, "heldout_loss", 0.5)

    data: tuple[Path, ...] = Field(
        min_length=1,
        description=f"training data: {ROW_KINDS} files of conversations or texts, .txt or .md "
        "files, folders of them, a data-stage folder, pack:NAME or hub:OWNER/NAME",
    )
    weights: tuple[Weight, ...] | None = Field(
        None,
        min_length=1,
        description="share of the tokens from each source of data (default: by balance and "
        "mixture; with --replay by size)",
    )
    rows: Rows | None = Field(  # type: ignore[assignment]  # None until the data are read
        None,
        description="rows of one context each in an optimizer step (default: as few as needed for "
        "enough steps with the data and the time, at most 16)",
    )
    context: Context | None = Field(
        None,
        description="tokens in a row (default: the length of your longest row, at least 256 and "
        "at most 1024, within the model's context)",
    )
    validation: ShareBelowOne | None = Field(
        None,
        description="share of your own rows that is held out, by their hash (default: 0.05; 0 with "
        "fewer than 200 rows, as each may be the only one with its fact)",
    )
    replay: ShareBelowOne | None = Field(
        None,
        description="share of the tokens that are general text, against forgetting (default: 0.2 "
        "if its text is given, is in the data folder or trained the model, as --replay-data says; "
        "else 0.1 with little data, up to 200,000 tokens, for models above 20 M parameters; else "
        "0)",
    )
    replay_data: tuple[Path, ...] | None = Field(
        None,
        min_length=1,
        description="general text for replay (default: the text in the same data-stage folder as "
        "the conversations, else the training data of a model made here, else pack:wiki)",
    )
    layout: Literal["packed", "padded"] = Field(
        "packed",
        description="packed: several conversations share a row without seeing each other; padded: "
        "one per row, in batches of similar length",
    )
    epochs: Epochs | None = Field(  # type: ignore[assignment]  # None until the data are read
        None,
        description="passes over the data if neither steps nor minutes are given (default: 2; with "
        "little data as many as 200 steps need, up to 16)",
    )
    balance: Share = Field(
        0.7,
        description="0 weights sources by their size, 1 weights all sources equally",
    )
    prompt_weight: Share = Field(
        0.0,
        description="weight in the loss of tokens that are not the assistant's: the user's turns "
        "and the template's tokens",
    )
    multi_turn: Share = Field(
        0.0,
        description="share of conversations that are appended to another, as turns of a long chat",
    )
    mixture: dict[str, ShareBelowOne] = Field(
        {one.name: one.conversations for one in GENERATED},
        description="share of the conversations from a source or a generated set: --mixture.world "
        "0.9, in a recipe mixture = {world = 0.9}; a source that is named itself does not count "
        "toward its set",
    )
    template: TemplateVariables = Field(
        {},
        description="variables of the chat template, which the trained model's template keeps: "
        "--template.enable_thinking false, in a recipe template = {enable_thinking = false}",
    )
    decay: Share | None = Field(  # type: ignore[assignment]  # None until the data are read
        None,
        description="share of the steps spent decaying (default: 0.8; 0.4 with little data)",
    )

    @field_validator("template", mode="before")
    @classmethod
    def _numbers_are_texts(cls, given: object) -> object:
        """Numbers in recipes are converted to strings."""
        if not isinstance(given, dict):
            return given
        for name, value in given.items():
            if not isinstance(value, bool | str | int | float):
                raise ValueError(
                    f"template.{name}={json.dumps(value)} must be a text, a number, true or false; "
                    "give one, or leave it out"
                )
        plain = (bool, str)
        return {n: one if isinstance(one, plain) else json.dumps(one) for n, one in given.items()}

    @model_validator(mode="after")
    def _shares_leave_something(self) -> Self:
        check_mixture(self.mixture)
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
        if self.replay and (same := set(self.data) & set(self.replay_data or GENERAL)):
            raise ValueError(
                f"replay_data={str(min(same))!r} is what is fine-tuned on already; give other, "
                "general text, or leave replay out"
            )
        return self


def require_distinct(models: tuple[Path, ...]) -> tuple[Path, ...]:
    """The models of a setting `models`, which must all be different."""
    twice = next((one for one in models if models.count(one) > 1), None)
    if twice is not None:
        raise ValueError(f"models={twice} is named twice; name each model once")
    return models


class SoupConfig(StageConfig):
    """Average the weights of models that were fine-tuned from one parent (a model soup)."""

    models: tuple[Path, ...] = Field(
        min_length=2, description="folders of the models or of their adapters"
    )
    weights: tuple[Share, ...] | None = Field(
        None, min_length=2, description="weight of each model, together 1 (default: all equal)"
    )

    _are_different = field_validator("models")(require_distinct)

    @model_validator(mode="after")
    def _weights_are_a_mean(self) -> Self:
        if self.weights is None:
            return self
        if len(self.weights) != len(self.models):
            raise ValueError(
                f"weights={list(self.weights)} are {len(self.weights)} for {len(self.models)} "
                "models; give one for each"
            )
        total = sum(self.weights)
        if abs(total - 1) > 1e-6:
            raise ValueError(
                f"weights={list(self.weights)} are {total:g} together and must be 1; try "
                f"{' '.join(f'{one / total:.9g}' for one in self.weights) if total else '0.5 0.5'}"
            )
        return self

    @property
    def shares(self) -> tuple[float, ...]:
        """The weight of each model."""
        return self.weights or (1 / len(self.models),) * len(self.models)
