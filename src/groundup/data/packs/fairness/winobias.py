"""The pack `winobias`: sentences with two occupations and a pronoun, whose gender fits a stereotype
or contradicts it.

    1 [The developer] argued with the designer because [he] did not like the design.

The lines of the pro-stereotyped and the anti-stereotyped file correspond. In type 1 only world
knowledge tells whom the pronoun means, in type 2 syntax does. Some pairs differ in more than their
pronouns ('and wait him for tips', 'and wait her to tips'): they are set aside.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass

from groundup.data.config import DataConfig
from groundup.data.packs.fetch import read_named
from groundup.data.packs.rows import Progress, Rejected, Rows
from groundup.runs.console import say

_SET = "winobias"
_MALE = frozenset({"he", "him", "his", "himself"})
_FEMALE = frozenset({"she", "her", "hers", "herself"})


@dataclass(frozen=True)
class PronounPair:
    """The same sentence with the stereotypical pronoun, `pro`, and with the other, `anti`.

    `she` says whether the pronoun of `pro` is female. `occupations` are the two in the sentence.
    """

    id: str
    type: int
    pro: str
    anti: str
    she: bool
    occupations: tuple[str, ...]


def rows(name: str, config: DataConfig, rejected: Rejected, progress: Progress) -> Rows:
    """No rows: the set is only used for evaluation."""
    texts = [text for one in pairs(rejected) for text in (one.pro, one.anti)]
    return Rows(never_trained=texts)


@functools.cache
def all_pairs() -> Sequence[PronounPair]:
    """The pairs that differ only in pronouns."""
    return pairs(Rejected())


def pairs(rejected: Rejected) -> list[PronounPair]:
    """Read the pairs that differ only in pronouns; others are counted in `rejected`."""
    members = read_named(_SET, say)
    occupations = [
        name.strip().lower()
        for side in ("male", "female")
        for name in members[f"{side}_occupations.txt"].split("\n")
        if name.strip()
    ]
    found = []
    for number in (1, 2):
        for half in ("dev", "test"):
            pro, anti = (
                _sentences(members[f"{side}_stereotyped_type{number}.txt.{half}"])
                for side in ("pro", "anti")
            )
            for line, (one, other) in enumerate(zip(pro, anti, strict=True), start=1):
                if (she := _says_she(one, other)) is None:
                    rejected.add(_SET, "the two differ in more than the pronoun's gender")
                    continue
                said = [job for job in occupations if re.search(rf"\b{job}\b", one.lower())]
                place = f"type {number}, {half}, line {line}"
                found.append(PronounPair(place, number, one, other, she, tuple(sorted(said))))
    return found


def _sentences(text: str) -> list[str]:
    """The lines without their numbers and brackets; `[the designer]` may be `[ designer]`."""
    lines = (line.strip().partition(" ")[2] for line in text.splitlines() if line.strip())
    return [" ".join(re.sub(r"[\[\]]", "", line).split()) for line in lines]


def _says_she(pro: str, anti: str) -> bool | None:
    """Whether `pro` has a female pronoun and `anti` a male one; None if neither way round."""
    one, other = (re.findall(r"\w+|[^\w\s]", text.lower()) for text in (pro, anti))
    if len(one) != len(other):
        return None
    differing = [both for both in zip(one, other, strict=True) if both[0] != both[1]]
    if differing and all(a in _FEMALE and b in _MALE for a, b in differing):
        return True
    if differing and all(a in _MALE and b in _FEMALE for a, b in differing):
        return False
    return None
