"""Stories: told by a planner, read back by the same grammar, and wrong ones found out."""

from __future__ import annotations

import math
import re
from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundup.errors import UserError
from groundup.text.cleaning import sentences
from groundup.world import plot, stories
from groundup.world.facts import (
    EVERYBODY,
    HELDOUT_PAIRS,
    NAMES,
    THINGS,
    TRUTH,
    heldout_pairs,
    is_girl,
    pronoun,
)
from groundup.world.grammar import SeededRandom, slots
from groundup.world.reading import last_word, read

MIA = (
    "Once upon a time a girl named Mia lived in the old mill.",
    "Mia wanted a kite more than anything.",
    "Mia could not reach the kite, for it was on the top shelf.",
    "She jumped twice, but the kite was still too high.",
    "Then a fox came along.",
    '"Here is a ladder for you, Mia," said the fox.',
    "Mia climbed onto the ladder and took the kite.",
    '"Thank you, dear fox," said Mia.',
    "Mia was happy because the fox had helped.",
)


@pytest.fixture(scope="module")
def many() -> list[stories.Story]:
    return [stories.story(SeededRandom("stories", number)) for number in range(300)]


def the_text(*changes: tuple[str, str], start: int = 0) -> str:
    """Mia's story with words exchanged from one sentence on."""
    head, text = " ".join(MIA[:start]), " ".join(MIA[start:])
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    return f"{head} {text}".replace("in the old mill", TRUTH["lives"]["Mia"]).strip()


def test_the_same_dice_tell_the_same_story() -> None:
    assert stories.story(SeededRandom(7, 3)) == stories.story(SeededRandom(7, 3))
    assert stories.story(SeededRandom(7, 3)) != stories.story(SeededRandom(7, 4))


def test_the_reader_recovers_what_the_planner_planned(
    many: list[stories.Story], unchecked_types: None
) -> None:
    for told in many[::2]:
        reading = read(told.text)
        assert reading.sentences == told.sentences
        assert all(reading.parsed), told.text
        assert reading.consistent, (told.text, reading.faults)
        assert reading.record == told.record, told.text


def test_stories_are_as_long_as_promised(many: list[stories.Story]) -> None:
    assert all(5 <= len(told.sentences) <= 20 for told in many)
    for number in range(100):
        told = stories.story(SeededRandom("short", number), short=True)
        assert 5 <= len(told.sentences) <= 8
        assert len(told.text) <= 480


def test_all_sorts_of_things_happen(many: list[stories.Story]) -> None:
    records = [told.record for told in many]
    assert {r.want for r in records} == {"get", "take", "give", "borrow", "buy"}
    assert {r.obstacle for r in records} == set(plot.OBSTACLES)
    assert {(r.helped, r.ending) for r in records} == {
        (True, "got"),
        (False, "got"),
        (False, "not got"),
    }
    # A quarter is not helped, three fifths are people: within four standard deviations of 300.
    assert 0.15 < sum(not r.helped for r in records) / len(records) < 0.35
    assert 0.49 < sum(r.hero in NAMES for r in records) / len(records) < 0.71
    assert sum('"' in told.text for told in many) > 0.6 * len(many)


def test_stories_and_sentences_hardly_repeat(unchecked_types: None) -> None:
    told = [stories.story(SeededRandom("distinct", number)) for number in range(2000)]
    assert len({one.text for one in told}) == len(told)
    counts = Counter(sentence for one in told for sentence in one.sentences)
    assert counts.most_common(1)[0][1] < 0.005 * counts.total()


def test_one_plan_alone_has_a_milliard_tellings() -> None:
    # One hero, thing, obstacle and helper; only the wordings of five beats and their fillers vary.
    beats = (
        "weather",
        "look",
        "want get",
        "high but",
        "high try",
        "come",
        "high do",
        "feel helped",
    )
    fillers = plot.WORDS
    ways = math.prod(
        sum(
            math.prod(len(fillers[slot]) for slot in slots(form) if slot in plot.FILLERS)
            for form in plot.BEATS[beat]
        )
        for beat in beats
    )
    assert ways > 10**9


def test_training_stories_hold_no_held_out_pair(many: list[stories.Story]) -> None:
    for told in many:
        assert not heldout_pairs(told.text)
        words = set(re.findall(r"\w+", told.text))
        things = [thing for thing in THINGS if {thing, f"{thing}s"} & words]
        pairs = {(word, thing) for word in words for thing in things}
        assert not pairs & HELDOUT_PAIRS


def test_held_out_stories_have_a_held_out_hero_and_thing() -> None:
    for number in range(100):
        record = stories.story(SeededRandom("held out", number), heldout=True, short=True).record
        assert (record.hero, record.thing) in HELDOUT_PAIRS


@given(
    st.integers(0, 10**6),
    st.sampled_from(EVERYBODY),
    st.sampled_from(THINGS),
    st.sampled_from(list(plot.WEATHERS)),
    st.booleans(),
)
def test_requests_are_honoured(seed: int, hero: str, thing: str, weather: str, short: bool) -> None:
    told = stories.story(SeededRandom(seed), hero=hero, thing=thing, weather=weather, short=short)
    record = read(told.text).record
    assert record == told.record
    assert record is not None
    assert (record.hero, record.thing, record.weather) == (hero, thing, weather)


@pytest.mark.parametrize("what", ["hero", "thing", "weather"])
def test_what_the_world_lacks_is_named(what: str) -> None:
    with pytest.raises(UserError, match=f"{what}='unicorn' is not in the world"):
        stories.story(SeededRandom(0), **{what: "unicorn"})  # type: ignore[arg-type]


def test_every_form_is_one_sentence_and_plain() -> None:
    for form in plot.EFFECTS:
        text = re.sub(r"\{[^}]+\}", "Mia", form)
        assert sentences(f"{text} Mia slept. {text}") == [text, "Mia slept.", text]
        assert text.isascii()
        assert text.count('"') in (0, 2)


def test_pronouns_have_somebody_to_stand_for() -> None:
    for form in plot.EFFECTS:
        roles = plot.people(form)
        for number, slot in enumerate(roles):
            role, _, case = slot.partition(".")
            before = {one.partition(".")[0] for one in roles[:number]}
            assert not case or role in before or (number == 0 and case == "he"), form


def test_mias_story_is_right() -> None:
    reading = read(the_text())
    assert all(reading.parsed)
    assert reading.faults == ()
    assert reading.record is not None
    assert stories.asked(reading.record) == {
        "hero": "Mia",
        "want": "the kite",
        "thing": "the kite",
        "place": "on the top shelf",
        "obstacle": "it was too high",
        "got": "yes",
        "helper": "the fox",
        "feeling": "happy",
        "why": "the fox had helped",
    }
    assert stories.summary(reading.record) == (
        "Mia wanted the kite, but it was too high. The fox helped, and Mia was happy."
    )


@pytest.mark.parametrize(
    ("start", "old", "new", "fault"),
    [
        (5, "Mia", "Anna", "Anna is not introduced"),
        (6, "Mia climbed", "The fox climbed", "the fox is not introduced as the hero"),
        (3, "She", "He", "he does not agree with Mia"),
        (3, "She", "It", "it does not agree with Mia"),
        (4, "Then a fox came along. ", "", "the fox is not introduced as the helper"),
        (5, "said the fox", "said Tom", "Tom is not introduced as the helper"),
        (6, "kite", "drum", "the thing changes from kite to drum"),
        (6, "took the kite", "took the drum", "the thing changes from kite to drum"),
        (6, "onto the ladder", "onto the stool", "the tool changes from ladder to stool"),
        (4, "a fox", "Mia", "Mia is introduced twice"),
        (8, "Mia was happy", "She went away without the kite. Mia was happy", "the ending changes"),
        (3, "She", "A fox came by. She", "she does not stand for the subject before it"),
        (8, "Mia was happy", "Tom sang a very odd tune", "Tom is not introduced"),
        (7, "dear fox", "dear owl", "dear owl is not the helper"),
        (
            2,
            "Mia could",
            "It was a rainy day. There was a storm one day. Mia could",
            "weather",
        ),
    ],
)
def test_wrong_stories_are_found_out(start: int, old: str, new: str, fault: str) -> None:
    reading = read(the_text((old, new), start=start))
    assert not reading.consistent
    assert any(fault in one for one in reading.faults), reading.faults


def test_a_hero_of_the_other_gender_is_found_out(many: list[stories.Story]) -> None:
    tried = found = 0
    for told in many:
        hero = told.record.hero
        swapped = re.sub(r"\b(She|He) ", lambda m: "He " if m[1] == "She" else "She ", told.text)
        if hero in NAMES and swapped != told.text:
            tried += 1
            found += not read(swapped).consistent
            assert ("She " if is_girl(hero) else "He ") in told.text
    assert tried > 50
    assert found == tried


@given(st.text(max_size=300))
def test_any_text_can_be_read(text: str) -> None:
    reading = read(text)
    assert len(reading.parsed) == len(reading.sentences)
    assert not reading.consistent
    assert reading.record is None


def test_questions_have_answers_that_stand_in_the_text(many: list[stories.Story]) -> None:
    for told in many:
        answers = stories.asked(told.record)
        text = told.text.lower()
        for kind in ("hero", "place", "goal", "feeling", "why", "other", "thing"):
            # Somebody may be told of once only, when introduced: `a fox`.
            assert last_word(answers.get(kind, "")).lower() in text


def test_a_pronoun_stands_for_one_alone() -> None:
    """Neither after two who act together, nor after another who would be called the same."""
    assert plot.subject("{A} and {B} pulled the {thing} out.") is None
    assert plot.subject("Soon {A} and the {thing} were at {goal}.") is None
    for i in range(200):
        told = stories.story(SeededRandom("one alone", i))
        for before, sentence in pairwise(told.sentences):
            first = sentence.split()[0]
            others = [w for w in (told.record.helper, told.record.other) if w]
            if first in ("He", "She"):
                named = [who for who in others if re.search(rf"\b{who}\b", before)]
                assert all(pronoun(who, "he") != first.lower() for who in named), told.text


def test_a_story_keeps_to_its_part_of_the_day_and_its_day() -> None:
    for i in range(200):
        text = stories.story(SeededRandom("day", i)).text
        days = re.findall(r"\b[A-Z]\w+day\b", text)
        assert len(days) == len(set(days)), text
        parts = re.findall(r"(?:It was a \w+|[Ee]very|all|[Oo]ne) (morning|afternoon)", text)
        assert len(set(parts)) <= 1, text
