"""Decoding: one more token for every running row, in as few calls as possible.

A step of a small model takes half a millisecond, most of which is call overhead, not arithmetic.
This module therefore repeats the forward pass of `lm.model` for a single token per row:

    q k v = W_qkv norm(h)                    one product, written to the cache in two calls
    h = h + W_o attention(rotate(q), keys, values)
    h = h + W_down (act(gate) * up)          gate and up in one product, too

Queries and keys are normalized and rotated together. What depends on positions alone is computed
once for all layers; while no row joins or leaves, positions only count up. LoRA matrices are
concatenated like the matrices they belong to; quantized layers are called as they are. A step of a
few rows is a single call of `kernel`; with more rows the kernel computes everything between the
matrix products. Other block designs (norms after, experts, ALiBi), recurrent networks, and models
with changed parts (a hook, another `forward` or class) run through the model itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import linear, rms_norm

from groundup.adapters.lora import LoRALinear
from groundup.generation.kernel import Kernel, is_plain
from groundup.kernels.linear import is_changed
from groundup.lm.attention import one_query
from groundup.lm.cache import Cache, KVCache
from groundup.lm.model import MLP, Attention, Block, CausalLM, Decoder, RMSNorm, uncompiled
from groundup.lm.positions import inverse_frequencies, rotation
from groundup.train.batch import Batch

Hidden = Float[Tensor, "rows width"]
Function = Callable[[Tensor], Tensor]

# Concatenated copies of larger matrices would cost memory and save nothing: reading them takes far
# longer than the calls.
_MAX_CONCATENATED = 2**22


@dataclass(frozen=True)
class _Layer:
    """One block as functions of two-dimensional tensors."""

    norm1: Function
    qkv: Function  # queries, keys and values
    head_norm: Float[Tensor, "heads head_dim"] | None
    output: Function
    norm2: Function
    gate_up: Function
    down: Function
    activation: Function
    window: int | None


class Decode:
    """Advances the running rows of a cache by one token with each `step`.

    It uses the weights as they are when it is made.
    """

    def __init__(self, model: CausalLM) -> None:
        config = model.config
        self._model, self._eps = model, config.rms_norm_eps
        self._kv_heads = config.num_key_value_heads
        self._head_dim, self._gated = config.head_dim, config.gated
        self._kernel = Kernel.of(model)
        self._plain = self._kernel is not None or is_plain(model)

    @cached_property
    def _layers(self) -> list[_Layer]:
        return [_layer(block) for block in self._model.blocks]

    @torch.inference_mode()
    def begin(self, cache: Cache, positions: Sequence[int]) -> None:
        """Continue the cache's first rows, whose next tokens have these positions."""
        self._lowest, self.highest = min(positions), max(positions)
        device = self._model.like.device
        self._positions = torch.tensor(positions, device=device)
        self._cache: Cache = cache
        if not self._plain:
            return
        assert isinstance(cache, KVCache)
        # Index of each token's slot with rows, heads and slots of the cache flattened.
        lines = torch.arange(len(positions) * self._kv_heads, device=device) * cache.slots
        self._flat_slots = lines + self._positions.repeat_interleave(self._kv_heads)
        if self._kernel is not None:
            self._kernel.begin(cache)
        stored = zip(cache.keys, cache.values, strict=True)
        self._flat_cache = [
            (k.view(-1, self._head_dim), v.view(-1, self._head_dim)) for k, v in stored
        ]

    @torch.inference_mode()
    def step(self, ids: Int[Tensor, " rows"]) -> Hidden:
        """Read one token per row into the cache; returns the states after them."""
        if self._plain:
            h = self._decoder.embed(ids, self._positions)
            if self._kernel is None:
                h = self._layer_by_layer(h)
            elif len(ids) <= self._kernel.most_rows:
                h = self._kernel.decode(h, self._positions)
            else:
                h = self._many_rows_step(h, self._kernel)
            self._flat_slots += 1
        else:
            h = self._model_step(ids)
        self._lowest, self.highest = self._lowest + 1, self.highest + 1
        self._positions += 1
        return h

    @property
    def _decoder(self) -> Decoder:
        return cast(Decoder, self._model.model)

    def _model_step(self, ids: Int[Tensor, " rows"]) -> Hidden:
        batch = Batch.at(ids[:, None], self._positions[:, None])
        with uncompiled(self._model):
            hidden: Tensor = self._model(batch, self._cache)
        return hidden[:, 0]

    def is_one_call(self, rows: int) -> bool:
        """Whether a step of `rows` rows is a single call of the kernel.

        Its result then does not depend on the number of threads: one thread computes each number.
        """
        return self._kernel is not None and rows <= self._kernel.most_rows

    def logits(self, hidden: Hidden) -> Float[Tensor, "rows vocab"]:
        """The head's logits for these states, in float32."""
        if self._kernel is not None and len(hidden) <= self._kernel.most_rows:
            return self._kernel.logits(hidden)
        return self._head(hidden.to(self._model.like.dtype)).float()

    @cached_property
    def _head(self) -> Function:
        return _concatenated([self._model.lm_head])

    def _many_rows_step(self, h: Hidden, kernel: Kernel) -> Hidden:
        """A step of many rows: PyTorch computes the matrix products, the kernel the rest."""
        h = h.to(torch.float32, copy=True)
        x = kernel.add_norm(h, None, 0)
        for i, layer in enumerate(self._layers):
            mixed = kernel.attention(i, layer.qkv(x), self._positions)
            x = kernel.add_norm(h, layer.output(mixed), 2 * i + 1)
            x = kernel.add_norm(h, layer.down(kernel.gated(layer.gate_up(x))), 2 * i + 2)
        return x

    def _layer_by_layer(self, h: Hidden) -> Hidden:
        self._cos_sin = self._rotation(h)
        self._visible_slots = {
            one: self._visible(one, h) for one in set(self._model.config.windows)
        }
        for i, layer in enumerate(self._layers):
            h = h + layer.output(self._attend(i, layer.qkv(layer.norm1(h))))
            inner = layer.gate_up(layer.norm2(h))
            if self._gated:
                gate, up = inner.chunk(2, -1)
                inner = layer.activation(gate).mul_(up)
            else:
                inner = layer.activation(inner)
            h = h + layer.down(inner)
        return _norm(self._decoder.norm)(h)

    def _attend(
        self, i: int, outputs: Float[Tensor, "rows outputs"]
    ) -> Float[Tensor, "rows queries"]:
        """A layer's attention from its concatenated queries, keys and values."""
        layer, rows, d = self._layers[i], len(outputs), self._head_dim
        heads = outputs.view(rows, -1, d)
        qk, v = heads[:, : -self._kv_heads], heads[:, -self._kv_heads :]
        if layer.head_norm is not None:
            qk = rms_norm(qk, (d,), None, self._eps) * layer.head_norm
        if self._cos_sin is not None:
            cos, sin = self._cos_sin
            qk = torch.addcmul(qk * cos, qk.roll(d // 2, -1), sin)
        q, k = qk[:, : -self._kv_heads], qk[:, -self._kv_heads :]
        keys, values = self._flat_cache[i]
        keys.index_copy_(0, self._flat_slots, k.reshape(-1, d))
        values.index_copy_(0, self._flat_slots, v.reshape(-1, d))
        slots, bias = self._visible_slots[layer.window]
        cache = cast(KVCache, self._cache)
        key, value = (all_[i][:rows, :, slots] for all_ in (cache.keys, cache.values))
        return one_query(q, key, value, bias).view(rows, -1)

    def _rotation(self, h: Hidden) -> tuple[Tensor, Tensor] | None:
        """Cosines and sines (rows, 1, head_dim): x cos + roll(x) sin rotates every pair of x."""
        config = self._model.config
        if config.position != "rope":
            return None
        frequencies = inverse_frequencies(config.rope, self._head_dim, h.device)
        cos, sin = rotation(
            frequencies, self._positions[:, None], h.dtype, config.rope.attention_factor
        )
        sin[..., : self._head_dim // 2].neg_()
        return cos, sin

    def _visible(self, window: int | None, h: Hidden) -> tuple[slice, Tensor | None]:
        """The slots that any row attends to, and a bias unless all rows attend to all of them."""
        first = 0 if window is None else max(0, self._lowest + 1 - window)
        seen = slice(first, self.highest + 1)
        if self._lowest == self.highest:
            return seen, None
        slots = torch.arange(first, self.highest + 1, device=h.device)
        positions = self._positions[:, None]
        hidden = slots > positions
        if window is not None:
            hidden |= slots <= positions - window
        return seen, h.new_zeros(hidden.shape).masked_fill_(hidden, -torch.inf)


# The model's layers as functions.


def _layer(block: Block) -> _Layer:
    attention, mlp = block.self_attn, block.mlp
    assert isinstance(mlp, MLP)
    inner = [mlp.up_proj] if mlp.gate_proj is None else [mlp.gate_proj, mlp.up_proj]
    return _Layer(
        norm1=_norm(block.input_layernorm),
        qkv=_concatenated([attention.q_proj, attention.k_proj, attention.v_proj]),
        head_norm=_head_norm(attention),
        output=_concatenated([attention.o_proj]),
        norm2=_norm(block.post_attention_layernorm),
        gate_up=_concatenated(inner),
        down=_concatenated([mlp.down_proj]),
        activation=mlp.activation,
        window=attention.window,
    )


def _norm(norm: nn.Module) -> Function:
    if isinstance(norm, RMSNorm):
        weight, width, eps = norm.weight, norm.weight.shape, norm.eps
        return lambda x: rms_norm(x, width, weight, eps)
    return norm


def _head_norm(attention: Attention) -> Float[Tensor, "heads head_dim"] | None:
    """The weights of the norms of queries and of keys, one row for each head."""
    if not isinstance(attention.q_norm, RMSNorm):
        return None
    queries, keys = (
        projection.out_features // attention.head_dim
        for projection in (attention.q_proj, attention.k_proj)
    )
    q_weight, k_weight = attention.q_norm.weight, cast(RMSNorm, attention.k_norm).weight
    return torch.cat([q_weight.expand(queries, -1), k_weight.expand(keys, -1)]).detach()


def _concatenated(layers: Sequence[nn.Module]) -> Function:
    """Layers with the same input as one function, which concatenates their outputs.

    Their adapters need one product with all A matrices and one with a block-diagonal B.
    """
    parts = [_linear_and_lora(layer) for layer in layers]
    known = [part for part in parts if part is not None]
    size = sum(plain.weight.numel() for plain, _, _ in known)
    if len(known) < len(layers) or size > _MAX_CONCATENATED:
        return layers[0] if len(layers) == 1 else lambda x: torch.cat([f(x) for f in layers], -1)
    plain = _product(
        torch.cat([one.weight for one, _, _ in known]),
        None if known[0][0].bias is None else torch.cat([one.bias for one, _, _ in known]),
    )
    thin = torch.cat([down for _, down, _ in known])
    if not len(thin):
        return plain
    down = _product(thin, None)
    apart: Tensor = torch.block_diag(*[up for _, _, up in known])  # type: ignore[no-untyped-call]
    up = apart.T.contiguous()
    return lambda x: torch.addmm(plain(x), down(x), up)


def _linear_and_lora(layer: nn.Module) -> tuple[nn.Linear, Tensor, Tensor] | None:
    """A layer's linear base and its LoRA matrices A and B, which are empty without an adapter."""
    if any(map(is_changed, layer.modules())):
        return None
    if type(layer) is LoRALinear and type(layer.base_layer) is nn.Linear:
        found = layer.split(layer.base_layer.weight.dtype)
        return None if found is None else (layer.base_layer, *found[1:])
    if type(layer) is not nn.Linear:
        return None
    like = layer.weight.new_empty(0)
    return layer, like.view(0, layer.in_features), like.view(layer.out_features, 0)


def _product(weight: Tensor, bias: Tensor | None) -> Function:
    if not _uses_onednn(weight):
        return lambda x: linear(x, weight, bias)
    # Otherwise oneDNN would reorder the weight at every call.
    packed = torch.ops.mkldnn._reorder_linear_weight(weight, None)
    return lambda x: torch.ops.mkldnn._linear_pointwise(x, packed, bias, "none", [], "")


def _uses_onednn(weight: Tensor) -> bool:
    """Whether oneDNN multiplies such a matrix, as with torch.compile on CPUs."""
    if weight.device.type != "cpu" or not torch._C._has_mkldnn:
        return False
    fast = weight.dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return weight.dtype == torch.float32 or bool(fast)
