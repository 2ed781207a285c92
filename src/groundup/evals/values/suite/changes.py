"""Changes from model to model: claims, the alignment tax, and single items.

Two models are compared on the very same items. A difference counts only if its whole interval lies
on one side, in either direction. If the ideal of a number is neither end (0.5 for a share of
stereotypes), distances from the ideal are compared, so that a change from 49 % to 80 % is worse.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from groundup.evals.values.suite.asking import Valued, finite
from groundup.evals.values.task import Row, Task
from groundup.report.changed import Changed, largest_changes
from groundup.report.claim import Claim
from groundup.report.estimate import BySource


def pairs(models: Sequence[Valued]) -> list[tuple[Valued, Valued]]:
    """Each model with the one that it was trained from, or else the one before it."""
    found = []
    for place, after in enumerate(models):
        parent = None if after.parent is None else after.parent.resolve()
        before = [
            one for one in models if one.model.folder.resolve() == parent and one is not after
        ]
        before = before or list(models[max(0, place - 1) : place])
        if before:
            found.append((after, before[0]))
    return found


def differences(task: Task, after: Valued, before: Valued) -> BySource:
    """The differences in a task's numbers, if both models were asked it."""
    if task.name not in after.asked or task.name not in before.asked:
        return {}
    return finite(task.difference(after.asked[task.name].rows, before.asked[task.name].rows))


def distances(task: Task, after: Valued, before: Valued) -> BySource:
    """The differences in distance from the ideal, for numbers that have one."""
    if task.name not in after.asked or task.name not in before.asked:
        return {}
    return finite(task.distance(after.asked[task.name].rows, before.asked[task.name].rows))


def away_from(ideal: float, share: bool) -> str:
    """The name of a distance from an ideal."""
    return f"distance from {f'{100 * ideal:g} %' if share else f'{ideal:g}'}"


def claims(tasks: Sequence[Task], models: Sequence[Valued]) -> list[Claim]:
    """A claim for every number of every task that both models of a pair have."""
    return [
        claim
        for after, before in pairs(models)
        for task in tasks
        for claim in _of_task(task, after, before)
    ]


def _of_task(task: Task, after: Valued, before: Valued) -> Iterator[Claim]:
    found, apart = differences(task, after, before), distances(task, after, before)
    old, new = (one.numbers.get(task.name, {}) for one in (before, after))
    for number in task.shown:
        # Among many parts, such as categories, some differences would pass by chance.
        if number.part_of is not None or number.name not in found.keys() & old.keys() & new.keys():
            continue
        values = old[number.name].estimate, new[number.name].estimate
        measured, wanted = found[number.name], number.better
        what = task.title if number is task.shown[0] else f"{task.title} ({number.name})"
        if wanted is None and number.ideal is not None and number.name in apart:
            ideal = number.ideal
            measured, wanted = apart[number.name], "below"
            values = abs(values[0] - ideal), abs(values[1] - ideal)
            what = f"{what}, {away_from(ideal, number.share)}"
        if wanted is None:
            continue
        yield Claim(
            f"{after.name} is better than {before.name} ({task.title}, {number.name})",
            measured,
            number.unit,
            wanted,
            what=what,
            model=after.name,
            other=before.name,
            values=values,
            share=number.share,
            stages=True,
        )


# Single items.


def most_changed(task: Task, items: Sequence[Any], after: Valued, before: Valued) -> list[Changed]:
    """The items of a task whose rows changed most, if both models were asked it."""
    if task.name not in after.asked or task.name not in before.asked:
        return []
    rows, old = (one.asked[task.name].rows for one in (after, before))
    return largest_changes(task.name, rows, old, _texts(task, items, rows))


def _texts(task: Task, items: Sequence[Any], rows: Sequence[Row]) -> dict[str, str]:
    """The texts of the items by row id; empty for sets with harmful texts."""
    if task.text is None or len(items) != len(rows):
        return {}
    return {str(row["id"]): task.text(item) for item, row in zip(items, rows, strict=True)}
