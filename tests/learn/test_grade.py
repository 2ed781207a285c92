"""Any learner's file gets a verdict: in a separate, limited process, in sentences."""

from __future__ import annotations

from pathlib import Path

import pytest

from groundup.errors import UserError
from groundup.learn.grade import grade
from groundup.learn.judge import Verdict
from groundup.learn.road import find

HEAD = """import numpy as np


def best_rate(curvatures):
    return 2 / (curvatures.min() + curvatures.max())


"""
EXERCISE = find("gradient_descent")


def graded(folder: Path, body: str, **limits: float) -> Verdict:
    """The verdict on a file whose `descend` has this body."""
    path = folder / "gradient_descent.py"
    lines = "".join(f"    {line}\n" for line in body.splitlines())
    path.write_text(f"{HEAD}def descend(gradient, x, rate, steps):\n{lines}", encoding="utf-8")
    return grade(EXERCISE, path, **limits)  # type: ignore[arg-type]


def said(verdict: Verdict) -> str:
    assert not verdict.passed
    return "\n".join(verdict.lines)


RIGHT = """points = [x]
for _ in range(steps):
    points.append(points[-1] - rate * gradient(points[-1]))
return np.stack(points)"""


def test_a_right_part_passes_and_its_output_is_kept(tmp_path: Path) -> None:
    verdict = graded(tmp_path, f"print('here', steps)\n{RIGHT}")
    assert verdict.passed and verdict.right == verdict.trials
    assert verdict.printed.startswith("here 2\n")


def test_a_part_may_have_dataclasses_with_future_annotations(tmp_path: Path) -> None:
    head = "from __future__ import annotations\n\nfrom dataclasses import dataclass\n"
    own = "@dataclass\nclass Point:\n    x: float\n\n\n"
    path = tmp_path / "gradient_descent.py"
    code = (EXERCISE.folder / "solution.py").read_text(encoding="utf-8")
    path.write_text(f"{head}{own}{code}", encoding="utf-8")
    verdict = grade(EXERCISE, path)
    assert verdict.passed, verdict.lines


def test_an_endless_loop_is_stopped_and_its_line_named(tmp_path: Path) -> None:
    text = said(graded(tmp_path, "while True:\n    x = x + 0", seconds=0.3))
    assert "did not end in time" in text and "gradient_descent.py" in text
    assert "loop that does not end" in text


def test_a_file_that_never_ends_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "gradient_descent.py"
    path.write_text(f"{HEAD}while True:\n    pass\n", encoding="utf-8")
    text = said(grade(EXERCISE, path, seconds=0.3))
    assert "cannot be imported: it does not end" in text and "while True" in text


def test_a_part_waiting_for_the_cpu_is_not_stopped(tmp_path: Path) -> None:
    waits = "import time\nif not hasattr(descend, 'waited'): time.sleep(0.9)\ndescend.waited = True"
    verdict = graded(tmp_path, f"{waits}\n{RIGHT}", seconds=0.6)
    assert verdict.passed, verdict.lines


def test_a_part_that_waits_forever_is_stopped(tmp_path: Path) -> None:
    text = said(graded(tmp_path, "import time\ntime.sleep(60)", seconds=0.1))
    assert "did not end in time" in text


def test_a_loop_that_catches_everything_is_stopped(tmp_path: Path) -> None:
    lines = ["while True:", " try:", "  while True:", "   x = x + 0", " except BaseException: pass"]
    text = said(graded(tmp_path, "\n".join(lines), seconds=0.2, wall_seconds=5.0))
    assert "was ended" in text


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("import os\nos._exit(3)", "exit status 3: "),
        ("import os\nos._exit(0)", "exit status 0: "),
        ("import ctypes\nctypes.string_at(0)", "signal 11, a crash: "),
        ("import os\nos.kill(os.getpid(), 9)", "gave no answer: "),
        ("raise KeyboardInterrupt", "The part ends the program"),
        (
            "class Unspeakable(Exception):\n def __str__(self): raise ValueError\n"
            "raise Unspeakable",
            "Unspeakable: its message cannot be read",
        ),
    ],
)
def test_a_part_that_ends_its_process_is_reported(tmp_path: Path, body: str, told: str) -> None:
    text = said(graded(tmp_path, body))
    assert told in text and "180 s" not in text


def test_an_operation_missing_in_torch_is_not_an_unwritten_part(tmp_path: Path) -> None:
    exercise = find("nf4")
    path = tmp_path / "nf4.py"
    code = (exercise.folder / "solution.py").read_text(encoding="utf-8")
    path.write_text(code.replace("(packed >> 4, packed & 15)", "(packed / 16 & 15, packed & 15)"))
    verdict = grade(exercise, path)
    assert verdict.state == "differs"
    assert "NotImplementedError" in said(verdict) and "packed / 16 & 15" in said(verdict)


def test_too_much_memory_is_a_sentence(tmp_path: Path) -> None:
    body = "return np.ones((10**9, 40))"
    text = said(graded(tmp_path, body, memory_bytes=1 << 28))
    assert "more memory than it may have" in text


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("return undefined", "NameError"),
        ("return descend(gradient, x, rate, steps)", "calls itself without end"),
        ("raise NotImplementedError", "Not written yet: descend"),
        ("pass", "returns nothing"),
        ("return 'points'", "of type str"),
        ("exit()", "ends the program"),
        ("x = input()", "nobody at the keyboard"),
        ("breakpoint()", "nobody at the keyboard"),
        ("yield x", "returns a generator"),
        ("return (", "not valid Python"),
        (RIGHT.replace("np.stack(points)", "np.stack(points).T"), "transpose"),
        (RIGHT.replace("np.stack(points)", "np.stack(points) * 3"), "3 times"),
        (RIGHT.replace("np.stack(points)", "np.stack(points) / 0 * 0"), "NaN"),
        (RIGHT.replace("np.stack(points)", "np.stack(points)[::-1]"), "reverse"),
        (f"x[...] = x + 0\nx *= 1.5\nx /= 1.5\nx += 1\n{RIGHT}", "changes its input x"),
    ],
)
def test_every_error_is_reported_in_words(tmp_path: Path, body: str, told: str) -> None:
    assert told in said(graded(tmp_path, body))


def test_a_missing_function_is_reported_with_its_signature(tmp_path: Path) -> None:
    path = tmp_path / "gradient_descent.py"
    path.write_text(HEAD, encoding="utf-8")
    assert "def descend(" in said(grade(EXERCISE, path))


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="groundup learn 1"):
        grade(EXERCISE, tmp_path / "gradient_descent.py")


def test_an_error_at_import_is_reported_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "gradient_descent.py"
    path.write_text(f"{HEAD}start = np.zeros(2) @ np.zeros(3)\n", encoding="utf-8")
    text = said(grade(EXERCISE, path))
    assert "in line 8 of gradient_descent.py: start = np.zeros(2) @ np.zeros(3)" in text


def test_the_first_difference_is_shown_with_its_input(tmp_path: Path) -> None:
    text = said(graded(tmp_path, RIGHT.replace("- rate", "- 0.5 * rate")))
    assert "yours[1, 0]" in text and "expected[1, 0]" in text and "rate = " in text


def test_an_exception_is_reported_with_its_line_and_no_number(tmp_path: Path) -> None:
    text = said(graded(tmp_path, "return [x][steps + 1]"))
    assert "in line 9 of gradient_descent.py: return [x][steps + 1]" in text
    assert "number that differs" not in text and "stopped" in text


def test_an_input_is_shown_as_it_was_given(tmp_path: Path) -> None:
    exercise = find("derivatives")
    path = tmp_path / "derivatives.py"
    code = (exercise.folder / "solution.py").read_text(encoding="utf-8")
    cut = (
        "def by_rule(c):\n    c.pop(0)\n    return [(i + 1) * v for i, v in enumerate(c)] or [0]\n"
    )
    path.write_text(f"{code}\n\n{cut}", encoding="utf-8")
    text = said(grade(exercise, path))
    assert "coefficients = [6.0, 5.0, 3.0]" in text
    assert "changes its input coefficients in place" in text
