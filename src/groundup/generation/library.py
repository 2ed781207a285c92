"""`kernel.c` as a library, compiled by the system's own compiler.

It is compiled once, which takes a second or two, and kept in the cache folder. Where there is no
compiler all goes on without it, in PyTorch's own words.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import shlex
import subprocess
import tempfile
from ctypes import POINTER, Structure, c_double, c_int, c_int64, c_void_p
from pathlib import Path

import torch

from groundup.data.packs.fetch import cache_folder

# The kinds of matrices that the kernel reads, in its order.
KINDS = ("float32", "bfloat16", "q8_0", "q4_0", "q4_1")

_SOURCE = Path(__file__).with_name("kernel.c")
# Of which type the cache is, and what comes out.
FLAGS = {torch.float32: "-DFLOAT32", torch.bfloat16: "-DBFLOAT16"}
_COMPILE = ("-O3", "-march=native", "-fopenmp", "-fPIC", "-fno-math-errno")


class Matrix(Structure):
    _fields_ = (
        ("weight", c_void_p),
        ("bias", c_void_p),
        *((name, c_int64) for name in ("out", "in", "kind")),
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
    """The compiled kernel for a cache of that type; None where it cannot be had."""
    try:
        found = ctypes.CDLL(str(_compiled(FLAGS[dtype])))
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    found.decode.argtypes = (
        POINTER(Model), POINTER(Layer), c_int64, c_void_p, c_void_p, c_void_p, c_int
    )  # fmt: skip
    found.linear.argtypes = (POINTER(Matrix), c_int64, c_void_p, c_void_p, c_int)
    found.attention_step.argtypes = (
        POINTER(Model), POINTER(Layer), c_int64, c_int64, *[c_void_p] * 4, c_int
    )  # fmt: skip
    found.dequantize.argtypes = (POINTER(Matrix), c_void_p, c_int)
    for function in (found.decode, found.linear, found.attention_step, found.dequantize):
        function.restype = None
    return found


def _compiled(flag: str) -> Path:
    """The library's file, compiled for this processor unless it is there."""
    source = _SOURCE.read_bytes()
    identity = repr((source, _COMPILE, flag, torch.__version__, _processor())).encode()
    folder = cache_folder() / "kernels"
    file = folder / f"{hashlib.sha256(identity).hexdigest()[:32]}.so"
    if file.is_file():
        return file
    folder.mkdir(parents=True, exist_ok=True)
    compiler = shlex.split(os.environ.get("CC", "cc"))
    with tempfile.TemporaryDirectory(dir=folder) as aside:
        unit, linked = Path(aside, "kernel.o"), Path(aside, "kernel.so")
        for command in (
            [*compiler, *_COMPILE, flag, "-c", str(_SOURCE), "-o", str(unit)],
            # PyTorch's own threads: a second set of them would fight with the first.
            [*compiler, "-shared", str(unit), *_openmp(), "-lm", "-o", str(linked)],
        ):
            subprocess.run(command, check=True, capture_output=True, timeout=60)
        ctypes.CDLL(str(linked))  # one that does not load must not be kept
        linked.replace(file)
    return file


def _openmp() -> list[str]:
    found = sorted(Path(torch.__file__).parent.glob("lib/libgomp*"))
    return [str(found[0])] if found else ["-fopenmp"]


def _processor() -> str:
    """What `-march=native` depends on: a cache may be shared by several machines."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")
