"""Existing lines are continued once, and only those that belong to the run."""

from __future__ import annotations

from pathlib import Path

import pytest

from groundup.errors import UserError
from groundup.runs.resumable_jsonl import resumable_lines


def test_a_duplicate_line_is_rejected(tmp_path: Path) -> None:
    out, begun_with = tmp_path / "out.jsonl", {"schema": 1, "model": "m", "prompts": "p"}
    with resumable_lines(out, begun_with) as (write_line, finished):
        assert not finished
        for index in (1, 0):
            write_line(f'{{"index": {index}}}\n')
    with resumable_lines(out, begun_with) as (write_line, finished):
        assert finished == {0, 1}
        write_line('{"index": 1}\n')
    with (
        pytest.raises(UserError, match="line 3 was not written by this command"),
        resumable_lines(out, begun_with),
    ):
        pass
