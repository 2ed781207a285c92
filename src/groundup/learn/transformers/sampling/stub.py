"""3.6 KV cache and sampling

The lesson: groundup learn 3.6        Check it: groundup learn check 3.6
"""

import torch
from torch import Tensor


def remember(stored: Tensor, new: Tensor, positions: Tensor) -> Tensor:
    """Write new keys (or values) into their slots, in place, and return the slots in use.

    stored: (rows, heads, slots, d); new: (rows, heads, time, d); positions: (rows, time).
    Result: (rows, heads, largest position + 1, d).
    """
    raise NotImplementedError


def probabilities(logits: Tensor, temperature: float, top_k: int, top_p: float) -> Tensor:
    """Apply temperature, top-k and top-p, then rescale to sum 1. Shapes: (vocabulary,)."""
    raise NotImplementedError


def pick(probabilities: Tensor, u: float) -> int:
    """The first index at which the cumulative sum of the probabilities is greater than u."""
    raise NotImplementedError
