"""Where the part of 1.6 enters the product: the softmax of maths and of the choice evals."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

import numpy as np

from groundup.evals import choice
from groundup.learn.exercise import replaced
from groundup.maths import probability

USED_BY = "every Categorical of maths, and the multiple-choice questions of groundup eval"


@contextmanager
def swap(part: ModuleType) -> Iterator[None]:
    """The part turns logits into log-probabilities."""
    whole = probability.log_softmax

    def log_softmax(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
        if not 0 < temperature < np.inf:  # limits that the part need not handle
            return whole(logits, temperature)
        result: np.ndarray = part.log_softmax(logits / temperature)
        return result

    with (
        replaced(probability, "log_softmax", log_softmax),
        replaced(choice, "log_softmax", log_softmax),
    ):
        yield


def try_it() -> list[float]:
    """Probabilities from logits, at a temperature."""
    logits = np.array([2.0, 0.5, -1.0])
    return [float(p) for p in probability.Categorical.from_logits(logits, 0.7).probs]
