"""Puts the learner's cache and sampler into generation."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

import torch
from torch import Tensor

from groundup.generation import engine, generate
from groundup.generation.penalties import SeenTokens
from groundup.generation.sampling import BatchedSampling, Sampling
from groundup.learn.plain import all_replaced, plain_path
from groundup.learn.small import replies
from groundup.lm.cache import CacheView

USED_BY = "every reply: chat, generate and the answers of reinforcement learning"


@contextmanager
def swap(part: ModuleType) -> Iterator[None]:
    """The part samples each row separately; penalties and min-p stay the product's."""

    def sample(
        logits: Tensor,
        sampling: Sampling | BatchedSampling,
        uniforms: Tensor,
        seen: SeenTokens | None = None,
    ) -> Tensor:
        draws = BatchedSampling.of(sampling, logits)
        logits = draws.penalize(logits, seen)
        tokens = [_one(part, logits[i], draws, i, float(uniforms[i])) for i in range(len(logits))]
        return torch.tensor(tokens, device=logits.device)

    def write(self: CacheView, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        stored = (self.cache.keys[layer], self.cache.values[layer])
        keys, values = (
            part.remember(kept[: self.rows], new, self.position_ids)
            for kept, new in zip(stored, (key, value), strict=True)
        )
        return keys, values

    with (
        plain_path(),
        all_replaced(
            (engine, "sample", sample), (generate, "sample", sample), (CacheView, "write", write)
        ),
    ):
        yield


def _one(part: ModuleType, logits: Tensor, draws: BatchedSampling, row: int, u: float) -> int:
    vocabulary = len(logits)
    top_k, top_p = int(draws.top_k[row]), float(draws.top_p[row])
    if row in draws.greedy.tolist():
        return int(part.pick(part.probabilities(logits.float(), 0.0, 0, 1.0), u))
    temperature = float(draws.temperature[row])
    k = top_k if top_k < vocabulary else 0
    shares: Tensor = part.probabilities(logits.float(), temperature, k, top_p)
    least = float(draws.min_p[row]) * shares.max()
    shares = torch.where(shares < least, 0.0, shares)
    if not k and top_p == 1:
        return int(part.pick(shares / shares.sum(), u))
    # With top-k or top-p the product samples in sorted order; so the same u gives the same token.
    best, order = shares.sort(descending=True, stable=True)
    return int(order[part.pick(best / best.sum(), u)])


def try_it() -> list[float]:
    """Replies of a small model, sampled in several ways."""
    return replies()
