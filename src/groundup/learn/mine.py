"""The learner's parts in place of the product's functions, while a command runs.

    with mine(Path("my_groundup")):
        …  # attention, sampler, loss: the learner's own, if they passed

A part enters at a seam that the product has anyway (the exercise's seam.py), and only if its file
is exactly the one that passed the check.
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
from groundup.runs import request


@contextmanager
def mine(
    folder: Path = FOLDER, names: Sequence[str] | None = None, run: Path | None = None
) -> Iterator[tuple[Exercise, ...]]:
    """Insert the learner's parts, all that passed or those of `names`, and report them in one line.

    The line also says which parts are left out, and why. A `run` that has already started gets
    exactly the parts it started with, if they are unchanged.

    Raises `UserError` for a part of `names` that has not passed or was changed since, and if no
    part can be inserted.
    """
    own = Own(folder)
    if folder != FOLDER and not folder.is_dir():
        raise UserError(f"--mine={folder}: there is no such folder; groundup learn makes {FOLDER}")
    for exercise in map(find, names or ()):
        _require_passed(own, exercise)
    left_out = _left_out(own) if names is None else {}
    wanted = _started(own) if names is None else [find(name) for name in names]
    entering = [one for one in wanted if one.has_seam and one.name not in left_out]
    hashes = {one.name: own.record(one).sha256 or "" for one in entering}
    began_with = {} if run is None else _started_with(run)
    if began_with and began_with.items() <= hashes.items():
        later = hashes.keys() - began_with.keys()
        left_out |= dict.fromkeys(sorted(later), f"{run} was begun without it")
        hashes = began_with
    else:
        for one in entering:
            if (other := getattr(one.page("seam"), "GIVES_WAY_TO", None)) in hashes:
                del hashes[one.name]
                left_out[one.name] = f"{other} takes its place"
    entering = [one for one in entering if one.name in hashes]
    told = ", ".join(f"{name} ({why})" for name, why in left_out.items())
    if not entering:
        raise UserError(
            f"{folder} has no part yet that passed and can take the product's place"
            f"{f': {told}' if told else ''}; groundup learn{own.option} shows the road, and "
            f"groundup learn check NUMBER{own.option} says what passes"
        )
    with ExitStack() as stack:
        stack.enter_context(importable(folder))
        for exercise in entering:
            part = module_of(own.file(exercise), exercise.name)
            stack.enter_context(exercise.page("seam").swap(part))
        before = request.user_parts.set(hashes)
        stack.callback(request.user_parts.reset, before)
        # On stderr, since stdout may be a model's text that is redirected into a file.
        names_of_parts = ", ".join(exercise.name for exercise in entering)
        omitted = f"; not in: {told}" if told else ""
        print(f"Yours:       {names_of_parts} (from {folder}){omitted}", file=sys.stderr)
        yield tuple(entering)


def used_by(exercise: Exercise) -> str:
    """One sentence: where the product uses the part."""
    sentence: str = exercise.page("seam").USED_BY
    return sentence


def _started(own: Own) -> list[Exercise]:
    return [one for one in road() if own.has(one) or own.record(one).passed]


def _left_out(own: Own) -> dict[str, str]:
    """The parts that cannot be inserted, by name, and the reason."""
    found = {}
    for exercise in _started(own):
        if exercise.has_seam and not own.has_passed(exercise):
            passed = own.record(exercise).passed
            found[exercise.name] = "changed since it passed" if passed else "has not passed"
    return found


def _started_with(run: Path) -> dict[str, str]:
    """The parts of a run and their hashes, by name; empty if no run was started."""
    try:
        found = request.read_run(run).get("mine")
    except UserError:  # opening the run reports it
        return {}
    return {name: str(hash) for name, hash in found.items()} if isinstance(found, dict) else {}


def _require_passed(own: Own, exercise: Exercise) -> None:
    check = f"groundup learn check {exercise.number}{own.option}"
    if own.record(exercise).passed is None:
        raise UserError(f"{own.file(exercise)} has not passed; {check} says what is missing")
    if not own.has_passed(exercise):
        raise UserError(f"{own.file(exercise)} was changed since it passed; run {check} first")
