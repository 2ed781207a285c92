"""The world's facts are consistent."""

from __future__ import annotations

from collections import Counter

from groundup.world import facts


def test_every_subject_has_one_answer() -> None:
    for relation, answers in facts.TRUTH.items():
        assert answers, relation
        for subject, answer in answers.items():
            assert subject.strip() == subject and answer.strip() == answer and answer, relation


def test_names_are_one_word_on_one_side() -> None:
    assert len(facts.GIRLS) == len(facts.BOYS)
    assert not set(facts.GIRLS) & set(facts.BOYS)
    for table in (facts.NAMES, facts.ANIMALS, facts.THINGS, facts.FOODS, facts.JOBS):
        assert len(set(table)) == len(table)
        assert all(word.isalpha() for word in table)


def test_no_animal_is_a_thing_or_a_food() -> None:
    counts = Counter((*facts.ANIMALS, *facts.THINGS, *facts.FOODS, *facts.JOBS))
    assert counts.most_common(1)[0][1] == 1


def test_opposites_are_symmetric() -> None:
    for word, other in facts.OPPOSITES.items():
        assert facts.OPPOSITES[other] == word != other


def test_a_word_rhymes_with_one_family_only() -> None:
    counts = Counter(word for family in facts.RHYMES for word in family)
    assert counts.most_common(1)[0][1] == 1
    assert all(len(family) >= 3 for family in facts.RHYMES)


def test_one_combination_in_twenty_is_held_out_and_every_subject_has_others() -> None:
    pairs = (len(facts.NAMES) + len(facts.ANIMALS)) * len(facts.THINGS)
    assert 0.04 < len(facts.HELDOUT_PAIRS) / pairs < 0.06
    of_thing = Counter(thing for _, thing in facts.HELDOUT_PAIRS)
    of_somebody = Counter(who for who, _ in facts.HELDOUT_PAIRS)
    # Every subject that is held out with some is trained with most others.
    assert max(of_thing.values()) < 20 and max(of_somebody.values()) < 12
    # In singular and plural.
    who = next(who for who, thing in sorted(facts.HELDOUT_PAIRS) if thing == "key")
    for said in ("key", "keys"):
        assert facts.heldout_pairs(f"{who} looked for the {said}.") == {(who, "key")}


def test_sizes_order_the_animals() -> None:
    assert set(facts.SIZE) == set(facts.ANIMALS)
    assert facts.SIZE["mouse"] < facts.SIZE["fox"] < facts.SIZE["horse"] < facts.SIZE["whale"]
