"""A GPT, written once for two engines: NumPy with `maths.Tensor`, and torch.

The shape is Qwen3's (Qwen team 2025, "Qwen3 technical report", section 2): in each layer

    x ← x + attention(norm(x)),
    x ← x + W_down (silu(W_gate n) · W_up n)    with n = norm(x),

with RMSNorm before each part (Zhang and Sennrich 2019), queries and keys normalized per head and
rotated by their position (RoPE, Su et al. 2021), keys and values shared by groups of heads (Ainslie
et al. 2023), a gated feed-forward part (SwiGLU, Shazeer 2020) and no biases.

`gpt_logits` and everything it calls use only methods and operators that the tensors of both engines
have, so the same code is the model here and, in the tests, on torch, with equal logits and
gradients. Weights are a mapping under Hugging Face's names, as in a model folder.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from math import inf, sqrt
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
from jaxtyping import Int

from groundup.errors import UserError
from groundup.maths.tensor import Tensor, no_grad
from groundup.nn.attention import attention, causal_mask
from groundup.nn.layers import linear, rms_norm
from groundup.nn.losses import cross_entropy
from groundup.nn.module import Module, atomic_write, read_safetensors

CONFIG, WEIGHTS = "config.json", "model.safetensors"
# The fields of config.json that are not sizes, for other libraries that read the folder.
QWEN3 = {
    "architectures": ["Qwen3ForCausalLM"],
    "model_type": "qwen3",
    "hidden_act": "silu",
    "attention_bias": False,
    "attention_dropout": 0.0,
}


@dataclass(frozen=True)
class GPTConfig:
    """The sizes of a model, under the names of Hugging Face's `config.json`."""

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    intermediate_size: int
    head_dim: int = 64
    max_position_embeddings: int = 256
    rope_theta: float = 10_000.0
    rms_norm_eps: float = 1e-6
    tie_word_embeddings: bool = True

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.type == "int" and not (isinstance(value, int) and value >= 1):
                raise UserError(f"{field.name}={value!r} must be a whole number from 1")
            if field.type == "float" and not (isinstance(value, int | float) and 0 < value < inf):
                raise UserError(f"{field.name}={value!r} must be a finite number above 0")
        if self.num_attention_heads % self.num_key_value_heads:
            raise UserError(
                f"num_key_value_heads={self.num_key_value_heads} does not divide "
                f"num_attention_heads={self.num_attention_heads}; give a divisor of it"
            )
        if self.head_dim % 2:
            raise UserError(f"head_dim={self.head_dim} is odd; rotations need pairs of numbers")

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the name and shape of every weight."""
        width, inner, d = self.hidden_size, self.intermediate_size, self.head_dim
        queries, keys = self.num_attention_heads * d, self.num_key_value_heads * d
        layer = {
            "input_layernorm.weight": (width,),
            "self_attn.q_proj.weight": (queries, width),
            "self_attn.k_proj.weight": (keys, width),
            "self_attn.v_proj.weight": (keys, width),
            "self_attn.o_proj.weight": (width, queries),
            "self_attn.q_norm.weight": (d,),
            "self_attn.k_norm.weight": (d,),
            "post_attention_layernorm.weight": (width,),
            "mlp.gate_proj.weight": (inner, width),
            "mlp.up_proj.weight": (inner, width),
            "mlp.down_proj.weight": (width, inner),
        }
        shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (self.vocab_size, width)}
        for number in range(self.num_hidden_layers):
            shapes |= {f"model.layers.{number}.{name}": shape for name, shape in layer.items()}
        shapes["model.norm.weight"] = (width,)
        if not self.tie_word_embeddings:
            shapes["lm_head.weight"] = (self.vocab_size, width)
        return shapes


# The model on either engine: `Any` is a tensor of one of them


def gpt_logits(weights: Mapping[str, Any], config: GPTConfig, ids: Int[np.ndarray, "b t"]) -> Any:
    """Return the logits of the next token at each position, (b, t, vocab_size)."""
    embedding = weights["model.embed_tokens.weight"]
    eps = config.rms_norm_eps
    x = embedding[ids]
    positions = Positions.of(x, config)
    for number in range(config.num_hidden_layers):
        layer = _below(f"model.layers.{number}.", weights)
        n = rms_norm(x, layer["input_layernorm.weight"], eps)
        x = x + self_attention(_below("self_attn.", layer), config, n, positions)
        n = rms_norm(x, layer["post_attention_layernorm.weight"], eps)
        x = x + feed_forward(_below("mlp.", layer), n)
    x = rms_norm(x, weights["model.norm.weight"], eps)
    return linear(x, embedding if config.tie_word_embeddings else weights["lm_head.weight"])


def self_attention(
    weights: Mapping[str, Any], config: GPTConfig, x: Any, positions: Positions
) -> Any:
    """Causal multi-head attention for x (b, t, c)."""
    batch, time, _ = x.shape
    eps = config.rms_norm_eps

    def heads(name: str) -> Any:
        return linear(x, weights[f"{name}_proj.weight"]).reshape(batch, time, -1, config.head_dim)

    q = rms_norm(heads("q"), weights["q_norm.weight"], eps).transpose(1, 2)
    k = rms_norm(heads("k"), weights["k_norm.weight"], eps).transpose(1, 2)
    v = heads("v").transpose(1, 2)
    group = config.num_attention_heads // config.num_key_value_heads
    k, v = _shared(rotate(k, positions), group), _shared(v, group)
    mixed = attention(rotate(q, positions), k, v, mask=positions.mask)
    return linear(mixed.transpose(1, 2).reshape(batch, time, -1), weights["o_proj.weight"])


def feed_forward(weights: Mapping[str, Any], x: Any) -> Any:
    """W_down (silu(W_gate x) · W_up x), where silu(z) = z sigmoid(z)."""
    gate = linear(x, weights["gate_proj.weight"])
    return linear(
        gate * gate.sigmoid() * linear(x, weights["up_proj.weight"]), weights["down_proj.weight"]
    )


class Positions(NamedTuple):
    """Values that depend only on positions: the rotations (t, d) and the causal mask (t, t)."""

    cos: Any
    sin: Any
    mask: Any

    @classmethod
    def of(cls, x: Any, config: GPTConfig) -> Positions:
        """Return those for x of shape (b, t, c), in its dtype and on its engine."""
        time, half = x.shape[1], config.head_dim // 2
        frequencies = config.rope_theta ** (-np.arange(half) / half)
        angles = np.arange(time)[:, None] * frequencies
        cos, sin = np.cos(angles), np.sin(angles)
        return cls(
            x.new_tensor(np.concatenate([cos, cos], axis=1)),
            x.new_tensor(np.concatenate([-sin, sin], axis=1)),
            causal_mask(x, time, time),
        )


def rotate(x: Any, positions: Positions) -> Any:
    """Rotate pairs (x_i, x_{i + d/2}) by the angle position · θ^(-2i/d) (RoPE, section 3.4.2)."""
    return x * positions.cos + x.roll(x.shape[-1] // 2, -1) * positions.sin


def _shared(x: Any, group: int) -> Any:
    """Repeat keys or values (b, heads, t, d) for each query head of their group."""
    if group == 1:
        return x
    batch, heads, time, d = x.shape
    return x.unsqueeze(2).expand(-1, -1, group, -1, -1).reshape(batch, heads * group, time, d)


def _below(prefix: str, weights: Mapping[str, Any]) -> dict[str, Any]:
    """Return the weights under a prefix, by the rest of their names."""
    return {
        name.removeprefix(prefix): weight
        for name, weight in weights.items()
        if name.startswith(prefix)
    }


# On the NumPy engine


class GPT(Module):
    """The model as a module, which can be saved and loaded as a Hugging Face folder.

    Initial weights are those of `lm.model`: matrices with scale 1/√(fan in), embeddings with 0.02,
    and output projections 0, so that every layer starts as the identity.
    """

    def __init__(
        self,
        config: GPTConfig,
        *,
        rng: np.random.Generator | int = 0,
        dtype: Any = np.float32,
    ) -> None:
        self.config = config
        random = np.random.default_rng(rng)
        for name, shape in config.shapes().items():
            if len(shape) == 1:
                values = np.ones(shape)
            elif name.endswith(("o_proj.weight", "down_proj.weight")):
                values = np.zeros(shape)
            else:
                table = name in ("model.embed_tokens.weight", "lm_head.weight")
                values = random.normal(0.0, 0.02 if table else 1 / sqrt(shape[1]), shape)
            # Attribute names may have dots, so parameters can have Hugging Face's names.
            setattr(self, name, Tensor(values.astype(dtype)))

    @property
    def weights(self) -> dict[str, Tensor]:
        """The parameters by name."""
        return dict(self.named_parameters())

    def forward(self, ids: Int[np.ndarray, "b t"]) -> Tensor:
        """Return logits (b, t, vocab_size); `ValueError` for ids outside the vocabulary."""
        ids = np.asarray(ids)
        vocab = self.config.vocab_size
        if ids.ndim != 2 or ids.dtype.kind not in "iu":
            raise ValueError(
                f"ids are {ids.dtype} of shape {ids.shape}; give integers (batch, time)"
            )
        if not ids.size:
            raise ValueError(f"ids of shape {ids.shape} hold no token; give at least one")
        if not (ids.min() >= 0 and ids.max() < vocab):
            raise ValueError(
                f"ids go from {ids.min()} to {ids.max()}; the vocabulary from 0 to {vocab - 1}"
            )
        longest = self.config.max_position_embeddings
        if ids.shape[1] > longest:
            raise ValueError(
                f"{ids.shape[1]} tokens are more than max_position_embeddings={longest}"
            )
        logits: Tensor = gpt_logits(self.weights, self.config, ids)
        return logits

    def loss(self, ids: Int[np.ndarray, "b t"], targets: Int[np.ndarray, "b t"]) -> Tensor:
        """Return the mean cross-entropy of the next tokens, in nats."""
        loss: Tensor = cross_entropy(self(ids).flatten(0, 1), targets.reshape(-1))
        return loss

    def generate(
        self,
        ids: Int[np.ndarray, " t"],
        max_new_tokens: int,
        *,
        temperature: float = 1.0,
        rng: np.random.Generator | int = 0,
    ) -> Int[np.ndarray, " n"]:
        """Continue `ids` by tokens sampled one by one; temperature 0 takes the most likely."""
        if not len(ids) or not temperature >= 0:
            raise ValueError(
                f"{len(ids)} ids to continue at temperature={temperature}; "
                "give at least one, and 0 or more"
            )
        random = np.random.default_rng(rng)
        out = list(ids)
        with no_grad():
            for _ in range(max_new_tokens):
                recent = np.array(out[-self.config.max_position_embeddings :])
                logits = self(recent[None]).data[0, -1].astype(np.float64)
                if temperature > 0:
                    # The argmax of logits with Gumbel noise is each token with its softmax
                    # probability.
                    logits = logits / temperature + random.gumbel(size=logits.shape)
                out.append(int(logits.argmax()))
        return np.array(out)

    def save_pretrained(self, folder: Path | str) -> None:
        """Write `config.json` and `model.safetensors`, for `lm` and `transformers`."""
        from safetensors.numpy import save_file

        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        state = self.state_dict()
        dtype = str(state["model.norm.weight"].dtype)
        rope = {"rope_type": "default", "rope_theta": self.config.rope_theta}
        described = {**QWEN3, **asdict(self.config), "rope_parameters": rope, "dtype": dtype}
        # The config is renamed last, because it makes the folder a model folder.
        with atomic_write(folder / CONFIG) as shape, atomic_write(folder / WEIGHTS) as weights:
            shape.write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")
            save_file(state, weights, metadata={"format": "pt"})

    @classmethod
    def from_pretrained(cls, folder: Path | str, dtype: Any = None) -> Self:
        """Load the model of a folder with a Qwen3 `config.json` and one `model.safetensors`.

        The dtype is that of the file or `dtype`. Raises `UserError` for another architecture and
        for weights that are missing, unknown, of another shape, or bfloat16, which NumPy lacks.
        """
        folder = Path(folder)
        config = _read_config(folder / CONFIG)
        arrays = read_safetensors(folder / WEIGHTS)
        if config.tie_word_embeddings:
            arrays.pop("lm_head.weight", None)
        if dtype is None:
            dtype = next((array.dtype for array in arrays.values()), np.float32)
        model = cls(config, dtype=dtype)
        model.load_state_dict(arrays)
        return model


def _read_config(path: Path) -> GPTConfig:
    try:
        described = json.loads(path.read_bytes())
        rope = described.get("rope_parameters") or described.get("rope_scaling") or {}
        theta = rope.get("rope_theta", described.get("rope_theta", 10_000.0))
        kind = rope.get("rope_type", rope.get("type", "default"))
    except (OSError, ValueError, AttributeError) as error:
        raise UserError(f"{path} cannot be read ({error}); give a model folder") from None
    # Defaults of Qwen3's own config for missing fields.
    left_out = {"head_dim": 128, "tie_word_embeddings": False, "max_position_embeddings": 32768}
    described = {**left_out, **QWEN3, **described}
    other = [name for name, value in QWEN3.items() if described[name] != value]
    other += ["use_sliding_window"] if described.get("use_sliding_window") else []
    other += ["rope_parameters"] if kind != "default" else []
    if other:
        raise UserError(
            f"{path} has {other[0]}={described.get(other[0])!r}; the NumPy engine supports only "
            "plain Qwen3, and groundup.load supports more"
        )
    names = {field.name for field in fields(GPTConfig)}
    found = {name: value for name, value in described.items() if name in names}
    try:
        return GPTConfig(**{**found, "rope_theta": theta})
    except TypeError as error:
        raise UserError(f"{path} lacks a size ({error}); give a complete config.json") from None
