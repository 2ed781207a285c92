"""The contents of the tasks' batches, token by token."""

from __future__ import annotations

import numpy as np
import torch

from groundup.experiments.transformers.tasks import (
    TEST_SEED,
    Copying,
    Recall,
    Repetition,
    TaskStream,
)


def test_each_queried_key_has_its_latest_value() -> None:
    task = Recall(vocab_size=32, pairs=(2, 8))
    batch = task.batch(np.random.default_rng(0), 20, 8)
    assert batch.input_ids.shape == (20, 24)
    for ids, targets, weights in zip(
        batch.input_ids.tolist(), batch.targets.tolist(), batch.weights.tolist(), strict=True
    ):
        told = dict(zip(ids[:16:2], ids[1:16:2], strict=True))
        assert len(told) == 8 and max(told) < 16 <= min(told.values())
        assert sorted(told) == sorted(ids[16:])
        assert [told[key] for key in ids[16:]] == targets[16:]
        assert weights == [0.0] * 16 + [1.0] * 8


def test_a_step_of_recall_has_one_number_of_pairs_and_as_many_tokens() -> None:
    stream = TaskStream(Recall(vocab_size=64, pairs=(1, 4, 16)), 8, seed=0)
    model = torch.nn.Identity()
    shapes = {tuple(stream.at(step, model)[0].input_ids.shape) for step in range(20)}
    assert shapes == {(128, 3), (32, 12), (8, 48)}


def test_strings_are_repeated_and_ended() -> None:
    task = Copying(letters=9, shortest=1, longest=7, context=40)
    batch = task(np.random.default_rng(0), 20)
    lengths = set()
    for segment in range(int(batch.segment_ids.max()) + 1):
        here = batch.segment_ids == segment
        ids, targets = batch.input_ids[here].tolist(), batch.targets[here].tolist()
        length = ids.index(0)
        lengths.add(length)
        string = ids[:length]
        assert min(string) >= 2 and max(string) <= 10
        assert targets[length:] == [*string, 1]
        assert targets[:-1] == ids[1:]
        assert batch.position_ids[here].tolist() == list(range(2 * length + 1))
        assert batch.weights[here].tolist() == [0.0] * length + [1.0] * (length + 1)
    assert lengths == set(range(1, 8))
    beyond = batch.segment_ids < 0
    assert beyond.any() and not batch.weights[beyond].any()


def test_all_lengths_of_strings_are_equally_frequent() -> None:
    """Including long strings, of which fewer fit into the end of a row."""
    task = Copying(letters=9, shortest=1, longest=16, context=128)
    batch = task(np.random.default_rng(0), 2_000)
    # Weighted are the letters and the end of each.
    lengths = torch.bincount(batch.segment_ids[batch.weights > 0]) - 1
    counts = torch.bincount(lengths).numpy()
    assert len(counts) == 17 and counts[0] == 0 and counts.sum() > 10_000
    even = counts.sum() / 16
    # Pearson's statistic, which of 15 degrees of freedom is above 38 once in a thousand.
    assert ((counts[1:] - even) ** 2 / even).sum() < 38


def test_a_block_is_predictable_after_a_repeated_token() -> None:
    task = Repetition(vocab_size=50, shortest=3, longest=6, context=40)
    batch, lengths = task.parts(np.random.default_rng(0), 8)
    for row, length in enumerate(lengths.tolist()):
        ids, targets = batch.input_ids[row].tolist(), batch.targets[row].tolist()
        assert targets[:-1] == ids[1:]
        for place, weight in enumerate(batch.weights[row].tolist()):
            within = (place + 1) % (2 * length)
            assert weight == float(within > length)
            if weight:
                assert ids[place - length] == ids[place]
                assert ids[place - length + 1] == targets[place]
    assert len(set(lengths.tolist())) > 1


def test_streams_are_functions_of_seed_and_step() -> None:
    task = Repetition(vocab_size=50, shortest=3, longest=6, context=20)
    model = torch.nn.Identity()
    one, other = (TaskStream(task, 4, seed=3) for _ in range(2))
    one.at(0, model)
    assert torch.equal(one.at(5, model)[0].input_ids, other.at(5, model)[0].input_ids)
    assert not torch.equal(one.at(5, model)[0].input_ids, one.at(6, model)[0].input_ids)


def test_the_test_is_not_in_training() -> None:
    """NumPy reads a seed as 32-bit words and pads to four of them with zeros."""

    def drawn(seed: object) -> int:
        return int(np.random.default_rng(seed).integers(2**62))  # type: ignore[arg-type]

    assert drawn(2**40) == drawn((0, 256)) and drawn(0) == drawn((0, 0)), "as it must not be"
    # Each word that could tell the test's seed apart, and every pair of small seeds and steps.
    words = sorted({0, 1, 2**32 - 1, *(word for word in TEST_SEED)})
    seeds = [*range(20), *words, *(low + 2**32 * high for low in words for high in words)]
    steps = [*range(2_000), *words]
    trained = {
        drawn((seed, step)) for seed in set(seeds) for step in (steps if seed < 20 else words)
    }
    assert drawn(TEST_SEED) not in trained
