"""Random shapes of every architecture, as tiny models."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from hypothesis import strategies as st

from groundup.lm.config import POSITION_EMBEDDINGS, ModelConfig
from groundup.lm.model import CausalLM

VOCAB, CONTEXT = 64, 40
FEED_FORWARD: dict[str, dict[str, Any]] = {
    "swiglu": {},
    "geglu": {"hidden_act": "gelu"},
    "gelu": {"hidden_act": "gelu", "is_gated_act": False},
    "relu2": {"hidden_act": "relu2", "is_gated_act": False},
}


def transformer(kv_heads: int, experts: tuple[int, int] | None, **switches: Any) -> ModelConfig:
    return ModelConfig.of(
        width=64, depth=2, vocab_size=VOCAB, context=CONTEXT, heads=4, kv_heads=kv_heads,
        experts=experts, **switches,
    )  # fmt: skip


def recurrent(cell: Any, depth: int = 2) -> ModelConfig:
    return ModelConfig.recurrent(cell, width=64, depth=depth, vocab_size=VOCAB, context=CONTEXT)


Shape = Callable[[], ModelConfig]
"""A shape is made in the test and not while examples are drawn, where types must not be checked."""


def transformers() -> st.SearchStrategy[Shape]:
    """Any combination of positions, norms, feed-forward part, key heads, windows and experts."""
    return st.builds(
        lambda feed_forward, windows, **rest: partial(
            transformer, **rest, **FEED_FORWARD[feed_forward], **windows
        ),
        kv_heads=st.sampled_from([4, 2, 1]),
        experts=st.sampled_from([None, (4, 2), (3, 1)]),
        position_embedding_type=st.sampled_from([None, *POSITION_EMBEDDINGS[1:]]),
        do_layer_norm_before=st.booleans(),
        feed_forward=st.sampled_from(sorted(FEED_FORWARD)),
        windows=st.sampled_from(
            [{}, {"sliding_window": 5}, {"sliding_window": 3, "windowed_layers": (1,)}]
        ),
        tie_word_embeddings=st.booleans(),
    )


def architectures() -> st.SearchStrategy[Shape]:
    """Transformers, and occasionally recurrent networks."""
    shapes, cells = transformers(), st.sampled_from(["lstm", "gru"])
    return st.one_of(shapes, shapes, shapes, cells.map(lambda cell: partial(recurrent, cell)))


def with_random_weights(config: ModelConfig, seed: int = 0) -> CausalLM:
    """A model with every weight random, so that each part matters and tokens differ widely."""
    model = CausalLM(config).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1:
                shift = 1.0 if "norm" in name else 0.0
                parameter.normal_(shift, 0.2, generator=generator)
            else:
                parameter.normal_(0.0, parameter.shape[1] ** -0.5, generator=generator)
                if "embed_tokens" in name or "lm_head" in name:
                    parameter *= 4
    return model
