"""Stories: somebody wants something, something is in the way, somebody helps or does not.

A planner chooses the events and tells them beat by beat; each beat has several forms, all filled
from one cast, so that every statement stays true. `plot` holds the beats, and `reading` parses them
and reconstructs the record of events from the text alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from groundup.errors import UserError
from groundup.world import plot
from groundup.world.facts import (
    ANIMALS,
    DAYS,
    EVERYBODY,
    HELDOUT_PAIRS,
    NAMES,
    THINGS,
    TRUTH,
    heldout_pairs,
    noun,
    pronoun,
)
from groundup.world.grammar import SeededRandom, capital, fill, with_article
from groundup.world.plot import BEATS, CALLS, INTRODUCES, OBSTACLES, WEATHERS, WORDS, Obstacle
from groundup.world.reading import Ledger, Record


@dataclass(frozen=True)
class Story:
    """A story and the record of its events."""

    sentences: tuple[str, ...]
    record: Record

    @property
    def text(self) -> str:
        """The story as one paragraph."""
        return " ".join(self.sentences)


def story(
    dice: SeededRandom,
    *,
    heldout: bool = False,
    short: bool = False,
    hero: str | None = None,
    thing: str | None = None,
    weather: str | None = None,
) -> Story:
    """A story of 5 to 20 sentences, or of 5 to 8 and at most 480 characters if `short`.

    Training stories contain no pair of HELDOUT_PAIRS, except one given by hero and thing; held-out
    stories have such a hero and thing. UserError if the world lacks a requested word.
    """
    for what, value, known in (
        ("hero", hero, EVERYBODY),
        ("thing", thing, THINGS),
        ("weather", weather, tuple(WEATHERS)),
    ):
        if value is not None and value not in known:
            raise UserError(f"{what}={value!r} is not in the world; try {known[0]!r}")
    while True:
        pair = (hero or _somebody(dice), thing or dice.pick(THINGS))
        if heldout and not (hero and thing):
            pairs = [p for p in _HELDOUT if hero in (None, p[0]) and thing in (None, p[1])]
            pair = dice.pick(pairs or [pair])
        told = _Teller(dice, *pair, weather, 0.25 if short else 0.7)
        told.tell_all()
        # Most attempts are discarded: sentences are only written once the length is known to fit.
        if not 5 <= len(told.told) <= (8 if short else 20):
            continue
        sentences = tuple(fill(form, values) for form, values in told.told)
        text = " ".join(sentences)
        if short and len(text) > 480:
            continue
        if heldout or heldout_pairs(text) <= {(hero, thing)}:
            return Story(sentences, _record(told.told, sentences))


_HEROES = tuple(animal for animal in ANIMALS if animal != "whale")
_HELDOUT = sorted(pair for pair in HELDOUT_PAIRS if pair[0] in NAMES + _HEROES)


def _somebody(dice: SeededRandom) -> str:
    return dice.pick(NAMES if dice.chance(0.6) else _HEROES)


class _Cast(dict[str, str]):
    """The values of a story's slots: lasting ones are kept, all others sampled each time."""

    def __init__(
        self, dice: SeededRandom, people: Mapping[str, str], lasting: Mapping[str, str]
    ) -> None:
        super().__init__({role: noun(who) for role, who in people.items()}, **lasting)
        self._dice = dice
        self.people = people

    def __missing__(self, slot: str) -> str:
        if slot.startswith("a "):
            return with_article(self[slot[2:]])
        if slot in INTRODUCES:
            ways = plot.introductions(self.people[INTRODUCES[slot]])
            return self._dice.pick(ways[1:] if slot == "new" else ways)
        if slot in CALLS:
            return plot.call(self.people[CALLS[slot]])
        role, _, case = slot.partition(".")
        return pronoun(self.people[role], case) if case else self._dice.pick(WORDS[slot])


def _record(told: Sequence[tuple[str, Mapping[str, str]]], sentences: Sequence[str]) -> Record:
    ledger = Ledger()
    for (form, values), sentence in zip(told, sentences, strict=True):
        ledger.note(form, values, sentence)
    record = ledger.record()
    assert record is not None, sentences
    return record


class _Teller:
    """A planner: it chooses the events, then tells them beat by beat.

    `told` are the forms of the sentences with the values of their slots.
    """

    def __init__(
        self, dice: SeededRandom, hero: str, thing: str, weather: str | None, more: float
    ) -> None:
        self.told: list[tuple[str, dict[str, str]]] = []
        self._dice, self._more, self._weather_asked = dice, more, weather is not None
        helper = other = hero
        while helper == hero:
            helper = _somebody(dice)
        while other in (hero, helper):
            other = _somebody(dice)
        fits: list[Obstacle] = []
        while not fits:
            self._want = dice.pick(plot.WANTS)
            fits = [o for o in OBSTACLES.values() if o.fits(self._want, hero, thing, weather)]
        self._obstacle = obstacle = dice.pick(fits)
        clause, adjective, present = WEATHERS[weather or dice.pick(obstacle.weathers)]
        day, other_day = dice.sample(DAYS, 2)
        part = dice.pick(WORDS["part"])
        lasting = {
            "day": day,
            "day2": other_day,
            "part": part,
            "when": dice.pick((f"one {part}", f"on {day}")),
            "thing": thing,
            "goal": dice.pick(WORDS["goal"]),
            "home": plot.home(hero),
            "use": TRUTH["use"][thing],
            "says": obstacle.says.replace("{present}", present),
            "weather": clause,
            "weathery": adjective,
        }
        if obstacle.places:
            lasting["place"] = dice.pick(obstacle.places)
        if obstacle.tools:
            lasting["tool"] = dice.pick(obstacle.tools)
        self._cast = _Cast(dice, {"A": hero, "B": helper, "C": other}, lasting)

    def tell_all(self) -> None:
        """The whole story, from the weather to the last evening."""
        dice, more, want, name = self._dice, self._more, self._want, self._obstacle.name
        self._tell("weather", 1 if self._weather_asked else more)
        self._tell("intro")
        self._tell("look", more)
        self._tell(f"want {want}")
        self._tell(f"{name} but")
        if dice.chance(0.7):
            self._tell(f"{name} try")
            self._tell("mood", more)
        helped = self._meet()
        got = helped or (bool(self._obstacle.tools) and dice.chance(0.4))
        if got and not helped:
            self._tell("find")
        if got:
            self._tell(f"{name} do")
        end, on_the_way = "got" if got else "not", want in ("take", "give")
        self._tell(f"{end} {want if on_the_way else 'get'}", 1 if on_the_way or not got else more)
        if helped:
            self._tell("thanks", more)
        self._tell("feel helped" if helped else "feel alone" if got else "feel sad")
        self._tell(f"close {'helped' if helped else 'got' if got else 'not'}", more)

    def _meet(self) -> bool:
        """Usually somebody comes along, and usually helps."""
        if not self._dice.chance(0.88):
            self._tell("nobody")
            return False
        self._tell("come")
        if self._dice.chance(self._more):
            self._tell("what")
            self._tell(f"tell {'go' if self._want in ('take', 'give') else 'get'}")
        self._tell("ask", self._more)
        helps = self._dice.chance(0.86)
        offer = "offer" if self._obstacle.tools else f"{self._obstacle.name} offer"
        self._tell(offer if helps else "refuse")
        return helps

    def _tell(self, beat: str, chance: float = 1.0) -> None:
        if self._dice.chance(chance):
            form = self._dice.pick(BEATS[beat])
            while "{use}" in form and self._cast["thing"] in plot.USELESS:
                form = self._dice.pick(BEATS[beat])
            if self._is_clear() and self._dice.chance(0.5):
                form = plot.with_pronoun(form)
            self.told.append((form, {slot: self._cast[slot] for slot in plot.slots(form)}))

    def _is_clear(self) -> bool:
        """Whether a pronoun can only mean the hero: the previous subject, with nobody similar."""
        if not self.told:
            return False
        before, people = self.told[-1][0], self._cast.people
        if plot.subject(before) != "A" or plot.lead(before):
            return False
        others = [pronoun(people[role], "he") for role in plot.named(before) - {"A"}]
        return pronoun(people["A"], "he") not in others


# Questions about a story.


def summary(record: Record) -> str:
    """The story in two sentences."""
    hero = noun(record.hero)
    first = f"{hero} wanted {_said(plot.WANTED[record.want], record)}, but {_problem(record)}."
    if record.helped and record.helper:
        second = f"{noun(record.helper)} helped, and {hero} was {record.feeling}."
    else:
        how = "found a way alone" if record.ending == "got" else "gave up"
        second = f"Nobody helped, and {hero} {how} and was {record.feeling}."
    return f"{capital(first)} {capital(second)}"


def asked(record: Record) -> dict[str, str]:
    """The one right answer to each kind of question that the story answers, as a phrase.

    Kinds: hero, want, thing, obstacle, got (yes or no), helper (`nobody` if none helped), feeling,
    why; and place (of the thing), goal, weather and other (to or from whom) if they are told.
    """
    answers = {
        "hero": noun(record.hero),
        "want": _said(plot.WANTED[record.want], record),
        "thing": f"the {record.thing}",
        "obstacle": _problem(record),
        "got": "yes" if record.ending == "got" else "no",
        "helper": noun(record.helper) if record.helped and record.helper else "nobody",
        "feeling": record.feeling,
        "why": record.why,
    }
    if record.place:
        answers["place"] = record.place
    if record.goal and record.want == "take":
        answers["goal"] = record.goal
    if record.weather:
        answers["weather"] = WEATHERS[record.weather][0]
    if record.other:
        answers["other"] = noun(record.other)
    return answers


def _problem(record: Record) -> str:
    """The obstacle as a clause: `it was too high`, `she did not know the way`."""
    return _said(OBSTACLES[record.obstacle].reason, record)


def _said(form: str, record: Record) -> str:
    return form.format(
        thing=record.thing,
        goal=record.goal,
        C=noun(record.other or ""),
        he=pronoun(record.hero, "he"),
        weather=WEATHERS[record.weather][0] if record.weather else "",
    )
