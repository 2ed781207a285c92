"""The hardware of this machine, and the speeds of its parts, measured in a few seconds."""

from __future__ import annotations

import os
import shutil
from dataclasses import asdict
from typing import Any

import psutil
import torch

from groundup.kernels.compiler import cpu_flags, unavailable_reason
from groundup.kernels.library import best_kernels
from groundup.runs.cache import cache_folder
from groundup.train.device import (
    available_memory,
    compute_dtype,
    find_compiler,
    has_fast_bfloat16,
    matmul_peak,
    resolve_device,
    usable_cores,
)
from groundup.train.remembered import processor
from groundup.train.speeds import disk_bandwidth, matrices, memory_bandwidth, products

_VECTORS = ("avx2", "avx512f", "avx512_bf16", "amx_tile", "amx_bf16", "neon", "asimd", "bf16")
# The timed products are those of a model of this size with this many tokens.
_WIDTH, _VOCABULARY, _TOKENS = 384, 4_096, 4_096


def machine_facts() -> dict[str, Any]:
    """Return the hardware and software of the machine, by name."""
    memory, cache = psutil.virtual_memory(), cache_folder()
    place = next(one for one in (cache, *cache.parents) if one.exists())
    return {
        "processor": processor(),
        "cores": usable_cores(),
        "vectors": [one for one in _VECTORS if one in cpu_flags()],
        "memory_bytes": int(memory.total),
        "free_bytes": available_memory(),
        "device": resolve_device("auto"),
        "fast_bfloat16": has_fast_bfloat16("cpu"),
        "kernels": best_kernels(compute_dtype()),
        "why_no_kernels": unavailable_reason(),
        "compiler": find_compiler(),
        "torch": torch.__version__,
        "torch_vectors": torch.backends.cpu.get_cpu_capability(),
        "onednn": torch.backends.mkldnn.is_available(),  # type: ignore[no-untyped-call]
        "cache": str(cache),
        "disk_free_bytes": shutil.disk_usage(place).free,
    }


def machine_speeds() -> dict[str, Any]:
    """Measure the speeds of matrix products, memory and disk in a few seconds."""
    shapes = matrices(_WIDTH, 1_024, (384, 128), _VOCABULARY)
    kinds = {"float32": torch.float32}
    if has_fast_bfloat16("cpu"):
        kinds["bfloat16"] = torch.bfloat16
    found = {name: products(shapes, _TOKENS, kind) for name, kind in kinds.items()}
    speeds: dict[str, Any] = {
        "products": {name: asdict(one) | {"together": one.together} for name, one in found.items()},
        "square": {name: matmul_peak("cpu", kind) for name, kind in kinds.items()},
        "shape": f"width {_WIDTH}, {_TOKENS:,} tokens at once",
        "memory_bandwidth": memory_bandwidth(),
        "disk_bandwidth": None,
    }
    try:
        cache_folder().mkdir(parents=True, exist_ok=True)
        speeds["disk_bandwidth"] = disk_bandwidth(cache_folder())
    except OSError:
        pass  # no space or no permission to write: the doctor's advice says so
    return speeds


def busy_cores() -> float:
    """Return the number of cores that other programs use at the moment."""
    return psutil.cpu_percent(interval=0.5) / 100 * (os.cpu_count() or 1)
