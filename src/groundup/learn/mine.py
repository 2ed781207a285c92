"""The learner's parts in the product's place, for as long as a command runs.

    with mine(Path("my_groundup")):
        …  # attention, sampler, loss: the learner's own, where they passed

A part enters at a seam that the product has anyway (the exercise's seam.py), and only as the very
file that passed its check.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from groundup.errors import UserError
from groundup.learn.exercise import Exercise, importable, module_of
from groundup.learn.own import FOLDER, Own
from groundup.learn.road import find, road
from groundup.runs import folder as runs


@contextmanager
def mine(
    folder: Path = FOLDER, names: Sequence[str] | None = None
) -> Iterator[tuple[Exercise, ...]]:
    """Put the learner's parts in, all that passed or those of `names`, and say so in one line.

    Raises `UserError` for a part that has not passed, for one that was changed since, and where
    there is none that can go in.
    """
    own = Own(folder)
    entering = [find(name) for name in names] if names is not None else _passed(own)
    for exercise in entering:
        _require_passed(own, exercise)
    entering = [exercise for exercise in entering if exercise.has_seam]
    if not entering:
        raise UserError(
            f"{folder} has no part yet that passed and can take the product's place; groundup "
            "learn shows the road, and groundup learn check says what passes"
        )
    with ExitStack() as stack:
        stack.enter_context(importable(folder))
        hashes = {}
        for exercise in entering:
            part = module_of(own.file(exercise), exercise.name)
            stack.enter_context(exercise.page("seam").swap(part))
            hashes[exercise.name] = own.record(exercise).sha256 or ""
        before = runs.parts_of_ones_own.set(hashes)
        stack.callback(runs.parts_of_ones_own.reset, before)
        names_of_parts = ", ".join(exercise.name for exercise in entering)
        # Beside the output, which may be a model's text on its way into a file.
        print(f"Yours:       {names_of_parts} (from {folder})", file=sys.stderr)
        yield tuple(entering)


def used_by(exercise: Exercise) -> str:
    """One sentence: where the product uses the part."""
    sentence: str = exercise.page("seam").USED_BY
    return sentence


def _passed(own: Own) -> list[Exercise]:
    records = own.progress().exercises
    return [one for one in road() if one.name in records and records[one.name].passed]


def _require_passed(own: Own, exercise: Exercise) -> None:
    check = f"groundup learn check {exercise.number}"
    if own.record(exercise).passed is None:
        raise UserError(f"{own.file(exercise)} has not passed; {check} says what is missing")
    if not own.has_passed(exercise):
        raise UserError(f"{own.file(exercise)} was changed since it passed; run {check} first")
