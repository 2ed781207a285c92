"""Texts about conduct: what things and deeds are, whom they hurt and what they are good for.

A model that never read about guns cannot know that one must not buy one. So these texts use the
words of both sides of `conduct`, in prose and never as a request, and its training acts; of the
held-out acts they contain nothing but single words.
"""

from __future__ import annotations

import re
from collections import defaultdict

from groundup.text.rows import Conversation
from groundup.world import conduct
from groundup.world.deeds import KINDS, plural_of
from groundup.world.facts import heldout_pairs
from groundup.world.grammar import SeededRandom, capital, fill, slots, with_article
from groundup.world.tables import TableRow, cells, labelled, page


def document(dice: SeededRandom) -> str:
    """A text for pre-training of 300 to 900 characters."""
    parts: list[str] = []
    while len(" ".join(parts)) < 300:
        part = dice.pick(_PARTS)(dice)
        if len(" ".join([*parts, part])) <= 900 and not heldout_pairs(" ".join([*parts, part])):
            parts.append(part)
    return " ".join(parts)


def conversation(dice: SeededRandom) -> Conversation:
    """Whether a deed is right, asked in a chat.

    Otherwise a model knows from its texts that something is wrong, but forgets it when asked to
    help with it.
    """
    drawn = _of_kinds if dice.chance(0.5) else _of_conduct
    deed, topic, words = drawn(dice, harmful=dice.chance(0.5))
    done = _done(dice, deed, words)
    asked = fill(dice.pick(_ASKED), {"deed": done})
    return Conversation.of([asked, _verdict(dice, done, topic, "you")], "world-morals", deed)


def _of_kind(dice: SeededRandom) -> str:
    """Statements about two words of a kind, and about the kind."""
    kind = KINDS[dice.pick(tuple(KINDS))]
    said = [dice.pick(kind.told)]
    for word in dice.sample(kind.words, 2):
        said += [_filled(dice, form, _of_word(word)) for form in dice.sample(kind.says, 2)]
    return " ".join(dice.sample(said, len(said)))


def _deed(dice: SeededRandom) -> str:
    """A deed of a kind, or a training act, and whether it is wrong.

    Both verdicts are equally frequent, whatever precedes them.
    """
    harmful = dice.chance(0.5)
    if dice.chance(0.5):
        return _judged(dice, *_of_kinds(dice, harmful))
    act = _act(dice, harmful)
    judged = _judged(dice, act.form, act.topic, ())
    if act.topic == "sad" or dice.chance(0.7):
        return judged
    if act.topic:
        offer = dice.pick(conduct.offers_instead(act.topic)).rstrip(".")
        return f"{judged} {fill(dice.pick(_BETTER), {'offer': offer})}"
    return f"{judged} {_filled(dice, act.answer, {})}"


def _of_kinds(dice: SeededRandom, harmful: bool) -> _Deed:
    kind = dice.pick([kind for kind in KINDS.values() if bool(kind.topic) == harmful])
    return dice.pick(kind.deeds), kind.topic, kind.words


def _of_conduct(dice: SeededRandom, harmful: bool) -> _Deed:
    act = _act(dice, harmful)
    return act.form, act.topic, ()


def _act(dice: SeededRandom, harmful: bool) -> conduct.Act:
    return dice.pick([act for act in _TRAINED if bool(act.topic) == harmful])


def _same_verb(dice: SeededRandom) -> str:
    """Two deeds that begin with the same word, each of them wrong or not."""
    sides = _BOTH_SIDES[dice.pick(tuple(_BOTH_SIDES))]
    return " ".join(_judged(dice, *dice.pick(dice.pick(sides))) for _ in range(2))


def _senses(dice: SeededRandom) -> str:
    """The meanings of a word, harmful and harmless."""
    return " ".join(dice.pick(_SENSES[verb]) for verb in dice.sample(tuple(_SENSES), 2))


def _judged(dice: SeededRandom, deed: str, topic: str, words: TableRow) -> str:
    """Says that a deed is wrong and why, or harmless; addressed to `you` or about `them`."""
    person = dice.pick(("you", "you", "you", "them"))
    return _verdict(dice, _done(dice, deed, words), topic, person)


def _done(dice: SeededRandom, deed: str, words: TableRow) -> str:
    """A deed, filled, in the form for the inside of a sentence."""
    done = _filled(dice, deed, _of_word(dice.pick(words)) if words else {})
    return done[:1].lower() + done[1:]


def _verdict(dice: SeededRandom, done: str, topic: str, person: str) -> str:
    """The verdict on a first-person deed, addressed to `you` or about `them`."""
    for said, of_you, of_them in _PERSONS:
        done = re.sub(rf"\b{said}\b", of_you if person == "you" else of_them, done)
    if not topic:
        return fill(dice.pick(_RIGHT[person]), {"deed": done})
    reason = conduct.reason_against(topic)
    return fill(dice.pick(_WRONG[person]), {"deed": done, "reason": reason})


def _filled(dice: SeededRandom, form: str, values: dict[str, str]) -> str:
    """A form with its word, and other slots filled from the words of conduct."""
    others = {slot: dice.pick(conduct.WORDS[slot]) for slot in slots(form) if slot not in values}
    filled = fill(form, {**values, **others})
    return re.sub(r"(?<=[.!?] )[a-z]", lambda found: capital(found[0]), filled)


def _of_word(word: str) -> dict[str, str]:
    return {"word": word, "a word": with_article(word), "words": plural_of(word)}


_PAGE = page("morals")
_WRONG, _RIGHT = labelled(_PAGE["wrong"]), labelled(_PAGE["right"])
_ASKED = cells(_PAGE["asked"])
_BETTER = cells(_PAGE["better"])
_SENSES = labelled(_PAGE["senses"])
# Converts first-person deeds to the second and third person.
_PERSONS = (
    ("(?:myself|yourself)", "yourself", "themselves"),
    ("(?:my|your)", "your", "their"),
    ("(?:I|you)(?= do\\b| did\\b)", "you", "they"),
    ("it was you", "it was you", "it was they"),
)


_TRAINED = [act for act in conduct.acts(heldout=False) if not act.kind]


# A deed, the topic if it is wrong, and the words of which it takes one.
_Deed = tuple[str, str, TableRow]


def _by_first_word() -> dict[str, tuple[list[_Deed], list[_Deed]]]:
    """Wrong and harmless deeds, by the first words that occur on both sides."""
    deeds: list[_Deed] = [(act.form, act.topic, ()) for act in _TRAINED]
    deeds += [(form, kind.topic, kind.words) for kind in KINDS.values() for form in kind.deeds]
    found: dict[str, tuple[list[_Deed], list[_Deed]]] = defaultdict(lambda: ([], []))
    for deed in deeds:
        if not deed[0].startswith("{"):
            found[deed[0].split()[0]][not deed[1]].append(deed)
    return {word: sides for word, sides in found.items() if all(sides)}


_BOTH_SIDES = _by_first_word()
# The frequency of each part; a text mixes them, so that no sentence predicts the next.
_PARTS = (*(_of_kind,) * 2, *(_deed,) * 12, *(_same_verb,) * 3, _senses)
