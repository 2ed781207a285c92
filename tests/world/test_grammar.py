"""Sentences are filled and parsed."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.world import questions
from groundup.world.grammar import (
    Grammar,
    Parsed,
    SeededRandom,
    capital,
    fill,
    plural,
    slots,
    with_article,
)

WORDS = {
    "A": ("Mia", "the fox"),
    "thing": ("lamp", "umbrella", "map"),
    "place": ("in the mill", "on the hill"),
}
FORMS = (
    "{A} wanted {a thing} {place}.",
    "{A} gave {A.his} {thing} away.",
    '"Where is my {thing}?" asked {A}.',
    "{A} saw {a thing} and {a thing2}.",
    "{A} and {A} are one.",
)
GRAMMAR = Grammar(FORMS, WORDS)


@settings(deadline=None)
@given(form=st.sampled_from(FORMS), numbers=st.tuples(*[st.integers(0, 5)] * 5))
def test_filled_sentences_parse(form: str, numbers: tuple[int, ...]) -> None:
    def word(kind: str, number: int) -> str:
        return WORDS[kind][number % len(WORDS[kind])]

    values = {
        "A": word("A", numbers[0]),
        "A.his": ("his", "her", "its")[numbers[1] % 3],
        "thing": word("thing", numbers[2]),
        "a thing": with_article(word("thing", numbers[2])),
        "a thing2": with_article(word("thing", numbers[3])),
        "place": word("place", numbers[4]),
    }
    wanted = {slot: values[slot] for slot in slots(form)}
    assert Parsed(form, wanted) in GRAMMAR.parse(fill(form, values))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Mia wanted a umbrella in the mill.",
        "Mia wanted an lamp in the mill.",
        "Mia wanted a lamp in the mill",
        "mia wanted a lamp in the mill.",
        "The bear wanted a lamp in the mill.",
        "Mia and the fox are one.",
        "Mia gave their lamp away.",
    ],
)
def test_sentences_outside_the_grammar_do_not_parse(text: str) -> None:
    assert GRAMMAR.parse(text) == ()


def test_a_slot_at_the_start_has_a_capital() -> None:
    assert fill("{A} sleeps.", {"A": "the fox"}) == "The fox sleeps."
    assert capital('"the fox"') == '"The fox"' and capital("") == ""
    [parsed] = GRAMMAR.parse("The fox wanted an umbrella on the hill.")
    assert parsed.values == {"A": "the fox", "a thing": "an umbrella", "place": "on the hill"}


def test_percent_signs_are_plain_text() -> None:
    assert fill("{A} is 100 % sure.", {"A": "Mia"}) == "Mia is 100 % sure."


def test_one_key_gives_one_sequence_in_every_process() -> None:
    code = (
        "from groundup.world.grammar import SeededRandom; d = SeededRandom('a', 1);"
        "print([d.below(1000) for _ in range(5)], d.sample('abcdef', 4), d.chance(0.5))"
    )
    runs = {
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout
        for _ in range(2)
    }
    assert runs == {"[331, 885, 783, 140, 543] ['b', 'f', 'c', 'd'] False\n"}


def test_random_choices_are_uniform_and_keys_differ() -> None:
    dice = SeededRandom("fair")
    drawn = [dice.below(6) for _ in range(6_000)]
    assert all(850 < drawn.count(face) < 1_150 for face in range(6))
    assert sorted(dice.sample(range(5), 5)) == [0, 1, 2, 3, 4]
    assert sum(dice.chance(0.2) for _ in range(5_000)) == pytest.approx(1_000, abs=120)
    assert [SeededRandom(1, 11).below(1000)] != [SeededRandom(11, 1).below(1000)]


def pattern(grammar: Grammar, form: str) -> re.Pattern[str]:
    """A form as a regular expression with a group for each slot."""
    found = ""
    for number, piece in enumerate(re.split(r"\{([^}]+)\}", form)):
        words = sorted(grammar._choices(piece)[0], key=len, reverse=True) if number % 2 else ()
        found += f"({'|'.join(map(re.escape, words))})" if words else re.escape(piece)
    return re.compile(found)


def test_the_worlds_questions_parse_as_with_regular_expressions() -> None:
    grammar = questions._grammar()
    dice = SeededRandom("questions")
    asked = [questions.conversation(dice).messages[0].content for _ in range(40)]
    asked += [text.replace("fox", "bear") + dice.pick(["", "?", " x"]) for text in asked]
    matched = 0
    for form in grammar.forms:
        compiled = pattern(grammar, form)
        for sentence in asked:
            found, match = grammar._values(form, sentence), compiled.fullmatch(sentence)
            assert found == (match and match.groups()), (form, sentence)
            matched += found is not None
    assert matched


@pytest.mark.parametrize(
    "noun, many",
    [
        ("lamp", "lamps"),
        ("cherry", "cherries"),
        ("key", "keys"),
        ("peach", "peaches"),
        ("fox", "foxes"),
        ("loaf", "loaves"),
        ("wolf", "wolves"),
        ("mouse", "mice"),
        ("sheep", "sheep"),
        ("postman", "postmen"),
    ],
)
def test_plural(noun: str, many: str) -> None:
    assert plural(noun) == many
