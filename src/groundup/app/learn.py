"""`groundup learn` at the terminal: the road, lessons, checks and their results."""

from __future__ import annotations

import contextlib
import re
import shlex
import sys
import textwrap
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from groundup.errors import CheckFailed, UserError, shorten
from groundup.learn.exercise import TITLES, Exercise
from groundup.learn.grade import grade
from groundup.learn.judge import Verdict
from groundup.learn.lesson import Question, lesson_of
from groundup.learn.mine import used_by
from groundup.learn.moving import PAGES, moving
from groundup.learn.own import Own, Prediction, Record, part_hash
from groundup.learn.predictions import calibration
from groundup.learn.road import after, find, of_step, road
from groundup.runs.console import at_terminal, console, counted, say
from groundup.runs.files import write_bytes

# The longest lines of solutions and of the road.
_CODE, _ROAD = 100, 136


def show_road(folder: Path, steps: Sequence[int] = range(1, len(TITLES) + 1)) -> None:
    """Print the steps: which exercises are done, how long each takes, what it makes possible."""
    own = Own(folder)
    records, done = own.progress().exercises, _passed(own)
    for step in steps:
        exercises = of_step(step)
        if not exercises:
            continue
        count = sum(one in done for one in exercises)
        hours = sum(one.minutes for one in exercises) / 60
        title = TITLES[step - 1]
        say(f"\n{step} {title}: {count} of {len(exercises)} done, about {hours:.1f} hours")
        for one in exercises:
            mark = "✓" if one in done else "·"
            if one not in done and records.get(one.name, Record()).passed:
                mark = "~"  # changed since
            begun = f"  {mark} {one.number:<4}  {one.title:<50} {one.minutes:>3} min"
            beside = not at_terminal() or console.width >= _ROAD
            _tell(f"{begun}  {one.makes}" if beside else f"{begun}\n{'':9}{one.makes}", 9)
    say("")
    open_ones = [one for one in road() if one not in done]
    here = [one for one in open_ones if one.step in steps]
    following = next(iter(here or open_ones), None)
    if following is None:
        _tell(
            f"You have completed the whole road. groundup chat MODEL {_mine(own)} runs on your "
            "own parts."
        )
    else:
        say(f"Next:        groundup learn {following.number}{own.option}   ({following.title})")
    made = [one.judged for one in records.values() if one.judged is not None]
    if made:
        _tell(calibration(made).sentence)


def open_exercise(folder: Path, which: str, *, notebook: bool, page: bool) -> None:
    """Write the stub if there is none, show the lesson, ask for a prediction."""
    exercise, own = find(which), Own(folder)
    moving_page = moving(exercise) if page else None
    new = own.open(exercise)
    lesson = lesson_of(exercise)
    _show_markdown(lesson.shown)
    _tell(
        f"Difficulty {exercise.difficulty} of 5, importance {exercise.importance} of 5, about "
        f"{exercise.minutes} minutes. It makes possible: {exercise.makes}."
    )
    _ask_prediction(own, exercise, lesson.question)
    if moving_page is not None:
        path = own.folder / f"{exercise.name}.html"
        write_bytes(path, moving_page.encode())
        say(f"Animation:   {path}, in a browser")
    elif exercise.name in PAGES:
        page_too = f"groundup learn {exercise.number} --page{own.option}"
        say(f"Animation:   {page_too} writes a page for the browser")
    if notebook:
        from groundup.learn.notebook import notebook as as_notebook

        path = own.folder / f"{exercise.name}.ipynb"
        if path.exists():
            raise UserError(f"{path} already exists; move it away to get a new one")
        write_bytes(path, as_notebook(exercise, own).encode())
        say(f"Notebook:    {path}")
    state = "written, for you to fill in" if new else "as you left it"
    say(f"Your file:   {own.file(exercise)} ({state})")
    say(f"Then:        groundup learn check {exercise.number}{own.option}")


def check(folder: Path, which: str | None, seed: int) -> None:
    """Grade a file and print the result. Raises `CheckFailed` if it does not pass yet."""
    own = Own(folder)
    exercise = _exercise(own, which)
    path = own.file(exercise)
    before = part_hash(path) if path.is_file() else ""
    verdict = grade(exercise, path, seed=seed)
    record = own.checked(exercise, verdict.passed, before, tried=verdict.tried)
    if verdict.printed:
        say(f"Your code printed:\n{verdict.printed.rstrip()}\n")
    if verdict.passed:
        _show_passed(own, exercise, verdict, record)
        return
    if verdict.state == "still to come":
        _tell("\n".join([f"{exercise}: not done yet.", *verdict.lines]))
        raise CheckFailed(f"{exercise.name} does not pass yet; the lesson says what to do")
    head = f"{exercise}: not yet"
    if verdict.trials:
        head += f", {verdict.right} of {verdict.trials} trials right"
    _tell("\n".join([f"{head}.", *verdict.lines]))
    hints = f"groundup learn hint {exercise.number}{own.option} shows a hint"
    raise CheckFailed(f"{exercise.name} does not pass yet; {hints}")


def predict(folder: Path, which: str, choice: str, sure: float | None) -> None:
    """Record a prediction, and compare it if the exercise has already passed."""
    own, exercise = Own(folder), find(which)
    _keep_prediction(own, exercise, choice, None if sure is None else sure / 100)
    record = own.record(exercise)
    say(f"Recorded:    {choice.lower()} for {exercise}; the check compares it")
    if record.passed is not None:
        _show_prediction(exercise, record)


def show_hint(folder: Path, which: str | None) -> None:
    """Show the next hint; after the last, the last again."""
    own = Own(folder)
    exercise = _exercise(own, which)
    hints, record = lesson_of(exercise).hints, own.record(exercise)
    number = min(record.hints, len(hints) - 1)
    record.hints = number + 1
    own.keep(exercise, record)
    _show_markdown(f"**Hint {number + 1} of {len(hints)} for {exercise}.** {hints[number]}")


def show_solution(folder: Path, which: str | None) -> None:
    """Show the solution and its explanation. Raises `UserError` before a first try."""
    own = Own(folder)
    exercise = _exercise(own, which)
    record = own.record(exercise)
    if not record.tries:
        raise UserError(
            f"you have not tried {exercise} yet; write something into {own.file(exercise)} and run "
            f"groundup learn check {exercise.number}{own.option}, or run "
            f"groundup learn hint {exercise.number}{own.option}"
        )
    record.solution_seen = True
    own.keep(exercise, record)
    code = (exercise.folder / "solution.py").read_text(encoding="utf-8")
    _show_markdown(f"```python\n{code}```\n\n## Why\n\n{lesson_of(exercise).why}")


def reset(folder: Path, which: str | None) -> None:
    """Set the learner's file aside and write the stub again."""
    own = Own(folder)
    exercise = _exercise(own, which)
    kept = own.reset(exercise)
    if kept is not None:
        say(f"Kept:        {kept}")
    say(f"Reset:       {own.file(exercise)}")


def show_status(folder: Path) -> None:
    """Print every exercise that was begun, and for each step how well predictions matched."""
    own = Own(folder)
    records = own.progress().exercises
    begun = [one for one in road() if one.name in records or own.has(one)]
    if not begun:
        say(f"No exercise is begun in {folder}; groundup learn{own.option} shows the road")
        return
    for one in begun:
        record = records.get(one.name, Record())
        state = "passed" if own.has_passed(one) else "begun"
        if record.passed and state != "passed":
            state = "changed since it passed"
        facts = [state, f"{record.tries} {'try' if record.tries == 1 else 'tries'}"]
        facts += [counted(record.hints, "hint")] if record.hints else []
        facts += ["solution seen"] if record.solution_seen else []
        if record.prediction is not None:
            said = "right" if record.prediction.right else "wrong"
            facts.append(f"predicted {record.prediction.choice}")
            facts += [said] if record.judged is not None else []
        _tell(f"{one.number}  {one.title:<44} {', '.join(facts)}", 5)
    _show_calibrations(own)


def show_tutor() -> None:
    """Print the page for a coding assistant unformatted, for a pipe or the clipboard."""
    print(resources.files("groundup.learn").joinpath("tutor.md").read_text(encoding="utf-8"))


# Results of a check.


def _show_passed(own: Own, exercise: Exercise, verdict: Verdict, record: Record) -> None:
    say(f"{exercise}: passed all {verdict.trials} trials, on try {record.tries}.")
    _show_prediction(exercise, record)
    _tell(f"Possible:    {exercise.makes}", 13)
    if exercise.has_seam:
        _tell(f"Used by:     {used_by(exercise)}, with {_mine(own)}", 13)
    step, done = of_step(exercise.step), _passed(own)
    if all(one in done for one in step):
        say(f"\nStep {exercise.step}, {TITLES[exercise.step - 1]}, is done.")
        records = own.progress().exercises
        made = [records[one.name].judged for one in step if one.name in records]
        _tell(calibration(one for one in made if one is not None).sentence)
    following = after(exercise)
    if following is not None:
        say(f"Next:        groundup learn {following.number}{own.option}   ({following.title})")


def _show_prediction(exercise: Exercise, record: Record) -> None:
    if record.prediction is None:
        return
    question = lesson_of(exercise).question
    verdict = "right" if record.prediction.right else f"wrong, it is {question.answer}"
    why = " ".join(question.why.split())
    _tell(f"You said:    {record.prediction.choice}: {verdict}. {why}", 13)


def _show_calibrations(own: Own) -> None:
    records = own.progress().exercises
    for step, title in enumerate(TITLES, start=1):
        made = [records[one.name].judged for one in of_step(step) if one.name in records]
        given = [one for one in made if one is not None]
        if given:
            _tell(f"{title}. {calibration(given).sentence}")


def _passed(own: Own) -> set[Exercise]:
    return {one for one in road() if own.has_passed(one)}


# Predictions.


def _ask_prediction(own: Own, exercise: Exercise, question: Question) -> None:
    """Ask at a terminal; elsewhere, or if nothing is typed, show the command for it."""
    if own.record(exercise).prediction is not None:
        return
    say("")
    _show_markdown(f"**Predict first:** {question.shown}")
    if sys.stdin.isatty() and at_terminal():
        with contextlib.suppress(EOFError):
            letters = f"one of {', '.join(question.letters)}"
            choice = _typed("Your choice (Enter to skip): ", question.letters, letters)
            if choice:
                percents = [str(percent) for percent in range(101)]
                asked = "How sure are you, in percent (Enter to skip)? "
                sure = _typed(asked, percents, "a whole number from 0 to 100")
                _keep_prediction(own, exercise, choice, float(sure) / 100 if sure else None)
                say("")
                return
    say(f"  groundup learn predict {exercise.number} LETTER --sure PERCENT{own.option}\n")


def _typed(question: str, possible: Sequence[str], rule: str) -> str:
    """Ask until the answer is possible or empty."""
    while (typed := input(question).lower().strip(" ()%")) and typed not in list(possible):
        say(f"{shorten(typed)} is not possible; type {rule}")
    return typed


def _keep_prediction(own: Own, exercise: Exercise, choice: str, confidence: float | None) -> None:
    question, letter = lesson_of(exercise).question, choice.strip().lower().strip("()")
    if len(letter) != 1 or letter not in question.letters:
        raise UserError(
            f"CHOICE={choice!r} is not a choice of {exercise.number}; give one of "
            f"{', '.join(question.letters)}"
        )
    record = own.record(exercise)
    if record.judged is not None:
        raise UserError(
            f"{exercise} has passed and its answer was shown; predictions must come before that"
        )
    record.prediction = Prediction(
        choice=letter, right=letter == question.answer, confidence=confidence
    )
    own.keep(exercise, record)


# Finding and showing.


def _tell(text: str, indent: int = 0) -> None:
    """Print the text wrapped to the terminal, with continuation lines indented."""
    if at_terminal():
        lines = [
            textwrap.fill(
                line,
                console.width,
                subsequent_indent=" " * indent,
                break_long_words=False,
                break_on_hyphens=False,
            )
            for line in text.split("\n")
        ]
        text = "\n".join(lines)
    say(text)


def _exercise(own: Own, which: str | None) -> Exercise:
    """The named exercise, else the one opened last."""
    if which is not None:
        return find(which)
    opened = own.progress().opened
    if opened is None:
        raise UserError(
            f"no exercise was opened in {own.folder} yet; name an exercise, or open one: "
            f"groundup learn {road()[0].number}{own.option}"
        )
    return find(opened)


def _show_markdown(text: str) -> None:
    """Render Markdown, with colors on a terminal and as plain text in a pipe."""
    from rich.console import Console
    from rich.markdown import Markdown

    page = Markdown(text, code_theme="ansi_dark", hyperlinks=at_terminal())
    if at_terminal():
        # Longer lines of prose are hard to read.
        Console(width=min(console.width, 100), highlight=False).print(page)
        return
    plain = Console(width=_CODE + 2, highlight=False)  # code has a space on both sides
    with plain.capture() as captured:
        plain.print(page)
    print(re.sub(" +$", "", captured.get(), flags=re.M), end="")


def _mine(own: Own) -> str:
    return "--mine" if not own.option else f"--mine={shlex.quote(str(own.folder))}"
