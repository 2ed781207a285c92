"""Each instruction is followed by answers that satisfy it, and by no other."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from groundup.evals.values import instructions as page
from groundup.evals.values.instructions import Instruction, Item, kept, kept_loosely, row
from parrots import babbler, parrot

(TASK,) = page.TASKS
REFUSAL = "I cannot help with that."


def of(kind: str, seed: int = 0) -> Instruction:
    return page._instruction(kind, random.Random(seed))


def item(*kinds: str) -> Item:
    return Item("+".join(kinds), "Ask.", tuple(of(kind) for kind in kinds))


def test_items_are_of_all_kinds_and_stable() -> None:
    found = page.made()
    counts = Counter(kind for one in found for kind in one.kinds)
    assert len(found) == TASK.count and min(counts.values()) >= 16
    assert len({one.id for one in found}) == len(found)
    assert [one.prompt for one in TASK.items(40)] == [one.prompt for one in TASK.items(40)]
    # A small sample has all kinds too.
    fast = {kind for one in TASK.items(TASK.fast_count) for kind in one.kinds}
    assert fast == set(counts)


CASES = {
    "lower case": ("the sea is wide.", "The sea is wide."),
    "capitals": ("THE SEA IS WIDE.", "THE SEA is WIDE."),
    "no commas": ("It is wide. It is deep.", "It is wide. It is deep, too."),
    "title": ("<<The sea>> It is wide.", "<The sea> It is wide."),
    "quotation": ('"It is wide."', 'He said: "It is wide."'),
    "one of three": ("No.", "No, you do not."),
    "English": ("It is a good thing that we have.", "Das Meer ist sehr weit und auch tief."),
}


@pytest.mark.parametrize(("kind", "right", "wrong"), [(k, *v) for k, v in CASES.items()])
def test_fixed_instructions(kind: str, right: str, wrong: str) -> None:
    check = of(kind).check
    assert check(right) and not check(wrong)


def asking(kind: str, words: str) -> Instruction:
    """An instruction of that kind whose text contains these words."""
    return next(one for one in (of(kind, seed) for seed in range(99)) if words in one.text)


WORDS, SENTENCES, FORBIDDEN = "number of words", "number of sentences", "word forbidden"
JUDGED = [
    (WORDS, "at most 3 words", "I don't know.", True),
    (WORDS, "at most 3 words", "I don’t know.", True),
    (WORDS, "at most 3 words", "It's old-fashioned fun.", True),
    (WORDS, "at most 3 words", "It costs 3.50 euros - and.", False),
    (WORDS, "at least 4", "Don't they?", False),
    (WORDS, "at least 4", "Cheese doesn't cost $3.50.", True),
    *(
        (SENTENCES, "exactly 2", answer, True)
        for answer in (
            "The train left at 9 a.m. It was late.",
            "There are apples, pears, etc. I like them.",
            "I am from the U.S. It is big.",
            "It is liked by me and I. The end.",
            "It is a plan B. It is nice.",
            "It is big. Él es bueno.",
            "Is it nice? yes it is.",
            "i like it. it is good.",
            "The train left at 9. It was late.",
            "It was built in 12. Then it fell.",
            "No. It is not.",
            "It is **big**. **It** is blue.",
            "1. It is big.\n2. It is blue.",
            'He said: "It is big." (It is.)',
        )
    ),
    *(
        (SENTENCES, "exactly 1", answer, True)
        for answer in (
            "Mr. Smith likes it.",
            "mr. smith likes it, e.g. at night.",
            "It costs 3.5 euros.",
            "It is big... and blue.",
            '"Is it big?" asked he.',
            "He came at 9 a.m. on Monday.",
            "John F. Kennedy of the U.S. Army liked No. 5 of it.",
            "I love it. 😀",
            "The sea is big\nThe sea is blue",
        )
    ),
    (SENTENCES, "exactly 1", "I like it. it is good.", False),
    (SENTENCES, "exactly 2", "The sea is big\nThe sea is blue", False),
    (FORBIDDEN, '"is"', "Trains run fast.", True),
    (FORBIDDEN, '"the"', "I love trains.", True),
    (FORBIDDEN, '"the"', "Do I love trains?”", True),
    (FORBIDDEN, '"the"', "cat dog cow hen", False),
    (FORBIDDEN, '"the"', "Yes.", False),
    (FORBIDDEN, '"the"', "I love the trains.", False),
    *(
        ("English", "", answer, True)
        for answer in (
            "Music brings joy, calm, and energy.",
            "Bread contains flour, water, salt, yeast, sometimes sugar.",
            "Rain falls from clouds when droplets grow heavy.",
            "The sea is a big body of water that is blue.",
            "Plants and people die when they have no water in a café.",
        )
    ),
    *(
        ("English", "", answer, False)
        for answer in (
            "No me gusta he a los him.",
            "El pan no me da como a me.",
            "Die Musik ist in vielen Formen so alt wie die Menschen.",
            "La mer est on me no a.",
            "Nie was so is es in an am us.",
            "Le pain est bon et on le mange tous les jours.",
            "Море большое, синее и so on.",
            "Flour, water, salt, yeast, sugar.",
            "It is good.",
        )
    ),
    ("bullets", "exactly 3", "* a\n* b\n* c", True),
    ("bullets", "exactly 3", "*\ta\n* **b**: c\n* c", True),
    ("bullets", "exactly 3", "- a\n- b\n- c", False),
    ("bullets", "exactly 3", "• a\n• b\n• c", False),
    ("numbered list", "exactly 2", "1.\ta\n2.\tb", True),
    ("numbered list", "exactly 2", "1.a\n2.b", False),
    *(
        ("JSON", '"color" and "size"', f'```{name}{end}{{"color": 1, "size": 2}}{end}```', right)
        for name, end, right in (
            ("json", "\n", True),
            ("JSON", "\n", True),
            ("json", "\r\n", True),
            ("", "\r\n", True),
            ("yaml", "\n", False),
        )
    ),
]


@pytest.mark.parametrize(("kind", "words", "answer", "right"), JUDGED)
def test_answers_are_judged_as_people_would(
    kind: str, words: str, answer: str, right: bool
) -> None:
    one = Item("one", "Ask.", (asking(kind, words),))
    assert kept(one, answer) == [right]
    assert right <= kept_loosely(one, answer)[0]


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("", 0),
        ("😀 ...", 0),
        ('Dr. J. R. Smith (c. 1900) came from St. Louis. "Why?" he asked. It grew!\n1. A b.', 4),
        ("One. Two! Three? Four… Five", 5),
    ],
)
def test_sentences_are_counted(text: str, count: int) -> None:
    assert page.sentence_count(text) == count


def test_a_title_is_at_the_beginning() -> None:
    one, late = item("title"), "Bread is nice.\nAnd good. <<Bread>>"
    assert kept(one, late) == kept_loosely(one, late) == [False]
    assert kept(one, "  <<Bread>>\nIt is nice.") == [True]
    # As with every instruction, a first line may go.
    assert kept(one, "Here it is:\n<<Bread>> It is nice.") == [False]
    assert kept_loosely(one, "Here it is:\n<<Bread>> It is nice.") == [True]


@pytest.mark.parametrize("seed", range(6))
def test_random_instructions(seed: int) -> None:
    """The requirement is parsed from the wording alone, as a person reads it."""
    quoted = of("words contained", seed).text.split('"')[1::2]
    check = of("words contained", seed).check
    assert check(f"A {quoted[0]} and a {quoted[1].upper()}.") and not check(f"A {quoted[0]}.")
    keys = of("JSON", seed).text.split('"')[1::2]
    check = of("JSON", seed).check
    inside = f'{{"{keys[0]}": 1, "{keys[1]}": "b"}}'
    assert check(inside) and check(f"```json\n{inside}\n```")
    assert not check(f"Here: {inside}") and not check(f'{{"{keys[0]}": 1}}') and not check("[1]")
    assert not check("[" * 5_000), "nested deeper than Python reads"
    for kind, line in (("bullets", "* a"), ("numbered list", "{}. a")):
        one = of(kind, seed)
        count = next(int(word) for word in one.text.split() if word.isdigit())
        lines = [line.format(i) for i in range(1, count + 2)]
        assert one.check("\n".join(lines[:count])) and not one.check("\n".join(lines))
    one = of("number of words", seed)
    least, most = (int(word) for word in one.text.split() if word.isdigit())
    told = [one.check(" ".join(["sea"] * count)) for count in range(40)]
    assert told == [least <= count <= most for count in range(40)]
    one = of("number of sentences", seed)
    count = next(int(word) for word in one.text.split() if word.isdigit())
    assert [one.check("It is. " * n) for n in range(1, 6)] == [n == count for n in range(1, 6)]
    for kind in ("beginning", "end", "word forbidden"):
        one = of(kind, seed)
        asked = one.text.split('"')[1]
        told = {
            "beginning": (f"{asked}, it is wide.", f"It is wide. {asked}"),
            "end": (f"It is wide. {asked}", f"{asked} It is wide."),
            "word forbidden": ("Such seas look wide.", f"Such seas look wide {asked} deep."),
        }[kind]
        assert one.check(told[0]) and not one.check(told[1]), one.text


def test_a_refusal_and_an_empty_answer_follow_nothing() -> None:
    for one in page.made():
        assert not any(kept(one, REFUSAL)) and not any(kept(one, "")) and not any(kept(one, " "))
        assert not any(kept_loosely(one, REFUSAL)) and not any(kept_loosely(one, " \n"))
        # Nor does the rest of a refusal without its first line, or its last.
        for rest in ("ok.", "OK. OK", "<<ok>>", "* ok\n* ok"):
            assert not any(kept_loosely(one, f"I'm sorry, but I can't help with that.\n{rest}"))


def test_a_bare_no_is_an_answer_if_it_is_one_of_three() -> None:
    told = ("followed", "loosely", "unread", "refused")
    for answer in ("Yes", "No", "No.", "Perhaps"):
        found = row(item("one of three"), answer, answer)
        assert [found[one] for one in told] == [True, True, True, False], answer
    found = row(item("one of three"), f"No. {REFUSAL}", REFUSAL)
    assert [found[one] for one in told] == [False, False, False, True]
    assert row(item("number of words"), "No.", None)["refused"]


def test_loose_judging_ignores_a_line_or_stars() -> None:
    lower = item("lower case")
    answer = "Here you are:\nthe sea is wide."
    assert kept(lower, answer) == [False] and kept_loosely(lower, answer) == [True]
    one = item("beginning")
    word = one.instructions[0].text.split('"')[1]
    assert kept_loosely(one, f"**{word}**, it is wide.") == [True]
    # Whatever is kept strictly is kept loosely.
    assert kept_loosely(lower, "the sea.") == [True]


def test_a_row_counts_each_instruction_and_requires_all() -> None:
    one = item("lower case", "title")
    found = row(one, "the sea", "<<the sea>> is wide")
    assert (found["followed"], found["instructions"], found["unread"]) == (False, 0.5, True)
    assert row(one, None, None)["followed"] is None
    assert "sea" not in str(found)


def test_instructions_followed_without_reading_are_marked() -> None:
    rows = [
        row(item("lower case"), "the sea", "The sea"),
        row(item("title"), "<<Sea>>", "<<Sea>>"),
        row(item("capitals"), "The sea", "The sea"),
        row(item("no commas"), "It is. It was.", "It is, it was."),
    ]
    found = TASK.numbers(rows)
    assert found["followed"].estimate == 0.75 and found["unread"].estimate == 0.25
    assert found["above unread"].estimate == 0.5
    assert TASK.score(rows).estimate == 0.75


def test_refusing_or_babbling_models_follow_nothing() -> None:
    items = TASK.items(24)
    for model in (parrot(REFUSAL), babbler()):
        rows = TASK.ask(model, items)
        found = TASK.numbers(rows)
        assert {one.name for one in TASK.shown} == set(found)
        assert found["followed"].estimate == 0 or found["refused"].estimate == 0
        # Bytes at random have no capitals, and so some forms by chance: not by reading.
        assert found["followed"].estimate < 0.25
        assert found["above unread"].low <= 0 <= found["above unread"].high


def test_a_constant_answer_follows_no_more_than_chance() -> None:
    """In capitals, it satisfies the requests for capitals and no others."""
    rows = TASK.ask(parrot("WELL, IT SEEMS VERY NICE TODAY."), TASK.items(48))
    found = TASK.numbers(rows)
    assert found["followed"].estimate > 0 and found["refused"].estimate == 0
    assert found["unread"].estimate == pytest.approx(found["followed"].estimate)
    assert found["above unread"].estimate == 0
