"""How many floating point operations training takes, as the papers count them.

    6 N D        C = 6 N D: two operations for every weight and token forward, four backward; N with
                 or without embeddings (Kaplan et al. 2020, section 2.1, leave them out)
    in full      every product of a transformer is counted, scores and head and the embedding as a
                 product too (Hoffmann et al. 2022, appendix F)
    with head    what is computed: the head counts, looking up an embedding does not; this is
                 `ModelConfig.flops_per_token`

At a billion parameters all agree within a few percent. Of a small model the head is a third, and
whoever leaves it out finds other exponents (Porian et al. 2024, section 3).
"""

from __future__ import annotations

from dataclasses import dataclass

from groundup.lm.config import ModelConfig


@dataclass(frozen=True)
class Sizes:
    """The sizes of a transformer as papers give them; `ffw` are the features within the MLP.

    `gated` says that the MLP has three matrices and not two.
    """

    layers: int
    width: int
    ffw: int
    heads: int
    head_dim: int
    vocab_size: int
    context: int
    gated: bool = False

    @property
    def matrices(self) -> int:
        """The weights of all layers that multiply, with as many key-value heads as heads."""
        attention = 4 * self.width * self.heads * self.head_dim
        return self.layers * (attention + (3 if self.gated else 2) * self.width * self.ffw)


def sizes_of(shape: ModelConfig, context: int) -> Sizes:
    """The sizes of one of our transformers in rows of so many tokens.

    Key-value heads are counted as heads, as the papers' models have them.
    """
    return Sizes(
        shape.num_hidden_layers,
        shape.hidden_size,
        shape.intermediate_size,
        shape.num_attention_heads,
        shape.head_dim,
        shape.vocab_size,
        context,
        gated=shape.gated,
    )


def kaplan_flops(sizes: Sizes) -> float:
    """Training FLOPs a token without embeddings, head and scores: 6 N (Kaplan et al. 2020)."""
    return 6.0 * sizes.matrices


def head_flops(sizes: Sizes) -> float:
    """Training FLOPs a token of all that is multiplied: layers, head and full scores."""
    scores = 2 * 2 * sizes.context * sizes.heads * sizes.head_dim * sizes.layers
    return 6.0 * (sizes.matrices + sizes.vocab_size * sizes.width) + 3.0 * scores


def hoffmann_flops(sizes: Sizes) -> float:
    """Training FLOPs a token as Hoffmann et al. (2022, appendix F) count them.

    The embedding is counted as a product, a softmax as three operations a score, and backward as
    twice of forward.
    """
    inner = sizes.heads * sizes.head_dim
    embedding = 2 * sizes.vocab_size * sizes.width
    softmax = 3 * sizes.heads * sizes.context
    scores = 2 * 2 * sizes.context * inner
    layers = 2 * sizes.matrices + sizes.layers * (softmax + scores)
    head = 2 * sizes.width * sizes.vocab_size
    return 3.0 * (embedding + layers + head)
