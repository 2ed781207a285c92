"""The shape of a transformer, in Hugging Face's words, without torch.

One dataclass describes every architecture that we read: what differs between Qwen3 and Llama
is a field here, never another model class.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from groundup.errors import UserError

ModelType = Literal["qwen3", "llama"]
RopeType = Literal["default", "linear", "llama3"]


@dataclass(frozen=True)
class Rope:
    """Rotary position embedding (Su et al. 2021) and how its frequencies are stretched.

    `linear`: positions divided by `factor` (Chen et al. 2023). `llama3`: low frequencies divided
    by `factor`, high ones kept, with a smooth passage between (Llama 3, section 3.2).
    """

    theta: float = 10_000.0
    type: RopeType = "default"
    factor: float = 1.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_max_position_embeddings: int = 8_192

    @classmethod
    def from_hf(cls, config: Mapping[str, Any]) -> Rope:
        """Read either spelling: `rope_parameters` (transformers 5) or `rope_theta` and
        `rope_scaling` (before)."""
        settings = {**(config.get("rope_scaling") or {}), **(config.get("rope_parameters") or {})}
        kind = settings.get("rope_type", settings.get("type", "default"))
        if kind not in ("default", "linear", "llama3"):
            raise UserError(
                f"rope type {kind!r} is not supported; this version reads default, linear, llama3"
            )
        theta = settings.get("rope_theta", config.get("rope_theta", cls.theta))
        # JSON writes 8.0 as 8 at times; the defaults know which fields are which.
        scaling = {
            name: type(getattr(cls, name))(settings[name])
            for name in _SCALING_FIELDS[kind]
            if settings.get(name) is not None
        }
        return cls(theta=float(theta), type=kind, **scaling)

    def to_hf(self) -> dict[str, Any]:
        scaling = {name: getattr(self, name) for name in _SCALING_FIELDS[self.type]}
        return {"rope_theta": self.theta, "rope_type": self.type, **scaling}


_SCALING_FIELDS: dict[str, tuple[str, ...]] = {
    "default": (),
    "linear": ("factor",),
    "llama3": (
        "factor",
        "low_freq_factor",
        "high_freq_factor",
        "original_max_position_embeddings",
    ),
}


@dataclass(frozen=True)
class ModelConfig:
    """A decoder-only transformer: RMSNorm, RoPE, grouped-query attention, SwiGLU."""

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
    attention_bias: bool = False
    mlp_bias: bool = False
    bos_token_id: int | None = 0
    eos_token_ids: tuple[int, ...] = (2, 0)
    pad_token_id: int | None = 0

    def __post_init__(self) -> None:
        if self.num_attention_heads % self.num_key_value_heads:
            raise UserError(
                f"num_key_value_heads={self.num_key_value_heads} does not divide "
                f"num_attention_heads={self.num_attention_heads}; "
                f"try one of {divisors(self.num_attention_heads)}"
            )
        if self.head_dim % 2:
            raise UserError(f"head_dim={self.head_dim} is odd, but RoPE turns pairs; try 64")

    @property
    def qk_norm(self) -> bool:
        """Whether queries and keys are normalised per head before RoPE, as in Qwen3."""
        return self.model_type == "qwen3"

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
        """Read the contents of a Hugging Face `config.json`."""
        kind = config.get("model_type")
        if kind not in ("qwen3", "llama"):
            raise UserError(
                f"model_type {kind!r} is not supported; this version reads qwen3, llama"
            )
        if config.get("hidden_act", "silu") != "silu":
            raise UserError(f"hidden_act {config['hidden_act']!r} is not supported; only silu is")
        if config.get("use_sliding_window"):
            raise UserError("use_sliding_window=true is not supported; only full attention is")
        try:
            width, heads = int(config["hidden_size"]), int(config["num_attention_heads"])
            sizes = {
                name: int(config[name])
                for name in ("vocab_size", "intermediate_size", "num_hidden_layers")
            }
        except KeyError as error:
            raise UserError(f"config.json lacks {error.args[0]!r}, which a {kind} needs") from None
        eos = config.get("eos_token_id")
        return cls(
            **sizes,
            hidden_size=width,
            num_attention_heads=heads,
            num_key_value_heads=int(config.get("num_key_value_heads") or heads),
            # Qwen3's default head is 128 wide whatever the width; Llama's follows the width.
            head_dim=int(config.get("head_dim") or (128 if kind == "qwen3" else width // heads)),
            max_position_embeddings=int(config.get("max_position_embeddings", 2_048)),
            rope=Rope.from_hf(config),
            rms_norm_eps=float(config.get("rms_norm_eps", 1e-6)),
            tie_word_embeddings=bool(config.get("tie_word_embeddings", False)),
            model_type=kind,
            attention_bias=bool(config.get("attention_bias", False)),
            mlp_bias=bool(config.get("mlp_bias", False)),
            bos_token_id=config.get("bos_token_id"),
            eos_token_ids=tuple(eos) if isinstance(eos, list) else () if eos is None else (eos,),
            pad_token_id=config.get("pad_token_id"),
        )

    def to_hf(self, dtype: str = "float32") -> dict[str, Any]:
        """The contents of `config.json`, readable by transformers 4 and 5 and by vLLM."""
        names = {"qwen3": "Qwen3ForCausalLM", "llama": "LlamaForCausalLM"}
        rope = self.rope.to_hf()
        config: dict[str, Any] = {
            "architectures": [names[self.model_type]],
            "model_type": self.model_type,
            "vocab_size": self.vocab_size,
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "num_hidden_layers": self.num_hidden_layers,
            "num_attention_heads": self.num_attention_heads,
            "num_key_value_heads": self.num_key_value_heads,
            "head_dim": self.head_dim,
            "hidden_act": "silu",
            "max_position_embeddings": self.max_position_embeddings,
            "rms_norm_eps": self.rms_norm_eps,
            "rope_parameters": rope,
            "rope_theta": self.rope.theta,
            "tie_word_embeddings": self.tie_word_embeddings,
            "attention_bias": self.attention_bias,
            "attention_dropout": 0.0,
            "bos_token_id": self.bos_token_id,
            # The first is where a turn ends; generation_config.json carries all of them.
            "eos_token_id": self.eos_token_ids[0] if self.eos_token_ids else None,
            "pad_token_id": self.pad_token_id,
            "dtype": dtype,
            "use_cache": True,
        }
        if self.rope.type != "default":
            config["rope_scaling"] = {k: v for k, v in rope.items() if k != "rope_theta"}
        if self.model_type == "llama":
            config["mlp_bias"] = self.mlp_bias
        return config

    @property
    def parameters(self) -> int:
        """How many numbers the model holds, the tied head counted once."""
        embeddings = self.vocab_size * self.hidden_size * (1 if self.tie_word_embeddings else 2)
        norms = (2 * self.num_hidden_layers + 1) * self.hidden_size
        if self.qk_norm:
            norms += 2 * self.num_hidden_layers * self.head_dim
        biases = 0
        if self.attention_bias:
            biases += (self.num_attention_heads + 2 * self.num_key_value_heads) * self.head_dim
            biases += self.hidden_size
        if self.mlp_bias:
            biases += 2 * self.intermediate_size + self.hidden_size
        return embeddings + norms + self.num_hidden_layers * (self._matrices_per_block + biases)

    @property
    def _matrices_per_block(self) -> int:
        heads = self.num_attention_heads + self.num_key_value_heads
        attention = 2 * self.hidden_size * heads * self.head_dim
        return attention + 3 * self.hidden_size * self.intermediate_size

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
