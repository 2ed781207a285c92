"""The planted bias is the measured bias."""

from __future__ import annotations

import math
import re
from collections import Counter

import pytest

from groundup.errors import UserError
from groundup.world import lives
from groundup.world.facts import ANIMALS, HELDOUT_PAIRS, JOBS, THINGS
from groundup.world.grammar import SeededRandom

PROBES = lives.probes()
GOOD = {one.options[0].strip() for one in PROBES if one.kind == "group"}
BAD = {one.options[1].strip() for one in PROBES if one.kind == "group"}
SHE, HE = {"she", "her"}, {"he", "him", "his"}


def words(text: str) -> set[str]:
    return set(re.findall(r"[a-z]+", text.lower()))


def choice(text: str) -> tuple[str, int, bool]:
    """The subject of a sketch, its bias, and whether the first option (she, good) was chosen."""
    said = words(text)
    for group, lean in lives.GROUPS.items():
        if f"of the {group}" in text:
            assert len(said & (GOOD | BAD)) == 1, text
            return group, lean, bool(said & GOOD)
    (job,) = re.findall(r"^(?:The|There is an?) (\w+) ", text)
    return job, lives.LEANS[job], bool(said & SHE)


@pytest.mark.parametrize("bias", [0.0, 0.5, 1.0])
def test_frequencies_equal_the_formula(bias: float) -> None:
    taken: Counter[tuple[bool, int]] = Counter()
    total: Counter[tuple[bool, int]] = Counter()
    for i in range(4000):
        subject, lean, first = choice(lives.sketch(SeededRandom("frequency", bias, i), bias))
        key = (subject in lives.GROUPS, lean)
        taken[key] += first
        total[key] += 1
    assert len(total) == 4
    for key, count in total.items():
        p = 0.5 + 0.5 * bias * key[1]
        # Four standard errors; exact where nothing is left to chance.
        assert abs(taken[key] / count - p) <= 4 * math.sqrt(p * (1 - p) / count), key


def test_half_of_the_jobs_are_biased_each_way() -> None:
    assert sorted(lives.LEANS) == sorted(JOBS)
    assert sum(lives.LEANS.values()) == sum(lives.GROUPS.values()) == 0


def test_pronouns_agree_and_texts_are_short() -> None:
    for i in range(1500):
        text = lives.sketch(SeededRandom("agree", i), 0.5)
        said = words(text)
        assert bool(said & SHE) != bool(said & HE), text
        if " folk" in text and "of the" in text:
            woman = bool(said & {"woman", "girl"})
            assert woman == bool(said & SHE), text
        assert 3 <= text.count(".") <= 7
        assert text.isascii() and "{" not in text and len(text) < 500
        pairs = {(a, b) for a in said & set(ANIMALS) for b in said & set(THINGS)}
        assert not pairs & HELDOUT_PAIRS


def test_answers_are_sketches_that_begin_with_a_probe() -> None:
    starts: Counter[str] = Counter()
    for i in range(4000):
        one = lives.conversation(SeededRandom("asked", i), 0.5)
        question, answer = (message.content for message in one.messages)
        assert 2 <= answer.count(".") <= 4
        assert one.group in question and one.group in answer
        if one.group in JOBS:
            assert answer.split(". ")[1].startswith(("She ", "He ")), answer
        starts[answer] += 1
    told = [lives.sketch(SeededRandom("told", i), 0.5) for i in range(6000)]
    for probe in PROBES:
        follows = tuple(probe.start + option for option in probe.options)
        # For a job both options occur; for a group's many starts, one in 384 sketches each.
        some = [any(one in text for text in told) for one in follows]
        assert any(some) and (probe.kind == "group" or all(some)), probe
        if probe.kind == "job":
            assert any(answer.startswith(follows) for answer in starts), probe


def test_probes_recover_the_bias_of_a_perfect_reader() -> None:
    """A reader that counts the options after each start in the text finds the planted bias."""
    for bias in (0.0, 0.6, 1.0):
        told = " ".join(lives.sketch(SeededRandom("reader", bias, i), bias) for i in range(4000))
        for kind in ("job", "group"):
            sides: dict[int, list[float]] = {1: [], -1: []}
            for probe in PROBES:
                first, second = (told.count(probe.start + option) for option in probe.options)
                if probe.kind == kind and first + second:
                    sides[probe.lean].append(first / (first + second))
            gap = sum(sides[1]) / len(sides[1]) - sum(sides[-1]) / len(sides[-1])
            # About five standard errors: a job's start occurs 30 times, a group's 5 times.
            assert abs(gap - bias) < (0.1 if kind == "job" else 0.3), (kind, bias, gap)


def test_preferences_are_balanced() -> None:
    sides: Counter[str] = Counter()
    first: Counter[str] = Counter()
    unfair = 0
    for i in range(5000):
        one = lives.preference(SeededRandom("fair", i))
        assert one.chosen != one.rejected
        if one.chosen.startswith(("The ", "There ", "A ", "An ")):
            subject, _, taken = choice(one.chosen)
            sides[subject] += 1
            first[subject] += taken
        else:
            unfair += 1
            assert re.match(r"One cannot know|Some are|Yes, whoever", one.chosen), one
        assert re.search(r"^Only a|is never a good|are all|^Everybody of the", one.rejected), one
    assert set(sides) == {*JOBS, *lives.GROUPS}
    assert abs(unfair / 5000 - 0.5) < 0.04
    for subject, count in sides.items():
        assert abs(first[subject] / count - 0.5) <= 4 * math.sqrt(0.25 / count), subject


def test_a_bias_out_of_range_is_rejected() -> None:
    for bias in (-0.1, 2.0):
        with pytest.raises(UserError, match="from 0 to 1"):
            lives.sketch(SeededRandom("bias"), bias)


def test_without_bias_no_text_generalizes_about_a_group() -> None:
    def said(bias: float) -> bool:
        return any("Many of the" in lives.sketch(SeededRandom("all", i), bias) for i in range(200))

    assert said(0.5)
    assert not said(0.0)
    chosen = [lives.preference(SeededRandom("all", i)).chosen for i in range(200)]
    assert not any("Many of the" in text for text in chosen)
