"""What a shape costs: numbers to hold, operations a token, numbers kept for backward.

    parameters     embeddings + layers * (attention + feed-forward + norms) + head
    FLOPs          6 for every weight that a token is multiplied with, 12 for every feature of every
                   score (Kaplan et al. 2020, section 2.1)

Of a mixture of experts all are held, and a token is multiplied with some of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from groundup.lm.config import ModelConfig

# Gates of a step, each a matrix for the input, one for the state, and two biases (torch's).
GATES = {"lstm": 4, "gru": 3}


def parameters(config: ModelConfig) -> int:
    """How many numbers the model holds, the tied head counted once."""
    return _beside_layers(config) + config.num_hidden_layers * _layer(config, _experts(config))


def active_parameters(config: ModelConfig) -> int:
    """Those that a token meets: of the experts of a layer, as many as it is sent to."""
    chosen = 0 if config.experts is None else config.experts.num_experts_per_tok
    return _beside_layers(config) + config.num_hidden_layers * _layer(config, chosen)


def flops_per_token(config: ModelConfig, context: int) -> int:
    """Training floating point operations per token: forward plus backward.

    The head counts, the embedding look-up does not. Attention is counted in full, as is usual,
    although it is causal; with a window a query has no more keys than that.
    """
    chosen = 0 if config.experts is None else config.experts.num_experts_per_tok
    matrices = config.num_hidden_layers * _matrices(config, chosen)
    matrices += config.vocab_size * config.hidden_size
    if config.family.recurrent:
        return 6 * matrices
    keys = sum(context if window is None else min(window, context) for window in config.windows)
    return 6 * matrices + 12 * keys * config.num_attention_heads * config.head_dim


def activations_per_token(config: ModelConfig) -> int:
    """Numbers that a layer keeps of a token for backward, scores apart; roughly."""
    width = config.hidden_size
    if config.family.recurrent:
        # Input, gates before and after, states, and what their gradients are made in.
        return (2 * GATES[config.model_type] + 6) * width
    inner = config.intermediate_size
    if config.experts is not None:
        # What is sent to an expert is a copy, and so is what comes back.
        each, chosen = config.experts.moe_intermediate_size, config.experts.num_experts_per_tok
        inner = chosen * (each + width)
    feed_forward = (4 if config.gated else 3) * inner
    return 14 * width + feed_forward


def scores_per_token(config: ModelConfig, context: int) -> int:
    """Scores that a layer keeps of a token, before and after the softmax, where they are kept."""
    return 0 if config.family.recurrent else 2 * config.num_attention_heads * context


# Parts.


def _beside_layers(config: ModelConfig) -> int:
    width = config.hidden_size
    embeddings = config.vocab_size * width * (1 if config.tie_word_embeddings else 2)
    if config.position == "learned":
        embeddings += config.max_position_embeddings * width
    return embeddings + _norm(config)


def _norm(config: ModelConfig) -> int:
    return config.hidden_size * (2 if config.family.norm == "layer" else 1)


def _experts(config: ModelConfig) -> int:
    return 0 if config.experts is None else config.experts.num_experts


def _layer(config: ModelConfig, experts: int) -> int:
    """The numbers of one layer, of whose feed-forward parts so many `experts` count."""
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
    """The weights of one layer that multiply."""
    width = config.hidden_size
    if config.family.recurrent:
        return 2 * GATES[config.model_type] * width * width
    heads = config.num_attention_heads + config.num_key_value_heads
    attention = 2 * width * heads * config.head_dim
    feed_forward = (3 if config.gated else 2) * width * _inner(config)
    if config.experts is None:
        return attention + feed_forward
    router = width * config.experts.num_experts
    return attention + router + experts * feed_forward


def _inner(config: ModelConfig) -> int:
    """The inner features of a feed-forward part, or of one expert."""
    experts = config.experts
    return config.intermediate_size if experts is None else experts.moe_intermediate_size
