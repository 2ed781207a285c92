"""Sentences with slots, which can be filled and parsed back.

A *form* is a sentence with slots in braces: `{A} saw {a thing} {place}.` Filling it makes a
sentence; parsing a sentence gives the form and the values of its slots. A slot's *kind* is its name
without the article and a final number, so `{thing}`, `{a thing}` and `{thing2}` all take a thing;
capitals are people and animals of the story, whose pronouns `{A.he}`, `{A.him}` and `{A.his}`
follow them. The same table generates and parses, so every generated sentence can be checked.
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
    """Random numbers that are the same on every machine and in every Python version, for one key.

    Uses only `random.random`, whose sequence Python guarantees.
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


_PLURALS = {"mouse": "mice", "goose": "geese", "sheep": "sheep", "deer": "deer"}


def plural(noun: str) -> str:
    """`lamps`, `cherries`, `keys`, `peaches`, `loaves`, `mice`."""
    if noun in _PLURALS:
        return _PLURALS[noun]
    if noun.endswith("man"):
        return f"{noun[:-2]}en"
    if noun.endswith(("loaf", "wolf", "scarf")):
        return f"{noun[:-1]}ves"
    if noun.endswith("y") and noun[-2] not in _VOWELS:
        return f"{noun[:-1]}ies"
    sounds = noun.endswith(("ch", "sh", "s", "x", "o")) and noun != "piano"
    return f"{noun}es" if sounds else f"{noun}s"


def capital(text: str) -> str:
    """The text with a capital first letter, also after an opening quotation mark."""
    at = 1 if text[:1] == '"' else 0
    return text[:at] + text[at : at + 1].upper() + text[at + 1 :]


def kind_of(slot: str) -> str:
    """The kind of a slot: `thing` for `a thing2`, `A` for `A`, `A.he` for `A.he`."""
    return slot.removeprefix("a ").rstrip("0123456789")


@functools.cache
def _as_percent_format(form: str) -> str:
    """The form in the syntax of Python's % operator, the fastest way to fill it."""
    percent: str = _SLOT.sub(r"%(\1)s", form.replace("%", "%%"))
    return percent


def fill(form: str, values: Mapping[str, str]) -> str:
    """The sentence that results from filling a form's slots, which must all have values."""
    return capital(_as_percent_format(form) % values)


def slots(form: str) -> tuple[str, ...]:
    """The names of a form's slots, in order."""
    return _pieces(form)[1::2]


@functools.cache
def _pieces(form: str) -> tuple[str, ...]:
    """The texts between a form's slots, alternating with the slots' names."""
    return tuple(_SLOT.split(form))


@dataclass(frozen=True)
class Parsed:
    """A parsed sentence: its form, and the values of its slots."""

    form: str
    values: Mapping[str, str]


class Grammar:
    """A set of forms, and the words allowed in each kind of slot."""

    def __init__(self, forms: Iterable[str], words: Mapping[str, Iterable[str]]) -> None:
        self.forms = tuple(dict.fromkeys(forms))
        self._words = {kind: sorted(set(values)) for kind, values in words.items()}
        # The longest text between slots excludes most forms before one is tried.
        self._keys = [(max(_pieces(f)[::2], key=len).strip(' "'), f) for f in self.forms]
        self._choices = functools.cache(self._choices_of)
        self.parse = functools.lru_cache(maxsize=20_000)(self._parse)

    def _parse(self, sentence: str) -> tuple[Parsed, ...]:
        at = 1 if sentence[:1] == '"' else 0
        small = sentence[:at] + sentence[at : at + 1].lower() + sentence[at + 1 :]
        found = []
        for key, form in self._keys:
            if key not in sentence:
                continue
            # A slot at the beginning was capitalized, unless it holds a name.
            said = self._values(form, sentence)
            if said is None:
                said = self._values(form, small)
            if said is not None:
                values: dict[str, str] = {}
                for slot, value in zip(slots(form), said, strict=True):
                    if values.setdefault(slot, value) != value:
                        break
                else:
                    found.append(Parsed(form, values))
        return tuple(found)

    def _values(self, form: str, sentence: str) -> tuple[str, ...] | None:
        """The values of the slots, the longest words first; None for a sentence of another form.

        Written by hand, because compiling seven hundred forms as patterns would take five seconds.
        """
        pieces = _pieces(form)

        def read(number: int, at: int) -> tuple[str, ...] | None:
            piece = pieces[number]
            if not sentence.startswith(piece, at):
                return None
            at += len(piece)
            if number + 1 == len(pieces):
                return () if at == len(sentence) else None
            words, lengths = self._choices(pieces[number + 1])
            for length in lengths:
                word = sentence[at : at + length]
                if word in words and (rest := read(number + 2, at + length)) is not None:
                    return (word, *rest)
            return None

        return read(0, 0) if sentence.endswith(pieces[-1]) else None

    def _choices_of(self, slot: str) -> tuple[frozenset[str], list[int]]:
        """The possible values of a slot, and their lengths, longest first."""
        role, _, pronoun = slot.partition(".")
        if pronoun:
            words: Sequence[str] = PRONOUNS[pronoun]
        else:
            words = self._words["A" if role.isupper() else kind_of(slot)]
            if slot.startswith("a "):
                words = [with_article(word) for word in words]
        return frozenset(words), sorted({len(word) for word in words}, reverse=True)
