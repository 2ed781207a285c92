"""Quantizing whole models."""

from __future__ import annotations

import bitsandbytes.functional as bnb
import pytest
import torch
from torch import Tensor, nn

from groundup.adapters.int8 import Int8Linear
from groundup.adapters.nf4 import NF4Linear
from groundup.adapters.quantization import (
    Kind,
    bits_per_weight,
    dequantize,
    is_quantized,
    quantize,
    quantized_layers,
    relative_error,
)
from groundup.errors import UserError
from groundup.lm.config import ModelConfig
from groundup.lm.model import CausalLM
from groundup.train.batch import Batch

IDS = torch.arange(2, 42).reshape(2, 20) * 7
PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def made() -> CausalLM:
    config = ModelConfig.of(width=64, depth=2, vocab_size=320, context=64, heads=4, kv_heads=2)
    model = CausalLM(config)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(1.0 if "norm" in name else 0.0, 0.2, generator=generator)
    return model


@pytest.mark.parametrize(
    ("kind", "layer"), [("nf4", NF4Linear), ("fp4", NF4Linear), ("int8", Int8Linear)]
)
def test_only_linear_layers_of_the_blocks_are_replaced(kind: Kind, layer: type[nn.Module]) -> None:
    model = made()
    numbers = sum(p.numel() for p in model.parameters())
    assert not is_quantized(model)
    assert quantize(model, kind) is model
    assert is_quantized(model)
    layers = quantized_layers(model)
    assert {name.rpartition(".")[2] for name in layers} == set(PROJECTIONS)
    assert len(layers) == 2 * len(PROJECTIONS)
    assert {type(one) for one in layers.values()} == {layer}
    assert type(model.lm_head) is nn.Linear
    assert model.lm_head.weight is model.model.embed_tokens.weight
    matrices = sum(one.in_features * one.out_features for one in layers.values())
    assert sum(p.numel() for p in model.parameters()) == numbers - matrices


def test_the_quantized_model_is_close_to_the_original() -> None:
    full = made().logits(Batch.of(IDS)).detach()
    errors = {}
    for kind in ("int8", "nf4", "fp4"):
        logits = quantize(made(), kind).logits(Batch.of(IDS)).detach()
        errors[kind] = float((logits - full).norm() / full.norm())
    assert 0 < errors["int8"] < errors["nf4"] / 5
    assert errors["nf4"] < errors["fp4"] < 0.7  # of random weights, whose logits are all noise


@pytest.mark.parametrize("kind", ["nf4", "int8"])
def test_the_dequantized_model_has_the_same_logits(kind: Kind) -> None:
    model = quantize(made(), kind)
    logits = model.logits(Batch.of(IDS))
    assert dequantize(model, torch.float32) is model
    assert not is_quantized(model)
    assert torch.equal(model.logits(Batch.of(IDS)), logits)
    assert dequantize(quantize(made()), torch.bfloat16).model.layers[
        0
    ].mlp.up_proj.weight.dtype == (torch.bfloat16)


def test_bits_of_a_whole_model() -> None:
    assert bits_per_weight(quantize(made())) == pytest.approx(4.127, abs=0.02)
    assert bits_per_weight(quantize(made(), double_quant=False)) == 4.5
    assert bits_per_weight(quantize(made(), block_size=128, double_quant=False)) == 4.25


def test_targets_are_names_or_suffixes() -> None:
    layers = quantized_layers(quantize(made(), targets=["q_proj", "layers.1.mlp.up_proj"]))
    assert sorted(layers) == [
        "model.layers.0.self_attn.q_proj",
        "model.layers.1.mlp.up_proj",
        "model.layers.1.self_attn.q_proj",
    ]


def test_frozen_biases_and_modes_are_kept() -> None:
    model = nn.Module()
    model.blocks = nn.ModuleList([nn.Linear(64, 32)])
    model.requires_grad_(False).eval()
    layer = quantize(model).blocks[0]
    assert layer.bias is not None and not layer.bias.requires_grad and not layer.training


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"targets": ["query"]}, "'query' matches no linear layer.*q_proj, k_proj, v_proj"),
        ({"targets": ["lm_head"]}, "'lm_head' matches no linear layer"),
        ({"targets": []}, "targets is empty"),
        ({"block_size": 48}, "block_size=48 is not supported; choose one of 32, 64, 128"),
        ({"kind": "int4"}, "kind='int4' is unknown; choose one of nf4, fp4, int8"),
    ],
)
def test_unquantizable_layers_are_reported(
    settings: dict[str, object], message: str, unchecked_types: None
) -> None:
    model = made()
    with pytest.raises(UserError, match=message):
        quantize(model, **settings)  # type: ignore[arg-type]
    assert not is_quantized(model)


def test_a_model_is_quantized_once_and_only_if_finite() -> None:
    with pytest.raises(UserError, match="already quantized"):
        quantize(quantize(made()), "int8")
    model = made()
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[3, 5] = torch.nan
    with pytest.raises(UserError, match=r"layers\.1\.mlp\.up_proj is not finite"):
        quantize(model)


@pytest.mark.parametrize("kind", ["nf4", "fp4"])
def test_the_error_of_a_weight_equals_bitsandbytes(kind: Kind) -> None:
    weight: Tensor = torch.randn(256, 512, generator=torch.Generator().manual_seed(0))
    packed, state = bnb.quantize_4bit(weight, quant_type=kind)
    theirs = (bnb.dequantize_4bit(packed, state) - weight).norm() / weight.norm()
    ours = relative_error(weight, kind, double_quant=False)
    assert ours == pytest.approx(float(theirs), rel=1e-6)
    assert ours < relative_error(weight, kind) < 1.001 * ours
    assert ours < relative_error(weight, kind, block_size=128, double_quant=False)
    assert relative_error(weight, "int8") < ours / 5
