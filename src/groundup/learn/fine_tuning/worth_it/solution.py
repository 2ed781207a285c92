"""Whether fine-tuning is worth it."""

import math
from statistics import fmean, stdev


def difference(prompted: list[float], tuned: list[float]) -> tuple[float, float, float]:
    """The mean of tuned - prompted, question by question, and the ends of its 95 % interval."""
    # The difficulty of a question, which affects both, cancels.
    apart = [t - p for p, t in zip(prompted, tuned, strict=True)]
    mean, reach = fmean(apart), 1.96 * stdev(apart) / math.sqrt(len(apart))
    return mean, mean - reach, mean + reach


def training_bytes(frozen: int, trained: int, bits: int) -> float:
    """Memory for weights, gradients and optimizer; `bits` is the storage of a frozen number."""
    # Trained in 32 bits: the number, its gradient and AdamW's two averages.
    return frozen * bits / 8 + trained * 16


def worth_it(prompted: list[float], tuned: list[float], least: float) -> bool:
    """Whether the whole interval is above the least gain that is worth paying for."""
    _, low, _ = difference(prompted, tuned)
    return low > least
