"""The guard's baseline: words and pairs of words, each with a weight.

    log odds of harm = b + sum over the words and pairs of a text of w[hash(word or pair) mod D]

Logistic regression on hashed features (Weinberger et al. 2009, "Feature hashing for large scale
multitask learning"), each counted once, with a text's features scaled to length 1, fitted by
gradient descent with Adagrad. It trains in a second, reads thousands of messages in a second, and
is what a transformer has to beat to be worth its time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from zlib import crc32

import numpy as np
from jaxtyping import Bool, Float, Int

from groundup.align.guards.examples import Labeled
from groundup.text.cleaning import words

_FEATURES = 2**15
_STEPS, _RATE, _DECAY = 200, 0.5, 1e-5
_START = "^"


@dataclass(frozen=True)
class WordWeights:
    """A weight for each feature and an intercept."""

    weights: Float[np.ndarray, " features"]
    intercept: float

    def scores(self, rows: Sequence[Labeled]) -> Float[np.ndarray, " rows"]:
        """The log odds of harm of each message, or of each answer with its message."""
        if not rows:
            return np.zeros(0)
        row, feature, value = _counted(rows)
        found: Float[np.ndarray, " rows"] = self.intercept + np.bincount(
            row, self.weights[feature] * value, minlength=len(rows)
        )
        return found


def fitted(rows: Sequence[Labeled], weights: Float[np.ndarray, " rows"]) -> WordWeights:
    """The regression that approximately minimizes the weighted logistic loss of some rows."""
    row, feature, value = _counted(rows)
    harmful: Bool[np.ndarray, " rows"] = np.array([one.harmful for one in rows])
    share = weights / weights.sum()
    found, intercept = np.zeros(_FEATURES), 0.0
    squares, square = np.full(_FEATURES, 1e-12), 1e-12
    for _ in range(_STEPS):
        scores = intercept + np.bincount(row, found[feature] * value, minlength=len(rows))
        error = share * (1 / (1 + np.exp(-scores)) - harmful)
        gradient = np.bincount(feature, error[row] * value, minlength=_FEATURES) + _DECAY * found
        squares += gradient**2
        square += float(error.sum()) ** 2
        found -= _RATE * gradient / np.sqrt(squares)
        intercept -= _RATE * float(error.sum()) / np.sqrt(square)
    return WordWeights(found, float(intercept))


def _counted(
    rows: Sequence[Labeled],
) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """The features of all rows, one after the other: row index, feature index and value."""
    places, features, values = [], [], []
    for place, one in enumerate(rows):
        own = sorted(_features(one))
        places += [place] * len(own)
        features += own
        values += [max(1, len(own)) ** -0.5] * len(own)
    return np.array(places, int), np.array(features, int), np.array(values)


def _features(row: Labeled) -> set[int]:
    """The hashed words and pairs of a message and, separately, those of its answer."""
    found = set()
    for part, text in (("m", row.message), ("a", row.answer or "")):
        said = [_START, *words(text)]
        named = [*said[1:], *(f"{one} {next_}" for one, next_ in pairwise(said))]
        found |= {crc32(f"{part}:{name}".encode()) % _FEATURES for name in named}
    return found
