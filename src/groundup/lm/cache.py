"""The KV cache: keys and values of the tokens read so far, so that a new token costs one step.

Each row stores a token's key in the slot of the token's position, so that rows of different lengths
need no padding on the left. Entries that a padded row writes beyond its end are overwritten before
any query may look at them, because a query looks only at slots up to its own position.

Two rows that begin with the same tokens have the same keys and values there, so a shared prefix is
copied from one row's slots to another's instead of being computed again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, Self, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from groundup.lm.config import ModelConfig

Stored = Float[Tensor, "rows kv_heads slots head_dim"]
New = Float[Tensor, "some kv_heads time head_dim"]
Visible = Float[Tensor, "some kv_heads visible head_dim"]
# Stores a layer's new keys and values; returns everything that the pass may look at.
Write = Callable[[New, New], tuple[Visible, Visible]]


@runtime_checkable  # the tests' import hook checks arguments
class Cache(Protocol):
    """The state that a model keeps of the tokens its rows have read (`CausalLM.empty_cache`)."""

    # Whether a row's first tokens can be copied to another row.
    shares_prefixes: ClassVar[bool]

    @property
    def rows(self) -> int: ...
    @property
    def slots(self) -> int: ...
    def clear(self, row: int) -> None: ...
    def select(self, rows: Int[Tensor, " kept"]) -> Self: ...
    def grow(self, rows: int, slots: int) -> None: ...
    def copy_rows(self, row: int, source: Any, source_rows: list[int], length: int) -> None: ...
    def swap(self, one: int, other: int, length: int) -> None: ...


@dataclass(frozen=True)
class KVCache:
    """Keys and values of every layer for a number of rows and slots; both may grow."""

    keys: list[Stored]
    values: list[Stored]

    shares_prefixes: ClassVar[bool] = True

    @classmethod
    def empty(cls, config: ModelConfig, rows: int, slots: int, like: Float[Tensor, ...]) -> KVCache:
        """`slots` tokens for each of `rows`, with the dtype and device of the tensor `like`."""
        shape = (rows, config.num_key_value_heads, slots, config.head_dim)
        layers = range(config.num_hidden_layers)
        # Zeros, because unseen slots have weight 0, and 0 times a stray NaN is NaN.
        return cls([like.new_zeros(shape) for _ in layers], [like.new_zeros(shape) for _ in layers])

    @property
    def rows(self) -> int:
        return self.keys[0].shape[0]

    @property
    def slots(self) -> int:
        return self.keys[0].shape[2]

    def clear(self, row: int) -> None:
        """Zero a row's slots: a NaN left there would spread even at weight 0."""
        for tensor in (*self.keys, *self.values):
            tensor[row].zero_()

    def view(self, position_ids: Int[Tensor, "some time"]) -> CacheView:
        """The first rows of the cache as seen by one forward pass over these positions."""
        return CacheView(self, position_ids)

    def select(self, rows: Int[Tensor, " kept"]) -> KVCache:
        """A copy of the kept rows."""
        return KVCache([key[rows] for key in self.keys], [value[rows] for value in self.values])

    def grow(self, rows: int, slots: int) -> None:
        """Make room for at least this many rows and slots; existing entries stay.

        Grows one layer at a time, so that little more than the new cache is held in memory.
        """
        rows, slots = max(rows, self.rows), max(slots, self.slots)
        if (rows, slots) == (self.rows, self.slots):
            return
        for stored in (self.keys, self.values):
            for layer, old in enumerate(stored):
                new = old.new_zeros(rows, old.shape[1], slots, old.shape[3])
                new[: old.shape[0], :, : old.shape[2]] = old
                stored[layer] = new

    def copy_rows(self, row: int, source: KVCache, source_rows: list[int], length: int) -> None:
        """Copy the first `length` slots of `source_rows` of `source` into rows from `row` on."""
        places = torch.tensor(source_rows, device=self.keys[0].device)
        end = row + len(source_rows)
        for mine, theirs in ((self.keys, source.keys), (self.values, source.values)):
            for to, of in zip(mine, theirs, strict=True):
                to[row:end, :, :length] = of[places, :, :length]

    def swap(self, one: int, other: int, length: int) -> None:
        """Exchange the first `length` tokens of two rows."""
        for stored in (*self.keys, *self.values):
            first, second = stored[one, :, :length], stored[other, :, :length]
            kept = first.clone()
            first.copy_(second)
            second.copy_(kept)


class CacheView:
    """A cache as seen by one forward pass: where its tokens are stored and which slots it reads."""

    def __init__(self, cache: KVCache, position_ids: Int[Tensor, "some time"]) -> None:
        self.cache, self.position_ids = cache, position_ids
        self.rows = position_ids.shape[0]
        self.visible = int(position_ids.max()) + 1
        assert self.visible <= cache.slots and self.rows <= cache.rows, (self.visible, self.rows)
        # Flat indices of the new tokens over (rows, heads, slots); the same in all layers.
        heads = cache.keys[0].shape[1]
        lines = torch.arange(self.rows * heads, device=position_ids.device)
        lines = lines.view(self.rows, heads, 1) * cache.slots
        self._places = (lines + position_ids[:, None]).flatten()

    def write(self, layer: int, key: New, value: New) -> tuple[Visible, Visible]:
        """Store a layer's new keys and values; return everything that this pass may look at."""
        keys, values = self.cache.keys[layer], self.cache.values[layer]
        width = keys.shape[-1]
        for stored, new in ((keys, key), (values, value)):
            # Takes a third of the time of an assignment through two index tensors.
            stored.view(-1, width).index_copy_(0, self._places, new.reshape(-1, width))
        return keys[: self.rows, :, : self.visible], values[: self.rows, :, : self.visible]

    @property
    def positions(self) -> Int[Tensor, "some visible"]:
        """The positions of the keys that this pass may look at: each slot is a position."""
        slots = torch.arange(self.visible, device=self.position_ids.device)
        return slots.expand(self.rows, -1)

    def mask(self, window: int | None) -> Bool[Tensor, "some time visible"]:
        """Slot j is visible from position p if p - window < j <= p."""
        slots = torch.arange(self.visible, device=self.position_ids.device)
        positions = self.position_ids[:, :, None]
        seen = slots <= positions
        return seen if window is None else seen & (slots > positions - window)
