"""4.5 When not to fine-tune

The lesson: groundup learn 4.5        Check it: groundup learn check 4.5
"""

import math


def difference(prompted: list[float], tuned: list[float]) -> tuple[float, float, float]:
    """The mean of tuned - prompted, question by question, and the ends of its 95 % interval."""
    raise NotImplementedError


def training_bytes(frozen: int, trained: int, bits: int) -> float:
    """Memory for weights, gradients and optimizer; `bits` is the storage of a frozen number."""
    raise NotImplementedError


def worth_it(prompted: list[float], tuned: list[float], least: float) -> bool:
    """Whether the whole interval is above the least gain that is worth paying for."""
    raise NotImplementedError
