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

# The general text of replay where none is named, none lies beside the data, and nothing says what
# the model was made of.
GENERAL = (Path("pack:wiki"),)


class TuningConfig(TrainingConfig):
    """What every stage has that starts from a model: which, and how much of it is trained."""

    model: Path = Field(description="the folder of the model to start from")
    context: Context | None = Field(
        None,
        description="tokens in a row (default: what the model was made for, at most 1024)",
    )
    adapter: Literal["none", "lora", "qlora"] = Field(
        "none",
        description="what is trained: none, the whole model; lora, small matrices beside the "
        "frozen ones; qlora, the same beside ones of 4 bits",
    )
    lora_rank: Rank = Field(16, description="rank of the matrices that are added")
    lora_alpha: Alpha = Field(32.0, description="their product is scaled by alpha / rank")
    lora_dropout: ShareBelowOne = Field(
        0.0, description="share of a layer's inputs that the added matrices do not see"
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
        False, description="train the length of each row of a matrix apart (DoRA)"
    )
    lora_plus: RateRatio = Field(
        1.0, description="learning rate of B over that of A (LoRA+; its paper takes 16)"
    )
    block_size: Literal[64, 128] = Field(
        64, description="weights that share a scale in qlora's 4 bits"
    )
    double_quant: bool = Field(True, description="store qlora's scales in 8 bits themselves")

    @model_validator(mode="after")
    def _adapters_are_asked_for(self) -> Self:
        """A setting of an adapter without one would be silently ignored."""
        fields = ["lora_rank", "lora_alpha", "lora_dropout", "lora_targets", "use_rslora"]
        fields += ["use_dora", "lora_plus"]
        unused = {"none": [*fields, "block_size", "double_quant"]}
        unused["lora"] = ["block_size", "double_quant"]
        if self.adapter != "none" and self.embedding_learning_rate is not None:
            raise ValueError(
                f"embedding_learning_rate={self.embedding_learning_rate:g} has no meaning with "
                f"adapter={self.adapter!r}, beside which embeddings stay as they are; leave it out"
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
    """Fine-tuning: a model learns to answer in the assistant's role, or the language of a domain.

    Of conversations the assistant's words are learned, of documents every word.
    """

    traits: ClassVar[Traits] = Traits("conversations", True, "heldout_loss", 0.44)

    data: tuple[Path, ...] = Field(
        min_length=1,
        description=f"what to learn: {ROW_KINDS} files of conversations or texts, .txt or .md "
        "files, folders of them, a data-stage folder, pack:NAME or hub:OWNER/NAME",
    )
    weights: tuple[Weight, ...] | None = Field(
        None,
        min_length=1,
        description="share of the tokens that each source of data gets (default: by balance and "
        "mixture; with --replay as it is large)",
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
        "nothing of fewer than 200 rows, where each may be the only one with its fact)",
    )
    replay: ShareBelowOne | None = Field(
        None,
        description="share of the tokens that are general text, against forgetting (default: 0.2 "
        "of what is named, lies beside the data or made the model, as --replay-data says; else 0.1 "
        "beside little data, up to 200,000 tokens, for models above 20 M parameters; else 0)",
    )
    replay_data: tuple[Path, ...] | None = Field(
        None,
        min_length=1,
        description="the general text of replay (default: the text beside the conversations of a "
        "data-stage folder, else the data of a model that was made here, else pack:wiki)",
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
        "--mixture.world 0.9, in a recipe mixture = {world = 0.9}; a source that is named itself "
        "is not of its set",
    )
    template: TemplateVariables = Field(
        {},
        description="variables of the chat template, which the trained model's has as well: "
        "--template.enable_thinking false, in a recipe template = {enable_thinking = false}",
    )
    decay: Share | None = Field(  # type: ignore[assignment]  # None until the data are read
        None,
        description="share of the steps spent decaying to zero (default: 0.8, beside little data "
        "0.4)",
    )

    @field_validator("template", mode="before")
    @classmethod
    def _numbers_are_texts(cls, given: object) -> object:
        """In a recipe a number may stand as one."""
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


def all_different(models: tuple[Path, ...]) -> tuple[Path, ...]:
    """The models of a setting `models`, none of which may be there twice."""
    twice = next((one for one in models if models.count(one) > 1), None)
    if twice is not None:
        raise ValueError(f"models={twice} is named twice; name each model once")
    return models


class SoupConfig(StageConfig):
    """Average the weights of models that were fine-tuned from one parent (a model soup)."""

    models: tuple[Path, ...] = Field(
        min_length=2, description="folders of the models, adapters' folders too"
    )
    weights: tuple[Share, ...] | None = Field(
        None, min_length=2, description="what each counts, 1 together (default: all the same)"
    )

    _are_different = field_validator("models")(all_different)

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
        """What each model counts."""
        return self.weights or (1 / len(self.models),) * len(self.models)
