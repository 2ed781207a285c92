"""Your own data mixed with general text."""

import math


def token_shares(own: dict[str, float], general: list[str], replay: float) -> dict[str, float]:
    """Each source's share of the tokens; the shares sum to 1."""
    whole = sum(own.values())
    shares = {name: (1 - replay) * weight / whole for name, weight in own.items()}
    if replay:
        shares |= {name: replay / len(general) for name in general}
    return shares


def times_seen(tokens: int, share: float, size: int) -> float:
    """How often each token of a source of `size` tokens is seen in training on `tokens` tokens."""
    return tokens * share / size


def forgotten(before: list[float], after: list[float], sizes: list[int]) -> float:
    """Bits per byte lost, over all texts together; before and after are in nats."""
    # Sums are divided once: a mean of the texts' own losses would let a short text weigh as much.
    return (sum(after) - sum(before)) / math.log(2) / sum(sizes)
