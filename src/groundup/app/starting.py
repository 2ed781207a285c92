"""What a form in a browser must know of the stages, and what it judges their commands by.

A form is made of the same config as the command, in the order and the groups of --help, and what is
typed in it is read by the command line itself.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from cyclopts import CycloptsError
from pydantic.fields import FieldInfo

from groundup.app.cli import app, misread
from groundup.app.commands.options import spelled, told
from groundup.app.commands.stages import fields, group, located
from groundup.app.settings import configured
from groundup.app.stages import EXPERIMENTS, INPUTS, RESUMES, STAGES, Stage
from groundup.errors import UserError
from groundup.studio.words import Kind, Setting, typed

# What most people set, behind what a stage cannot do without.
_LEADING = ("out", "minutes", "steps", "epochs", "learning_rate", "adapter", "seed")
# By what a stage makes.
_TITLES: Mapping[str, str] = {
    "data": "Make data",
    "tokenizer": "Make a tokenizer",
    "model": "Train a model",
    "reward": "Train a judge of answers",
    "guard": "Train a judge of answers",
    "report": "Measure",
    "results": "Measure",
}
_reading = threading.Lock()


@cache
def kinds() -> dict[str, Kind]:
    """All that can be started from a form, by name: stages, then experiments."""
    stages = {name: _kind(stage, _TITLES[stage.makes]) for name, stage in STAGES.items()}
    return stages | {name: _kind(one, "Experiments") for name, one in EXPERIMENTS.items()}


def _kind(stage: Stage, title: str) -> Kind:
    settings = [
        _setting(stage, name, field)
        for name, field in fields(stage)
        if name not in stage.config.unused
    ]
    places = {name: place for place, name in enumerate(_LEADING)}
    settings.sort(
        key=lambda one: (
            not one.required,
            places.get(one.name, len(places)),
            group(stage, one.name).sort_key,
        )
    )
    return Kind(
        name=stage.name,
        command=stage.command,
        help=stage.help,
        more=stage.more,
        group=title,
        makes=stage.makes,
        start=stage.start,
        settings=settings,
        resumes=RESUMES in stage.more,
        check=partial(_check, stage),
    )


def _setting(stage: Stage, name: str, field: FieldInfo) -> Setting:
    kinds = set(_parts(field.annotation))
    choices = [one for kind in kinds if get_origin(kind) is Literal for one in get_args(kind)]
    required = field.is_required()
    return Setting(
        name=name,
        option=spelled(name),
        said=told(field),
        group=str(group(stage, name).name),
        how=(
            "flag"
            if bool in kinds and dict not in kinds
            else "several"
            if tuple in kinds and dict not in kinds
            else "table"
            if dict in kinds
            else "line"
        ),
        default="" if required else typed(field.default),
        choices=[str(one) for one in choices],
        accepts=INPUTS.get(name, ()),
        required=required and name != "out",
        leads=required or name in _LEADING,
        positional=name == stage.positional,
    )


def _parts(annotation: Any) -> list[Any]:
    """A type, and what it may be instead; of one with parts the plain type as well."""
    origin = get_origin(annotation)
    if origin in (Union, UnionType):
        return [part for one in get_args(annotation) for part in _parts(one)]
    return [annotation] if origin is None else [annotation, origin]


def _check(stage: Stage, words: Sequence[str]) -> Path:
    """The folder that a command would write; `UserError` for what is wrong with its words.

    Nothing is downloaded for that: what only its data or a model tell, the command itself says.
    """
    try:
        with _reading:
            _, bound, _ = app.parse_args(list(words))
    except CycloptsError as error:
        # The form is the help that a terminal would be pointed to.
        raise UserError(misread(error, words).partition(" See: groundup ")[0]) from None
    bound.apply_defaults()
    given = dict(bound.arguments)
    given.pop("mine", None)
    return configured(stage.config, located(stage, given, fetch=False), spelled).out
