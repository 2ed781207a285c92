"""Real packs of questions, which take seconds to read, are read once by each process."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import pytest

from groundup.data.packs.rows import Rejected
from groundup.evals import core_sets


@pytest.fixture(scope="session", autouse=True)
def core_sets_are_read_once() -> Iterator[None]:
    read = core_sets._read
    once = functools.cache(lambda name: read(name, Rejected()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(core_sets, "_read", lambda name, rejected: once(name))
        yield
