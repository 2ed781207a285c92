"""What may be said of the numbers in words, and what is to be known before one believes them.

A difference is called one only where its 95 % interval leaves 0 out. Where it does not, the
interval says how much could still be there unseen: no proof of a loss is no proof that nothing was
lost.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

from groundup.evals.tuning import Tuned
from groundup.evals.tuning_facts import METHODS, held_out
from groundup.evals.tuning_material import Domain
from groundup.evals.tuning_measures import (
    LEAST_ROWS,
    MEASURES,
    Measure,
    perplexity,
    told,
    too_few,
)
from groundup.report.estimate import Estimate

Kind = Literal["yes", "no", "open"]
# Budgets that differ by more than this are not called equal.
_EQUAL_BUDGET = 0.05


@dataclass(frozen=True)
class Verdict:
    """A sentence, and how it turned out: yes, no, or open where the data does not tell."""

    about: str
    kind: Kind
    text: str


def verdicts(models: Sequence[Tuned], domain: Domain | None = None) -> list[Verdict]:
    """Of every tuned model what it forgot and gained, then of every two which is better; what got
    worse comes first.

    Every measure that says something is put to the same test, for better and for worse. What few
    held-out rows of the `domain` show is left open.
    """
    parent, *tuned = models
    # Nats per token are bits per byte again, in a unit that hangs on the tokenizer.
    judged = [measure for measure in told(models) if measure.key != "loss"]
    found = [
        _of_change(model, parent, measure, domain)
        for model in tuned
        for measure in judged
        if measure.minus(model, parent) is not None
    ]
    return sorted(found, key=lambda one: _FIRST.index(one.kind)) + [
        _of_two(one, other, measure, domain)
        for one, other in combinations(tuned, 2)
        for measure in judged
        if measure.minus(one, other) is not None
    ]


# What got worse is read first, what nobody can tell last.
_FIRST: tuple[Kind, ...] = ("no", "yes", "open")


def _of_change(model: Tuned, parent: Tuned, measure: Measure, domain: Domain | None) -> Verdict:
    before, after, change = measure.of(parent), measure.of(model), measure.minus(model, parent)
    assert before is not None and after is not None and change is not None
    few = too_few(measure, change, domain)
    kind = kind_of(change, measure)
    meaning = _MEANING[measure.about][kind]
    if few is not None and kind != "open":
        kind, meaning = "open", _unproven(few)
    if (model.costs.method, measure.about, kind) == (METHODS["qlora"], "general", "no"):
        meaning = "That was lost, to the 4 bits of its base or by forgetting."
    text = (
        f"{measure.what} {shown(after, measure)}, {shown(before, measure)} before: "
        f"{changed(change, measure)}. {meaning}"
    )
    if kind == "open" and measure.about == "general":
        text += f" {_unseen(change, measure)}"
    if measure.key == "bits_per_byte" and model.loss is not None and parent.loss is not None:
        text += _perplexities(model, parent)
    return Verdict(f"{model.name} ({model.costs.method})", kind, text)


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


def _unproven(rows: int) -> str:
    if rows == 0:
        return "It was trained on these rows: that is memory, and says nothing of others."
    return f"Of {rows} held-out rows that proves nothing, for better or worse."


def _perplexities(model: Tuned, parent: Tuned) -> str:
    loss = next(measure for measure in MEASURES if measure.key == "loss")
    after, before = loss.of(model), loss.of(parent)
    if after is None or before is None or loss.minus(model, parent) is None:
        return ""
    before, after = perplexity(before), perplexity(after)
    return f" Perplexity: {before.estimate:.1f} before, {after.estimate:.1f} after."


def _of_two(one: Tuned, other: Tuned, measure: Measure, domain: Domain | None) -> Verdict:
    difference = measure.minus(one, other)
    assert difference is not None
    few = too_few(measure, difference, domain) is not None
    kind: Kind = "open" if few or includes_zero(difference) else "yes"
    first_better = (difference.estimate > 0) == measure.more_is_better
    better = one.name if first_better else other.name
    result = f"{better} is better" if kind == "yes" else "no difference is shown"
    text = f"{measure.title}: {one.name} has {changed(difference, measure)}: {result}."
    return Verdict(f"{one.name} against {other.name}", kind, text)


def includes_zero(change: Estimate) -> bool:
    """Whether the interval of a difference allows for none."""
    return change.low <= 0 <= change.high


def kind_of(change: Estimate, measure: Measure) -> Kind:
    """Better, worse, or open."""
    if includes_zero(change):
        return "open"
    return "yes" if (change.estimate > 0) == measure.more_is_better else "no"


def _unseen(change: Estimate, measure: Measure) -> str:
    """How much worse it may be for all that one knows."""
    worst = max(0.0, -change.low if measure.more_is_better else change.high)
    return f"Up to {amount(worst, measure)} could be lost without being seen here."


def shown(value: Estimate, measure: Measure) -> str:
    """A value in its unit: 1.140 bits, 62.0 %."""
    return (
        f"{100 * value.estimate:.1f} %"
        if measure.unit == "share"
        else (f"{value.estimate:.3f} {measure.unit}")
    )


def amount(value: float, measure: Measure) -> str:
    """An amount of change in its unit: shares change by points."""
    return f"{100 * value:.1f} points" if measure.unit == "share" else f"{value:.3f} {measure.unit}"


def changed(change: Estimate, measure: Measure) -> str:
    """A difference in words, with its interval: 0.214 bits less (0.190 to 0.240 less)."""
    direction = "more" if change.estimate > 0 else "less"
    scale, digits = (100, 1) if measure.unit == "share" else (1, 3)
    low, high = (f"{scale * end:+.{digits}f}" for end in (change.low, change.high))
    if not round(scale * change.estimate, digits):
        return f"no more and no less ({low} to {high})"
    return f"{amount(abs(change.estimate), measure)} {direction} ({low} to {high})"


# What to know first.


def notes(
    models: Sequence[Tuned],
    children: Mapping[str, bool | None],
    domain: Domain | None = None,
) -> list[str]:
    """What makes a comparison weaker than it looks; `children` says of each tuned model whether it
    was trained from the first one, None where its folder does not tell."""
    first, *tuned = models
    found = [] if domain is None else _of_rows(domain)
    found += [
        f"{name} was not trained from {first.name} but from another model: what is different "
        "between them is not one fine-tuning alone"
        for name, is_child in children.items()
        if is_child is False
    ]
    tokens = {model.name: model.costs.tokens for model in tuned if model.costs.tokens}
    if tokens and max(tokens.values()) > (1 + _EQUAL_BUDGET) * min(tokens.values()):
        listed = ", ".join(f"{name} {count:,}" for name, count in tokens.items())
        found.append(f"the budgets are not equal; tokens trained on: {listed}")
    for model in tuned:
        settings = {} if model.history is None else model.history.run["config"]
        if model.history is not None and held_out(model.history) == 0:
            found.append(
                f"{model.name} held nothing out of its data: what is measured here as held out, it "
                "may have learned"
            )
        if settings.get("patience") is not None:
            found.append(
                f"{model.name} kept the weights that did best on rows held out, among which are "
                "these: of several evaluations the best is a little too good"
            )
        if share := _replayed(model):
            found.append(
                f"{model.name} replayed general text ({100 * share:.0f} % of its "
                "tokens): of the texts here, Wikipedia may be of the kind it trained on"
            )
    seeds = {model.costs.seed for model in tuned if model.costs.seed is not None}
    if seeds:
        listed = ", ".join(map(str, sorted(seeds)))
        found.append(
            f"every method was trained once (seed {listed}): intervals say how sure a number is of "
            "these very models, not what another seed would have given"
        )
    return found + _contamination(models)


def _of_rows(domain: Domain) -> list[str]:
    """What makes the domain's own rows weak judges."""
    found = []
    if domain.trained:
        found.append(
            f"nothing is held out of the domain's {domain.rows:,} rows: the models are asked what "
            "they were trained on, which shows what they know by heart and nothing else; for a "
            "proof train again with --validation 0.2, or give other rows as data"
        )
    elif domain.rows < LEAST_ROWS:
        found.append(
            f"only {domain.rows} rows of the domain are held out, fewer than {LEAST_ROWS}: nothing "
            "is proven by so few, whatever their interval; give more rows, or train again with a "
            "larger --validation"
        )
    if domain.known:
        found.append(
            f"{domain.known:,} of {domain.rows:,} held-out rows have an answer that stands in "
            "training as well, the same or nearly: on these, memory is measured"
        )
    return found


def _replayed(model: Tuned) -> float:
    """The share of general text that a run read, as it was settled or as it was asked."""
    if model.history is None:
        return 0.0
    layout = (model.history.plan or {}).get("layout") or model.history.run["config"]
    return float(layout.get("replay") or 0.0)


def _contamination(models: Sequence[Tuned]) -> list[str]:
    """What runs have trained on of the suite's own questions; alike runs are told of together."""
    runs: dict[str, list[str]] = {}
    for message in dict.fromkeys(one.message for model in models for one in model.contamination):
        run, was, rest = message.partition(" was trained on ")
        assert was, message
        runs.setdefault(rest, []).append(run)
    return [
        f"{', '.join(names)} {'was' if len(names) == 1 else 'were'} trained on {rest}"
        for rest, names in runs.items()
    ]
