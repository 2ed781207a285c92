"""How many threads a step of decoding is fastest with: all, or one alone.

Threads wait for each other five times in every layer. Where a neighbor has taken the core of one
of them, all wait for it, and a step takes up to a thousand times as long; then one thread alone is
far faster than two. So steps are timed, and now and then one is run the other way.
"""

from __future__ import annotations

import statistics
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

# Of the time that steps take, how much is to go into trying the other way. Where all is well trials
# become rarer; but not so rare that a machine which has become busy, or quiet, is not noticed
# within a few seconds. Where a trial takes long, a sixth of the time is the most that it may cost.
_TRYING = 0.1
_LONGEST_WAIT_SECONDS, _LONGEST_WAIT_TRIALS = 1.5, 5
# Steps that say how long one takes at present.
_RECENT = 5
# How much less time the other way must take to be worth a change.
_WORTH = 0.8


@dataclass
class Trials:
    """What trials found of the machine: whether one thread alone is best, the seconds of steps
    between two trials, and those until the next."""

    one_is_best: bool = False
    wait: float = 0.0
    left: float = 0.0


# All that decodes in a process is beside the same neighbors. What is best for products of many rows
# need not be so for a few.
OF_FEW_ROWS, OF_PRODUCTS = Trials(), Trials()


class Threads:
    """Runs steps of like size with `most` threads or with one; at first as it was best before."""

    def __init__(
        self,
        most: int,
        clock: Callable[[], float] = time.perf_counter,
        trials: Trials = OF_FEW_ROWS,
    ) -> None:
        self.most = most
        self._clock, self._trials = clock, trials
        self._recent: deque[float] = deque(maxlen=_RECENT)

    @property
    def now(self) -> int:
        """The threads of the next step that is no trial."""
        return 1 if self._trials.one_is_best else self.most

    def run(self, step: Callable[[int], None]) -> None:
        """Call `step` with the number of threads that it is to use."""
        if self.most == 1:
            step(1)
            return
        found = self._trials
        trying = found.left <= 0 and bool(self._recent)
        other = 1 if self.now == self.most else self.most
        begun = self._clock()
        step(other if trying else self.now)
        took = self._clock() - begun
        if not trying:
            self._recent.append(took)
            found.left -= took
            return
        if took < _WORTH * statistics.median(self._recent):
            found.one_is_best, found.wait = other == 1, 0.0
            self._recent.clear()
        longest = max(_LONGEST_WAIT_SECONDS, _LONGEST_WAIT_TRIALS * took)
        found.wait = min(max(2 * found.wait, took / _TRYING), longest)
        found.left = found.wait


@contextmanager
def using(threads: int) -> Iterator[None]:
    """A context in which PyTorch, and kernels with it, compute with so many threads.

    A Python thread that uses PyTorch for the first time meanwhile keeps that number.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
