"""Forms of a page as data: fields to fill in, in groups, and buttons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Field:
    """A field: its label, its name at the command line, what it is, and what stands in it.

    With `choices` one of them is picked, and `empty` is what none of them means; otherwise `empty`
    stands there paler until something is written. `offers` names the list of what could be
    written. `fault` is what is wrong with what was.
    """

    name: str
    label: str
    option: str
    said: str
    value: str = ""
    empty: str = ""
    choices: Sequence[str] = ()
    offers: str = ""
    needed: bool = False
    fault: str = ""


@dataclass(frozen=True)
class Fields:
    """Fields side by side under a title, folded behind it where they matter less."""

    title: str
    fields: Sequence[Field]
    folded: bool = False
    unfolded: bool = False
    """Whether it is folded open, since something in it was written."""


@dataclass(frozen=True)
class Settings:
    """A form of many fields, sent to an address with what goes along unseen.

    `offers` are lists of what could be written, by name. Of the `buttons`, each a name that is sent
    with the words on it, the first is what the form is for.
    """

    anchor: str
    action: str
    hidden: Mapping[str, str]
    groups: Sequence[Fields]
    buttons: Sequence[tuple[str, str]]
    offers: Mapping[str, Sequence[str]] = field(default_factory=dict)
    ticks: Mapping[str, str] = field(default_factory=dict)
    """What may be ticked, by its name: the words beside it."""


@dataclass(frozen=True)
class Button:
    """A form of one button, with what it does."""

    anchor: str
    action: str
    hidden: Mapping[str, str]
    words: str
    said: str
