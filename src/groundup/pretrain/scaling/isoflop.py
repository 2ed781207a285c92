"""The best size for each budget of FLOPs, from the runs (Hoffmann et al. 2022, approach 2).

Models of several sizes are trained with the same FLOPs C. Their losses over log N are close to a
parabola, whose minimum is the best size for C. A power law is fitted to the minima of all budgets:

    log L(N) = c0 + c1 log N + c2 (log N)²      N_opt(C) = exp(-c1 / (2 c2)) ∝ C^a,  D_opt(C) ∝ C^b

A budget whose best run is its smallest or largest has no optimum between its runs and is left out.
Intervals come from simulated losses, with noise of the runs' deviation around each parabola.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from groundup.maths.intervals import Interval
from groundup.pretrain.scaling.table import Runs

# Runs form a budget if neighboring FLOPs differ by at most the first factor, and all by the second.
_STEP, _SPREAD = 1.12, 1.6
# A parabola has three parameters.
_MIN_SIZES = 4
_ENDS = (2.5, 97.5)


@dataclass(frozen=True)
class Budget:
    """One budget's runs and their parabola; `why` is the reason if it has no optimum."""

    flops: float
    rows: Int[np.ndarray, " runs"]
    coefficients: Float[np.ndarray, "3"]
    parameters: float
    tokens: float
    loss: float
    why: str = ""


@dataclass(frozen=True)
class PowerLaw:
    """y = exp(log_factor) x^exponent."""

    log_factor: float
    exponent: float

    def __call__(self, x: Any) -> Any:
        return np.exp(self.log_factor + self.exponent * np.log(x))


@dataclass(frozen=True)
class IsoFlop:
    """The budgets, and the power laws through their optima with intervals of the exponents.

    With fewer than two optima there are no laws: `parameters` and `tokens` are None.
    """

    budgets: tuple[Budget, ...]
    parameters: PowerLaw | None
    tokens: PowerLaw | None
    a: Interval | None
    b: Interval | None

    @property
    def used(self) -> list[Budget]:
        return [one for one in self.budgets if not one.why]

    def to_json(self) -> dict[str, Any]:
        return {
            "budgets": [
                {
                    "flops": one.flops,
                    "runs": len(one.rows),
                    "parameters": None if one.why else one.parameters,
                    "tokens": None if one.why else one.tokens,
                    "loss": None if one.why else one.loss,
                    "left_out": one.why or None,
                }
                for one in self.budgets
            ],
            "a": None if self.a is None else vars(self.a),
            "b": None if self.b is None else vars(self.b),
            "parameters": None if self.parameters is None else vars(self.parameters),
            "tokens": None if self.tokens is None else vars(self.tokens),
        }


def fit_isoflop(runs: Runs, *, bootstraps: int, seed: int = 0) -> IsoFlop | None:
    """Find the budgets of a table and fit their optima; None if its runs share no budgets."""
    groups = [rows for rows in _groups(runs) if len(np.unique(runs.parameters[rows])) >= 3]
    # Unrelated runs may be close together by chance.
    if sum(map(len, groups)) < len(runs) / 2:
        return None
    budgets = tuple(_budget(runs, rows, np.log(runs.losses[rows])) for rows in groups)
    laws = _laws(budgets)
    if laws is None:
        return IsoFlop(budgets, None, None, None, None)
    exponents = _bootstrapped(runs, budgets, bootstraps, np.random.default_rng(seed))
    a, b = (
        Interval(law.exponent, *(float(end) for end in np.percentile(found, _ENDS)))
        for law, found in zip(laws, np.transpose(exponents), strict=True)
    )
    return IsoFlop(budgets, *laws, a, b)


def _groups(runs: Runs) -> list[Int[np.ndarray, " runs"]]:
    """Groups of rows with the same FLOPs, from the smallest budget to the largest."""
    order = np.argsort(runs.flops, kind="stable")
    breaks = np.flatnonzero(np.diff(np.log(runs.flops[order])) > np.log(_STEP)) + 1
    found = np.split(order, breaks)
    return [one for one in found if runs.flops[one].max() <= _SPREAD * runs.flops[one].min()]


def _budget(
    runs: Runs, rows: Int[np.ndarray, " runs"], log_losses: Float[np.ndarray, " runs"]
) -> Budget:
    sizes, lengths = np.log(runs.parameters[rows]), np.log(runs.tokens[rows])
    flops = float(np.exp(np.log(runs.flops[rows]).mean()))
    nothing = Budget(flops, rows, np.zeros(3), np.nan, np.nan, np.nan)
    if len(np.unique(sizes)) < _MIN_SIZES:
        return replace(nothing, why=f"has fewer than {_MIN_SIZES} sizes")
    middle = sizes.mean()
    c2, c1, c0 = np.polyfit(sizes - middle, log_losses, 2)
    # Convert to coefficients of a polynomial in log N itself.
    coefficients = np.array([c2, c1 - 2 * c2 * middle, c0 - c1 * middle + c2 * middle**2])
    least = sizes[np.argmin(log_losses)]
    if c2 <= 0:
        return replace(nothing, coefficients=coefficients, why="has no lowest point")
    lowest = middle - c1 / (2 * c2)
    if least in (sizes.min(), sizes.max()) or not sizes.min() < lowest < sizes.max():
        end = "smallest" if least == sizes.min() or lowest <= sizes.min() else "largest"
        return replace(nothing, coefficients=coefficients, why=f"is best at its {end} size")
    slope, at = np.polyfit(sizes - middle, lengths, 1)
    return Budget(
        flops,
        rows,
        coefficients,
        float(np.exp(lowest)),
        float(np.exp(at + slope * (lowest - middle))),
        float(np.exp(c0 - c1**2 / (4 * c2))),
    )


def _laws(budgets: Sequence[Budget]) -> tuple[PowerLaw, PowerLaw] | None:
    """Power laws of the best parameters and tokens over the FLOPs; None with too few optima."""
    used = [one for one in budgets if not one.why]
    if len(used) < 2:
        return None
    flops = np.log([one.flops for one in used])
    laws = []
    for values in ([one.parameters for one in used], [one.tokens for one in used]):
        exponent, log_factor = np.polyfit(flops, np.log(values), 1)
        laws.append(PowerLaw(float(log_factor), float(exponent)))
    return laws[0], laws[1]


def _bootstrapped(
    runs: Runs, budgets: Sequence[Budget], bootstraps: int, generator: np.random.Generator
) -> Float[np.ndarray, "bootstraps 2"]:
    """The exponents of parameters and tokens for simulated losses around the parabolas."""
    used = [one for one in budgets if not one.why]
    curves = [np.polyval(one.coefficients, np.log(runs.parameters[one.rows])) for one in used]
    off = [np.log(runs.losses[one.rows]) - curve for one, curve in zip(used, curves, strict=True)]
    freedom = sum(len(one) - 3 for one in off)
    deviation = float(np.sqrt(sum((one**2).sum() for one in off) / freedom))
    found = []
    for _ in range(bootstraps):
        again = [
            _budget(runs, one.rows, curve + generator.normal(0, deviation, len(curve)))
            for one, curve in zip(used, curves, strict=True)
        ]
        if (laws := _laws(again)) is not None:
            found.append([law.exponent for law in laws])
    own = _laws(used)
    assert own is not None
    return np.array(found or [[law.exponent for law in own]])
