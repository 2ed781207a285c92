"""Votes between two answers to one prompt: the line format, which lines count, and their pairs.

    {"prompt", "a", "b", "choice", "who", "when"}

`choice` is one of `CHOICES`. A log is append-only: the last line of one person about one comparison
(its `id`) counts, and `undo` takes it back. Further fields record the answers' origin: `models`,
their `hashes` and `seeds`, a's first, which of the two was shown on the `left`, and whether each
has `ended`. An answer that was truncated at its limit must not be learned, because it would teach
where to end, so no pair is made of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from groundup.data.fields import check_order, label, opening, prompt, text
from groundup.errors import shorten
from groundup.runs.files import unique_names
from groundup.text.rows import BadRow, Json, Message, Preference, as_dicts

T = TypeVar("T")

DECIDED = ("a", "b")
CHOICES = (*DECIDED, "tie", "both bad", "skip", "undo")


@dataclass(frozen=True)
class Vote:
    """One line of a log: the vote of `who` on the answers `a` and `b` to `prompt`."""

    prompt: tuple[Message, ...]
    a: str
    b: str
    choice: str
    who: str
    when: str
    id: str
    left: str = ""
    models: tuple[str, ...] = ()
    hashes: tuple[str, ...] = ()
    seeds: tuple[int, ...] = ()
    ended: tuple[bool, ...] = ()

    @property
    def decided(self) -> bool:
        """Whether one of the answers was preferred."""
        return self.choice in DECIDED

    @property
    def players(self) -> tuple[str, ...]:
        """The identity of the models, a's first: their weights' hashes, or else their names."""
        return self.hashes or self.models

    def to_json(self) -> dict[str, object]:
        turns = as_dicts(self.prompt)
        is_plain = len(turns) == 1 and turns[0]["role"] == "user"
        return {
            "prompt": turns[0]["content"] if is_plain else turns,
            **{name: getattr(self, name) for name in _TEXTS},
            "left": self.left,
            **{name: list(getattr(self, name)) for name in _PAIRS},
        }


_TEXTS = ("a", "b", "choice", "who", "when", "id")
_PAIRS = ("models", "hashes", "seeds", "ended")
COLUMNS = ("prompt", *_TEXTS, "left", *_PAIRS)
# Why votes make no pair, apart from choices that prefer neither answer.
CUT = "an answer that was cut"


def vote(row: Json, file: str, line: int) -> Vote:
    """Parse a row as a vote; without an `id` it is a comparison of its own. Raises BadRow."""
    asked = prompt(row)
    check_order(asked)
    choice = text(row, "choice")
    if choice not in CHOICES:
        raise BadRow(f"'choice' must be one of {', '.join(CHOICES)}, not {shorten(choice)}")
    left = label(row, "left", "")
    if left not in (*DECIDED, ""):
        raise BadRow(f"'left' must be a or b, not {shorten(left)}")
    return Vote(
        asked,
        _answer(row, "a"),
        _answer(row, "b"),
        choice,
        who=label(row, "who", ""),
        when=label(row, "when", ""),
        id=label(row, "id", f"{file}, line {line}"),
        left=left,
        models=_pair_of(row, "models", str),
        hashes=_pair_of(row, "hashes", str),
        seeds=_pair_of(row, "seeds", int),
        ended=_pair_of(row, "ended", bool),
    )


def _answer(row: Json, name: str) -> str:
    """An answer, which a model may have left empty."""
    return "" if row.get(name) == "" or str(row.get(name)).isspace() else text(row, name)


def _pair_of(row: Json, name: str, kind: type[T]) -> tuple[T, ...]:
    """A field with one value for each answer, or none at all."""
    found = row.get(name)
    if found in (None, []):
        return ()
    if not isinstance(found, list) or [type(one) for one in found] != [kind, kind]:
        raise BadRow(f"{name!r} must be two values, one for each answer, not {shorten(found)}")
    return tuple(found)


def names_of(votes: Sequence[Vote], players: Sequence[str]) -> list[str]:
    """The models' names, made from the distinct parts of their folders; two equal names get a part
    of their hashes."""
    called = {p: name for vote in votes for p, name in zip(vote.players, vote.models, strict=False)}
    names = unique_names([called.get(player, player) for player in players])
    return [
        name if names.count(name) == 1 else f"{name} ({player[:6]})"
        for name, player in zip(names, players, strict=True)
    ]


def valid_votes(votes: Iterable[Vote]) -> list[Vote]:
    """The votes that count, in the order in which they were given."""
    found: dict[tuple[str, str], Vote] = {}
    for one in votes:
        found.pop((one.who, one.id), None)
        if one.choice != "undo":
            found[one.who, one.id] = one
    return list(found.values())


def preferences(votes: Sequence[Vote], source: str) -> tuple[list[Preference], Mapping[str, int]]:
    """The pairs that votes make, and the numbers of votes that make none, by reason."""
    pairs: list[Preference] = []
    left_out = Counter[str]()
    for one in valid_votes(votes):
        sides = (one.a, one.b) if one.choice == "a" else (one.b, one.a)
        if not one.decided:
            left_out[one.choice] += 1
        elif not all(one.ended):  # if a log does not record it, the answers count as complete
            left_out[CUT] += 1
        elif not all(side.strip() for side in sides):
            left_out["an answer without words"] += 1
        elif sides[0] == sides[1]:
            left_out["the same answer twice"] += 1
        else:
            pairs.append(Preference(one.prompt, *sides, source, opening(one.prompt)))
    return pairs, left_out
