"""Sentiment by a lexicon and rules: VADER (Hutto and Gilbert 2014, ICWSM).

Ten people rated each of 7,500 words from -4 (extremely negative) to 4. A text's sentiment is the
sum of its words' valences, each modified by the surrounding words, normalized to [-1, 1]:

    compound = s / sqrt(s^2 + 15)

    capitals           if other words have none: 0.733 more intense              'it is GREAT'
    degree             0.293 more or less, decreasing with distance              'very good'
    negation           within three words before: times -0.74                    'not very good'
    but                words before it count half, words after it 1.5 times
    ! and ?            up to four exclamation marks, 0.292 each; several question marks

The weights are the paper's (section 3.2), from people's ratings of tweets with one change each; the
word lists are those of the authors' program, vaderSentiment 3.3.2. Of 12,575 sentences and
assistants' answers 99 % get the same number from both; most of the others contain a 'so' or 'this'
that the program mistakes for 'never so', or the same valence before and after a 'but', of which it
weights the wrong one. Emoji are not read.

Nothing is learned or understood: 'a lovely disaster' is as much love as disaster.
"""

from __future__ import annotations

import math
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_CAPITALS = 0.733
_DEGREE = 0.293
_NEGATED = -0.74
_BEFORE_BUT, _AFTER_BUT = 0.5, 1.5
_EXCLAMATION, _MAX_EXCLAMATIONS = 0.292, 4
_QUESTION, _MANY_QUESTIONS = 0.18, 0.96
# A rhetorical negation emphasizes: 'never so good'.
_EMPHASIS = 1.25
# Approximates the largest expected sum.
_ALPHA = 15.0
# The influence of a degree word by its distance in words; negations act within the same range.
_NEAR = {1: 1.0, 2: 0.95, 3: 0.9}


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_MORE = _words(
    """absolutely amazingly awfully completely considerable considerably decidedly deeply effing
    enormous enormously entirely especially exceptional exceptionally extreme extremely fabulously
    flipping flippin frackin fracking fricking frickin frigging friggin fully fuckin fucking fuggin
    fugging greatly hella highly hugely incredible incredibly intensely major majorly more most
    particularly purely quite really remarkably so substantially thoroughly total totally tremendous
    tremendously uber unbelievably unusually utter utterly very"""
)
_LESS = _words(
    """almost barely hardly kinda kindof kind-of less little marginal marginally occasional
    occasionally partly scarce scarcely slight slightly somewhat sorta sortof sort-of"""
)
_LESS_IN_TWO = frozenset({"just enough", "kind of", "sort of"})
_NEGATIONS = _words(
    """aint arent cannot cant couldnt darent despite didnt doesnt dont hadnt hasnt havent isnt
    mightnt mustnt neednt neither never none nope nor not nothing nowhere oughtnt rarely
    seldom shant shouldnt uh-uh uhuh wasnt werent without wont wouldnt"""
)
_IDIOMS = {
    "the shit": 3.0,
    "the bomb": 3.0,
    "bad ass": 1.5,
    "bus stop": 0.0,
    "yeah right": -2.0,
    "kiss of death": -1.5,
    "to die for": 3.0,
    "beating heart": 3.1,
    "broken heart": -2.9,
}


@dataclass(frozen=True)
class Sentiment:
    """VADER on a lexicon: from words and emoticons in lower case to valences from -4 to 4."""

    lexicon: Mapping[str, float]

    @classmethod
    def read(cls, lexicon: str) -> Sentiment:
        """Read a lexicon: lines of a word, a tab, its mean valence, and unused columns."""
        lines = (line.split("\t") for line in lexicon.splitlines() if line.strip())
        return cls({word.strip(): float(valence) for word, valence, *_ in lines})

    def compound(self, text: str) -> float:
        """The sentiment of a text, from -1 to 1; 0 if the lexicon has none of its words."""
        words = [_without_punctuation(word) for word in text.split()]
        lower = [word.lower() for word in words]
        capitals = [word.isupper() for word in words]
        stands_out = 0 < sum(capitals) < len(words)
        intense = [_CAPITALS if stands_out and one else 0.0 for one in capitals]
        valences = [self._valence(lower, intense, place) for place in range(len(words))]
        total = sum(_weighted_by_but(valences, lower))
        if total:
            total += math.copysign(_punctuation(text), total)
        return total / math.sqrt(total**2 + _ALPHA)

    def _valence(self, words: Sequence[str], intense: Sequence[float], place: int) -> float:
        """The valence of a word, modified by the words around it."""
        word = words[place]
        if word not in self.lexicon or _is_degree(words, place):
            return 0.0
        valence = self.lexicon[word]
        if word == "no" and place + 1 < len(words) and words[place + 1] in self.lexicon:
            return 0.0  # it negates what follows
        if _follows_no(words, place):
            valence *= _NEGATED
        valence += math.copysign(intense[place], valence)
        for distance, share in _NEAR.items():
            before = place - distance
            if before >= 0 and words[before] not in self.lexicon:
                degree = _degree(words[before], intense[before])
                valence += math.copysign(1.0, valence) * share * degree
                valence *= _negation(words, place, distance)
        return self._in_phrases(words, place, valence)

    def _in_phrases(self, words: Sequence[str], place: int, valence: float) -> float:
        """Apply idioms, and 'least' and degree phrases before the word."""
        for length in (2, 3):
            for start in range(max(0, place - length + 1), place + 1):
                valence = _IDIOMS.get(" ".join(words[start : start + length]), valence)
            ahead = [" ".join(words[max(0, place - n) : max(0, place - n + 2)]) for n in (2, 3)]
        valence -= _DEGREE * sum(phrase in _LESS_IN_TWO for phrase in ahead)
        last, second = (words[place - n] if place >= n else "" for n in (1, 2))
        if last == "least" and last not in self.lexicon and second not in ("at", "very"):
            valence *= _NEGATED
        return valence


def _without_punctuation(word: str) -> str:
    """A word without surrounding punctuation; an emoticon, which is all punctuation, unchanged."""
    stripped = word.strip(string.punctuation)
    return word if len(stripped) <= 2 else stripped


def _is_degree(words: Sequence[str], place: int) -> bool:
    word = words[place]
    return word in _MORE or word in _LESS or (word == "kind" and words[place + 1 :][:1] == ["of"])


def _follows_no(words: Sequence[str], place: int) -> bool:
    """Whether a 'no' precedes closely: 'no good', 'no fun or joy'."""
    last, second, third = (words[place - n] if place >= n else "" for n in (1, 2, 3))
    return "no" in (last, second) or (third == "no" and last in ("or", "nor"))


def _degree(word: str, intense: float) -> float:
    """The change in intensity that a degree word causes; stronger in capitals."""
    if word in _MORE:
        return _DEGREE + intense
    return -_DEGREE + intense if word in _LESS else 0.0


def _negation(words: Sequence[str], place: int, distance: int) -> float:
    """The factor by which the word at that distance before multiplies a valence."""
    word, between = words[place - distance], words[place - distance + 1 : place]
    if word == "never" and {"so", "this"} & set(between):
        return _EMPHASIS
    if word == "without" and "doubt" in between:
        return 1.0
    return _NEGATED if word in _NEGATIONS or "n't" in word else 1.0


def _weighted_by_but(valences: Sequence[float], words: Sequence[str]) -> list[float]:
    if "but" not in words:
        return list(valences)
    but = words.index("but")
    weights = [_BEFORE_BUT if place < but else _AFTER_BUT for place in range(len(words))]
    return [weight * one for weight, one in zip(weights, valences, strict=True)]


def _punctuation(text: str) -> float:
    exclaimed = _EXCLAMATION * min(text.count("!"), _MAX_EXCLAMATIONS)
    asked = text.count("?")
    return exclaimed + (0.0 if asked < 2 else _QUESTION * asked if asked < 4 else _MANY_QUESTIONS)
