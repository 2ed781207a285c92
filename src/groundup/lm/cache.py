"""The KV cache: keys and values of what was read, so that a new token costs one step.

Memory is laid out once. A token's key stands at the slot of its position, in every row by itself:
rows of different lengths need no padding on the left, and whatever a padded row wrote beyond its
end is overwritten before any query may look there, because a query looks at slots up to its own
position only.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from groundup.lm.config import ModelConfig


@dataclass(frozen=True)
class KVCache:
    keys: list[Float[Tensor, "rows kv_heads slots head_dim"]]
    values: list[Float[Tensor, "rows kv_heads slots head_dim"]]

    @classmethod
    def empty(cls, config: ModelConfig, rows: int, slots: int, like: Float[Tensor, ...]) -> KVCache:
        """`slots` tokens for each of `rows`, in the type and on the device of the tensor `like`."""
        shape = (rows, config.num_key_value_heads, slots, config.head_dim)
        layers = range(config.num_hidden_layers)
        return cls([like.new_zeros(shape) for _ in layers], [like.new_zeros(shape) for _ in layers])

    @property
    def slots(self) -> int:
        return self.keys[0].shape[2]

    def write(
        self,
        layer: int,
        key: Float[Tensor, "rows kv_heads time head_dim"],
        value: Float[Tensor, "rows kv_heads time head_dim"],
        position_ids: Int[Tensor, "rows time"],
        visible: int,
    ) -> tuple[Float[Tensor, ...], Float[Tensor, ...]]:
        """Store new keys and values at their positions; return the first `visible` slots."""
        rows = torch.arange(key.shape[0], device=key.device)[:, None]
        self.keys[layer][rows, :, position_ids] = key.transpose(1, 2)
        self.values[layer][rows, :, position_ids] = value.transpose(1, 2)
        return self.keys[layer][:, :, :visible], self.values[layer][:, :, :visible]

    def view(self, position_ids: Int[Tensor, "rows time"]) -> CacheView:
        """The cache as one forward pass over these positions sees it."""
        return CacheView(self, position_ids)

    def select(self, rows: Int[Tensor, " kept"]) -> KVCache:
        """The cache of the kept rows only, when others have finished."""
        return KVCache([key[rows] for key in self.keys], [value[rows] for value in self.values])


class CacheView:
    """A cache seen from one forward pass: where its tokens go and how many slots it reads."""

    def __init__(self, cache: KVCache, position_ids: Int[Tensor, "rows time"]) -> None:
        self.cache, self.position_ids = cache, position_ids
        self.visible = int(position_ids.max()) + 1
        assert self.visible <= cache.slots, (self.visible, cache.slots)

    def write(
        self, layer: int, key: Float[Tensor, ...], value: Float[Tensor, ...]
    ) -> tuple[Float[Tensor, ...], Float[Tensor, ...]]:
        """Store a layer's new keys and values; return all that this pass may look at."""
        return self.cache.write(layer, key, value, self.position_ids, self.visible)

    def mask(self, window: int | None) -> Bool[Tensor, "rows time visible"]:
        """Slot j may be seen from position p when p - window < j <= p."""
        slots = torch.arange(self.visible, device=self.position_ids.device)
        positions = self.position_ids[:, :, None]
        seen = slots <= positions
        return seen if window is None else seen & (slots > positions - window)
