"""Where do two families of curves cross? The best of each size, against compute and against time.

A family's frontier is what its best size has come to with so much of a budget,

    L(C) = min over sizes of L_size(C)

between looks by a line over log C. Small sizes end early in FLOPs, and large ones begin late: it is
drawn as far as no size is missing that was the best where its own looks begin or end, for outside,
a family would be judged without the size that suits the budget. Where the difference of the
frontiers changes its sign for the last time, they cross; of each seed once, so that the place has
an interval over seeds (Student's, of log C).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from groundup.experiments.transformers.findings import (
    FEWEST_SEEDS,
    compared,
    intervals,
    number_cell,
    over,
)
from groundup.report.claim import Claim
from groundup.report.table import Cell, Table, short_number, text_table

_POINTS = 129
Values = Float[np.ndarray, " points"]


@dataclass(frozen=True)
class Curve:
    """Losses of one run at its looks, by what of the budget was used until then."""

    used: Sequence[float]
    losses: Sequence[float]

    def at(self, budgets: Values) -> Values:
        """Losses between looks by a line over the budget's logarithm; outside of them infinite."""
        outside = {"left": np.inf, "right": np.inf}
        found: Values = np.interp(np.log(budgets), np.log(self.used), self.losses, **outside)
        return found


# Of each seed the curves of all sizes.
Family = Sequence[Sequence[Curve]]


@dataclass(frozen=True)
class Race:
    """The frontiers of both families over one budget, FLOPs or seconds, on one text."""

    text: str
    unit: str
    budgets: Values
    lstm: Float[np.ndarray, "seeds points"]
    gpt: Float[np.ndarray, "seeds points"]

    @classmethod
    def of(cls, text: str, unit: str, lstm: Family, gpt: Family) -> Race | None:
        """The race as far as the frontiers of all seeds go; None if that is nowhere."""
        every = [reach(seed) for family in (lstm, gpt) for seed in family]
        low, high = max(low for low, _ in every), min(high for _, high in every)
        if low >= high:
            return None
        budgets = np.geomspace(low, high, _POINTS)
        return cls(text, unit, budgets, frontier(lstm, budgets), frontier(gpt, budgets))

    @property
    def crossings(self) -> list[float | None]:
        """Where the lead changes for the last time, of each seed; None where it never does."""
        return [last_change(self.budgets, lead) for lead in self.leads]

    @property
    def leads(self) -> Float[np.ndarray, "seeds points"]:
        """By how many nats the GPT is ahead."""
        lead: Float[np.ndarray, "seeds points"] = self.lstm - self.gpt
        return lead

    @property
    def winners(self) -> list[str]:
        """Who is ahead at the end, of each seed."""
        return ["GPT" if lead[-1] > 0 else "LSTM" for lead in self.leads]

    def shown(self, budget: float) -> str:
        return f"{short_number(budget)} {self.unit}"


def reach(sizes: Sequence[Curve]) -> tuple[float, float]:
    """Between which budgets no size is missing that was the best at its first or last look."""

    def is_best(one: Curve, budget: float) -> bool:
        at = [float(other.at(np.array([budget]))[0]) for other in sizes]
        return at[sizes.index(one)] <= min(at)

    return (
        max(one.used[0] for one in sizes if is_best(one, one.used[0])),
        min(one.used[-1] for one in sizes if is_best(one, one.used[-1])),
    )


def frontier(family: Family, budgets: Values) -> Float[np.ndarray, "seeds points"]:
    """The least loss of all sizes, of each seed."""
    least: Float[np.ndarray, "seeds points"] = np.array(
        [np.min([curve.at(budgets) for curve in seed], axis=0) for seed in family]
    )
    return least


def last_change(budgets: Values, lead: Values) -> float | None:
    """The budget where `lead` passes zero for the last time, by a line over its logarithm."""
    changes = np.flatnonzero((lead[1:] > 0) != (lead[:-1] > 0))
    if not len(changes):
        return None
    at = int(changes[-1])
    share = lead[at] / (lead[at] - lead[at + 1])
    low, high = np.log(budgets[at : at + 2])
    return float(np.exp(low + share * (high - low)))


# What is told of it.


def told(race: Race) -> str:
    """Where the frontiers cross, or that they do not, in a sentence."""
    if len(race.lstm) < FEWEST_SEEDS:
        return (
            "Of one seed nothing can be told: where the best GPT and the best LSTM cross on "
            f"{race.text} by {race.unit}."
        )
    found = [one for one in race.crossings if one is not None]
    seeds, winners = len(race.lstm), race.winners
    winner = winners[0]
    between = f"from {race.shown(race.budgets[0])} to {race.shown(race.budgets[-1])}"
    if len(set(winners)) == 1 and not found:
        return (
            f"On {race.text} there is no crossing in this budget: {between} the best {winner} is "
            "ahead with every seed."
        )
    if len(set(winners)) == 1 and len(found) == seeds:
        other = "LSTM" if winner == "GPT" else "GPT"
        return (
            f"On {race.text} the best {winner} is ahead of the best {other} with every seed, from "
            f"{where(race)} on; looked at {between}."
        )
    return (
        f"On {race.text} the lead changes with {len(found)} of {seeds} seeds {between}, and at the "
        f"end the GPT is ahead with {winners.count('GPT')}: where they cross cannot be told."
    )


def where(race: Race) -> str:
    """The place of the crossing with its interval over seeds."""
    found = [one for one in race.crossings if one is not None]
    place = over([float(np.log(one)) for one in found])
    shown = race.shown(float(np.exp(place.estimate)))
    if len(found) == 1:
        return shown
    low, high = (short_number(float(np.exp(min(end, 700.0)))) for end in (place.low, place.high))
    return f"{shown} ({low} to {high})"


def tested(race: Race) -> list[Claim]:
    """Who is ahead with the least of the budget, and with the most."""
    return [
        compared(
            f"on {race.text} the best GPT's loss is below the best LSTM's after "
            f"{race.shown(race.budgets[place])}",
            ("GPT", race.gpt[:, place].tolist()),
            ("LSTM", race.lstm[:, place].tolist()),
            "below",
        )
        for place in (0, -1)
    ]


def table(races: Sequence[Race]) -> Table:
    """A row for each text and budget: both frontiers at both ends, and where they cross."""
    return text_table(
        "The best LSTM against the best GPT",
        ("text and budget", "ends", "LSTM", "GPT", "crossing"),
        tuple(
            (
                f"{race.text}, {end} {race.unit}",
                race.shown(race.budgets[place]),
                number_cell(race.lstm[:, place].tolist()),
                number_cell(race.gpt[:, place].tolist()),
                _crossing_cell(race) if place else Cell(""),
            )
            for race in races
            for place, end in ((0, "least"), (-1, "most"))
        ),
        (
            "Held-out nats a token of the best size, as far as no size is missing that was the "
            "best of its family where its own looks begin or end. "
            "FLOPs are counted: 6 for every weight that a token is multiplied with, the head's "
            "too, and 12 for every feature of every score. Seconds are those of training steps, a "
            "run's median step times its steps.",
            *(intervals(len(race.lstm)) for race in races[:1]),
        ),
    )


def _crossing_cell(race: Race) -> Cell:
    found = [one for one in race.crossings if one is not None]
    if len(found) == len(race.lstm) and len(set(race.winners)) == 1:
        return Cell(where(race), f"{race.winners[0]} ahead beyond")
    if not found:
        return Cell("none", f"{' and '.join(sorted(set(race.winners)))} ahead")
    return Cell("cannot be told", f"{len(found)} of {len(race.lstm)} seeds cross")


def numbers(race: Race) -> Mapping[str, Any]:
    """The race for result.json, at every eighth point."""
    return {
        "text": race.text,
        "unit": race.unit,
        "budgets": race.budgets[::8].tolist(),
        "LSTM": race.lstm[:, ::8].tolist(),
        "GPT": race.gpt[:, ::8].tolist(),
        "crossings": race.crossings,
        "ahead_at_the_end": race.winners,
    }
