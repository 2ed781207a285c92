"""The events of a story: its beats in many forms, and possible obstacles.

Two rules keep every sentence clear. Characters are introduced (`{new}` the hero, `{new2}` the
helper, `{new3}` the third) before being named (`{A}`, `{B}`, `{C}`). A pronoun refers to somebody
named earlier in its own sentence or, as its subject, to the subject of the sentence before.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass

from groundup.world import grammar
from groundup.world.facts import DAYS, EVERYBODY, NAMES, THINGS, TRUTH, is_girl, noun
from groundup.world.grammar import with_article
from groundup.world.tables import TableRow, cells, labelled, page

ROLES = {"A": "hero", "B": "helper", "C": "third"}
INTRODUCES = {"new": "A", "new2": "B", "new3": "C"}
CALLS = {"call": "A", "call2": "B"}


@dataclass(frozen=True)
class Obstacle:
    """An obstacle to some wants, for some heroes and some things."""

    name: str
    wants: TableRow
    reason: str
    says: str
    places: TableRow
    tools: TableRow
    weathers: TableRow
    not_heroes: TableRow
    things: frozenset[str]

    def fits(self, want: str, hero: str, thing: str, weather: str | None) -> bool:
        """Whether it is possible for this hero with this thing in this weather."""
        return (
            want in self.wants
            and hero not in self.not_heroes
            and thing in self.things
            and (weather is None or weather in self.weathers)
        )


slots = functools.cache(grammar.slots)
_JOINT = re.compile(r"\{\w+\} and (?:\{[ABC]\}|the \{thing\})")


@functools.cache
def people(form: str) -> tuple[str, ...]:
    """The slots of a form for characters, in order."""
    return tuple(s for s in slots(form) if s in INTRODUCES or s.partition(".")[0] in ROLES)


@functools.cache
def lead(form: str) -> str | None:
    """The pronoun that is a form's subject, if any."""
    found = people(form)
    return found[0] if found and "." in found[0] else None


@functools.cache
def named(form: str) -> frozenset[str]:
    """The roles of all characters that a form names."""
    found = (INTRODUCES.get(slot) or CALLS.get(slot) or slot for slot in slots(form))
    return frozenset(found) & ROLES.keys()


@functools.cache
def subject(form: str) -> str | None:
    """The role of a form's subject: the speaker of direct speech, or else the first one named.

    None if nobody is named, or if a pronoun could refer to either of two.
    """
    found = people(form)
    if _JOINT.search(form):
        return None
    slot = found[-1 if form.startswith('"') else 0] if found else ""
    return INTRODUCES.get(slot, slot.partition(".")[0]) or None


@functools.cache
def with_pronoun(form: str) -> str:
    """The same form about the subject of the sentence before, if its subject is the hero."""
    alone = form.startswith("{A} ") and not form.startswith("{A} and ")
    return form.replace("{A}", "{A.he}", 1) if alone else form


@functools.cache
def introductions(who: str) -> tuple[str, ...]:
    """The ways to introduce a character."""
    kind = f"{'girl' if is_girl(who) else 'boy'} named {who}" if who in NAMES else who
    phrases = tuple(with_article(f"{age}{kind}") for age in ("", "little ", "young "))
    return (who, *phrases) if who in NAMES else phrases


def call(who: str) -> str:
    """How a character is addressed."""
    return who if who in NAMES else f"dear {who}"


def home(who: str) -> str:
    """Where a character lives; "" for nobody of the world."""
    return TRUTH["lives" if who in NAMES else "home"].get(who, "")


# Reading the tables.

_PAGE = page("stories")
_SORTS = labelled(_PAGE["things of a sort"])
# Things that nobody wants in order to use them.
USELESS = frozenset(_SORTS["useless"])
# Weather in requests: as a clause of a story, as an adjective, in direct speech.
WEATHERS = labelled(_PAGE["weathers"])
# The wants of a hero, repeated by frequency; and their phrases.
WANTS = tuple(want for want, count, _ in _PAGE["wishes"] for _ in range(int(count)))
WANTED = {want: said for want, _, said in _PAGE["wishes"]}


def _obstacle(name: str, parts: Mapping[str, TableRow]) -> Obstacle:
    places, tools = parts.get("at", ()), parts.get("with", ())
    things = set(_SORTS["mended"] if name == "broken" else THINGS)
    if name not in ("broken", "owner", "money"):
        things -= set(_SORTS["large"])
    return Obstacle(
        name,
        wants=parts["blocks"],
        reason=parts["problem"][0],
        says=parts["says"][0],
        places=places,
        tools=tools,
        weathers=parts.get("only if it", tuple(WEATHERS)),
        not_heroes=parts.get("not for", ()),
        things=frozenset(things - set(" ".join(places + tools).split())),
    )


def _effects(beat: str) -> dict[str, str]:
    """What a beat determines, by its name."""
    first, _, second = beat.partition(" ")
    effects = {"obstacle": first} if first in OBSTACLES else {}
    if first == "want":
        effects["want"] = second
    if first in ("got", "not"):
        effects["ending"] = first.replace("not", "not got")
    if second == "do" and OBSTACLES[first].wants[0] != "take":
        effects["ending"] = "got"
    if "offer" in (first, second):
        effects["helped"] = "yes"
    if first in ("refuse", "nobody", "find"):
        effects["helped"] = "no"
    return effects


_PARTS = {name: labelled(table) for name, table in page("obstacles").items()}
OBSTACLES = {name: _obstacle(name, parts) for name, parts in _PARTS.items()}
BEATS: dict[str, TableRow] = {
    **labelled(_PAGE["beats"]),
    **{
        f"{name} {beat}": parts[beat]
        for name, parts in _PARTS.items()
        for beat in ("but", "try", "offer", "do")
        if beat in parts
    },
    **{
        beat: tuple(
            f"{opener.replace('glad', 'sad') if beat == 'feel sad' else opener} because {reason}."
            for opener in cells(_PAGE["feelings"])
            for reason in reasons
        )
        for beat, reasons in labelled(_PAGE["reasons"]).items()
    },
}
# What each form determines, for parsing a text.
EFFECTS = {
    one: _effects(beat)
    for beat, forms in BEATS.items()
    for form in forms
    for one in (form, with_pronoun(form))
}
# Free variation, and the possible values of each kind of slot.
FILLERS = labelled(_PAGE["words"])
_CLAUSES, _ADJECTIVES, _SAID = zip(*WEATHERS.values(), strict=True)
WORDS: dict[str, TableRow] = {
    **FILLERS,
    "when": FILLERS["when"] + tuple(f"on {day}" for day in DAYS),
    **dict.fromkeys(("day", "day2"), DAYS),
    "A": tuple(map(noun, EVERYBODY)),
    "call": tuple(map(call, EVERYBODY)),
    "new": tuple(phrase for who in EVERYBODY for phrase in introductions(who)),
    "thing": THINGS,
    "place": tuple(place for obstacle in OBSTACLES.values() for place in obstacle.places),
    "tool": tuple(tool for obstacle in OBSTACLES.values() for tool in obstacle.tools),
    "says": (*(obstacle.says for obstacle in OBSTACLES.values()), *_SAID),
    "weather": _CLAUSES,
    "weathery": _ADJECTIVES,
    "home": tuple(map(home, EVERYBODY)),
    "use": tuple(TRUTH["use"].values()),
}
