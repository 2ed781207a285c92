"""Forms of a page as data: fields to fill in, in groups, and the buttons that send them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal


@dataclass(frozen=True)
class Field:
    """A field of a form: its name as it is sent, its label, its help and what stands in it.

    A select has `options`, each a value and its words; a checkbox that is ticked sends "on", and
    has the value "on" where it is ticked already. `suggestions` names a list of the form's. `flag`
    is what the field is called at the command line, and `error` what is wrong with its value.
    """

    name: str
    label: str
    help: str = ""
    type: Literal["text", "textarea", "select", "checkbox"] = "text"
    value: str = ""
    placeholder: str = ""
    options: Sequence[tuple[str, str]] = ()
    suggestions: str = ""
    max_length: int | None = None
    required: bool = False
    flag: str = ""
    error: str = ""


@dataclass(frozen=True)
class Fieldset:
    """Fields side by side under a legend; `folded` behind it where they matter less.

    A folded one is `open` where something in it is to be seen.
    """

    legend: str
    fields: Sequence[Field]
    folded: bool = False
    open: bool = False


@dataclass(frozen=True)
class Button:
    """A button that sends its form: its label, what is sent for it, and a note beside it.

    One of the `keys` presses it: the first is shown, the others are a browser's names of keys.
    """

    label: str
    name: str = ""
    value: str = "on"
    note: str = ""
    keys: Sequence[str] = ()


@dataclass(frozen=True)
class Form:
    """A form that is sent to an address by POST, with what goes along `hidden`.

    The first of its buttons is what it is for. `suggestions` are lists of what a field's value may
    be, by name.
    """

    action: str
    fieldsets: Sequence[Fieldset]
    buttons: Sequence[Button]
    hidden: Mapping[str, str] = field(default_factory=dict)
    anchor: str = ""
    suggestions: Mapping[str, Sequence[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Ballot:
    """A prompt, turn by turn as (who, text), and two answers between which a form's buttons choose.

    The first two buttons are the answers' own and stand below them.
    """

    form: Form
    turns: Sequence[tuple[str, str]]
    answers: tuple[str, str]


def filled(
    fieldsets: Sequence[Fieldset], values: Mapping[str, str], errors: str = ""
) -> list[Fieldset]:
    """The fieldsets with the values that were sent, and each line of `errors` at its field.

    A line is about the field whose name, or flag, it begins with. What is folded is open where it
    has either, and a value that is no option is kept to be seen.
    """
    return [_filled(one, values, _by_name(errors)) for one in fieldsets]


def _filled(group: Fieldset, values: Mapping[str, str], errors: Mapping[str, str]) -> Fieldset:
    fields = []
    for one in group.fields:
        value = values.get(one.name, "")
        error = next((errors[name] for name in (one.flag, one.name) if name in errors), "")
        options = [*one.options]
        if one.type == "select" and value not in dict(options):
            options.append((value, value))
        fields.append(replace(one, value=value, error=error, options=options))
    return replace(group, fields=fields, open=any(one.value or one.error for one in fields))


def _by_name(errors: str) -> dict[str, str]:
    """The first line that begins with a name; that of an argument without a flag is in capitals."""
    found = {re.split("[= ]", line)[0]: line for line in reversed(errors.splitlines())}
    found.pop("", None)  # a line that begins with no name is about no field
    return found | {name.lower(): line for name, line in found.items() if name.isupper()}
