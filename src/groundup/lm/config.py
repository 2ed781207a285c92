"""The shape of a transformer, in Hugging Face's words, without torch.

One dataclass describes every architecture that we read: what differs between Qwen3 and GPT-2 is a
field here or a row in `families`, never another model class.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from groundup.deprecated import moved
from groundup.errors import UserError
from groundup.lm.families import FAMILIES, Family, ModelType

# Larger sizes are damage or malice: no machine holds such a model, and merely to describe it would
# take memory and time.
MOST = {
    "vocab_size": 2**24,
    "hidden_size": 2**17,
    "intermediate_size": 2**20,
    "num_hidden_layers": 1_024,
    "num_attention_heads": 4_096,
    "num_key_value_heads": 4_096,
    "head_dim": 2**14,
    "max_position_embeddings": 2**31,
    "sliding_window": 2**31,
}

Activation = Literal["silu", "gelu", "gelu_new", "gelu_pytorch_tanh", "relu"]
ACTIVATIONS: tuple[Activation, ...] = ("silu", "gelu", "gelu_new", "gelu_pytorch_tanh", "relu")


RopeType = Literal["default", "linear", "llama3", "yarn"]


@dataclass(frozen=True)
class Rope:
    """Rotary position embedding (Su et al. 2021) and how its frequencies are stretched.

    `linear`: positions divided by `factor` (Chen et al. 2023). `llama3`: low frequencies divided
    by `factor`, high ones kept, with a smooth passage between (Llama 3, section 3.2). `yarn`: the
    same idea with other bounds, and cosines and sines scaled by `attention_factor` (Peng et al.
    2023, YaRN, sections 3.2 and 3.4).
    """

    theta: float = 10_000.0
    type: RopeType = "default"
    factor: float = 1.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_max_position_embeddings: int = 8_192
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    attention_factor: float = 1.0
    truncate: bool = True
    """Whether YaRN's bounds are rounded outwards to whole pairs of features."""


def yarn_scale(factor: float, by: float = 1.0) -> float:
    """0.1 ln(factor) + 1: how much sharper attention should be (Peng et al. 2023, eq. 22)."""
    return 0.1 * by * math.log(factor) + 1.0 if factor > 1 else 1.0


@dataclass(frozen=True)
class ModelConfig:
    """A decoder-only transformer; by default Qwen3's: RMSNorm, RoPE, grouped queries, SwiGLU."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int = 64
    max_position_embeddings: int = 1_024
    rope: Rope = field(default_factory=Rope)
    rms_norm_eps: float = 1e-6
    tie_word_embeddings: bool = True
    model_type: ModelType = "qwen3"
    hidden_act: Activation = "silu"
    attention_bias: bool = False
    """Whether queries, keys and values have biases, and the output where the family has it."""
    mlp_bias: bool = False
    sliding_window: int | None = None
    """How many tokens back a layer may look, itself included (Beltagy et al. 2020, section 3.1)."""
    windowed_layers: tuple[int, ...] | None = None
    """Which layers have the window; None: all of them."""
    bos_token_id: int | None = 0
    eos_token_ids: tuple[int, ...] = (2, 0)
    pad_token_id: int | None = 0

    def __post_init__(self) -> None:
        for name, most in MOST.items():
            value = getattr(self, name)
            if value is not None and not 1 <= value <= most:
                raise UserError(f"{name}={value} must be from 1 to {most:,}; check config.json")
        if self.num_attention_heads % self.num_key_value_heads:
            raise UserError(
                f"num_key_value_heads={self.num_key_value_heads} does not divide "
                f"num_attention_heads={self.num_attention_heads}; "
                f"try one of {divisors(self.num_attention_heads)}"
            )
        if self.head_dim % 2 and self.family.rotary:
            raise UserError(f"head_dim={self.head_dim} is odd, but RoPE turns pairs; try 64")

    @property
    def family(self) -> Family:
        """What this architecture is beside its sizes."""
        return FAMILIES[self.model_type]

    @property
    def qk_norm(self) -> bool:
        """Whether queries and keys are normalized per head before RoPE, as in Qwen3."""
        return self.family.qk_norm

    @property
    def output_bias(self) -> bool:
        """Whether attention's output projection has a bias."""
        return self.attention_bias and self.family.output_bias

    @property
    def windows(self) -> tuple[int | None, ...]:
        """For each layer how far back it may look; None: to the beginning."""
        layers = range(self.num_hidden_layers)
        chosen = layers if self.windowed_layers is None else self.windowed_layers
        return tuple(self.sliding_window if layer in chosen else None for layer in layers)

    @classmethod
    def of(
        cls,
        *,
        width: int,
        depth: int,
        vocab_size: int,
        context: int,
        heads: int | None = None,
        kv_heads: int | None = None,
    ) -> ModelConfig:
        """Our own shape: Qwen3 with heads of 64 and a SwiGLU of 8/3 width, in multiples of 64."""
        for name, value in (("width", width), ("vocab_size", vocab_size)):
            if value % 64 or value <= 0:
                near = max(64, round(value / 64) * 64)
                raise UserError(f"{name}={value} is not a multiple of 64; try {near}")
        if depth < 1:
            raise UserError(f"depth={depth} must be at least 1 layer; try 6")
        if heads is None:
            heads = width // 64
        if heads < 1 or width % heads:
            near_heads = sorted(divisors(width), key=lambda n: abs(n - heads))[:2]
            choices = " or ".join(str(n) for n in sorted(near_heads))
            raise UserError(f"heads={heads} does not divide width={width}; try {choices}")
        if kv_heads is None:
            # About three query heads to a key head: a third of the cache, no measurable loss.
            kv_heads = next(n for n in range(max(1, heads // 3), 0, -1) if heads % n == 0)
        return cls(
            vocab_size=vocab_size,
            hidden_size=width,
            # 8/3 keeps SwiGLU's three matrices at the size of the classic two (Shazeer 2020).
            intermediate_size=-(-8 * width // 3 // 64) * 64,
            num_hidden_layers=depth,
            num_attention_heads=heads,
            num_key_value_heads=kv_heads,
            head_dim=width // heads,
            max_position_embeddings=context,
        )

    @classmethod
    def from_hf(cls, config: Mapping[str, Any]) -> ModelConfig:
        """The old name of `formats.hf_config.config_from_hf`."""
        found: ModelConfig = moved("ModelConfig.from_hf", "formats.hf_config", "config_from_hf")(
            config
        )
        return found

    def to_hf(self, dtype: str = "float32") -> dict[str, Any]:
        """The old name of `formats.hf_config.config_to_hf`."""
        found: dict[str, Any] = moved("ModelConfig.to_hf", "formats.hf_config", "config_to_hf")(
            self, dtype
        )
        return found

    @property
    def parameters(self) -> int:
        """How many numbers the model holds, the tied head counted once."""
        family, width = self.family, self.hidden_size
        embeddings = self.vocab_size * width * (1 if self.tie_word_embeddings else 2)
        if not family.rotary:
            embeddings += self.max_position_embeddings * width
        per_norm = width * (2 if family.norm == "layer" else 1)
        norms = (2 * self.num_hidden_layers + 1) * per_norm
        if self.qk_norm:
            norms += 2 * self.num_hidden_layers * self.head_dim
        biases = 0
        if self.attention_bias:
            biases += (self.num_attention_heads + 2 * self.num_key_value_heads) * self.head_dim
        if self.output_bias:
            biases += width
        if self.mlp_bias:
            biases += (2 if family.gated else 1) * self.intermediate_size + width
        return embeddings + norms + self.num_hidden_layers * (self._matrices_per_block + biases)

    @property
    def _matrices_per_block(self) -> int:
        heads = self.num_attention_heads + self.num_key_value_heads
        attention = 2 * self.hidden_size * heads * self.head_dim
        feed_forward = 3 if self.family.gated else 2
        return attention + feed_forward * self.hidden_size * self.intermediate_size

    def flops_per_token(self, context: int) -> int:
        """Training floating point operations per token: forward plus backward.

        6 for every weight in a matrix product (Kaplan et al. 2020, section 2.1; the head counted,
        the embedding look-up not), and 12 * layers * width of attention * context for the score
        and value products. Attention is counted in full, as is usual, although it is causal.
        """
        matrices = self.num_hidden_layers * self._matrices_per_block
        matrices += self.vocab_size * self.hidden_size
        attention = self.num_hidden_layers * self.num_attention_heads * self.head_dim * context
        return 6 * matrices + 12 * attention


def divisors(number: int) -> list[int]:
    return [n for n in range(1, number + 1) if number % n == 0]
