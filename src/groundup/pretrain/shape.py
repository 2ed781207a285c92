"""How large a model the minutes can feed: the dial from time to depth.

The width is 64 times the depth, as in the GPT family's middle sizes, so one number sets the shape.
A model is worth its size only if it sees enough tokens: with C floating point operations to
spend, a model of N parameters sees D = C / (6 N) tokens, and the largest N with D >= ratio * N is
taken (Hoffmann et al. 2022).
"""

from __future__ import annotations

from groundup.lm.config import ModelConfig
from groundup.pretrain.config import PretrainConfig
from groundup.train.device import EXPECTED_PEAK_SHARE

# Hoffmann et al. find about 20 for one pass over endless text. Runs of minutes on text that is
# seen more than once want smaller ratios.
TOKENS_PER_PARAMETER = 1.0
_LARGEST_DEPTH = 48


def model_shape(
    config: PretrainConfig, vocab_size: int, peak_flops: float
) -> tuple[ModelConfig, dict[str, str]]:
    """Return the model's shape and the reasons: as asked, else from the minutes and the peak."""
    reasons: dict[str, str] = {}
    # Little text gives fewer tokens than were asked for; rows past them are never spoken.
    vocab_size = -(-vocab_size // 64) * 64
    depth = config.depth
    if depth is None and config.width is not None:
        depth = max(1, config.width // 64)
        reasons["depth"] = f"width {config.width} / 64; change with --depth"
    elif depth is None:
        budget = (config.minutes or 5.0) * 60 * peak_flops * EXPECTED_PEAK_SHARE
        depth = _affordable_depth(config, vocab_size, budget)
        reasons["depth"] = (
            f"the deepest that sees {TOKENS_PER_PARAMETER:g} tokens a parameter in "
            f"{config.minutes or 5.0:.3g} minutes at {peak_flops * EXPECTED_PEAK_SHARE / 1e9:,.0f} "
            f"GFLOP/s ({EXPECTED_PEAK_SHARE:.0%} of the peak measured here); change with --depth"
        )
    width = config.width
    if width is None:
        width = 64 * depth
        reasons["width"] = f"64 x depth {depth}; change with --width"
    shape = ModelConfig.of(
        width=width,
        depth=depth,
        vocab_size=vocab_size,
        context=config.context,
        heads=config.heads,
        kv_heads=config.kv_heads,
    )
    if config.heads is None:
        reasons["heads"] = "heads of 64 features; change with --heads"
    return shape, reasons


def _affordable_depth(config: PretrainConfig, vocab_size: int, budget: float) -> int:
    depth = 1
    for candidate in range(2, _LARGEST_DEPTH + 1):
        shape = ModelConfig.of(
            width=64 * candidate, depth=candidate, vocab_size=vocab_size, context=config.context
        )
        tokens = budget / shape.flops_per_token(config.context)
        if tokens < TOKENS_PER_PARAMETER * shape.parameters:
            break
        depth = candidate
    return depth
