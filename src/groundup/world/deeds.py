"""Kinds of things: what is true of them, and deeds with them, harmful or not.

`morals` writes about them, and `conduct` has requests to do the deeds. So a model meets one verb
with many things, and must look at the thing to know what is right.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from groundup.world.grammar import plural, with_article
from groundup.world.tables import TableRow, labelled, page


@dataclass(frozen=True)
class DeedKind:
    """Things of one kind, statements about each and about all, and deeds with them.

    Deeds have `{word}`, `{a word}` or `{words}` in the place of the thing, in the second person.
    """

    name: str
    topic: str  # of conduct, or "" if harmless
    words: TableRow
    says: TableRow
    told: TableRow
    deeds: TableRow
    how: TableRow = ()  # each harmless deed is done

    def slots(self) -> dict[str, TableRow]:
        """The slots of `acts`, with their possible values."""
        return {
            self.name: self.words,
            f"a {self.name}": tuple(map(with_article, self.words)),
            f"many {self.name}": tuple(map(plural_of, self.words)),
        }

    def acts(self) -> Iterator[tuple[str, str]]:
        """The deeds in the first person, with the kind's slots, and how they are done, or ""."""
        named = {"{word}": "{%s}", "{a word}": "{a %s}", "{words}": "{many %s}"}
        for deed, how in zip(self.deeds, self.how or ("",) * len(self.deeds), strict=True):
            for slot, own in named.items():
                deed = deed.replace(slot, own % self.name)
            yield deed.replace("yourself", "myself").replace("yours", "mine"), how


def plural_of(thing: str) -> str:
    """`loaves of bread`, `cherries`."""
    head, of, rest = thing.partition(" of ")
    return f"{plural(head)}{of}{rest}"


def _kind(name: str, table: dict[str, TableRow]) -> DeedKind:
    topic = table.pop("topic", ("",))[0]
    return DeedKind(name, topic, **table)


KINDS = {
    name: _kind(name, labelled(table))
    for heading, table in page("morals").items()
    if (name := heading.removeprefix("kind: ")) != heading
}
