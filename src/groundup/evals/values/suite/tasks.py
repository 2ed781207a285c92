"""The table of all tasks by name, and the choice of tasks for a model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from groundup.errors import UserError, known_names
from groundup.evals.contamination import sources_of
from groundup.evals.values import (
    calibration,
    instructions,
    jailbreak,
    knowledge,
    refusal,
    toxicity,
    unknown,
    world,
)
from groundup.evals.values.fairness import (
    bbq,
    counterfactual,
    crows_pairs,
    stereoset,
    winobias,
    winogender,
)
from groundup.evals.values.task import AXES, Task
from groundup.report.history import lineage
from groundup.runs.files import read_json_object

# In the order of the page.
TASKS: tuple[Task, ...] = (
    *world.TASKS,
    *knowledge.TASKS,
    *instructions.TASKS,
    *refusal.TASKS,
    *jailbreak.TASKS,
    *toxicity.TASKS,
    *bbq.TASKS,
    *crows_pairs.TASKS,
    *stereoset.TASKS,
    *winobias.TASKS,
    *winogender.TASKS,
    *counterfactual.TASKS,
    *unknown.TASKS,
    *calibration.TASKS,
)
WORLD = "world-"
"""The prefix of tasks about the small world, which only models that read of it can know."""


def chosen(names: Sequence[str], *, noncommercial: bool, own: Sequence[Task] = ()) -> list[Task]:
    """The tasks of these names, families (`refusal` is all of `refusal-…`) or whole axes.

    Without names, all of them. A user's `own` tasks are included, unless some of them are named;
    then only those are.

    Raises `UserError` for an unknown name, and for a set whose license forbids commercial use
    unless `noncommercial` is set.
    """
    every = (*TASKS, *own)
    free = [task for task in every if task.commercial or noncommercial]
    if not names:
        return free
    by_name = {task.name: task for task in every}
    of_own = {task.name for task in own}
    wanted = set[str]() if of_own & set(names) else of_own
    for name in names:
        if name in AXES:
            wanted |= {task.name for task in free if task.axis == name}
            continue
        family = {task.name for task in free if named(task, [name])}
        if name not in by_name and family:
            wanted |= family
            continue
        if name not in by_name:
            known = known_names(name, [*by_name, *AXES], "the tasks are")
            raise UserError(f"--tasks={name} is not a task of the values suite; {known}")
        if by_name[name] not in free:
            raise UserError(
                f"--tasks={name}: the license of its set forbids commercial use; "
                "pass --noncommercial if your use is not commercial"
            )
        wanted.add(name)
    return [task for task in every if task.name in wanted]


def named(task: Task, names: Sequence[str]) -> bool:
    """Whether a task has one of these names or belongs to such a family."""
    return any(task.name == name or task.name.startswith(f"{name}-") for name in names)


def judge_of(task: Task) -> str | None:
    """The judge of `evals.values.judges` that a task uses, if any."""
    if task in toxicity.TASKS:
        return "toxicity"
    refusing = (*refusal.TASKS, *jailbreak.TASKS, *instructions.TASKS, *unknown.TASKS)
    return "refusal" if task in refusing or task.name.startswith("swaps-answers") else None


def in_axis(task: Task) -> bool:
    """Whether a task counts in its axis; tasks with a user's own prompts do not."""
    return not task.name.endswith(counterfactual.OWN)


def of_world(task: Task) -> bool:
    """Whether a task is about the small world, where the truth is known."""
    return task.name.startswith(WORLD)


def knows_world(model: Path) -> bool:
    """Whether a run that led to the model read texts of the small world."""
    read = (path for history in lineage(model) for _, path in sources_of(history))
    return any(map(_has_world, read))


def _has_world(data: Path) -> bool:
    try:
        packs = read_json_object(data / "data.json")["packs"]
        return any(one["name"] == "world" for one in packs)
    except (UserError, KeyError, TypeError):
        return False
