"""The stages by name: what each reads, what it makes, and where its code lies.

A stage is `run(config) -> Path`. This table is all that recipes and the command line know of one.
Configs are torch-free and loaded here; the code that runs is imported when it runs.
"""

from __future__ import annotations

import difflib
import importlib
import json
import math
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from groundup.align.config import DPOConfig
from groundup.data.config import DataConfig, TokenizerConfig
from groundup.errors import UserError
from groundup.evals.config import CoreConfig, EvalConfig, HarnessConfig, TuningReportConfig
from groundup.pretrain.config import PretrainConfig
from groundup.train.ranges import check_text, ranges
from groundup.tune.config import SFTConfig

C = TypeVar("C", bound=BaseModel)

# The fields that name folders to read, and what may lie in such a folder.
INPUTS: Mapping[str, tuple[str, ...]] = {
    "data": ("data",),
    "tokenizer": ("tokenizer", "model"),  # a model folder carries its tokenizer
    "model": ("model",),
    "models": ("model",),
}


@dataclass(frozen=True)
class Stage:
    """One kind of step. `start` is the input that a recipe's `from` fills, if there is one."""

    name: str
    config: type[BaseModel]
    module: str
    makes: str
    start: str | None

    @property
    def inputs(self) -> tuple[str, ...]:
        return tuple(name for name in self.config.model_fields if name in INPUTS)

    @property
    def chats(self) -> bool:
        """Whether its model answers, rather than only continues a text."""
        return self.name in ("sft", "dpo")

    def run(self, config: BaseModel) -> Path:
        """Do the work, or find it done; the folder it lies in."""
        folder: Path = importlib.import_module(self.module).run(config)
        return folder


STAGES: Mapping[str, Stage] = {
    stage.name: stage
    for stage in (
        Stage("data", DataConfig, "groundup.data.build", "data", None),
        Stage("tokenizer", TokenizerConfig, "groundup.data.tokenizer", "tokenizer", "data"),
        Stage("pretrain", PretrainConfig, "groundup.pretrain.stage", "model", "tokenizer"),
        Stage("sft", SFTConfig, "groundup.tune.sft", "model", "model"),
        Stage("dpo", DPOConfig, "groundup.align.dpo", "model", "model"),
        Stage("eval", EvalConfig, "groundup.evals.stages.report", "report", None),
        Stage("core", CoreConfig, "groundup.evals.core", "report", None),
        Stage("tuning", TuningReportConfig, "groundup.evals.domain.report", "report", None),
        Stage("lm-eval", HarnessConfig, "groundup.evals.harness_run", "results", None),
    )
}


def configured(
    config: type[C], values: Mapping[str, Any], spelled: Callable[[str], str] = str
) -> C:
    """`values` as a config, with no value bent into another type.

    Raises `UserError` with a line for each fault; `spelled` writes a field as its owner knows it.
    """
    faults = [
        fault
        for name, value in values.items()
        if name in config.model_fields
        for fault in _unspeakable(config, name, value, spelled)
    ]
    if faults:
        raise UserError("\n".join(faults))
    try:
        # As JSON, because there a path is a string, and nothing else is taken for one.
        return config.model_validate_json(json.dumps(values, default=str), strict=True)
    except ValidationError as error:
        lines = [_fault(config, dict(fault), spelled) for fault in error.errors()]
        raise UserError("\n".join(lines)) from None


def known_names(name: str, known: Collection[str], introduction: str) -> str:
    """What is known instead of `name`: the nearest one, if one is near, and all of them."""
    names = [one for one in known if one != name]
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    everything = f"{introduction} {', '.join(known)}"
    if not near:
        return everything
    return f"did you mean {near[0]!r}? {everything[0].upper()}{everything[1:]}"


_RULES = {
    "int": "must be a whole number",
    "float": "must be a number",
    "bool": "must be true or false",
    "string": "must be text in quotes",
    "path": "must be a path in quotes",
    "tuple": "must be a list",
    "too_short": "must not be empty",
}
_BOUNDS = {"greater_than", "greater_than_equal", "less_than", "less_than_equal", "finite_number"}


def _unspeakable(
    config: type[BaseModel], name: str, value: object, spelled: Callable[[str], str]
) -> Iterator[str]:
    """What JSON has no word for, or no file can be called."""
    field = config.model_fields[name]
    if isinstance(value, tuple | list):
        for one in value:
            yield from _unspeakable(config, name, one, spelled)
    elif isinstance(value, float) and not math.isfinite(value):
        rules = "".join(f", {one.rule()}" for one in ranges(field))
        yield f"{spelled(name)}={value} must be a finite number{rules}; {_remedy(config, name)}"
    elif isinstance(value, str | Path):
        try:
            # A recipe writes a path as text, and only the field says what it is.
            check_text(spelled(name), Path(value) if Path in _types(field.annotation) else value)
        except UserError as error:
            yield str(error)


def _types(annotation: Any) -> Iterator[Any]:
    """The types that a type is made of: of `tuple[Path, ...] | None`, Path among others."""
    yield annotation
    for part in get_args(annotation):
        yield from _types(part)


def _fault(config: type[BaseModel], fault: Mapping[str, Any], spelled: Callable[[str], str]) -> str:
    """One of pydantic's findings in one sentence: the value, the rule, the remedy."""
    kind, context = fault["type"], fault.get("ctx", {})
    name = str(fault["loc"][0]) if fault["loc"] else ""
    if kind == "missing":
        return f"{spelled(name)} is missing; give {config.model_fields[name].description}"
    if kind == "extra_forbidden":
        known = tuple(field for field in config.model_fields if field != "out")
        return (
            f"{spelled(name)} is not a setting of this stage; "
            f"{known_names(name, known, 'its settings are')}"
        )
    if not name:  # a rule between several settings
        return str(fault["msg"]).removeprefix("Value error, ")
    given = fault["input"]
    if kind in _BOUNDS:
        rule = f"must be {next(ranges(config.model_fields[name])).rule(given)}"
    elif kind == "too_short" and given:
        rule = f"must have at least {context['min_length']}"
    elif kind == "literal_error":
        rule = f"must be one of {context['expected']}"
    else:
        rule = _RULES.get(kind, _RULES.get(kind.split("_")[0], f"cannot be used ({fault['msg']})"))
        number = next(ranges(config.model_fields[name]), None)
        if number is not None and kind.startswith(("int", "float")):
            rule += f", {number.rule()}"
    value = json.dumps(given, ensure_ascii=False, default=str)
    value = value if len(value) <= 120 else f"{value[:117]}..."
    return f"{spelled(name)}={value} {rule}; {_remedy(config, name)}"


def _remedy(config: type[BaseModel], name: str) -> str:
    field = config.model_fields.get(name)
    if field is None or field.is_required():
        return f"give {field.description if field else 'another value'}"
    if field.default is None:
        return f"or leave it out: {field.description}"
    return f"the default is {json.dumps(field.default, default=str)}"
