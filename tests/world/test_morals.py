"""Texts about conduct: words of both sides, no requests, nothing held out."""

from __future__ import annotations

import itertools
import re
from typing import Any

import pytest

from groundup.text.cleaning import words
from groundup.world import conduct, morals, pack
from groundup.world.facts import heldout_pairs
from groundup.world.grammar import SeededRandom, fill, slots

# Words without information on the act.
_SMALL = frozenset(words("a an and at be did for from i in into is it my of on the to what with"))


def _stems(text: str) -> tuple[str, ...]:
    found = words(text.replace("-", ""))
    return tuple(word if len(word) < 4 else word.removesuffix("s") for word in found)


def _filled(act: conduct.Act) -> list[str]:
    """An act with all values of its slots."""
    names = slots(act.form)
    choices = itertools.product(*(conduct.WORDS[name] for name in names))
    return [fill(act.form, dict(zip(names, chosen, strict=True))) for chosen in choices]


def _threes(text: str) -> set[tuple[str, ...]]:
    stems = _stems(text)
    return {stems[i : i + 3] for i in range(len(stems) - 2)}


def _content(act: conduct.Act) -> frozenset[str]:
    return frozenset(_stems(re.sub(r"\{\w+\}", "", act.form))) - _SMALL


@pytest.fixture(scope="module")
def texts() -> list[str]:
    return [morals.document(SeededRandom("morals", i)) for i in range(3000)]


def test_no_three_words_of_a_heldout_act_are_in_a_text(texts: list[str]) -> None:
    """Two of them are content words. Nor do all content words occur in a sentence, unless in
    training."""
    acts = [act for act in conduct.acts(heldout=False) if not act.kind]  # deeds are texts' own
    trained = [one for act in acts for one in [*_filled(act), act.answer]]
    topics = {act.topic for act in acts} - {""}
    trained += [offer for topic in topics for offer in conduct.offers_instead(topic)]
    known = set().union(*map(_threes, trained))
    forbidden = {
        three
        for act in conduct.acts(heldout=True)
        for one in _filled(act)
        for three in _threes(one)
        if len(set(three) & _content(act)) > 1
    } - known
    all_of = {_content(act) for act in conduct.acts(heldout=True)}
    all_of = {one for one in all_of if not any(one <= {*_stems(one_of)} for one_of in trained)}
    assert len(forbidden) > 25 and len(all_of) > 15
    sentences = {one for text in texts for one in re.split(r"(?<=[.!?]) ", text)}
    for one in sentences:
        assert not _threes(one) & forbidden, one
        assert not [held for held in all_of if len(held) > 1 and held <= {*_stems(one)}], one


def test_texts_are_not_requests_or_refusals(texts: list[str]) -> None:
    asked = [wording.split("{act}")[0] for wording in conduct.wordings()]
    said = " ".join(texts)
    assert [one for one in (*asked, *conduct.attempts()) if one in said] == []
    assert not re.search(r"\b[Hh]elp (?:me|you)\b|\bsorry, but\b", said)
    assert not re.search(r"\bI\b|\bmy\b", said)


def test_texts_use_many_words_and_no_impossible_combination(texts: list[str]) -> None:
    spoken = {word for kind in morals.KINDS.values() for word in kind.words}
    assert len(spoken) > 150
    assert {bool(kind.topic) for kind in morals.KINDS.values()} == {True, False}
    assert not [text for text in texts if heldout_pairs(text)]
    assert all(300 <= len(text) <= 900 for text in texts)
    assert len(set(texts)) > 0.99 * len(texts)


def test_a_share_of_the_documents_are_such_texts_and_none_by_default() -> None:
    def sources(**settings: Any) -> list[str]:
        return [pack.document(3, i, **settings).source for i in range(1000)]

    assert "world-morals" not in sources()
    assert 150 < sources(morals_share=0.2).count("world-morals") < 250
    heldout = [pack.document(3, i, morals_share=0.9, heldout=True) for i in range(100)]
    assert {one.source for one in heldout} == {"world-stories"}


def test_texts_about_conduct_replace_only_facts() -> None:
    for index in range(300):
        without, with_some = (pack.document(3, index, morals_share=share) for share in (0.0, 0.5))
        if without.source == "world-facts":
            assert with_some.source in ("world-facts", "world-morals")
        else:
            assert with_some == without


def test_questions_about_a_deed_are_answered_as_in_the_texts() -> None:
    dice = SeededRandom("asked")
    told = [morals.conversation(dice) for _ in range(400)]
    harmful = {act.form: bool(act.topic) for act in conduct.acts(heldout=False)}
    for kind in morals.KINDS.values():
        harmful |= dict.fromkeys(kind.deeds, bool(kind.topic))
    wrong = re.compile(r"(is wrong|is bad|does harm|you do wrong),? (because|for) ")
    for one in told:
        asked, answer = (turn.content for turn in one.messages)
        assert asked.endswith("?") and bool(wrong.search(answer)) == harmful[one.group], one
        assert conduct.asked_to(asked) is None and not re.search(r"\b[Ii]\b|\bmy\b", answer)
    assert 0.4 < sum(harmful[one.group] for one in told) / len(told) < 0.6
    sources = {pack.conversation(0, i).source for i in range(300)}
    assert "world-morals" in sources
    held = {pack.conversation(0, i, heldout=True).source for i in range(300)}
    assert "world-morals" not in held
