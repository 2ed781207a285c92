"""What a shape costs: parameters, operations per token, activations kept for backward.

    parameters     embeddings + layers * (attention + feed-forward + norms) + head
    FLOPs          6 for every weight that multiplies a token, 12 for every feature of every score
                   (Kaplan et al. 2020, section 2.1)

A mixture of experts stores all experts, but only some of them multiply a token.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from groundup.lm.config import ModelConfig

# Gates per step, each with an input matrix, a state matrix and two biases (torch's layout).
GATES = {"lstm": 4, "gru": 3}
# Input features, output features, and the number of matrices of that shape.
Product = tuple[int, int, int]


def parameters(config: ModelConfig) -> int:
    """The number of parameters, the tied head counted once."""
    return _outside_layers(config) + config.num_hidden_layers * _layer(
        config, _experts_stored(config)
    )


def active_parameters(config: ModelConfig) -> int:
    """The parameters that one token uses: of a layer's experts only those it is sent to."""
    return _outside_layers(config) + config.num_hidden_layers * _layer(
        config, _experts_used(config)
    )


def flops_per_token(config: ModelConfig, context: int) -> int:
    """Training floating point operations per token: forward plus backward.

    The head counts, the embedding look-up does not. Attention is counted in full, as is usual,
    although it is causal; a window limits the keys per query.
    """
    matrices = sum(inputs * outputs * times for inputs, outputs, times in products(config))
    if config.family.recurrent:
        return 6 * matrices
    keys = sum(context if window is None else min(window, context) for window in config.windows)
    return 6 * matrices + 12 * keys * config.num_attention_heads * config.head_dim


def products(config: ModelConfig) -> list[Product]:
    """(inputs, outputs, number) of the matrices that multiply a token, the head last."""
    layers, width = config.num_hidden_layers, config.hidden_size
    of_a_layer = _products(config, _experts_used(config))
    return [
        *((inputs, outputs, layers * times) for inputs, outputs, times in of_a_layer),
        (width, config.vocab_size, 1),
    ]


def activations_per_token(config: ModelConfig) -> int:
    """Numbers that a layer keeps per token for backward, without scores; approximate."""
    width = config.hidden_size
    if config.family.recurrent:
        # Input, gates before and after activation, states, and buffers for their gradients.
        return (2 * GATES[config.model_type] + 6) * width
    inner = config.intermediate_size
    if config.experts is not None:
        # Tokens are copied to their experts, and so are the outputs.
        each, chosen = config.experts.moe_intermediate_size, config.experts.num_experts_per_tok
        inner = chosen * (each + width)
    feed_forward = (4 if config.gated else 3) * inner
    return 14 * width + feed_forward


def scores_per_token(config: ModelConfig, context: int) -> int:
    """Scores that a layer keeps per token for backward, unless a kernel avoids them."""
    return 0 if config.family.recurrent else 2 * config.num_attention_heads * context


# Terms of the sums above.


def _outside_layers(config: ModelConfig) -> int:
    width = config.hidden_size
    embeddings = config.vocab_size * width * (1 if config.tie_word_embeddings else 2)
    if config.position == "learned":
        embeddings += config.max_position_embeddings * width
    return embeddings + _norm(config)


def _norm(config: ModelConfig) -> int:
    return config.hidden_size * (2 if config.family.norm == "layer" else 1)


def _experts_stored(config: ModelConfig) -> int:
    return 0 if config.experts is None else config.experts.num_experts


def _experts_used(config: ModelConfig) -> int:
    return 0 if config.experts is None else config.experts.num_experts_per_tok


def _layer(config: ModelConfig, experts: int) -> int:
    """The number of parameters of one layer, with `experts` feed-forward parts."""
    matrices = _matrices(config, experts)
    if config.family.recurrent:
        return matrices + 2 * GATES[config.model_type] * config.hidden_size
    norms, biases = 2 * _norm(config), 0
    if config.qk_norm:
        norms += 2 * config.head_dim
    if config.attention_bias:
        biases += (config.num_attention_heads + 2 * config.num_key_value_heads) * config.head_dim
    if config.output_bias:
        biases += config.hidden_size
    if config.mlp_bias:
        inner = _inner(config)
        biases += max(1, experts) * ((2 if config.gated else 1) * inner + config.hidden_size)
    return matrices + norms + biases


def _matrices(config: ModelConfig, experts: int) -> int:
    """The number of matrix weights of one layer."""
    return sum(inputs * outputs * times for inputs, outputs, times in _products(config, experts))


def _products(config: ModelConfig, experts: int) -> list[Product]:
    """The matrices of one layer, with `experts` feed-forward parts."""
    width = config.hidden_size
    if config.family.recurrent:
        return [(width, GATES[config.model_type] * width, 2)]
    heads, inner = config.num_attention_heads * config.head_dim, _inner(config)
    parts = 1 if config.experts is None else experts
    found = [
        (width, heads, 1),
        (width, config.num_key_value_heads * config.head_dim, 2),
        (heads, width, 1),
        (width, inner, (2 if config.gated else 1) * parts),
        (inner, width, parts),
    ]
    return found if config.experts is None else [*found, (width, config.experts.num_experts, 1)]


def _inner(config: ModelConfig) -> int:
    """The inner features of a feed-forward part, or of one expert."""
    experts = config.experts
    return config.intermediate_size if experts is None else experts.moe_intermediate_size
