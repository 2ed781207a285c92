"""Each test draws the same numbers from its module's generator, in any order of tests."""

from __future__ import annotations

import numpy as np
import pytest


@pytest.fixture(autouse=True)
def own_numbers(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if hasattr(request.module, "RNG"):
        monkeypatch.setattr(request.module, "RNG", np.random.default_rng(0))
