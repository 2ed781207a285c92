"""The shape of a language model, in Hugging Face's words, without torch.

One dataclass describes every supported architecture: the differences between Qwen3 and GPT-2 are
fields here or a row in `families`, never another model class. A few fields exist to compare
architectures. A shape that no Hugging Face family has is still valid; it is saved in our own format
(`formats.own_config`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from groundup.deprecated import moved
from groundup.errors import UserError
from groundup.lm import sizes
from groundup.lm.families import FAMILIES, Family, ModelType

# Larger sizes mean a damaged or malicious file: no machine holds such a model, and merely building
# its description would take memory and time.
MAX_SIZES = {
    "vocab_size": 2**24,
    "hidden_size": 2**17,
    "intermediate_size": 2**20,
    "num_hidden_layers": 1_024,
    "num_attention_heads": 4_096,
    "num_key_value_heads": 4_096,
    "head_dim": 2**14,
    "max_position_embeddings": 2**31,
    "sliding_window": 2**31,
    "num_experts": 2**14,
}
# Over all layers; 94 layers of 128 experts are 12,032.
MAX_EXPERTS = 2**15

Activation = Literal["silu", "gelu", "gelu_new", "gelu_pytorch_tanh", "relu", "relu2"]
ACTIVATIONS: tuple[Activation, ...] = get_args(Activation)

# How the model encodes order (see `positions`).
PositionEmbedding = Literal["rope", "learned", "sinusoidal", "alibi", "none"]
POSITION_EMBEDDINGS: tuple[PositionEmbedding, ...] = get_args(PositionEmbedding)

RopeType = Literal["default", "linear", "llama3", "yarn"]


@dataclass(frozen=True)
class Rope:
    """Rotary position embedding (Su et al. 2021) and how its frequencies are stretched.

    `linear`: positions divided by `factor` (Chen et al. 2023). `llama3`: low frequencies divided
    by `factor`, high ones kept, with a smooth transition between (Llama 3, section 3.2). `yarn`:
    the same idea with other bounds, and cosines and sines scaled by `attention_factor` (Peng et al.
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
    """0.1 ln(factor) + 1: the factor by which attention is sharpened (Peng et al. 2023, eq. 22)."""
    return 0.1 * by * math.log(factor) + 1.0 if factor > 1 else 1.0


@dataclass(frozen=True)
class ExpertsConfig:
    """A mixture of experts that replaces each feed-forward part (see `experts`)."""

    num_experts: int
    num_experts_per_tok: int
    """The number of experts that process each token."""
    moe_intermediate_size: int
    """Inner features of one expert."""
    norm_topk_prob: bool = True
    """Whether the weights of the chosen experts sum to 1."""
    router_aux_loss_coef: float = 0.001
    """The factor of the load-balancing loss in training."""

    def __post_init__(self) -> None:
        most = MAX_SIZES["num_experts"]
        if not 1 <= self.num_experts_per_tok <= self.num_experts <= most:
            raise UserError(
                f"num_experts_per_tok={self.num_experts_per_tok} of num_experts="
                f"{self.num_experts}: each token needs at least 1 expert, and there are at most "
                f"{most:,}; try 2 of 8"
            )
        if not 1 <= self.moe_intermediate_size <= MAX_SIZES["intermediate_size"]:
            raise UserError(
                f"moe_intermediate_size={self.moe_intermediate_size} must be from 1 to "
                f"{MAX_SIZES['intermediate_size']:,}; try 256"
            )


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
    """Whether queries, keys and values have biases, and the output if the family has one."""
    mlp_bias: bool = False
    sliding_window: int | None = None
    """How many tokens back a layer may look, itself included (Beltagy et al. 2020, section 3.1)."""
    windowed_layers: tuple[int, ...] | None = None
    """The layers with the window; None: all of them."""
    position_embedding_type: PositionEmbedding | None = None
    """How order is encoded; None: as in the family (`position`)."""
    is_gated_act: bool | None = None
    """Whether the feed-forward part has a gate; None: as in the family (`gated`)."""
    do_layer_norm_before: bool = True
    """Pre-norm (norms before attention and feed-forward part) or post-norm (after the sum)."""
    experts: ExpertsConfig | None = None
    """A mixture of experts that replaces each feed-forward part."""
    bos_token_id: int | None = 0
    eos_token_ids: tuple[int, ...] = (2, 0)
    pad_token_id: int | None = 0
    source: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)
    """The `config.json` it was read from; keys that are no field here are written back as read."""

    def __post_init__(self) -> None:
        words: dict[str, tuple[str | None, ...]] = {
            "model_type": tuple(FAMILIES),
            "hidden_act": ACTIVATIONS,
            "position_embedding_type": (*POSITION_EMBEDDINGS, None),
        }
        for name, known in words.items():
            if (word := getattr(self, name)) not in known:
                choices = ", ".join(map(repr, known))
                raise UserError(f"{name}={word!r} must be one of {choices}; try {known[0]!r}")
        for name, most in MAX_SIZES.items():
            value = getattr(self, name, None)
            if value is not None and not 1 <= value <= most:
                raise UserError(f"{name}={value} must be from 1 to {most:,}; check config.json")
        windowed, depth = self.windowed_layers or (), self.num_hidden_layers
        if not all(0 <= layer < depth for layer in windowed):
            raise UserError(
                f"windowed_layers={windowed} must be layers from 0 to {depth - 1}; "
                "leave out those that the model does not have"
            )
        if windowed and self.sliding_window is None:
            raise UserError(
                f"windowed_layers={windowed} needs a sliding_window; "
                "give one, or leave out the layers"
            )
        if self.num_attention_heads % self.num_key_value_heads:
            raise UserError(
                f"num_key_value_heads={self.num_key_value_heads} does not divide "
                f"num_attention_heads={self.num_attention_heads}; "
                f"try one of {divisors(self.num_attention_heads)}"
            )
        if self.head_dim % 2 and self.position == "rope":
            raise UserError(f"head_dim={self.head_dim} is odd, but RoPE rotates pairs; try 64")
        if self.hidden_size % 2 and self.position == "sinusoidal":
            raise UserError(
                f"hidden_size={self.hidden_size} is odd, but sines and cosines come in pairs; "
                f"try {self.hidden_size + 1}"
            )
        if self.family.experts and self.experts is None:
            raise UserError(f"a {self.model_type} has experts; give `experts`, or use qwen3")
        if self.experts and self.num_hidden_layers * self.experts.num_experts > MAX_EXPERTS:
            raise UserError(
                f"num_hidden_layers={self.num_hidden_layers} with "
                f"num_experts={self.experts.num_experts} each are more than {MAX_EXPERTS:,} "
                "experts; check config.json"
            )
        if self.family.recurrent and (self.experts or self.sliding_window):
            raise UserError(
                f"model_type={self.model_type} is recurrent and has neither attention nor experts; "
                "leave out sliding_window and experts"
            )

    @property
    def family(self) -> Family:
        """The architecture's properties apart from its sizes."""
        return FAMILIES[self.model_type]

    @property
    def qk_norm(self) -> bool:
        """Whether queries and keys are normalized per head before RoPE, as in Qwen3."""
        return self.family.qk_norm

    @property
    def position(self) -> PositionEmbedding:
        """How order is encoded; a recurrent network needs no encoding."""
        if self.family.recurrent:
            return "none"
        return self.position_embedding_type or ("rope" if self.family.rotary else "learned")

    @property
    def gated(self) -> bool:
        """Whether the feed-forward part has a gate (SwiGLU)."""
        return self.family.gated if self.is_gated_act is None else self.is_gated_act

    @property
    def output_bias(self) -> bool:
        """Whether attention's output projection has a bias."""
        return self.attention_bias and self.family.output_bias

    @property
    def windows(self) -> tuple[int | None, ...]:
        """For each layer its window, the number of tokens that a query sees; None: all."""
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
        experts: tuple[int, int] | None = None,
        **switches: Any,
    ) -> ModelConfig:
        """Our own shape: Qwen3 with heads of 64 and a SwiGLU of 8/3 width, in multiples of 64.

        `experts` is (number of experts, experts per token); the experts of a token are together as
        wide as the one feed-forward part would be. `switches` are fields that differ from Qwen3.
        """
        _require_multiples(width=width, vocab_size=vocab_size)
        if depth < 1:
            raise UserError(f"depth={depth} must be at least 1 layer; try 6")
        if heads is None:
            heads = width // 64
        if heads < 1 or width % heads:
            near_heads = sorted(divisors(width), key=lambda n: abs(n - heads))[:2]
            choices = " or ".join(str(n) for n in sorted(near_heads))
            raise UserError(f"heads={heads} does not divide width={width}; try {choices}")
        if kv_heads is None:
            # About three query heads per key head: a third of the cache, no measurable loss.
            kv_heads = next(n for n in range(max(1, heads // 3), 0, -1) if heads % n == 0)
        # 8/3 keeps SwiGLU's three matrices at the size of the classic two (Shazeer 2020).
        gated = switches.get("is_gated_act") in (None, True)
        inner = -(-8 * width // 3 // 64) * 64 if gated else 4 * width
        if experts is not None:
            each = max(64, round(inner / max(1, experts[1]) / 64) * 64)
            switches = {
                "model_type": "qwen3_moe",
                "experts": ExpertsConfig(*experts, each),
            } | switches
        return cls(
            vocab_size=vocab_size,
            hidden_size=width,
            intermediate_size=inner,
            num_hidden_layers=depth,
            num_attention_heads=heads,
            num_key_value_heads=kv_heads,
            head_dim=width // heads,
            max_position_embeddings=context,
            **switches,
        )

    @classmethod
    def recurrent(
        cls, cell: Literal["lstm", "gru"], *, width: int, depth: int, vocab_size: int, context: int
    ) -> ModelConfig:
        """A recurrent network of `depth` layers (see `rnn`); `context` is its training length."""
        _require_multiples(width=width, vocab_size=vocab_size)
        if depth < 1:
            raise UserError(f"depth={depth} must be at least 1 layer; try 2")
        return cls(
            vocab_size=vocab_size,
            hidden_size=width,
            intermediate_size=width,
            num_hidden_layers=depth,
            num_attention_heads=1,
            num_key_value_heads=1,
            max_position_embeddings=context,
            model_type=cell,
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
        """The number of parameters, the tied head counted once."""
        return sizes.parameters(self)

    @property
    def active_parameters(self) -> int:
        """The parameters that one token uses: of a layer's experts only those it is sent to."""
        return sizes.active_parameters(self)

    flops_per_token = sizes.flops_per_token
    products = sizes.products
    activations_per_token = sizes.activations_per_token
    scores_per_token = sizes.scores_per_token

    @property
    def compiles(self) -> bool:
        """Whether the layers can be compiled; not if their work depends on the data."""
        return self.experts is None and not self.family.recurrent


def _require_multiples(**features: int) -> None:
    for name, value in features.items():
        if value % 64 or value <= 0:
            near = max(64, round(value / 64) * 64)
            raise UserError(f"{name}={value} is not a multiple of 64; try {near}")


def divisors(number: int) -> list[int]:
    return [n for n in range(1, number + 1) if number % n == 0]
