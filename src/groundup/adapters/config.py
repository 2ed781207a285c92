"""The settings of every stage that starts from a model, without torch."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import AliasChoices, Field, model_validator

from groundup.train.config import TrainingConfig
from groundup.train.ranges import Alpha, Context, Rank, RateRatio, ShareBelowOne


class TuningConfig(TrainingConfig):
    """What every stage has that starts from a model: which, and how much of it is trained."""

    model: Path = Field(description="folder of the model to start from")
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
        False, description="scale by alpha / sqrt(rank), for large ranks (rank-stabilised LoRA)"
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
    double_quant: bool = Field(
        True,
        validation_alias=AliasChoices("double_quant", "double_quantisation"),  # the old name
        description="store qlora's scales in 8 bits themselves",
    )

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
