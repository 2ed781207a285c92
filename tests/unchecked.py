"""Run a test file as a program, in a Python where no types and shapes are checked.

The checks (see `typecheck.py`) make each call of a small function many times as slow and leave
cycles in memory. Tests of large graphs, many graphs and memory want the code as users have it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def run_unchecked(file: str, *arguments: str, timeout: float = 1200) -> None:
    """Run `python file arguments…`, which must succeed; the failure shows its output."""
    own = (str(Path(__file__).parent), os.environ.get("PYTHONPATH"))
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, own))}
    command = [sys.executable, file, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
