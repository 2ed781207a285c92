"""Right answers: for each slot that a question may ask for, and for all values sampled for one.

A slot of a statement is filled from the sampled values, from `RELATIONS`, or computed. The possible
values of a slot (`COULD_BE`) distinguish a wrong answer from an unrelated one.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence

from groundup.world import stories
from groundup.world.facts import (
    ANIMALS,
    EVERYBODY,
    FOODS,
    HOLDS_OF,
    JOBS,
    NAMES,
    RHYMES,
    SIZE,
    THINGS,
    TRUTH,
    UNCOUNTED,
    pronoun,
    some,
)
from groundup.world.grammar import SeededRandom, fill, plural, with_article
from groundup.world.plot import OBSTACLES, WEATHERS
from groundup.world.reading import Record
from groundup.world.tables import cells, labelled, page

Values = Mapping[str, str]
Draw = Callable[[SeededRandom, bool], Values]


def said(form: str, values: Values) -> str:
    """A form filled with the values, and with everything that follows from them."""
    return fill(form, _Slots(values)) if form else ""


def right(slot: str, values: Values) -> tuple[str, ...]:
    """All right values of a slot, the best first, by the values and the truth."""
    claimed = slot.removeprefix("is ")
    if claimed != slot:
        return (_yes(values[f"{claimed}2"] == right(claimed, values)[0]),)
    if slot in HOLDS_OF:
        found = RELATIONS[slot][values[HOLDS_OF[slot]]]
        return (found, "zero", "none", "not have any") if found == "no" else (found,)
    if slot in _WORKED_OUT:
        return (str(_WORKED_OUT[slot](values)),)
    if slot == "rhymed":
        return _rhymes_with(values["rhyme"])
    return (values["thing" if slot == "want" else slot],)


class _Slots(dict[str, str]):
    """Values by plain slot, from which `{a thing}`, `{name.he}` and the truth follow."""

    def __missing__(self, slot: str) -> str:
        if slot.startswith("a "):
            return with_article(self[slot[2:]])
        name, _, case = slot.partition(".")
        return pronoun(self[name], case) if case else right(slot, dict(self))[0]


# The truth in phrases: `works with an oven`, `likes cherries best`.
RELATIONS: Mapping[str, Mapping[str, str]] = {
    **TRUTH,
    "tool": {k: v if v in UNCOUNTED else with_article(v) for k, v in TRUTH["tool"].items()},
    "likes": {k: v if v in UNCOUNTED else plural(v) for k, v in TRUTH["likes"].items()},
}
NUMERALS = tuple(str(number) for number in range(41))
ITEMS = {plural(food): food for food in FOODS if food not in UNCOUNTED}
GROUPS = (ANIMALS, FOODS, JOBS, THINGS)
# General question forms.
ASKING = {section: labelled(table) for section, table in page("asking").items()}
# Invented words that nobody knows.
_INVENTED = tuple(
    f"{a}{b}{c}" for a in ("zw", "gl", "sn", "fl") for b in "oua" for c in ("rb", "lk", "zz")
)
OPEN_WORDS = {
    **ASKING["feelings"],
    "name": NAMES,
    "odd": _INVENTED,
    "Odd": tuple(map(str.capitalize, _INVENTED)),
}


def _items(values: Values) -> list[str]:
    return values["list"].split(", ")


def _size(item: str) -> int:
    return SIZE[item] if item in SIZE else int(item)


def _yes(is_so: bool) -> str:
    return "yes" if is_so else "no"


def _rhymes_with(word: str) -> tuple[str, ...]:
    """The words that rhyme, starting with the next one in the row."""
    row = next(row for row in RHYMES if word in row)
    at = row.index(word)
    return (*row[at + 1 :], *row[:at])


def _counted(values: Values) -> str:
    start, end = int(values["n"]), int(values["n2"])
    step = 1 if end > start else -1
    return ", ".join(map(str, range(start, end + step, step)))


def _odd_one(values: Values) -> str:
    parts = [[item for item in _items(values) if item in group] for group in GROUPS]
    return next(part[0] for part in parts if len(part) == 1)


def _marked(items: Sequence[str], counted: str) -> Iterator[str]:
    """The items of a list, the counted ones with their numbers."""
    count = 0
    for item in items:
        count += item == counted
        yield f"{count}. {item}" if item == counted else item


_WORKED_OUT: Mapping[str, Callable[[Values], object]] = {
    "sum": lambda v: int(v["n"]) + int(v["n2"]),
    "rest": lambda v: int(v["n"]) - int(v["n2"]),
    "next": lambda v: int(v["n"]) + 1,
    "last": lambda v: int(v["n"]) - 1,
    "counted": _counted,
    # Counting aloud: `1. fox, 2. bear. I count 2 words.`
    "numbered": lambda v: ", ".join(f"{i}. {item}" for i, item in enumerate(_items(v), 1)),
    "marked": lambda v: ", ".join(_marked(_items(v), v["item"])),
    "length": lambda v: len(_items(v)),
    "times": lambda v: _items(v).count(v["item"]),
    "rhyming": lambda v: _yes(v["rhyme2"] in _rhymes_with(v["rhyme"])),
    "bigger": lambda v: max(v["animal"], v["animal2"], key=_size),
    "more": lambda v: max(v["n"], v["n2"], key=_size),
    "sorted": lambda v: ", ".join(sorted(_items(v), key=_size)),
    "odd one": _odd_one,
}
_PLACES = (
    *(place for slot in ("home", "kept", "works", "lives") for place in TRUTH[slot].values()),
    *(place for obstacle in OBSTACLES.values() for place in obstacle.places),
)
# Empty for a list, which may be partly right.
COULD_BE: dict[str, tuple[str, ...]] = {
    **{slot: tuple(dict.fromkeys(RELATIONS[slot].values())) for slot in HOLDS_OF},
    **dict.fromkeys(("home", "kept", "works", "lives", "place"), _PLACES),
    **dict.fromkeys(("sum", "rest", "next", "last", "length", "times", "more"), NUMERALS),
    **dict.fromkeys((*(f"is {slot}" for slot in HOLDS_OF), "rhyming", "got"), ("yes", "no")),
    **dict.fromkeys(("counted", "sorted", "summary"), ()),
    "rhymed": cells(RHYMES),
    "bigger": ANIMALS,
    "odd one": cells(GROUPS),
    "name": NAMES,
    "hero": EVERYBODY,
    "helper": (*EVERYBODY, "nobody"),
    "want": THINGS,
    "weather": tuple(clause for clause, *_ in WEATHERS.values()),
    "feeling": cells(tuple(ASKING["feelings"].values())),
}
# An answer with such a statement about something unknown is made up.
CLAIMS = cells([COULD_BE[slot] for slot in ("home", "eats", "fur", "pet", "likes", "favourite")])


# Sampling.


def is_heldout_sum(one: int, other: int) -> bool:
    """Whether no training text adds or subtracts these two numbers: one pair in ten."""
    return SeededRandom("held-out sum", min(one, other), max(one, other)).chance(0.1)


@functools.cache
def pairs_of_numbers(sign: int, least: int, heldout: bool) -> Sequence[tuple[int, int]]:
    """The numbers that may be added (1) or subtracted (-1), with results from `least` to 20.

    Held-out pairs may be any of them, so that one test in ten uses numbers never trained.
    """
    numbers = [(one, other) for one in range(least, 21) for other in range(least, 21)]
    fit = [(one, other) for one, other in numbers if least <= one + sign * other <= 20]
    return fit if heldout else [pair for pair in fit if not is_heldout_sum(*pair)]


def _sum(dice: SeededRandom, heldout: bool, *, sign: int, least: int) -> Values:
    """Two numbers, and for a word problem (`least` 2, for plurals) a person and a thing."""
    one, other = dice.pick(pairs_of_numbers(sign, least, heldout))
    tale = {"name": dice.pick(NAMES), "items": dice.pick(tuple(ITEMS))} if least else {}
    return {"n": str(one), "n2": str(other), **tale}


def _two_numbers(dice: SeededRandom, heldout: bool) -> Values:
    one = other = dice.below(21)
    while not 2 <= abs(one - other) <= 8:
        other = dice.below(21)
    return {"n": str(one), "n2": str(other)}


def _list(dice: SeededRandom, heldout: bool) -> Values:
    item, *others = dice.sample(dice.pick(GROUPS), 2 + dice.below(4))
    items = [item] * (1 + dice.below(2)) + others
    return {"item": item, "list": ", ".join(dice.sample(items, len(items)))}


def _rhymes(dice: SeededRandom, heldout: bool) -> Values:
    row, far = dice.sample(RHYMES, 2)
    one, other = dice.sample(row, 2)
    return {"rhyme": one, "rhyme2": other if dice.chance(0.5) else dice.pick(far)}


def _animals(dice: SeededRandom, heldout: bool) -> Values:
    found = dice.sample(ANIMALS, 3)
    while len({SIZE[animal] for animal in found}) < 3:
        found = dice.sample(ANIMALS, 3)
    return {"animal": found[0], "animal2": found[1], "list": ", ".join(found)}


def _numbers(dice: SeededRandom, heldout: bool) -> Values:
    found = dice.sample(NUMERALS[:21], 3 + dice.below(2))
    return {"n": found[0], "n2": found[1], "list": ", ".join(found)}


def _three_and_one(dice: SeededRandom, heldout: bool) -> Values:
    most, other = dice.sample(GROUPS, 2)
    return {"list": ", ".join(dice.sample([*dice.sample(most, 3), dice.pick(other)], 4))}


DRAWS: Mapping[str, Draw] = {
    "numbers to add": functools.partial(_sum, sign=1, least=0),
    "numbers to take": functools.partial(_sum, sign=-1, least=0),
    "items to add": functools.partial(_sum, sign=1, least=2),
    "items to take": functools.partial(_sum, sign=-1, least=2),
    "number": lambda dice, heldout: {"n": str(1 + dice.below(19))},
    "two numbers": _two_numbers,
    "list": _list,
    "rhymes": _rhymes,
    "animals": _animals,
    "numbers": _numbers,
    "odd one": _three_and_one,
}


def told(record: Record) -> dict[str, str]:
    """The slots of all questions about a story, with their answers."""
    asked = stories.asked(record)
    verb = "got" if record.ending == "got" else "did not get"
    known = {"A": asked["hero"], "he": pronoun(record.hero, "he"), "verb": verb}
    return {**asked, **known, "thing": record.thing, "summary": stories.summary(record)}


def tale(dice: SeededRandom, heldout: bool, *, slot: str) -> Values:
    """A story that mentions the slot's value."""
    while True:
        weather = dice.pick(tuple(WEATHERS)) if slot == "weather" else None
        story = stories.story(dice, heldout=heldout, short=True, weather=weather)
        known = told(story.record)
        if slot in known:
            return {**known, "story": story.text}


def beginning(dice: SeededRandom, heldout: bool) -> Values:
    """The first three sentences of a story, with the rest as the reply."""
    sentences = stories.story(dice, heldout=heldout, short=True).sentences
    return {"story": " ".join(sentences[:3]), "reply": " ".join(sentences[3:])}


def wish(dice: SeededRandom, heldout: bool, *, weather: bool) -> Values:
    """The hero and the thing of a story, with the story as the reply."""
    drawn = dice.pick(tuple(WEATHERS)) if weather else None
    story = stories.story(dice, heldout=heldout, short=True, weather=drawn)
    who, thing = some(story.record.hero), story.record.thing
    return {"who": who, "thing": thing, "weather": drawn or "", "reply": story.text}
