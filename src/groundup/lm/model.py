"""The transformer, top to bottom on one page.

    h = embed(tokens)
    h = h + attention(norm(h));  h = h + mlp(norm(h))        once per layer
    logits = head(norm(h))

Parameters carry Hugging Face's names, so a state dict needs no translation. The model returns
hidden states and the head stands apart: a loss decides how much of the logits it ever holds, and
reward or value heads take the head's place.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import silu

from groundup.lm.attention import AttentionPath, Mask, attention, document_mask
from groundup.lm.cache import KVCache, cached_mask
from groundup.lm.config import ModelConfig
from groundup.lm.positions import Rotation, inverse_frequencies, rotate, rotation
from groundup.train.batch import Batch

Hidden = Float[Tensor, "rows time width"]


class RMSNorm(nn.Module):
    """x / rms(x) * weight (Zhang & Sennrich 2019), computed in float32."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Float[Tensor, "... width"]) -> Float[Tensor, "... width"]:
        x32 = x.float()
        normed = x32 * torch.rsqrt(x32.square().mean(-1, keepdim=True) + self.eps)
        return self.weight * normed.to(x.dtype)


class Attention(nn.Module):
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
        self.o_proj = nn.Linear(queries, width, bias=bias)
        norm = RMSNorm if config.qk_norm else _NoNorm
        self.q_norm = norm(config.head_dim, config.rms_norm_eps)
        self.k_norm = norm(config.head_dim, config.rms_norm_eps)

    def forward(self, x: Hidden, mask: Mask, turn: Rotation, cache: CacheView | None) -> Hidden:
        query = rotate(self.q_norm(self._heads(self.q_proj(x))), turn)
        key = rotate(self.k_norm(self._heads(self.k_proj(x))), turn)
        value = self._heads(self.v_proj(x))
        if cache is not None:
            key, value = cache.write(self.layer, key, value)
        mixed = attention(query, key, value, mask, self.path)
        out: Tensor = self.o_proj(mixed.transpose(1, 2).flatten(2))
        return out

    def _heads(self, x: Hidden) -> Float[Tensor, "rows heads time head_dim"]:
        return x.view(*x.shape[:-1], -1, self.head_dim).transpose(1, 2)


class _NoNorm(nn.Module):
    """Stands where Qwen3 normalises queries and keys and Llama does not."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        return x


class MLP(nn.Module):
    """SwiGLU: down(silu(gate(x)) * up(x)) (Shazeer 2020)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width, inner, bias = config.hidden_size, config.intermediate_size, config.mlp_bias
        self.gate_proj = nn.Linear(width, inner, bias=bias)
        self.up_proj = nn.Linear(width, inner, bias=bias)
        self.down_proj = nn.Linear(inner, width, bias=bias)

    def forward(self, x: Hidden) -> Hidden:
        out: Tensor = self.down_proj(silu(self.gate_proj(x)) * self.up_proj(x))
        return out


class Block(nn.Module):
    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = Attention(config, layer)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = MLP(config)

    def forward(self, x: Hidden, mask: Mask, turn: Rotation, cache: CacheView | None) -> Hidden:
        x = x + self.self_attn(self.input_layernorm(x), mask, turn, cache)
        out: Tensor = x + self.mlp(self.post_attention_layernorm(x))
        return out


class Decoder(nn.Module):
    """Everything below the head; named `model` inside `CausalLM`, as Hugging Face does."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Block(config, i) for i in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.rope, self.head_dim = config.rope, config.head_dim

    def forward(self, batch: Batch, cache: KVCache | None) -> Hidden:
        x = self.embed_tokens(batch.input_ids)
        frequencies = inverse_frequencies(self.rope, self.head_dim, x.device)
        turn = rotation(frequencies, batch.position_ids, x.dtype)
        if cache is None:
            view, mask = None, document_mask(batch.segment_ids)
        else:
            view = CacheView(cache, batch.position_ids)
            mask = cached_mask(batch.position_ids, view.visible)
        for layer in self.layers:
            x = layer(x, mask, turn, view)
        out: Tensor = self.norm(x)
        return out


class CacheView:
    """A cache seen from one forward pass: where its tokens go and how many slots it reads."""

    def __init__(self, cache: KVCache, position_ids: Tensor) -> None:
        self.cache, self.position_ids = cache, position_ids
        self.visible = int(position_ids.max()) + 1
        assert self.visible <= cache.slots, (self.visible, cache.slots)

    def write(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        return self.cache.write(layer, key, value, self.position_ids, self.visible)


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
        return self.lm_head.weight

    def logits(
        self, batch: Batch, cache: KVCache | None = None
    ) -> Float[Tensor, "rows time vocab"]:
        """Logits of every position, in float32. For a loss, use the head in chunks instead."""
        out: Tensor = self.lm_head(self(batch, cache))
        return out.float()

    def set_attention(self, path: AttentionPath) -> None:
        for layer in self.model.layers:
            assert isinstance(layer, Block)
            layer.self_attn.path = path

    def compile_blocks(self) -> None:
        """Compile each block by itself: one small graph, compiled once, serves every layer."""
        for layer in self.model.layers:
            layer.compile(fullgraph=True, dynamic=False)
        self.compiled = True

    def initialise(self, seed: int) -> None:
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
                    wide = "embed_tokens" in name or "lm_head" in name
                    std = 0.02 if wide else 1 / math.sqrt(parameter.shape[1])
                    parameter.normal_(0.0, std, generator=generator)
