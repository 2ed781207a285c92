"""Puts the learner's estimator into best of n, comparisons and the over-optimization experiment."""

from contextlib import AbstractContextManager
from types import ModuleType

import numpy as np

from groundup.align import best_of_n, comparison
from groundup.experiments import overoptimization_laws, sentiment
from groundup.learn.plain import all_replaced

USED_BY = (
    "groundup best-of-n, the comparison of models, and the experiments on over-optimization and "
    "sentiment"
)


def swap(part: ModuleType) -> AbstractContextManager[None]:
    """The names and arguments are the product's own."""
    pages = (best_of_n, comparison, overoptimization_laws, sentiment)
    return all_replaced(
        *((page, "best_of_n", part.best_of_n) for page in pages),
        *((page, "kl_bound", part.kl_bound) for page in pages),
    )


def try_it() -> list[float]:
    """The gold of the best of 1, 2 and 4 in the stage, and the distances in the experiment."""
    random = np.random.default_rng(0)
    pools = [
        best_of_n.Pool([], "", [""] * 4, random.normal(size=4), random.normal(size=4), [True] * 4)
        for _ in range(2)
    ]
    worth = [best_of_n.by_n(pools, n)["gold"].estimate for n in (1, 2, 4)]
    curve = overoptimization_laws.by_choice(
        random.normal(size=(1, 2, 4)), random.normal(size=(2, 4))
    )
    return [*worth, *curve.d.tolist(), *curve.gold.tolist()]
