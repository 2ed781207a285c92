"""The kinds of questions: their wordings, in training and held out, and their answers.

The tables `questions`, `talk` and `asking` hold the wordings. The part of a kind's statement that
no wording contains is the right answer.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from groundup.world.answers import (
    ASKING,
    CLAIMS,
    COULD_BE,
    DRAWS,
    OPEN_WORDS,
    RELATIONS,
    Draw,
    Values,
    beginning,
    right,
    said,
    tale,
    wish,
)
from groundup.world.grammar import SeededRandom, slots
from groundup.world.tables import TableRow, cells, labelled, page


@dataclass(frozen=True)
class Answer:
    """The right answer as a sentence, and the `right` values it may contain, out of `values`.

    Without `values` only `right` itself is right; without `right` many answers are.
    """

    text: str
    right: tuple[str, ...] = ()
    values: tuple[str, ...] = ()


@dataclass(frozen=True)
class Kind:
    """A kind of question; `follow` asks it again about the subject of the previous turn.

    `slot` is the part of the statement that no wording contains, or "" if many answers are right,
    each of which contains one of `must`. The values of a kind that is asked `after` another come
    from an earlier turn of that kind. A kind is sampled by its `weight` among those of its source.
    """

    name: str
    source: str
    statement: str
    train: TableRow
    heldout: TableRow
    draw: Draw
    follow: str = ""
    must: TableRow = ()
    weight: int = 8
    after: str = ""

    @functools.cached_property
    def told(self) -> str:
        """The part of the statement that the question does not contain."""
        found = [s for s in map(plain, slots(self.statement)) if s not in self._asked]
        # The result of an answer comes last: `{numbered}. I count {length} words.`
        return next((s for s in reversed(found) if s in COULD_BE), next(iter(found), ""))

    @property
    def slot(self) -> str:
        """The requested value: the one told, or whether a claim about it is true."""
        return f"is {self.told}" if f"{self.told}2" in self._asked else self.told

    @functools.cached_property
    def _asked(self) -> set[str]:
        return {plain(slot) for form in self.train for slot in slots(form)}

    @property
    def subject(self) -> str:
        """The subject of the question, by its slot."""
        return next(map(plain, slots(self.train[0])), "")

    def asks(self, dice: SeededRandom, heldout: bool) -> str:
        """One of the wordings of a side."""
        return dice.pick(self.heldout if heldout else self.train)

    def answer(self, values: Values) -> Answer:
        """The right answer, by the truth; a `reply` among the values takes precedence."""
        text = values.get("reply") or said(self.statement, values)
        if not self.slot:
            claims = CLAIMS if self.source == "world-unknown" else ()
            return Answer(text, self.must, self.must + claims)
        found = right(self.slot, values)
        return Answer(text, found, COULD_BE.get(self.slot, found))


def plain(slot: str) -> str:
    """The slot without its article."""
    return slot.removeprefix("a ")


# Reading the tables.

_SIDES = ("ask", "held out")


def _around(section: str, slot: str, said: str) -> list[TableRow]:
    """The wordings of a section of `asking` around a text: those that train, and the others."""
    return [tuple(f.replace(slot, said) for f in ASKING[section][side]) for side in _SIDES]


def _answered() -> Iterator[Kind]:
    """The kinds with one right answer; for facts also yes/no questions."""
    for heading, table in page("questions").items():
        topic, _, heads = heading.partition(": ")
        for name, drawn in (head.split(" of ") for head in heads.split(", ")):
            parts = {
                label: tuple(
                    cell.replace("{x", "{" + drawn).replace("{y}", "{" + name + "}") for cell in row
                )
                for label, row in labelled(table).items()
            }
            (statement,), (follow,) = parts["answer"], parts.get("again", ("",))
            train, heldout = parts["ask"], parts["held out"]
            for clause in parts.get("clause", ()):
                more, other = _around("clauses", "{q}", clause)
                train, heldout = train + more, heldout + other
            draw = _draw(name, drawn)
            yield Kind(name, f"world-{topic}", statement, train, heldout, draw, follow)
            if follow and name != "legs":
                yield _check(name, drawn, statement)


def _draw(name: str, drawn: str) -> Draw:
    if drawn == "story":
        return functools.partial(tale, slot=name)
    return DRAWS.get(drawn) or (lambda dice, _: {drawn: dice.pick(tuple(RELATIONS[name]))})


def _check(relation: str, subject: str, statement: str) -> Kind:
    """Whether a fact is true, with the claim in a second slot: `{home2}`.

    The answer states the fact, which is right either way. A model of this size cannot compare it
    with the claim: before or after the fact, its yes and no would be random.
    """
    known, values = RELATIONS[relation], tuple(RELATIONS[relation].values())
    fact = statement[:1].lower() + statement[1:].removesuffix(".")
    claim = fact.replace(relation + "}", relation + "2}")

    def draw(dice: SeededRandom, heldout: bool) -> Values:
        about = dice.pick(tuple(known))
        claimed = known[about] if dice.chance(0.5) else dice.pick(values)
        return {subject: about, f"{relation}2": claimed}

    train, heldout = _around("claims", "{q}", claim)
    return Kind(f"check {relation}", "world-facts", statement, train, heldout, draw, weight=1)


def _wishes() -> Iterator[Kind]:
    """Stories that a user may ask for."""
    for name, about in ASKING["about what"].items():
        train, heldout = _around("wishes", "{about}", "".join(f" {words}" for words in about))
        draw = functools.partial(wish, weather=name == "tell weather")
        weight = 8 if name in ("tell both", "tell weather") else 4
        yield Kind(name, "world-tell", "", train, heldout, draw, weight=weight)


def _talked() -> Iterator[Kind]:
    """Stories retold and continued, small talk, and questions without a known answer."""
    for heading, table in page("talk").items():
        topic, _, name = heading.partition(": ")
        parts = labelled(table)
        replies, train = parts.get("answer", ("",)), parts["ask"]
        draws: dict[str, Draw] = {
            "shorter": functools.partial(tale, slot="summary"),
            "go on": beginning,
        }
        draw = draws.get(name) or functools.partial(
            _talk, replies=replies, form=f"{train[0]} {replies[0]}"
        )
        must, (after,) = parts.get("must say", ()), parts.get("after", ("",))
        yield Kind(
            name,
            f"world-{topic}",
            replies[0],
            train,
            parts["held out"],
            draw,
            must=must,
            # It is harder than other small talk, for the answer is in the conversation.
            weight=32 if after else 8,
            after=after,
        )


def _talk(dice: SeededRandom, heldout: bool, *, replies: Sequence[str], form: str) -> Values:
    drawn = {slot: dice.pick(OPEN_WORDS[slot]) for slot in dict.fromkeys(map(plain, slots(form)))}
    return {**drawn, "reply": said(dice.pick(replies), drawn)}


KINDS: tuple[Kind, ...] = (*_answered(), *_wishes(), *_talked())
# The words of small talk, which distinguish an answer to it from noise.
TALK = " ".join(
    cell
    for heading, table in page("talk").items()
    if heading.startswith("talk: ")
    for cell in (*labelled(table)["answer"], *cells(tuple(ASKING["feelings"].values())))
)
# Words for the subject in a question that refers back.
SUBJECTS = {kind: f"the {{{kind}}}" for kind in ("animal", "thing", "food", "job")}
SUBJECTS["name"] = "{name}"
