"""Grades shares and forgetting by `groundup.tune` and `groundup.evals.perplexity`."""

import random
from collections.abc import Iterator

import numpy as np

from groundup.evals.perplexity import Bits
from groundup.learn.exercise import Trial, calls
from groundup.tune.data import token_shares


def trials(seed: int) -> Iterator[Trial]:
    dice = random.Random(seed)
    drawn = {name: dice.uniform(1, 9) for name in ("letters", "notes", "lists")}
    for own, general, replay in (
        ({"letters": 3.0, "notes": 1.0}, ["web"], 0.1),
        ({"letters": 5.0}, ["web", "books"], 0.5),
        ({"letters": 2.0, "notes": 6.0}, ["web"], 0.0),
        (drawn, ["web", "books"], 0.25),
    ):
        yield Trial(
            f"token_shares of {len(own)} own and {len(general)} general sources, replay {replay}",
            calls("token_shares", own, general, replay),
            token_shares(own, general if replay else [], replay),
            {"own": own, "general": general, "replay": replay},
        )
    for tokens, share, size in (
        (1_000_000, 0.9, 50_000),
        (1_000_000, 0.1, 10_000_000),
        (30, 1.0, 60),
        (1_001, 0.3, 7_000),
    ):
        steps = tokens * share
        yield Trial(
            f"times_seen({tokens:,}, {share}, {size:,})",
            calls("times_seen", tokens, share, size),
            steps / size,
            {"tokens": tokens, "share": share, "size": size},
        )
    texts: list[tuple[list[float], list[float], list[int]]] = [
        ([10.0], [12.0], [20]),
        ([5.0, 90.0], [9.0, 91.0], [4, 90]),
        ([9.0, 91.0], [5.0, 93.0], [4, 90]),
    ]
    sizes = [dice.randrange(5, 90) for _ in range(4)]
    paid = [dice.uniform(0.5, 1) * size for size in sizes]
    texts.append((paid, [nats * dice.uniform(0.9, 1.3) for nats in paid], sizes))
    for before, after, sizes in texts:
        yield Trial(
            f"forgotten, over {len(sizes)} texts",
            calls("forgotten", before, after, sizes),
            _bits(after, sizes).per_byte() - _bits(before, sizes).per_byte(),
            {"before": before, "after": after, "sizes": sizes},
        )


def _bits(nats: list[float], sizes: list[int]) -> Bits:
    return Bits(np.array(nats) / np.log(2), np.array(sizes, float), ["text"] * len(sizes))
