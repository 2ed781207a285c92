"""Peak speeds of this machine: matrix products of a model's own shapes, memory, disk.

A training step of a transformer multiplies for every matrix W (in, out) and tokens X (t, in):

    forward X W      data gradient dY Wᵀ      weight gradient Xᵀ dY

Square products of size 1,000, a common benchmark, predict these badly: on some machines a weight
gradient runs at a third of that speed, on others the large products of a head at twice of it.
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

# Bytes to copy: more than caches hold. Blocks of a MiB to write: more than a disk's own cache takes
# at once.
_COPIED, _BLOCKS = 256_000_000, 64
_PRODUCT_SECONDS = 0.15  # time to try a product, for all three kinds together


@dataclass(frozen=True)
class Products:
    """FLOP/s of the products of a step: forward, data gradients and weight gradients."""

    forward: float
    data_gradient: float
    weight_gradient: float

    @property
    def together(self) -> float:
        """FLOP/s of all three in sequence."""
        return 3 / (1 / self.forward + 1 / self.data_gradient + 1 / self.weight_gradient)


def matrices(
    width: int, inner: int, heads: tuple[int, int], vocab_size: int
) -> list[tuple[int, int]]:
    """Return the matrices (in, out) of a layer and the head; `heads` are the sizes of q and k."""
    query, key = heads
    layer = [(width, query), (width, key), (width, key), (query, width)]
    return [*layer, (width, inner), (width, inner), (inner, width), (width, vocab_size)]


def products(sizes: Sequence[tuple[int, int]], tokens: int, dtype: torch.dtype) -> Products:
    """Measure the best speed of products of `tokens` tokens with matrices of these sizes."""
    flops = sum(2.0 * tokens * a * b for a, b in sizes)
    seconds = [0.0, 0.0, 0.0]
    timed = dict[tuple[int, int], list[float]]()
    for size in sizes:
        if size not in timed:
            timed[size] = _product_seconds(*size, tokens, dtype)
        for kind, one in enumerate(timed[size]):
            seconds[kind] += one
    return Products(*(flops / one for one in seconds))


def _product_seconds(a: int, b: int, tokens: int, dtype: torch.dtype) -> list[float]:
    x, weight = torch.randn(tokens, a).to(dtype), torch.randn(b, a).to(dtype)
    dy = torch.randn(tokens, b).to(dtype)
    works: list[Callable[[], object]] = [
        lambda: x @ weight.T,
        lambda: dy @ weight,
        lambda: dy.T @ x,
    ]
    return [best_seconds(work, _PRODUCT_SECONDS / 3) for work in works]


def memory_bandwidth() -> float:
    """Measure memory bandwidth in bytes per second, read plus written, beyond the caches."""
    source = torch.zeros(_COPIED // torch.float32.itemsize)
    target = torch.empty_like(source)
    return 2 * source.nbytes / best_seconds(lambda: target.copy_(source), 0.4)


def disk_bandwidth(folder: Path) -> float:
    """Measure the speed of writing and syncing a file in a folder, in bytes per second.

    Raises `OSError` if it cannot be written.
    """
    block = os.urandom(1 << 20)
    with tempfile.TemporaryFile(dir=folder) as file:
        start = time.perf_counter()
        for _ in range(_BLOCKS):
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
        return _BLOCKS * len(block) / (time.perf_counter() - start)
