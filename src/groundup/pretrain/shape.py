"""The size of a model from the minutes of training: the dial from time to depth.

The width is 64 times the depth, as in the middle sizes of the GPT family, so one number sets the
shape. A model is worth its size only if it sees enough tokens: with C floating point operations, a
model of N parameters sees D = C / (6 N) tokens, and the largest N with D >= ratio * N is chosen
(Hoffmann et al. 2022). In a mixture of experts, N counts the parameters that a token uses. A
recurrent network gets wider with time, not deeper: its layers wait for each other at every token,
and such language models usually have two (Zaremba et al. 2014).
"""

from __future__ import annotations

from collections.abc import Callable

from groundup.lm.config import ModelConfig
from groundup.pretrain.config import PretrainConfig
from groundup.runs.console import duration
from groundup.train.device import EXPECTED_PEAK_SHARE, RECURRENT_PEAK_SHARE

# Hoffmann et al. find about 20 for one pass over unlimited text. Runs of minutes on text that is
# read more than once need smaller ratios, but not below one: a quickstart's base that saw 0.7
# reached 1.83 bits per byte, and a smaller one that saw 4 in the same minutes 1.73.
TOKENS_PER_PARAMETER = 1.5
_LARGEST = 48
_RECURRENT_LAYERS = 2


def model_shape(
    config: PretrainConfig, vocab_size: int, peak_flops: float
) -> tuple[ModelConfig, dict[str, str]]:
    """The model's shape and the reasons for it: from the config, else from minutes and peak."""
    reasons: dict[str, str] = {}
    # Little text gives fewer tokens than requested; the extra rows are never used.
    vocab_size = -(-vocab_size // 64) * 64
    if config.arch != "gpt":
        return _recurrent_shape(config, vocab_size, peak_flops)
    depth = config.depth
    if depth is None and config.width is not None:
        depth = max(1, config.width // 64)
        reasons["depth"] = f"width {config.width} / 64; change with --depth"
    elif depth is None:
        depth = _largest(
            config, vocab_size, peak_flops * EXPECTED_PEAK_SHARE, lambda n: (64 * n, n)
        )
        reasons["depth"] = _why(config, "deepest", peak_flops, EXPECTED_PEAK_SHARE, "--depth")
    width = config.width
    if width is None:
        width = 64 * depth
        reasons["width"] = f"64 x depth {depth}; change with --width"
    shape = config.shape(width=width, depth=depth, vocab_size=vocab_size)
    if config.heads is None:
        reasons["heads"] = "heads of 64 features; change with --heads"
    return shape, reasons


def _recurrent_shape(
    config: PretrainConfig, vocab_size: int, peak_flops: float
) -> tuple[ModelConfig, dict[str, str]]:
    reasons: dict[str, str] = {}
    depth, width = config.depth, config.width
    if depth is None:
        depth = _RECURRENT_LAYERS
        reasons["depth"] = "two layers, as usual for recurrent networks; change with --depth"
    if width is None:
        layers, speed = depth, peak_flops * RECURRENT_PEAK_SHARE
        width = 64 * _largest(config, vocab_size, speed, lambda n: (64 * n, layers))
        reasons["width"] = _why(config, "widest", peak_flops, RECURRENT_PEAK_SHARE, "--width")
    return config.shape(width=width, depth=depth, vocab_size=vocab_size), reasons


def _largest(
    config: PretrainConfig, vocab_size: int, speed: float, sizes: Callable[[int], tuple[int, int]]
) -> int:
    """The largest candidate whose width and depth see enough tokens in the minutes."""
    plain = config.model_copy(update={"heads": None, "kv_heads": None})
    found = 1
    for candidate in range(2, _LARGEST + 1):
        width, depth = sizes(candidate)
        shape = plain.shape(width=width, depth=depth, vocab_size=vocab_size)
        tokens = _minutes(config) * 60 * speed / shape.flops_per_token(config.context)
        if tokens < TOKENS_PER_PARAMETER * shape.active_parameters:
            break
        found = candidate
    return found


def _why(config: PretrainConfig, what: str, peak_flops: float, share: float, option: str) -> str:
    return (
        f"the {what} that sees {TOKENS_PER_PARAMETER:g} tokens per parameter in "
        f"{duration(60 * _minutes(config))} at {peak_flops * share / 1e9:,.0f} "
        f"GFLOP/s ({share:.0%} of the machine's peak); change with {option}"
    )


def _minutes(config: PretrainConfig) -> float:
    return config.minutes or 5.0
