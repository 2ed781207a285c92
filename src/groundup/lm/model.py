"""The transformer, top to bottom on one page.

    h = embed(tokens)
    h = h + attention(norm(h));  h = h + mlp(norm(h))        once per layer
    logits = head(norm(h))

Every token is a vector, its *hidden state*, which starts as what the token is and ends as what
should follow it. A layer reads the state twice and adds what it finds: attention fetches something
from the tokens before, the feed-forward part (mlp) works on each token by itself. Since both only
ever add, gradients reach the first layer as directly as the last (He et al. 2015); and since both
read a normalized copy, it does no harm that states grow. The head compares the last state with a
vector for each token of the vocabulary: the better they match, the likelier that token comes next.

This one page is Qwen3, Llama, SmolLM2, Mistral, Qwen2 and GPT-2: what differs is a field of the
config. Parameters carry Hugging Face's names, so a state dict needs no translation. The model
returns hidden states and the head stands apart: a loss decides how much of the logits it ever
holds, and reward or value heads take the head's place.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import gelu, relu, silu
from torch.utils.checkpoint import checkpoint

from groundup.deprecated import renamed_method
from groundup.errors import UserError
from groundup.kernels import attention as kernel
from groundup.kernels import rms_norm, rotary
from groundup.kernels.linear import linears
from groundup.kernels.swiglu import swiglu_down
from groundup.lm.attention import AttentionPath, Bias, as_bias, attention, document_mask
from groundup.lm.config import Activation, ModelConfig
from groundup.lm.positions import Rotation, inverse_frequencies, rotate, rotation
from groundup.train.batch import Batch

if TYPE_CHECKING:  # what is trained keeps no keys
    from groundup.lm.cache import CacheView, KVCache

Hidden = Float[Tensor, "rows time width"]
# Who sees whom: what is added to the scores, or for the kernel the first key that a query sees.
Seen = Bias | kernel.FirstSeen

_ACTIVATIONS: Mapping[Activation, Callable[[Tensor], Tensor]] = {
    "silu": silu,  # x * sigmoid(x)
    "gelu": gelu,  # x * Phi(x), Phi the normal distribution (Hendrycks & Gimpel 2016)
    "gelu_new": partial(gelu, approximate="tanh"),  # GPT-2's name for the approximation
    "gelu_pytorch_tanh": partial(gelu, approximate="tanh"),
    "relu": relu,
}


class RMSNorm(nn.Module):
    """x / rms(x) * weight (Zhang & Sennrich 2019), computed in float32."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Float[Tensor, "... width"]) -> Float[Tensor, "... width"]:
        if rms_norm.knows(x, self.weight):
            return rms_norm.rms_norm(x, self.weight, self.eps)
        x32 = x.float()
        normed = x32 * torch.rsqrt(x32.square().mean(-1, keepdim=True) + self.eps)
        return self.weight * normed.to(x.dtype)


def norm(config: ModelConfig) -> nn.Module:
    """RMSNorm or, in GPT-2, LayerNorm, which takes the mean away first and adds a bias at last."""
    kind = RMSNorm if config.family.norm == "rms" else nn.LayerNorm
    return kind(config.hidden_size, config.rms_norm_eps)


class Attention(nn.Module):
    """Queries, keys and values of each head, attention, and a matrix that mixes the heads."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.layer, self.head_dim = layer, config.head_dim
        self.path: AttentionPath = "matmul"
        width, bias = config.hidden_size, config.attention_bias
        queries = config.num_attention_heads * config.head_dim
        keys = config.num_key_value_heads * config.head_dim
        self.q_proj = nn.Linear(width, queries, bias=bias)
        self.k_proj = nn.Linear(width, keys, bias=bias)
        self.v_proj = nn.Linear(width, keys, bias=bias)
        self.o_proj = nn.Linear(queries, width, bias=config.output_bias)
        # Normalised, no query can shout: scores stay in bounds however large the weights grow.
        head_norm = RMSNorm if config.qk_norm else nn.Identity
        self.q_norm = head_norm(config.head_dim, config.rms_norm_eps)
        self.k_norm = head_norm(config.head_dim, config.rms_norm_eps)

    def forward(
        self, x: Hidden, seen: Seen, cos_sin: Rotation | None, cache: CacheView | None
    ) -> Hidden:
        projected = linears(x, self.q_proj, self.k_proj, self.v_proj)
        # Each head has its own slice of the features: (rows, time, heads, head_dim).
        query, key, value = (y.view(*y.shape[:-1], -1, self.head_dim) for y in projected)
        query = _placed(query, self.q_norm, cos_sin)
        key = _placed(key, self.k_norm, cos_sin)
        value = value.transpose(1, 2)
        if cache is not None:
            key, value = cache.write(self.layer, key, value)
        if seen.dtype == torch.int32:
            mixed = kernel.attention(query, key, value, seen)
        else:
            mixed = attention(query, key, value, seen, self.path)
        [out] = linears(mixed.transpose(1, 2).flatten(2), self.o_proj)
        return out


def _placed(
    x: Float[Tensor, "rows time heads head_dim"], norm: nn.Module, cos_sin: Rotation | None
) -> Float[Tensor, "rows heads time head_dim"]:
    """Queries or keys with their norm, where there is one, and turned by their positions."""
    if cos_sin is None:
        out: Tensor = norm(x.transpose(1, 2))
        return out
    weight, eps = (norm.weight, norm.eps) if isinstance(norm, RMSNorm) else (None, 0.0)
    if rotary.knows(x, weight):
        return rotary.normed_and_rotated(x, weight, eps, *cos_sin).transpose(1, 2)
    return rotate(norm(x.transpose(1, 2)), cos_sin)


class MLP(nn.Module):
    """The feed-forward part: SwiGLU, down(silu(gate(x)) * up(x)) (Shazeer 2020).

    Of each of the inner features `gate` says how much of it is let through. GPT-2 has no gate:
    down(gelu(up(x))).
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width, inner, bias = config.hidden_size, config.intermediate_size, config.mlp_bias
        self.activation = _ACTIVATIONS[config.hidden_act]
        self.gate_proj = nn.Linear(width, inner, bias=bias) if config.family.gated else None
        self.up_proj = nn.Linear(width, inner, bias=bias)
        self.down_proj = nn.Linear(inner, width, bias=bias)

    def forward(self, x: Hidden) -> Hidden:
        if self.gate_proj is None:
            out: Tensor = self.down_proj(self.activation(self.up_proj(x)))
            return out
        gate, up = linears(x, self.gate_proj, self.up_proj)
        if self.activation is silu:
            return swiglu_down(gate, up, self.down_proj)
        out = self.down_proj(self.activation(gate) * up)
        return out


class Block(nn.Module):
    """One layer: look around, then think, each added to what was there."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.input_layernorm = norm(config)
        self.self_attn = Attention(config, layer)
        self.post_attention_layernorm = norm(config)
        self.mlp = MLP(config)

    def forward(
        self, x: Hidden, seen: Seen, cos_sin: Rotation | None, cache: CacheView | None
    ) -> Hidden:
        found = self.self_attn(self.input_layernorm(x), seen, cos_sin, cache)
        x, normed = _added(x, found, self.post_attention_layernorm)
        out: Tensor = x + self.mlp(normed)
        return out


def _added(x: Hidden, found: Hidden, norm: nn.Module) -> tuple[Hidden, Hidden]:
    """x + found, and the norm of it."""
    if isinstance(norm, RMSNorm) and rms_norm.knows(x, norm.weight):
        return rms_norm.add_rms_norm(x, found, norm.weight, norm.eps)
    x = x + found
    return x, norm(x)


class Decoder(nn.Module):
    """Everything below the head; named `model` inside `CausalLM`, as Hugging Face does."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.gradient_checkpointing = False
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        if not config.family.rotary:
            self.embed_positions = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.layers = nn.ModuleList(Block(config, i) for i in range(config.num_hidden_layers))
        self.norm = norm(config)

    def forward(self, batch: Batch, cache: KVCache | None) -> Hidden:
        try:
            x = self.embed_tokens(batch.input_ids)
        except IndexError:
            raise UserError(
                f"token id {int(batch.input_ids.max())} is outside the model's vocabulary of "
                f"{self.config.vocab_size}; its folder holds another model's tokenizer: put the "
                "one there that belongs to it"
            ) from None
        cos_sin = None
        if self.config.family.rotary:
            cos_sin = self._rotation(batch, x)
        else:
            x = x + self.embed_positions(batch.position_ids)
        if torch.is_grad_enabled() and not x.requires_grad:
            # Beside frozen embeddings the first block would be the only one whose input needs no
            # gradient, and the compiler would make a graph for it alone.
            x.requires_grad_()
        view = None if cache is None else cache.view(batch.position_ids)
        # Who may see whom is the same in every layer with the same window, so it is found out once.
        windows = self.config.windows
        seen = {window: self._seen(batch, view, window, x) for window in set(windows)}
        for layer, window in zip(self.layers, windows, strict=True):
            if self.gradient_checkpointing and torch.is_grad_enabled():
                # Memory for time: of a block its input alone is kept, and backward runs it again
                # (Chen et al. 2016, Training Deep Nets with Sublinear Memory Cost).
                x = checkpoint(layer, x, seen[window], cos_sin, view, use_reentrant=False)
            else:
                x = layer(x, seen[window], cos_sin, view)
        out: Tensor = self.norm(x)
        return out

    def _seen(self, batch: Batch, view: CacheView | None, window: int | None, x: Hidden) -> Seen:
        if view is not None:
            return as_bias(view.mask(window), x.dtype)
        if kernel.knows(x, self.config.head_dim):
            return kernel.first_seen(batch.segment_ids, window)
        return as_bias(document_mask(batch.segment_ids, window), x.dtype)

    def _rotation(self, batch: Batch, x: Hidden) -> Rotation:
        rope = self.config.rope
        frequencies = inverse_frequencies(rope, self.config.head_dim, x.device)
        return rotation(frequencies, batch.position_ids, x.dtype, rope.attention_factor)


class CausalLM(nn.Module):
    """A language model: `model(batch)` gives hidden states, `model.head` the output weights."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.compiled = False
        self.model = Decoder(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        if config.tie_word_embeddings:
            self.lm_head.weight = self.model.embed_tokens.weight

    def forward(self, batch: Batch, cache: KVCache | None = None) -> Hidden:
        out: Tensor = self.model(batch, cache)
        return out

    @property
    def head(self) -> Float[Tensor, "vocab width"]:
        if not hasattr(self.lm_head, "weight"):  # it stays in few bits (adapters.frozen)
            whole: Tensor = self.lm_head.dequantized(self.like.dtype)  # type: ignore[operator]
            return whole
        return self.lm_head.weight

    @property
    def like(self) -> Float[Tensor, " width"]:
        """A tensor of the type and on the device in which the model computes."""
        weight = self.model.norm.weight
        assert isinstance(weight, Tensor)
        return weight

    def logits(
        self, batch: Batch, cache: KVCache | None = None
    ) -> Float[Tensor, "rows time vocab"]:
        """Logits of every position, in float32. For a loss, use the head in chunks instead."""
        out: Tensor = self.lm_head(self(batch, cache))
        return out.float()

    def set_gradient_checkpointing(self, on: bool) -> None:
        self.model.gradient_checkpointing = on

    @property
    def attention(self) -> AttentionPath:
        first = self.model.layers[0]
        assert isinstance(first, Block)
        return first.self_attn.path

    def set_attention(self, path: AttentionPath) -> None:
        for layer in self.model.layers:
            assert isinstance(layer, Block)
            layer.self_attn.path = path

    def compile_blocks(self) -> None:
        """Compile each block by itself: one small graph, compiled once, serves every layer."""
        for layer in self.model.layers:
            layer.compile(fullgraph=True, dynamic=False)
        self.compiled = True

    initialise = renamed_method("initialise", "initialize")

    def initialize(self, seed: int) -> None:
        """Fresh weights: matrices of scale 1/sqrt(fan in), output projections zero.

        With zero output projections every block starts as the identity and the model as a
        unigram model, which trains faster and more stably (Yang et al. 2022, Tensor Programs V,
        appendix D.2). Embeddings are small because they are the output head as well.
        """
        generator = torch.Generator().manual_seed(seed)
        for name, parameter in self.named_parameters():
            with torch.no_grad():
                if name.endswith(("o_proj.weight", "down_proj.weight", ".bias")):
                    parameter.zero_()
                elif "norm" in name:
                    parameter.fill_(1.0)
                else:
                    wide = "embed_" in name or "lm_head" in name
                    std = 0.02 if wide else 1 / math.sqrt(parameter.shape[1])
                    parameter.normal_(0.0, std, generator=generator)


def uncompiled(model: CausalLM) -> AbstractContextManager[object]:
    """Blocks compiled for training's one shape must not be compiled anew at every token."""
    return torch.compiler.set_stance("force_eager") if model.compiled else nullcontext()
