"""What does compute buy? Models of many sizes with the same FLOPs, a law, and a test of the law.

Runs of several budgets on a source without end (`source`) give a law of the loss (Hoffmann et al.
2022; `pretrain.scaling`): L = E + A / N^α + B / D^β. Then it is put to two tests that a law of real
text is hardly ever put to:

    before and after    the loss of a run with four times the compute is predicted, and written
                        down, before the run begins
    E and the truth     E is what no model gets below; of this source it is known

A run stays at the loss of one token until its attention finds the token before it, and then falls
off a cliff. No power law knows that, so the law is of the runs that have begun to fall, unless they
are too few to tell one.

    RUN/plan.json         the budgets          RUN/prediction.json    what was predicted, and when
    RUN/runs              the runs, from which a stopped experiment goes on
"""

from __future__ import annotations

from pathlib import Path
from time import perf_counter
from typing import Any

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
from groundup.report.outcome import RESULT, begun_threads, check_folder, write
from groundup.report.table import Cell, Table, short_number, text_table
from groundup.runs.console import say
from groundup.runs.files import read_json_object, write_json
from groundup.runs.folder import utc_now

NAME = "scaling-law"
QUESTION = "What do size, data and compute buy, and can a loss be told before the run?"
_PIECES = ("plan.json", "prediction.json", "runs")
_BOOTSTRAPS, _QUICK_BOOTSTRAPS = 500, 10
# The share of what the token before the last tells below which a run has not begun to learn it.
_BEGUN = 0.1


def run(config: ScalingLawConfig) -> Path:
    """Train the budgets, fit the law, predict the last run, run it, and write what came of it.

    Raises `UserError` for a folder of something else, or of other settings.
    """
    resumed = check_folder(config.out, NAME, _PIECES)
    runs, finished = config.out.glob("runs/*"), (config.out / RESULT).is_file()
    threads = begun_threads(config.out, config.threads, runs, finished=finished)
    config = config.model_copy(update={"threads": threads})
    begun = perf_counter()
    config.out.mkdir(parents=True, exist_ok=True)
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
    except UserError:  # too few are left
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
            "runs": [one.to_json() for one in found],
            "fit": fit.to_json(),
            "isoflop": None if isoflop is None else isoflop.to_json(),
            "predicted": predicted,
            "last": last.to_json(),
        },
        pieces=_PIECES,
        seconds=None if resumed else perf_counter() - begun,
        planned_by_clock=not config.quick,
    )


def _planned(config: ScalingLawConfig, source: Source) -> list[float]:
    """The budgets, as they were written when the experiment began."""
    path = config.out / "plan.json"
    asked = {"minutes": config.minutes, "quick": config.quick, "seed": config.seed}
    if not path.is_file():
        write_json(path, {**asked, "flops": budgets(config, source)})
    plan = read_json_object(path)
    if any(plan.get(name) != value for name, value in asked.items()):
        raise UserError(
            f"{config.out} was begun with other minutes, seed or quick; give the same, or another "
            "--out"
        )
    return [float(one) for one in plan["flops"]]


def past_plateau(trials: list[Trial], source: Source) -> list[Trial]:
    """The runs that have begun to use the token before the last."""
    return [one for one in trials if one.loss < _limit(source)]


def _limit(source: Source) -> float:
    """The loss below which a run has made a tenth of the way that the token before the last is
    worth."""
    return _BEGUN * source.entropy + (1 - _BEGUN) * source.of_one_token


def on_plateau(
    waiting: list[Trial], count: int, source: Source, *, left_out: bool = True
) -> list[str]:
    """Which of so many runs have not begun, in a sentence if any.

    They are left out of the law, or are in it where without them too few are left to tell one.
    """
    named = [f"{one.depth} x {one.width} of {one.flops:.2g} FLOPs" for one in waiting]
    near = (
        f"less than {_BEGUN:.0%} of the way from the loss of one token, {source.of_one_token:.3f}, "
        f"to the entropy, {source.entropy:.3f}"
    )
    if not left_out:
        return [
            "Too few runs have found the token before the last to tell a law of them: the law is "
            f"of all {count} runs, {len(named)} of them at or above {_limit(source):.3f}, "
            f"{near}, which no such law knows: {', '.join(named)}."
        ] * bool(named)
    return [
        f"The law is without {len(named)} of {count} runs that had not found the token before the "
        f"last, for they are at or above {_limit(source):.3f}, {near}: {', '.join(named)}."
    ] * bool(named)


def fitted(config: ScalingLawConfig, trials: list[Trial]) -> tuple[LawFit, IsoFlop | None]:
    """The law of these runs and their optima, with intervals."""
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
    """Which runs lie so far off the law that it was fitted without them, in a sentence if any."""
    far = [
        f"{one.depth} x {one.width} of {one.flops:.2g} FLOPs ({off:+.1%})"
        for one, kept, off in zip(trials, fit.kept, fit.residuals, strict=True)
        if not kept
    ]
    return [f"Left out as outliers, {len(far)} of {len(trials)} runs: {', '.join(far)}."] * bool(
        far
    )


def best_size(fit: LawFit, flops: float) -> tuple[int, int]:
    """The size that the law expects the least loss of with so many FLOPs."""
    return min(
        SIZES,
        key=lambda size: float(
            fit.law.loss(float(shape(size).parameters), float(tokens_of(size, flops)))
        ),
    )


def prediction(
    config: ScalingLawConfig, fit: LawFit, flops: float
) -> tuple[tuple[int, int], Interval]:
    """The size of the last run and its loss, written down before it begins.

    Both stay as they were written, whatever size a later fit would choose.
    """
    path = config.out / "prediction.json"
    if not path.is_file():
        size = best_size(fit, flops)
        n, d = float(shape(size).parameters), float(tokens_of(size, flops))
        found = fit.predicted(n, d, seed=config.seed)
        content: dict[str, Any] = {
            "size": list(size),
            "flops": flops,
            "written": utc_now(),
        }
        write_json(path, {**content, **vars(found)})
    kept = read_json_object(path)
    depth, width = kept["size"]
    found = Interval(*(float(kept[name]) for name in ("estimate", "low", "high")))
    return (int(depth), int(width)), found


# Words.


def tests_table(fit: LawFit, predicted: Interval, last: Trial, source: Source) -> Table:
    """What was said beforehand, and what came of it."""
    e = fit.interval("E")
    return text_table(
        "Said beforehand, and what came of it",
        ("", "by the law", "in truth"),
        [
            (
                f"loss of {last.depth} x {last.width} after {short_number(last.tokens)} tokens\n"
                f"{last.flops:.2g} FLOPs, {TIMES:g} times the most before",
                Cell(f"{predicted.estimate:.4f}", f"{predicted.low:.4f} to {predicted.high:.4f}"),
                f"{last.loss:.4f}",
            ),
            (
                "E, what no model gets below\nnats a token",
                Cell(f"{e.estimate:.4f}", f"{e.low:.4f} to {e.high:.4f}"),
                f"{source.entropy:.4f}",
            ),
        ],
        remarks=(f"Rows have {CONTEXT} tokens. The source's entropy is computed, not measured.",),
    )


def remarks(
    fit: LawFit, isoflop: IsoFlop | None, predicted: Interval, last: Trial, source: Source
) -> list[str]:
    """What the numbers say."""
    off = last.loss / predicted.estimate - 1
    inside = "within" if predicted.low <= last.loss <= predicted.high else "outside"
    e, truth = fit.interval("E"), source.entropy
    holds = "holds" if e.low <= truth <= e.high else "misses"
    said = [
        f"Predicted before the run: {_words(predicted)}. It came to {last.loss:.4f}, "
        f"{off:+.2%}, {inside} the interval.",
        f"The law says that no model gets below {_words(e)} nats a token. The truth is "
        f"{truth:.4f}, which the interval {holds}.",
        f"The last run is {last.loss - truth:.4f} nats above the truth.",
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
        "All runs are of one seed and of one source: the intervals say what other runs among these "
        "would have told, and nothing of another seed or another text."
    )
    said.append(
        f"{fit.kept.sum()} runs tell the exponents to about {(a.high - a.low) / 2:.2f}; hundreds "
        "would be needed for the digits that are printed in papers."
    )
    return said


def _words(value: Interval) -> str:
    return f"{value.estimate:.4f} ({value.low:.4f} to {value.high:.4f})"
