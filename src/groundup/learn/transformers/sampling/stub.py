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
    """Temperature, then top-k, then top-p; what is left sums to 1. Shapes: (vocabulary,)."""
    raise NotImplementedError


def pick(probabilities: Tensor, u: float) -> int:
    """The first place at which the sum of the probabilities so far is greater than u."""
    raise NotImplementedError
