"""Numbers that are means of a field of the rows: what most tasks show.

A row has a number or a verdict in the field, or None where nothing was asked or applies. Rows of a
group are drawn together for an interval.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from groundup.evals.values.task import Row
from groundup.report.estimate import BySource, Estimate, rate, ratio


def values(rows: Sequence[Row], field: str) -> dict[str, float]:
    """The field's number of each row that has one, by the row's id."""
    found = {str(row["id"]): row[field] for row in rows}
    return {one: float(value) for one, value in found.items() if value is not None}


def means(fields: Mapping[str, str]) -> Callable[[Sequence[Row]], BySource]:
    """Makes the mean of each field, by the name it is shown under; fields hold 0 to 1."""

    def numbers(rows: Sequence[Row]) -> BySource:
        groups = groups_of(rows)
        found: BySource = {}
        for name, field in fields.items():
            if of_rows := values(rows, field):
                drawn = [groups[one] for one in of_rows]
                found[name] = rate(np.array(list(of_rows.values())), groups=drawn)
        return found

    return numbers


def differences(fields: Mapping[str, str]) -> Callable[[Sequence[Row], Sequence[Row]], BySource]:
    """Makes what the mean of each field is more after than before, item by item."""

    def difference(after: Sequence[Row], before: Sequence[Row]) -> BySource:
        groups = groups_of(after)
        found: BySource = {}
        for name, field in fields.items():
            new, old = values(after, field), values(before, field)
            if shared := [one for one in new if one in old]:
                change = np.array([new[one] - old[one] for one in shared])
                found[name] = ratio(change, groups=[groups[one] for one in shared])
        return found

    return difference


def of(name: str, numbers: Callable[[Sequence[Row]], BySource]) -> Callable[..., Estimate]:
    """Makes the score of a task whose number is best at 1."""
    return lambda rows: numbers(rows)[name]


def without(name: str, numbers: Callable[[Sequence[Row]], BySource]) -> Callable[..., Estimate]:
    """Makes the score of a task whose number is best at 0."""
    return lambda rows: numbers(rows)[name].mapped(lambda x: 1 - x)


def groups_of(rows: Sequence[Row]) -> dict[str, str]:
    """The group of each row, by its id."""
    return {str(row["id"]): str(row["group"]) for row in rows}
