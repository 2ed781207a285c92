"""Floating point operations of training, as the papers count them.

    6 N D        C = 6 N D: two operations per weight and token forward, four backward; N with or
                 without embeddings (Kaplan et al. 2020, section 2.1, without)
    with head    what is actually computed: head and attention scores count, embedding look-ups do
                 not; this is `ModelConfig.flops_per_token`

At a billion parameters both agree within a few percent. In a small model the head is a third, and
leaving it out changes the exponents (Porian et al. 2024, section 3).
"""

from __future__ import annotations

from groundup.lm.config import ModelConfig


def kaplan_flops(shape: ModelConfig) -> int:
    """Training FLOPs per token without embeddings, head and scores: 6 N (Kaplan et al. 2020).

    Keys and values count for the heads that they have, even if several heads share them.
    """
    return shape.flops_per_token(0) - 6 * shape.vocab_size * shape.hidden_size
