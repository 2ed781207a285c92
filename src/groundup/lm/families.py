"""The supported model families: how each one differs, and what it calls sizes and tensors.

Our own models are Qwen3-shaped and our parameters carry Qwen3's names. The tables here list what
each other family adds or lacks, how its `config.json` names a size, and under which name its files
store a tensor. A family in GGUF files also needs its name in `formats.gguf.settings`. One with a
part that ours lack needs a field in `config` and code in `model`, `sizes` and `generation.kernel`,
whose `is_plain` must refuse it or whose kernel must compute it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

ModelType = Literal["qwen3", "qwen3_moe", "qwen2", "llama", "mistral", "gpt2", "lstm", "gru"]
Norm = Literal["rms", "layer"]


@dataclass(frozen=True)
class Stored:
    """Where a file stores one of our tensors.

    `transposed`: as (in, out), GPT-2's "Conv1D". `part` (i, n): the i-th of n equal slices of the
    output dimension of one stored tensor.
    """

    name: str
    transposed: bool = False
    part: tuple[int, int] | None = None


@dataclass(frozen=True)
class Family:
    """An architecture apart from its sizes.

    `defaults` are the values of keys missing in its `config.json`; `words` maps our config fields
    to its keys; `weights` maps our tensor names ("{}" is the layer) to its own where they differ;
    `ignored` is a pattern of stored names that hold nothing learned (old files store tensors that
    follow from the config)."""

    architecture: str
    defaults: Mapping[str, Any]
    norm: Norm = "rms"
    gated: bool = True
    """A gated feed-forward part (SwiGLU), else two matrices with an activation between them."""
    rotary: bool = True
    """RoPE, else learned position embeddings."""
    qk_norm: bool = False
    """Queries and keys are normalized per head before RoPE."""
    output_bias: bool = True
    """If queries, keys and values have biases, the output projection has one, too."""
    windows: Literal["none", "all layers", "all or none", "some layers"] = "none"
    """The layers that may look no further back than `sliding_window` tokens."""
    experts: bool = False
    """A mixture of experts replaces each feed-forward part."""
    recurrent: bool = False
    """A recurrent network (`rnn`) instead of a transformer; Hugging Face has no such family."""
    words: Mapping[str, str] = field(default_factory=dict)
    weights: Mapping[str, Stored] = field(default_factory=dict)
    ignored: str = r"rotary_emb\.inv_freq$"


_GPT2_WORDS = {
    "hidden_size": "n_embd",
    "intermediate_size": "n_inner",
    "num_hidden_layers": "n_layer",
    "num_attention_heads": "n_head",
    "max_position_embeddings": "n_positions",
    "rms_norm_eps": "layer_norm_epsilon",
    "hidden_act": "activation_function",
}


def _gpt2_weights() -> dict[str, Stored]:
    """Queries, keys and values are one matrix, and every matrix is (in, out)."""
    layer = "model.layers.{}."
    table = {
        "model.embed_tokens.weight": Stored("wte.weight"),
        "model.embed_positions.weight": Stored("wpe.weight"),
    }
    for ours, theirs in (("model.norm", "ln_f"), (f"{layer}input_layernorm", "h.{}.ln_1")):
        table |= {f"{ours}.{part}": Stored(f"{theirs}.{part}") for part in ("weight", "bias")}
    for part in ("weight", "bias"):
        turned = part == "weight"
        norm = f"{layer}post_attention_layernorm.{part}"
        table[norm] = Stored(f"h.{{}}.ln_2.{part}")
        for i, name in enumerate(("q_proj", "k_proj", "v_proj")):
            joined = Stored(f"h.{{}}.attn.c_attn.{part}", turned, (i, 3))
            table[f"{layer}self_attn.{name}.{part}"] = joined
        for ours, theirs in (
            ("self_attn.o_proj", "attn.c_proj"),
            ("mlp.up_proj", "mlp.c_fc"),
            ("mlp.down_proj", "mlp.c_proj"),
        ):
            table[f"{layer}{ours}.{part}"] = Stored(f"h.{{}}.{theirs}.{part}", turned)
    return {name: _under("transformer.", stored) for name, stored in table.items()}


def _under(prefix: str, stored: Stored) -> Stored:
    return Stored(prefix + stored.name, stored.transposed, stored.part)


_LLAMA_LIKE = {"hidden_act": "silu", "rms_norm_eps": 1e-6, "tie_word_embeddings": False}

FAMILIES: Mapping[str, Family] = {
    "qwen3": Family(
        "Qwen3ForCausalLM",
        {**_LLAMA_LIKE, "head_dim": 128, "max_position_embeddings": 32_768},
        qk_norm=True,
        windows="some layers",
    ),
    "qwen2": Family(
        "Qwen2ForCausalLM",
        {**_LLAMA_LIKE, "max_position_embeddings": 32_768, "attention_bias": True},
        output_bias=False,
        windows="some layers",
    ),
    "llama": Family(
        "LlamaForCausalLM",
        {**_LLAMA_LIKE, "max_position_embeddings": 2_048},
    ),
    "mistral": Family(
        "MistralForCausalLM",
        {
            **_LLAMA_LIKE,
            "max_position_embeddings": 131_072,
            "num_key_value_heads": 8,
            "sliding_window": 4_096,
        },
        windows="all layers",
    ),
    "gpt2": Family(
        "GPT2LMHeadModel",
        {
            "hidden_act": "gelu_new",
            "rms_norm_eps": 1e-5,
            "tie_word_embeddings": True,
            "max_position_embeddings": 1_024,
            "attention_bias": True,
            "mlp_bias": True,
        },
        norm="layer",
        gated=False,
        rotary=False,
        words=_GPT2_WORDS,
        weights=_gpt2_weights(),
        ignored=r"\.attn\.(masked_)?bias$",  # the causal triangle
    ),
    "qwen3_moe": Family(
        "Qwen3MoeForCausalLM",
        {
            **_LLAMA_LIKE,
            "max_position_embeddings": 32_768,
            "intermediate_size": 6_144,
            "num_experts": 128,
            "num_experts_per_tok": 8,
            "moe_intermediate_size": 768,
            "router_aux_loss_coef": 0.001,
            "sliding_window": 4_096,
        },
        qk_norm=True,
        windows="all or none",
        experts=True,
    ),
    "lstm": Family("LSTMForCausalLM", {}, recurrent=True),
    "gru": Family("GRUForCausalLM", {}, recurrent=True),
}

_LAYER = re.compile(r"(?<=\.layers\.)\d+(?=\.)")


def stored_as(model_type: str, name: str) -> Stored:
    """Where a file of this family stores our tensor `name`."""
    layer = _LAYER.search(name)
    number = layer.group() if layer else ""
    stored = FAMILIES[model_type].weights.get(_LAYER.sub("{}", name, count=1))
    if stored is None:
        return Stored(name)
    return Stored(stored.name.format(number), stored.transposed, stored.part)
