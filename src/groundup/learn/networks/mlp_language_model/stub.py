"""2.7 A language model that is a network.

The lesson: groundup learn 2.7        Check it: groundup learn check 2.7
"""

import numpy as np

from groundup.maths import Tensor


def windows(tokens: np.ndarray, reach: int) -> tuple[np.ndarray, np.ndarray]:
    """Return inputs (N - reach, reach) and the token that follows each, (N - reach,)."""
    raise NotImplementedError


def logits(
    ids: np.ndarray, table: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor
) -> Tensor:
    """Return logits (batch, V) for ids (batch, reach), by embeddings and a hidden tanh layer."""
    raise NotImplementedError
