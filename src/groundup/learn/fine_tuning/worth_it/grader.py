"""Grades the comparison by NumPy, and by the product's bootstrap within its precision."""

from collections.abc import Iterator

import numpy as np

from groundup.learn.exercise import Trial, calls
from groundup.maths.intervals import bootstrap_difference

_MARKS = ([2.0, 9.0, 4.0, 1.0], [7.0, 9.0, 10.0, 3.0])
_SIX = ([1.0, 0.0, 1.0, 0.0, 1.0, 0.0], [1.0, 1.0, 1.0, 0.0, 1.0, 1.0])


def trials(seed: int) -> Iterator[Trial]:
    random = np.random.default_rng(seed)
    hard = random.random(40)
    drawn = [list(np.clip(hard + by * random.random(40), 0, 2)) for by in (0.1, 0.4)]
    for prompted, tuned in (_SIX, ([0.5, 0.2], [0.7, 0.8]), _MARKS, (drawn[0], drawn[1])):
        yield Trial(
            f"difference over {len(tuned)} questions",
            calls("difference", prompted, tuned),
            _expected(prompted, tuned),
            {"prompted": prompted, "tuned": tuned},
        )
    many = [[float(one) for one in (random.random(400) < rate)] for rate in (0.5, 0.62)]
    found = bootstrap_difference(np.array(many[1]), np.array(many[0]))
    yield Trial(
        "difference over 400 questions, against the product's bootstrap",
        calls("difference", *many),
        [found.estimate, found.low, found.high],
        {"prompted": many[0], "tuned": many[1]},
        atol=0.012,  # the precision of 2,000 samples
    )
    for frozen, trained, bits in ((0, 7, 16), (1000, 10, 16), (1000, 10, 4)):
        yield Trial(
            f"training_bytes({frozen}, {trained}, {bits})",
            calls("training_bytes", frozen, trained, bits),
            frozen * bits / 8 + trained * np.zeros(4, np.float32).nbytes,
            {"frozen": frozen, "trained": trained, "bits": bits},
        )
    clear = ([0.0, 0.1, 0.0, 0.1] * 5, [0.3, 0.4, 0.4, 0.3] * 5)
    # The mean is above 0.1, the low end is not.
    unclear = ([0.0, 1.0, 0.0, 1.0] * 3, [1.0, 1.0, 0.0, 1.0] * 3)
    # From 0.141 to 0.526, at 90 % from 0.172.
    third = ([0.0, 0.5, 0.0] * 8, [1.0, 0.5, 0.0] * 8)
    # Always the same gain, so the interval is this number.
    same = ([0.0, 0.5, 0.25, 0.5], [0.25, 0.75, 0.5, 0.75])
    for (prompted, tuned), least in (
        (clear, 0.1),
        (clear, 0.5),
        (unclear, 0.1),
        (clear, 0.31),
        (_SIX, 0.0),
        (third, 0.1),
        (third, 0.155),
        (third, 0.3),
        (same, 0.25),
        (same, 0.24),
    ):
        yield Trial(
            f"worth_it, at least {least}",
            calls("worth_it", prompted, tuned, least),
            _expected(prompted, tuned)[1] > least,
            {"prompted": prompted, "tuned": tuned, "least": least},
        )


def _expected(prompted: list[float], tuned: list[float]) -> list[float]:
    apart = np.array(tuned) - np.array(prompted)
    reach = 1.96 * apart.std(ddof=1) / np.sqrt(len(apart))
    return [float(apart.mean() + by * reach) for by in (0, -1, 1)]
