"""The models of the experiments: transformers, attention-only models, LSTMs and GRUs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from groundup.lm.cache import KVCache
from groundup.lm.config import ModelConfig
from groundup.lm.model import CausalLM
from groundup.lm.rnn import RecurrentCache

Cell = Literal["lstm", "gru"]


class NoMLP(nn.Module):
    """Returns zeros; replaces the MLPs of attention-only transformers."""

    def forward(self, x: Float[Tensor, "*tokens width"]) -> Float[Tensor, "*tokens width"]:
        return torch.zeros_like(x)


@dataclass(frozen=True)
class Architecture:
    """A shape, and a factory of initialized models; `attention_only` models have no MLP."""

    shape: ModelConfig
    attention_only: bool = False

    def __call__(self, seed: int) -> CausalLM:
        """Return an initialized model."""
        model = CausalLM(self.shape)
        if self.attention_only:
            for block in model.blocks:
                block.mlp = NoMLP()
                # This norm's output is not used.
                block.post_attention_layernorm = nn.Identity()
        model.initialize(seed)
        return model

    @property
    def parameters(self) -> int:
        return sum(one.numel() for one in self(0).parameters())

    def state_floats(self, tokens: int) -> int:
        """Numbers kept for a text of `tokens` tokens: keys and values, or recurrent states."""
        cache = self(0).empty_cache(1, tokens)
        if isinstance(cache, RecurrentCache):
            return sum(one.numel() for layer in cache.states for one in layer)
        assert isinstance(cache, KVCache)
        return sum(one.numel() for one in (*cache.keys, *cache.values))


def transformer(
    *, width: int, depth: int, heads: int, vocab_size: int, context: int, **switches: Any
) -> ModelConfig:
    """groundup's own shape at sizes below its multiples of 64, with a key head for each head."""
    return ModelConfig(
        vocab_size=vocab_size,
        hidden_size=width,
        intermediate_size=3 * width,
        num_hidden_layers=depth,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        head_dim=width // heads,
        max_position_embeddings=context,
        **switches,
    )


def attention_only(
    *, width: int, depth: int, heads: int, vocab_size: int, context: int
) -> Architecture:
    """Only layers of multi-head attention, with RoPE."""
    shape = transformer(
        width=width, depth=depth, heads=heads, vocab_size=vocab_size, context=context
    )
    return Architecture(shape, attention_only=True)


def recurrent(cell: Cell, *, width: int, depth: int, vocab_size: int, context: int) -> Architecture:
    """An LSTM or a GRU."""
    return Architecture(
        ModelConfig(
            vocab_size=vocab_size,
            hidden_size=width,
            intermediate_size=width,
            num_hidden_layers=depth,
            num_attention_heads=1,
            num_key_value_heads=1,
            max_position_embeddings=context,
            model_type=cell,
        )
    )
