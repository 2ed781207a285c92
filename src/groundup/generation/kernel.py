"""The step of decoding as one call: `kernel.c`, compiled by the system's own compiler.

With one row, or a few, a step is as fast as memory hands out the weights; PyTorch's products with a
vector take two to four times as long, and its many calls again as long in a small model. The
library is compiled once, which takes a second, and kept in the cache folder. Where there is no
compiler, and for models that the kernel does not know, `decode.Decode` goes on without it.
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
from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from groundup.data.packs.fetch import cache_folder
from groundup.lm.cache import KVCache
from groundup.lm.model import Block, CausalLM, RMSNorm
from groundup.lm.positions import inverse_frequencies, rotation

# More rows than this are faster as matrix products.
MOST_ROWS = 4

_SOURCE = Path(__file__).with_name("kernel.c")
_FLAGS = {torch.float32: "-DFLOAT32", torch.bfloat16: "-DBFLOAT16"}
_COMPILE = ("-O3", "-march=native", "-fopenmp", "-fPIC", "-fno-math-errno")


class _Matrix(Structure):
    _fields_ = (("weight", c_void_p), ("bias", c_void_p), ("out", c_int64), ("in", c_int64))


class _Layer(Structure):
    _fields_ = (
        *((name, _Matrix) for name in ("q", "k", "v", "o", "gate", "up", "down")),
        *((name, c_void_p) for name in ("norm1", "norm2", "q_norm", "k_norm", "keys", "values")),
        ("window", c_int64),
    )


_SIZES = ("width", "inner", "heads", "kv_heads", "head_dim", "slots", "layers")


class _Model(Structure):
    _fields_ = (
        *((name, c_int64) for name in _SIZES),
        ("eps", c_double),
        ("norm", c_void_p),
        ("turns", c_void_p),
    )


class Kernel:
    """A model's weights as the kernel sees them; they must not move while it lives."""

    def __init__(self, model: CausalLM, library: ctypes.CDLL) -> None:
        self._library, self._config = library, model.config
        self._held: list[Tensor] = []  # what only the kernel has pointers to
        config = model.config
        blocks = cast("list[Block]", list(model.model.layers))
        layers = [_layer(self, *pair) for pair in zip(blocks, config.windows, strict=True)]
        self._layers = (_Layer * len(layers))(*layers)
        self._head = self.matrix(model.lm_head)
        self._model = _Model(
            config.hidden_size, config.intermediate_size, config.num_attention_heads,
            config.num_key_value_heads, config.head_dim, 0, len(layers), config.rms_norm_eps,
            self.floats(cast(RMSNorm, model.model.norm).weight), None,
        )  # fmt: skip
        self._slots = -1

    @classmethod
    def of(cls, model: CausalLM) -> Kernel | None:
        """The kernel for this model, or None where there is none."""
        if not _known(model):
            return None
        library = _library(model.head.dtype)
        return None if library is None else cls(model, library)

    def begin(self, cache: KVCache) -> None:
        """Read and write this cache from now on."""
        for layer, keys, values in zip(self._layers, cache.keys, cache.values, strict=True):
            layer.keys, layer.values = keys.data_ptr(), values.data_ptr()
        if cache.slots == self._slots:
            return
        config, self._slots = self._config, cache.slots
        frequencies = inverse_frequencies(config.rope, config.head_dim, torch.device("cpu"))
        positions, scale = torch.arange(cache.slots), config.rope.attention_factor
        self._turns = torch.stack(rotation(frequencies, positions, torch.float32, scale), 1)
        self._model.slots, self._model.turns = cache.slots, self._turns.data_ptr()
        heads = 2 * (config.num_attention_heads + config.num_key_value_heads)
        self._threads = torch.get_num_threads()
        shared = heads * config.head_dim + 2 * config.intermediate_size
        own = self._threads * (MOST_ROWS * config.hidden_size + cache.slots)
        self._scratch = torch.empty(MOST_ROWS * shared + own)

    def decode(
        self, embeddings: Float[Tensor, "rows width"], positions: Int[Tensor, " rows"]
    ) -> Float[Tensor, "rows width"]:
        """The states after these tokens, in float32."""
        hidden = embeddings.float().contiguous().clone()
        self._library.decode(
            self._model, self._layers, len(hidden), positions.data_ptr(), hidden.data_ptr(),
            self._scratch.data_ptr(), self._threads,
        )  # fmt: skip
        return hidden

    def attention(
        self, layer: int, heads: Float[Tensor, "rows outputs"], positions: Int[Tensor, " rows"]
    ) -> Float[Tensor, "rows queries"]:
        """One layer's attention for many rows, from its queries, keys and values side by side."""
        config, rows = self._config, len(heads)
        wide = heads.float().contiguous()
        mixed = torch.empty(rows, config.num_attention_heads * config.head_dim)
        self._library.attention_step(
            self._model, self._layers, layer, rows, positions.data_ptr(), wide.data_ptr(),
            mixed.data_ptr(), self._scratch.data_ptr(), self._threads,
        )  # fmt: skip
        return mixed.to(heads.dtype)

    def logits(self, hidden: Float[Tensor, "rows width"]) -> Float[Tensor, "rows vocab"]:
        hidden = hidden.float().contiguous()
        logits = torch.empty(len(hidden), self._head.out)
        self._library.linear(
            self._head, len(hidden), hidden.data_ptr(), logits.data_ptr(), torch.get_num_threads()
        )
        return logits

    # Pointers.

    def floats(self, tensor: Tensor | None) -> int | None:
        """The address of a small tensor's float32 copy."""
        if tensor is None:
            return None
        self._held.append(tensor.detach().float().contiguous())
        return self._held[-1].data_ptr()

    def matrix(self, layer: nn.Module) -> _Matrix:
        assert isinstance(layer, nn.Linear)
        self._held.append(layer.weight)
        return _Matrix(layer.weight.data_ptr(), self.floats(layer.bias), *layer.weight.shape)


def _layer(kernel: Kernel, block: Block, window: int | None) -> _Layer:
    attention, mlp = block.self_attn, block.mlp
    assert mlp.gate_proj is not None
    matrices = (
        attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj,
        mlp.gate_proj, mlp.up_proj, mlp.down_proj,
    )  # fmt: skip
    norms = (
        block.input_layernorm,
        block.post_attention_layernorm,
        attention.q_norm,
        attention.k_norm,
    )
    weights = (norm.weight if isinstance(norm, RMSNorm) else None for norm in norms)
    return _Layer(
        *map(kernel.matrix, matrices), *map(kernel.floats, weights), None, None, window or 0
    )


def _known(model: CausalLM) -> bool:
    """Whether the kernel computes what this model does."""
    config, head = model.config, model.head
    if head.device.type != "cpu" or head.dtype not in _FLAGS:
        return False
    if config.family.norm != "rms" or not config.family.rotary or config.hidden_act != "silu":
        return False
    if not config.family.gated:
        return False
    linear = [m for m in model.model.layers.modules() if hasattr(m, "in_features")]
    return all(
        type(one) is nn.Linear and one.weight.dtype == head.dtype and one.weight.is_contiguous()
        for one in [*linear, model.lm_head]
    )


def kernel_number(model: CausalLM) -> int:
    """A number for the compiled kernel that this model's steps run by; 0 without one.

    Whoever promises the same samples must find the same number again.
    """
    library = _library(model.head.dtype) if _known(model) else None
    return 0 if library is None else int(Path(library._name).stem[:15], 16)


# The library.


@functools.cache
def _library(dtype: torch.dtype) -> ctypes.CDLL | None:
    """The compiled kernel for weights of that type; None where it cannot be had."""
    try:
        library = ctypes.CDLL(str(_compiled(_FLAGS[dtype])))
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    library.decode.argtypes = (
        POINTER(_Model), POINTER(_Layer), c_int64, c_void_p, c_void_p, c_void_p, c_int
    )  # fmt: skip
    library.linear.argtypes = (POINTER(_Matrix), c_int64, c_void_p, c_void_p, c_int)
    library.attention_step.argtypes = (
        POINTER(_Model), POINTER(_Layer), c_int64, c_int64, *[c_void_p] * 4, c_int
    )  # fmt: skip
    for function in (library.decode, library.linear, library.attention_step):
        function.restype = None
    return library


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
