"""The KV cache, and the sampling of a token."""

import torch
from torch import Tensor


def remember(stored: Tensor, new: Tensor, positions: Tensor) -> Tensor:
    """Write new keys (or values) into their slots, in place, and return the slots in use.

    stored: (rows, heads, slots, d); new: (rows, heads, time, d); positions: (rows, time).
    Result: (rows, heads, largest position + 1, d).
    """
    for row, places in enumerate(positions):
        stored[row, :, places] = new[row]
    return stored[:, :, : int(positions.max()) + 1]


def probabilities(logits: Tensor, temperature: float, top_k: int, top_p: float) -> Tensor:
    """Apply temperature, top-k and top-p, then rescale to sum 1. Shapes: (vocabulary,)."""
    if temperature == 0:
        return torch.zeros_like(logits).index_fill(0, logits.argmax(), 1.0)
    values, order = (logits / temperature).sort(descending=True)
    if top_k:
        # From here on the others do not exist: top-p sums over these alone.
        values[top_k:] = -torch.inf
    shares = values.softmax(0)
    before = shares.cumsum(0) - shares
    if top_p < 1:
        shares[before >= top_p] = 0
        shares /= shares.sum()
    return torch.zeros_like(logits).scatter(0, order, shares)


def pick(probabilities: Tensor, u: float) -> int:
    """The first index at which the cumulative sum of the probabilities is greater than u."""
    beyond = (probabilities.cumsum(0) > u).nonzero()
    # Rounded sums may end a little below 1, and so below u.
    return int(beyond[0]) if len(beyond) else int(probabilities.nonzero()[-1])
