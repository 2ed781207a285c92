"""The kernels of training as one library, and whether they are in use.

Each is a step of a small transformer, written in C, forward and backward, with its equation on its
own page. A page is compiled for the numbers that a processor computes in (`vectors.h`): bfloat16,
whose products AMX makes by tiles (`tiles.h`), or float32, where there is AVX2. PyTorch's own words
for the same stand where they are called: they are what is computed on other devices and where there
is no compiler, and the tests compare the two.

Products of a whole matrix stay PyTorch's. What is gained lies between them: one pass over memory
for several steps, and scores that never leave the cache. In bfloat16 it is more: numbers rounded by
the processor instead of by many instructions, and gradients of matrices summed into float32 where
they arise.
"""

from __future__ import annotations

import ctypes
import functools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ctypes import Structure, c_double, c_int, c_int64, c_void_p
from pathlib import Path
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor

from groundup.errors import UserError
from groundup.kernels.compiler import compiled, cpu_flags

# By what the products of the kernels are made; `none`: PyTorch alone.
Kernels = Literal["none", "avx2", "avx512_bf16", "amx"]

# Set to one of these, it decides which kernels runs that begin have; `none` is the plain path.
VARIABLE = "GROUNDUP_KERNELS"
# oneDNN's own, the second by its older name: the most that a processor may be used as.
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
# oneDNN's names for less than they need; names that it does not know are no limit to it.
_TOO_LITTLE: dict[Kernels, set[str]] = {"avx2": {"SSE41", "AVX"}}
_TOO_LITTLE["avx512_bf16"] = _TOO_LITTLE["avx2"] | {
    *("AVX2", "AVX2_VNNI", "AVX2_VNNI_2", "AVX512_CORE", "AVX512_CORE_VNNI"),
}
_TOO_LITTLE["amx"] = _TOO_LITTLE["avx512_bf16"] | {
    *("AVX512_CORE_BF16", "AVX512_CORE_FP16", "AVX10_1_512", "AVX10_2_512"),
}
# The best first.
_OF: dict[torch.dtype, tuple[Kernels, ...]] = {
    torch.bfloat16: ("amx", "avx512_bf16"),
    torch.float32: ("avx2",),
}
_PAGES = (
    *("attention", "cross_entropy", "linear", "newton_schulz", "rms_norm", "rotary", "swiglu"),
)
_HEADERS = ("tiles", "vectors")


class Heads(Structure):
    """A tensor (rows, heads, time, size) of any strides but the last."""

    _fields_ = (("at", c_void_p), *((name, c_int64) for name in ("row", "head", "time")))


class Shape(Structure):
    _fields_ = (
        *((name, c_int64) for name in ("rows", "heads", "kv_heads", "time", "size")),
        ("first", c_void_p),
    )


# The arguments of each function: p a pointer, n a whole number, d a number, h heads, s a shape; at
# last, the number of threads.
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

_used: ctypes.CDLL | None = None
_dtype: torch.dtype | None = None


def best_kernels(dtype: torch.dtype) -> Kernels:
    """What this processor, its compiler and whoever started the process allow for such numbers.

    Where GROUNDUP_KERNELS names kernels of other numbers there are none. oneDNN's own variable is
    kept to as well: a processor that is to be used as an older one is.
    Raises `UserError` where GROUNDUP_KERNELS names no kernels, or kernels that cannot be had here.
    """
    wanted = os.environ.get(VARIABLE, "")
    if wanted not in ("", *get_args(Kernels)):
        raise UserError(f"{VARIABLE}={wanted!r} is none of {', '.join(get_args(Kernels))}")
    if wanted == "none":
        return "none"
    if not wanted:
        return next((one for one in _gaining(dtype) if is_allowed(one) and library(one)), "none")
    kernels = cast(Kernels, wanted)
    if not (is_allowed(kernels) and library(kernels)):
        raise UserError(
            f"{VARIABLE}={wanted}: this processor, or its compiler, does not have these kernels; "
            "unset it to take the best there are"
        )
    return kernels if kernels in _OF.get(dtype, ()) else "none"


def _gaining(dtype: torch.dtype) -> tuple[Kernels, ...]:
    """The kernels that were seen to gain: not AVX2's where vectors may be twice as wide."""
    return () if dtype == torch.float32 and "avx512f" in cpu_flags() else _OF.get(dtype, ())


def is_allowed(kernels: Kernels) -> bool:
    """Whether this processor has what the kernels need, and may use it."""
    if not _NEEDED[kernels] <= cpu_flags():
        return False
    most = next((os.environ[name].upper() for name in ISA_VARIABLES if os.environ.get(name)), "ALL")
    return most not in _TOO_LITTLE[kernels]


@functools.cache
def library(kernels: Kernels) -> ctypes.CDLL | None:
    """The compiled kernels; None where they cannot be had."""
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
    """Linux gives AMX's registers to a process that asks for them."""
    system_call, arch_prctl, request, tile_data = ctypes.CDLL(None).syscall, 158, 0x1023, 18
    return int(system_call(arch_prctl, request, tile_data)) == 0


def use_kernels(kernels: Kernels) -> None:
    """Compute by these kernels from now on, wherever numbers of theirs are computed on the CPU.

    A process-wide switch, set by every stage when it starts, so that a stage computes the same bits
    whether or not another ran before it in the same process.
    """
    global _used, _dtype
    _used = None if kernels == "none" else library(kernels)
    _dtype = next((dtype for dtype, known in _OF.items() if kernels in known), None)
    assert kernels == "none" or _used is not None, "chosen by best_kernels, or from a plan"


@contextmanager
def plain() -> Iterator[None]:
    """Without kernels, for whoever looks into what they would keep to themselves."""
    global _used
    before, _used = _used, None
    try:
        yield
    finally:
        _used = before


def once_differentiable(backward: Callable[..., Any]) -> Callable[..., Any]:
    """Refuse second derivatives, where torch's decorator of this name would leave some out.

    Products within are of the types of forward, also where autocast goes on around backward: a
    kernel would read numbers of another type as if they were its own.
    """

    @functools.wraps(backward)
    def checked(*arguments: Any) -> Any:
        if torch.is_grad_enabled():
            raise RuntimeError(
                "kernels and chunked losses have first derivatives alone; for create_graph=True "
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

    Not under autocast, which chooses the type of each product anew.
    """
    if _used is None or x.dtype != _dtype or x.device.type != "cpu":
        return False
    return not torch.is_autocast_enabled("cpu")


def scratch(name: str, *sizes: int) -> Tensor:
    """The memory that a kernel wants beside its arguments, as much for each thread."""
    each = getattr(used(), f"{name}_scratch")(*sizes)
    return torch.empty(torch.get_num_threads() * each, dtype=torch.uint8)


def call(name: str, *arguments: object) -> None:
    """Call a kernel with tensors, numbers and structures, on as many threads as PyTorch has."""
    given = [a.data_ptr() if isinstance(a, Tensor) else a for a in arguments]
    getattr(used(), name)(*given, torch.get_num_threads())
