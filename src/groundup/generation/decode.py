"""Decoding: one more token for every running row, in as few calls as possible.

A step of a small model is over in half a millisecond, and most of that is not arithmetic but the
calling of it. So what `lm.model` says at length stands here once more, for one token a row:

    q k v = W_qkv norm(h)                    one product for the three, and one each for the cache
    h = h + W_o attention(rotate(q), keys, values)
    h = h + W_down (act(gate) * up)          gate and up of one product, too

Queries and keys are normalized and rotated together; what depends on positions alone is made once
for all layers, and while no row joins or leaves, positions only count up. Adapters are joined as
the matrices are that they stand beside; quantized layers are called as they are. A few rows go
through `kernel`, where a step is a single call; of more rows it computes what lies between the
products. Blocks that are put together otherwise (norms after, experts, ALiBi), recurrent networks,
and models whose parts were changed (by a hook, a `forward` or a class of their own) go through the
model itself.
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

# A copy of larger matrices, side by side, would cost memory and save nothing: reading them takes
# far longer than calling.
_MOST_JOINED = 2**22


@dataclass(frozen=True)
class _Layer:
    """One block as functions of two-dimensional tensors."""

    norm1: Function
    read: Function  # queries, keys and values
    head_norm: Float[Tensor, "heads head_dim"] | None
    mix: Function
    norm2: Function
    look: Function  # gate and up
    down: Function
    activation: Function
    window: int | None


class Decode:
    """The running rows of a cache, one token further with each `step`.

    The weights are those of the moment when it is made.
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
        """Go on with the cache's first rows, whose next tokens stand at these positions."""
        self._lowest, self.highest = min(positions), max(positions)
        device = self._model.like.device
        self._positions = torch.tensor(positions, device=device)
        self._cache: Cache = cache
        if not self._plain:
            return
        assert isinstance(cache, KVCache)
        # Where each token goes if rows, heads and slots of the cache are counted as one.
        lines = torch.arange(len(positions) * self._kv_heads, device=device) * cache.slots
        self._places = lines + self._positions.repeat_interleave(self._kv_heads)
        if self._kernel is not None:
            self._kernel.begin(cache)
        stored = zip(cache.keys, cache.values, strict=True)
        self._lines = [(k.view(-1, self._head_dim), v.view(-1, self._head_dim)) for k, v in stored]

    @torch.inference_mode()
    def step(self, ids: Int[Tensor, " rows"]) -> Hidden:
        """The states after these tokens, one for each row, which are read into the cache."""
        if self._plain:
            h = self._decoder.embed(ids, self._positions)
            if self._kernel is None:
                h = self._layer_by_layer(h)
            elif len(ids) <= self._kernel.most_rows:
                h = self._kernel.decode(h, self._positions)
            else:
                h = self._between_products(h, self._kernel)
            self._places += 1
        else:
            h = self._by_the_model(ids)
        self._lowest, self.highest = self._lowest + 1, self.highest + 1
        self._positions += 1
        return h

    @property
    def _decoder(self) -> Decoder:
        return cast(Decoder, self._model.model)

    def _by_the_model(self, ids: Int[Tensor, " rows"]) -> Hidden:
        batch = Batch.at(ids[:, None], self._positions[:, None])
        with uncompiled(self._model):
            hidden: Tensor = self._model(batch, self._cache)
        return hidden[:, 0]

    def is_one_call(self, rows: int) -> bool:
        """Whether a step of so many rows is the kernel's alone.

        Then what it computes does not depend on the number of threads: every number is one's.
        """
        return self._kernel is not None and rows <= self._kernel.most_rows

    def logits(self, hidden: Hidden) -> Float[Tensor, "rows vocab"]:
        """What the head says of these states, in float32."""
        if self._kernel is not None and len(hidden) <= self._kernel.most_rows:
            return self._kernel.logits(hidden)
        return self._head(hidden.to(self._model.like.dtype)).float()

    @cached_property
    def _head(self) -> Function:
        return _joined([self._model.lm_head])

    def _between_products(self, h: Hidden, kernel: Kernel) -> Hidden:
        """A step of many rows, of which the kernel computes all but the products with matrices."""
        h = h.to(torch.float32, copy=True)
        x = kernel.add_norm(h, None, 0)
        for i, layer in enumerate(self._layers):
            mixed = kernel.attention(i, layer.read(x), self._positions)
            x = kernel.add_norm(h, layer.mix(mixed), 2 * i + 1)
            x = kernel.add_norm(h, layer.down(kernel.gated(layer.look(x))), 2 * i + 2)
        return x

    def _layer_by_layer(self, h: Hidden) -> Hidden:
        self._turns = self._rotation(h)
        self._seen = {one: self._visible(one, h) for one in set(self._model.config.windows)}
        for i, layer in enumerate(self._layers):
            h = h + layer.mix(self._attend(i, layer.read(layer.norm1(h))))
            inner = layer.look(layer.norm2(h))
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
        """A layer's attention, from its queries, keys and values side by side."""
        layer, rows, d = self._layers[i], len(outputs), self._head_dim
        heads = outputs.view(rows, -1, d)
        qk, v = heads[:, : -self._kv_heads], heads[:, -self._kv_heads :]
        if layer.head_norm is not None:
            qk = rms_norm(qk, (d,), None, self._eps) * layer.head_norm
        if self._turns is not None:
            cos, sin = self._turns
            qk = torch.addcmul(qk * cos, qk.roll(d // 2, -1), sin)
        q, k = qk[:, : -self._kv_heads], qk[:, -self._kv_heads :]
        keys, values = self._lines[i]
        keys.index_copy_(0, self._places, k.reshape(-1, d))
        values.index_copy_(0, self._places, v.reshape(-1, d))
        slots, bias = self._seen[layer.window]
        cache = cast(KVCache, self._cache)
        key, value = (all_[i][:rows, :, slots] for all_ in (cache.keys, cache.values))
        return one_query(q, key, value, bias).view(rows, -1)

    def _rotation(self, h: Hidden) -> tuple[Tensor, Tensor] | None:
        """Cosines and sines (rows, 1, head_dim): x cos + roll(x) sin turns every pair of x."""
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
        """The slots at which any row may look, and a bias where not all rows may look at all."""
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
        read=_joined([attention.q_proj, attention.k_proj, attention.v_proj]),
        head_norm=_head_norm(attention),
        mix=_joined([attention.o_proj]),
        norm2=_norm(block.post_attention_layernorm),
        look=_joined(inner),
        down=_joined([mlp.down_proj]),
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


def _joined(layers: Sequence[nn.Module]) -> Function:
    """Layers that read the same, as one function whose outputs stand side by side.

    Adapters beside them are one thin product for all, and one of each layer's own part of it.
    """
    parts = [_parts(layer) for layer in layers]
    known = [part for part in parts if part is not None]
    size = sum(plain.weight.numel() for plain, _, _ in known)
    if len(known) < len(layers) or size > _MOST_JOINED:
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


def _parts(layer: nn.Module) -> tuple[nn.Linear, Tensor, Tensor] | None:
    """A matrix and the two thin ones beside it, which are empty without an adapter."""
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
    if not _packs(weight):
        return lambda x: linear(x, weight, bias)
    # oneDNN would otherwise bring the weight into its own order at every call.
    packed = torch.ops.mkldnn._reorder_linear_weight(weight, None)
    return lambda x: torch.ops.mkldnn._linear_pointwise(x, packed, bias, "none", [], "")


def _packs(weight: Tensor) -> bool:
    """Whether oneDNN multiplies with such a matrix: torch.compile's own way on CPUs."""
    if weight.device.type != "cpu" or not torch._C._has_mkldnn:
        return False
    fast = weight.dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return weight.dtype == torch.float32 or bool(fast)
