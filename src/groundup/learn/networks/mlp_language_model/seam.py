"""Where the part of 2.7 enters the product: the feed-forward rung of the ladder of models."""

from contextlib import AbstractContextManager
from types import ModuleType
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from groundup.experiments.ladder_models import FeedForward
from groundup.experiments.ladder_text import BOUNDARY
from groundup.learn.exercise import replaced

USED_BY = "the feed-forward rung of groundup experiment ladder"


def swap(part: ModuleType) -> AbstractContextManager[None]:
    """The part computes the logits; the direct connections of the paper are added to them."""

    def forward(self: FeedForward, ids: np.ndarray) -> Any:
        padded = np.pad(ids, ((0, 0), (self.reach - 1, 0)), constant_values=BOUNDARY)
        rows = sliding_window_view(padded, self.reach, axis=1).reshape(-1, self.reach)
        x = self.embedding(rows).flatten(1, 2)
        weights = (self.hidden.weight, self.hidden.bias, self.out.weight, self.out.bias)
        found = part.logits(rows, self.embedding.weight, *weights) + self.shortcut(x)
        return found.reshape(*ids.shape, -1)

    return replaced(FeedForward, "forward", forward)


def try_it() -> list[float]:
    """The logits of a tiny model for two texts."""
    network = FeedForward(5, np.random.default_rng(0), reach=3, width=2, hidden=4)
    logits = network(np.array([[1, 2, 3, 4], [4, 3, 2, 1]]))
    found: list[float] = logits.data.ravel().tolist()
    return found
