"""Chooses the number of threads for decoding steps: all, or one alone.

Threads wait for each other five times per layer. If another process occupies the core of one
thread, all others wait for it, and a step takes up to a thousand times as long; one thread is then
far faster than two. Steps are therefore timed, and from time to time one runs the other way.
"""

from __future__ import annotations

import statistics
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

# The share of time to spend on trials. While nothing changes, trials become rarer, but a change in
# the machine's load must still be noticed within a few seconds. Long trials cost at most a sixth of
# the time.
_TRIAL_SHARE = 0.1
_LONGEST_WAIT_SECONDS, _LONGEST_WAIT_TRIALS = 1.5, 5
# Number of latest steps whose median is the current duration.
_RECENT = 5
# A trial must take less than this share of the current duration to cause a switch.
_SWITCH_BELOW = 0.8


@dataclass
class Trials:
    """Results of the trials: whether one thread is best, the seconds of steps between two trials,
    and those left until the next."""

    one_is_best: bool = False
    wait: float = 0.0
    left: float = 0.0


# All decoding in a process competes with the same load. The best choice for products of many rows
# may differ from that for few.
OF_FEW_ROWS, OF_PRODUCTS = Trials(), Trials()


class Threads:
    """Runs steps of similar size with `most` threads or one, starting with the last best choice."""

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
        """The number of threads of the next regular step."""
        return 1 if self._trials.one_is_best else self.most

    def run(self, step: Callable[[int], None]) -> None:
        """Call `step` with the number of threads to use."""
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
        if took < _SWITCH_BELOW * statistics.median(self._recent):
            found.one_is_best, found.wait = other == 1, 0.0
            self._recent.clear()
        longest = max(_LONGEST_WAIT_SECONDS, _LONGEST_WAIT_TRIALS * took)
        found.wait = min(max(2 * found.wait, took / _TRIAL_SHARE), longest)
        found.left = found.wait


@contextmanager
def using(threads: int) -> Iterator[None]:
    """A context in which PyTorch and the kernels compute with this number of threads.

    A Python thread that first uses PyTorch inside the context keeps that number.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
