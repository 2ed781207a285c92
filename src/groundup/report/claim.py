"""Claims: a sentence, the measured difference that supports it, and the result of its test.

A difference counts only if its whole interval is on one side, in either direction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any, Literal

from groundup.report.estimate import Estimate
from groundup.report.table import Mark

Better = Literal["below", "above"]
Outcome = Literal["worse", "better", "not significant"]
OUTCOMES: tuple[Outcome, ...] = ("worse", "better", "not significant")
# The result for the claim itself, which may state that something is worse.
HELD: Mapping[Mark, str] = {"yes": "holds", "no": "does not hold", "open": "not significant"}
# Fewer groups agree by chance too often: 2 * 2^-5 is more than 5 %.
MIN_GROUPS = 6


def digits_of(*values: float) -> int:
    """Return the decimals for showing compared numbers: none for 25,742."""
    largest = max(map(abs, values))
    return 3 if largest < 100 else 1 if largest < 1_000 else 0


def mark_of(measured: Estimate, wanted: Better, level: float = 0.0) -> Mark:
    """Return whether an interval is on the wanted side of `level`, on the other, or on both."""
    lower, higher = measured.high < level, measured.low > level
    if not (lower or higher):
        return "open"
    return "yes" if lower == (wanted == "below") else "no"


@dataclass(frozen=True)
class Claim:
    """A claim, and the measured difference that must lie below or above `level` for it.

    `what` was measured for `model` and `other`, an earlier stage or an untrained baseline; without
    it the claim itself names the measure. `values` are the two numbers, the other's first. At least
    `fewest` independent rows are required; their number is `rows`, by default the number of groups.
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
    fewest: int = MIN_GROUPS
    rows: int | None = None

    @property
    def mark(self) -> Mark:
        """Whether the claim holds, its opposite holds, or the data allows both.

        With too few rows it is open, however much they agree.
        """
        rows = self.measured.groups if self.rows is None else self.rows
        return mark_of(self.measured, self.wanted, self.level) if rows >= self.fewest else "open"

    @property
    def outcome(self) -> Outcome:
        """Whether the model is worse or better than what it is compared with."""
        if self.mark == "open":
            return "not significant"
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
        """The two numbers and their difference with its interval."""
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
            "verdict": "not significant" if self.mark == "open" else self.mark,
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
        """Return the claim that `to_json` described, with default `rows` and `fewest`."""
        parts = ("claim", "unit", "wanted", "level", "what", "model", "other")
        ends = ("estimate", "low", "high", "items", "groups", "chance")
        values = found.get("values")
        return cls(
            measured=Estimate(**{name: found[name] for name in ends if name in found}),
            values=None if values is None else (values[0], values[1]),
            share=found.get("share", False),  # absent in earlier versions
            stages=found["between_stages"],
            **{name: found[name] for name in parts},
        )


def by_outcome(claims: Sequence[Claim]) -> dict[Outcome, list[Claim]]:
    """Group claims by outcome: worse first, then better, then those that are not significant."""
    return {outcome: [one for one in claims if one.outcome == outcome] for outcome in OUTCOMES}
