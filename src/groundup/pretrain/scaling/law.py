"""The loss as a law of parameters and tokens, and its fit (Hoffmann et al. 2022, approach 3).

    L(N, D) = E + A / N^α + B / D^β

E is the loss that no model gets below, the entropy of the text; A / N^α is due to the lack of size,
B / D^β to the lack of data. The law is fitted to logarithms, so that relative errors count equally
everywhere, with the Huber loss, so that a failed run has no more influence than a slightly
deviating one:

    min  Σ huber_δ(log Σ exp(log A - α log N, log B - β log D, log E) - log L),   δ = 0.001

by L-BFGS from a grid of starts. Intervals come from fits to resampled rows (Besiroglu et al. 2024).
With C = k N D operations the best sizes grow as N ∝ C^a and D ∝ C^b, a = β / (α + β).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float

from groundup.errors import UserError
from groundup.maths.intervals import Interval
from groundup.pretrain.scaling.table import Runs

_DELTA = 1e-3
# Starts: every pair of these exponents, with the three coefficients by least squares.
_EXPONENTS = (0.1, 0.25, 0.4, 0.6, 1.0)
_ITERATIONS = 400
# An outlier deviates by more than this many robust standard deviations and more than this share.
_FAR, _FAR_AT_ALL = 8.0, 0.03
# If more runs are outliers, the law does not describe the table, and none is dropped.
_MAX_OUTLIERS = 0.1
_MIN_RUNS = 6
_ENDS = (2.5, 97.5)
# Exponents beyond these are meaningless: one is flat, the other a cliff.
_FLATTEST, _STEEPEST = 1e-3, 20.0
# (log A, log B, log E, log α, log β), with A and B at the middle of the table. More size or data
# never hurts, so the exponents are positive.
_Theta = Float[np.ndarray, "5"]


@dataclass(frozen=True)
class Law:
    """L(N, D) = E + A / N^alpha + B / D^beta, in the unit of the table's loss."""

    E: float
    A: float
    B: float
    alpha: float
    beta: float

    def loss(self, parameters: Any, tokens: Any) -> Any:
        """The loss of models with these parameters after these tokens, as numbers or arrays."""
        return self.E + self.A * parameters**-self.alpha + self.B * tokens**-self.beta

    @property
    def a(self) -> float:
        """N_opt ∝ C^a."""
        return self.beta / (self.alpha + self.beta)

    @property
    def b(self) -> float:
        """D_opt ∝ C^b."""
        return self.alpha / (self.alpha + self.beta)

    def optimum(self, flops: float, flops_per_weight: float = 6.0) -> tuple[float, float]:
        """The parameters and tokens of least loss for C = flops (Hoffmann et al., equation 4).

        N = G (C / k)^a,  D = (C / k)^b / G,  G = (α A / β B)^(1 / (α + β))

        If size does not matter (A = 0), the best size is 0 and all compute goes into tokens.
        """
        with np.errstate(divide="ignore", over="ignore"):
            log_g = (np.log(self.alpha * self.A) - np.log(self.beta * self.B)) / (
                self.alpha + self.beta
            )
            product = np.log(flops / flops_per_weight)
            return float(np.exp(log_g + self.a * product)), float(np.exp(self.b * product - log_g))


@dataclass(frozen=True)
class LawFit:
    """A law fitted to runs, one more law for each resampling of the rows, and what was left out.

    `residuals` are differences of log L; `kept` marks the runs of the fit.
    """

    law: Law
    drawn: tuple[Law, ...]
    runs: Runs
    kept: Bool[np.ndarray, " runs"]
    residuals: Float[np.ndarray, " runs"]

    def interval(self, name: str) -> Interval:
        """The 95 % interval of E, A, B, alpha, beta, a or b."""
        values = [getattr(one, name) for one in self.drawn] or [getattr(self.law, name)]
        low, high = np.percentile(values, _ENDS)
        return Interval(getattr(self.law, name), float(low), float(high))

    def predicted(self, parameters: float, tokens: float, *, seed: int = 0) -> Interval:
        """The interval for the loss of another run: the law's uncertainty and a run's noise."""
        known = self.law, self.drawn, self.deviation, int(self.kept.sum())
        return predicted(*known, parameters, tokens, seed=seed)

    @property
    def used(self) -> Runs:
        """The runs of the fit."""
        return self.runs.chosen(self.kept)

    @property
    def deviation(self) -> float:
        """The standard deviation of runs around the law, as a share of their loss.

        The degrees of freedom account for the five fitted numbers.
        """
        kept = self.residuals[self.kept]
        return float(np.sqrt((kept**2).sum() / _freedom(len(kept))))

    def to_json(self) -> dict[str, Any]:
        names = ("E", "A", "B", "alpha", "beta", "a", "b")
        return {
            "law": asdict(self.law),
            "intervals": {name: vars(self.interval(name)) for name in names},
            "deviation": self.deviation,
            "runs": len(self.runs),
            "left_out": np.flatnonzero(~self.kept).tolist(),
            "range": {
                name: [float(values.min()), float(values.max())]
                for name, values in vars(self.used).items()
                if name != "losses"
            },
            "drawn": [list(asdict(one).values()) for one in self.drawn],
        }


def _freedom(runs: int) -> int:
    """The degrees of freedom of the deviation of `runs` runs around a law of five numbers."""
    return max(1, runs - 5)


def predicted(
    law: Law,
    drawn: tuple[Law, ...],
    deviation: float,
    runs: int,
    parameters: float,
    tokens: float,
    *,
    seed: int = 0,
) -> Interval:
    """The 95 % interval of a run's loss, from the law's uncertainty and a run's noise.

    The noise follows Student's t, because its deviation was estimated from few `runs`.
    """
    estimate = float(law.loss(parameters, tokens))
    laws = drawn or (law,)
    generator = np.random.default_rng(seed)
    picked = generator.integers(len(laws), size=4_000)
    means = np.array([one.loss(parameters, tokens) for one in laws])[picked]
    noise = deviation * generator.standard_t(_freedom(runs), 4_000)
    with np.errstate(over="ignore"):  # t of one degree has long tails
        low, high = np.percentile(means * np.exp(noise), _ENDS)
    return Interval(estimate, float(low), float(high))


def fit_law(
    runs: Runs, *, bootstraps: int, seed: int = 0, highest_left_out: int | None = None
) -> LawFit:
    """Fit the law to runs, with intervals from `bootstraps` resamplings of the rows.

    `highest_left_out` leaves out this many runs with the highest loss, as Besiroglu et al. did;
    by default outliers of the fit are left out. Raises `UserError` for too few runs.
    """
    _require_enough(runs, np.ones(len(runs), bool))
    if highest_left_out is not None:
        order = np.argsort(runs.losses)
        kept = np.ones(len(runs), bool)
        kept[order[max(0, len(runs) - highest_left_out) :]] = False
        _require_enough(runs, kept)
        law = _fitted(runs.chosen(kept))
    else:
        law = _fitted(runs)
        kept = _near(_residuals(law, runs))
        if not kept.all():
            _require_enough(runs, kept)
            law = _fitted(runs.chosen(kept))
    used = runs.chosen(kept)
    generator = np.random.default_rng(seed)
    drawn = []
    for _ in range(bootstraps):
        again = _resampled(used, generator)
        drawn.append(_descended(again, _nearest_start(again, law)))
    return LawFit(law, tuple(drawn), runs, kept, _residuals(law, runs))


def _require_enough(runs: Runs, kept: Bool[np.ndarray, " runs"]) -> None:
    used, lost = runs.chosen(kept), runs.chosen(~kept)
    sizes, lengths = len(np.unique(used.parameters)), len(np.unique(used.tokens))
    if len(used) >= _MIN_RUNS and min(sizes, lengths) >= 3:
        return
    left_out, remedy = "", ""
    if len(lost):
        first = f"N={lost.parameters[0]:.4g}, D={lost.tokens[0]:.4g}, loss={lost.losses[0]:.4g}"
        more = f" and {len(lost) - 1} more" if len(lost) > 1 else ""
        left_out, remedy = f" (left out: {first}{more})", ", or leave out none with --drop 0"
    raise UserError(
        f"{len(used)} runs of {sizes} sizes and {lengths} numbers of tokens do not determine a "
        f"law of five numbers{left_out}; give at least {_MIN_RUNS} runs of 3 sizes and 3 numbers "
        f"of tokens{remedy}"
    )


def _resampled(runs: Runs, generator: np.random.Generator) -> Runs:
    """As many rows, resampled with replacement until they determine a law."""
    while True:
        rows = generator.integers(len(runs), size=len(runs))
        again = Runs(runs.parameters[rows], runs.tokens[rows], runs.losses[rows], runs.flops[rows])
        if len(np.unique(again.parameters)) >= 3 and len(np.unique(again.tokens)) >= 3:
            return again


def _residuals(law: Law, runs: Runs) -> Float[np.ndarray, " runs"]:
    found: Float[np.ndarray, " runs"] = np.log(runs.losses) - np.log(
        law.loss(runs.parameters, runs.tokens)
    )
    return found


def _near(residuals: Float[np.ndarray, " runs"]) -> Bool[np.ndarray, " runs"]:
    """Which runs are not outliers."""
    deviation = 1.4826 * float(np.median(np.abs(residuals - np.median(residuals))))
    kept: Bool[np.ndarray, " runs"] = np.abs(residuals) <= max(_FAR * deviation, _FAR_AT_ALL)
    if (~kept).mean() > _MAX_OUTLIERS:
        return np.ones(len(residuals), bool)
    return kept


# Optimization.


@dataclass(frozen=True)
class _Table:
    """Logarithms of a table, centered so that A and α can be distinguished."""

    n: Float[np.ndarray, " runs"]
    d: Float[np.ndarray, " runs"]
    loss: Float[np.ndarray, " runs"]
    middle_n: float
    middle_d: float

    @classmethod
    def of(cls, runs: Runs) -> _Table:
        n, d = np.log(runs.parameters), np.log(runs.tokens)
        return cls(
            n - n.mean(), d - d.mean(), np.log(runs.losses), float(n.mean()), float(d.mean())
        )

    def law(self, theta: _Theta) -> Law:
        a, b, e = (float(one) for one in theta[:3])
        alpha, beta = (float(one) for one in np.exp(theta[3:]))
        log_a, log_b = a + alpha * self.middle_n, b + beta * self.middle_d
        coefficients = [float(np.exp(min(one, 700.0))) for one in (e, log_a, log_b)]
        return Law(coefficients[0], coefficients[1], coefficients[2], alpha, beta)

    def theta(self, law: Law) -> _Theta:
        e, a, b = np.log(np.maximum((law.E, law.A, law.B), 1e-300))
        a, b = a - law.alpha * self.middle_n, b - law.beta * self.middle_d
        return np.array([a, b, e, np.log(law.alpha), np.log(law.beta)])

    def value(self, theta: _Theta) -> tuple[float, _Theta]:
        """The objective divided by δ, and its gradient."""
        a, b, e = theta[:3]
        alpha, beta = np.exp(np.clip(theta[3:], np.log(_FLATTEST), np.log(_STEEPEST)))
        terms = np.stack([a - alpha * self.n, b - beta * self.d, np.full_like(self.n, e)])
        highest = terms.max(0)
        shares = np.exp(terms - highest)
        sums = shares.sum(0)
        off = highest + np.log(sums) - self.loss
        small = np.abs(off) <= _DELTA
        huber = np.where(small, off**2 / (2 * _DELTA), np.abs(off) - _DELTA / 2)
        slope = np.clip(off / _DELTA, -1, 1) * shares / sums
        gradient = np.array(
            [
                *slope.sum(1),
                -alpha * (slope[0] * self.n).sum(),
                -beta * (slope[1] * self.d).sum(),
            ]
        )
        return float(huber.sum()), gradient


def _starts(table: _Table) -> list[_Theta]:
    """For each pair of exponents, the coefficients with the least squared relative errors."""
    found, loss = [], np.exp(table.loss)
    least = 1e-3 * float(loss.min())
    for alpha in _EXPONENTS:
        for beta in _EXPONENTS:
            columns = [np.exp(-alpha * table.n), np.exp(-beta * table.d), np.ones_like(loss)]
            weighted = np.stack(columns, 1) / loss[:, None]
            solved = np.linalg.lstsq(weighted, np.ones_like(loss), rcond=None)[0]
            logs = np.log(np.maximum(solved, least))
            found.append(np.array([*logs, np.log(alpha), np.log(beta)]))
    return found


def _fitted(runs: Runs) -> Law:
    """The law with the least objective over all starts."""
    table = _Table.of(runs)
    ends = [_descent(table, start) for start in _starts(table)]
    return table.law(min(ends, key=lambda theta: table.value(theta)[0]))


def _nearest_start(runs: Runs, law: Law) -> _Theta:
    """The start for resampled rows: the law of all rows, or a better one of the grid."""
    table = _Table.of(runs)
    starts = [table.theta(law), *_starts(table)]
    return min(starts, key=lambda theta: table.value(theta)[0])


def _descended(runs: Runs, start: _Theta) -> Law:
    table = _Table.of(runs)
    return table.law(_descent(table, start))


def _descent(table: _Table, start: _Theta) -> _Theta:
    """Run L-BFGS with a line search (torch's) from `start` to a minimum."""
    theta = torch.from_numpy(start.copy())
    optimizer = torch.optim.LBFGS(
        [theta],
        max_iter=_ITERATIONS,
        tolerance_grad=1e-7,
        tolerance_change=1e-10,
        history_size=10,
        line_search_fn="strong_wolfe",
    )

    def closure() -> float:
        value, gradient = table.value(theta.numpy())
        theta.grad = torch.from_numpy(gradient)
        return value

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    end: _Theta = theta.numpy()
    if not np.isfinite(end).all():
        return start
    end[3:] = np.clip(end[3:], np.log(_FLATTEST), np.log(_STEEPEST))
    return end
