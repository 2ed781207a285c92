"""How does the loss depend on compute? Models of several budgets, a law, and a test of the law.

Runs of several budgets on an endless source (`source`) give a law of the loss (Hoffmann et al.
2022; `pretrain.scaling`): L = E + A / N^α + B / D^β. The law then gets two tests that a law of real
text rarely gets:

    before and after    the loss of a run with four times the compute is predicted, and written
                        down, before the run begins
    E and the truth     E is the lower bound of the loss, which is known for this source

A run stays at the loss of a one-token context until its attention finds the token before the last,
and then drops sharply. No power law describes that, so the law is fitted only to runs whose loss
has begun to drop, unless there are too few for a fit.

    RUN/plan.json         the budgets          RUN/prediction.json    what was predicted, and when
    RUN/runs              the runs, from which a stopped experiment resumes
"""

from __future__ import annotations

from pathlib import Path
from time import perf_counter
from typing import Any, NoReturn, cast

from groundup.errors import UserError
from groundup.experiments.config import ScalingLawConfig
from groundup.experiments.scaling.runs import (
    FIRST_RATIO,
    SIZES,
    TIMES,
    Trial,
    best_ratio,
    budget_runs,
    budgets,
    shape,
    tokens_of,
    train,
)
from groundup.experiments.scaling.source import CONTEXT, Source
from groundup.maths.intervals import Interval
from groundup.pretrain.scaling.isoflop import IsoFlop, fit_isoflop
from groundup.pretrain.scaling.law import LawFit, fit_law
from groundup.pretrain.scaling.report import (
    budget_table,
    fit_plot,
    frontier_plot,
    isoflop_plot,
    law_table,
)
from groundup.pretrain.scaling.table import Runs
from groundup.report.outcome import RESULT, threads_of_runs, working_in, write
from groundup.report.table import Cell, Table, short_number, text_table
from groundup.runs.console import say
from groundup.runs.files import is_number, is_sealed, read_sealed, write_sealed
from groundup.runs.request import utc_now

NAME = "scaling-law"
QUESTION = "How does the loss depend on size, data and compute, and can a run be predicted?"
_PIECES = ("plan.json", "prediction.json", "runs")
_INTERVAL = ("estimate", "low", "high")
_BOOTSTRAPS, _QUICK_BOOTSTRAPS = 500, 10
# The share of the gain from the token before the last that a run must reach to have begun to learn.
_BEGUN = 0.1


def run(config: ScalingLawConfig) -> Path:
    """Train the budgets, fit the law, predict the last run, run it, and write the results.

    Raises `UserError` for a folder with other files or other settings.
    """
    with working_in(config.out, NAME, _PIECES) as resumed:
        runs, finished = config.out.glob("runs/*"), (config.out / RESULT).is_file()
        threads = threads_of_runs(config.out, config.threads, runs, finished=finished)
        config = config.model_copy(update={"threads": threads})
        begun = perf_counter()
        source = Source.drawn(config.seed)
        flops = _planned(config, source)
        ratio, found = FIRST_RATIO, list[Trial]()
        for number, budget in enumerate(flops[:-1]):
            trials = budget_runs(config, source, number, budget, ratio)
            ratio = best_ratio(trials)
            found += trials
            best = min(trials, key=lambda one: one.loss)
            say(f"{budget:.2g} FLOPs: best {best.depth} x {best.width}, loss {best.loss:.4f}")
        used = past_plateau(found, source)
        waiting = [one for one in found if one not in used]
        try:
            fit, isoflop = fitted(config, used)
        except UserError:  # too few runs are left
            used = found
            fit, isoflop = fitted(config, used)
        size, predicted = prediction(config, fit, flops[-1])
        say(f"predicted for {flops[-1]:.2g} FLOPs, before it is run: {_words(predicted)}")
        last = train(config, source, len(flops) - 1, size, flops[-1])
        said = remarks(fit, isoflop, predicted, last, source) + left_out(fit, used)
        said += on_plateau(waiting, len(found), source, left_out=len(used) < len(found))
        tables = [tests_table(fit, predicted, last, source), law_table(fit, isoflop)]
        plots = [fit_plot(fit), frontier_plot(fit, isoflop)]
        if isoflop is not None:
            tables.append(budget_table(isoflop))
            plots.insert(0, isoflop_plot(fit, isoflop))
        return write(
            config,
            NAME,
            QUESTION,
            tables=tables,
            plots=plots,
            remarks=said,
            data={
                "entropy": source.entropy,
                "of_one_token": source.of_one_token,
                "budgets": flops,
                "runs": [vars(one) for one in found],
                "fit": fit.to_json(),
                "isoflop": None if isoflop is None else isoflop.to_json(),
                "predicted": predicted,
                "last": vars(last),
            },
            pieces=_PIECES,
            seconds=None if resumed else perf_counter() - begun,
            planned_by_clock=not config.quick,
        )


def _planned(config: ScalingLawConfig, source: Source) -> list[float]:
    """The budgets, as written when the experiment began."""
    path = config.out / "plan.json"
    asked = {"minutes": config.minutes, "quick": config.quick, "seed": config.seed}
    if not is_sealed(path):
        write_sealed(path, {**asked, "flops": budgets(config, source)})

    def checked(plan: dict[str, Any]) -> dict[str, Any]:
        if not _are_numbers(plan.get("flops")):
            _refuse(path)
        return plan

    plan = read_sealed(path, checked, say)
    if any(plan.get(name) != value for name, value in asked.items()):
        raise UserError(
            f"{config.out} was started with other minutes, seed or quick; give the same, or "
            "another --out"
        )
    return [float(one) for one in plan["flops"]]


def past_plateau(trials: list[Trial], source: Source) -> list[Trial]:
    """The runs that have begun to use the token before the last."""
    return [one for one in trials if one.loss < _limit(source)]


def _limit(source: Source) -> float:
    """The loss of a run that has reached a tenth of the gain from the token before the last."""
    return _BEGUN * source.entropy + (1 - _BEGUN) * source.of_one_token


def on_plateau(
    waiting: list[Trial], count: int, source: Source, *, left_out: bool = True
) -> list[str]:
    """A sentence about the runs that have not begun to drop, if any.

    They are left out of the law, unless too few runs would remain for a fit.
    """
    named = [f"{one.depth} x {one.width} of {one.flops:.2g} FLOPs" for one in waiting]
    near = (
        f"less than {_BEGUN:.0%} of the way from the loss of one token, {source.of_one_token:.3f}, "
        f"to the entropy, {source.entropy:.3f}"
    )
    if not left_out:
        return [
            "Too few runs have found the token before the last to fit a law to them: the law is "
            f"of all {count} runs, {len(named)} of them at or above {_limit(source):.3f}, "
            f"{near}, which no such law describes: {', '.join(named)}."
        ] * bool(named)
    return [
        f"The law leaves out {len(named)} of {count} runs that had not found the token before the "
        f"last, because they are at or above {_limit(source):.3f}, {near}: {', '.join(named)}."
    ] * bool(named)


def fitted(config: ScalingLawConfig, trials: list[Trial]) -> tuple[LawFit, IsoFlop | None]:
    """Fit the law and the IsoFLOP optima to these runs, with intervals."""
    runs = Runs.of(
        [float(one.parameters) for one in trials],
        [float(one.tokens) for one in trials],
        [one.loss for one in trials],
        [one.flops for one in trials],
    )
    again = _QUICK_BOOTSTRAPS if config.quick else _BOOTSTRAPS
    fit = fit_law(runs, bootstraps=again, seed=config.seed)
    return fit, fit_isoflop(runs.chosen(fit.kept), bootstraps=again, seed=config.seed)


def left_out(fit: LawFit, trials: list[Trial]) -> list[str]:
    """A sentence about the outliers that the law was fitted without, if any."""
    far = [
        f"{one.depth} x {one.width} of {one.flops:.2g} FLOPs ({off:+.1%})"
        for one, kept, off in zip(trials, fit.kept, fit.residuals, strict=True)
        if not kept
    ]
    return [f"Left out as outliers, {len(far)} of {len(trials)} runs: {', '.join(far)}."] * bool(
        far
    )


def best_size(fit: LawFit, flops: float) -> tuple[int, int]:
    """The size with the lowest predicted loss for these FLOPs."""
    return min(
        SIZES,
        key=lambda size: float(
            fit.law.loss(float(shape(size).parameters), float(tokens_of(size, flops)))
        ),
    )


def prediction(
    config: ScalingLawConfig, fit: LawFit, flops: float
) -> tuple[tuple[int, int], Interval]:
    """The size of the last run and its predicted loss, written down before the run begins.

    Both stay as written, even if a later fit would choose another size.
    """
    path = config.out / "prediction.json"
    if not is_sealed(path):
        size = best_size(fit, flops)
        n, d = float(shape(size).parameters), float(tokens_of(size, flops))
        found = fit.predicted(n, d, seed=config.seed)
        content: dict[str, Any] = {
            "size": list(size),
            "flops": flops,
            "written": utc_now(),
        }
        write_sealed(path, {**content, **vars(found)})

    def checked(kept: dict[str, Any]) -> tuple[tuple[int, int], Interval]:
        size, interval = kept.get("size"), [kept.get(name) for name in _INTERVAL]
        if not (isinstance(size, list) and tuple(size) in SIZES and _are_numbers(interval)):
            _refuse(path)
        depth, width = size
        return (depth, width), Interval(*map(float, cast("list[float]", interval)))

    return read_sealed(path, checked, say)


def _are_numbers(values: object) -> bool:
    return isinstance(values, list) and bool(values) and all(map(is_number, values))


def _refuse(path: Path) -> NoReturn:
    raise UserError(f"{path} is not what the experiment wrote; restore it, or choose another --out")


# Report.


def tests_table(fit: LawFit, predicted: Interval, last: Trial, source: Source) -> Table:
    """Predictions and results."""
    e = fit.interval("E")
    return text_table(
        "Predictions and results",
        ("", "by the law", "actual"),
        [
            (
                f"loss of {last.depth} x {last.width} after {short_number(last.tokens)} tokens\n"
                f"{last.flops:.2g} FLOPs, {TIMES:g} times the largest budget before",
                Cell(f"{predicted.estimate:.4f}", f"{predicted.low:.4f} to {predicted.high:.4f}"),
                f"{last.loss:.4f}",
            ),
            (
                "E, the lower bound of the loss\nnats per token",
                Cell(f"{e.estimate:.4f}", f"{e.low:.4f} to {e.high:.4f}"),
                f"{source.entropy:.4f}",
            ),
        ],
        remarks=(f"Rows have {CONTEXT} tokens. The source's entropy is computed, not measured.",),
    )


def remarks(
    fit: LawFit, isoflop: IsoFlop | None, predicted: Interval, last: Trial, source: Source
) -> list[str]:
    """Sentences computed from the numbers."""
    off = last.loss / predicted.estimate - 1
    inside = "within" if predicted.low <= last.loss <= predicted.high else "outside"
    e, truth = fit.interval("E"), source.entropy
    holds = "holds" if e.low <= truth <= e.high else "misses"
    said = [
        f"Predicted before the run: {_words(predicted)}. Its loss was {last.loss:.4f}, "
        f"{off:+.2%}, {inside} the interval.",
        f"By the law, no model gets below {_words(e)} nats per token. The true bound is "
        f"{truth:.4f}, which the interval {holds}.",
        f"The last run is {last.loss - truth:.4f} nats above the true bound.",
    ]
    a = fit.interval("a")
    said.append(
        f"With more compute C the best size grows as C^{a.estimate:.2f} ({a.low:.2f} to "
        f"{a.high:.2f}) by the law."
    )
    if isoflop is not None:
        left = [one for one in isoflop.budgets if one.why]
        if isoflop.a is not None:
            own = isoflop.a
            said.append(
                f"By the optima of the budgets it is C^{own.estimate:.2f} ({own.low:.2f} to "
                f"{own.high:.2f})."
            )
        said += [f"The budget of {one.flops:.2g} FLOPs {one.why}: it is left out." for one in left]
    said.append(
        "All runs are of one seed and one source: the intervals cover the choice of runs, but not "
        "another seed or another text."
    )
    said.append(
        f"{fit.kept.sum()} runs determine the exponents to about {(a.high - a.low) / 2:.2f}; the "
        "digits that papers print would need hundreds."
    )
    return said


def _words(value: Interval) -> str:
    return f"{value.estimate:.4f} ({value.low:.4f} to {value.high:.4f})"
