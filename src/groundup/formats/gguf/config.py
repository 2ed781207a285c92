"""The settings in a GGUF file as our config, and ours as GGUF's.

    llama.block_count                      num_hidden_layers
    llama.attention.head_count_kv          num_key_value_heads
    llama.rope.freq_base, …scaling.*       rope (see `gguf_rope`)

(Names: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md.) A model with settings that ours
do not have is refused, because without them it would answer something else.
"""

from __future__ import annotations

from typing import Any

from groundup.errors import UserError
from groundup.formats.gguf.header import GGUFFile
from groundup.formats.gguf.rope import read_rope, rope_entries
from groundup.formats.gguf.settings import Settings
from groundup.formats.gguf.tokenizer import PREFIX, read_ids
from groundup.lm.config import ModelConfig
from groundup.lm.families import FAMILIES, GGUF_ARCHITECTURES, ModelType
from groundup.lm.rope import Rope


def read_config(file: GGUFFile) -> ModelConfig:
    """The shape of the model in a GGUF file, sizes within bounds and in line with its tensors."""
    path, architecture = file.path, file.text("general.architecture")
    # Llama and Mistral share a name; without a window the two are one.
    kinds = {theirs: ours for ours, theirs in GGUF_ARCHITECTURES.items() if ours != "mistral"}
    if architecture not in kinds:
        raise UserError(
            f"{path} holds a model of the architecture {architecture[:80]!r}; this version "
            f"reads {', '.join(kinds)} (SmolLM2 and Mistral are called llama)"
        )
    read = Settings(file, architecture)
    read.refuse_other_models()
    window = read.whole("attention.sliding_window", "sliding_window", default=0, least=0)
    kind: ModelType = "mistral" if window and architecture == "llama" else kinds[architecture]
    family = FAMILIES[kind]
    width = read.whole("embedding_length", "hidden_size")
    heads = read.whole("attention.head_count", "num_attention_heads")
    head_dim = _head_dim(read, width, heads)
    context = read.context(rotary=family.rotary)
    layer_norm = "attention.layer_norm_epsilon"
    epsilon = "attention.layer_norm_rms_epsilon" if family.norm == "rms" else layer_norm
    ids = read_ids(file)
    always = family.defaults  # Qwen2 and GPT-2 have biases, others where there are tensors of them
    try:
        return ModelConfig(
            vocab_size=_vocabulary(read),
            hidden_size=width,
            intermediate_size=read.whole("feed_forward_length", "intermediate_size"),
            num_hidden_layers=read.layers(),
            num_attention_heads=heads,
            num_key_value_heads=read.whole(
                "attention.head_count_kv", "num_key_value_heads", default=heads
            ),
            head_dim=head_dim,
            max_position_embeddings=context,
            rope=read_rope(read, head_dim, context) if family.rotary else Rope(),
            rms_norm_eps=file.real(read.name(epsilon), 0.0, 1.0),
            tie_word_embeddings="output.weight" not in file.tensors,
            model_type=kind,
            hidden_act="silu" if family.gated else "gelu_new",  # llama.cpp's GELU is that one
            attention_bias=always.get("attention_bias", read.has_bias("attn_q")),
            mlp_bias=always.get("mlp_bias", read.has_bias("ffn_up")),
            sliding_window=window if kind == "mistral" else None,
            bos_token_id=ids.begin,
            eos_token_ids=ids.ends,
            pad_token_id=ids.padding,
        )
    except UserError as error:  # of the sizes among each other, which do not know their file
        raise UserError(str(error) if str(path) in str(error) else f"{path}: {error}") from None


def _head_dim(read: Settings, width: int, heads: int) -> int:
    keys = read.whole("attention.key_length", "head_dim", default=max(1, width // heads))
    if read.whole("attention.value_length", "head_dim", default=keys) != keys:
        read.refuse("attention.value_length", f"as large as that of keys, {keys}")
    return keys


def _vocabulary(read: Settings) -> int:
    rows = read.rows("token_embd.weight", "vocab_size")
    if (words := len(read.file.texts(f"{PREFIX}tokens"))) > rows:
        raise UserError(
            f"{read.file.path} has {words:,} tokens, but vectors for {rows:,}; download it again"
        )
    return rows


# Writing.


def config_entries(config: ModelConfig) -> dict[str, Any]:
    """The metadata entries of our config, under its architecture's name.

    Raises `UserError` for what llama.cpp has no word for.
    """
    _refuse_unknown_to_llama_cpp(config)
    context = config.max_position_embeddings
    if config.sliding_window is not None:
        # llama.cpp has no window for these families. While a text is no longer than the window,
        # there is none to see; so that is how much the model may be given.
        context = min(context, config.sliding_window)
    family = config.family
    epsilon = "layer_norm_rms_epsilon" if family.norm == "rms" else "layer_norm_epsilon"
    entries: dict[str, Any] = {
        "context_length": context,
        "embedding_length": config.hidden_size,
        "block_count": config.num_hidden_layers,
        "feed_forward_length": config.intermediate_size,
        "attention.head_count": config.num_attention_heads,
        "attention.head_count_kv": config.num_key_value_heads,
        f"attention.{epsilon}": config.rms_norm_eps,
        "vocab_size": config.vocab_size,
    }
    if family.rotary:
        entries |= {
            "attention.key_length": config.head_dim,
            "attention.value_length": config.head_dim,
            "rope.dimension_count": config.head_dim,
            "rope.freq_base": config.rope.theta,
            **{f"rope.scaling.{name}": value for name, value in rope_entries(config.rope).items()},
        }
    if config.model_type == "mistral" and config.sliding_window is not None:
        entries["attention.sliding_window"] = config.sliding_window
    architecture = GGUF_ARCHITECTURES[config.model_type]
    return {f"{architecture}.{name}": value for name, value in entries.items()}


def _refuse_unknown_to_llama_cpp(config: ModelConfig) -> None:
    kind, rope = config.model_type, config.rope
    remedy = "export to the Hugging Face format"
    if not config.family.gated and config.hidden_act not in ("gelu_new", "gelu_pytorch_tanh"):
        raise UserError(f"hidden_act={config.hidden_act!r} is not known to llama.cpp; {remedy}")
    if rope.type == "llama3" and GGUF_ARCHITECTURES[kind] != "llama":
        raise UserError(f"llama.cpp has no {rope.type} RoPE for a {kind}; {remedy}")
    if rope.type == "yarn" and not rope.truncate:
        raise UserError(f"llama.cpp always rounds YaRN's bounds (truncate=False); {remedy}")
    if kind == "qwen3" and (config.attention_bias or config.mlp_bias):
        raise UserError(f"llama.cpp has no biases for a {kind}; {remedy}")
    if kind == "qwen2" and config.mlp_bias:
        raise UserError(f"llama.cpp has no biases in the feed-forward part of a {kind}; {remedy}")
