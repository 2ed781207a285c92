"""The number of threads follows what the machine is like."""

from __future__ import annotations

from collections import Counter

from groundup.generation.threads import Threads, Trials


class Machine:
    """Steps that take so many seconds with so many threads, by a clock of their own."""

    def __init__(self, most: int, trials: Trials | None = None) -> None:
        self.now, self.seconds = 0.0, dict[int, float]()
        self.trials = trials or Trials()
        self.threads = Threads(most, lambda: self.now, self.trials)

    def run(self, steps: int, seconds: dict[int, float]) -> Counter[int]:
        self.seconds, used = seconds, Counter[int]()

        def step(count: int) -> None:
            used[count] += 1
            self.now += self.seconds[count]

        for _ in range(steps):
            self.threads.run(step)
        return used


def test_threads_follow_a_machine_that_becomes_busy_and_quiet_again() -> None:
    machine = Machine(2)
    quiet, busy = {1: 0.018, 2: 0.01}, {1: 0.02, 2: 0.2}
    assert machine.run(1000, quiet)[2] > 980
    begun = machine.now
    while machine.threads.now == 2:
        machine.run(1, busy)
    assert machine.now - begun < 3
    assert machine.run(1000, busy)[1] > 960
    begun = machine.now
    while machine.threads.now == 1:
        machine.run(1, quiet)
    assert machine.now - begun < 2


def test_a_busy_machine_costs_little_from_the_first_step_on() -> None:
    """A step of two threads may take a thousand times as long as one of one."""
    busy = {1: 0.0001, 2: 0.1}
    first = Machine(2)
    assert first.run(1000, busy)[2] <= 2
    # Whoever begins later begins as it was best before, and finds out what has changed since.
    later = Machine(2, first.trials)
    assert later.run(1000, busy)[2] == 0
    assert later.run(1000, {1: 0.018, 2: 0.01})[2] > 900


def test_a_single_thread_is_never_another_number() -> None:
    assert Machine(1).run(20, {1: 0.0}) == {1: 20}
