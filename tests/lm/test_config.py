from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from groundup.errors import UserError
from groundup.lm import experts
from groundup.lm.config import ExpertsConfig, ModelConfig
from groundup.lm.model import CausalLM
from groundup.train.batch import Batch


def test_our_shape_has_heads_of_64_and_multiples_of_64() -> None:
    config = ModelConfig.of(width=384, depth=6, vocab_size=4096, context=256)
    assert (config.head_dim, config.num_attention_heads) == (64, 6)
    assert config.num_attention_heads % config.num_key_value_heads == 0
    assert config.intermediate_size == 1024
    assert config.model_type == "qwen3" and config.tie_word_embeddings


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"heads": 6, "width": 256}, "heads=6 does not divide width=256; try 4 or 8"),
        ({"width": 250}, "width=250 is not a multiple of 64; try 256"),
        ({"vocab_size": 1000}, "vocab_size=1000 is not a multiple of 64; try 1024"),
        ({"depth": 0}, "depth=0 must be at least 1"),
        ({"heads": 4, "kv_heads": 3, "width": 256}, "num_key_value_heads=3 does not divide"),
    ],
)
def test_impossible_shapes_name_value_rule_and_remedy(
    changes: dict[str, int], message: str
) -> None:
    shape = {"width": 256, "depth": 2, "vocab_size": 512, "context": 128} | changes
    with pytest.raises(UserError, match=message):
        ModelConfig.of(**shape)


@pytest.mark.usefixtures("unchecked_types")
@pytest.mark.parametrize(
    ("switches", "message"),
    [
        ({"model_type": "phi"}, "model_type='phi' must be one of 'qwen3', .*; try 'qwen3'"),
        ({"hidden_act": "swish"}, "hidden_act='swish' must be one of 'silu', .*; try 'silu'"),
        ({"hidden_act": None}, "hidden_act=None must be one of 'silu'"),
        (
            {"position_embedding_type": "rotary"},
            "position_embedding_type='rotary' must be one of 'rope', .*'none', None; try 'rope'",
        ),
        (
            {"sliding_window": 8, "windowed_layers": (0, 2)},
            r"windowed_layers=\(0, 2\) must be layers from 0 to 1; leave out",
        ),
        ({"windowed_layers": (0,)}, r"windowed_layers=\(0,\) needs a sliding_window; give one"),
        (
            {"sliding_window": 8, "windowed_layers": (-1,)},
            r"windowed_layers=\(-1,\) must be layers from 0 to 1",
        ),
    ],
)
def test_unknown_switches_are_rejected(switches: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        ModelConfig.of(width=64, depth=2, vocab_size=64, context=32, **switches)


def test_a_window_in_no_layer_is_allowed() -> None:
    shape = ModelConfig.of(width=64, depth=2, vocab_size=64, context=32)
    assert replace(shape, windowed_layers=()).windows == (None, None)
    assert replace(shape, windowed_layers=(), sliding_window=8).windows == (None, None)


@pytest.mark.parametrize("kind", ["qwen3", "qwen2", "llama", "mistral", "gpt2"])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_parameter_count_equals_the_models(kind: str, tied: bool, bias: bool) -> None:
    config = ModelConfig(
        320, 64, 128, 3, 4, 2, 24, model_type=kind, tie_word_embeddings=tied,
        attention_bias=bias, mlp_bias=bias,
    )  # type: ignore[arg-type]  # fmt: skip
    assert config.parameters == sum(p.numel() for p in CausalLM(config).parameters())


def counted_flops(model: CausalLM, context: int) -> int:
    batch = Batch.of(torch.arange(2 * context).reshape(2, context) % model.config.vocab_size)
    with FlopCounterMode(display=False) as counter:
        model.logits(batch).sum().backward()
    return counter.get_total_flops()


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"is_gated_act": False, "hidden_act": "relu2"},
        {"position_embedding_type": "alibi", "do_layer_norm_before": False},
        {"num_key_value_heads": 1},
        {"experts": ExpertsConfig(4, 2, 96), "model_type": "qwen3_moe"},
        {"experts": ExpertsConfig(3, 1, 64), "model_type": "qwen3_moe"},
    ],
)
def test_flops_per_token_equal_torchs_count(tiny_model, changes, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(
        experts, "_ROW_MULTIPLE", 1
    )  # zeros that fill up an expert's rows are not counted
    model, context = tiny_model(**changes), 48
    assert counted_flops(model, context) == 2 * context * model.config.flops_per_token(context)


@pytest.mark.parametrize(
    "changes", [{}, {"is_gated_act": False, "hidden_act": "relu2"}, {"num_key_value_heads": 1}]
)
def test_products_are_those_of_its_matrices(tiny_model, changes) -> None:  # type: ignore[no-untyped-def]
    model = tiny_model(**changes)
    matrices = Counter(
        (one.in_features, one.out_features)
        for one in model.modules()
        if isinstance(one, torch.nn.Linear)
    )
    found: Counter[tuple[int, int]] = Counter()
    for inputs, outputs, times in model.config.products():
        found[inputs, outputs] += times
    assert found == matrices


@pytest.mark.parametrize(("cell", "gates"), [("lstm", 4), ("gru", 3)])
def test_flops_of_a_recurrent_network_are_those_of_its_gates(cell: str, gates: int) -> None:
    """Six per weight: torch's counter does not see its recurrent kernels."""
    config = ModelConfig.recurrent(cell, width=64, depth=3, vocab_size=320, context=48)  # type: ignore[arg-type]
    matrices = 3 * gates * (64 * 64 + 64 * 64) + 320 * 64
    assert config.flops_per_token(48) == config.flops_per_token(4_800) == 6 * matrices
    weights = [p for n, p in CausalLM(config).model.layers.named_parameters() if "weight" in n]
    assert sum(p.numel() for p in weights) == matrices - 320 * 64


def test_a_window_limits_the_counted_keys() -> None:
    config = ModelConfig.of(width=64, depth=4, vocab_size=320, context=512)
    windowed = replace(config, sliding_window=100, windowed_layers=(0, 1, 2))
    saved = config.flops_per_token(512) - windowed.flops_per_token(512)
    assert saved == 3 * 12 * (512 - 100) * 64
    assert windowed.flops_per_token(64) == config.flops_per_token(64)
