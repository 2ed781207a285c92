"""Every generated answer agrees with the facts, and the two sides share no wording."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence

import pytest

from groundup.text.rows import Conversation, Message
from groundup.world import questions, stories
from groundup.world.answers import COULD_BE, GROUPS, Values, is_heldout_sum
from groundup.world.facts import (
    ANIMALS,
    HELDOUT_PAIRS,
    HOLDS_OF,
    NAMES,
    OPPOSITES,
    RHYMES,
    SIZE,
    TRUTH,
    noun,
)
from groundup.world.grammar import SeededRandom, capital, plural, slots
from groundup.world.kinds import KINDS
from groundup.world.tables import cells

COUNT = 250
SOURCES = ("facts", "reading", "sums", "counting", "words", "tell", "rewrite", "talk", "unknown")


def drawn(heldout: bool, count: int = COUNT) -> list[Conversation]:
    return [questions.conversation(SeededRandom("test", i), heldout=heldout) for i in range(count)]


@pytest.fixture(scope="module")
def train() -> list[Conversation]:
    return drawn(heldout=False)


@pytest.fixture(scope="module")
def heldout() -> list[Conversation]:
    return drawn(heldout=True)


@pytest.fixture(scope="module")
def pages() -> list[str]:
    return [questions.document(SeededRandom("page", i)) for i in range(150)]


def texts(conversations: list[Conversation]) -> list[str]:
    return [" ".join(m.content for m in one.messages) for one in conversations]


def user(text: str) -> tuple[Message, ...]:
    return (Message("user", text),)


def test_the_shares_of_the_mixture_are_kept(train: list[Conversation]) -> None:
    counts = {f"world-{name}": 0 for name in SOURCES}
    for one in train:
        counts[one.source] += 1
    assert all(counts.values())
    assert 0.15 < counts["world-facts"] / COUNT < 0.30
    assert 0.15 < counts["world-reading"] / COUNT < 0.30
    several = sum(len(one.messages) > 2 for one in train)
    assert 0.12 < several / COUNT < 0.28


def test_turns_alternate_and_fit_the_context(
    train: list[Conversation], heldout: list[Conversation]
) -> None:
    for one in train + heldout:
        roles = [message.role for message in one.messages]
        assert roles == ["user", "assistant"] * (len(roles) // 2)
        text = " ".join(message.content for message in one.messages)
        assert len(text) <= 850
        assert text.isascii()
        assert not re.search(r"[{}|]|\ba [aeio]\w|\ban (?!hour)[^aeiou\W]|  |\bNone\b", text), text


def test_the_sides_share_no_wording() -> None:
    train = {form for kind in KINDS for form in kind.train}
    heldout = {form for kind in KINDS for form in kind.heldout}
    assert not train & heldout
    for kind in KINDS:
        assert len(kind.train) >= 3
        assert kind.heldout


def test_groups_are_wordings_and_disjoint(
    train: list[Conversation], heldout: list[Conversation]
) -> None:
    assert not {one.group for one in train} & {one.group for one in heldout}


def test_no_training_text_has_a_held_out_combination(
    train: list[Conversation], pages: list[str]
) -> None:
    for text in texts(train) + pages:
        words = set(re.findall("[A-Za-z]+", text))
        words |= {word.lower() for word in words}
        assert not [(a, b) for a in words for b in words if (a, b) in HELDOUT_PAIRS], text
        for one, other in re.findall(r"(\d+) [+-] (\d+) =", text):
            assert not is_heldout_sum(int(one), int(other)), text


def test_one_pair_of_numbers_in_ten_is_never_added_in_training(
    train: list[Conversation], heldout: list[Conversation], pages: list[str]
) -> None:
    def added(texts: Iterable[str]) -> list[bool]:
        """Whether each sum in the texts is of held-out numbers."""
        found = (re.findall(r"(\d+) [+-] (\d+) =", text) for text in texts)
        return [is_heldout_sum(int(a), int(b)) for pairs in found for a, b in pairs]

    assert not any(added([*texts(train), *pages]))
    for source, new in (("world-sums", False), ("world-new-sums", True)):
        answers = [one.messages[-1].content for one in heldout if one.source == source]
        assert set(added(answers)) == {new}
    pairs = [(a, b) for a in range(21) for b in range(a, 21)]
    assert 0.05 < sum(is_heldout_sum(*pair) for pair in pairs) / len(pairs) < 0.16
    assert all(is_heldout_sum(a, b) == is_heldout_sum(b, a) for a, b in pairs)


def test_heldout_stories_have_heldout_pairs(heldout: list[Conversation]) -> None:
    asked = [questions.parse(one.messages[:-1]) for one in heldout if one.source == "world-tell"]
    told = [one.values for one in asked if one is not None and "who" in one.values]
    pairs = [(v["who"].split()[-1], v["thing"]) for v in told if "thing" in v]
    assert pairs
    assert set(pairs) <= HELDOUT_PAIRS


def test_every_sum_is_right(train: list[Conversation], pages: list[str]) -> None:
    found = 0
    for text in texts(train) + pages:
        for one, sign, other, result in re.findall(r"(\d+) ([+-]) (\d+) = (\d+)", text):
            expected = int(one) + int(other) * (1 if sign == "+" else -1)
            assert int(result) == expected, text
            assert 0 <= expected <= 20
            found += 1
    assert found > 30


# Statements read back without the module's own tables, to check them against the facts.
STATEMENTS = {
    "home": r"The (\w+) lives (.+)",
    "eats": r"The (\w+) eats (.+)",
    "says": r"The (\w+) says (.+)",
    "young": r"A young (\w+) is called an? (.+)",
    "legs": r"The (\w+) has (\w+) legs",
    "fur": r"The (\w+) is (?!bigger)(\w+)",
    "hue": r"The (\w+) is (?!bigger)(\w+)",
    "colour": r"The (\w+) is (?!bigger)(\w+)",
    "kept": r"The (\w+) is kept (.+)",
    "made": r"The (\w+) is made of (.+)",
    "use": r"You use the (\w+) to (.+)",
    "taste": r"The (\w+) tastes (.+)",
    "kind": r"The (\w+) is an? (\w+)",
    "works": r"The (\w+) works ((?!with).+)",
    "does": r"The (\w+) ((?!works|lives|eats|says|has|does not)\w+s (?!a ).+)",
    "tool": r"The (\w+) works with (?:an? )?(.+)",
    "lives": r"([A-Z]\w+) lives (.+)",
    "pet": r"([A-Z]\w+) has an? (.+)",
    "likes": r"([A-Z]\w+) likes (.+) best",
    "favourite": r"The favourite colour of (\w+) is (.+)",
    "opposite": r"The opposite of (\w+) is (.+)",
    "next day": r"After (\w+) comes (.+)",
    "next month": r"After (\w+) comes (.+)",
}


def truths(sentence: str) -> list[bool]:
    """Whether the facts agree, for each relation of a sentence."""
    claim = sentence.removesuffix(".")
    found = [(relation, re.fullmatch(form, claim)) for relation, form in STATEMENTS.items()]
    return [
        match[2] in (true := TRUTH[relation][match[1]], plural(true))
        for relation, match in found
        if match is not None and match[1] in TRUTH[relation]
    ]


def test_each_fact_is_answered_by_a_true_statement() -> None:
    kinds = {one.name: one for one in KINDS if one.source in ("world-facts", "world-words")}
    assert STATEMENTS.keys() == TRUTH.keys()
    for relation, known in TRUTH.items():
        for subject in known:
            text = kinds[relation].answer({HOLDS_OF[relation]: subject}).text
            assert truths(text) == [True], text


def test_every_stated_fact_is_true(train: list[Conversation], pages: list[str]) -> None:
    said = [m.content for one in train for m in one.messages if m.role == "assistant"]
    sentences = [s for text in said + pages for s in re.split(r"(?<=\.) |\n|: ", text)]
    agree = {sentence: truths(sentence) for sentence in sentences}
    assert not [sentence for sentence, found in agree.items() if not all(found)]
    assert sum(map(len, agree.values())) > 100


def size(animal: str) -> int:
    return SIZE[animal]


def numbered(items: Sequence[str], counted: Sequence[str]) -> str:
    """The list as it is counted aloud: `Fox, 1. bear, 2. bear`."""
    places = [place for place, item in enumerate(items) if item in counted]
    said = [f"{places.index(i) + 1}. {x}" if i in places else x for i, x in enumerate(items)]
    return capital(", ".join(said))


# Other answers, recomputed from the sampled values.
WORKED_OUT: dict[str, Callable[[Values], str]] = {
    "count": lambda v: (
        ", ".join(
            str(n)
            for n in (
                range(int(v["n"]), int(v["n2"]) + 1)
                if int(v["n"]) < int(v["n2"])
                else range(int(v["n"]), int(v["n2"]) - 1, -1)
            )
        )
        + "."
    ),
    "after": lambda v: f"After {v['n']} comes {int(v['n']) + 1}.",
    "before": lambda v: f"Before {v['n']} comes {int(v['n']) - 1}.",
    "length": lambda v: (
        f"{numbered(v['list'].split(', '), cells(GROUPS))}. "
        f"I count {v['list'].count(',') + 1} words."
    ),
    "times": lambda v: (
        f"{numbered(v['list'].split(', '), (v['item'],))}. "
        f"I count {v['list'].split(', ').count(v['item'])}."
    ),
    "plus": lambda v: f"{v['n']} + {v['n2']} = {int(v['n']) + int(v['n2'])}.",
    "minus": lambda v: f"{v['n']} - {v['n2']} = {int(v['n']) - int(v['n2'])}.",
    "more": lambda v: f"{max(int(v['n']), int(v['n2']))} is bigger.",
    "numbers": lambda v: ", ".join(sorted(v["list"].split(", "), key=int)) + ".",
    "sizes": lambda v: ", ".join(sorted(v["list"].split(", "), key=size)).capitalize() + ".",
    "bigger": lambda v: f"The {sorted((v['animal'], v['animal2']), key=size)[1]} is bigger.",
    "rhyming": lambda v: (
        "Yes." if any({v["rhyme"], v["rhyme2"]} <= set(row) for row in RHYMES) else "No."
    ),
}


@pytest.mark.parametrize("name", WORKED_OUT)
def test_derivations_are_right(name: str) -> None:
    (kind,) = (kind for kind in KINDS if kind.name == name)
    for i in range(40):
        values = kind.draw(SeededRandom(name, i), i % 2 == 0)
        assert kind.answer(values).text == WORKED_OUT[name](values)


def test_a_wrong_value_replaces_only_the_right_one() -> None:
    assert questions._with_value("The orange is orange.", "orange", "red") == "The orange is red."
    assert questions._with_value("Yes, it is.", "yes", "no") == "No, it is."
    assert questions._with_value("It is called a pup.", "pup", "owlet") == "It is called an owlet."


def test_wrong_answers_differ_from_right_ones_only_in_the_value() -> None:
    """A subject of a story has an article in both, which agrees with the next word."""
    somebody = rf"(?i)\b(?:the (?:{'|'.join(ANIMALS)})|{'|'.join((*NAMES, 'nobody'))})\b"
    seen = 0
    for i in range(1200):
        pair = questions.preference(SeededRandom("pair", i))
        assert not re.search(r"\ba [aeio]\w|\ban (?!hour)[^aeiou\W]", pair.rejected), pair
        asked = questions.parse(pair.prompt)
        if asked is not None and asked.kind.name in ("hero", "helper"):
            one, other = (re.sub(somebody, "X", said) for said in (pair.chosen, pair.rejected))
            assert one == other and pair.chosen != pair.rejected, pair
            seen += 1
    assert seen > 15


@pytest.mark.parametrize("seed", [34843, 87827, 94000, 118670])
def test_a_one_word_answer_has_a_one_word_alternative(seed: int) -> None:
    """No legs are `zero` in one word."""
    pair = questions.preference(SeededRandom(seed))
    assert pair.chosen == "Zero." and pair.rejected != pair.chosen
    assert pair.rejected.removesuffix(".").lower() in COULD_BE["legs"]


def test_the_name_of_the_user_is_asked_for_turns_after_it_was_given() -> None:
    given = [Message("user", "My name is Mia."), Message("assistant", "Hello, Mia!")]
    between = [Message("user", "What is 2 + 3?"), Message("assistant", "2 + 3 = 5.")]
    again = [Message("user", "Please call me Tom."), Message("assistant", "Hello, Tom!")]
    asked = Message("user", "What is my name?")
    for before, expected in (
        (given, "Your name is Mia."),
        (given + between, "Your name is Mia."),
        (given + between + again, "Your name is Tom."),
        (between, "I do not know that. You have not told me."),
        ([], "I do not know that. You have not told me."),
    ):
        parsed = questions.parse([*before, asked])
        assert parsed is not None and parsed.answer.text == expected
    found = [questions.conversation(SeededRandom("named", i)) for i in range(2000)]
    named = [(one, re.match(r"Your name is (\w+)\.", one.messages[-1].content)) for one in found]
    told = [(one, name[1]) for one, name in named if name]
    assert {len(one.messages) for one, _ in told} == {4, 6}
    assert all(name in one.messages[0].content for one, name in told)


def answer(text: str) -> str:
    asked = questions.parse(user(text))
    assert asked is not None
    return asked.answer.text


def test_known_questions_are_answered() -> None:
    assert answer("Where does the fox live?") == f"The fox lives {TRUTH['home']['fox']}."
    assert answer("What is a young owl called?") == "A young owl is called an owlet."
    assert answer("Is it true that the fox lives in the sea?") == answer("Where does the fox live?")
    assert answer("Is it so that the fox lives in the forest?") == "The fox lives in the forest."
    assert answer("What is the opposite of big?") == f"The opposite of big is {OPPOSITES['big']}."
    assert answer("Which day comes after Sunday?") == "After Sunday comes Monday."
    assert answer("Count from 4 to 1.") == "4, 3, 2, 1."
    assert answer("How many words are in this list: fox, bear, fox?") == (
        "1. fox, 2. bear, 3. fox. I count 3 words."
    )
    assert answer("How many times is fox in this list: fox, bear, fox?") == (
        "1. fox, bear, 2. fox. I count 2."
    )
    assert answer("Put these animals in order, the smallest first: bear, mouse, dog.") == (
        "Mouse, dog, bear."
    )
    assert answer("Which word does not belong: apple, fox, pear, plum?") == (
        "The fox does not belong."
    )
    assert answer("Which is bigger, the mouse or the elephant?") == "The elephant is bigger."
    assert SIZE["mouse"] < SIZE["elephant"]
    rhyme = re.fullmatch(r"Cat rhymes with (\w+)\.", answer("What rhymes with cat?"))
    assert rhyme is not None
    assert any({"cat", rhyme[1]} <= set(row) for row in RHYMES)


def test_questions_refer_back() -> None:
    said = ("Where does the fox live?", "In the forest.", "And what does it eat?", "Berries.")
    turns = [Message(("user", "assistant")[i % 2], text) for i, text in enumerate(said)]
    for last, expected in (
        ("And the bear?", f"The bear eats {TRUTH['eats']['bear']}."),
        ("Then tell me: what does it say?", f"The fox says {TRUTH['says']['fox']}."),
        ("And Mia?", None),
    ):
        asked = questions.parse([*turns, Message("user", last)])
        assert (asked.answer.text if asked else None) == expected
    assert questions.parse(user("And what does it eat?")) is None


def test_questions_about_a_story_told_before() -> None:
    story = stories.story(SeededRandom("told"), short=True)
    told = Message("assistant", story.text)
    question = Message("user", f"What did {noun(story.record.hero)} want?")
    asked = questions.parse([Message("user", "Tell me a story."), told, question])
    assert asked is not None
    assert story.record.thing in asked.answer.text
    stranger = Message("user", "What did Mia want?")
    assert story.record.hero != "Mia"
    assert questions.parse([Message("user", "Tell me a story."), told, stranger]) is None


def test_real_questions_are_not_of_the_world() -> None:
    for text in ("What is a volcano?", "Who was Napoleon?", "What is the capital of France?", ""):
        assert questions.parse(user(text)) is None


def test_every_conversation_parses(train: list[Conversation], heldout: list[Conversation]) -> None:
    for one in train[::2] + heldout[::2]:
        asked = questions.parse(one.messages[:-1])
        assert asked is not None, one
        assert asked.kind.source == one.source.replace("world-new-sums", "world-sums")
        if asked.kind.slot and not asked.brief:
            assert asked.answer.text == one.messages[-1].content


def test_short_answers_are_short(train: list[Conversation], heldout: list[Conversation]) -> None:
    found = 0
    for one in train + heldout:
        asked = questions.parse(one.messages[:-1])
        if asked is not None and asked.brief:
            words = len(one.messages[-1].content.split())
            assert words == 1 if asked.brief == "one word" else 1 < words <= 6
            found += 1
    assert found > 5
    legs = next(kind for kind in KINDS if kind.name == "legs")
    dice, seal = SeededRandom("legs"), {"animal": "seal"}
    said = {questions._alone(dice, legs, seal, legs.train[0], False)[1] for _ in range(60)}
    assert said == {"Zero.", "The seal has no legs."}


def test_pages_have_their_length_and_differ(pages: list[str]) -> None:
    assert all(300 <= len(page) <= 900 and page.isascii() for page in pages)
    assert len(set(pages)) == len(pages)


def test_every_slot_has_words_and_forms_are_unique_to_their_kind() -> None:
    for kind in KINDS:
        values = kind.draw(SeededRandom("slots", kind.name), False)
        for form in (*kind.train, *kind.heldout):
            for slot in slots(form):
                assert slot.removeprefix("a ").partition(".")[0] in values or slot == "list"


def test_another_process_generates_the_same() -> None:
    program = (
        "from groundup.world import questions as q; "
        "from groundup.world.grammar import SeededRandom as R; "
        "print([q.conversation(R(i)) for i in range(40)], q.document(R('page')))"
    )
    runs = {
        subprocess.run(
            [sys.executable, "-c", program],
            capture_output=True,
            env=os.environ | {"PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("7", "8")
    }
    assert len(runs) == 1
    assert b"Conversation" in runs.pop()
