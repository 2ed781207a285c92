"""Grades the scores of heads by `groundup.xray.heads`."""

from collections.abc import Iterator

import numpy as np

from groundup.learn.exercise import Trial, calls
from groundup.xray.heads import on_diagonal


def trials(seed: int) -> Iterator[Trial]:
    random = np.random.default_rng(seed)
    for shape, back in (((1, 3, 3), 1), ((2, 3, 3), 0), ((2, 2, 5), 1), ((3, 4, 6), 4)):
        attention = _patterns(random, shape)
        # The product's shape is (layers, heads, queries, keys).
        yield Trial(
            f"diagonal_mean of shape {shape}, {back} back",
            calls("diagonal_mean", attention, back),
            on_diagonal(attention[None], back)[0],
            {"attention": attention, "back": back},
        )
    late = _patterns(random, (2, 2, 2))
    yield Trial(
        "diagonal_mean where no query has such a key",
        calls("diagonal_mean", late, 3),
        on_diagonal(late[None], 3)[0],
        {"attention": late, "back": 3},
    )
    for layers, heads, block, opening in ((1, 1, 2, 0), (2, 3, 4, 1)):
        time = opening + 2 * block
        attention = _patterns(random, (layers, heads, time, time))
        yield Trial(
            f"induction_score of a block of {block}, {opening} opening tokens",
            calls("induction_score", attention, block),
            on_diagonal(attention[..., -block:, :], block - 1),
            {"attention": attention, "block": block},
        )


def _patterns(random: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Rows of weights that sum to 1, and 0 for keys that come later."""
    queries, keys = shape[-2:]
    weights = random.random(shape) * np.tri(queries, keys, keys - queries)
    patterns: np.ndarray = weights / weights.sum(-1, keepdims=True)
    return patterns
