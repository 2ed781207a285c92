"""The commonest mistakes in deciding whether tuning is worth it."""

import math
from statistics import fmean, pstdev, stdev

REPLACES = {
    "not_paired": "difference",
    "spread_of_scores": "difference",
    "root_forgotten": "difference",
    "divided_by_n": "difference",
    "the_other_way": "difference",
    "bits_as_bytes": "training_bytes",
    "weights_alone": "training_bytes",
    "all_trained": "training_bytes",
    "the_mean_decides": "worth_it",
    "better_than_nothing": "worth_it",
    "high_end": "worth_it",
    "mean_of_a_sure_gain": "worth_it",
    "ninety_percent": "worth_it",
    "touching_is_above": "worth_it",
    "n_without_its_root": "difference",
    "cut_off_at_one": "difference",
    "other_factor": "difference",
    "high_before_low": "difference",
}


def _interval(mean: float, deviation: float, n: float) -> tuple[float, float, float]:
    reach = 1.96 * deviation / math.sqrt(n)
    return mean, mean - reach, mean + reach


def _apart(prompted: list[float], tuned: list[float]) -> list[float]:
    return [t - p for p, t in zip(prompted, tuned, strict=True)]


def not_paired(prompted: list[float], tuned: list[float]) -> tuple[float, float, float]:
    """The two lists are treated as if they came from different questions: their variances are
    added, so the interval is too wide. Take differences question by question first."""
    apart = math.sqrt(stdev(prompted) ** 2 + stdev(tuned) ** 2)
    return _interval(fmean(tuned) - fmean(prompted), apart, len(tuned))


def spread_of_scores(prompted: list[float], tuned: list[float]) -> tuple[float, float, float]:
    """The deviation is that of the tuned scores. Use that of the differences."""
    return _interval(fmean(_apart(prompted, tuned)), stdev(tuned), len(tuned))


def root_forgotten(prompted: list[float], tuned: list[float]) -> tuple[float, float, float]:
    """The deviation is not divided by sqrt(n): the mean of many questions is more certain than one
    question."""
    apart = _apart(prompted, tuned)
    return _interval(fmean(apart), stdev(apart), 1)


def divided_by_n(prompted: list[float], tuned: list[float]) -> tuple[float, float, float]:
    """The squared distances are divided by n, which makes the interval a little too narrow. Divide
    by n - 1, since the mean comes from the same numbers."""
    apart = _apart(prompted, tuned)
    return _interval(fmean(apart), pstdev(apart), len(apart))


def the_other_way(prompted: list[float], tuned: list[float]) -> tuple[float, float, float]:
    """That is prompted - tuned. A gain of tuning should be positive."""
    apart = _apart(tuned, prompted)
    return _interval(fmean(apart), stdev(apart), len(apart))


def bits_as_bytes(frozen: int, trained: int, bits: int) -> float:
    """Bits are taken as bytes: divide them by 8."""
    return frozen * bits + trained * 16


def weights_alone(frozen: int, trained: int, bits: int) -> float:
    """A trained number needs 16 bytes, not 4: its gradient and two averages of the optimizer are
    as large as itself."""
    return frozen * bits / 8 + trained * 4


def all_trained(frozen: int, trained: int, bits: int) -> float:
    """Frozen numbers are counted with gradients and averages. They need only their own bits."""
    return (frozen + trained) * 16


def the_mean_decides(prompted: list[float], tuned: list[float], least: float) -> bool:
    """The mean alone decides, however uncertain. The whole interval must be above `least`, so
    look at its low end."""
    return fmean(_apart(prompted, tuned)) > least


def better_than_nothing(prompted: list[float], tuned: list[float], least: float) -> bool:
    """The low end is compared with 0. Compare it with `least`: a gain that is real may still be
    too small to pay for."""
    apart = _apart(prompted, tuned)
    return _interval(fmean(apart), stdev(apart), len(apart))[1] > 0


def high_end(prompted: list[float], tuned: list[float], least: float) -> bool:
    """The high end is compared, but almost anything *may* be better. Look at the low end."""
    apart = _apart(prompted, tuned)
    return _interval(fmean(apart), stdev(apart), len(apart))[2] > least


def mean_of_a_sure_gain(prompted: list[float], tuned: list[float], least: float) -> bool:
    """The low end is compared with 0, and the mean alone with `least`. Compare the low end with
    `least`."""
    apart = _apart(prompted, tuned)
    mean, low, _ = _interval(fmean(apart), stdev(apart), len(apart))
    return low > 0 and mean > least


def ninety_percent(prompted: list[float], tuned: list[float], least: float) -> bool:
    """The low end is taken with 1.645, that of a 90 % interval. The interval is the one that
    `difference` returns, with 1.96."""
    apart = _apart(prompted, tuned)
    mean, low, _ = _interval(fmean(apart), stdev(apart), len(apart))
    return mean - (mean - low) * 1.645 / 1.96 > least


def touching_is_above(prompted: list[float], tuned: list[float], least: float) -> bool:
    """An interval that begins at `least` is not above it: low > least, not low >= least."""
    apart = _apart(prompted, tuned)
    return _interval(fmean(apart), stdev(apart), len(apart))[1] >= least


def n_without_its_root(prompted: list[float], tuned: list[float]) -> tuple[float, float, float]:
    """The deviation is divided by n. The uncertainty of a mean falls only with sqrt(n)."""
    apart = _apart(prompted, tuned)
    return _interval(fmean(apart), stdev(apart), len(apart) ** 2)


def cut_off_at_one(prompted: list[float], tuned: list[float]) -> tuple[float, float, float]:
    """The ends were clipped to -1 and 1. Scores may have any size, such as grades from 0 to 10."""
    apart = _apart(prompted, tuned)
    mean, low, high = _interval(fmean(apart), stdev(apart), len(apart))
    return mean, max(-1.0, low), min(1.0, high)


def other_factor(prompted: list[float], tuned: list[float]) -> tuple[float, float, float]:
    """1.645 makes an interval of 90 %. For 95 % it is 1.96."""
    apart = _apart(prompted, tuned)
    mean, reach = fmean(apart), 1.645 * stdev(apart) / math.sqrt(len(apart))
    return mean, mean - reach, mean + reach


def high_before_low(prompted: list[float], tuned: list[float]) -> tuple[float, float, float]:
    """The ends are exchanged: (mean, low, high)."""
    apart = _apart(prompted, tuned)
    mean, low, high = _interval(fmean(apart), stdev(apart), len(apart))
    return mean, high, low
