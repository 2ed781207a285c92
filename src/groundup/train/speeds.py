"""What this machine can do at best: products of a model's own shapes, memory, disk.

A training step of a transformer multiplies for every matrix W (in, out) and tokens X (t, in):

    forward X W      data gradient dY Wᵀ      weight gradient Xᵀ dY

Square products of a thousand, by which machines are often judged, say little of these: on some a
weight gradient has a third of the speed, on others the long products of a head have twice of it.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from groundup.train.device import best_seconds

# Bytes that are copied: more than caches hold. And blocks of a MiB that are written: more than a
# disk takes into its own memory at once.
_COPIED, _BLOCKS = 256_000_000, 64
_ONCE_MORE = 0.15  # seconds for which a product is tried


@dataclass(frozen=True)
class Products:
    """FLOP/s of the products of a step: forward, of data gradients and of weight gradients."""

    forward: float
    data_gradient: float
    weight_gradient: float

    @property
    def together(self) -> float:
        """FLOP/s of all three, one after the other."""
        return 3 / (1 / self.forward + 1 / self.data_gradient + 1 / self.weight_gradient)


def matrices(
    width: int, inner: int, heads: tuple[int, int], vocab_size: int
) -> list[tuple[int, int]]:
    """The matrices (in, out) of a layer and of the head; `heads` are features of q and of k."""
    query, key = heads
    layer = [(width, query), (width, key), (width, key), (query, width)]
    return [*layer, (width, inner), (width, inner), (inner, width), (width, vocab_size)]


def products(sizes: Sequence[tuple[int, int]], tokens: int, dtype: torch.dtype) -> Products:
    """Time the products of matrices of these sizes with so many tokens, each at its best."""
    flops = sum(2.0 * tokens * a * b for a, b in sizes)
    seconds = [0.0, 0.0, 0.0]
    timed = dict[tuple[int, int], list[float]]()
    for size in sizes:
        if size not in timed:
            timed[size] = _product_seconds(*size, tokens, dtype)
        for place, one in enumerate(timed[size]):
            seconds[place] += one
    return Products(*(flops / one for one in seconds))


def _product_seconds(a: int, b: int, tokens: int, dtype: torch.dtype) -> list[float]:
    x, weight = torch.randn(tokens, a).to(dtype), torch.randn(b, a).to(dtype)
    dy = torch.randn(tokens, b).to(dtype)
    found: list[Callable[[], object]] = [
        lambda: x @ weight.T,
        lambda: dy @ weight,
        lambda: dy.T @ x,
    ]
    return [best_seconds(one, _ONCE_MORE / 3) for one in found]


def memory_bandwidth() -> float:
    """Bytes a second that are read and written together when memory beyond caches is copied."""
    source = torch.zeros(_COPIED // torch.float32.itemsize)
    target = torch.empty_like(source)
    return 2 * source.nbytes / best_seconds(lambda: target.copy_(source), 0.4)


def disk_bandwidth(folder: Path) -> float:
    """Bytes a second that a synced file gets onto the disk of a folder. Raises `OSError`."""
    block = os.urandom(1 << 20)
    with tempfile.TemporaryFile(dir=folder) as file:
        start = time.perf_counter()
        for _ in range(_BLOCKS):
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
        return _BLOCKS * len(block) / (time.perf_counter() - start)
