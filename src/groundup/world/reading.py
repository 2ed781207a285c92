"""Parse stories: match any text with the forms that generate them.

A ledger records what a text has said so far. Every contradiction is a fault: a character named
before being introduced, a pronoun that does not agree, a thing that moves, a different ending.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass

import regex

from groundup.text.cleaning import sentences as split
from groundup.world import plot
from groundup.world.facts import ANIMALS, NAMES, TRUTH, noun, pronoun
from groundup.world.grammar import Grammar, kind_of
from groundup.world.plot import CALLS, INTRODUCES, ROLES


@dataclass(frozen=True)
class Record:
    """The events of a story: people by name, animals by kind; None means left open.

    `want` is get, take (to `goal`), give (to `other`), borrow or buy (from `other`); `place` is the
    original place of the thing; `why` is the reason for the hero's feeling at the end.
    """

    hero: str
    helper: str | None
    other: str | None
    want: str
    thing: str
    place: str | None
    goal: str | None
    weather: str | None
    obstacle: str
    tool: str | None
    helped: bool
    ending: str
    feeling: str
    why: str


@dataclass(frozen=True)
class Reading:
    """A parsed text: its sentences of the world's grammar, and its faults."""

    sentences: tuple[str, ...]
    parsed: tuple[bool, ...]
    faults: tuple[str, ...]
    record: Record | None

    @property
    def consistent(self) -> bool:
        """Whether names, pronouns, things, places and the ending all agree."""
        return not self.faults


def read(text: str) -> Reading:
    """Parse any text by the grammar, with its faults and the record of its events."""
    ledger, faults, parsed = Ledger(), list[str](), list[bool]()
    found = tuple(split(text))
    for sentence in found:
        # Of several readings the first with the fewest contradictions.
        readings = [(ledger.faults(p.form, p.values), p) for p in _grammar().parse(sentence)]
        parsed.append(bool(readings))
        if readings:
            wrong, best = min(readings, key=lambda reading: len(reading[0]))
            faults += wrong
            ledger.note(best.form, best.values, sentence)
        else:
            faults += ledger.strangers(sentence)
            ledger.subject = None
    if "A" not in ledger.known:
        faults.append("no hero is introduced")
    return Reading(found, tuple(parsed), tuple(faults), ledger.record())


class Ledger:
    """What a text has said so far; the planner writes into it, the reader checks against it."""

    def __init__(self) -> None:
        self.known: dict[str, str] = {}
        self.subject: str | None = None

    def note(self, form: str, values: Mapping[str, str], sentence: str) -> None:
        """Record the content of a sentence."""
        for key, value in _news(form, values).items():
            self.known.setdefault(key, value)
        if "{glad}" in form or "{sad}" in form:
            self.known["why"] = sentence.partition(" because ")[2].rstrip(".")
        self.subject = plot.subject(form)

    def faults(self, form: str, values: Mapping[str, str]) -> list[str]:
        """The contradictions of a sentence to the sentences before it."""
        news = _news(form, values)
        found = [
            f"the {ROLES.get(key, key)} changes from {self.known[key]} to {value}"
            for key, value in news.items()
            if self.known.get(key, value) != value
        ]
        for role in ROLES:
            if role in news and news[role] in (self.known.get(r) for r in ROLES if r != role):
                found.append(f"{news[role]} is introduced twice")
        named = {INTRODUCES[slot] for slot in values if slot in INTRODUCES}
        people = self.known | {role: news[role] for role in named}
        for slot in plot.slots(form):
            role, _, case = slot.partition(".")
            if case:
                if role not in named and not (role == self.subject and slot == plot.lead(form)):
                    found.append(f"{values[slot]} does not stand for the subject before it")
                elif role in people and values[slot] != pronoun(people[role], case):
                    found.append(f"{values[slot]} does not agree with {people[role]}")
            elif role in ROLES and values[slot] != noun(people.get(role, "")):
                found.append(f"{values[slot]} is not introduced as the {ROLES[role]}")
            named.add(role)
        for slot in values.keys() & CALLS.keys():
            if values[slot] != plot.call(self.known.get(CALLS[slot], "")):
                found.append(f"{values[slot]} is not the {ROLES[CALLS[slot]]}")
        if "home" in values and values["home"] != plot.home(people.get("A", "")):
            found.append(f"{people.get('A')} does not live {values['home']}")
        if "use" in values and values["use"] != TRUTH["use"].get(news.get("thing", "")):
            found.append(f"{news.get('thing')} is not for {values['use']}")
        return found

    def strangers(self, sentence: str) -> list[str]:
        """Characters named in a sentence of no form who were never introduced."""
        names = {self.known.get(role) for role in ROLES}
        found = dict.fromkeys(_NAMED.findall(sentence))
        return [f"{who} is not introduced" for who in found if last_word(who) not in names]

    def record(self) -> Record | None:
        """The record of a whole story, or None if a part is missing."""
        known = self.known
        if not all(k in known for k in ("A", "thing", "want", "obstacle", "ending", "feeling")):
            return None
        return Record(
            hero=known["A"],
            helper=known.get("B"),
            other=known.get("C"),
            want=known["want"],
            thing=known["thing"],
            place=known.get("place"),
            goal=known.get("goal"),
            weather=known.get("weather"),
            obstacle=known["obstacle"],
            tool=known.get("tool"),
            helped=known.get("helped") == "yes",
            ending=known["ending"],
            feeling=known["feeling"],
            why=known["why"],
        )


def last_word(phrase: str) -> str:
    """A character's name: `fox` for `the fox` and `a young fox`, `Mia` for `a girl named Mia`."""
    return phrase.rpartition(" ")[2]


def _news(form: str, values: Mapping[str, str]) -> dict[str, str]:
    """What a sentence determines for the rest of the story."""
    news = dict(plot.EFFECTS[form])
    for slot, value in values.items():
        kind = kind_of(slot)
        if slot in INTRODUCES:
            news[INTRODUCES[slot]] = last_word(value)
        elif kind in ("thing", "place", "goal", "tool"):
            news[kind] = value.partition(" ")[2] if slot.startswith("a ") else value
        elif kind in ("weather", "weathery"):
            news["weather"] = _WEATHER_OF[value]
        elif kind in ("glad", "sad"):
            news["feeling"] = value
    return news


@functools.cache
def _grammar() -> Grammar:
    return Grammar(plot.EFFECTS, plot.WORDS)


_WEATHER_OF = {said: weather for weather, row in plot.WEATHERS.items() for said in row}
_NAMED = regex.compile(rf"\b(?:{'|'.join(NAMES)}|[Tt]he (?:{'|'.join(ANIMALS)}))\b")
