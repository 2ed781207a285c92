"""Weights before the first step: drawn at random, and heads that look back from the start.

Copying is half of what a small model has to learn: who was named before is named again, and what
followed a word before follows it again. A transformer needs two layers for it (Elhage et al. 2021,
A Mathematical Framework for Transformer Circuits; Olsson et al. 2022): in the first a
*previous-token head* tells every token what stood before it, in a later one an *induction head*
looks for a token before which there stood what is read now. Neither is worth anything without the
other, so chance has to find both, which takes a small model many steps. With
`previous_token_heads` the first ones are there from the start: head h of the first layer begins by
looking at the token h places back, h = 1, 2, …. Weights that begin as what they are known to
become are a mimetic initialization (Trockman & Kolter 2023); all of them go on learning.

How. A query at position m and a key at position n are turned by RoPE (`positions`), pair i by m f_i
and n f_i. Let one pair of the key be (1, 0) for every token and that of the query
(cos h f_i, -sin h f_i). Then their inner product is

    sum over i of cos(f_i (m - n - h)),        largest at n = m - h

with the first, fastest pairs alone, which tell neighbors apart. Queries and keys are matrices times
the token's vector and can be the same for all tokens only if all vectors share a part: a random
one is added to all embeddings. A tied head does not see it, as it adds the same to all logits.
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

# One pair for so many features looks back, a quarter of all; the others are left to what tokens
# are.
FEWEST_FEATURES = 8
_EMBEDDING_STD = 0.02
# Gains of queries and keys in these pairs: in heads of 64 a score of the token meant lies some 10
# above its neighbors', so that nearly all of the softmax is on it.
_SHARPNESS = 3.0


def can_look_back(config: ModelConfig) -> bool:
    """Whether heads can begin by looking back: RoPE, and norms that keep scores in bounds.

    With norms after what they are added to, a model learned more slowly for it, so there it cannot.
    """
    normed = config.qk_norm and config.do_layer_norm_before
    return config.position == "rope" and normed and config.head_dim >= FEWEST_FEATURES


@torch.no_grad()
def draw(model: CausalLM, generator: torch.Generator, previous_token_heads: int) -> None:
    """Draw all weights: matrices of scale 1/sqrt(fan in), embeddings small, as they are the head.

    Output projections are zero, so that every block starts as the identity and the model as a
    unigram model, which trains more stably (Yang et al. 2022, Tensor Programs V, appendix D.2). Not
    so beside heads that look back: what these find must reach the layers after.
    """
    if previous_token_heads and not can_look_back(model.config):
        raise ValueError("heads look back by RoPE, norms before, and norms of queries and keys")
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
        _look_back(model, generator, previous_token_heads)


def _look_back(model: CausalLM, generator: torch.Generator, heads: int) -> None:
    config = model.config
    width, head_dim = config.hidden_size, config.head_dim
    shared = torch.randn(width, generator=generator)
    shared /= shared.norm()
    model.model.embed_tokens.weight += _EMBEDDING_STD * math.sqrt(width) * shared
    first = model.blocks[0].self_attn
    pairs = head_dim // FEWEST_FEATURES
    looking = torch.cat((torch.arange(pairs), head_dim // 2 + torch.arange(pairs)))
    frequencies = inverse_frequencies(config.rope, head_dim, torch.device("cpu"))[:pairs]
    key = torch.cat((torch.ones(pairs), torch.zeros(pairs)))
    group = config.num_attention_heads // config.num_key_value_heads
    for head in range(heads):
        back = (head + 1) * frequencies
        query = torch.cat((back.cos(), -back.sin()))
        queries = _rows(first.q_proj.weight, head, head_dim)
        queries.zero_()
        queries[looking] = torch.outer(query, shared)
        _rows(first.k_proj.weight, head // group, head_dim)[looking] = torch.outer(key, shared)
    for gains in (first.q_norm.weight, first.k_norm.weight):
        assert isinstance(gains, Tensor)
        gains[looking] = _SHARPNESS


def _rows(
    weight: Float[Tensor, "rows width"], head: int, head_dim: int
) -> Float[Tensor, "head_dim width"]:
    return weight[head * head_dim : (head + 1) * head_dim]
