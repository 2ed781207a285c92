"""The streams of a real process: full, closed, or with a reader that leaves."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

COMMANDS = ["--help", "data show world -n 1"]


def shell(words: str, streams: str) -> subprocess.CompletedProcess[str]:
    command = f'"{sys.executable}" -m groundup {words} {streams}'
    return subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=240)


@pytest.mark.parametrize("words", COMMANDS)
@pytest.mark.parametrize(
    ("streams", "code"),
    [
        (">/dev/full", 2),
        (">/dev/full 2>/dev/full", 2),
        ("2>/dev/full", 0),
        (">&-", 0),
        ("2>&-", 0),
        ("<&- >/dev/null", 0),
        ("| true; exit ${PIPESTATUS[0]}", 141),
    ],
)
def test_no_stream_ends_in_a_traceback(words: str, streams: str, code: int) -> None:
    done = shell(words, streams)
    assert "Traceback" not in done.stderr and "Exception" not in done.stderr
    assert done.returncode == code, done.stderr
    assert done.stderr.count("\n") == (streams == ">/dev/full")


@pytest.mark.parametrize("value", ["0", "-1", "1", "x", "", "9" * 12])
def test_absurd_terminals(value: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "groundup", "data", "list"],
        capture_output=True,
        text=True,
        timeout=240,
        env=os.environ | {"COLUMNS": value, "LINES": value},
    )
    assert done.returncode == 0 and done.stderr == "" and done.stdout


@pytest.mark.parametrize("words", ["--version", "sft nowhere --data nothing", ""])
def test_a_program_that_runs_the_command_keeps_its_process(words: str, tmp_path: Path) -> None:
    """As a notebook does with %run."""
    code = f"""if True:
        import runpy, signal, sys
        print("begun", flush=True)
        before = sys.stdout, signal.getsignal(signal.SIGINT)
        sys.argv[1:] = {words.split()}
        try:
            runpy.run_module("groundup", run_name="__main__")
        except SystemExit as left:
            print("left with", left.code)
        assert before == (sys.stdout, signal.getsignal(signal.SIGINT))
    """
    host = tmp_path / "host.py"
    host.write_text(code)
    environment = {
        name: os.environ[name] for name in ("PATH", "HOME", "PYTHONPATH") if name in os.environ
    }
    done = subprocess.run(
        [sys.executable, str(host)], capture_output=True, text=True, timeout=240, env=environment
    )
    said = done.stdout.split("\n")
    assert done.returncode == 0, done.stderr
    assert said[0] == "begun" and said.count("begun") == 1
    assert f"left with {2 if 'sft' in words else 0}" in said
