"""Questions with one right answer: about the facts, a story, small sums, words, and the asker.

A *kind* of question (`kinds`) has training wordings, held-out wordings, and a statement that
answers it, filled in from the truth. This module makes conversations, pairs of answers and texts
from them; and it parses a prompt with the same wordings, so that `gold` knows the question.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from groundup.text.rows import Conversation, Message, Preference
from groundup.world import stories
from groundup.world.answers import (
    ASKING,
    COULD_BE,
    ITEMS,
    NUMERALS,
    OPEN_WORDS,
    RELATIONS,
    Values,
    is_heldout_sum,
    right,
    said,
    told,
)
from groundup.world.facts import EVERYBODY, NAMES, heldout_pairs, noun, pronoun, some
from groundup.world.grammar import Grammar, SeededRandom, capital, slots, with_article
from groundup.world.kinds import KINDS, SUBJECTS, Answer, Kind, plain
from groundup.world.plot import WEATHERS
from groundup.world.reading import read

_SHARES = {
    "world-facts": 24,
    "world-reading": 24,
    "world-sums": 14,
    "world-counting": 10,
    "world-words": 6,
    "world-tell": 10,
    "world-rewrite": 3,
    "world-talk": 7,
    "world-unknown": 2,
}
_SOURCES = [source for source, share in _SHARES.items() for _ in range(share)]
_BY_SOURCE = {
    source: [kind for kind in KINDS if kind.source == source for _ in range(kind.weight)]
    for source in _SHARES
}
_FOLLOWED = [kind for kind in KINDS if kind.follow]
_NAMED = {kind.name: kind for kind in KINDS}
# For other kinds, an answer to another question may be just as right.
_CONTRASTED = [k for k in KINDS if k.slot or "who" in map(plain, slots(k.train[0]))]
# Characters that are the answer to these are named as in the story: `the fox`.
_IN_STORIES = ("hero", "helper")
# Follow-up forms: to another fact, and to the same fact of another subject.
_LEADS, _SWITCHES = ASKING["going on"]["else"], ASKING["going on"]["same"]


def conversation(dice: SeededRandom, *, heldout: bool = False) -> Conversation:
    """A question with its right answer, in one of five after turns that it may refer to."""
    source = dice.pick(_SOURCES)
    return _asked(dice, dice.pick(_BY_SOURCE[source]), heldout)[0]


def preference(dice: SeededRandom, *, heldout: bool = False) -> Preference:
    """The right answer, and the same with a wrong value in it, or that of another question."""
    kind = dice.pick(_CONTRASTED)
    asked, values = _asked(dice, kind, heldout)
    *prompt, answer = asked.messages
    slot = kind.told if answer.content == kind.answer(values).text else kind.slot
    rights = right(slot, values) if slot else (values["who"].rpartition(" ")[2],)
    others = COULD_BE.get(slot, ())
    if slot in _IN_STORIES:
        others = tuple(noun(who) if who in EVERYBODY else who for who in others)
    others = tuple(value for value in others if value not in rights)
    while True:
        if others:
            # The right value that occurs in the answer: `No legs`, but `Zero.`
            other = dice.pick(others)
            changed = (_with_value(answer.content, value, other) for value in rights)
            wrong = next((one for one in changed if one != answer.content), answer.content)
        else:
            wrong = kind.answer(kind.draw(dice, heldout)).text
        is_right = wrong == answer.content or (not others and any(v in wrong for v in rights))
        text = " ".join([*(turn.content for turn in asked.messages), wrong])
        if not is_right and (heldout or not heldout_pairs(text)):
            return Preference(tuple(prompt), answer.content, wrong, "world-answers", asked.group)


def _with_value(answer: str, right: str, other: str) -> str:
    """The answer with another value instead of the last occurrence of the right one.

    A preceding article is adapted: `a pup`, `an owlet`. A result occurs twice after its sum,
    `8 - 3 = 5. Tom has 5 buns.`, and changes in both places.
    """
    before, equals, after = answer.rpartition("=")
    found = list(re.finditer(rf"\b(an? )?{re.escape(right)}\b", after, re.IGNORECASE))
    for match in reversed(found if equals else found[-1:]):
        instead = with_article(other) if match[1] else other
        instead = capital(instead) if match[0][0].isupper() else instead
        after = after[: match.start()] + instead + after[match.end() :]
    return before + equals + after


def _asked(dice: SeededRandom, kind: Kind, heldout: bool) -> tuple[Conversation, Values]:
    """A conversation that ends with a question of a kind, and the values of that question."""
    while True:
        values, form = kind.draw(dice, heldout), kind.asks(dice, heldout)
        if kind.after:
            turns = _after_statement(dice, kind, values, form, heldout)
        elif dice.chance(0.2) and kind.name != "hello":
            form, turns = _after_others(dice, kind, values, form, heldout)
        else:
            turns = _alone(dice, kind, values, form, heldout)
        if heldout or not heldout_pairs(" ".join(turns)):
            break
    messages = [Message(("user", "assistant")[i % 2], turn) for i, turn in enumerate(turns)]
    return Conversation(tuple(messages), _source(kind, values), form), values


def _source(kind: Kind, values: Values) -> str:
    """A separate source for sums of numbers never added in training, which require calculation."""
    if kind.source == "world-sums" and is_heldout_sum(int(values["n"]), int(values["n2"])):
        return "world-new-sums"
    return kind.source


def _side(dice: SeededRandom, wordings: Sequence[str], heldout: bool) -> str:
    return wordings[-1] if heldout else dice.pick(wordings[:-1])


def _alone(dice: SeededRandom, kind: Kind, values: Values, form: str, heldout: bool) -> list[str]:
    """A question and its answer; some ask for an answer in one or a few words."""
    prompt, answer = _prompt(form, values), kind.answer(values)
    in_short = COULD_BE.get(kind.slot) and kind.source != "world-reading"
    if in_short and prompt.endswith("?") and dice.chance(0.15):
        # No legs are `zero` in one word: `No.` does not answer a question for a number.
        short = "zero" if "zero" in answer.right else answer.right[0]
        brief = ASKING["brief"]["few words" if " " in short else "one word"]
        return [_side(dice, brief, heldout).replace("{q}", prompt), capital(short) + "."]
    return [prompt, answer.text]


def _after_others(
    dice: SeededRandom, kind: Kind, values: Values, form: str, heldout: bool
) -> tuple[str, list[str]]:
    """A question after a greeting, or one that refers back to the turns before it."""
    if kind.source == "world-reading":
        before, prompt = [_NAMED["tell"].asks(dice, heldout), values["story"]], said(form, values)
    elif kind.follow:
        form, before = _after_fact(dice, kind, values, heldout)
        prompt = said(form, values)
    else:
        hello = _NAMED["hello"]
        before = [hello.asks(dice, heldout), hello.draw(dice, heldout)["reply"]]
        prompt = _prompt(form, values)
    return form, [*before, prompt, kind.answer(values).text]


def _after_statement(
    dice: SeededRandom, kind: Kind, values: Values, form: str, heldout: bool
) -> list[str]:
    """A question about the user's own earlier turn, in half of the cases with another between."""
    stated = _NAMED[kind.after]
    turns = [said(stated.asks(dice, heldout), values), said(stated.statement, values)]
    if dice.chance(0.5):
        other = dice.pick(_FOLLOWED)
        turns += _alone(dice, other, other.draw(dice, heldout), other.asks(dice, heldout), heldout)
    return [*turns, said(form, values), kind.answer(values).text]


def _after_fact(
    dice: SeededRandom, kind: Kind, values: Values, heldout: bool
) -> tuple[str, list[str]]:
    """A follow-up about another fact of the subject, or the same of another; with its turns."""
    first = dice.pick([other for other in _FOLLOWED if other.subject == kind.subject])
    about = values[kind.subject]
    if first is not kind and about in RELATIONS[first.name]:
        form = _side(dice, _LEADS, heldout).replace("{q}", kind.follow)
    else:
        form = _side(dice, _SWITCHES, heldout).replace("{q}", SUBJECTS[kind.subject])
        first, about = kind, dice.pick(tuple(RELATIONS[kind.name]))
    return form, _alone(dice, first, {kind.subject: about}, first.asks(dice, heldout), heldout)


def _prompt(form: str, values: Values) -> str:
    """The filled form after the story it asks about; a form that ends in `:` comes before it."""
    asked = said(form, values)
    if "story" not in values:
        return asked
    return f"{asked} {values['story']}" if asked[-1] == ":" else f"{values['story']}\n\n{asked}"


# Documents.


def document(dice: SeededRandom) -> str:
    """A text for pre-training of 300 to 900 characters: facts, or questions with their answers."""
    page = dice.pick(_PAGES)
    parts: list[str] = []
    while len("\n\n".join(parts)) < 300:
        part = page(dice)
        if len("\n\n".join([*parts, part])) <= 900 and not heldout_pairs(" ".join([*parts, part])):
            parts.append(part)
    return "\n\n".join(parts)


# There is twice as much to know about people, animals and things.
_TOLD_OF = (*SUBJECTS, "animal", "thing", "name")


def _facts_of(dice: SeededRandom) -> str:
    """Facts about one subject: `The fox lives in the forest. It eats berries.`"""
    subject = dice.pick(_TOLD_OF)
    kinds = [kind for kind in _FOLLOWED if kind.subject == subject]
    about = dice.pick(tuple(RELATIONS[kinds[0].name]))
    known = [kind for kind in kinds if about in RELATIONS[kind.name]]
    # `It` after `A young frog is called a tadpole.` would mean the tadpole.
    ordered = sorted(dice.sample(known, len(known)), key=lambda kind: kind.name == "young")
    first, *rest = (kind.answer({subject: about}).text for kind in ordered)
    if subject == "name":
        he, his = (capital(pronoun(about, case)) for case in ("he", "his"))
        of_him = (f"The favourite colour of {about}", f"{his} favourite colour")
        rest = [one.replace(*of_him).replace(f"{about} ", f"{he} ", 1) for one in rest]
    elif subject != "job":
        rest = [re.sub(f"^The {about} ", "It ", one) for one in rest]
    return " ".join([first, *rest])


def _sums_of(dice: SeededRandom) -> str:
    """Related sums: `3 + 4 = 7. 4 + 3 = 7. 7 - 4 = 3. 7 - 3 = 4.`"""
    add, take = _NAMED["plus"], _NAMED["minus"]
    drawn = add.draw(dice, False)
    one, other = drawn["n"], drawn["n2"]
    both = add.answer(drawn).right[0]
    sums = [add.answer({"n": n, "n2": n2}).text for n, n2 in ((one, other), (other, one))]
    for n2 in (other, one):
        if not is_heldout_sum(int(both), int(n2)):
            sums.append(take.answer({"n": both, "n2": n2}).text)
    return " ".join(dict.fromkeys(sums))


def _words_of(dice: SeededRandom) -> str:
    """Opposites, rhymes, and the order of days."""
    kinds = [_NAMED[name] for name in ("opposite", "rhyme", "next day", "after")]
    said_of = (kind.answer(kind.draw(dice, False)).text for kind in dice.sample(kinds, 3))
    return " ".join(said_of)


_QUIZZED = ("world-facts", "world-sums", "world-counting", "world-counting", "world-words")


def _any_question(dice: SeededRandom) -> tuple[str, str]:
    kind = dice.pick(_BY_SOURCE[dice.pick(_QUIZZED)])
    values = kind.draw(dice, False)
    return said(kind.asks(dice, False), values), kind.answer(values).text


def _quiz(dice: SeededRandom) -> str:
    """Two people ask and answer: `"Where does the fox live?" asked Mia. "It …," said Tom.`"""
    one, other = dice.sample(NAMES, 2)
    lines = []
    for question, answer in (_any_question(dice) for _ in range(4)):
        asks = f'"{question}" asked' if question[-1] == "?" else f'"{question[:-1]}," said'
        lines.append(f'{asks} {one}. "{answer[:-1]}," said {other}.')
    return " ".join(lines)


def _listed(dice: SeededRandom) -> str:
    return "\n".join("Question: {}\nAnswer: {}".format(*_any_question(dice)) for _ in range(5))


def _about_story(dice: SeededRandom) -> str:
    """A short story, and six questions about it with their answers."""
    story = stories.story(dice, short=True)
    known = told(story.record)
    kinds = [k for k in KINDS if k.source == "world-reading" and k.slot in known]
    lines = [
        f"Question: {said(kind.asks(dice, False), known)}\nAnswer: {kind.answer(known).text}"
        for kind in dice.sample(kinds, 6)
    ]
    return "\n".join(["A story with questions.", story.text, *lines])


# The frequency of each text: higher if it is hard to learn or short.
_PAGES = (
    *(_about_story,) * 9,
    *(_facts_of,) * 14,
    *(_listed,) * 8,
    *(_sums_of,) * 8,
    *(_words_of,) * 3,
    _quiz,
)


# Parsing a prompt.


@dataclass(frozen=True)
class ParsedQuestion:
    """A parsed question: the kind, its values, the named ones, the form and the word limit."""

    kind: Kind
    values: Values
    named: tuple[str, ...]
    form: str
    brief: str = ""

    @property
    def answer(self) -> Answer:
        """The right answer."""
        return self.kind.answer(self.values)


_LIST = re.compile(r"(?<=: )\w+(?:, \w+)+(?=[.?]$)")


def parse(prompt: Sequence[Message]) -> ParsedQuestion | None:
    """Parse the last turn of a prompt, using earlier turns if necessary; None if unknown.

    Its first letter and its end mark need not be as the world writes them.
    """
    if not prompt:
        return None
    text, brief = _without_brief(prompt[-1].content.strip())
    story, asked = _split_story(text)
    texts = [story] if story else [m.content for m in prompt[-2::-1] if m.role == "assistant"]
    earlier = parse(prompt[:-2]) if len(prompt) > 2 else None
    for text in _spellings(asked):
        listed = _LIST.findall(text)
        for parsed in _grammar().parse(_LIST.sub("...", text)):
            values = ({"list": listed[0]} if listed else {}) | {
                plain(slot): value.partition(" ")[2] if slot != plain(slot) else value
                for slot, value in parsed.values.items()
            }
            for kind, is_whole in _kinds_of()[parsed.form]:
                if kind.after:
                    named = _stated(kind.after, prompt)
                else:
                    named = values if is_whole else _referring(kind, values, earlier)
                of_story = kind.source in ("world-reading", "world-rewrite")
                found = _of_story(kind, values, texts) if of_story else named
                if named is not None and found is not None:
                    return ParsedQuestion(kind, found, tuple(named.values()), parsed.form, brief)
    return None


def _spellings(asked: str) -> Iterator[str]:
    """A question as typed, and as the world would write it."""
    yield asked
    bare = capital(asked.rstrip("?!. "))
    others = dict.fromkeys([capital(asked), f"{bare}?", f"{bare}.", f"{bare}!"])
    yield from (one for one in others if one != asked)


def _without_brief(text: str) -> tuple[str, str]:
    """A question without the request to be brief, and the requested number of words."""
    for name, wordings in ASKING["brief"].items():
        for before, after in (wording.split("{q}") for wording in wordings):
            small = text.lower()
            if small.startswith(before.lower()) and small.endswith(after.lower()):
                return text[len(before) : len(text) - len(after)], name
    return text, ""


def _split_story(text: str) -> tuple[str, str]:
    """The story in a prompt, if any, and the question about it."""
    story, gap, asked = text.rpartition("\n\n")
    if gap:
        return story, asked
    asked, _, story = text.partition(": ")
    return (story, asked + ":") if story.count(".") > 1 else ("", text)


def _referring(kind: Kind, values: Values, earlier: ParsedQuestion | None) -> Values | None:
    """The values of `And what does it eat?` or `And the bear?` after an earlier question."""
    if earlier is None or earlier.kind.subject != kind.subject:
        return None
    if kind.subject in values:
        return values if earlier.kind is kind else None
    return {kind.subject: earlier.values[kind.subject]}


def _stated(name: str, prompt: Sequence[Message]) -> Values | None:
    """The values of the user's latest earlier turn of the kind with this name."""
    for turn in prompt[-3::-2]:
        asked = parse([turn])
        if asked is not None and asked.kind.name == name:
            return asked.values
    return None


def _of_story(kind: Kind, values: Values, texts: Sequence[str]) -> Values | None:
    """The values of a question about the first of these texts that is a matching story."""
    for text in texts:
        record = read(text).record
        if kind.name == "go on":
            return {"story": text}
        known = told(record) if record else {}
        if kind.slot in known and all(known[slot] == value for slot, value in values.items()):
            return {**known, "story": text}
    return None


@functools.cache
def _kinds_of() -> Mapping[str, Sequence[tuple[Kind, bool]]]:
    """The kinds that each form may ask, and whether it stands alone or follows another turn."""
    found: dict[str, list[tuple[Kind, bool]]] = {}
    for kind in KINDS:
        for form in (*kind.train, *kind.heldout):
            found.setdefault(form.replace("{list}", "..."), []).append((kind, True))
        later = [lead.replace("{q}", kind.follow) for lead in _LEADS]
        later += [switch.replace("{q}", SUBJECTS.get(kind.subject, "")) for switch in _SWITCHES]
        for form in later if kind.follow else ():
            found.setdefault(form, []).append((kind, False))
    return found


@functools.cache
def _grammar() -> Grammar:
    words: dict[str, Iterable[str]] = {
        **{relation: known.values() for relation, known in RELATIONS.items()},
        **{kind.subject: RELATIONS[kind.name] for kind in KINDS if kind.name in RELATIONS},
        **OPEN_WORDS,
        "feeling": COULD_BE["feeling"],
        "n": NUMERALS,
        "items": ITEMS,
        "item": COULD_BE["odd one"],
        "rhyme": COULD_BE["rhymed"],
        "A": map(noun, EVERYBODY),
        "who": map(some, EVERYBODY),
        "weather": WEATHERS,
        "he": ("he", "she", "it"),
    }
    return Grammar(_kinds_of(), words)
