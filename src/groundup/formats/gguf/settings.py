"""Converts the settings in a GGUF file to our config, and back.

    llama.block_count                      num_hidden_layers
    llama.attention.head_count_kv          num_key_value_heads
    llama.rope.freq_base, …scaling.*       rope

(Names: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md.) A model with unsupported
settings is refused, because ignoring them would change its answers.

The entries `rope.scaling.*` describe linear and YaRN stretching. Llama 3's is stored as a tensor,
`rope_freqs`: the divisor of each frequency, without the settings from which it was computed.
"""

from __future__ import annotations

import math
import re
from dataclasses import replace
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt
import torch
from gguf import Keys

from groundup.errors import UserError
from groundup.formats.gguf.header import GGUFFile
from groundup.formats.gguf.tokenizer import read_ids
from groundup.formats.own_config import not_in_hugging_face
from groundup.lm.config import MAX_SIZES, ModelConfig, Rope, yarn_scale
from groundup.lm.families import FAMILIES, ModelType
from groundup.lm.positions import inverse_frequencies

# GGUF's name for each family. llama.cpp treats Mistral as a Llama, without a window.
ARCHITECTURES: dict[ModelType, str] = {
    "qwen3": "qwen3",
    "qwen2": "qwen2",
    "llama": "llama",
    "mistral": "llama",
    "gpt2": "gpt2",
}
# Settings of other models under the same architecture's name, and their values in our models.
_OTHERS: dict[str, Any] = {
    Keys.LLM.EXPERT_COUNT: 0,
    Keys.LLM.EXPERT_USED_COUNT: 0,
    Keys.Attention.CAUSAL: True,
    Keys.Attention.CLAMP_KQV: 0.0,
    Keys.Attention.MAX_ALIBI_BIAS: 0.0,
    Keys.LLM.ATTN_LOGIT_SOFTCAPPING: 0.0,
    Keys.LLM.FINAL_LOGIT_SOFTCAPPING: 0.0,
    Keys.LLM.LOGIT_SCALE: 0.0,
    Keys.LLM.POOLING_TYPE: 0,
}

FREQUENCY_FACTORS = "rope_freqs.weight"
Factors = npt.NDArray[np.float32]

# The values of Llama 3.1, 3.2 and 3.3.
_LLAMA3 = Rope(
    type="llama3", low_freq_factor=1, high_freq_factor=4, original_max_position_embeddings=8192
)
# Entries of our own: llama.cpp uses only the tensor.
_LOW, _HIGH = "{arch}.rope.scaling.low_freq_factor", "{arch}.rope.scaling.high_freq_factor"
# Not `rope.scaling.factor`, by which llama.cpp would also divide all positions.
_LLAMA3_FACTOR = "{arch}.rope.scaling.llama3_factor"
_SCALE_BEFORE_2024 = "{arch}.rope.scale_linear"


# Reading.


def read_config(file: GGUFFile) -> ModelConfig:
    """The shape of the model in a GGUF file, with sizes checked against bounds and tensors."""
    path, architecture = file.path, file.str_(Keys.General.ARCHITECTURE)
    # Llama and Mistral share a name; without a window they are the same.
    kinds = {theirs: ours for ours, theirs in ARCHITECTURES.items() if ours != "mistral"}
    if architecture not in kinds:
        raise UserError(
            f"{path} holds a model of the architecture {architecture[:80]!r}; this version "
            f"reads {', '.join(kinds)} (SmolLM2 and Mistral are called llama)"
        )
    read = _Settings(file, architecture)
    read.refuse_unsupported_settings()
    window = read.int_(Keys.Attention.SLIDING_WINDOW, "sliding_window", default=0, least=0)
    kind: ModelType = "mistral" if window and architecture == "llama" else kinds[architecture]
    family = FAMILIES[kind]
    width = read.int_(Keys.LLM.EMBEDDING_LENGTH, "hidden_size")
    heads = read.int_(Keys.Attention.HEAD_COUNT, "num_attention_heads")
    head_dim = read.int_(Keys.Attention.KEY_LENGTH, "head_dim", default=max(1, width // heads))
    if read.int_(Keys.Attention.VALUE_LENGTH, "head_dim", default=head_dim) != head_dim:
        read.refuse(Keys.Attention.VALUE_LENGTH, f"the same as for keys, {head_dim}")
    context = read.int_(Keys.LLM.CONTEXT_LENGTH, "max_position_embeddings")
    if not family.rotary:
        context = read.rows("position_embd.weight", "max_position_embeddings")
    ids = read_ids(file)
    vocab_size = read.rows("token_embd.weight", "vocab_size")
    if (words := len(file.str_list(Keys.Tokenizer.LIST))) > vocab_size:
        raise UserError(
            f"{path} has {words:,} tokens, but embeddings for {vocab_size:,}; download it again"
        )
    always = family.defaults  # Qwen2 and GPT-2 always have biases, others if their tensors exist
    try:
        return ModelConfig(
            vocab_size=vocab_size,
            hidden_size=width,
            intermediate_size=read.int_(Keys.LLM.FEED_FORWARD_LENGTH, "intermediate_size"),
            num_hidden_layers=read.layers(),
            num_attention_heads=heads,
            num_key_value_heads=read.int_(
                Keys.Attention.HEAD_COUNT_KV, "num_key_value_heads", default=heads
            ),
            head_dim=head_dim,
            max_position_embeddings=context,
            rope=_rope(read, head_dim, context) if family.rotary else Rope(),
            rms_norm_eps=file.float_(read.name(_epsilon(kind)), 0.0, 1.0),
            tie_word_embeddings="output.weight" not in file.tensors,
            model_type=kind,
            hidden_act="silu" if family.gated else "gelu_new",  # llama.cpp's GELU
            attention_bias=always.get("attention_bias", "blk.0.attn_q.bias" in file.tensors),
            mlp_bias=always.get("mlp_bias", "blk.0.ffn_up.bias" in file.tensors),
            sliding_window=window if kind == "mistral" else None,
            bos_token_id=ids.begin,
            eos_token_ids=ids.ends,
            pad_token_id=ids.padding,
        )
    except UserError as error:  # inconsistent sizes: add the file's name
        raise UserError(str(error) if str(path) in str(error) else f"{path}: {error}") from None


def _epsilon(kind: ModelType) -> str:
    rms = FAMILIES[kind].norm == "rms"
    return Keys.Attention.LAYERNORM_RMS_EPS if rms else Keys.Attention.LAYERNORM_EPS


class _Settings:
    """The entries of one architecture, each checked against our bounds."""

    def __init__(self, file: GGUFFile, architecture: str) -> None:
        self.file, self._architecture = file, architecture

    def name(self, setting: str) -> str:
        return setting.format(arch=self._architecture)

    def has(self, setting: str) -> bool:
        return self.name(setting) in self.file.metadata

    def refuse(self, setting: str, rule: str) -> NoReturn:
        name = self.name(setting)
        self.file.refuse(name, self.file.metadata.get(name), rule)

    def refuse_unsupported_settings(self) -> None:
        for setting, ours in _OTHERS.items():
            found = self.file.metadata.get(self.name(setting), ours)
            if isinstance(found, int | float) and found != ours:
                self.refuse(setting, f"{ours}, as in supported models")
        for tensor in self.file.tensors:
            if tensor.startswith("rope_factors_"):
                raise UserError(
                    f"{self.file.path} stretches RoPE by the tensor {tensor[:80]!r} (LongRoPE), "
                    "which is not supported; use another model"
                )

    def int_(self, setting: str, ours: str, default: int | None = None, least: int = 1) -> int:
        """A size; some files give one per layer, which must be the same for all."""
        name = self.name(setting)
        found = self.file.metadata.get(name)
        if not isinstance(found, np.ndarray | list):
            return self.file.int_(name, least, MAX_SIZES[ours], default)
        if {str(one) for one in found} != {str(found[0] if len(found) else None)}:
            self.refuse(setting, "the same in all layers")
        one = int(found[0]) if isinstance(found, np.ndarray) and found.dtype.kind in "iu" else 0
        if not least <= one <= MAX_SIZES[ours]:
            largest = MAX_SIZES[ours]
            self.refuse(setting, f"a whole number from {least} to {largest:,} for each layer")
        return one

    def float_(self, setting: str, least: float, default: float | None = None) -> float:
        return self.file.float_(self.name(setting), least, 1e6, default)

    def rows(self, tensor: str, ours: str) -> int:
        if tensor not in self.file.tensors:
            raise UserError(f"{self.file.path} lacks the tensor {tensor}; download it again")
        rows = self.file.tensors[tensor].shape[0]
        if rows > MAX_SIZES[ours]:
            raise UserError(
                f"{self.file.path}: tensor {tensor} has {rows:,} rows; at most "
                f"{MAX_SIZES[ours]:,} are supported: no model has that many, so check where the "
                "file comes from"
            )
        return rows

    def layers(self) -> int:
        """The number of layers, checked against the tensors before any layer is built."""
        said = self.int_(Keys.LLM.BLOCK_COUNT, "num_hidden_layers")
        blocks = {
            int(found[1])
            for one in self.file.tensors
            if (found := re.match(r"blk\.(\d{1,9})\.", one))
        }
        if blocks != set(range(said)):
            raise UserError(
                f"{self.file.path} says that it has {said:,} layers but has tensors of "
                f"{len(blocks):,}; download it again"
            )
        return said


def _rope(read: _Settings, head_dim: int, context: int) -> Rope:
    """RoPE's settings, from entries and from the tensor of Llama 3 files."""
    file = read.file
    if read.int_(Keys.Rope.DIMENSION_COUNT, "head_dim", default=head_dim) != head_dim:
        read.refuse(Keys.Rope.DIMENSION_COUNT, f"the whole head, {head_dim}")
    # At 1 all pairs would turn equally fast, and YaRN divides by its logarithm.
    plain = Rope(theta=file.float_(read.name(Keys.Rope.FREQ_BASE), 1.001, 1e12, 10_000.0))
    scaled = _scaled(read, plain, context)
    if FREQUENCY_FACTORS not in file.tensors:
        return scaled
    factors = _factors(file, head_dim)
    if np.array_equal(factors, np.ones_like(factors)):
        return scaled
    if scaled != plain:
        raise UserError(
            f"{file.path} stretches RoPE both by the tensor {FREQUENCY_FACTORS} and by the entries "
            f"rope.scaling ({scaled.type}), which is not supported; use another model"
        )
    return _llama3(read, plain, head_dim, factors)


def _scaled(read: _Settings, plain: Rope, context: int) -> Rope:
    """RoPE as described by the entries rope.scaling."""
    file = read.file
    # Without a type llama.cpp divides positions by the factor, if there is one.
    kind = file.str_(read.name(Keys.Rope.SCALING_TYPE), "linear")
    factor = read.float_(Keys.Rope.SCALING_FACTOR, 0.0, 1.0) or 1.0
    if not read.has(Keys.Rope.SCALING_FACTOR) and read.has(_SCALE_BEFORE_2024):
        factor = read.float_(_SCALE_BEFORE_2024, 1e-6)
    more = read.float_(Keys.Rope.SCALING_ATTN_FACTOR, 1e-6, 1.0)
    if kind in ("none", "linear") and more != 1.0:
        # llama.cpp multiplies cosines and sines by it, whatever the type.
        read.refuse(Keys.Rope.SCALING_ATTN_FACTOR, "1 if RoPE is not scaled by yarn")
    if kind == "none" or (kind == "linear" and factor == 1.0):
        return plain
    if kind == "linear":
        return replace(plain, type="linear", factor=factor)
    if kind != "yarn":
        read.refuse(Keys.Rope.SCALING_TYPE, "none, linear or yarn")
    scale = yarn_scale(factor)
    if more != 1.0:
        # The file stores a float32 quotient; restore the original decimal.
        scale = float(str(np.float32(scale * more)))
    original = read.name(Keys.Rope.SCALING_ORIG_CTX_LEN)
    return replace(
        plain,
        type="yarn",
        factor=factor,
        original_max_position_embeddings=file.int_(original, default=context),
        beta_fast=read.float_(Keys.Rope.SCALING_YARN_BETA_FAST, 1e-6, 32.0),
        beta_slow=read.float_(Keys.Rope.SCALING_YARN_BETA_SLOW, 1e-6, 1.0),
        attention_factor=scale,
    )


def frequency_factors(rope: Rope, head_dim: int) -> Factors:
    """The divisors of the frequencies in Llama 3's stretching: `rope_freqs.weight`."""
    cpu = torch.device("cpu")
    plain = inverse_frequencies(Rope(theta=rope.theta), head_dim, cpu)
    factors: Factors = (plain / inverse_frequencies(rope, head_dim, cpu)).numpy()
    return factors


def _factors(file: GGUFFile, head_dim: int) -> Factors:
    tensor = file.tensors[FREQUENCY_FACTORS]
    if tensor.shape != (head_dim // 2,) or tensor.type.name != "F32":
        raise UserError(
            f"{file.path}: tensor {FREQUENCY_FACTORS} must be {head_dim // 2} numbers in F32; "
            "convert or download the model again"
        )
    return np.array(file.stored_bytes(tensor).view(np.float32))


def _llama3(read: _Settings, plain: Rope, head_dim: int, factors: Factors) -> Rope:
    """Find the settings from which the factors in the file were computed, and check them."""
    file = read.file
    if np.isfinite(factors).all() and 1.0 <= factors.min() <= factors.max() <= 1e6:
        # The tensor shows the factor only if the slowest pair is fully slowed.
        largest = float(factors.max())
        known = replace(_LLAMA3, factor=largest)
        for settings in (_read_written(read, largest), known, _fit(plain, head_dim, factors)):
            if settings is None:
                continue
            rope = replace(settings, theta=plain.theta)
            if np.allclose(frequency_factors(rope, head_dim), factors, rtol=1e-4):
                return rope
    raise UserError(
        f"{file.path} stretches RoPE by the tensor {FREQUENCY_FACTORS} in a way that is not Llama "
        "3's and not supported; use another model"
    )


def _read_written(read: _Settings, largest: float) -> Rope | None:
    """The settings as written by `config_entries`, which a fit might not recover.

    Files of earlier versions lack the factor; then it is the largest in the tensor.
    """
    if not all(map(read.has, (_LOW, _HIGH, Keys.Rope.SCALING_ORIG_CTX_LEN))):
        return None
    low, high = read.float_(_LOW, 1e-6), read.float_(_HIGH, 1e-6)
    if not low < high:
        read.refuse(_LOW, f"less than high_freq_factor, {high:g}")
    return replace(
        _LLAMA3,
        factor=read.float_(_LLAMA3_FACTOR, 1.0, largest),
        low_freq_factor=low,
        high_freq_factor=high,
        original_max_position_embeddings=read.file.int_(read.name(Keys.Rope.SCALING_ORIG_CTX_LEN)),
    )


def _fit(plain: Rope, head_dim: int, factors: Factors) -> Rope | None:
    """The settings of the straight line on which the factors between the bounds lie.

    With t = frequency / 2 pi, the share kept is (original * t - low) / (high - low) between 0 and
    1. A line determines only two of the three; `low` is 1 in every Llama.
    """
    kept = (1 / factors - 1 / factors.max()) / (1 - 1 / factors.max())
    between = (kept > 1e-3) & (kept < 1 - 1e-3)
    turns = inverse_frequencies(plain, head_dim, torch.device("cpu")).numpy() / (2 * math.pi)
    x, y = turns[between].astype(np.float64), kept[between].astype(np.float64)
    if len(x) < 2 or not x.var() > 0:
        return None
    slope = float(((x - x.mean()) * (y - y.mean())).mean() / x.var())  # least squares
    below = float(y.mean()) - slope * float(x.mean())
    if not (below < 0 < slope):
        return None
    width = -1 / below
    original = round(slope * width)
    if not 1 <= original <= MAX_SIZES["max_position_embeddings"]:
        return None
    return replace(
        _LLAMA3,
        factor=float(factors.max()),
        high_freq_factor=1 + width,
        original_max_position_embeddings=original,
    )


# Writing.


def config_entries(config: ModelConfig) -> dict[str, Any]:
    """The metadata entries of our config, under its architecture's name.

    Raises `UserError` for settings that llama.cpp cannot express.
    """
    _refuse_unsupported_by_llama_cpp(config)
    entries: dict[str, Any] = {
        Keys.LLM.CONTEXT_LENGTH: context_of(config),
        Keys.LLM.EMBEDDING_LENGTH: config.hidden_size,
        Keys.LLM.BLOCK_COUNT: config.num_hidden_layers,
        Keys.LLM.FEED_FORWARD_LENGTH: config.intermediate_size,
        Keys.Attention.HEAD_COUNT: config.num_attention_heads,
        Keys.Attention.HEAD_COUNT_KV: config.num_key_value_heads,
        _epsilon(config.model_type): config.rms_norm_eps,
        Keys.LLM.VOCAB_SIZE: config.vocab_size,
    }
    if config.family.rotary:
        entries |= {
            Keys.Attention.KEY_LENGTH: config.head_dim,
            Keys.Attention.VALUE_LENGTH: config.head_dim,
            Keys.Rope.DIMENSION_COUNT: config.head_dim,
            Keys.Rope.FREQ_BASE: config.rope.theta,
            **_rope_entries(config.rope),
        }
    if config.model_type == "mistral" and config.sliding_window is not None:
        entries[Keys.Attention.SLIDING_WINDOW] = config.sliding_window
    architecture = ARCHITECTURES[config.model_type]
    return {name.format(arch=architecture): value for name, value in entries.items()}


def context_of(config: ModelConfig) -> int:
    """The context length for llama.cpp, which has no window for these families.

    For texts no longer than the window, the window has no effect.
    """
    windows = (window for window in config.windows if window is not None)
    return min([config.max_position_embeddings, *windows])


def _rope_entries(rope: Rope) -> dict[str, Any]:
    original = {Keys.Rope.SCALING_ORIG_CTX_LEN: rope.original_max_position_embeddings}
    if rope.type == "linear":
        return {Keys.Rope.SCALING_TYPE: "linear", Keys.Rope.SCALING_FACTOR: rope.factor}
    if rope.type == "yarn":
        return {
            Keys.Rope.SCALING_TYPE: "yarn",
            Keys.Rope.SCALING_FACTOR: rope.factor,
            **original,
            Keys.Rope.SCALING_YARN_BETA_FAST: rope.beta_fast,
            Keys.Rope.SCALING_YARN_BETA_SLOW: rope.beta_slow,
            # llama.cpp multiplies by the paper's scale itself; this is the remaining factor.
            Keys.Rope.SCALING_ATTN_FACTOR: rope.attention_factor / yarn_scale(rope.factor),
        }
    if rope.type == "llama3":
        return {
            _LLAMA3_FACTOR: rope.factor,
            _LOW: rope.low_freq_factor,
            _HIGH: rope.high_freq_factor,
            **original,
        }
    return {}


def _refuse_unsupported_by_llama_cpp(config: ModelConfig) -> None:
    kind, rope = config.model_type, config.rope
    remedy = "export to the Hugging Face format"
    if (why := not_in_hugging_face(config)) is not None:
        raise UserError(
            f"{why}, and llama.cpp does not support it either; use the folder with groundup itself"
        )
    if config.experts is not None:
        raise UserError(f"GGUF files with experts are not written; {remedy}")
    if config.gated and config.hidden_act != "silu":
        raise UserError(f"llama.cpp has no hidden_act={config.hidden_act!r} for a {kind}; {remedy}")
    if not config.gated and config.hidden_act not in ("gelu_new", "gelu_pytorch_tanh"):
        raise UserError(f"hidden_act={config.hidden_act!r} is not known to llama.cpp; {remedy}")
    if rope.type == "llama3" and ARCHITECTURES[kind] != "llama":
        raise UserError(f"llama.cpp has no {rope.type} RoPE for a {kind}; {remedy}")
    if rope.type == "llama3" and not rope.low_freq_factor < rope.high_freq_factor:
        raise UserError(
            f"low_freq_factor={rope.low_freq_factor:g} is not less than high_freq_factor="
            f"{rope.high_freq_factor:g}, which a GGUF file of {rope.type} RoPE requires; {remedy}"
        )
    if rope.type == "llama3" and rope.factor < 1:
        raise UserError(
            f"factor={rope.factor:g} is not 1 or more, which a GGUF file of {rope.type} RoPE asks "
            f"for; {remedy}"
        )
    if rope.type == "yarn" and not rope.truncate:
        raise UserError(f"llama.cpp always rounds YaRN's bounds (truncate=False); {remedy}")
    if rope.type == "yarn" and (rope.beta_fast, rope.beta_slow) != (32, 1):
        # llama.cpp ignores these entries in files of these families.
        raise UserError(
            f"llama.cpp takes YaRN's bounds at 32 and 1 turns (beta_fast={rope.beta_fast:g}, "
            f"beta_slow={rope.beta_slow:g}); {remedy}"
        )
    if kind == "qwen3" and (config.attention_bias or config.mlp_bias):
        raise UserError(f"llama.cpp has no biases for a {kind}; {remedy}")
    if kind == "qwen2" and config.mlp_bias:
        raise UserError(f"llama.cpp has no biases in the feed-forward part of a {kind}; {remedy}")
