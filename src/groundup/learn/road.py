"""The road: the exercises of all steps in order, found by number or name."""

from __future__ import annotations

import importlib
import re
from functools import cache

from groundup.errors import UserError, nearest, shorten
from groundup.learn.exercise import STEPS, Exercise


@cache
def road() -> tuple[Exercise, ...]:
    """Every exercise, in the order in which a learner meets them."""
    tables = (importlib.import_module(f"groundup.learn.{step}").EXERCISES for step in STEPS)
    return tuple(exercise for table in tables for exercise in table)


def of_step(step: int) -> tuple[Exercise, ...]:
    """The exercises of one step, 1 to 5."""
    return tuple(exercise for exercise in road() if exercise.step == step)


def find(which: str) -> Exercise:
    """The exercise with this number or name; `UserError` suggests the nearest ones.

    Names may be written with dashes or spaces.
    """
    wanted = which.strip().lower().replace("-", "_").replace(" ", "_").removesuffix(".py")
    known = {key: exercise for exercise in road() for key in (exercise.number, exercise.name)}
    if wanted in known:
        return known[wanted]
    step = of_step(int(wanted[0])) if re.fullmatch(r"[0-9](\.[0-9]*)?", wanted) else ()
    if step:
        raise UserError(
            f"{shorten(which)} is no exercise; step {step[0].step} has {step[0].number} to "
            f"{step[-1].number}, and groundup learn {step[0].step} shows them"
        )
    near = nearest(wanted, known)
    hint = "" if near is None else f"did you mean {near} ({known[near].title})? "
    raise UserError(f"{shorten(which)} is no exercise; {hint}groundup learn shows all of them")


def after(exercise: Exercise) -> Exercise | None:
    """The exercise that follows, None at the road's end."""
    place = road().index(exercise) + 1
    return road()[place] if place < len(road()) else None
