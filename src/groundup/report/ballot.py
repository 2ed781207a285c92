"""What a page asks of a person, as data: entries to fill in, and two answers to choose between."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Entry:
    """Something to fill in: its label, a remark on it, and what stands there.

    With `choices`, each a value and its words, one of them is picked; with `lines` there are so
    many to write in. `empty` stands there paler until something is written.
    """

    name: str
    label: str
    said: str = ""
    value: str = ""
    empty: str = ""
    choices: Sequence[tuple[str, str]] = ()
    lines: int = 1
    most: int = 200
    """The most characters that can be written."""


@dataclass(frozen=True)
class Entries:
    """Entries under a title, folded behind it where they matter less."""

    title: str
    entries: Sequence[Entry]
    folded: bool = False
    ticks: Mapping[str, tuple[str, bool]] = field(default_factory=dict)
    """What may be ticked, by its name: the words beside it, and whether it is."""


@dataclass(frozen=True)
class Questionnaire:
    """A form of entries that is sent to an address, with what goes along unseen."""

    action: str
    parts: Sequence[Entries]
    button: str
    hidden: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Choice:
    """A button: the value that is sent, the words on it, and the keys that press it.

    The first key is shown; the others are a browser's names.
    """

    value: str
    words: str
    keys: Sequence[str]


@dataclass(frozen=True)
class Ballot:
    """A prompt, turn by turn as (who, text), with two answers to choose between.

    The first two of the `choices` are the answers' own and stand below them.
    """

    action: str
    hidden: Mapping[str, str]
    turns: Sequence[tuple[str, str]]
    answers: tuple[str, str]
    choices: Sequence[Choice]
