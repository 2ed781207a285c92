"""How many threads a step of decoding is fastest with: all, or one alone.

Threads wait for each other five times in every layer. Where a neighbour has taken the core of one
of them, all wait for it, and a step takes up to a hundred times as long; then one thread alone is
far faster than two. So steps are timed, and now and then one is run the other way. What is computed
does not depend on it, for every number is one thread's.
"""

from __future__ import annotations

import statistics
import time
from collections import deque
from collections.abc import Callable

# Steps before the first trial. Where all is well a trial costs a little, so they become rarer; but
# not so rare that a machine which has become busy, or quiet, is not noticed within a few seconds.
_FIRST_WAIT = 4
_LONGEST_WAIT_SECONDS = 1.0
# Steps that say how long one takes at present.
_RECENT = 5
# How much less time the other way must take to be worth a change.
_WORTH = 0.8


class Threads:
    """Runs steps of like size with `most` threads or with one."""

    def __init__(self, most: int, clock: Callable[[], float] = time.perf_counter) -> None:
        self.most = self.now = most
        self._clock = clock
        self._wait = self._left = _FIRST_WAIT
        self._recent: deque[float] = deque(maxlen=_RECENT)

    def run(self, step: Callable[[int], None]) -> None:
        """Call `step` with the number of threads that it is to use."""
        if self.most == 1:
            step(1)
            return
        trying = self._left == 0
        other = 1 if self.now == self.most else self.most
        begun = self._clock()
        step(other if trying else self.now)
        took = self._clock() - begun
        if not trying:
            self._recent.append(took)
            self._left -= 1
            return
        usual = statistics.median(self._recent)
        if took < _WORTH * usual:
            self.now, self._wait = other, _FIRST_WAIT
            self._recent.clear()
        else:
            longest = max(_FIRST_WAIT, int(_LONGEST_WAIT_SECONDS / max(usual, 1e-6)))
            self._wait = min(2 * self._wait, longest)
        self._left = self._wait
