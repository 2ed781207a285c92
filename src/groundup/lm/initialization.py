"""Initial weights: random, optionally with heads that look back from the first step.

Copying is half of what a small model has to learn: names recur, and so do words that followed each
other before. A transformer needs two layers for it (Elhage et al. 2021, A Mathematical Framework
for Transformer Circuits; Olsson et al. 2022): a *previous-token head* in the first layer gives each
token the identity of its predecessor, and an *induction head* in a later layer looks for an earlier
token that was preceded by the current one. Neither helps without the other, so training has to find
both by chance, which takes a small model many steps. With `previous_token_heads` the first kind
exists from the start: head h of the first layer begins by looking at the token h places back,
h = 1, 2, …. Starting from weights of a known trained form is a mimetic initialization (Trockman &
Kolter 2023); all of them remain trainable.

Method: RoPE (`positions`) rotates pair i of a query at position m by m f_i and pair i of a key at
position n by n f_i. Let one pair of the key be (1, 0) for every token and that of the query
(cos h f_i, -sin h f_i). Then their inner product is

    sum over i of cos(f_i (m - n - h)),        largest at n = m - h

over the first, fastest pairs only, which distinguish neighbors. Queries and keys are matrices times
the token's vector and can be the same for all tokens only if all vectors share a component, so one
random vector is added to all embeddings. A tied head is unaffected: all logits rise by the same.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from groundup.lm.config import ModelConfig
from groundup.lm.positions import inverse_frequencies

if TYPE_CHECKING:
    from groundup.lm.model import CausalLM

# One pair per this many features looks back, a quarter of all; the others stay free for content.
MIN_FEATURES = 8
_EMBEDDING_STD = 0.02
# Gains of queries and keys in these pairs: in heads of 64 the target token's score is about 10
# above its neighbors', so that it gets nearly all of the softmax.
_SHARPNESS = 3.0


def can_look_back(config: ModelConfig) -> bool:
    """Whether heads can start by looking back: requires RoPE, QK-norm and pre-norm.

    Models with post-norm learned more slowly with such heads.
    """
    normed = config.qk_norm and config.do_layer_norm_before
    return config.position == "rope" and normed and config.head_dim >= MIN_FEATURES


@torch.no_grad()
def initialize(model: CausalLM, generator: torch.Generator, previous_token_heads: int) -> None:
    """Initialize all weights: matrices with scale 1/sqrt(fan in), embeddings (the head) small.

    Output projections are zero, so that every block starts as the identity and the model as a
    unigram model, which trains more stably (Yang et al. 2022, Tensor Programs V, appendix D.2).
    With heads that look back they are not zero, because later layers must receive what the heads
    find."""
    if previous_token_heads and not can_look_back(model.config):
        raise ValueError("heads that look back require RoPE, pre-norm and QK-norm")
    for name, parameter in model.named_parameters():
        output = name.endswith(("o_proj.weight", "down_proj.weight"))
        if "bias" in name or (output and not previous_token_heads):
            parameter.zero_()
        elif "norm" in name:
            parameter.fill_(1.0)
        elif "embed_" in name or "lm_head" in name:
            parameter.normal_(0.0, _EMBEDDING_STD, generator=generator)
        else:
            parameter.normal_(0.0, 1 / math.sqrt(parameter.shape[1]), generator=generator)
    if previous_token_heads:
        _set_previous_token_heads(model, generator, previous_token_heads)


def _set_previous_token_heads(model: CausalLM, generator: torch.Generator, heads: int) -> None:
    config = model.config
    width, head_dim = config.hidden_size, config.head_dim
    shared = torch.randn(width, generator=generator)
    shared /= shared.norm()
    model.model.embed_tokens.weight += _EMBEDDING_STD * math.sqrt(width) * shared
    first = model.blocks[0].self_attn
    pairs = head_dim // MIN_FEATURES
    looking = torch.cat((torch.arange(pairs), head_dim // 2 + torch.arange(pairs)))
    frequencies = inverse_frequencies(config.rope, head_dim, torch.device("cpu"))[:pairs]
    key = torch.cat((torch.ones(pairs), torch.zeros(pairs)))
    group = config.num_attention_heads // config.num_key_value_heads
    for head in range(heads):
        back = (head + 1) * frequencies
        query = torch.cat((back.cos(), -back.sin()))
        queries = _head_rows(first.q_proj.weight, head, head_dim)
        queries.zero_()
        queries[looking] = torch.outer(query, shared)
        _head_rows(first.k_proj.weight, head // group, head_dim)[looking] = torch.outer(key, shared)
    for gains in (first.q_norm.weight, first.k_norm.weight):
        assert isinstance(gains, Tensor)
        gains[looking] = _SHARPNESS


def _head_rows(
    weight: Float[Tensor, "rows width"], head: int, head_dim: int
) -> Float[Tensor, "head_dim width"]:
    return weight[head * head_dim : (head + 1) * head_dim]
