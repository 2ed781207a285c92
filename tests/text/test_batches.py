"""Random windows of a stream of tokens."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from groundup import get_batch
from groundup.errors import UserError


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.int64])
def test_inputs_are_windows_and_targets_are_shifted_by_one(dtype: type) -> None:
    stream = np.arange(1000, dtype=dtype)
    inputs, targets = get_batch(stream, 32, 17, "cpu")
    assert inputs.shape == targets.shape == (32, 17)
    assert inputs.dtype == targets.dtype == torch.int64
    assert torch.equal(targets, inputs + 1)
    assert torch.equal(inputs - inputs[:, :1], torch.arange(17).expand(32, 17))


def test_every_position_is_equally_likely_and_the_last_token_is_only_a_target() -> None:
    stream, draws = np.arange(100), 20_000
    inputs, targets = get_batch(stream, draws, 7, generator=np.random.default_rng(0))
    starts = Counter(inputs[:, 0].tolist())
    assert set(starts) == set(range(93)) and int(targets.max()) == 99
    expected = draws / 93
    assert all(abs(count - expected) < 6 * expected**0.5 for count in starts.values())


def test_a_generator_makes_it_reproducible() -> None:
    stream = np.arange(10_000)
    one, other = (get_batch(stream, 8, 4, generator=np.random.default_rng(7)) for _ in range(2))
    assert torch.equal(one[0], other[0])
    assert not torch.equal(get_batch(stream, 8, 4)[0], get_batch(stream, 8, 4)[0])


@pytest.mark.usefixtures("unchecked_types")
def test_any_stream_and_seed_type_is_accepted() -> None:
    wanted = get_batch(np.arange(50), 8, 4, generator=np.random.default_rng(7))[0]
    for stream in (list(range(50)), torch.arange(50), np.arange(50, dtype=np.uint16)):
        assert torch.equal(get_batch(stream, 8, 4, generator=7)[0], wanted)
    for wrong in (np.arange(50.0), np.zeros((50, 2), int), "text"):
        with pytest.raises(UserError, match="give token ids, a one-dimensional array"):
            get_batch(wrong, 8, 4)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="is neither a NumPy generator nor a seed"):
        get_batch(np.arange(50), 8, 4, generator=torch.Generator())  # type: ignore[arg-type]


def test_writing_to_targets_does_not_change_inputs() -> None:
    inputs, targets = get_batch(np.arange(100), 2, 5)
    before = inputs.clone()
    targets.view(-1).fill_(-100)
    assert torch.equal(inputs, before) and inputs.is_contiguous()


def test_a_memory_mapped_file_is_not_copied(tmp_path: Path) -> None:
    np.save(tmp_path / "tokens.npy", np.arange(500, dtype=np.uint16))
    stream = np.load(tmp_path / "tokens.npy", mmap_mode="r")
    inputs, targets = get_batch(stream, 4, 499)
    assert inputs.tolist() == [list(range(499))] * 4 and targets[0, -1] == 499


@pytest.mark.parametrize(
    ("tokens", "rows", "context", "why"),
    [(10, 1, 10, "hold no window"), (0, 1, 1, "hold no window"), (10, 0, 3, "batch_size=0"),
     (10, 2, 0, "context_length=0")],
)  # fmt: skip
def test_rejects_streams_without_a_window(tokens: int, rows: int, context: int, why: str) -> None:
    with pytest.raises(UserError, match=why):
        get_batch(np.arange(tokens), rows, context)


def test_an_unavailable_device_is_rejected() -> None:
    with pytest.raises((RuntimeError, AssertionError)):
        get_batch(np.arange(10), 1, 3, "cuda:99")
