"""Conclusions in sentences, and notes on what weakens them.

A difference is claimed only if its 95 % interval excludes 0. Otherwise the interval says how large
an undetected difference could be: no proof of a loss is no proof that nothing was lost.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

from groundup.evals.benchmarks import seen_before
from groundup.evals.domain.costs import METHODS, held_out
from groundup.evals.domain.material import Domain
from groundup.evals.domain.measures import (
    ANSWER_BITS,
    LOSS,
    MIN_ROWS,
    informative_measures,
    perplexity,
    too_few,
    training_costs,
)
from groundup.evals.measure import Evaluated, Measure
from groundup.report.claim import Better, Claim, mark_of
from groundup.report.estimate import Estimate
from groundup.report.table import Mark
from groundup.runs.console import counted

# Budgets that differ by more than this are not called equal.
_EQUAL_BUDGET = 0.05


def claims(models: Sequence[Evaluated], domain: Domain | None = None) -> list[Claim]:
    """What every tuned model forgot and gained, then which of every two is better; what got worse
    comes first.

    Every informative measure is put to the same test, in both directions. Results from too few
    rows, of the `domain` or of general text, are left open.
    """
    parent, *tuned = models
    # Nats per token repeat bits per byte in a unit that depends on the tokenizer.
    judged = [measure for measure in informative_measures(models) if measure is not LOSS]
    found = [
        _of_change(model, parent, measure, domain)
        for model in tuned
        for measure in judged
        if measure.change(model, parent) is not None
    ]
    return sorted(found, key=lambda one: _FIRST.index(one.mark)) + [
        _of_two(one, other, measure, domain)
        for one, other in combinations(tuned, 2)
        for measure in judged
        if measure.change(one, other) is not None
    ]


# What got worse comes first, what is undecided last.
_FIRST: tuple[Mark, ...] = ("no", "yes", "open")


def _of_change(
    model: Evaluated, parent: Evaluated, measure: Measure[Any], domain: Domain | None
) -> Claim:
    before, after = measure.estimate(parent), measure.estimate(model)
    change = measure.change(model, parent)
    assert before is not None and after is not None and change is not None
    few = too_few(measure, change, domain)
    mark = mark_of(change, measure.better)
    meaning = _MEANING[measure.about][mark]
    if few is not None and mark != "open":
        mark, meaning = "open", _unproven(few, measure)
    if (model(training_costs).method, measure.about, mark) == (METHODS["qlora"], "general", "no"):
        meaning = "That was lost, to the 4 bits of its base or by forgetting."
    text = (
        f"{measure.sentence} {shown(after, measure)}, {shown(before, measure)} before: "
        f"{changed(change, measure)}. {meaning}"
    )
    if mark == "open" and few is None and measure.about == "general":
        text += f" {_unseen(change, measure)}"
    if measure is ANSWER_BITS:
        text += _perplexities(model, parent)
    about = f"{model.name} ({model(training_costs).method})"
    return _claim(text, change, measure, measure.better, about, few)


def _claim(
    text: str, change: Estimate, measure: Measure[Any], wanted: Better, about: str, few: int | None
) -> Claim:
    least = 1 if few is None else MIN_ROWS
    return Claim(text, change, measure.unit, wanted, what=about, fewest=least, rows=few)


_MEANING = {
    "domain": {
        "yes": "It learned the domain.",
        "no": "It got worse at its own domain.",
        "open": "The interval includes 0: no gain is shown.",
    },
    "general": {
        "yes": "It got better at what it was not tuned on.",
        "no": "That was forgotten.",
        "open": "The interval includes 0: no forgetting is shown.",
    },
}


def _unproven(rows: int, measure: Measure[Any]) -> str:
    if rows == 0:
        return "It was trained on these rows: that is memorization, and says nothing about others."
    kind = counted(rows, "held-out row" if measure.about == "domain" else "row")
    return f"{kind} {'proves' if rows == 1 else 'prove'} nothing, for better or worse."


def _perplexities(model: Evaluated, parent: Evaluated) -> str:
    after, before = LOSS.estimate(model), LOSS.estimate(parent)
    if after is None or before is None or LOSS.change(model, parent) is None:
        return ""
    before, after = perplexity(before), perplexity(after)
    return f" Perplexity: {before.estimate:.1f} before, {after.estimate:.1f} after."


def _of_two(
    one: Evaluated, other: Evaluated, measure: Measure[Any], domain: Domain | None
) -> Claim:
    difference = measure.change(one, other)
    assert difference is not None
    few = too_few(measure, difference, domain)
    wanted: Better = "above" if difference.estimate > 0 else "below"
    better = one.name if wanted == measure.better else other.name
    is_open = few is not None or mark_of(difference, wanted) == "open"
    result = "no difference is shown" if is_open else f"{better} is better"
    text = f"{measure.title}: {one.name} has {changed(difference, measure)}: {result}."
    return _claim(text, difference, measure, wanted, f"{one.name} against {other.name}", few)


def _unseen(change: Estimate, measure: Measure[Any]) -> str:
    """The largest loss that the interval does not exclude."""
    worst = max(0.0, -change.low if measure.better == "above" else change.high)
    return f"A loss of up to {amount(worst, measure)} is not excluded."


def shown(value: Estimate, measure: Measure[Any]) -> str:
    """A value with its unit: 1.140 bits, 62.0 %."""
    return (
        f"{100 * value.estimate:.1f} %"
        if measure.share
        else (f"{value.estimate:.3f} {measure.unit}")
    )


def amount(value: float, measure: Measure[Any]) -> str:
    """An amount of change with its unit: shares change by points."""
    return f"{100 * value:.1f} points" if measure.share else f"{value:.3f} {measure.unit}"


def changed(change: Estimate, measure: Measure[Any]) -> str:
    """A difference in words, with its interval: 0.214 bits less (0.190 to 0.240 less)."""
    direction = "more" if change.estimate > 0 else "less"
    scale, digits = (100, 1) if measure.share else (1, 3)
    low, high = (f"{scale * end:+.{digits}f}" for end in (change.low, change.high))
    if not round(scale * change.estimate, digits):
        return f"no more and no less ({low} to {high})"
    return f"{amount(abs(change.estimate), measure)} {direction} ({low} to {high})"


# Notes.


def notes(
    models: Sequence[Evaluated],
    children: Mapping[str, bool | None],
    domain: Domain | None = None,
) -> list[str]:
    """What makes the comparison weaker than it looks; `children` says whether each tuned model was
    trained from the first one, None if unknown."""
    first, *tuned = models
    found = [] if domain is None else _of_rows(domain)
    found += [
        f"{name} was not trained from {first.name} but from another model: the differences "
        "between them are not due to one fine-tuning alone"
        for name, is_child in children.items()
        if is_child is False
    ]
    tokens = {model.name: count for model in tuned if (count := model(training_costs).tokens)}
    if tokens and max(tokens.values()) > (1 + _EQUAL_BUDGET) * min(tokens.values()):
        listed = ", ".join(f"{name} {count:,}" for name, count in tokens.items())
        found.append(f"the budgets are not equal; tokens trained on: {listed}")
    for model in tuned:
        settings = {} if model.history is None else model.history.run["config"]
        if model.history is not None and held_out(model.history) == 0:
            found.append(
                f"{model.name} held nothing out of its data: it may have learned what is measured "
                "here as held out"
            )
        if settings.get("patience") is not None:
            found.append(
                f"{model.name} kept the weights that did best on held-out rows, which include "
                "these: the best of several evaluations is a little too good"
            )
        if share := _replayed(model):
            found.append(
                f"{model.name} replayed general text ({100 * share:.0f} % of its "
                "tokens): the Wikipedia texts here may resemble what it trained on"
            )
    seeds = {seed for model in tuned if (seed := model(training_costs).seed) is not None}
    if seeds:
        listed = ", ".join(map(str, sorted(seeds)))
        found.append(
            f"every method was trained once (seed {listed}): intervals cover these very models, "
            "not what other seeds would have given"
        )
    return found + _contamination(models)


def _of_rows(domain: Domain) -> list[str]:
    """What makes the domain's own rows weak evidence."""
    found = []
    if domain.trained:
        found.append(
            f"nothing is held out of the domain's {domain.rows:,} rows: the models are asked what "
            "they were trained on, which measures memorization only; for a proof train again with "
            "--validation 0.2, or give other rows as data"
        )
    elif domain.rows < MIN_ROWS:
        found.append(
            f"only {domain.rows} rows of the domain are held out, fewer than {MIN_ROWS}, which "
            "proves nothing, whatever their interval; give more rows, or train again with a larger "
            "--validation"
        )
    if domain.known:
        found.append(
            f"{domain.known:,} of {domain.rows:,} held-out rows have an answer that is also in the "
            "training data, the same or nearly: on these, memorization is measured"
        )
    return found


def _replayed(model: Evaluated) -> float:
    """The share of general text that a run replayed, from its plan or its settings."""
    if model.history is None:
        return 0.0
    layout = (model.history.plan or {}).get("layout") or model.history.run["config"]
    return float(layout.get("replay") or 0.0)


def _contamination(models: Sequence[Evaluated]) -> list[str]:
    """What runs trained on of the suite's own questions, with equal findings merged."""
    runs: dict[str, list[str]] = {}
    seen = ((one.called, one.what) for model in models for one in model(seen_before))
    for run, what in dict.fromkeys(seen):
        runs.setdefault(what, []).append(run)
    return [
        f"{', '.join(names)} {'was' if len(names) == 1 else 'were'} trained on {what}"
        for what, names in runs.items()
    ]
