"""The process for untrusted code, on systems with different limits."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from groundup.errors import UserError
from groundup.runs.sandbox import Limits, Sandbox

ANSWERS = "def answer(question):\n    return {'twice': 2 * question['number']}\n"
LIMITS = Limits(wall_seconds=120, cpu_seconds=60, memory_bytes=2**31, no_effects=True)
# As on macOS: the limit exists, but setting it raises.
REFUSES = """
import resource
allowed = resource.setrlimit
def setrlimit(which, limits):
    if which == resource.RLIMIT_AS:
        raise {error}("current limit exceeds maximum limit")
    allowed(which, limits)
resource.setrlimit = setrlimit
"""


@pytest.mark.parametrize("error", ["ValueError", "OSError"])
def test_a_system_without_memory_limits_still_runs_code(
    error: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text(REFUSES.format(error=error))
    (tmp_path / "script.py").write_text(
        "import resource\n"
        "def answer(question):\n"
        "    return {'core': resource.getrlimit(resource.RLIMIT_CORE)}\n"
    )
    others = os.environ.get("PYTHONPATH", "")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((str(tmp_path), others)))
    sandbox = Sandbox(tmp_path / "script.py", LIMITS)
    assert sandbox.ask({}) == {"core": [0, 0]}  # the other limits hold
    sandbox.close()


@pytest.mark.parametrize(
    ("script", "told"),
    [
        ("import no_such_modulé\n" + ANSWERS, r"ModuleNotFoundError: .*no_such_modul"),
        ("import os\nos._exit(3)\n", "exit status 3"),
    ],
)
def test_a_process_that_does_not_start_is_distinguished_from_failing_code(
    script: str, told: str, tmp_path: Path
) -> None:
    page = tmp_path / "script.py"
    page.write_text(script)
    sandbox = Sandbox(page, LIMITS)
    with pytest.raises(UserError, match=rf"cannot start on this machine \({told}.*\); check"):
        sandbox.ask({"number": 1})
    page.write_text(ANSWERS)
    assert sandbox.ask({"number": 21}) == {"twice": 42}
    page.write_text("def answer(question):\n    raise SystemExit(4)\n")
    sandbox.close()
    assert sandbox.ask({}) is None
    sandbox.close()
