"""2.7 A language model that is a network, solved."""

import numpy as np

from groundup.maths import Tensor


def windows(tokens: np.ndarray, reach: int) -> tuple[np.ndarray, np.ndarray]:
    count = len(tokens) - reach  # the last window with a token after it
    return np.stack([tokens[i : i + reach] for i in range(count)]), tokens[reach:]


def logits(
    ids: np.ndarray, table: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor
) -> Tensor:
    x = table[ids].reshape(len(ids), -1)  # side by side, so that order counts
    return (x @ w1.T + b1).tanh() @ w2.T + b2
