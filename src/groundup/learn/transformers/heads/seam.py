"""Puts the learner's scores into the X-ray."""

from contextlib import AbstractContextManager
from types import ModuleType

import numpy as np

from groundup.learn.plain import all_replaced
from groundup.learn.small import small_model
from groundup.xray import heads

USED_BY = "groundup xray: your scores name heads previous-token, duplicate or induction heads"


def swap(part: ModuleType) -> AbstractContextManager[None]:
    """Every score on a line is the learner's."""

    def on_diagonal(attention: np.ndarray, back: int) -> np.ndarray:
        return np.asarray(part.diagonal_mean(attention, back))

    return all_replaced((heads, "on_diagonal", on_diagonal))


def try_it() -> list[float]:
    """The scores of a small model's heads."""
    return [float(one) for one in heads.head_scores(small_model()).flatten()]
