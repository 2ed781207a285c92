"""Logs that are read while they are written."""

from __future__ import annotations

import json
from pathlib import Path

from groundup.runs.files import read_lines, write_lines
from groundup.runs.growing import GrowingLog, last_lines


def add(path: Path, text: str) -> None:
    with open(path, "a") as file:
        file.write(text)


def line(step: int) -> str:
    return json.dumps({"step": step}) + "\n"


def test_each_line_is_read_once_and_a_torn_one_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    add(path, line(1) + line(2)[:5])
    log = GrowingLog(path)
    first = log.lines()
    assert first == [{"step": 1}]
    kept = first[0]
    add(path, line(2)[5:] + "damaged\n" + line(3))
    assert log.lines() == [{"step": 1}, {"step": 2}, {"step": 3}] == read_lines(path)
    assert log.lines()[0] is kept, "what was read is not read again"


def test_a_rewritten_log_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    add(path, "".join(map(line, range(1, 9))))
    log = GrowingLog(path)
    assert len(log.lines()) == 8
    # A run that was resumed forgets steps, and may have grown beyond them before one looks again.
    write_lines(path, [{"step": 1}])
    add(path, "".join(map(line, range(20, 40))))
    assert [one["step"] for one in log.lines()] == [1, *range(20, 40)]
    path.write_text(line(7))
    assert log.lines() == [{"step": 7}]


def test_the_end_of_a_log_has_complete_lines_only(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    add(path, "".join(map(line, range(10, 30))) + line(30)[:4])
    assert [one["step"] for one in last_lines(path, 10**6)] == list(range(10, 30))
    # Three lines and a part of one before and behind.
    size = 3 * len(line(10)) + 4 + 5
    assert [one["step"] for one in last_lines(path, size)] == [27, 28, 29]
