"""The decoding step as one call of a library compiled from `kernel.c`.

With one row or a few, a step can be as fast as memory delivers the weights. PyTorch's matrix-vector
products take two to four times as long, and in a small model the overhead of its many calls takes
that long again. Quantized blocks are read as they are, which reads fewer bytes. Without a compiler,
and for models that the kernel does not support, `decode.Decode` runs without it.
"""

from __future__ import annotations

import ctypes
from itertools import chain
from pathlib import Path
from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import pad, silu

from groundup.adapters.lora import LoRALinear
from groundup.generation.blocks import BlockLinear
from groundup.generation.library import FLAGS, KINDS, Layer, Matrix, Model, library
from groundup.kernels.linear import is_changed
from groundup.lm.cache import KVCache
from groundup.lm.config import ModelConfig
from groundup.lm.model import MLP, Attention, Block, CausalLM, Decoder, RMSNorm
from groundup.lm.positions import inverse_frequencies, rotation

# PyTorch's matrix products are faster for more rows; for weights in blocks they would first have to
# dequantize every matrix.
MAX_ROWS, MAX_ROWS_IN_BLOCKS = 4, 16
# `CHUNK` of `kernel.c`, and the largest rank, because A x of a few rows is on its stack.
_CHUNK, _MAX_RANK = 32, 512


class Kernel:
    """A model's weights as the kernel reads them; they must not move while it exists."""

    def __init__(self, model: CausalLM, compiled: ctypes.CDLL) -> None:
        self._library, self._config, self._dtype = compiled, model.config, model.like.dtype
        self._held: list[Tensor] = []  # tensors to which only the kernel has pointers
        self._lora_matrices: list[Matrix] = []
        in_blocks = any(isinstance(module, BlockLinear) for module in model.modules())
        self.most_rows = MAX_ROWS_IN_BLOCKS if in_blocks else MAX_ROWS
        config = model.config
        layers = [_layer(self, block) for block in model.blocks]
        self._layers = (Layer * len(layers))(*layers)
        self._head = self.matrix(model.lm_head)
        self._model = Model(
            config.hidden_size, config.intermediate_size, config.num_attention_heads,
            config.num_key_value_heads, config.head_dim, 0, len(layers), config.rms_norm_eps,
            self.floats(cast(RMSNorm, model.model.norm).weight), None,
        )  # fmt: skip
        norms = ((layer.norm1, layer.norm2) for layer in self._layers)
        self._norms = [*chain.from_iterable(norms), self._model.norm]
        # The scratch memory is for this many threads; a step may use fewer.
        self._most_threads = torch.get_num_threads()
        self._slots = -1

    @classmethod
    def of(cls, model: CausalLM) -> Kernel | None:
        """The kernel for this model, or None where there is none."""
        if not _is_supported(model):
            return None
        compiled = library(model.like.dtype)
        return None if compiled is None else cls(model, compiled)

    def begin(self, cache: KVCache) -> None:
        """Read and write this cache from now on."""
        for layer, keys, values in zip(self._layers, cache.keys, cache.values, strict=True):
            layer.keys, layer.values = keys.data_ptr(), values.data_ptr()
        if cache.slots == self._slots and torch.get_num_threads() <= self._most_threads:
            return
        config, self._slots = self._config, cache.slots
        frequencies = inverse_frequencies(config.rope, config.head_dim, torch.device("cpu"))
        positions, scale = torch.arange(cache.slots), config.rope.attention_factor
        if config.position != "rope":
            frequencies, scale = torch.zeros_like(frequencies), 1.0  # no rotation
        self._turns = torch.stack(rotation(frequencies, positions, torch.float32, scale), 1)
        self._model.slots, self._model.turns = cache.slots, self._turns.data_ptr()
        heads = 2 * (config.num_attention_heads + config.num_key_value_heads)
        self._most_threads = max(self._most_threads, torch.get_num_threads())
        shared = heads * config.head_dim + 2 * config.intermediate_size
        own = self._most_threads * (self.most_rows * config.hidden_size + 4 * cache.slots)
        self._scratch = torch.empty(self.most_rows * shared + own, dtype=torch.float32)

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

    @property
    def _threads(self) -> int:
        return min(torch.get_num_threads(), self._most_threads)

    # What lies between the matrix products of a step of many rows.

    def attention(
        self, layer: int, heads: Float[Tensor, "rows outputs"], positions: Int[Tensor, " rows"]
    ) -> Float[Tensor, "rows queries"]:
        """One layer's attention from its concatenated queries, keys and values."""
        config, heads = self._config, self._contiguous(heads)
        mixed = heads.new_empty(len(heads), config.num_attention_heads * config.head_dim)
        numbers = heads.numel() + mixed.numel() + self._most_threads * 4 * self._model.slots
        if numbers > len(self._scratch):
            self._scratch = torch.empty(numbers, dtype=torch.float32)
        self._library.attention_step(
            self._model, self._layers, layer, len(heads), positions.data_ptr(), heads.data_ptr(),
            mixed.data_ptr(), self._scratch.data_ptr(), self._threads,
        )  # fmt: skip
        return mixed

    def add_norm(
        self, hidden: Float[Tensor, "rows width"], added: Float[Tensor, "rows width"] | None, i: int
    ) -> Float[Tensor, "rows width"]:
        """`hidden` (float32) += `added`; returns the i-th norm of it (two norms per layer)."""
        added = None if added is None else self._contiguous(added)
        y = hidden.new_empty(hidden.shape, dtype=self._dtype)
        self._library.add_norm(
            hidden.data_ptr(), None if added is None else added.data_ptr(), *hidden.shape,
            self._norms[i], self._config.rms_norm_eps, y.data_ptr(), self._threads,
        )  # fmt: skip
        return y

    def gated(self, inner: Float[Tensor, "rows twice_inner"]) -> Float[Tensor, "rows inner"]:
        """silu(gate) * up of the concatenated gate and up."""
        inner = self._contiguous(inner)
        y = inner.new_empty(len(inner), inner.shape[1] // 2)
        self._library.gated(inner.data_ptr(), *y.shape, y.data_ptr(), self._threads)
        return y

    def _contiguous(self, x: Tensor) -> Tensor:
        return x.to(self._dtype).contiguous()

    def logits(self, hidden: Float[Tensor, "rows width"]) -> Float[Tensor, "rows vocab"]:
        """The head's logits for a few rows, in float32."""
        hidden = hidden.float().contiguous()
        logits = torch.empty(len(hidden), self._head.out, dtype=torch.float32)
        self._library.linear(
            self._head, len(hidden), hidden.data_ptr(), logits.data_ptr(), self._threads
        )
        return logits

    # Pointers.

    def floats(self, tensor: Tensor | None) -> int | None:
        """The address of a float32 copy of a small tensor."""
        if tensor is None:
            return None
        self._held.append(tensor.detach().float().contiguous())
        return self._held[-1].data_ptr()

    def matrix(self, layer: nn.Module) -> Matrix:
        """A layer's matrix; if it cannot be read, the kernel computes attention only."""
        found = self._read(layer)
        if found is None:
            self.most_rows = 0
        return found or Matrix()

    def _read(self, layer: nn.Module) -> Matrix | None:
        """A matrix in the model's dtype or in blocks, with its LoRA matrices."""
        if type(layer) is LoRALinear:
            split = layer.split(self._dtype)
            if split is None or len(split[1]) > _MAX_RANK:
                return None
            base, down, up = split
            found = self._read(base)
            if found is not None and (rank := len(down)):
                wide = pad(up, (0, -rank % _CHUNK))
                found.lora_down, found.lora_up = map(self._address, (down, wide))
            return found
        if type(layer) is BlockLinear:
            return layer.matrix(self.floats(layer.bias))
        if type(layer) is not nn.Linear:
            return None
        if layer.weight.dtype != self._dtype or not layer.weight.is_contiguous():
            return None
        return self._plain(layer.weight, self.floats(layer.bias))

    def _address(self, weight: Tensor) -> int:
        """The address of a LoRA matrix."""
        self._lora_matrices.append(self._plain(weight.detach().contiguous(), None))
        return ctypes.addressof(self._lora_matrices[-1])

    def _plain(self, weight: Tensor, bias: int | None) -> Matrix:
        self._held.append(weight)
        kind = KINDS.index(str(weight.dtype).removeprefix("torch."))
        return Matrix(weight.data_ptr(), bias, *weight.shape, kind)


def _layer(kernel: Kernel, block: Block) -> Layer:
    attention, mlp = block.self_attn, block.mlp
    assert isinstance(mlp, MLP) and mlp.gate_proj is not None
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
    return Layer(
        *map(kernel.matrix, matrices),
        *map(kernel.floats, weights),
        None,
        None,
        attention.window or 0,
    )


def is_plain(model: CausalLM) -> bool:
    """Whether the blocks have the structure that `decode` and this module compute.

    Modules with hooks or other `forward` methods must be called, so such models are not plain.
    Matrices and embeddings of other classes are called in any case.
    """
    config = model.config
    if config.family.recurrent or config.experts is not None:
        return False
    if not config.do_layer_norm_before or config.position == "alibi":
        return False
    if any(map(is_changed, model.modules())):
        return False
    if type(model) is not CausalLM or type(model.model) is not Decoder:
        return False
    layers, windows = model.model.layers, config.windows
    return (
        len(layers) == len(windows)
        and _has_norms(config, model.model.norm)
        and all(_is_plain_block(config, *one) for one in zip(layers, windows, strict=True))
    )


def _is_plain_block(config: ModelConfig, block: nn.Module, window: int | None) -> bool:
    """Whether a block's parts have our classes and match the config."""
    if type(block) is not Block or not block.norms_before:
        return False
    attention, mlp = block.self_attn, block.mlp
    return (
        type(attention) is Attention
        and attention.window == window
        and type(mlp) is MLP
        and (mlp.gate_proj is not None) == config.gated
        and _has_norms(config, block.input_layernorm, block.post_attention_layernorm)
        and (
            _has_norms(config, attention.q_norm, attention.k_norm)
            if config.qk_norm
            else type(attention.q_norm) is type(attention.k_norm) is nn.Identity
        )
    )


def _has_norms(config: ModelConfig, *norms: nn.Module) -> bool:
    kind = RMSNorm if config.family.norm == "rms" else nn.LayerNorm
    return all(type(norm) is kind and norm.eps == config.rms_norm_eps for norm in norms)


def _is_supported(model: CausalLM) -> bool:
    """Whether the kernel can compute this model, or at least its attention."""
    config, like = model.config, model.like
    if like.device.type != "cpu" or like.dtype not in FLAGS:
        return False
    if not is_plain(model) or config.family.norm != "rms" or config.head_dim % 2:
        return False
    return config.gated and all(_is_supported_block(config, block) for block in model.blocks)


def _is_supported_block(config: ModelConfig, block: Block) -> bool:
    """Whether a plain block has the kernel's activation and the config's sizes.

    The scratch memory follows the config, and heads may have been pruned from a layer since.
    """
    attention, mlp = block.self_attn, cast(MLP, block.mlp)
    queries, keys = (
        count * config.head_dim
        for count in (config.num_attention_heads, config.num_key_value_heads)
    )
    inner = config.intermediate_size
    sizes = (
        (attention.q_proj, queries), (attention.k_proj, keys), (attention.v_proj, keys),
        (mlp.gate_proj, inner), (mlp.up_proj, inner),
    )  # fmt: skip
    # The kernel does not read a layer without `out_features`.
    return mlp.activation is silu and all(
        getattr(layer, "out_features", size) == size for layer, size in sizes
    )


def kernel_number(model: CausalLM) -> int:
    """A number that identifies the compiled kernel of this model's steps; 0 without one.

    Runs that promise to reproduce their samples require the same number on resume.
    """
    compiled = library(model.like.dtype) if _is_supported(model) else None
    return 0 if compiled is None else int(Path(compiled._name).stem[:15], 16)
