"""4.4 Own data, forgetting and replay

The lesson: groundup learn 4.4        Check it: groundup learn check 4.4
"""

import math


def token_shares(own: dict[str, float], general: list[str], replay: float) -> dict[str, float]:
    """Each source's share of the tokens; the shares sum to 1."""
    raise NotImplementedError


def times_seen(tokens: int, share: float, size: int) -> float:
    """How often each token of a source of `size` tokens is seen in training on `tokens` tokens."""
    raise NotImplementedError


def forgotten(before: list[float], after: list[float], sizes: list[int]) -> float:
    """Bits per byte lost, over all texts together; before and after are in nats."""
    raise NotImplementedError
