from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
import torch

from groundup.formats.own_config import not_in_hugging_face
from groundup.lm.attention import document_mask
from groundup.lm.config import ModelConfig
from groundup.pretrain.config import PretrainConfig
from groundup.pretrain.shape import RECURRENT_PEAK_SHARE, TOKENS_PER_PARAMETER, model_shape
from groundup.runs.console import duration
from groundup.train.device import EXPECTED_PEAK_SHARE


def config(**settings: Any) -> PretrainConfig:
    return PretrainConfig(out=Path("o"), data=Path("d"), tokenizer=Path("t"), **settings)


def test_given_values_are_kept() -> None:
    shape, reasons = model_shape(config(depth=2, width=128, heads=4, kv_heads=2), 512, 1e12)
    assert (shape.num_hidden_layers, shape.hidden_size) == (2, 128)
    assert (shape.num_attention_heads, shape.num_key_value_heads) == (4, 2)
    assert not {"depth", "width", "heads"} & set(reasons)


def test_depth_follows_from_width() -> None:
    shape, reasons = model_shape(config(width=320), 512, 1e12)
    assert shape.num_hidden_layers == 5 and "--depth" in reasons["depth"]


def test_help_names_settings_that_transformers_does_not_load() -> None:
    for name, field in PretrainConfig.model_fields.items():
        if "(transformers loads " not in (field.description or ""):
            continue
        for value in get_args(field.annotation):
            shape = config(**{name: value}).shape(width=64, depth=1, vocab_size=64)
            assert (not_in_hugging_face(shape) is None) == (value == field.default)
    for name in ("arch", "position", "norm", "activation"):
        assert "(transformers loads " in str(PretrainConfig.model_fields[name].description)


def test_the_vocabulary_is_rounded_up() -> None:
    for given, rounded in ((301, 320), (320, 320), (8192, 8192)):
        assert model_shape(config(depth=1), given, 1e12)[0].vocab_size == rounded


@pytest.mark.parametrize("minutes", [2, 15, 600])
def test_the_model_is_the_deepest_for_the_minutes(minutes: float) -> None:
    peak = 2e11

    def tokens_per_parameter(depth: int) -> float:
        shape, _ = model_shape(config(depth=depth), 4096, peak)
        budget = minutes * 60 * peak * EXPECTED_PEAK_SHARE
        return budget / shape.flops_per_token(256) / shape.parameters

    shape, reasons = model_shape(config(minutes=minutes), 4096, peak)
    depth = shape.num_hidden_layers
    assert shape.hidden_size == 64 * depth and duration(60 * minutes) in reasons["depth"]
    assert tokens_per_parameter(depth) >= TOKENS_PER_PARAMETER or depth == 1
    assert tokens_per_parameter(depth + 1) < TOKENS_PER_PARAMETER


@pytest.mark.parametrize("arch", ["lstm", "gru"])
def test_a_recurrent_network_grows_in_width(arch: str) -> None:
    peak = 2e11
    shapes = [model_shape(config(arch=arch, minutes=m), 4096, peak) for m in (2, 15, 600)]
    widths = [shape.hidden_size for shape, _ in shapes]
    assert widths == sorted(set(widths)) and all(width % 64 == 0 for width in widths)
    for (shape, reasons), minutes in zip(shapes, (2, 15, 600), strict=True):
        assert shape.model_type == arch and shape.num_hidden_layers == 2
        assert "--width" in reasons["width"] and "--depth" in reasons["depth"]
        wider = replace(shape, hidden_size=shape.hidden_size + 64)
        budget = minutes * 60 * peak * RECURRENT_PEAK_SHARE
        for one, enough in ((shape, True), (wider, False)):
            tokens = budget / one.flops_per_token(256)
            assert (tokens >= TOKENS_PER_PARAMETER * one.parameters) == enough
    assert model_shape(config(arch=arch, depth=3, width=128), 512, peak)[0].num_hidden_layers == 3


def test_active_experts_count() -> None:
    dense, _ = model_shape(config(minutes=15), 4096, 2e11)
    sparse, _ = model_shape(config(minutes=15, experts=8), 4096, 2e11)
    assert sparse.hidden_size == dense.hidden_size
    assert sparse.parameters > 2 * dense.parameters
    assert sparse.experts is not None and sparse.experts.router_aux_loss_coef == 0.01


def test_switches_are_part_of_the_shape() -> None:
    asked = config(
        depth=2, width=128, position="sinusoidal", norm="after", activation="gelu",
        attention_window=32, kv_heads=2,
    )  # fmt: skip
    shape, _ = model_shape(asked, 512, 1e12)
    assert (shape.position, shape.do_layer_norm_before) == ("sinusoidal", False)
    assert (shape.gated, shape.hidden_act, shape.intermediate_size) == (False, "gelu", 512)
    said = PretrainConfig.model_fields["attention_window"].description
    assert said is not None and "including its own" in said
    assert document_mask(torch.zeros(1, 40, dtype=torch.long), 32)[0, 39].sum() == 32
    assert shape.windows == (32, 32) and shape.num_key_value_heads == 2
    plain, _ = model_shape(config(depth=2, width=128), 512, 1e12)
    assert plain == ModelConfig.of(width=128, depth=2, vocab_size=512, context=256)
