"""How many floating point operations training takes, as the papers count them.

    6 N D        C = 6 N D: two operations for every weight and token forward, four backward; N with
                 or without embeddings (Kaplan et al. 2020, section 2.1, leave them out)
    with head    what is computed: head and scores count, looking up an embedding does not; this is
                 `ModelConfig.flops_per_token`

At a billion parameters both agree within a few percent. Of a small model the head is a third, and
whoever leaves it out finds other exponents (Porian et al. 2024, section 3).
"""

from __future__ import annotations

from groundup.lm.config import ModelConfig


def kaplan_flops(shape: ModelConfig) -> int:
    """Training FLOPs a token without embeddings, head and scores: 6 N (Kaplan et al. 2020).

    Keys and values are counted for the heads that they have, where several heads share them.
    """
    return shape.flops_per_token(0) - 6 * shape.vocab_size * shape.hidden_size
