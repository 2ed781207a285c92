"""The settings of pre-training, without torch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from groundup.data.files import ROW_KINDS
from groundup.data.packs.manifest import GENERATED
from groundup.lm.config import Activation, ModelConfig, PositionEmbedding
from groundup.train.config import TrainingConfig, Traits
from groundup.train.ranges import (
    Depth,
    Evaluations,
    Experts,
    FreshContext,
    Heads,
    LossWeight,
    Minutes,
    PreviousTokenHeads,
    ShareBelowOne,
    WeightDecay,
    Width,
    Window,
    check_mixture,
)

# Hugging Face's name of the activation, and whether the MLP is gated.
_ACTIVATIONS: dict[str, tuple[Activation, bool]] = {
    "swiglu": ("silu", True),
    "gelu": ("gelu", False),
    "relu2": ("relu2", False),
}


class PretrainConfig(TrainingConfig):
    """Train a language model from random weights on documents.

    Unset settings are planned from `minutes` (or `depth`) and the speed of this machine, and shown
    with their reasons before training starts.
    """

    traits: ClassVar[Traits] = Traits("documents", False, "bits_per_byte", 0.38)

    minutes: Minutes | None = Field(
        None,
        description="minutes that training may take, unless steps are given (default: no limit, "
        "and a model of the size that suits 5 minutes)",
    )
    data: Path = Field(
        description=f"a data-stage folder, a text file, a {ROW_KINDS} file of {{text}}, or a "
        "folder or hub:OWNER/NAME of such files"
    )
    tokenizer: Path = Field(
        description="a folder written by groundup tokenizer, or a model's folder"
    )
    arch: Literal["gpt", "lstm", "gru"] = Field(
        "gpt",
        description="a transformer, or a recurrent network with one of two kinds of gates "
        "(transformers loads only gpt)",
    )
    depth: Depth | None = Field(
        None, description="layers (default: from minutes; 2 in a recurrent network)"
    )
    width: Width | None = Field(
        None,
        description="features per token, a multiple of 64 (default: 64 × depth; in a recurrent "
        "network from minutes)",
    )
    heads: Heads | None = Field(None, description="attention heads (default: width / 64)")
    kv_heads: Heads | None = Field(
        None,
        description="key-value heads: as many as heads for multi-head attention, 1 for multi-query "
        "(default: heads / 3)",
    )
    previous_token_heads: PreviousTokenHeads | None = Field(
        None,
        description="heads of the first layer that are initialized to look one, two, … tokens "
        "back, so that copying is learned sooner (default: 2 with RoPE and norms before, but fewer "
        "than all heads; 0: random weights)",
    )
    attention_window: Window | None = Field(
        None, description="tokens that attention sees, including its own (default: all)"
    )
    position: PositionEmbedding = Field(
        "rope", description="how attention encodes positions (transformers loads only the default)"
    )
    norm: Literal["before", "after"] = Field(
        "before",
        description="norms before attention and MLP, or after the additions "
        "(transformers loads only the default)",
    )
    activation: Literal["swiglu", "gelu", "relu2"] = Field(
        "swiglu",
        description="activation of the MLP (transformers loads only the default)",
    )
    experts: Experts | None = Field(
        None, description="experts that replace each MLP (default: none, one MLP)"
    )
    experts_per_token: Experts = Field(
        2, description="experts that each token is sent to; together as wide as the MLP would be"
    )
    balance: LossWeight = Field(
        0.01, description="coefficient of the load-balancing loss of experts"
    )
    context: FreshContext = Field(256, description="tokens the model sees at once")
    mixture: dict[str, tuple[ShareBelowOne, ShareBelowOne]] = Field(
        {one.name: one.documents for one in GENERATED},
        description="share of the rows from a source or a generated set, at the start and at the "
        "end; it changes linearly in between: --mixture.world 0.7 0.15, in a recipe mixture = "
        "{world = [0.7, 0.15]}; a source that is named itself does not count toward its set",
    )
    weight_decay: WeightDecay = Field(0.1, description="decoupled weight decay")
    evaluations: Evaluations = Field(
        8, description="number of evaluations on held-out text during training"
    )
    prompt: str = Field(
        "The history of", description="the text that the sample at every evaluation continues"
    )

    @model_validator(mode="after")
    def _shares_leave_something(self) -> Self:
        check_mixture(self.mixture)
        return self

    @model_validator(mode="after")
    def _settings_have_a_meaning(self) -> Self:
        """Refuse settings for parts that the model does not have instead of ignoring them."""
        unused: dict[str, str] = {}
        if self.arch != "gpt":
            of_transformers = ("heads", "kv_heads", "previous_token_heads", "attention_window")
            others = ("position", "norm", "activation", "experts")
            unused = dict.fromkeys((*of_transformers, *others), f"arch={self.arch}")
        elif self.position != "rope":
            unused["previous_token_heads"] = f"position={self.position}"
        elif self.norm == "after":
            unused["previous_token_heads"] = "norm=after"
        if self.experts is None:
            unused |= dict.fromkeys(("experts_per_token", "balance"), "no experts")
        for name, without in unused.items():
            # 0 turns a setting off, which is what the model has.
            if (value := getattr(self, name)) not in (0, type(self).model_fields[name].default):
                raise ValueError(f"{name}={value} has no meaning with {without}; leave it out")
        return self

    @model_validator(mode="after")
    def _is_a_shape(self) -> Self:
        """Refuse a width that the heads do not divide before any work starts."""
        if self.width is not None:
            self.shape(width=self.width, depth=self.depth or 1, vocab_size=64)
        elif self.experts is not None:
            self.model_copy(update={"heads": None, "kv_heads": None}).shape(
                width=64, depth=1, vocab_size=64
            )
        return self

    @property
    def compiles(self) -> bool:
        """Whether the layers of such a model can be compiled."""
        return self.arch == "gpt" and self.experts is None

    def shape(self, *, width: int, depth: int, vocab_size: int) -> ModelConfig:
        """The model's shape with these sizes and the settings chosen here."""
        sizes = {"width": width, "depth": depth, "vocab_size": vocab_size, "context": self.context}
        if self.arch != "gpt":
            return ModelConfig.recurrent(self.arch, **sizes)
        hidden_act, gated = _ACTIVATIONS[self.activation]
        shape = ModelConfig.of(
            **sizes,
            heads=self.heads,
            kv_heads=self.kv_heads,
            experts=None if self.experts is None else (self.experts, self.experts_per_token),
            sliding_window=self.attention_window,
            position_embedding_type=None if self.position == "rope" else self.position,
            do_layer_norm_before=self.norm == "before",
            hidden_act=hidden_act,
            is_gated_act=None if gated else False,
        )
        if shape.experts is None:
            return shape
        return replace(shape, experts=replace(shape.experts, router_aux_loss_coef=self.balance))
