"""Turn a command's signature into options: shared types and texts, groups, checked bounds."""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Annotated, Any, ParamSpec, get_args, get_type_hints

from cyclopts import CoercionError, Group, Parameter, Token, convert
from pydantic import BaseModel, ConfigDict, Field
from pydantic.fields import FieldInfo

from groundup.errors import UserError
from groundup.learn.own import FOLDER
from groundup.text.rows import TemplateVariables
from groundup.train import ranges
from groundup.train.config import DEVICE
from groundup.train.config import Device as TrainingDevice
from groundup.train.config import DType as TrainingDType

RUNS = Path("runs")
P = ParamSpec("P")


def _model_folder(type: Any, tokens: Sequence[Token]) -> Path:
    """A model's path or name; `Path("")` would be the current folder."""
    if not tokens[0].value:
        raise UserError("MODEL='' is empty; give a model's folder, or . for the current one")
    return Path(tokens[0].value)


ModelFolder = Annotated[
    Path,
    Parameter(
        converter=_model_folder,
        help="a model folder, the output folder of a recipe, a GGUF file, pack:NAME or "
        "hub:OWNER/NAME",
    ),
]


Adapter = Annotated[
    Path | None,
    Parameter(help="the folder of an adapter for the model, ours or PEFT's"),
]
GuardFolder = Annotated[
    Path | None,
    Parameter(
        help="the folder of a guard (groundup guard), which stops harmful messages and answers "
        "(default: none)"
    ),
]
Device = Annotated[TrainingDevice, Parameter(help=DEVICE)]
DType = Annotated[
    TrainingDType | None,
    Parameter(
        help="compute type; auto is bfloat16 if the processor has it (default: the model's own)"
    ),
]
Template = Annotated[
    TemplateVariables | None,
    Parameter(
        show_default=False,
        help="variables of the chat template, such as --template.enable_thinking false",
    ),
]
Host = Annotated[str, Parameter(help="the address to listen on; 0.0.0.0 accepts other machines")]
Port = Annotated[ranges.Port, Parameter(help="the port; 0 picks a free one")]


def _key(type: Any, tokens: Sequence[Token]) -> str:
    if not tokens[0].value.strip():
        raise UserError("--api-key='' is empty, so anyone could send requests; give a key")
    return tokens[0].value


ApiKey = Annotated[
    str | None,
    Parameter(
        converter=_key,
        env_var="GROUNDUP_API_KEY",
        show_env_var=True,
        help="the key that every request must send (default: the environment's GROUNDUP_API_KEY, "
        "else none)",
    ),
]
Force = Annotated[
    bool,
    Parameter(negative="", show_default=False, help="overwrite an existing file of any kind"),
]


def _folder_of_parts(type: Any, tokens: Sequence[Token]) -> Path:
    """`--mine FOLDER`, or `--mine` alone for the folder of `groundup learn`."""
    return FOLDER if tokens[0].implicit_value is True else Path(tokens[0].value)


# `bool` makes the parser accept the option without a folder.
Mine = Annotated[
    Path | bool | None,
    Parameter(
        negative="",
        show_default=False,
        converter=_folder_of_parts,
        help="run on your own code from groundup learn, every part that passed its check; give "
        "its folder unless it is my_groundup",
    ),
]
SAMPLING = Group(
    "Sampling (default: generation_config.json's settings if it samples, else the most likely "
    "token)",
    sort_key=10,
)


class SamplingOptions(BaseModel):
    """How the next token is sampled; None means the model's own setting."""

    model_config = ConfigDict(frozen=True)

    max_new_tokens: ranges.NewTokens | None = Field(
        None, description="maximum tokens of one answer (default: 256; in serve, as many as fit)"
    )
    temperature: ranges.Temperature | None = Field(
        None, description="0 always takes the most likely token; higher is more random"
    )
    top_k: ranges.TopK | None = Field(
        None, description="keep the k most likely tokens; 0 keeps all"
    )
    top_p: ranges.TopP | None = Field(
        None, description="keep the fewest tokens whose probabilities add up to this"
    )
    min_p: ranges.Share | None = Field(
        None,
        description="keep tokens with at least this share of the most likely token's probability",
    )
    repetition_penalty: ranges.RepetitionPenalty | None = Field(
        None,
        description="above 1, tokens of the prompt and of the answer so far become less likely "
        "(default: generation_config.json's, sampling or not)",
    )
    presence_penalty: ranges.TokenPenalty | None = Field(
        None,
        description="-2 to 2; above 0, tokens already in the answer become less likely "
        "(default: 0)",
    )
    frequency_penalty: ranges.TokenPenalty | None = Field(
        None,
        description="-2 to 2; the same, once for each time they occur in the answer (default: 0)",
    )


def checked(command: Callable[P, None]) -> Callable[P, None]:
    """Return the command with its numbers checked against the ranges in its signature.

    A parameter `sampling: SamplingOptions` becomes one option for each field, in the group
    `SAMPLING` or the one that it is annotated with.
    """
    types = get_type_hints(command, include_extras=True)
    parameters: dict[str, inspect.Parameter] = {}
    gathers = False
    for name, one in inspect.signature(command).parameters.items():
        kind, *groups = get_args(types[name]) or (types[name],)
        if kind is not SamplingOptions:
            parameters[name] = one
            continue
        gathers = True
        for field, info in SamplingOptions.model_fields.items():
            option = Parameter(group=groups[0] if groups else SAMPLING, help=help_text(info))
            types[field] = parsed(info, option)
            parameters[field] = inspect.Parameter(
                field, inspect.Parameter.KEYWORD_ONLY, default=None
            )
    signature = inspect.Signature(list(parameters.values()))

    @functools.wraps(command)
    def run(*args: P.args, **settings: P.kwargs) -> None:
        for name, value in signature.bind(*args, **settings).arguments.items():
            spelling = _spelling(parameters[name], types[name])
            ranges.check(spelling, value, types[name], _remedy(parameters[name]))
        if gathers:
            drawn: dict[str, Any] = {
                name: settings.pop(name)
                for name in SamplingOptions.model_fields
                if name in settings
            }
            settings["sampling"] = SamplingOptions.model_construct(**drawn)
        command(*args, **settings)

    run.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[one.replace(annotation=parsed(types[name])) for name, one in parameters.items()]
    )
    # The parser reads the signature, in which the annotations are already resolved.
    del run.__wrapped__
    run.__annotations__ = {}
    return run


def with_parts(
    folder: Path | bool | None, run: Path | None = None
) -> AbstractContextManager[object]:
    """Return a context in which the learner's passed parts are used, if `folder` is given.

    A command that resumes a `run` gets the parts that the run was started with.
    """
    if not folder:
        return contextlib.nullcontext()
    from groundup.learn.mine import mine

    return mine(Path(folder) if folder is not True else FOLDER, run=run)


def parsed(annotation: Any, *more: Any) -> Any:
    """Return an option's type for the parser, without the bounds, which `checked` checks."""
    found = tuple(ranges.ranges(annotation))
    if any(one.kind is int for one in found):
        more = (Parameter(converter=_whole_numbers), *more)
    plain = annotation.annotation if isinstance(annotation, FieldInfo) else annotation
    return Annotated[(ranges.unbounded(plain), *more, *found)] if more or found else plain


def _whole_numbers(annotation: Any, tokens: Sequence[Token]) -> Any:
    """Convert as the parser does, but refuse fractions, which it would silently round."""
    for token in tokens:
        if "." in token.value and not float(token.value).is_integer():
            raise CoercionError(token=token, target_type=int)
    return convert(annotation, tokens)


def help_text(field: FieldInfo) -> str:
    """Return a setting's help text, with its bounds if it is a share."""
    found = list(ranges.ranges(field))
    if not found or any((one.least, one.most) != (0, 1) for one in found):
        return field.description or ""
    least = "above 0" if found[0].open_least else "0"
    most = "below 1" if found[0].open_most else "1"
    return f"{field.description} [{least} to {most}]"


def option_name(field: str) -> str:
    """Return a setting's name as an option of the command line."""
    return "--" + field.replace("_", "-")


def _spelling(parameter: inspect.Parameter, annotation: Any) -> str:
    """Return a parameter's name at the command line."""
    if parameter.kind is not inspect.Parameter.KEYWORD_ONLY:
        return parameter.name.upper()
    named = next((one for one in annotation.__metadata__ if isinstance(one, Parameter)), None)
    names = (named.name if named is not None else None) or ()
    return next(iter(names), option_name(parameter.name))


def _remedy(parameter: inspect.Parameter) -> str:
    if parameter.default in (inspect.Parameter.empty, None, ()):
        return "or leave it out"
    return f"the default is {parameter.default}"
