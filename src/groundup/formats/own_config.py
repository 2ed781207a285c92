"""Shapes that no Hugging Face family has, and how our folders store them.

    model_type        "groundup", or "lstm" or "gru" for a recurrent network
    base_model_type   the nearest family; the tensors have our own names
    …                 every field that may differ from that family

Programs that do not know such a `model_type`, like transformers, refuse it, and cannot mistake an
ALiBi model for a Qwen3, which would answer with nonsense.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from groundup.errors import UserError, shorten
from groundup.formats.config_reader import ConfigReader
from groundup.lm.config import MAX_SIZES, POSITION_EMBEDDINGS, ExpertsConfig, ModelConfig
from groundup.lm.families import ModelType

OWN, NEAREST = "groundup", "base_model_type"
# The families with optional biases in attention, and in the feed-forward part.
_BIASES = {"attention_bias": ("qwen3", "qwen3_moe", "llama"), "mlp_bias": ("llama",)}


def not_in_hugging_face(shape: ModelConfig) -> str | None:
    """Describe the features of this shape that no Hugging Face family has; None without any."""
    family = shape.family
    if family.recurrent:
        return f"Hugging Face has no recurrent language model such as {shape.model_type}"
    grouped = shape.num_key_value_heads != shape.num_attention_heads
    own = [
        (shape.position != ("rope" if family.rotary else "learned"),
         "tokens without positions" if shape.position == "none" else f"{shape.position} positions"),
        (shape.gated != family.gated,
         f"feed-forward part {'with' if shape.gated else 'without'} a gate"),
        (not shape.do_layer_norm_before, "norms after attention and feed-forward part"),
        (shape.experts is not None and not family.experts, "experts"),
        (shape.sliding_window is not None and family.windows == "none", "window"),
        (shape.windowed_layers is not None and family.windows != "some layers",
         "window in only some layers"),
        (grouped and not family.rotary, "grouped queries"),
        (not family.rotary and shape.head_dim * shape.num_attention_heads != shape.hidden_size,
         "heads whose total width is not the model's"),
        *_other_biases(shape),
    ]  # fmt: skip
    lacks = [what for differs, what in own if differs]
    if not lacks:
        return None
    return f"Hugging Face's {shape.model_type} cannot express {' and '.join(lacks)}"


def _other_biases(shape: ModelConfig) -> list[tuple[bool, str]]:
    """The biases in which the shape differs from its family."""
    found = []
    for name, part in (("attention_bias", "attention"), ("mlp_bias", "feed-forward part")):
        has, always = getattr(shape, name), shape.family.defaults.get(name, False)
        differs = has != always and shape.model_type not in _BIASES[name]
        found.append((differs, f"biases in its {part}" if has else f"{part} without biases"))
    return found


# Reading.


def own_from_hf(config: Mapping[str, Any], base: ModelConfig) -> ModelConfig:
    """The shape that differs from `base`, the nearest family, as our fields say."""
    if base.family.recurrent:
        raise UserError(
            f"config.json says {NEAREST}={base.model_type}, which no {OWN} model has; "
            "download it again"
        )
    read = ConfigReader(dict(config), OWN)
    position = config.get("position_embedding_type")
    if position not in POSITION_EMBEDDINGS:
        raise UserError(
            f"config.json says position_embedding_type={shorten(position)}, which must be one of "
            f"{', '.join(POSITION_EMBEDDINGS)}"
        )
    layers, depth = config.get("windowed_layers"), base.num_hidden_layers
    if layers is not None and not (
        isinstance(layers, list) and all(type(one) is int and 0 <= one < depth for one in layers)
    ):
        raise UserError(
            f"config.json says windowed_layers={shorten(layers)}, which must be a list of layers "
            f"from 0 to {depth - 1}; download it again"
        )
    window = config.get("sliding_window")
    return replace(
        base,
        head_dim=read.int_("head_dim"),
        position_embedding_type=None if position == base.position else position,
        is_gated_act=None if (gated := read.bool_("is_gated_act")) == base.gated else gated,
        do_layer_norm_before=read.bool_("do_layer_norm_before"),
        sliding_window=None if window is None else read.int_("sliding_window"),
        windowed_layers=None if layers is None else tuple(layers),
        experts=experts_from_hf(config, read) if config.get("num_experts") else None,
        attention_bias=read.bool_("attention_bias"),
        mlp_bias=read.bool_("mlp_bias"),
    )


def recurrent_from_hf(config: Mapping[str, Any], kind: ModelType) -> ModelConfig:
    read = ConfigReader({"tie_word_embeddings": True, **config}, kind)
    width = read.int_("hidden_size")
    return ModelConfig(
        vocab_size=read.int_("vocab_size"),
        hidden_size=width,
        intermediate_size=width,
        num_hidden_layers=read.int_("num_hidden_layers"),
        num_attention_heads=1,
        num_key_value_heads=1,
        max_position_embeddings=read.int_("max_position_embeddings"),
        rms_norm_eps=read.float_("rms_norm_eps", 0.0, 1.0),
        tie_word_embeddings=read.bool_("tie_word_embeddings"),
        model_type=kind,
        bos_token_id=read.token_id("bos_token_id"),
        eos_token_ids=read.token_ids(read.values.get("eos_token_id")),
        pad_token_id=read.token_id("pad_token_id"),
    )


def experts_from_hf(config: Mapping[str, Any], read: ConfigReader) -> ExpertsConfig:
    if config.get("mlp_only_layers") or config.get("decoder_sparse_step", 1) != 1:
        raise UserError(
            "config.json has layers without experts (mlp_only_layers, decoder_sparse_step), which "
            "is not supported; use a model with experts in every layer"
        )
    # transformers 5 also writes the number under another name.
    if "num_experts" not in config and "num_local_experts" in config:
        read.values["num_experts"] = config["num_local_experts"]
    return ExpertsConfig(
        num_experts=read.int_("num_experts"),
        num_experts_per_tok=read.int_("num_experts_per_tok", most=MAX_SIZES["num_experts"]),
        moe_intermediate_size=read.int_(
            "moe_intermediate_size", most=MAX_SIZES["intermediate_size"]
        ),
        norm_topk_prob=read.bool_("norm_topk_prob"),
        router_aux_loss_coef=read.float_("router_aux_loss_coef", 0.0, 1e6),
    )


# Writing.


def own_to_hf(shape: ModelConfig) -> dict[str, Any]:
    return {
        "architectures": ["GroundupForCausalLM"],
        "model_type": OWN,
        NEAREST: shape.model_type,
        "position_embedding_type": shape.position,
        "is_gated_act": shape.gated,
        "do_layer_norm_before": shape.do_layer_norm_before,
        "sliding_window": shape.sliding_window,
        "windowed_layers": shape.windowed_layers and list(shape.windowed_layers),
        "attention_bias": shape.attention_bias,
        "mlp_bias": shape.mlp_bias,
        "num_key_value_heads": shape.num_key_value_heads,
        "head_dim": shape.head_dim,
        **experts_to_hf(shape.experts),
    }


def experts_to_hf(experts: ExpertsConfig | None) -> dict[str, Any]:
    if experts is None:
        return {}
    return {**asdict(experts), "decoder_sparse_step": 1, "mlp_only_layers": []}
