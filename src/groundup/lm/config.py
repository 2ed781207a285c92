"""The shape of a transformer, in Hugging Face's words, without torch.

One dataclass describes every architecture that we read: what differs between Qwen3 and GPT-2 is a
field here or a row in `families`, never another model class.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from groundup.errors import UserError
from groundup.lm.families import FAMILIES, Family, ModelType
from groundup.lm.reader import MOST, Reader, shown
from groundup.lm.rope import Rope

Activation = Literal["silu", "gelu", "gelu_new", "gelu_pytorch_tanh", "relu"]
ACTIVATIONS: tuple[Activation, ...] = ("silu", "gelu", "gelu_new", "gelu_pytorch_tanh", "relu")


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
        """Whether queries and keys are normalised per head before RoPE, as in Qwen3."""
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
        """Read the contents of a Hugging Face `config.json`.

        Raises `UserError` for a family that is not supported, a size that is missing or of another
        type, and for settings that would make it another model.
        """
        kind = config.get("model_type")
        family = FAMILIES.get(kind) if isinstance(kind, str) else None
        if kind is None or family is None:
            raise UserError(
                f"model_type {shown(kind)} is not supported; this version reads "
                f"{', '.join(FAMILIES)} (SmolLM2 is a llama)"
            )
        _refuse_other_models(config)
        theirs = {ours: config.get(word) for ours, word in family.words.items()}
        given = {**config, **{name: v for name, v in theirs.items() if v is not None}}
        values = {**family.defaults, **{k: v for k, v in given.items() if v is not None}}
        read = Reader(values, kind, family.words)
        width = read.whole("hidden_size")
        heads = read.whole("num_attention_heads")
        activation = read.values["hidden_act"]
        known = ("silu",) if family.gated else ACTIVATIONS
        if activation not in known:
            raise UserError(
                f"hidden_act {shown(activation)} is not supported; "
                f"of a {kind} {', '.join(known)} is"
            )
        if not family.gated:
            read.values.setdefault("intermediate_size", 4 * width)
        if given.get("num_key_value_heads", 0) is None:  # written null: one for each query head
            read.values["num_key_value_heads"] = heads
        read.values.setdefault("num_key_value_heads", heads)
        read.values.setdefault("head_dim", max(1, width // heads))
        window, layers = _windows(family, config, read)
        eos = read.values.get("eos_token_id")
        return cls(
            vocab_size=read.whole("vocab_size"),
            hidden_size=width,
            intermediate_size=read.whole("intermediate_size"),
            num_hidden_layers=read.whole("num_hidden_layers"),
            num_attention_heads=heads,
            num_key_value_heads=read.whole("num_key_value_heads"),
            head_dim=read.whole("head_dim"),
            max_position_embeddings=read.whole("max_position_embeddings"),
            rope=Rope.from_hf(config) if family.rotary else Rope(),
            rms_norm_eps=read.real("rms_norm_eps", 0.0, 1.0),
            tie_word_embeddings=read.flag("tie_word_embeddings"),
            model_type=kind,
            hidden_act=activation,
            attention_bias=read.flag("attention_bias"),
            mlp_bias=read.flag("mlp_bias"),
            sliding_window=window,
            windowed_layers=layers,
            bos_token_id=read.id("bos_token_id"),
            eos_token_ids=read.ids(eos),
            pad_token_id=read.id("pad_token_id"),
        )

    def to_hf(self, dtype: str = "float32") -> dict[str, Any]:
        """The contents of `config.json`, readable by transformers 4 and 5 and by vLLM."""
        family = self.family
        config: dict[str, Any] = {
            "architectures": [family.architecture],
            "model_type": self.model_type,
            "vocab_size": self.vocab_size,
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "num_hidden_layers": self.num_hidden_layers,
            "num_attention_heads": self.num_attention_heads,
            "num_key_value_heads": self.num_key_value_heads,
            "head_dim": self.head_dim,
            "hidden_act": self.hidden_act,
            "max_position_embeddings": self.max_position_embeddings,
            "rms_norm_eps": self.rms_norm_eps,
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
        if family.rotary:
            rope = self.rope.to_hf()
            config |= {"rope_parameters": rope, "rope_theta": self.rope.theta}
            if self.rope.type != "default":
                config["rope_scaling"] = {k: v for k, v in rope.items() if k != "rope_theta"}
        if self.model_type == "llama":
            config["mlp_bias"] = self.mlp_bias
        if family.windows == "all layers":
            config["sliding_window"] = self.sliding_window
        if family.windows == "some layers" and self.sliding_window is not None:
            config |= self._some_windows()
        for name in ("attention_bias", "mlp_bias"):
            if name in family.defaults:  # always so in this family, which has no word for it
                config.pop(name, None)
        if not family.rotary:  # an older page: one head of keys for each of queries
            del config["num_key_value_heads"], config["head_dim"], config["attention_dropout"]
        return {family.words.get(name, name): value for name, value in config.items()}

    def _some_windows(self) -> dict[str, Any]:
        windows = self.windows
        full = [layer for layer, window in enumerate(windows) if window is None]
        return {
            "use_sliding_window": True,
            "sliding_window": self.sliding_window,
            # Before `layer_types` only the layers from a certain one on could have a window.
            "max_window_layers": full[-1] + 1 if full else 0,
            "layer_types": [
                "full_attention" if window is None else "sliding_attention" for window in windows
            ],
        }

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


def _windows(
    family: Family, config: Mapping[str, Any], read: Reader
) -> tuple[int | None, tuple[int, ...] | None]:
    """The window and the layers that have it, as the family's config says."""
    if family.windows == "none":
        return None, None
    if family.windows == "all layers":
        # Written null means none, and left out the default, so this looks at the file itself.
        if "sliding_window" in config and config["sliding_window"] is None:
            return None, None
        return read.whole("sliding_window"), None
    if not config.get("use_sliding_window") or config.get("sliding_window") is None:
        return None, None
    layers = range(read.whole("num_hidden_layers"))
    kinds = config.get("layer_types")
    if kinds is None:
        first = read.values.get("max_window_layers", 28)  # Qwen's default
        chosen = [n for n in layers if isinstance(first, int) and n >= first]
    elif isinstance(kinds, list) and len(kinds) == len(layers):
        other = sorted({str(kind) for kind in kinds} - {"full_attention", "sliding_attention"})
        if other:
            raise UserError(
                f"layer_types has {shown(other[0])}; this version knows full_attention and "
                "sliding_attention"
            )
        chosen = [n for n in layers if kinds[n] == "sliding_attention"]
    else:
        raise UserError(f"layer_types must name one kind for each of {len(layers)} layers")
    if not chosen:
        return None, None
    window = read.whole("sliding_window")
    return window, None if len(chosen) == len(layers) else tuple(chosen)


def _refuse_other_models(config: Mapping[str, Any]) -> None:
    """Settings that none of ours has, and without which the answers would be others."""
    plain: dict[str, Any] = {
        "scale_attn_weights": True,
        "scale_attn_by_inverse_layer_idx": False,
        "add_cross_attention": False,
        "quantization_config": None,
    }
    for name, value in plain.items():
        if config.get(name, value) != value:
            raise UserError(
                f"config.json says {name}={shown(config[name])}, which is not supported; "
                "save the model without it"
            )


def divisors(number: int) -> list[int]:
    return [n for n in range(1, number + 1) if number % n == 0]
