"""Numbers that are means of a field of the rows, as in most tasks.

A field is a number or a verdict, or None if the row was not asked or the field does not apply. Rows
of a group are resampled together for intervals.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from groundup.evals.values.rows import column, groups
from groundup.evals.values.task import Row
from groundup.report.estimate import BySource, Estimate, rate, ratio

Named = Mapping[str, tuple[Sequence[Row], str]]
"""For each number's name, its rows and the field that is averaged."""


def means_of(named: Named) -> BySource:
    """The mean of each number's field over the rows that have it; fields are in 0 to 1."""
    found: BySource = {}
    for name, (rows, field) in named.items():
        if kept := [row for row in rows if row[field] is not None]:
            found[name] = rate(column(kept, field), groups=groups(kept))
    return found


def differences_of(after: Named, before: Named) -> BySource:
    """The difference of each mean, item by item."""
    found: BySource = {}
    for name, (rows, field) in after.items():
        old = {row["id"]: row for row in before[name][0] if row[field] is not None}
        if new := [row for row in rows if row[field] is not None and row["id"] in old]:
            change = column(new, field) - column([old[row["id"]] for row in new], field)
            found[name] = ratio(change, groups=groups(new))
    return found


def means(fields: Mapping[str, str]) -> Callable[[Sequence[Row]], BySource]:
    """Returns a function for the means of these fields over all rows, by the names shown."""
    return lambda rows: means_of({name: (rows, field) for name, field in fields.items()})


def differences(fields: Mapping[str, str]) -> Callable[[Sequence[Row], Sequence[Row]], BySource]:
    """Returns a function for the differences of these means, item by item."""
    return lambda after, before: differences_of(
        *({name: (rows, field) for name, field in fields.items()} for rows in (after, before))
    )


def of(name: str, numbers: Callable[[Sequence[Row]], BySource]) -> Callable[..., Estimate]:
    """Returns the score of a task whose number is best at 1."""
    return lambda rows: numbers(rows)[name]


def without(name: str, numbers: Callable[[Sequence[Row]], BySource]) -> Callable[..., Estimate]:
    """Returns the score of a task whose number is best at 0."""
    return lambda rows: numbers(rows)[name].mapped(lambda x: 1 - x)
