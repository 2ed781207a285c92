"""The command of every stage and experiment, made from its config.

Every field becomes an option with the field's own type, default and description. A command is made
when it is looked up by the name that `cli` gives it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from cyclopts import Group, Parameter
from pydantic.fields import FieldInfo

from groundup.app.commands.options import RUNS, Mine, help_text, option_name, parsed, with_parts
from groundup.app.recipe_folder import find_data, find_model
from groundup.app.settings import configured
from groundup.app.stages import EXPERIMENTS, INPUTS, REWARDS, STAGES, Stage
from groundup.errors import UserError
from groundup.formats.locate import is_named
from groundup.runs.console import say
from groundup.runs.folder import is_finished
from groundup.train.config import TrainingConfig
from groundup.tune.config import TuningConfig


def __getattr__(name: str) -> Callable[..., None]:
    for stage in (*STAGES.values(), *EXPERIMENTS.values()):
        if stage.attribute == name:
            return _command(stage)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _command(stage: Stage) -> Callable[..., None]:
    """The command of a stage: a function whose signature is the stage's config."""

    def command(*given: Any, **settings: Any) -> None:
        # Imported late: this module loads much, and --help does not need it.
        from groundup.app.journey import next_step

        bound = signature.bind(*given, **settings)
        bound.apply_defaults()
        own = bound.arguments.pop("mine", None)
        config = configured(stage.config, located(stage, bound.arguments), option_name)
        out = getattr(config, "out", None)
        was_finished = out is not None and is_finished(out)
        with with_parts(own, out):
            folder = stage.run(config)
        if was_finished:
            say(f"{folder} was already finished with these settings.")
        say(next_step(stage, folder))

    signature = inspect.Signature(
        [_parameter(stage, name, field, name == stage.positional) for name, field in fields(stage)]
        + ([_MINE] if stage.takes_parts else [])
    )
    command.__signature__ = signature  # type: ignore[attr-defined]
    return command


def fields(stage: Stage) -> list[tuple[str, FieldInfo]]:
    """The fields of a stage's config in the order of --help: required ones first."""
    return sorted(
        stage.config.model_fields.items(),
        key=lambda item: (
            item[0] != stage.positional,
            item[0] == "out" or not item[1].is_required(),
        ),
    )


_MINE = inspect.Parameter("mine", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Mine)
_OWN = Group("Task", sort_key=1)
_ADAPTERS = Group("With --adapter", sort_key=2)
_TRAINING = Group("Training", sort_key=3)
_ALWAYS_ASKED = {"out", "seed", "minutes", "steps"}
_OF_TRAINING = set(TrainingConfig.model_fields) - _ALWAYS_ASKED
_OF_ADAPTERS = set(TuningConfig.model_fields) - set(TrainingConfig.model_fields)
_OF_ADAPTERS -= {"model", "context", "adapter"}


def group(stage: Stage, name: str) -> Group:
    """The --help group of a field of a stage's config."""
    if issubclass(stage.config, TrainingConfig) and name in _OF_TRAINING:
        return _TRAINING
    if issubclass(stage.config, TuningConfig) and name in _OF_ADAPTERS:
        return _ADAPTERS
    return _OWN


def _parameter(stage: Stage, name: str, field: FieldInfo, positional: bool) -> inspect.Parameter:
    default = inspect.Parameter.empty if field.is_required() else field.default
    option = Parameter(
        help=help_text(field),
        # Flags that are on by default can be turned off: --no-….
        negative=None if default is True else "",
        group=group(stage, name),
        consume_multiple=not positional,
        show_default=_as_typed if _is_shown(default) else False,
        show=name not in stage.config.unused,
    )
    return inspect.Parameter(
        name,
        inspect.Parameter.POSITIONAL_OR_KEYWORD if positional else inspect.Parameter.KEYWORD_ONLY,
        default=RUNS / stage.name if name == "out" else default,
        annotation=parsed(field, option),
    )


def _is_shown(default: Any) -> bool:
    """Whether a default is worth showing. 0 is, although it equals False."""
    return default is not None and default is not False and default not in ((), {})


def _as_typed(default: Any) -> str:
    if isinstance(default, dict):
        return ", ".join(f"{name} {_as_typed(value)}" for name, value in default.items())
    return " ".join(map(str, default)) if isinstance(default, tuple) else str(default)


def located(stage: Stage, settings: dict[str, Any], *, fetch: bool = True) -> dict[str, Any]:
    """Return the settings with their inputs located. Raises `UserError` for one that is missing.

    Models that are given by name are downloaded; without `fetch` they stay names.
    """
    found = dict(settings)
    for name in stage.inputs:
        if name not in found:
            continue  # left out, or not a setting of this stage
        if INPUTS[name] == REWARDS:
            continue  # a folder or a function, which is checked where it is opened
        if found[name] is None:
            continue
        several = isinstance(found[name], tuple)
        given = found[name] if several else (found[name],)
        if INPUTS[name] == ("model",):
            given = [path if is_named(path) and not fetch else find_model(path) for path in given]
        for path in given:
            if not is_named(path) and not path.exists():
                shown = path if str(path).isprintable() else repr(str(path))
                raise UserError(
                    f"{option_name(name)}={shown} does not exist; "
                    f"give {stage.config.model_fields[name].description}"
                )
        if "data" in INPUTS[name]:
            given = [path if is_named(path) else find_data(path) for path in given]
        found[name] = tuple(given) if several else given[0]
    return found
