"""Every exercise: the solution passes, and each typical mistake is found and named."""

from __future__ import annotations

import functools
import re
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from markdown_it import MarkdownIt
from rich.cells import cell_len

from groundup.app.cli import app
from groundup.learn.exercise import Exercise, module_of
from groundup.learn.judge import judge, wrong_answers
from groundup.learn.lesson import lesson_of
from groundup.learn.road import find, road

EXERCISES = pytest.mark.parametrize("exercise", road(), ids=lambda one: f"{one.number}-{one.name}")
wrong_parts = functools.cache(wrong_answers)
MISTAKES = [(exercise, name) for exercise in road() for name in exercise.page("wrong").REPLACES]


@EXERCISES
def test_the_solution_passes(exercise: Exercise, tmp_path: Path) -> None:
    part = module_of(exercise.folder / "solution.py", exercise.name)
    if exercise.name == "scaling":
        foretold(part, tmp_path)
    for seed in range(3):
        verdict = judge(exercise, part, seed)
        assert verdict.passed, (seed, verdict.lines)
        assert verdict.trials >= 3


def foretold(part: ModuleType, run: Path, prediction: object = 1.52) -> None:
    """Create a run that reached 1.5 bits per byte, and a part that predicted it."""
    (run / "run.json").write_text('{"stage": "pretrain"}')
    (run / "status.json").write_text('{"state": "finished", "parts": {}}')
    (run / "metrics.jsonl").write_text('{"bits_per_byte": 1.7}\n{"bits_per_byte": 1.5}\n')
    part.PREDICTION, part.RUN = prediction, str(run)  # type: ignore[attr-defined]


def test_a_prediction_without_its_run_does_not_pass(tmp_path: Path) -> None:
    exercise = find("scaling")
    part = module_of(exercise.folder / "solution.py", exercise.name)
    verdict = judge(exercise, part)
    assert verdict.state == "still to come" and not verdict.passed
    assert verdict.right == verdict.trials - 1
    assert verdict.lines[0].startswith("Right so far; the run is still to come")
    foretold(part, tmp_path, prediction=1.6)
    verdict = judge(exercise, part)
    assert verdict.state == "differs"
    assert "1.6 bits per byte predicted" in verdict.lines[1] and "1.5 reached" in verdict.lines[2]
    assert "6.7% too high" in verdict.lines[3]
    part.RUN = str(tmp_path / "nowhere")  # type: ignore[attr-defined]
    verdict = judge(exercise, part)
    assert verdict.state == "differs" and "RUN names no folder" in verdict.lines[-1]
    foretold(part, tmp_path)
    assert judge(exercise, part).passed


@pytest.mark.parametrize("prediction", [float("nan"), float("inf"), 0.0, -1.5, "1.5", True])
def test_a_prediction_is_a_number_of_bits(prediction: object, tmp_path: Path) -> None:
    exercise = find("scaling")
    part = module_of(exercise.folder / "solution.py", exercise.name)
    foretold(part, tmp_path, prediction)
    verdict = judge(exercise, part)
    assert verdict.state == "differs" and "Bits per byte are a number above 0" in verdict.lines[-1]


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("status.json", '{"state": "running"}', "is not finished"),
        ("status.json", None, "is not finished"),
        ("run.json", '{"stage": "sft"}', "is not one"),
        ("run.json", None, "is not one"),
        ("metrics.jsonl", '{"bits_per_byte": 1.5}\n{"bits_', "is not one"),
        ("metrics.jsonl", '{"loss": 1.5}', "is not one"),
    ],
)
def test_a_prediction_is_compared_with_a_finished_pretrain_run(
    name: str, content: str | None, told: str, tmp_path: Path
) -> None:
    exercise = find("scaling")
    part = module_of(exercise.folder / "solution.py", exercise.name)
    foretold(part, tmp_path)
    if content is None:
        (tmp_path / name).unlink()
    else:
        (tmp_path / name).write_text(content)
    verdict = judge(exercise, part)
    assert verdict.state == "differs" and told in verdict.lines[-1], verdict.lines


@EXERCISES
def test_the_stub_is_reported_as_unwritten(exercise: Exercise) -> None:
    stub = module_of(exercise.folder / "stub.py", exercise.name)
    verdict = judge(exercise, stub)
    assert verdict.state == "not written", verdict.lines
    assert exercise.functions[0] in verdict.lines[0]
    assert not verdict.tried


@pytest.mark.every(4)
@pytest.mark.parametrize(
    ("exercise", "mistake"), MISTAKES, ids=[f"{one.name}-{name}" for one, name in MISTAKES]
)
def test_a_typical_mistake_is_named(exercise: Exercise, mistake: str) -> None:
    # Draws that depend on the mistake, so that all are not tried on the same numbers. For each seed
    # every mistake of the exercise is computed: here are two, and below are many.
    assert_named(exercise, mistake, seed=len(mistake) % 2)


@pytest.mark.long
@pytest.mark.parametrize(
    ("exercise", "mistake"), MISTAKES, ids=[f"{one.name}-{name}" for one, name in MISTAKES]
)
def test_a_typical_mistake_is_named_for_other_seeds(exercise: Exercise, mistake: str) -> None:
    assert_named(exercise, mistake, seed=len(mistake))


def assert_named(exercise: Exercise, mistake: str, seed: int) -> None:
    verdict = judge(exercise, wrong_parts(exercise)[mistake], seed)
    assert verdict.state == "differs"
    # On some draws two mistakes with one hint are one answer.
    wrong = exercise.page("wrong")
    named = getattr(wrong, verdict.named or "", None)
    told = (seed, verdict.named, verdict.lines)
    assert named is not None and named.__doc__ == getattr(wrong, mistake).__doc__, told
    assert any(line.startswith("Hint: ") for line in verdict.lines)
    assert not any("NameError" in line for line in verdict.lines)


@EXERCISES
def test_an_exercise_lists_its_typical_mistakes(exercise: Exercise) -> None:
    wrong = exercise.page("wrong")
    assert len(wrong.REPLACES) >= 3
    assert set(wrong.REPLACES.values()) <= set(exercise.functions)
    for name in wrong.REPLACES:
        assert len(getattr(wrong, name).__doc__.split()) > 3


@EXERCISES
def test_a_lesson_has_its_sections(exercise: Exercise) -> None:
    lesson = lesson_of(exercise)
    assert len(lesson.hints) == 3
    assert len(lesson.question.choices) >= 2
    assert all((lesson.idea, lesson.question.why, lesson.write, lesson.why, lesson.watch))
    for function in exercise.functions:
        assert function in lesson.write
    assert "answer:" not in lesson.shown and lesson.why not in lesson.shown


@EXERCISES
def test_the_code_of_a_lesson_fits_80_columns(exercise: Exercise) -> None:
    text = (exercise.folder / "lesson.md").read_text(encoding="utf-8")
    for token in MarkdownIt().parse(text):
        if token.type in ("fence", "code_block"):
            assert [line for line in token.content.splitlines() if cell_len(line) > 76] == []


@EXERCISES
def test_a_part_can_be_inserted_and_removed(exercise: Exercise) -> None:
    if not exercise.has_seam:
        pytest.skip("this part is for understanding alone")
    seam = exercise.page("seam")
    assert seam.USED_BY and seam.USED_BY.strip() == seam.USED_BY
    called = []

    def spied(name: str) -> ModuleType:
        part = module_of(exercise.folder / "solution.py", exercise.name)
        for function in exercise.functions:
            plain = getattr(part, function)

            def spy(*given: object, plain: object = plain, **named: object) -> object:
                called.append(name)
                return plain(*given, **named)  # type: ignore[operator]

            setattr(part, function, spy)
        return part

    try_it = seam.try_it
    plain = try_it()
    with seam.swap(spied("mine")):
        mine = try_it()
    assert called, "the product never calls the part"
    calls = len(called)
    assert try_it() == pytest.approx(plain, rel=1e-9, abs=1e-12)
    assert len(called) == calls, "the part stays in the product"
    assert mine == pytest.approx(plain, rel=1e-5, abs=1e-6)


def test_the_commands_that_use_a_part_exist() -> None:
    used = {one.name: one.page("seam").USED_BY for one in road() if one.has_seam}
    named = {
        word for sentence in used.values() for word in re.findall(r"groundup ([a-z-]+)", sentence)
    }
    assert "label" in named and all(word in app for word in named)
    said = re.match("every reply: (.+) and", used["sampling"])
    assert said is not None and all(word in app for word in said.group(1).split(", "))


def test_the_spreads_in_the_lesson_on_initialization_equal_measurements() -> None:
    exercise = find("initialization")
    spreads, text = exercise.page("solution").spreads, lesson_of(exercise).idea
    for std, row in ((0.01, r"0\.01"), (0.088, r"√\(2/256\) = 0\.088"), (0.2, r"0\.2")):
        told = re.search(rf"^ *{row} +([\d.]+) +([\d.]+) +([\d.]+)(…| million)?", text, re.M)
        assert told is not None
        runs = []
        for seed in range(5):
            random = np.random.default_rng(seed)
            weights = [random.normal(0, std, (256, 256)) for _ in range(20)]
            runs.append(np.array(spreads(random.normal(size=(500, 256)), weights))[[0, 4, 19]])
        million = 1e6 if told[4] == " million" else 1
        numbers = np.array([float(told[1]), float(told[2]), float(told[3]) * million])
        shown = numbers > 0  # not 0.000…
        ratios = (numbers / np.mean(runs, axis=0))[shown]
        assert np.abs(np.log(ratios)).max() < np.log(1.4)


def test_numbers_and_names_are_unique() -> None:
    numbers, names = [one.number for one in road()], [one.name for one in road()]
    assert len(set(numbers)) == len(set(names)) == len(road())
    order = [tuple(map(int, number.split("."))) for number in numbers]
    assert order == sorted(order)
