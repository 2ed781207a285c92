"""The training kernels as one compiled library, and the switch that turns them on.

Each kernel is an operation of a small transformer in C, forward and backward, in a file with its
equation. The files are compiled for the processor's number type (`vectors.h`): bfloat16, with
products in AMX tiles where available (`tiles.h`), or float32 with AVX2. Each caller also has the
plain PyTorch code, which runs on other devices and without a compiler; the tests compare the two.

Large matrix products are left to PyTorch. The kernels save time between them: one pass over memory
for several operations, and attention scores that never leave the cache. In bfloat16 they also round
in hardware instead of by many instructions, and sum gradients of matrices directly into float32.
"""

from __future__ import annotations

import ctypes
import functools
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ctypes import Structure, c_double, c_int, c_int64, c_void_p
from pathlib import Path
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor

from groundup.errors import UserError
from groundup.kernels.compiler import compiled, cpu_flags

# The instruction set of the kernels' products; `none` is PyTorch alone.
Kernels = Literal["none", "avx2", "avx512_bf16", "amx"]

# Environment variable that selects the kernels of new runs; `none` selects plain PyTorch.
VARIABLE = "GROUNDUP_KERNELS"
# oneDNN's variable that limits the instruction set, and its older name.
ISA_VARIABLES = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")
_NEEDED: dict[Kernels, set[str]] = {
    "avx2": {"avx2", "fma"},
    "avx512_bf16": {"avx512_bf16", "avx512f", "avx512bw", "avx512vl"},
    "amx": {"avx512_bf16", "avx512f", "avx512bw", "avx512vl", "amx_tile", "amx_bf16"},
}
_FLAGS: dict[Kernels, tuple[str, ...]] = {
    "avx2": ("-DFLOAT32",),
    "avx512_bf16": ("-DWITHOUT_AMX",),
    "amx": (),
}
# oneDNN's names for instruction sets below these; oneDNN ignores names that it does not know.
_TOO_LITTLE: dict[Kernels, set[str]] = {"avx2": {"SSE41", "AVX"}}
_TOO_LITTLE["avx512_bf16"] = _TOO_LITTLE["avx2"] | {
    *("AVX2", "AVX2_VNNI", "AVX2_VNNI_2", "AVX512_CORE", "AVX512_CORE_VNNI"),
}
_TOO_LITTLE["amx"] = _TOO_LITTLE["avx512_bf16"] | {
    *("AVX512_CORE_BF16", "AVX512_CORE_FP16", "AVX10_1_512", "AVX10_2_512"),
}
# Best first.
_KERNELS: dict[torch.dtype, tuple[Kernels, ...]] = {
    torch.bfloat16: ("amx", "avx512_bf16"),
    torch.float32: ("avx2",),
}
_PAGES = (
    *("attention", "cross_entropy", "linear", "newton_schulz", "rms_norm", "rotary", "swiglu"),
)
_HEADERS = ("tiles", "vectors")


class Heads(Structure):
    """A tensor (rows, heads, time, size) with any strides except the last, which is 1."""

    _fields_ = (("at", c_void_p), *((name, c_int64) for name in ("row", "head", "time")))


class Shape(Structure):
    _fields_ = (
        *((name, c_int64) for name in ("rows", "heads", "kv_heads", "time", "size")),
        ("first", c_void_p),
    )


# The argument types of each function: p pointer, n int64, d double, h Heads, s Shape. The number of
# threads follows as the last argument.
_ARGUMENTS = {
    "attention": "hhhshpp",
    "attention_backward": "hhphhhshhhp",
    "cross_entropy": "pppnnpp",
    "weight_gradient": "pppnnnnp",
    "newton_schulz": "pnnnndddp",
    "rms_norm": "pppdnnppp",
    "rms_norm_backward": "pppppnnpp",
    "rotate_heads": "ppdppnnnp",
    "rotate_heads_backward": "pppdppnnnpp",
    "swiglu": "pppn",
    "swiglu_backward": "ppppppn",
}
_KINDS = {"p": c_void_p, "n": c_int64, "d": c_double, "h": Heads, "s": Shape}


class _Here(threading.local):
    """What holds for the current thread only."""

    plain = False


_here = _Here()
_used: ctypes.CDLL | None = None
_dtype: torch.dtype | None = None


def best_kernels(dtype: torch.dtype) -> Kernels:
    """Return the best kernels for this dtype that processor, compiler and environment allow.

    Returns 'none' if GROUNDUP_KERNELS names kernels of another dtype. oneDNN's limit of the
    instruction set applies as well. Raises `UserError` if GROUNDUP_KERNELS is not a valid name, or
    if its kernels are not available here.
    """
    wanted = os.environ.get(VARIABLE, "")
    if wanted not in ("", *get_args(Kernels)):
        raise UserError(f"{VARIABLE}={wanted!r} is none of {', '.join(get_args(Kernels))}")
    if wanted == "none":
        return "none"
    if not wanted:
        return next((one for one in _candidates(dtype) if is_allowed(one) and library(one)), "none")
    kernels = cast(Kernels, wanted)
    if not (is_allowed(kernels) and library(kernels)):
        raise UserError(
            f"{VARIABLE}={wanted}: this processor or its compiler does not support these kernels; "
            "unset it to use the best available"
        )
    return kernels if kernels in _KERNELS.get(dtype, ()) else "none"


def _candidates(dtype: torch.dtype) -> tuple[Kernels, ...]:
    """The kernels that measured faster: not AVX2 on processors with wider vectors (AVX-512)."""
    return () if dtype == torch.float32 and "avx512f" in cpu_flags() else _KERNELS.get(dtype, ())


def is_allowed(kernels: Kernels) -> bool:
    """Whether this processor has the instructions for the kernels and may use them."""
    if not _NEEDED[kernels] <= cpu_flags():
        return False
    most = next((os.environ[name].upper() for name in ISA_VARIABLES if os.environ.get(name)), "ALL")
    return most not in _TOO_LITTLE[kernels]


@functools.cache
def library(kernels: Kernels) -> ctypes.CDLL | None:
    """Return the compiled kernels; None if they are not available."""
    here = Path(__file__).parent
    pages = [here / f"{name}.c" for name in _PAGES] + [here / f"{name}.h" for name in _HEADERS]
    found = compiled(pages, *_FLAGS[kernels])
    if found is None or (kernels == "amx" and not _tiles_are_granted()):
        return None
    for name, kinds in _ARGUMENTS.items():
        function = getattr(found, name)
        function.argtypes = (*(_KINDS[kind] for kind in kinds), c_int)
        function.restype = None
    found.attention_scratch.argtypes = (c_int64, c_int64, c_int)
    found.newton_schulz_scratch.argtypes = (c_int64, c_int64)
    for function in (found.attention_scratch, found.newton_schulz_scratch):
        function.restype = c_int64
    return found


def _tiles_are_granted() -> bool:
    """Request the AMX registers, which Linux grants per process."""
    system_call, arch_prctl, request, tile_data = ctypes.CDLL(None).syscall, 158, 0x1023, 18
    return int(system_call(arch_prctl, request, tile_data)) == 0


def use_kernels(kernels: Kernels) -> None:
    """Use these kernels from now on for CPU tensors of their dtype.

    The switch is process-wide. Every stage sets it at its start, so that its bits do not depend on
    a stage that ran before in the same process.
    """
    global _used, _dtype
    _used = None if kernels == "none" else library(kernels)
    _dtype = next((dtype for dtype, known in _KERNELS.items() if kernels in known), None)
    assert kernels == "none" or _used is not None, "chosen by best_kernels, or from a plan"


@contextmanager
def plain() -> Iterator[None]:
    """Use no kernels in this thread within the block, for example to inspect intermediate values.

    Another thread may train meanwhile.
    """
    before, _here.plain = _here.plain, True
    try:
        yield
    finally:
        _here.plain = before


def once_differentiable(backward: Callable[..., Any]) -> Callable[..., Any]:
    """Refuse second derivatives, of which torch's decorator of this name would omit some.

    Autocast is disabled within, so that products have the dtypes of the forward pass: a kernel
    would misread numbers of another dtype.
    """

    @functools.wraps(backward)
    def checked(*arguments: Any) -> Any:
        if torch.is_grad_enabled():
            raise RuntimeError(
                "kernels and chunked losses have only first derivatives; for create_graph=True "
                "compute forward and backward within groundup.kernels.library.plain(), and the "
                "loss from model.logits(batch)"
            )
        if not torch.is_autocast_enabled("cpu"):
            return backward(*arguments)
        with torch.autocast("cpu", enabled=False):
            return backward(*arguments)

    return checked


def used() -> ctypes.CDLL:
    """The library in use."""
    assert _used is not None
    return _used


def in_use(x: Tensor) -> bool:
    """Whether kernels are in use that compute with tensors like x.

    False under autocast, which chooses a dtype for each product.
    """
    if torch.compiler.is_compiling() or _here.plain:  # torch cannot compile what a thread keeps
        return False
    if _used is None or x.dtype != _dtype or x.device.type != "cpu":
        return False
    return not torch.is_autocast_enabled("cpu")


def scratch(name: str, *sizes: int) -> Tensor:
    """Allocate the scratch memory of a kernel, the same amount for each thread."""
    each = getattr(used(), f"{name}_scratch")(*sizes)
    return torch.empty(torch.get_num_threads() * each, dtype=torch.uint8)


def call(name: str, *arguments: object) -> None:
    """Call a kernel with tensors, numbers and structures, on PyTorch's number of threads."""
    given = [a.data_ptr() if isinstance(a, Tensor) else a for a in arguments]
    getattr(used(), name)(*given, torch.get_num_threads())
