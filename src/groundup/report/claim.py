"""Claims: a sentence, the measured difference that it rests on, and how its test came out.

A difference holds only if its whole interval lies on one side, and it holds in either direction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any, Literal

from groundup.report.estimate import Estimate
from groundup.report.table import Mark

Better = Literal["below", "above"]
Outcome = Literal["worse", "better", "cannot be told"]
OUTCOMES: tuple[Outcome, ...] = ("worse", "better", "cannot be told")
# What a test says of the claim itself, where the claim may be that something is worse.
HELD: Mapping[Mark, str] = {"yes": "holds", "no": "does not hold", "open": "cannot be told"}
# With fewer groups that all agree, chance alone does so too often: 2 * 2^-5 is more than 5 %.
FEWEST_GROUPS = 6


def digits_of(*values: float) -> int:
    """How many digits behind the point two compared numbers are shown with: 25,742 has none."""
    largest = max(map(abs, values))
    return 3 if largest < 100 else 1 if largest < 1_000 else 0


def mark_of(measured: Estimate, wanted: Better, level: float = 0.0) -> Mark:
    """Whether an interval lies on the wanted side of `level`, on the other, or on both."""
    lower, higher = measured.high < level, measured.low > level
    if not (lower or higher):
        return "open"
    return "yes" if lower == (wanted == "below") else "no"


@dataclass(frozen=True)
class Claim:
    """A claim, and the measured difference that must lie below or above `level` for it.

    `what` was measured of `model` and of `other`, an earlier stage or something that needs no
    training; without it the claim itself says what. `values` are the two numbers, the other's
    first. Nothing is proven by fewer than `fewest` independent rows, of which there are as many as
    the difference has groups, or `rows`.
    """

    claim: str
    measured: Estimate
    unit: str
    wanted: Better
    level: float = 0.0
    what: str = ""
    model: str = ""
    other: str = ""
    values: tuple[float, float] | None = None
    share: bool = False
    stages: bool = False
    fewest: int = FEWEST_GROUPS
    rows: int | None = None

    @property
    def mark(self) -> Mark:
        """Whether the claim holds, its contrary does, or the data allows both.

        Of a handful of rows nothing can be told, however much they agree.
        """
        rows = self.measured.groups if self.rows is None else self.rows
        return mark_of(self.measured, self.wanted, self.level) if rows >= self.fewest else "open"

    @property
    def outcome(self) -> Outcome:
        """Whether the model is worse or better than what it is compared with."""
        if self.mark == "open":
            return "cannot be told"
        return "better" if self.mark == "yes" else "worse"

    @property
    def title(self) -> str:
        """What was measured or, of a claim that names nothing, its sentence."""
        return self.what or self.claim

    @property
    def shown(self) -> str:
        """What stands after the title: the two that are compared and the numbers, or the rest."""
        if self.values is None:
            return self.claim if self.what else self.change
        return f"{self.model} against {self.other}, {self.change}"

    @property
    def change(self) -> str:
        """From which number to which, and by how much with the interval."""
        digits, scale, unit = (
            (1, 100, " points") if self.share else (3, 1, f" {self.unit}".rstrip())
        )
        if not self.share and self.values is not None:
            digits = digits_of(*self.values)
        low, high, change = (
            f"{scale * (value - self.level):+,.{digits}f}"
            for value in (self.measured.low, self.measured.high, self.measured.estimate)
        )
        known = -inf < self.measured.low < self.measured.high < inf
        interval = f"interval {low} to {high}" if known else "no interval"
        between = f"{change}{unit}, {interval}"
        if self.values is None:
            return between
        before, after = (
            f"{scale * v:,.{digits}f}{' %' if self.share else ''}" for v in self.values
        )
        return f"{before} → {after} ({between})"

    def to_json(self) -> dict[str, Any]:
        found: dict[str, Any] = {
            "claim": self.claim,
            "verdict": "cannot be told" if self.mark == "open" else self.mark,
            "outcome": self.outcome,
            "wanted": self.wanted,
            "level": self.level,
            "unit": self.unit,
            "what": self.what,
            "model": self.model,
            "other": self.other,
            "between_stages": self.stages,
            "share": self.share,
            **self.measured.to_json(),
        }
        return found if self.values is None else found | {"values": list(self.values)}

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Claim:
        """The claim that `to_json` told of; of as many rows as it has groups, at least `fewest`."""
        parts = ("claim", "unit", "wanted", "level", "what", "model", "other")
        ends = ("estimate", "low", "high", "items", "groups", "chance")
        values = found.get("values")
        return cls(
            measured=Estimate(**{name: found[name] for name in ends if name in found}),
            values=None if values is None else (values[0], values[1]),
            share=found.get("share", False),  # which earlier versions did not say
            stages=found["between_stages"],
            **{name: found[name] for name in parts},
        )


def by_outcome(claims: Sequence[Claim]) -> dict[Outcome, list[Claim]]:
    """What got worse first, then what got better, then what cannot be told."""
    return {outcome: [one for one in claims if one.outcome == outcome] for outcome in OUTCOMES}
