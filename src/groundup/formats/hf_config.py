"""Hugging Face's `config.json`: read into our shape of a model, and written from it.

The input is untrusted: each value is checked for type and range. Settings that none of our models
has are refused, because ignoring them would change the model's answers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from groundup.errors import UserError, shorten
from groundup.formats.config_reader import ConfigReader
from groundup.formats.own_config import (
    NEAREST,
    OWN,
    experts_from_hf,
    experts_to_hf,
    not_in_hugging_face,
    own_from_hf,
    own_to_hf,
    recurrent_from_hf,
)
from groundup.lm.config import ACTIVATIONS, MAX_SIZES, ModelConfig, Rope, RopeType, yarn_scale
from groundup.lm.families import FAMILIES, Family

# Reading.


def config_from_hf(config: Mapping[str, Any]) -> ModelConfig:
    """Read the contents of a Hugging Face `config.json`.

    Raises `UserError` for an unsupported family, a missing size or one of the wrong type, and for
    settings that would make it a different model.
    """
    kind = config.get("model_type")
    if kind == OWN and config.get(NEAREST) != OWN:
        # Heads of an odd size are impossible with RoPE, but this model may have none.
        base = config_from_hf({**config, "model_type": config.get(NEAREST), "head_dim": 64})
        return replace(own_from_hf(config, base), rope=rope_from_hf(config))
    family = FAMILIES.get(kind) if isinstance(kind, str) else None
    if kind is None or family is None:
        raise UserError(
            f"model_type {shorten(kind)} is not supported; this version reads "
            f"{', '.join(FAMILIES)} (SmolLM2 is a llama)"
        )
    if family.recurrent:
        return recurrent_from_hf(config, kind)
    _refuse_unsupported_settings(config)
    theirs = {ours: config.get(word) for ours, word in family.words.items()}
    given = {**config, **{name: v for name, v in theirs.items() if v is not None}}
    values = {**family.defaults, **{k: v for k, v in given.items() if v is not None}}
    read = ConfigReader(values, kind, family.words)
    width = read.int_("hidden_size")
    heads = read.int_("num_attention_heads")
    activation = read.values["hidden_act"]
    if activation not in ACTIVATIONS:
        raise UserError(
            f"hidden_act {shorten(activation)} is not supported; {', '.join(ACTIVATIONS)} are"
        )
    if not family.gated:
        read.values.setdefault("intermediate_size", 4 * width)
    if given.get("num_key_value_heads", 0) is None:  # null means one for each query head
        read.values["num_key_value_heads"] = heads
    read.values.setdefault("num_key_value_heads", heads)
    read.values.setdefault("head_dim", max(1, width // heads))
    window, layers = _windows(family, config, read)
    eos = read.values.get("eos_token_id")
    return ModelConfig(
        vocab_size=read.int_("vocab_size"),
        hidden_size=width,
        intermediate_size=read.int_("intermediate_size"),
        num_hidden_layers=read.int_("num_hidden_layers"),
        num_attention_heads=heads,
        num_key_value_heads=read.int_("num_key_value_heads"),
        head_dim=read.int_("head_dim"),
        max_position_embeddings=read.int_("max_position_embeddings"),
        rope=rope_from_hf(config) if family.rotary else Rope(),
        rms_norm_eps=read.float_("rms_norm_eps", 0.0, 1.0),
        tie_word_embeddings=read.bool_("tie_word_embeddings"),
        model_type=kind,
        hidden_act=activation,
        attention_bias=read.bool_("attention_bias"),
        mlp_bias=read.bool_("mlp_bias"),
        sliding_window=window,
        windowed_layers=layers,
        experts=experts_from_hf(config, read) if family.experts else None,
        bos_token_id=read.token_id("bos_token_id"),
        eos_token_ids=read.token_ids(eos),
        pad_token_id=read.token_id("pad_token_id"),
        source=config,
    )


def _refuse_unsupported_settings(config: Mapping[str, Any]) -> None:
    """Refuse settings that none of our models has and that would change the answers."""
    plain: dict[str, Any] = {
        "scale_attn_weights": True,
        "scale_attn_by_inverse_layer_idx": False,
        "add_cross_attention": False,
        "quantization_config": None,
        "is_causal": True,
    }
    for name, value in plain.items():
        if config.get(name, value) != value:
            raise UserError(
                f"config.json says {name}={shorten(config[name])}, which is not supported; "
                "save the model without it"
            )
    kinds = config.get("layer_types")
    for kind in kinds if isinstance(kinds, list) else []:
        if kind not in ("full_attention", "sliding_attention"):
            raise UserError(
                f"layer_types has {shorten(kind)}; this version supports full_attention and "
                "sliding_attention"
            )


def _windows(
    family: Family, config: Mapping[str, Any], read: ConfigReader
) -> tuple[int | None, tuple[int, ...] | None]:
    """The window and the layers with it, according to the family's config."""
    if family.windows == "none":
        return None, None
    if family.windows == "all layers":
        # null means no window, a missing key the default, so this checks the file itself.
        if "sliding_window" in config and config["sliding_window"] is None:
            return None, None
        kinds = config.get("layer_types") or []
        if not isinstance(kinds, list) or any(kind != "sliding_attention" for kind in kinds):
            raise UserError(
                f"layer_types={shorten(kinds)} gives some layers no window, which is not supported "
                f"for {config.get('model_type')}; of the known families qwen2 and qwen3 have it"
            )
        return read.int_("sliding_window"), None
    if not config.get("use_sliding_window") or config.get("sliding_window") is None:
        return None, None
    if family.windows == "all or none":
        return read.int_("sliding_window"), None
    layers = range(read.int_("num_hidden_layers"))
    kinds = config.get("layer_types")
    if kinds is None:
        read.values.setdefault("max_window_layers", 28)  # Qwen's default
        chosen = [*layers[read.int_("max_window_layers", 0, MAX_SIZES["num_hidden_layers"]) :]]
    elif isinstance(kinds, list) and len(kinds) == len(layers):
        chosen = [n for n in layers if kinds[n] == "sliding_attention"]
    else:
        raise UserError(f"layer_types must name one kind for each of {len(layers)} layers")
    if not chosen:
        return None, None
    window = read.int_("sliding_window")
    return window, None if len(chosen) == len(layers) else tuple(chosen)


_SCALING_FIELDS: dict[RopeType, tuple[str, ...]] = {
    "default": (),
    "linear": ("factor",),
    "llama3": (
        "factor",
        "low_freq_factor",
        "high_freq_factor",
        "original_max_position_embeddings",
    ),
    "yarn": (
        "factor",
        "original_max_position_embeddings",
        "beta_fast",
        "beta_slow",
        "attention_factor",
        "truncate",
    ),
}


# The original context, which all except linear need as well, defaults to max_position_embeddings.
_NEEDED: dict[RopeType, tuple[str, ...]] = {
    "default": (),
    "linear": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor"),
    "yarn": ("factor",),
}


def rope_from_hf(config: Mapping[str, Any]) -> Rope:
    """Read either spelling: `rope_parameters` (transformers 5), or the older `rope_theta` and
    `rope_scaling`, which takes precedence if a folder has both, as in transformers."""
    name = "rope_scaling" if config.get("rope_scaling") else "rope_parameters"
    settings = config.get(name) or {}
    if not isinstance(settings, Mapping):
        raise UserError(f"{name}={shorten(settings)} must be an object; download config.json again")
    settings = dict(settings)
    nested = next((kind for kind, one in settings.items() if isinstance(one, Mapping)), None)
    if nested is not None:
        raise UserError(
            f"{name} has settings for each kind of layer, such as {shorten(nested)}, which is not "
            "supported; use a model with the same RoPE in all layers"
        )
    # If it is also set outside, transformers uses that value.
    outside = config.get("original_max_position_embeddings")
    if outside is not None:
        settings["original_max_position_embeddings"] = outside
    named = settings.get("rope_type", settings.get("type", "default"))
    kind = next((one for one in _SCALING_FIELDS if one == named), None)
    if kind is None:
        raise UserError(
            f"rope type {shorten(named)} is not supported; this version reads "
            f"{', '.join(_SCALING_FIELDS)}"
        )
    partial = settings.get("partial_rotary_factor", config.get("partial_rotary_factor")) or 1
    if partial != 1:
        raise UserError(
            f"partial_rotary_factor={shorten(partial)} is not supported; "
            "only whole heads are rotated"
        )
    for needed in _NEEDED[kind]:
        # YaRN's factor may be null: it follows from the two contexts.
        if needed not in settings or (kind != "yarn" and settings[needed] is None):
            raise UserError(
                f"{name} says rope_type={kind} but no {needed}, without which nothing is "
                "stretched; download config.json again"
            )
    read = ConfigReader(settings, "rope")
    theta = settings.get("rope_theta", config.get("rope_theta"))
    # At theta 1 all pairs would turn equally fast; above 1e12, or with a factor of 1e6, none turns.
    found: dict[str, Any] = {
        "theta": Rope.theta
        if theta is None
        else ConfigReader({"rope_theta": theta}, "rope").float_("rope_theta", 2.0, 1e12)
    }
    if settings.get("original_max_position_embeddings") is None:
        context = config.get("max_position_embeddings")
        if isinstance(context, int) and context > 0:
            found["original_max_position_embeddings"] = context
    for name in _SCALING_FIELDS[kind]:
        if settings.get(name) is None:
            continue
        if name == "truncate":
            found[name] = bool(settings[name])
        elif name == "original_max_position_embeddings":
            found[name] = read.int_(name, 1, MAX_SIZES["max_position_embeddings"])
        else:
            found[name] = read.float_(name, 1e-6, 1e6)
    if kind == "yarn":
        found = _yarn(found, settings, config.get("max_position_embeddings"))
    kept = ("theta", *_SCALING_FIELDS[kind])
    return Rope(type=kind, **{name: value for name, value in found.items() if name in kept})


def _yarn(found: dict[str, Any], settings: dict[str, Any], context: Any) -> dict[str, Any]:
    """YaRN's settings with dependent values filled in, as in transformers."""
    if "factor" not in found and isinstance(context, int):
        original = found.get("original_max_position_embeddings", context)
        found["factor"] = max(1.0, context / original)
    if "attention_factor" not in found:
        factor = found.get("factor", 1.0)
        read = ConfigReader(settings, "rope")
        by, over = (
            read.float_(name, 1e-6, 1e6) if settings.get(name) else None
            for name in ("mscale", "mscale_all_dim")
        )
        if by and over:
            found["attention_factor"] = yarn_scale(factor, by) / yarn_scale(factor, over)
        else:
            found["attention_factor"] = yarn_scale(factor)
    return found


# Writing.


def config_to_hf(shape: ModelConfig, dtype: str = "float32") -> dict[str, Any]:
    """The contents of `config.json`, readable by transformers 4 and 5 and by vLLM."""
    family = shape.family
    config: dict[str, Any] = {
        "architectures": [family.architecture],
        "model_type": shape.model_type,
        "vocab_size": shape.vocab_size,
        "hidden_size": shape.hidden_size,
        "intermediate_size": shape.intermediate_size,
        "num_hidden_layers": shape.num_hidden_layers,
        "num_attention_heads": shape.num_attention_heads,
        "num_key_value_heads": shape.num_key_value_heads,
        "head_dim": shape.head_dim,
        "hidden_act": shape.hidden_act,
        "max_position_embeddings": shape.max_position_embeddings,
        "rms_norm_eps": shape.rms_norm_eps,
        "tie_word_embeddings": shape.tie_word_embeddings,
        "attention_bias": shape.attention_bias,
        "attention_dropout": 0.0,
        "bos_token_id": shape.bos_token_id,
        # The first id ends a turn; generation_config.json has all of them.
        "eos_token_id": shape.eos_token_ids[0] if shape.eos_token_ids else None,
        "pad_token_id": shape.pad_token_id,
        "dtype": dtype,
        "use_cache": True,
    }
    if family.recurrent:
        transformers_alone = (
            "intermediate_size",
            "num_attention_heads",
            "num_key_value_heads",
            "head_dim",
            "hidden_act",
            "attention_bias",
            "attention_dropout",
        )
        return {name: v for name, v in config.items() if name not in transformers_alone}
    if family.rotary or shape.position == "rope":
        rope = rope_to_hf(shape.rope)
        config |= {"rope_parameters": rope, "rope_theta": shape.rope.theta}
        if shape.rope.type != "default":
            config["rope_scaling"] = {k: v for k, v in rope.items() if k != "rope_theta"}
    if shape.model_type == "llama":
        config["mlp_bias"] = shape.mlp_bias
    if family.windows == "all layers":
        config["sliding_window"] = shape.sliding_window
    if family.windows == "some layers" and shape.sliding_window is not None:
        config |= _some_windows(shape)
    if family.windows == "all or none" and shape.sliding_window is not None:
        config |= {"use_sliding_window": True, "sliding_window": shape.sliding_window}
    if family.experts:
        config |= experts_to_hf(shape.experts)
    for name in ("attention_bias", "mlp_bias"):
        if name in family.defaults:  # fixed in this family, whose config has no such key
            config.pop(name, None)
    if not family.rotary:  # an older format: one key head per query head
        del config["num_key_value_heads"], config["head_dim"], config["attention_dropout"]
    config = {family.words.get(name, name): value for name, value in config.items()}
    if isinstance(shape.source.get("eos_token_id"), list):
        config["eos_token_id"] = list(shape.eos_token_ids)
    config |= {
        name: value for name, value in shape.source.items() if _is_written_back(name, config)
    }
    return config if not_in_hugging_face(shape) is None else config | own_to_hf(shape)


# Keys that are read into a field and written differently or not at all, and keys about weights and
# files of the source.
_REPLACED = {
    *("rope_parameters", "rope_scaling", "rope_theta", "partial_rotary_factor"),
    *("original_max_position_embeddings", "layer_types", "max_window_layers"),
    *("sliding_window", "use_sliding_window", "num_local_experts"),
    *("torch_dtype", "quantization_config", "auto_map"),
}
# Keys that are written but have no field: a foreign file may have other values.
_WITHOUT_FIELD = ("attention_dropout", "use_cache")


def _is_written_back(name: str, ours: Mapping[str, Any]) -> bool:
    """Whether a key of the source's config is written back as it was, next to our own keys."""
    return name in _WITHOUT_FIELD or (name not in ours and name not in _REPLACED)


def _some_windows(shape: ModelConfig) -> dict[str, Any]:
    windows = shape.windows
    full = [layer for layer, window in enumerate(windows) if window is None]
    return {
        "use_sliding_window": True,
        "sliding_window": shape.sliding_window,
        # Before `layer_types` only the layers from a certain index on could have a window.
        "max_window_layers": full[-1] + 1 if full else 0,
        "layer_types": [
            "full_attention" if window is None else "sliding_attention" for window in windows
        ],
    }


def rope_to_hf(rope: Rope) -> dict[str, Any]:
    scaling = {name: getattr(rope, name) for name in _SCALING_FIELDS[rope.type]}
    return {"rope_theta": rope.theta, "rope_type": rope.type, **scaling}
