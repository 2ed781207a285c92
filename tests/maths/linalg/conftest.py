"""A failed `assert` in matrices.py shows its numbers, like one in a test."""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite("matrices")
