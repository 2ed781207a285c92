"""Puts the learner's ratings into the results of votes."""

from contextlib import AbstractContextManager
from types import ModuleType

import numpy as np

from groundup.align import bradley_terry as page
from groundup.learn.plain import all_replaced

USED_BY = "groundup label: the ratings of models, and their intervals, that it computes from votes"


def swap(part: ModuleType) -> AbstractContextManager[None]:
    """Logs without finite ratings (a player never won, or never lost) stay the product's."""
    product = page.bradley_terry

    def bradley_terry(wins: np.ndarray) -> np.ndarray:
        n = wins.shape[-1]
        logs = wins.reshape(-1, n, n)
        found = [
            part.ratings(log) if np.isfinite(ratings).all() else ratings
            for log, ratings in zip(logs, product(logs), strict=True)
        ]
        return np.stack(found).reshape(wins.shape[:-1])

    return all_replaced((page, "bradley_terry", bradley_terry))


def try_it() -> list[float]:
    """The rating of a model that won 12 of 16 votes against the first, and its interval."""
    matches = np.zeros((16, 2, 2))
    matches[:12, 1, 0], matches[12:, 0, 1] = 1, 1
    found = page.rate(matches, samples=30)
    return [end for one in found for end in (one.estimate, one.low, one.high)]
