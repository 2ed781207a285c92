"""Loads `kernel.c` as a library, and defines its structures. Without a compiler everything runs in
PyTorch."""

from __future__ import annotations

import ctypes
import functools
from ctypes import POINTER, Structure, c_double, c_int, c_int64, c_void_p
from pathlib import Path

import torch

from groundup.kernels.compiler import compiled

# The kinds of matrices that the kernel reads, in the order of its enum.
KINDS = ("float32", "bfloat16", "q8_0", "q4_0", "q4_1")

_SOURCE = Path(__file__).with_name("kernel.c")
# The dtype of the cache and of outputs.
FLAGS = {torch.float32: "-DFLOAT32", torch.bfloat16: "-DBFLOAT16"}


class Matrix(Structure):
    _fields_ = (
        ("weight", c_void_p),
        ("bias", c_void_p),
        *((name, c_int64) for name in ("out", "in", "kind")),
        *((name, c_void_p) for name in ("lora_down", "lora_up")),
    )


class Layer(Structure):
    _fields_ = (
        *((name, Matrix) for name in ("q", "k", "v", "o", "gate", "up", "down")),
        *((name, c_void_p) for name in ("norm1", "norm2", "q_norm", "k_norm", "keys", "values")),
        ("window", c_int64),
    )


_SIZES = ("width", "inner", "heads", "kv_heads", "head_dim", "slots", "layers")


class Model(Structure):
    _fields_ = (
        *((name, c_int64) for name in _SIZES),
        ("eps", c_double),
        ("norm", c_void_p),
        ("turns", c_void_p),
    )


@functools.cache
def library(dtype: torch.dtype) -> ctypes.CDLL | None:
    """The compiled kernel for a cache of that dtype; None if it cannot be compiled."""
    found = compiled([_SOURCE], FLAGS[dtype])
    if found is None:
        return None
    found.decode.argtypes = (
        POINTER(Model), POINTER(Layer), c_int64, c_void_p, c_void_p, c_void_p, c_int
    )  # fmt: skip
    found.linear.argtypes = (POINTER(Matrix), c_int64, c_void_p, c_void_p, c_int)
    found.attention_step.argtypes = (
        POINTER(Model), POINTER(Layer), c_int64, c_int64, *[c_void_p] * 4, c_int
    )  # fmt: skip
    found.add_norm.argtypes = (
        c_void_p, c_void_p, c_int64, c_int64, c_void_p, c_double, c_void_p, c_int
    )  # fmt: skip
    found.gated.argtypes = (c_void_p, c_int64, c_int64, c_void_p, c_int)
    found.dequantize.argtypes = (POINTER(Matrix), c_void_p, c_int)
    for name in ("decode", "linear", "attention_step", "add_norm", "gated", "dequantize"):
        getattr(found, name).restype = None
    return found
