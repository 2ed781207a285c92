from __future__ import annotations

from itertools import pairwise

import torch
from torch.testing import assert_close

from groundup.lm.cache import KVCache
from groundup.lm.model import CausalLM
from groundup.train.batch import Batch


def read(model: CausalLM, cache: KVCache, ids: torch.Tensor, start: torch.Tensor) -> torch.Tensor:
    """Logits of `ids`, whose rows begin at the positions `start`, through the cache."""
    positions = start[:, None] + torch.arange(ids.shape[1])
    zeros = torch.zeros_like(ids)
    return model.logits(Batch(ids, zeros, zeros.float(), positions, zeros), cache)


@torch.no_grad()
def test_reading_in_chunks_equals_reading_at_once(tiny_model) -> None:  # type: ignore[no-untyped-def]
    model, ids = tiny_model(), torch.randint(320, (3, 20))
    whole = model.logits(Batch.of(ids))
    cache = KVCache.empty(model.config, rows=3, slots=20, like=model.head)
    cuts = [0, 7, 8, 9, 15, 20]
    for start, end in pairwise(cuts):
        piece = read(model, cache, ids[:, start:end], torch.full((3,), start))
        assert_close(piece, whole[:, start:end], rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_rows_of_other_lengths_and_removed_rows_change_nothing(tiny_model) -> None:  # type: ignore[no-untyped-def]
    model, ids = tiny_model(), torch.randint(320, (3, 12))
    whole = model.logits(Batch.of(ids))
    cache = KVCache.empty(model.config, rows=3, slots=12, like=model.head)
    lengths = torch.tensor([3, 8, 5])
    padded = torch.where(torch.arange(8) < lengths[:, None], ids[:, :8], 0)
    read(model, cache, padded, torch.zeros(3, dtype=torch.int64))
    kept = torch.tensor([0, 2])
    cache, lengths = cache.select(kept), lengths[kept]
    for step in range(4):
        at = lengths + step
        new = read(model, cache, ids[kept, at][:, None], at)[:, 0]
        assert_close(new, whole[kept, at], rtol=1e-4, atol=1e-4)


def test_the_cache_has_the_models_dtype(tiny_model) -> None:  # type: ignore[no-untyped-def]
    model = tiny_model().to(torch.bfloat16)
    cache = KVCache.empty(model.config, rows=1, slots=4, like=model.head)
    assert cache.keys[0].dtype == torch.bfloat16 and cache.slots == 4


@torch.no_grad()
def test_growing_copying_and_swapping_rows_changes_nothing(tiny_model) -> None:  # type: ignore[no-untyped-def]
    model, ids = tiny_model(), torch.randint(320, (3, 20))
    ids[2, :9] = ids[0, :9]  # copied rows must have the same tokens
    whole = model.logits(Batch.of(ids))
    first = KVCache.empty(model.config, rows=2, slots=12, like=model.head)
    read(model, first, ids[:2, :12], torch.zeros(2, dtype=torch.int64))
    cache = KVCache.empty(model.config, rows=0, slots=0, like=model.head)
    cache.grow(2, 9)
    for row in range(2):
        cache.copy_rows(row, first, [row], 9)
    cache.grow(3, 15)
    cache.copy_rows(2, cache, [0], 9)
    cache.swap(0, 1, 9)
    cache.grow(3, 20)
    cache.grow(1, 4)  # never shrinks
    assert (cache.rows, cache.slots) == (3, 20)
    order = torch.tensor([1, 0, 2])
    new = read(model, cache, ids[order, 9:], torch.full((3,), 9))
    assert_close(new, whole[order, 9:], rtol=1e-4, atol=1e-4)
    fewer = read(model, cache, ids[order[:2], 15:], torch.full((2,), 15))
    assert_close(fewer, whole[order[:2], 15:], rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_a_window_hides_distant_positions(tiny_model) -> None:  # type: ignore[no-untyped-def]
    model, ids = tiny_model(model_type="mistral", sliding_window=5), torch.randint(320, (2, 20))
    whole = model.logits(Batch.of(ids))
    cache = KVCache.empty(model.config, rows=2, slots=20, like=model.head)
    for start, end in pairwise([0, 9, 10, 20]):
        piece = read(model, cache, ids[:, start:end], torch.full((2,), start))
        assert_close(piece, whole[:, start:end], rtol=1e-4, atol=1e-4)
    seen = cache.view(torch.tensor([[3], [7]])).mask(5)
    assert seen[:, 0].nonzero()[:, 1].tolist() == [0, 1, 2, 3, 3, 4, 5, 6, 7]
