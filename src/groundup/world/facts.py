"""The facts of the small world: a table for each kind of thing, and relations between them.

The world is the same for every seed. `TRUTH[relation][subject]` is the one right answer, and every
sentence of the pack that states a fact takes it from there.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping

from groundup.world.grammar import PRONOUNS, SeededRandom, plural, with_article
from groundup.world.tables import Table, cells, page

_PAGE = page("facts")


def _subjects(section: str) -> tuple[str, ...]:
    """The subjects of a table of facts; its first row names the columns."""
    return tuple(row[0] for row in _PAGE[section][1:])


ANIMALS, THINGS = _subjects("animals"), _subjects("things")
FOODS, JOBS = _subjects("foods"), _subjects("jobs")
GIRLS, BOYS = cells(_PAGE["girls"]), cells(_PAGE["boys"])
NAMES = GIRLS + BOYS
EVERYBODY = NAMES + ANIMALS
HOMES, PETS = cells(_PAGE["homes"]), cells(_PAGE["pets"])
COLORS, NUMBERS = cells(_PAGE["colours"]), cells(_PAGE["numbers"])
DAYS, MONTHS = cells(_PAGE["days"]), cells(_PAGE["months"])
RHYMES = tuple(_PAGE["rhymes"])
OPPOSITES: Mapping[str, str] = {
    word: other for one, two in _PAGE["opposites"] for word, other in ((one, two), (two, one))
}
# Uncountable nouns: some bread, not a bread.
UNCOUNTED = frozenset(cells(_PAGE["not counted"]))


def _columns(table: Table) -> dict[str, dict[str, str]]:
    """Relations by the names of the columns, each from the subjects to the column's values."""
    subjects, *columns = zip(*table, strict=True)
    return {column[0]: dict(zip(subjects[1:], column[1:], strict=True)) for column in columns}


def _people() -> dict[str, dict[str, str]]:
    """Each person's home, pet and preferences: sampled once, the same for every seed."""
    dice = SeededRandom("the people of the small world")
    likes = [food for food in FOODS if food not in cells(_PAGE["not liked"])]
    drawn = {"lives": HOMES, "pet": PETS, "likes": likes, "favourite": COLORS}
    return {relation: {name: dice.pick(of) for name in NAMES} for relation, of in drawn.items()}


def _next(words: tuple[str, ...]) -> dict[str, str]:
    return dict(zip(words, words[1:] + words[:1], strict=True))


# By type of subject: a name, an animal, a word ...
_RELATIONS: dict[str, dict[str, dict[str, str]]] = {
    **{_PAGE[s][0][0]: _columns(_PAGE[s]) for s in ("animals", "things", "foods", "jobs")},
    "name": _people(),
    "word": {"opposite": dict(OPPOSITES)},
    "day": {"next day": _next(DAYS)},
    "month": {"next month": _next(MONTHS)},
}
SIZE = {animal: int(size) for animal, size in _RELATIONS["animal"].pop("size").items()}
TRUTH: Mapping[str, Mapping[str, str]] = {
    relation: {subject: answer for subject, answer in known.items() if answer != "nothing"}
    for relations in _RELATIONS.values()
    for relation, known in relations.items()
}
HOLDS_OF = {relation: about for about, known in _RELATIONS.items() for relation in known}


def is_girl(name: str) -> bool:
    """Whether a person of the world is a girl; all others are boys."""
    return name in GIRLS


@functools.cache
def pronoun(who: str, case: str) -> str:
    """`she`, `him` or `its` for a person or animal; the case is he, him or his."""
    return PRONOUNS[case][2 if who in ANIMALS else is_girl(who)]


def noun(who: str) -> str:
    """A known character: `Mia`, `the fox`."""
    return who if who in NAMES else f"the {who}"


def some(who: str) -> str:
    """A character not yet introduced: `Mia`, `a fox`."""
    return who if who in NAMES else with_article(who)


# One in twenty of all pairs of a character and a thing: this fox never with that lamp.
HELDOUT_PAIRS = frozenset(
    (who, thing)
    for who in EVERYBODY
    for thing in THINGS
    if SeededRandom("held out", who, thing).chance(0.05)
)
_WHO = frozenset(EVERYBODY)
_THING_OF = {word: thing for thing in THINGS for word in (thing, plural(thing))}


def heldout_pairs(text: str) -> set[tuple[str, str]]:
    """The pairs of HELDOUT_PAIRS whose character and thing are both named in a text."""
    words = set(re.findall("[A-Za-z]+", text))
    words |= {word.lower() for word in words}
    things = {_THING_OF[word] for word in words & _THING_OF.keys()}
    return {(who, thing) for who in words & _WHO for thing in things} & HELDOUT_PAIRS
