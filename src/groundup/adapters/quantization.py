"""Whole models with quantized layers; QLoRA is `add_lora(quantize(model))`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeVar, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from groundup.adapters.attach import adapter_names, merge
from groundup.adapters.frozen import FrozenLinear
from groundup.adapters.layers import chosen
from groundup.adapters.nf4 import BLOCK_SIZES, NF4Linear
from groundup.deprecated import renamed_keywords
from groundup.errors import UserError

Kind = Literal["nf4", "fp4", "int8"]
M = TypeVar("M", bound=nn.Module)


@renamed_keywords(double_quantisation="double_quant")
def quantize(
    model: M,
    kind: Kind = "nf4",
    *,
    block_size: int = 64,
    double_quant: bool = True,
    targets: Sequence[str] | str | None = None,
) -> M:
    """Replace each linear layer of the blocks by a quantized one, and return the model.

    Embeddings, norms and the output head stay as they are. `targets` restricts this to layers with
    these names or ends of names, such as `q_proj`. `block_size` and `double_quant` apply to 4 bits;
    int8 has one scale per row.

    Raises `UserError` for a model that is already quantized, for unknown settings, for targets that
    match nothing and for weights that are not finite.
    """
    if kind not in get_args(Kind):
        raise UserError(f"kind={kind!r} is unknown; choose one of {', '.join(get_args(Kind))}")
    if block_size not in BLOCK_SIZES:
        raise UserError(
            f"block_size={block_size} is not supported; choose one of "
            f"{', '.join(map(str, BLOCK_SIZES))} (the paper's is 64)"
        )
    if is_quantized(model):
        raise UserError(
            "the model is already quantized, and quantizing it again would lose more; "
            "start from the unquantized model"
        )
    layers = chosen(model, targets)
    places = {module: name for name, module in model.named_modules()}
    for name in list(layers):
        layer = layers.pop(name)  # so that its weight is freed before the next is quantized
        assert isinstance(layer, nn.Linear)
        if not layer.weight.isfinite().all():
            raise UserError(f"the weight of {name} is not finite; use an earlier model")
        new = quantized_layer(layer, kind, block_size, double_quant)
        model.set_submodule(places.pop(layer), new.train(layer.training))
    return model


def quantized_layer(
    layer: nn.Linear, kind: Kind = "nf4", block_size: int = 64, double_quant: bool = True
) -> FrozenLinear:
    """Quantize one layer; the new layer shares its bias."""
    if kind == "int8":
        from groundup.adapters.int8 import Int8Linear  # rarely needed: a comparison

        return Int8Linear.of(layer)
    return NF4Linear.of(layer, kind, block_size, double_quant)


def dequantize(model: M, dtype: torch.dtype) -> M:
    """Replace each quantized layer by a plain one with its weight in `dtype`; return the model."""
    for name, layer in quantized_layers(model).items():
        plain = nn.Linear(layer.in_features, layer.out_features, bias=False, device="meta")
        plain.weight = nn.Parameter(layer.dequantized(dtype))
        plain.register_parameter("bias", layer.bias)
        model.set_submodule(name, plain.train(layer.training))
    return model


def merge_and_dequantize(model: M, dtype: torch.dtype) -> M:
    """Merge the active adapter, if the model has adapters, and dequantize; return the model."""
    if adapter_names(model):
        merge(model, reversible=False)
    return dequantize(model, dtype)


def quantized_layers(model: nn.Module) -> dict[str, FrozenLinear]:
    """The quantized layers, by path."""
    modules = model.named_modules()
    return {path: module for path, module in modules if isinstance(module, FrozenLinear)}


def is_quantized(model: nn.Module) -> bool:
    """Whether any layer of the model is quantized."""
    return bool(quantized_layers(model))


def bits_per_weight(model: nn.Module) -> float:
    """Bits of memory per weight of the quantized layers, scales included."""
    layers = quantized_layers(model).values()
    assert layers, "a model with quantized layers"
    held = sum(tensor.nbytes for layer in layers for tensor in layer.packed_tensors)
    return 8 * held / sum(layer.in_features * layer.out_features for layer in layers)


@renamed_keywords(double_quantisation="double_quant")
def relative_error(
    weight: Float[Tensor, "out in"],
    kind: Kind = "nf4",
    *,
    block_size: int = 64,
    double_quant: bool = True,
) -> float:
    """The relative error of quantizing a weight: sqrt(mean((Q(W) - W)^2) / mean(W^2))."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
    layer.weight = nn.Parameter(weight.detach(), requires_grad=False)
    found = quantized_layer(layer, kind, block_size, double_quant).dequantized()
    return float((found - weight.float()).norm() / weight.float().norm())
