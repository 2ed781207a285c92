"""Adapters: train a few parameters next to frozen weights, in full precision or in a few bits.

    from groundup.adapters import add_lora, quantize

    add_lora(quantize(model), rank=16)      # QLoRA

These modules know no model class: they replace layers by name. Names are imported on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from groundup.deprecated import renamed

if TYPE_CHECKING:
    from groundup.adapters.attach import (
        adapter_names,
        add_lora,
        merge,
        unmerge,
        use_adapter,
        using_adapter,
    )
    from groundup.adapters.int8 import Int8Linear
    from groundup.adapters.lora import LoRALinear
    from groundup.adapters.nf4 import (
        NF4Linear,
        QuantizedNF4,
        dequantize_4bit,
        dequantize_nf4,
        derived_nf4,
        quantize_4bit,
        quantize_nf4,
    )
    from groundup.adapters.quantization import dequantize, is_quantized, quantize

_PAGES = {
    "attach": (
        "adapter_names",
        "add_lora",
        "merge",
        "unmerge",
        "use_adapter",
        "using_adapter",
    ),
    "int8": ("Int8Linear",),
    "lora": ("LoRALinear",),
    "nf4": (
        "NF4Linear",
        "QuantizedNF4",
        "dequantize_4bit",
        "dequantize_nf4",
        "derived_nf4",
        "quantize_4bit",
        "quantize_nf4",
    ),
    "quantization": ("dequantize", "is_quantized", "quantize"),
}

__all__ = [
    "Int8Linear",
    "LoRALinear",
    "NF4Linear",
    "QuantizedNF4",
    "adapter_names",
    "add_lora",
    "dequantize",
    "dequantize_4bit",
    "dequantize_nf4",
    "derived_nf4",
    "is_quantized",
    "merge",
    "quantize",
    "quantize_4bit",
    "quantize_nf4",
    "unmerge",
    "use_adapter",
    "using_adapter",
]


def __getattr__(name: str) -> Any:
    for page, names in _PAGES.items():
        if name in names:
            return getattr(importlib.import_module(f"groundup.adapters.{page}"), name)
    return renamed(__name__, name)
