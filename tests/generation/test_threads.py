"""The number of threads adapts to the machine's load."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import pytest
import torch
from tests.conftest import TinyModel

from groundup.generation.engine import Engine
from groundup.generation.prefill import Prefill
from groundup.generation.request import Request
from groundup.generation.sampling import Sampling, filtered
from groundup.generation.threads import Threads, Trials, using


class Machine:
    """Steps that take given times with given numbers of threads, by a simulated clock."""

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


def test_threads_adapt_when_a_machine_becomes_busy_and_quiet_again() -> None:
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
    """A step with two threads may take a thousand times as long as with one."""
    busy = {1: 0.0001, 2: 0.1}
    first = Machine(2)
    assert first.run(1000, busy)[2] <= 2
    # A later run starts with the setting that was best before, and detects changes.
    later = Machine(2, first.trials)
    assert later.run(1000, busy)[2] == 0
    assert later.run(1000, {1: 0.018, 2: 0.01})[2] > 900


def test_a_single_thread_stays_a_single_thread() -> None:
    assert Machine(1).run(20, {1: 0.0}) == {1: 20}


@pytest.fixture
def two_threads() -> Iterator[None]:
    with using(2):
        yield


def threads_of(engine: Engine, rows: int) -> set[int]:
    """The number of threads with which tokens are generated for a number of rows."""
    seen = set[int]()

    def mask(ids: Sequence[int]) -> None:
        seen.add(torch.get_num_threads())

    for row in range(rows):
        sampling = Sampling(temperature=0, max_new_tokens=3)
        engine.submit(Request(prompt_ids=[5 + row, 6, 7], sampling=sampling, mask=mask))
    while engine.unfinished:
        engine.step()
    assert torch.get_num_threads() == 2
    return seen


def test_a_step_uses_one_thread_on_a_shared_machine(
    tiny_model: TinyModel, two_threads: None
) -> None:
    """Sampling with two threads after a computation with one would wait for the second."""

    def engine(reproducible: bool) -> Engine:
        made = Engine(tiny_model(), prompt_tokens=None, reproducible=reproducible)
        # The next trial is far away.
        made._few = made._many = Threads(2, lambda: 0.0, Trials(True, wait=1e9, left=1e9))
        return made

    strict, free = engine(reproducible=True), engine(reproducible=False)
    assert threads_of(free, 4) == threads_of(free, 20) == {1}
    # Products of many rows may round differently with other thread counts, and runs resume with
    # theirs.
    assert 2 in threads_of(strict, 20)
    assert threads_of(strict, 4) == ({1} if strict._decode.is_one_call(4) else {2})


def test_a_short_prompt_is_read_by_one_thread(
    tiny_model: TinyModel, monkeypatch: pytest.MonkeyPatch, two_threads: None
) -> None:
    seen, advance = list[int](), Prefill.advance

    def advance_and_tell(self: Prefill, tokens: int) -> int:
        seen.append(torch.get_num_threads())
        return advance(self, tokens)

    monkeypatch.setattr(Prefill, "advance", advance_and_tell)
    model = tiny_model(max_position_embeddings=8192, intermediate_size=512)
    engine = Engine(model, prompt_tokens=None)
    sampling = Sampling(temperature=0, max_new_tokens=1)
    for length in (20, 4000):
        engine.submit(Request(prompt_ids=[5] * length, sampling=sampling))
        while engine.unfinished:
            engine.step()
    # A pass reads 2,048 tokens at most.
    assert seen == [1, 2, 2]
    assert 1952 * model.config.active_parameters > 3e8


def test_trials_take_at_most_a_sixth_of_the_time() -> None:
    """With steps that take ten times as long with one thread, like large products on many cores."""
    for quick in (0.05, 0.5):
        machine = Machine(16)
        machine.run(3000, {1: 10 * quick, 16: quick})
        assert 3000 * quick / machine.now > 0.8


@pytest.mark.parametrize("top_k", [0, pytest.param(40_000, marks=pytest.mark.long)])
def test_samples_do_not_depend_on_threads(top_k: int) -> None:
    """For one long row, whose sum would be computed in parts."""
    generator = torch.Generator().manual_seed(0)
    for seed in range(60):
        logits = torch.randn(1, 49_152, generator=generator) * 4
        sampling = Sampling(temperature=0.9, top_p=0.95, top_k=top_k, seed=seed)
        found = []
        for count in (1, 2, 3):
            with using(count):
                found.append(filtered(logits, sampling))
        assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])
