"""Work on all cores gives the same results as in one process, and survives failures."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import loky
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundup.errors import UserError
from groundup.runs.parallel import on_all_cores, split_range


def squares(numbers: range) -> tuple[int, list[int]]:
    return os.getpid(), [number**2 for number in numbers]


def reciprocal(number: int) -> float:
    if number == 0:
        raise UserError("0 has no reciprocal")
    return 1 / number


def killed(number: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.fixture
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loky, "cpu_count", lambda: 2)


@given(st.integers(0, 10_000), st.integers(1, 3_000))
def test_parts_contain_every_number_once(count: int, least: int) -> None:
    parts = split_range(count, least)
    assert [number for part in parts for number in part] == list(range(count))
    assert len(parts) == 1 or min(map(len, parts)) >= least


@pytest.mark.usefixtures("two_cores")
def test_tasks_run_in_other_processes_and_return_in_order() -> None:
    done = on_all_cores(squares, split_range(100, 5))
    assert [square for _, some in done for square in some] == [n**2 for n in range(100)]
    assert os.getpid() not in {process for process, _ in done}
    with pytest.raises(UserError, match="0 has no reciprocal"):
        on_all_cores(reciprocal, [2, 1, 0])


@pytest.mark.usefixtures("two_cores")
def test_a_killed_process_ends_with_one_sentence() -> None:
    with pytest.raises(UserError, match="was killed, most likely"):
        on_all_cores(killed, [1, 2, 3])
    assert on_all_cores(reciprocal, [1, 2]) == [1, 0.5]


def wait(folder: Path) -> None:
    (folder / str(os.getpid())).touch()
    time.sleep(600)


def test_other_processes_end_with_a_killed_one(tmp_path: Path) -> None:
    program = (
        "from pathlib import Path\nimport loky\nfrom test_parallel import on_all_cores, wait\n"
        f"loky.cpu_count = lambda: 2\non_all_cores(wait, [Path({str(tmp_path)!r})] * 2)"
    )
    process = subprocess.Popen([sys.executable, "-c", program], cwd=Path(__file__).parent)
    try:
        _until(lambda: len(list(tmp_path.iterdir())) == 2)
    finally:
        process.kill()
        process.wait()
    _until(lambda: not any(_lives(int(one.name)) for one in tmp_path.iterdir()))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopping_waits_for_no_task_and_a_new_start_works(tmp_path: Path, number: int) -> None:
    program = (
        "from pathlib import Path\nimport loky\n"
        "from groundup.runs.parallel import on_all_cores, terminable\n"
        "from test_parallel import reciprocal, wait\n"
        "loky.cpu_count = lambda: 2\n"
        "try:\n"
        "    with terminable():\n"
        f"        on_all_cores(wait, [Path({str(tmp_path)!r})] * 40)\n"
        "except KeyboardInterrupt:\n"
        "    print(on_all_cores(reciprocal, [1, 2, 4]))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=Path(__file__).parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        _until(lambda: len(list(tmp_path.iterdir())) == 2)
        process.send_signal(number)
        # The tasks take ten minutes.
        said, told = process.communicate(timeout=240)
    finally:
        process.kill()
        process.wait()
    assert (process.returncode, said, told) == (0, "[1.0, 0.5, 0.25]\n", "")
    _until(lambda: not any(_lives(int(one.name)) for one in tmp_path.iterdir()))


def _lives(process: int) -> bool:
    try:
        return psutil.Process(process).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _until(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 240
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.usefixtures("two_cores")
def test_small_work_stays_in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    assert on_all_cores(squares, [range(3)]) == [(os.getpid(), [0, 1, 4])]

    def refuse(workers: int, **options: Any) -> Any:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(loky, "get_reusable_executor", refuse)
    assert on_all_cores(squares, [range(3), range(2)])[1] == (os.getpid(), [0, 1])
    monkeypatch.setattr(loky, "cpu_count", lambda: 1)
    assert len(split_range(100, 5)) == 3
    assert on_all_cores(reciprocal, [1, 2]) == [1, 0.5]
