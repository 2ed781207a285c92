"""Grades the best of n by `groundup.align.best_of_n`."""

from collections.abc import Iterator

import numpy as np

from groundup.align.best_of_n import best_of_n, kl_bound
from groundup.learn.exercise import Trial, calls


def trials(seed: int) -> Iterator[Trial]:
    random = np.random.default_rng(seed)
    example = (np.array([1.0, 2.0, 3.0]), np.array([5.0, 0.0, 9.0]))
    shuffled = (np.array([0.4, 0.1, 0.9, 0.2, 0.6]), np.array([1.0, 4.0, 2.0, 8.0, 0.5]))
    ties = (np.array([1.0, 2.0, 2.0, 0.0, 2.0]), np.array([3.0, 9.0, 0.0, 1.0, 6.0]))
    large = (random.normal(size=400), random.normal(size=400))
    for (scores, gold), n in (
        (example, 2), (example, 1), (example, 3), (shuffled, 2), (shuffled, 4),
        (ties, 2), (ties, 3), (large, 16), (large, 200),
    ):  # fmt: skip
        yield Trial(
            f"best_of_n, {n} of a pool of {len(scores)}",
            calls("best_of_n", scores, gold, n),
            best_of_n(scores, gold, n),
            {"scores": scores, "gold": gold, "n": n},
            rtol=1e-6,
            atol=1e-9,
        )
    for n in (1, 2, 64):
        yield Trial(f"kl_bound({n})", calls("kl_bound", n), kl_bound(n), {"n": n})
