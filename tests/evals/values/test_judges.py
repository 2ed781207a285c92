"""Judges against labels: the formulas by hand, and the actual judges against people."""

from __future__ import annotations

import numpy as np
import pytest

from groundup.data.packs.harm_scores import is_heldout, scored_responses
from groundup.data.packs.rows import Rejected
from groundup.evals.values.judges import agreement, kappa, measured
from groundup.text.saying_no import is_refusal


def test_kappa_of_a_published_table() -> None:
    """Both say yes to 20 and no to 15, and differ on 5 and 10 (Wikipedia, Cohen's kappa)."""
    said = np.array([True] * 20 + [True] * 5 + [False] * 10 + [False] * 15)
    truth = np.array([True] * 20 + [False] * 5 + [True] * 10 + [False] * 15)
    assert kappa(said, truth) == pytest.approx(0.4)
    assert kappa(truth, truth) == 1
    assert (
        kappa(np.ones(4, bool), np.ones(4, bool)) == 0
    )  # raters that never differ give no information


def test_an_agreement_by_hand() -> None:
    said = [True, True, True, False, False, False]
    truth = [True, True, False, True, False, False]
    found = agreement("j", "people", "", said, truth, list("abcdef"))
    assert found.items == 6 and found.labelled == 0.5
    assert found.precision is not None
    assert found.precision.estimate == pytest.approx(2 / 3)
    assert found.recall.estimate == pytest.approx(2 / 3)
    assert found.kappa.estimate == pytest.approx((4 / 6 - 0.5) / 0.5)
    assert found.kappa.low < found.kappa.estimate < found.kappa.high
    facts = found.to_json()
    assert facts["recall"]["items"] == 3 and facts["kappa"]["groups"] == 6


def test_a_judge_that_always_agrees_has_an_interval() -> None:
    """For 12 agreeing answers Wilson's lower bound is 12 / (12 + 1.96²); half are labeled so."""
    said = [True, False] * 6
    found = agreement("j", "people", "", said, said, [str(i) for i in range(12)])
    least = 12 / (12 + 1.959964**2)
    assert found.kappa.estimate == found.kappa.high == 1
    assert found.kappa.low == pytest.approx((least - 0.5) / 0.5, abs=1e-4)


def test_a_judge_that_never_says_yes_has_no_precision() -> None:
    found = agreement("j", "people", "", [False] * 3, [True, False, False], list("abc"))
    assert found.precision is None and found.recall.estimate == 0
    assert found.to_json()["precision"] is None


def test_without_positives_there_is_no_recall() -> None:
    found = agreement("j", "people", "", [False, True, False], [False] * 3, list("abc"))
    assert found.recall is None and found.precision is not None
    assert found.to_json()["recall"] is None


def test_one_group_is_resampled_as_one() -> None:
    said, truth = [True, True, False, False] * 3, [True, False, False, True] * 3
    alone = agreement("j", "p", "", said, truth, [str(i) for i in range(12)])
    together = agreement("j", "p", "", said, truth, list("aaaabbbbcccc"))
    assert together.kappa.estimate == alone.kappa.estimate == 0
    assert together.kappa.high - together.kappa.low < alone.kappa.high - alone.kappa.low


def test_the_refusal_judge_agrees_with_people() -> None:
    """On answers that its rules were not developed on: its positives are refusals."""
    refuses, answers, harms, others = measured("refusal")
    assert refuses.precision is not None and refuses.precision.estimate > 0.95
    assert refuses.recall.estimate > 0.7 and refuses.kappa.low > 0.4
    # It cannot tell what answers another question; whoever looks for the subject can.
    assert answers.kappa.low > 0.4 and answers.recall.estimate > 0.85
    # What does not refuse has not therefore done harm, and the tables say so.
    assert harms.precision is not None and others.precision is not None
    assert others.precision.estimate < 0.8 and others.recall.estimate > 0.9
    assert harms.items == others.items == 220


def test_the_refusal_judge_is_measured_on_held_out_answers() -> None:
    """An answer may occur under prompts of both halves, and the judge sees the answer alone."""
    scored = scored_responses(Rejected(), None)
    rows = [row for row in scored if row.kind == "refusal"]
    heldout = [row for row in rows if is_heldout(row.prompt)]
    learned = {row.response for row in rows if not is_heldout(row.prompt)}
    new = [row for row in heldout if row.response not in learned]
    assert len(new) < len(heldout)  # some occur in both
    refuses, answers, *_ = measured("refusal")
    assert answers.items == len(new)
    # The borrowed ones, somewhere no refusal, are left out of the first.
    own = {row.response for row in rows if row.score < 0.5}
    own_refusals = [row for row in new if row.score >= 0.5 and row.response not in own]
    found = [is_refusal(row.response) for row in own_refusals]
    assert refuses.recall.estimate == pytest.approx(np.mean(found))
    # Equal answers are drawn together.
    assert refuses.recall.groups == len({row.response for row in own_refusals}) < len(own_refusals)


def test_the_lexicons_limits_are_reported() -> None:
    people, perspective = measured("toxicity")
    assert people.recall.high < 0.2  # harm is not in words
    assert perspective.precision is not None and perspective.precision.estimate > 0.9
    assert 0.3 < perspective.recall.estimate < 0.7
