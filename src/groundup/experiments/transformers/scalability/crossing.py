"""Where do two families of curves cross? The best size of each, over compute and over time.

A family's frontier is the loss of its best size at each budget,

    L(C) = min over sizes of L_size(C)

linearly interpolated over log C between evaluations. In FLOPs, small sizes end early and large ones
begin late. The frontier covers only budgets for which no size is missing that was the best where
its own evaluations begin or end; outside, the family would lack the size that suits the budget. The
frontiers cross where their difference changes its sign for the last time. Each seed gives one
crossing, so the place has an interval over seeds (Student's, of log C).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from groundup.experiments.transformers.findings import (
    MIN_SEEDS,
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
    """One run's losses at its evaluations, by the budget used until then."""

    used: Sequence[float]
    losses: Sequence[float]

    def at(self, budgets: Values) -> Values:
        """Losses interpolated linearly over the budget's logarithm; infinite outside the curve."""
        outside = {"left": np.inf, "right": np.inf}
        found: Values = np.interp(np.log(budgets), np.log(self.used), self.losses, **outside)
        return found


# For each seed, the curves of all sizes.
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
        """The race over the budgets that all seeds' frontiers cover; None if there are none."""
        every = [reach(seed) for family in (lstm, gpt) for seed in family]
        low, high = max(low for low, _ in every), min(high for _, high in every)
        if low >= high:
            return None
        budgets = np.geomspace(low, high, _POINTS)
        return cls(text, unit, budgets, frontier(lstm, budgets), frontier(gpt, budgets))

    @property
    def crossings(self) -> list[float | None]:
        """Where the lead changes for the last time, for each seed; None if it never does."""
        return [last_change(self.budgets, lead) for lead in self.leads]

    @property
    def leads(self) -> Float[np.ndarray, "seeds points"]:
        """The GPT's lead in nats."""
        lead: Float[np.ndarray, "seeds points"] = self.lstm - self.gpt
        return lead

    @property
    def winners(self) -> list[str]:
        """The family that is ahead at the end, for each seed."""
        return ["GPT" if lead[-1] > 0 else "LSTM" for lead in self.leads]

    def shown(self, budget: float) -> str:
        return f"{short_number(budget)} {self.unit}"


def reach(sizes: Sequence[Curve]) -> tuple[float, float]:
    """The budgets for which no size is missing that was best at its first or last point."""

    def is_best(one: Curve, budget: float) -> bool:
        at = [float(other.at(np.array([budget]))[0]) for other in sizes]
        return at[sizes.index(one)] <= min(at)

    return (
        max(one.used[0] for one in sizes if is_best(one, one.used[0])),
        min(one.used[-1] for one in sizes if is_best(one, one.used[-1])),
    )


def frontier(family: Family, budgets: Values) -> Float[np.ndarray, "seeds points"]:
    """The lowest loss of all sizes, for each seed."""
    least: Float[np.ndarray, "seeds points"] = np.array(
        [np.min([curve.at(budgets) for curve in seed], axis=0) for seed in family]
    )
    return least


def last_change(budgets: Values, lead: Values) -> float | None:
    """The budget where `lead` last crosses zero, interpolated linearly over its logarithm."""
    changes = np.flatnonzero((lead[1:] > 0) != (lead[:-1] > 0))
    if not len(changes):
        return None
    at = int(changes[-1])
    share = lead[at] / (lead[at] - lead[at + 1])
    low, high = np.log(budgets[at : at + 2])
    return float(np.exp(low + share * (high - low)))


# Report.


def sentence(race: Race) -> str:
    """A sentence about where the frontiers cross, or that they do not."""
    if len(race.lstm) < MIN_SEEDS:
        return (
            "One seed allows no conclusion: where the best GPT and the best LSTM cross on "
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
            f"{where(race)} on; measured {between}."
        )
    return (
        f"On {race.text} the lead changes with {len(found)} of {seeds} seeds {between}, and at the "
        f"end the GPT is ahead with {winners.count('GPT')}: the crossing is not determined."
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
    """Claims about the lead at the smallest and at the largest budget."""
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
    """Rows per text and budget: both frontiers at both ends, and where they cross."""
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
            for place, end in ((0, "smallest"), (-1, "largest"))
        ),
        (
            "Held-out nats per token of the best size, for budgets at which no size is missing "
            "that was the best of its family where its own evaluations begin or end. FLOPs are 6 "
            "for every weight that a token is multiplied with, including the head's, and 12 for "
            "every feature of every score. Seconds are those of training steps: a run's median "
            "step times its number of steps.",
            *(intervals(len(race.lstm)) for race in races[:1]),
        ),
    )


def _crossing_cell(race: Race) -> Cell:
    found = [one for one in race.crossings if one is not None]
    if len(found) == len(race.lstm) and len(set(race.winners)) == 1:
        return Cell(where(race), f"{race.winners[0]} ahead beyond")
    if not found:
        return Cell("none", f"{' and '.join(sorted(set(race.winners)))} ahead")
    return Cell("not determined", f"{len(found)} of {len(race.lstm)} seeds cross")


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
