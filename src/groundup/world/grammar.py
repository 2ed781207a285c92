"""Sentences with slots, that can be filled and read back.

A *form* is a sentence with slots in braces: `{A} saw {a thing} {place}.` Filling it makes a
sentence; parsing a sentence gives the form and what stands in its slots. A slot's *kind* is its
name without the article and a final number, so `{thing}`, `{a thing}` and `{thing2}` all take a
thing; capitals are people and animals of the story, whose pronouns `{A.he}`, `{A.him}` and
`{A.his}` follow them. The same table makes and reads, so whatever is said can be checked.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import regex

T = TypeVar("T")

_SLOT = regex.compile(r"\{([^}]+)\}")
# Each case for a boy, a girl and an animal.
PRONOUNS = {
    "he": ("he", "she", "it"),
    "him": ("him", "her", "it"),
    "his": ("his", "her", "its"),
}
_VOWELS = "aeiou"


class SeededRandom:
    """Chance that is the same on every machine and in every version of Python, for one key.

    It draws by `random.random` alone, whose sequence Python promises to keep.
    """

    def __init__(self, *key: object) -> None:
        self._random = random.Random("/".join(map(str, key))).random

    def chance(self, probability: float) -> bool:
        """True with that probability."""
        return self._random() < probability

    def below(self, count: int) -> int:
        """A number from 0 to count - 1."""
        return int(self._random() * count)

    def pick(self, choices: Sequence[T]) -> T:
        """One of the choices."""
        return choices[int(self._random() * len(choices))]

    def sample(self, choices: Sequence[T], count: int) -> list[T]:
        """`count` different choices, in random order."""
        rest = list(choices)
        return [rest.pop(int(self._random() * len(rest))) for _ in range(count)]


def with_article(noun: str) -> str:
    """`a lamp`, `an apple`."""
    return f"{'an' if noun[0] in _VOWELS else 'a'} {noun}"


def plural(noun: str) -> str:
    """`lamps`, `cherries`, `peaches`."""
    if noun.endswith("y"):
        return f"{noun[:-1]}ies"
    return f"{noun}es" if noun.endswith(("ch", "sh", "s", "o")) else f"{noun}s"


def capital(text: str) -> str:
    """The text with a capital first letter, after an opening quotation mark too."""
    at = 1 if text[:1] == '"' else 0
    return text[:at] + text[at : at + 1].upper() + text[at + 1 :]


def kind_of(slot: str) -> str:
    """What may stand in a slot: `thing` for `a thing2`, `A` for `A`, `A.he` for `A.he`."""
    return slot.removeprefix("a ").rstrip("0123456789")


@functools.cache
def _percent(form: str) -> str:
    """The form as Python's % operator fills it, which is the fastest way there is."""
    percent: str = _SLOT.sub(r"%(\1)s", form.replace("%", "%%"))
    return percent


def fill(form: str, values: Mapping[str, str]) -> str:
    """The sentence that a form makes of the values of its slots, which must all be there."""
    return capital(_percent(form) % values)


def slots(form: str) -> tuple[str, ...]:
    """The names of a form's slots, in order."""
    return tuple(_SLOT.findall(form))


@dataclass(frozen=True)
class Parsed:
    """A sentence read back: the form it is of, and what stands in its slots."""

    form: str
    values: Mapping[str, str]


class Grammar:
    """A set of forms, and the words that may stand in each kind of slot."""

    def __init__(self, forms: Iterable[str], words: Mapping[str, Iterable[str]]) -> None:
        self.forms = tuple(dict.fromkeys(forms))
        self._words = {kind: sorted(set(values)) for kind, values in words.items()}
        # The longest piece between slots tells most forms apart before any pattern is tried.
        self._keys = [(max(_SLOT.split(f)[::2], key=len).strip(' "'), f) for f in self.forms]
        self._patterns: dict[str, regex.Pattern[str]] = {}
        self.parse = functools.lru_cache(maxsize=20_000)(self._parse)

    def _parse(self, sentence: str) -> tuple[Parsed, ...]:
        at = 1 if sentence[:1] == '"' else 0
        small = sentence[:at] + sentence[at : at + 1].lower() + sentence[at + 1 :]
        found = []
        for key, form in self._keys:
            if key not in sentence:
                continue
            # A slot at the beginning was given a capital letter, unless it holds a name.
            match = self._pattern(form).fullmatch(sentence) or self._pattern(form).fullmatch(small)
            if match is not None:
                values: dict[str, str] = {}
                for slot, value in zip(slots(form), match.groups(), strict=True):
                    if values.setdefault(slot, value) != value:
                        break
                else:
                    found.append(Parsed(form, values))
        return tuple(found)

    def _pattern(self, form: str) -> regex.Pattern[str]:
        if form not in self._patterns:
            lists: dict[str, list[str]] = {}
            pieces = _SLOT.split(form)
            for number, piece in enumerate(pieces):
                if number % 2:
                    lists[f"slot{number}"] = self._choices(piece)
                    pieces[number] = rf"(\L<slot{number}>)"
                else:
                    pieces[number] = regex.escape(piece)
            self._patterns[form] = regex.compile("".join(pieces), **lists)
        return self._patterns[form]

    def _choices(self, slot: str) -> list[str]:
        role, _, pronoun = slot.partition(".")
        if pronoun:
            return list(PRONOUNS[pronoun])
        words = self._words["A" if role.isupper() else kind_of(slot)]
        return [with_article(word) for word in words] if slot.startswith("a ") else list(words)
