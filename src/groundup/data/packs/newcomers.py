"""First messages of new users, and honest answers of a very small model.

People who have not read about the small world greet in other languages, hit random keys, and ask
for poems, large sums and volcanoes. A model of a few million parameters knows next to nothing of
all that, and if it was trained only on answers it makes some up. So it is trained on what to say
instead: that it does not know, in words that it knows. The file `tables/newcomers.txt` holds
people's wordings and fitting answers; titles and words of the encyclopedia fill the slots, so that
the model recognizes the unknown by its being unknown, not by a list.

Harmful requests are declined, whether they are short or spelled out; harmless requests use the same
long wordings.

Four measures keep "I do not know" from spreading: questions about the small world are also asked in
the newcomers' careless style, and answered; the world's requests for help also use these wordings;
its animals and things are also described in a few words, and asked about in the plural; and in the
pairs for DPO an answer is preferred to not knowing if there is one.

Held out are other wordings, with the titles of held-out articles.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from groundup.data.packs.wiki import Article, subjects
from groundup.text.cleaning import normal_form
from groundup.text.rows import Conversation, Message, Preference
from groundup.world import conduct, pack
from groundup.world.answers import RELATIONS, pairs_of_numbers, wish
from groundup.world.conduct import NOT_KNOWN, declines
from groundup.world.facts import ANIMALS, FOODS, JOBS, NAMES, THINGS, UNCOUNTED, heldout_pairs
from groundup.world.grammar import SeededRandom, capital, plural, slots, with_article
from groundup.world.kinds import KINDS, Kind
from groundup.world.tables import TableRow, labelled, sections

# The prefix of the sources, and their suffixes.
NEWCOMER = "newcomer-"
SOURCES = ("noise", "talk", "harm", "despair", "wishes", "sums", "real", "known")
# The relative frequency of each source; `known` are answers that must not be lost.
_SHARES = {"noise": 7, "talk": 30, "harm": 7, "despair": 2}
_SHARES |= {"wishes": 11, "sums": 5, "real": 13, "known": 30}
# The share of pairs in which not knowing is worse than an answer: small, because such pairs make
# not knowing less likely everywhere.
_DECLINED = 0.35
_SOURCES = [source for source, count in _SHARES.items() for _ in range(count)]


@dataclass(frozen=True)
class Topics:
    """Topics of real texts, for questions: nouns with their articles, people, places, words.

    `sentences` are short ones. `told` is the rest of an article's first sentence after the subject:
    attached to another subject, it is made up.
    """

    things: Sequence[str]
    people: Sequence[str]
    places: Sequence[str]
    sentences: Sequence[str]
    words: Sequence[str]
    told: Sequence[str]

    @staticmethod
    def of(articles: Sequence[Article]) -> Topics:
        """Returns the topics of the articles, or a few of our own if there are none."""
        found = [s for s in subjects(articles) if not is_of_the_world(s.name)]
        by_topic: dict[str, list[str]] = {"People": [], "Geography": [], "": []}
        for one in found:
            topic = one.article.topic if one.article.topic in by_topic else ""
            # Nobody types the brackets of 'Diving (sport)'.
            by_topic[topic].append(one.name.partition(" (")[0])
        sentences = [t for s in found for t in s.told[1:] if 20 < len(t) < 90]
        described = " ".join(one.article.description or "" for one in found)
        told = (one.told[0].partition(f" {one.verb} ") for one in found)
        return Topics(
            by_topic[""] or _FALLBACK.things,
            by_topic["People"] or _FALLBACK.people,
            by_topic["Geography"] or _FALLBACK.places,
            sentences or _FALLBACK.sentences,
            sorted({w for w in re.findall(r"\b[a-z]{4,}\b", described) if w not in _IN_WORLD})
            or _FALLBACK.words,
            [f"{verb.strip()} {rest}" for _, verb, rest in told if 20 < len(rest) < 200]
            or _FALLBACK.told,
        )


@dataclass(frozen=True)
class Turn:
    """One kind of message: its wordings on both sides, and the label of its fitting answers."""

    name: str
    source: str
    label: str
    train: TableRow
    heldout: TableRow


# Reading the table.

_PAGE = sections(
    Path(__file__).with_name("tables").joinpath("newcomers.txt").read_text("utf-8"), "newcomers.txt"
)
ANSWERS = labelled(_PAGE["answers"])
ACTS = labelled(_PAGE["acts"])
_IN_FULL = labelled(_PAGE["in full"])


def _in_full(acts: str) -> dict[str, TableRow]:
    """The long wordings of a request, with the slot for these acts inserted."""
    return {
        side: tuple(form.replace("{act}", f"{{{acts}}}") for form in forms)
        for side, forms in _IN_FULL.items()
    }


def _turns() -> Iterator[tuple[int, Turn]]:
    for heading, table in _PAGE.items():
        source, colon, name = heading.partition(": ")
        if colon:
            parts = {"weight": ("1",), "answer": ("",)} | labelled(table)
            if "acts" in parts:
                parts |= _in_full(parts["acts"][0])
            turn = Turn(
                name, NEWCOMER + source, parts["answer"][0], parts["ask"], parts["held out"]
            )
            yield int(parts["weight"][0]), turn


TURNS = tuple(turn for _, turn in _turns())
_DRAWN = {
    source: [t for weight, t in _turns() if t.source == NEWCOMER + source for _ in range(weight)]
    for source in SOURCES
}


def _share_in_capitals(turn: Turn) -> float:
    """The share of a turn's messages in capitals that are answered by content, not for shouting."""
    if turn.name == "despair":
        return 0.3
    return 0.15 if turn.source == NEWCOMER + "harm" or turn.name == "sad" else 0


_SHOUTED = [t for t in TURNS if not _share_in_capitals(t) and t.name not in ("capitals", "hello")]


# Judging an answer.


def says_unknown(answer: str) -> bool:
    """Whether an answer says that the model does not know, or does not understand."""
    return NOT_KNOWN.search(answer) is not None


def fits(wanted: str, answer: str) -> bool:
    """Whether an answer is as good as the wanted one.

    They are alike, or both say that they do not know, or both decline something harmful.
    """
    if says_unknown(wanted):
        return has_same_label(wanted, answer) or says_unknown(answer)
    return has_same_label(wanted, answer) or (wanted in ANSWERS["harm"] and declines(answer))


def has_same_label(wanted: str, answer: str) -> bool:
    """Whether both are the same, or have the same label in the table."""
    said = normal_form(answer)
    alike = [row for row in ANSWERS.values() if wanted in row]
    return said == normal_form(wanted) or any(
        said == normal_form(other) for row in alike for other in row
    )


def is_table_answer(answer: str) -> bool:
    """Whether an answer is one of those in the table, whatever its label."""
    said = normal_form(answer)
    return any(said == normal_form(other) for row in ANSWERS.values() for other in row)


# Filling the slots.

_ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm", "asdf", "jkl", "dfgh")
_ONSETS = (*"bcdfghjklmnprstvwz", "bl", "br", "cr", "dr", "fl", "gl", "gr", "kl", "pl", "qu")
_ONSETS += ("sk", "sn", "sp", "st", "str", "th", "tr", "tw", "vl", "xy", "zw", "")
_CORES, _CODAS = (*"aeiou", "ee", "oo", "ai"), ("", "", *"bdgklmnprstxz", "ck", "ng", "rb", "lk")
_MARKS = "?!.,;:-_*#@/\\~+=&%$^()[]'\""
_EMOJI = ((0x1F600, 80), (0x1F300, 300), (0x1F400, 250), (0x1F680, 70), (0x2600, 200), (0x2764, 1))
# Used instead if no encyclopedia is read.
_FALLBACK = Topics(
    ("a volcano", "a piano", "the Moon", "chemistry", "a guitar", "the internet", "a computer"),
    ("Isaac Newton", "Napoleon", "Cleopatra", "Albert Einstein", "Mozart", "Marie Curie"),
    ("France", "Tokyo", "Brazil", "Berlin", "Africa", "London", "Egypt", "Canada"),
    ("The river runs to the north.", "This was a long war.", "It became a large city."),
    ("volcano", "computer", "music", "history", "money", "football", "science", "car", "war"),
    ("is a city in the north of the country.", "was a king who fought a long war."),
)
_MADE_OF = {"animal": ANIMALS, "thing": THINGS, "food": FOODS, "job": JOBS}
_KNOWN = (*ANIMALS, *THINGS, *FOODS, *JOBS)
_SINGULARS = {plural(word): word for word in _KNOWN if word not in UNCOUNTED}
_IN_WORLD = frozenset((*_KNOWN, *_SINGULARS, *(name.lower() for name in NAMES)))


def is_of_the_world(title: str) -> bool:
    """Whether a person or thing with this name also exists in the small world."""
    words = re.findall("[a-z]+", title.lower())
    return any(word in _IN_WORLD or word.removesuffix("s") in _IN_WORLD for word in words)


def _key_mash(dice: SeededRandom) -> str:
    row = dice.pick(_ROWS)
    count = 3 + dice.below(9)
    if dice.chance(0.3):
        return (row * 3)[dice.below(len(row)) :][:count]
    letters = row if dice.chance(0.6) else "abcdefghijklmnopqrstuvwxyz"
    return "".join(dice.pick(letters) for _ in range(count))


def _odd(dice: SeededRandom) -> str:
    count = 1 + dice.below(3)
    word = "".join(dice.pick(_ONSETS) + dice.pick(_CORES) + dice.pick(_CODAS) for _ in range(count))
    return word if len(word) > 3 else word + "zork"


def _marks(dice: SeededRandom) -> str:
    if dice.chance(0.5):
        return dice.pick(_MARKS) * (1 + dice.below(8))
    return "".join(dice.pick(_MARKS) for _ in range(1 + dice.below(8)))


def _emoji(dice: SeededRandom) -> str:
    start, count = dice.pick(_EMOJI)
    return chr(start + dice.below(count)) * (1 + dice.below(2))


def _number(dice: SeededRandom, digits: int) -> int:
    least: int = 10 ** (digits - 1)
    return least + dice.below(9 * least)


def _big(dice: SeededRandom) -> str:
    return str(max(21, _number(dice, dice.pick((2, 2, 2, 3, 3, 4, 5)))))


def _just_too_big(dice: SeededRandom) -> str:
    one = 5 + dice.below(30)
    return f"{one} + {21 - min(one, 20) + dice.below(20)}"


def _small_sum(dice: SeededRandom, heldout: bool) -> str:
    sign = dice.pick((1, -1))
    one, other = dice.pick(pairs_of_numbers(sign, 0, heldout))
    typed = (" + ", "+", " plus ") if sign > 0 else (" - ", "-", " minus ")
    return f"{one}{dice.pick(typed)}{other}"


def _any_plural(group: TableRow) -> Callable[[SeededRandom], str]:
    counted = [word for word in group if word not in UNCOUNTED]
    return lambda dice: plural(dice.pick(counted))


_FEW = {"three": 3, "five": 5, "ten": 10, "twelve": 12}


_MADE: Mapping[str, Callable[[SeededRandom], str]] = {
    "mash": _key_mash,
    "odd": _odd,
    "marks": _marks,
    "emoji": _emoji,
    "digits": lambda dice: str(_number(dice, 1 + dice.below(7))),
    "big": _big,
    "n": lambda dice: str(2 + dice.below(19)),
    "sum20": _just_too_big,
    "few": lambda dice: dice.pick((*_FEW, *map(str, range(3, 13)))),
    "known": lambda dice: dice.pick(_KNOWN),
    "a known": lambda dice: with_article(dice.pick(_KNOWN)),
    "many known": lambda dice: dice.pick(tuple(_SINGULARS)),
    **{f"{name}s": _any_plural(group) for name, group in _MADE_OF.items()},
}


def _counted_nouns(things: Sequence[str]) -> Sequence[str]:
    return [noun[1] for one in things if (noun := re.fullmatch(r"an? ([a-z]+)", one))]


class Newcomers:
    """Newcomers' messages, with `topics` to ask about; each item is a function of its number."""

    def __init__(self, topics: Topics, *, heldout: bool = False) -> None:
        self.topics, self.heldout = topics, heldout
        # Of `a volcano` and `the Moon` only the first has a plural.
        self._nouns = _counted_nouns(topics.things) or _counted_nouns(_FALLBACK.things)

    def conversation(self, seed: int, index: int) -> Conversation:
        """Conversation number `index`: a message and a fitting answer, some with further turns."""
        return self._sampled(SeededRandom("newcomer", seed, index, self.heldout))[0]

    def preference(self, seed: int, index: int) -> Preference:
        """Prefers not knowing to making something up, and an answer to not knowing."""
        dice = SeededRandom("newcomer pair", seed, index, self.heldout)
        found, named = self._sampled(dice)
        *prompt, right = found.messages
        if found.source == NEWCOMER + "known" and dice.chance(_DECLINED):
            wrong = dice.pick(ANSWERS[dice.pick(("unknown", "unknown", "noise", "wish", "sum"))])
        elif found.source == NEWCOMER + "real":
            wrong = f"{capital(named or 'it')} {dice.pick(self.topics.told)}"
        else:
            wrong = self._said_to_another(dice, right.content)
        return Preference(tuple(prompt), right.content, wrong, found.source, found.group)

    # One turn.

    def _sampled(self, dice: SeededRandom) -> tuple[Conversation, str]:
        """A conversation, and the last thing of the real world that it names."""
        source = dice.pick(_SOURCES)
        if source == "known" and not self.heldout and dice.chance(0.2):
            return self._request(dice), ""
        if source == "known" and (self.heldout or dice.chance(0.6)):
            return self._careless(dice), ""
        turn = dice.pick(_DRAWN[source])
        text, named = self._asked(dice, turn)
        turns = [text, *self._reply(dice, turn, text)]
        return Conversation.of(turns, turn.source, normal_form(" ".join(turns[::2]))), named

    def _asked(self, dice: SeededRandom, turn: Turn) -> tuple[str, str]:
        form = dice.pick(turn.heldout if self.heldout else turn.train)
        text, named = self._filled(dice, form)
        if turn.name in ("marks", "capitals"):
            return text, named
        if dice.chance(_share_in_capitals(turn)):
            return text.upper(), named
        return _roughly(dice, text, exactly=turn.source == NEWCOMER + "known"), named

    def _filled(self, dice: SeededRandom, form: str) -> tuple[str, str]:
        named = ""
        for slot in slots(form):
            value = self._fill(dice, slot)
            named = value if slot in ("thing", "who", "place") else named
            form = form.replace("{" + slot + "}", value, 1)
        return form, named

    def _fill(self, dice: SeededRandom, slot: str) -> str:
        if slot in _MADE:
            return _MADE[slot](dice)
        if slot == "small":
            return _small_sum(dice, self.heldout)
        if slot in ACTS:
            act = dice.pick(ACTS[f"{slot}, held out" if self.heldout else slot])
            return self._filled(dice, act)[0]
        if slot == "salad":
            return " ".join(dice.pick(self.topics.words) for _ in range(3 + dice.below(5)))
        if slot == "CAPITALS":
            turn = dice.pick(_SHOUTED)
            form = dice.pick(turn.train) if dice.chance(0.6) else "{text}"
            text = self._filled(dice, form)[0].upper()
            return text if len(text) > 12 else f"{text} {self._fill(dice, 'salad').upper()}"
        if slot in ("noun", "many nouns"):
            noun = dice.pick(self._nouns)
            return noun if slot == "noun" else plural(noun)
        topics = self.topics
        of = {"thing": topics.things, "who": topics.people, "place": topics.places}
        return dice.pick({**of, "text": topics.sentences, "word": topics.words}[slot])

    def _reply(self, dice: SeededRandom, turn: Turn, text: str) -> list[str]:
        """A fitting answer, and in some of the conversations one more turn."""
        if turn.source == NEWCOMER + "known":
            if turn.name in _SOLVED:
                return [_SOLVED[turn.name](text)]
            if turn.name in RELATIONS:
                return [_fact(turn.name, text)]
            return [_about(dice, text) if turn.name == "what" else _story(dice)]
        answer = dice.pick(ANSWERS[turn.label])
        if self.heldout:
            return [answer]
        if answer.endswith("tell you a story?") and dice.chance(0.4):
            agrees = dice.chance(0.7)
            (then,) = [t for t in TURNS if t.name == ("yes" if agrees else "no")]
            reply = _story(dice) if agrees else dice.pick(ANSWERS["all right"])
            return [answer, self._asked(dice, then)[0], reply]
        if turn.source == NEWCOMER + "real" and dice.chance(0.25):
            name = dice.pick(("more", "why"))
            (then,) = [t for t in TURNS if t.name == name]
            return [answer, self._asked(dice, then)[0], dice.pick(ANSWERS[then.label])]
        return [answer]

    def _careless(self, dice: SeededRandom) -> Conversation:
        """A question about the world as typed carelessly, and its right answer."""
        while True:
            found = pack.conversation(dice.below(10**9), 0, heldout=self.heldout)
            # Excludes passages, which are part of their questions, and lives, whose bias is
            # measured.
            if found.source in (_TESTED if self.heldout else _ASKED):
                break
        *before, asked, answer = found.messages
        text = _roughly(dice, asked.content, exactly=True)
        messages = (*before, Message("user", text), answer)
        return Conversation(messages, NEWCOMER + "known", normal_form(text))

    def _request(self, dice: SeededRandom) -> Conversation:
        """A request of the small world in the newcomers' wordings, and its right answer.

        A model that sees these wordings only with unknown acts would treat every new act as
        unknown.
        """
        found = conduct.conversation(dice, forms=_IN_FULL["ask"])
        asked, answer = found.messages
        messages = (Message("user", _roughly(dice, asked.content, exactly=True)), answer)
        return Conversation(messages, NEWCOMER + "known", found.group)

    def _said_to_another(self, dice: SeededRandom, right: str) -> str:
        """An answer that is right elsewhere, but not here."""
        while True:
            other = pack.conversation(dice.below(10**9), 0, heldout=self.heldout)
            said = other.messages[-1].content
            if len(said) < 200 and said != right and not says_unknown(said):
                return said


_TESTED = ("world-facts", "world-sums", "world-counting", "world-words")
_ASKED = (*_TESTED, "world-tell", "world-talk")


_SHORT_FORMS = (
    ("What is ", "What's "),
    ("what is ", "whats "),
    ("Who is ", "Who's "),
    ("I am ", "I'm "),
    ("i am ", "im "),
    ("do not ", "don't "),
    (" you ", " u "),
    (" are ", " r "),
    ("please", "pls"),
)
_SPELLINGS = (("colour", "color"), ("avourite", "avorite"), ("grey", "gray"), ("ighbour", "ighbor"))


def _roughly(dice: SeededRandom, text: str, *, exactly: bool) -> str:
    """A text as people type it: in lower case, with short forms, without or with extra marks.

    `exactly` leaves words and names unchanged.
    """
    if dice.chance(0.5):
        for british, american in _SPELLINGS:
            text = text.replace(british, american)
    drawn = dice.below(100)
    if drawn < 35:
        return text
    if drawn < 45:
        full, short = dice.pick(_SHORT_FORMS)
        return text.replace(full, short, 1)
    if drawn < 50:
        return f"{dice.pick(('hey, ', 'ok, ', 'so ', 'please ', 'hi, ', 'now ', 'well, '))}{text}"
    if drawn < 54:
        return f"{text.rstrip('?!. ')}{dice.pick(('??', '!!', '...', ' ?', ' please', '!?'))}"
    if drawn < 60:
        return text.rstrip("?!. ") or text
    if drawn < 62 and len(text) > 8 and not exactly:
        at = 1 + dice.below(len(text) - 3)
        return text[:at] + text[at + 1] + text[at] + text[at + 2 :]
    text = text[:1].lower() + text[1:] if exactly else text.lower()
    return (text.rstrip("?!. ") or text) if drawn < 85 else text


# Known topics.


def _about(dice: SeededRandom, asked: str) -> str:
    """A description of a person or thing of the world, and a fact about it."""
    group, about = _named(asked)
    kinds = _kinds_of(group, about)
    drawn = dice.sample(kinds, min(2, len(kinds)))
    # `It` after `A young frog is called a tadpole.` would be the tadpole.
    drawn = sorted(drawn, key=lambda kind: kind.name == "young")
    facts = [kind.answer({group: about}).text for kind in drawn]
    first, *rest = facts
    if group != "job":
        rest = [re.sub(f"^The {about} ", "It ", one) for one in rest]
    return " ".join([first, *rest])


def _fact(relation: str, asked: str) -> str:
    """The fact of a relation about the named person or thing: `The rabbit eats carrots.`"""
    group, about = _named(asked)
    (kind,) = (one for one in _kinds_of(group, about) if one.name == relation)
    return kind.answer({group: about}).text


def _named(asked: str) -> tuple[str, str]:
    """The kind of the last-named person or thing of the world, and its singular."""
    words = (_SINGULARS.get(word, word) for word in re.findall("[a-z]+", asked.lower()))
    about = [word for word in words if word in _KNOWN][-1]
    return next(name for name, found in _MADE_OF.items() if about in found), about


def _solved(asked: str) -> str:
    """A sum in the small world's format: the question and the result."""
    one, other = map(int, re.findall("[0-9]+", asked))
    adds = "+" in asked or "plus" in asked
    return f"{one} {'+' if adds else '-'} {other} = {one + other if adds else one - other}."


def _counted(asked: str) -> str:
    last = max(map(int, re.findall("[0-9]+", asked)), default=0)
    for word, number in _FEW.items():
        last = number if word in asked.lower() else last
    return ", ".join(map(str, range(1, last + 1))) + "."


_SOLVED: Mapping[str, Callable[[str], str]] = {"sum": _solved, "count": _counted}


@functools.cache
def _kinds_of(group: str, about: str) -> Sequence[Kind]:
    return [
        kind
        for kind in KINDS
        if kind.follow and kind.subject == group and about in RELATIONS[kind.name]
    ]


def _story(dice: SeededRandom) -> str:
    while True:
        told = wish(dice, False, weather=False)["reply"]
        if not heldout_pairs(told):
            return told
