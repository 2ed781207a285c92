from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from groundup.pretrain.config import PretrainConfig
from groundup.pretrain.shape import TOKENS_PER_PARAMETER, model_shape
from groundup.train.device import EXPECTED_PEAK_SHARE


def config(**settings: Any) -> PretrainConfig:
    return PretrainConfig(out=Path("o"), data=Path("d"), tokenizer=Path("t"), **settings)


def test_what_is_given_is_kept() -> None:
    shape, reasons = model_shape(config(depth=2, width=128, heads=4, kv_heads=2), 512, 1e12)
    assert (shape.num_hidden_layers, shape.hidden_size) == (2, 128)
    assert (shape.num_attention_heads, shape.num_key_value_heads) == (4, 2)
    assert not {"depth", "width", "heads"} & set(reasons)


def test_depth_follows_from_width() -> None:
    shape, reasons = model_shape(config(width=320), 512, 1e12)
    assert shape.num_hidden_layers == 5 and "--depth" in reasons["depth"]


def test_the_vocabulary_is_rounded_up() -> None:
    for given, rounded in ((301, 320), (320, 320), (8192, 8192)):
        assert model_shape(config(depth=1), given, 1e12)[0].vocab_size == rounded


@pytest.mark.parametrize("minutes", [2, 15, 600])
def test_the_model_is_the_deepest_that_the_minutes_feed(minutes: float) -> None:
    peak = 2e11

    def tokens_per_parameter(depth: int) -> float:
        shape, _ = model_shape(config(depth=depth), 4096, peak)
        budget = minutes * 60 * peak * EXPECTED_PEAK_SHARE
        return budget / shape.flops_per_token(256) / shape.parameters

    shape, reasons = model_shape(config(minutes=minutes), 4096, peak)
    depth = shape.num_hidden_layers
    assert shape.hidden_size == 64 * depth and "minutes" in reasons["depth"]
    assert tokens_per_parameter(depth) >= TOKENS_PER_PARAMETER or depth == 1
    assert tokens_per_parameter(depth + 1) < TOKENS_PER_PARAMETER
