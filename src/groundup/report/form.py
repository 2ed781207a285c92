"""Forms as data: grouped fields, and the buttons that send them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal


@dataclass(frozen=True)
class Field:
    """A field of a form: its submitted name, label, help text and value.

    A select has `options`, each a value and a label. A checked checkbox sends "on", and has the
    value "on" if it is initially checked. `suggestions` names one of the form's lists. `flag` is
    the field's command-line option, and `error` describes what is wrong with its value.
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
    """Fields side by side under a legend; less important ones are `folded` (collapsed).

    A folded fieldset is `open` if it has something to show.
    """

    legend: str
    fields: Sequence[Field]
    folded: bool = False
    open: bool = False


@dataclass(frozen=True)
class Button:
    """A button that sends its form: its label, name and value, and a note next to it.

    Any of the `keys`, given by browsers' key names, presses it; the first is shown.
    """

    label: str
    name: str = ""
    value: str = "on"
    note: str = ""
    keys: Sequence[str] = ()


@dataclass(frozen=True)
class Form:
    """A form that is sent to an address by POST, with `hidden` values.

    The first button is the main one. `suggestions` are named lists of possible field values.
    """

    action: str
    fieldsets: Sequence[Fieldset]
    buttons: Sequence[Button]
    hidden: Mapping[str, str] = field(default_factory=dict)
    anchor: str = ""
    suggestions: Mapping[str, Sequence[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Ballot:
    """A prompt as turns of (role, text), and two answers between which a form's buttons choose.

    The first two buttons belong to the answers and are placed below them.
    """

    form: Form
    turns: Sequence[tuple[str, str]]
    answers: tuple[str, str]


def filled(
    fieldsets: Sequence[Fieldset], values: Mapping[str, str], errors: str = ""
) -> list[Fieldset]:
    """Return the fieldsets with the submitted values, and each line of `errors` at its field.

    A line belongs to the field whose name or flag it starts with. Folded fieldsets with a value or
    an error are open, and a value that is not an option is kept visible.
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
    """Return the first line for each name; arguments without a flag are named in capitals."""
    found = {re.split("[= ]", line)[0]: line for line in reversed(errors.splitlines())}
    found.pop("", None)  # a line without a name belongs to no field
    return found | {name.lower(): line for name, line in found.items() if name.isupper()}
