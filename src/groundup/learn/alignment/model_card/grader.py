"""Grades a card's wording by `groundup card`."""

import random
from collections.abc import Iterator

from groundup.evals.cards import account, card
from groundup.learn.exercise import Trial, calls
from groundup.maths.intervals import wilson_interval
from groundup.report.estimate import Estimate


def trials(seed: int) -> Iterator[Trial]:
    dice = random.Random(seed)
    for n in (10, 400, 3):
        found = wilson_interval(dice.randint(n // 3, n), n)
        value = dice.uniform(found.low, found.high)
        yield Trial(
            f"shown: a share of {n}",
            calls("shown", value, found.low, found.high),
            card.shown(Estimate(value, found.low, found.high, n, n), True),
            {"value": value, "low": found.low, "high": found.high},
        )
    yield Trial(
        "shown: all of them",
        calls("shown", 1.0, 0.5, 1.0),
        card.shown(Estimate(1.0, 0.5, 1.0, 3, 3), True),
        {"value": 1.0, "low": 0.5, "high": 1.0},
    )
    above, below, within = "above chance", "below chance", "not significant"
    ends = [
        *((0.6, 0.8, 0.5, above), (0.1, 0.2, 0.25, below), (0.48, 0.562, 0.5, within)),
        *((0.2, 0.55, 0.5, within), (0.5, 0.7, 0.5, within), (0.3, 0.5, 0.5, within)),
        *((0.3, 0.4, 0.25, above), (0.2, 0.4, 0.25, within)),
    ]
    for low, high, chance, expected in ends:
        yield Trial(
            f"says: {low} to {high}, chance {chance}",
            calls("says", low, high, chance),
            expected,
            {"low": low, "high": high, "chance": chance},
        )
    tasks = ["winobias", "toxicity", "refusals", "core", "bbq"]  # not in alphabetical order
    for measured in (tasks[1:3], [], [*tasks[2:4], "a task of one's own"], list(tasks)):
        yield Trial(
            f"missing: {len(measured)} were measured",
            calls("missing", tasks, measured),
            account.missing(tasks, measured),
            {"tasks": tasks, "measured": measured},
        )
    alike = ["bbq", "toxicity", "bbq-age"]
    for measured in (["bbq-age"], ["bbq"], ["BBQ"]):
        yield Trial(
            f"missing: {measured[0]} was measured, with similar names",
            calls("missing", alike, measured),
            account.missing(alike, measured),
            {"tasks": alike, "measured": measured},
        )
