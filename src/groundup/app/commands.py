"""What each command of `groundup` does; `cli` names them and imports this page when one is chosen.

A stage's command is made from its config: every field is an option with the field's own type,
default and description, so nothing is said twice.
"""

from __future__ import annotations

import functools
import inspect
import shutil
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, ParamSpec, get_origin, get_type_hints

from cyclopts import Group, Parameter
from pydantic.fields import FieldInfo

from groundup.adapters.config import TuningConfig
from groundup.app.recipe import farewell, find_model, read_recipe, run_recipe
from groundup.app.stages import INPUTS, STAGES, Stage, configured
from groundup.data.config import DataConfig
from groundup.errors import UserError
from groundup.experiments.config import (
    ExperimentConfig,
    InitializationConfig,
    LadderConfig,
    OptimizerRaceConfig,
    PerceptronConfig,
    PlantedBiasConfig,
    QuantizationConfig,
)
from groundup.formats.locate import is_named
from groundup.runs.console import say
from groundup.runs.files import is_kept
from groundup.train import ranges
from groundup.train.config import TrainingConfig
from groundup.tune.config import SFTConfig

QUICKSTART_MINUTES = 15.0
RUNS = Path("runs")
P = ParamSpec("P")


def _checked(command: Callable[P, None]) -> Callable[P, None]:
    """The command, which refuses numbers out of the ranges that its signature names."""
    types = get_type_hints(command, include_extras=True)
    signature = inspect.signature(command)

    @functools.wraps(command)
    def checked(*args: P.args, **settings: P.kwargs) -> None:
        for name, value in signature.bind(*args, **settings).arguments.items():
            option = _spelling(signature.parameters[name], types[name])
            ranges.check(option, value, types[name], _way_out(signature.parameters[name]))
        command(*args, **settings)

    checked.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[
            one.replace(annotation=_parsed(types[name]))
            for name, one in signature.parameters.items()
        ]
    )
    # The parser reads the signature, where it need not look for what the annotations' names mean.
    del checked.__wrapped__
    checked.__annotations__ = {}
    return checked


def _parsed(annotation: Any, *more: Any) -> Any:
    """An option's type as the parser is to read it: the bounds are for us to judge."""
    found = tuple(ranges.ranges(annotation))
    plain = annotation.annotation if isinstance(annotation, FieldInfo) else annotation
    return Annotated[(ranges.unbounded(plain), *more, *found)] if more or found else plain


def _spelling(parameter: inspect.Parameter, annotation: Any) -> str:
    """What a parameter is called at the command line."""
    if parameter.kind is not inspect.Parameter.KEYWORD_ONLY:
        return parameter.name.upper()
    named = next((one for one in annotation.__metadata__ if isinstance(one, Parameter)), None)
    names = (named.name if named is not None else None) or ()
    return next(iter(names), _option(parameter.name))


def _way_out(parameter: inspect.Parameter) -> str:
    if parameter.default in (inspect.Parameter.empty, None, ()):
        return "or leave it out"
    return f"the default is {parameter.default}"


# Journeys.


@_checked
def quickstart(
    *,
    minutes: Annotated[
        ranges.Minutes | None,
        Parameter(help="how long it may take, downloads apart (default: 15, or as it was begun)"),
    ] = None,
    out: Annotated[Path, Parameter(help="folder for everything it makes")] = Path("quickstart"),
) -> None:
    """Run the recipe that comes with groundup, planned for this machine."""
    _journey("quickstart", out, minutes)


@_checked
def run(
    recipe: Annotated[str, Parameter(help="a .toml file, or the name of one that comes along")],
    /,
    *,
    minutes: Annotated[
        ranges.Minutes | None,
        Parameter(help="plan sizes and steps to take this long (default: as the recipe says)"),
    ] = None,
    out: Annotated[
        Path | None, Parameter(help="folder for everything it makes (default: the recipe's name)")
    ] = None,
) -> None:
    """Run a recipe of one's own, or one that comes along."""
    _journey(recipe, out, minutes)


def _journey(source: str, out: Path | None, minutes: float | None) -> None:
    recipe = read_recipe(source)
    out = Path(recipe.name) if out is None else out
    if minutes is None and recipe.name == "quickstart" and not is_kept(out / "plan.json"):
        minutes = QUICKSTART_MINUTES
    run_recipe(recipe, out, minutes)


# Stages.


def _command(stage: Stage, *positional: str) -> Callable[..., None]:
    """The command of a stage: a function whose signature is the stage's config."""

    def command(*given: Any, **settings: Any) -> None:
        bound = signature.bind(*given, **settings)
        bound.apply_defaults()
        config = configured(stage.config, _located(stage, bound.arguments), _option)
        say(farewell(stage, stage.run(config)))

    fields = sorted(
        stage.config.model_fields.items(),
        key=lambda item: (item[0] not in positional, item[0] == "out" or not item[1].is_required()),
    )
    signature = inspect.Signature(
        [_parameter(stage, name, field, name in positional) for name, field in fields]
    )
    command.__signature__ = signature  # type: ignore[attr-defined]
    return command


_OWN = Group("What to do", sort_key=1)
_ADAPTERS = Group("With --adapter", sort_key=2)
_TRAINING = Group("How to train", sort_key=3)
_ALWAYS_ASKED = {"out", "seed", "minutes", "steps"}
_OF_TRAINING = set(TrainingConfig.model_fields) - _ALWAYS_ASKED
_OF_ADAPTERS = set(TuningConfig.model_fields) - set(TrainingConfig.model_fields)
_OF_ADAPTERS -= {"model", "context", "adapter"}


def _parameter(stage: Stage, name: str, field: FieldInfo, positional: bool) -> inspect.Parameter:
    group = _OWN
    if issubclass(stage.config, TrainingConfig) and name in _OF_TRAINING:
        group = _TRAINING
    elif issubclass(stage.config, TuningConfig) and name in _OF_ADAPTERS:
        group = _ADAPTERS
    default = inspect.Parameter.empty if field.is_required() else field.default
    option = Parameter(
        help=field.description,
        # What is on by default can be turned off: --no-….
        negative=None if default is True else "",
        group=group,
        consume_multiple=not positional,
        show_default=_as_typed if _is_told(default) else False,
    )
    return inspect.Parameter(
        name,
        inspect.Parameter.POSITIONAL_OR_KEYWORD if positional else inspect.Parameter.KEYWORD_ONLY,
        default=RUNS / stage.name if name == "out" else default,
        annotation=_parsed(field, option),
    )


def _is_told(default: Any) -> bool:
    """Whether a default says anything. 0 does, although it equals False."""
    return default is not None and default is not False and default != ()


def _as_typed(default: Any) -> str:
    return " ".join(map(str, default)) if isinstance(default, tuple) else str(default)


def _located(stage: Stage, settings: dict[str, Any]) -> dict[str, Any]:
    """The settings, with inputs that are known to be there."""
    found = dict(settings)
    for name in stage.inputs:
        if name not in found:
            continue  # left out, or no setting of this suite
        several = isinstance(found[name], tuple)
        given = found[name] if several else (found[name],)
        if INPUTS[name] == ("model",):
            given = [find_model(path) for path in given]
        for path in given:
            if path is not None and not is_named(path) and not path.exists():
                raise UserError(
                    f"{_option(name)}={path} is not there; "
                    f"give {stage.config.model_fields[name].description}"
                )
        found[name] = given if several else given[0]
    return found


def _option(field: str) -> str:
    return "--" + field.replace("_", "-")


data_build = _command(STAGES["data"])
tokenizer = _command(STAGES["tokenizer"], "data")
pretrain = _command(STAGES["pretrain"])
sft = _command(STAGES["sft"], "model")
dpo = _command(STAGES["dpo"], "model")


# What `eval` can measure: each suite is a stage with settings of its own.
SUITES = {
    "report": STAGES["eval"],
    "core": STAGES["core"],
    "lm-eval": STAGES["lm-eval"],
    "tuning": STAGES["tuning"],
}
Suite = Annotated[
    Literal["report", "core", "lm-eval", "tuning"],
    Parameter(
        group=_OWN,
        help="report: groundup's own models on what their data holds out; needs --data, the folder "
        "that groundup data build wrote (in a quickstart: quickstart/data), and takes models in "
        "the order of training, base first. core: six public benchmarks; needs nothing but models, "
        "of any kind. tuning: what fine-tuning on a domain brought and what was forgotten; needs "
        "--data, the files that were fine-tuned on, and the model before it first. lm-eval: tasks "
        "of the lm-evaluation-harness; needs --tasks and the extra lm-eval",
    ),
]


def _evaluation() -> Callable[..., None]:
    """The command `eval`: the settings of all suites together; those of the chosen one are used."""

    def command(*given: Any, **settings: Any) -> None:
        typed = dict(signature.bind(*given, **settings).arguments)
        stage = SUITES[typed.pop("suite", "report")]
        typed = {name: value for name, value in typed.items() if value is not None}
        typed.setdefault("out", RUNS / stage.name)
        typed = {name: _as_taken(stage, name, value) for name, value in typed.items()}
        config = configured(stage.config, _located(stage, typed), _option)
        say(farewell(stage, stage.run(config)))

    names = dict.fromkeys(name for stage in SUITES.values() for name in stage.config.model_fields)
    rest = [_suite_parameter(name) for name in names if name != "models"]
    suite = inspect.Parameter(
        "suite", inspect.Parameter.KEYWORD_ONLY, default="report", annotation=Suite
    )
    signature = inspect.Signature([_suite_parameter("models"), suite, *rest])
    command.__signature__ = signature  # type: ignore[attr-defined]
    return command


def _as_taken(stage: Stage, name: str, value: Any) -> Any:
    """What one suite takes several of and another only one is typed as several."""
    field = stage.config.model_fields.get(name)
    if not isinstance(value, tuple) or field is None or get_origin(field.annotation) is tuple:
        return value
    if len(value) != 1:
        raise UserError(f"{_option(name)} names {len(value)}, and this suite takes one; name one")
    return value[0]


def _suite_parameter(name: str) -> inspect.Parameter:
    """A setting of one suite or of several, each with its own description and default."""
    fields = {
        suite: stage.config.model_fields[name]
        for suite, stage in SUITES.items()
        if name in stage.config.model_fields
    }
    # Of the models, the suites that take one from anywhere allow the most.
    last: Any = list(fields.values())[-1]
    everywhere = len(fields) == len(SUITES)
    widest = sorted(
        (one for field in fields.values() for one in ranges.ranges(field)),
        key=lambda one: one.least or 0,
    )
    option = Parameter(
        help=_suite_help(name, fields),
        negative="",
        group=_OWN if everywhere else Group(f"Settings of --suite {', '.join(fields)}", sort_key=2),
        consume_multiple=name != "models",
        show_default=False,
    )
    if name == "models":
        kind, default = inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.empty
        return inspect.Parameter(name, kind, default=default, annotation=_parsed(last, option))
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[(ranges.unbounded(last.annotation) | None, option, *widest[:1])],
    )


def _suite_help(name: str, fields: Mapping[str, FieldInfo]) -> str:
    """What it is and its default, for every suite where they are not the same."""
    if name == "out":
        return f"folder this run writes (default: {RUNS}/eval, {RUNS}/core, {RUNS}/tuning …)"
    if name == "models":
        return str(list(fields.values())[-1].description)
    said: dict[str, list[str]] = {}
    for suite, field in fields.items():
        text = field.description or ""
        shown = not field.is_required() and _is_told(field.default)
        if shown and "default" not in text:
            text += f" (default: {_as_typed(field.default)})"
        said.setdefault(text, []).append(suite)
    if len(said) == 1:
        return next(iter(said))
    return "; ".join(f"{', '.join(suites)}: {text}" for text, suites in said.items())


evaluate = _evaluation()

# Experiments: like stages, each a config and a `run` that writes a folder.


def _experiment(name: str, config: type[ExperimentConfig]) -> Callable[..., None]:
    module = f"groundup.experiments.{name.replace('-', '_')}"
    return _command(Stage(name, config, module, makes="report", start=None))


experiment_perceptron = _experiment("perceptron", PerceptronConfig)
experiment_initialization = _experiment("initialization", InitializationConfig)
experiment_optimizer_race = _experiment("optimizer-race", OptimizerRaceConfig)
experiment_ladder = _experiment("ladder", LadderConfig)
experiment_planted_bias = _experiment("planted-bias", PlantedBiasConfig)
experiment_quantization = _experiment("quantization", QuantizationConfig)

# Data by name.


def data_list() -> None:
    """Show every data set and model: what it is, how large, under which licence, whom to cite."""
    from groundup.data.packs.fetch import cache_folder, is_cached
    from groundup.data.packs.manifest import DOMAINS, IMAGES, MODELS, SETS, GeneratedSet, every_set

    for one in (*every_set(), *IMAGES, *MODELS):
        if isinstance(one, GeneratedSet):
            size, origin = "any size", "synthetic: made by a program"
        else:
            size = f"{one.size / 1e6:.1f} MB"
            origin = "cached" if is_cached(one.name) else "not cached"
        kind = "a model, " if one in MODELS else ""
        say(f"{one.name:<14} {size:>8}  {one.licence:<13} {kind}{origin}")
        for text in (one.about, one.citation):
            say(textwrap.indent(textwrap.fill(text, _width() - 4), "    "))
    say("")
    archives = {one.archive for one in (*SETS, *DOMAINS)}
    total = sum(archive.size for archive in archives)
    say(f"The real texts come in {len(archives)} downloads of {total / 1e6:.0f} MB together.")
    models = ", ".join(f"groundup chat pack:{one.name}" for one in MODELS)
    say(f"A model is used by its name: {models}")
    say(f"The cache is {cache_folder()} (GROUNDUP_CACHE changes it).")


def _width() -> int:
    # Longer lines are hard to read, however wide the terminal is.
    return min(100, shutil.get_terminal_size().columns)


@_checked
def data_pull(
    *names: Annotated[
        str,
        Parameter(
            help="names of data sets and models (default: all data sets, no models)", negative=""
        ),
    ],
) -> None:
    """Fetch data sets and models and say what came."""
    from groundup.data.packs.fetch import pull, pull_model
    from groundup.data.packs.manifest import (
        IMAGES,
        MODELS,
        GeneratedSet,
        ModelPack,
        every_set,
        find_pack,
    )

    for one in [find_pack(name) for name in names] or (*every_set(), *IMAGES):
        if isinstance(one, GeneratedSet):
            say(f"{one.name}: made on this machine by a program, nothing to download")
            continue
        is_model = isinstance(one, ModelPack)
        path = pull_model(one.name, say) if is_model else pull(one.name, say)
        say(f"{one.name}: in the cache, {path.stat().st_size / 1e6:.1f} MB, {one.licence}")
        if is_model:
            say(f"talk with it: groundup chat pack:{one.name}")
    if not names:
        models = ", ".join(f"groundup data pull {one.name}" for one in MODELS)
        say(f"Models are fetched by name only: {models}")


_DATA = DataConfig.model_fields


@_checked
def data_show(
    name: Annotated[str, Parameter(help="a data set's name, as groundup data list shows it")],
    /,
    *,
    number: Annotated[
        ranges.SamplesShown, Parameter(name=("--number", "-n"), help="how many samples")
    ] = 5,
    seed: Annotated[ranges.Seed, Parameter(help=_DATA["seed"].description)] = _DATA["seed"].default,
    bias: Annotated[ranges.Share, Parameter(help=_DATA["bias"].description)] = _DATA[
        "bias"
    ].default,
    heldout: Annotated[
        bool, Parameter(negative="", show_default=False, help="what is held out to test by")
    ] = False,
) -> None:
    """Print samples of a data set, as a model gets to read them."""
    from groundup.data.packs.manifest import EVALUATION, find_set

    packs = [find_set(name).name]
    config = configured(
        DataConfig, {"out": RUNS, "packs": packs, "seed": seed, "bias": bias}, _option
    )
    from groundup.data.samples import lines, samples

    # What is only ever tested on has nothing else to show.
    heldout = heldout or name in {one.name for one in EVALUATION}
    for row in samples(config, number, heldout=heldout):
        say(f"── {row.source} · {type(row).__name__.lower()} ──")
        for label, text in lines(row):
            say(f"{label}:")
            for paragraph in text.split("\n"):
                say(textwrap.indent(textwrap.fill(paragraph, _width() - 4), "    "))
        say("")


_SFT = SFTConfig.model_fields
Force = Annotated[
    bool,
    Parameter(
        negative="", show_default=False, help="write over what is there and is not this command's"
    ),
]


@_checked
def data_inspect(
    *files: Annotated[str, Parameter(help=_SFT["data"].description, negative="")],
    model: Annotated[
        Path, Parameter(help="the model whose tokenizer and chat template read it")
    ] = Path("pack:smollm2"),
    context: Annotated[ranges.Context | None, Parameter(help=_SFT["context"].description)] = None,
    columns: Annotated[
        tuple[str, ...],
        Parameter(
            help=_SFT["columns"].description,
            negative="",
            consume_multiple=True,
            show_default=False,
        ),
    ] = (),
    validation: Annotated[
        ranges.ShareBelowOne | None, Parameter(help=_SFT["validation"].description)
    ] = None,
    examples: Annotated[ranges.Shown, Parameter(help="how many rows to show, token by token")] = 3,
    html: Annotated[Path | None, Parameter(help="write it into this file as a page, too")] = None,
    force: Force = False,
) -> None:
    """Show what a model would make of one's own data: counts, faults, and the very tokens."""
    if not files:
        raise UserError("there is nothing to look at; name it: groundup data inspect my.jsonl")
    settings = {"out": RUNS, "model": model, "data": files, "columns": columns}
    settings |= {"context": context, "validation": validation}
    config = configured(SFTConfig, settings, _option)
    folder = find_model(model)
    from groundup.app.inspection import inspect

    inspect(files, config, str(model), folder, examples=examples, html=html, force=force)


# Using a model.

_SAMPLING = Group("How to draw (default: as the model's generation_config.json says)", sort_key=10)
Temperature = Annotated[
    ranges.Temperature | None,
    Parameter(group=_SAMPLING, help="0 always takes the likeliest token; more is more random"),
]
TopK = Annotated[
    ranges.TopK | None, Parameter(group=_SAMPLING, help="keep the k likeliest tokens; 0 keeps all")
]
TopP = Annotated[
    ranges.TopP | None,
    Parameter(group=_SAMPLING, help="keep the fewest tokens that have this probability together"),
]
MinP = Annotated[
    ranges.Share | None,
    Parameter(group=_SAMPLING, help="keep tokens with this share of the likeliest's probability"),
]
RepetitionPenalty = Annotated[
    ranges.RepetitionPenalty | None,
    Parameter(group=_SAMPLING, help="above 1, tokens that were there before become less likely"),
]
MaxNewTokens = Annotated[
    ranges.NewTokens | None,
    Parameter(group=_SAMPLING, help="most tokens of one answer (default: 256)"),
]
ModelFolder = Annotated[
    Path,
    Parameter(
        help="a model folder, the folder of a recipe with its models, a GGUF file, pack:NAME or "
        "hub:OWNER/NAME"
    ),
]


Adapter = Annotated[
    Path | None,
    Parameter(help="folder of an adapter to put on the model, ours or PEFT's"),
]


_FILES = Group("A file of prompts", sort_key=5)


@_checked
def generate(
    model: ModelFolder,
    /,
    *prompts: Annotated[str, Parameter(help="texts to continue (default: standard input)")],
    prompts_file: Annotated[
        Path | None,
        Parameter(
            name="--prompts",
            group=_FILES,
            help="complete every prompt of this file instead, as JSON Lines: a .txt file with a "
            "prompt a line, or .jsonl, .csv or .parquet with rows of prompt or messages, and "
            "of their own id, temperature, max_new_tokens, seed, stop …",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        Parameter(
            group=_FILES,
            help="write there, and go on there after a stop (default: standard output)",
        ),
    ] = None,
    logprobs: Annotated[
        ranges.TopLogprobs | None,
        Parameter(
            group=_FILES,
            help="write token ids and log-probabilities, too, and those of so many of the "
            "likeliest tokens",
        ),
    ] = None,
    force: Annotated[Force, Parameter(group=_FILES)] = False,
    batch_size: Annotated[
        ranges.BatchSize, Parameter(group=_FILES, help="how many completions are drawn at a time")
    ] = 32,
    adapter: Adapter = None,
    chat: Annotated[
        bool,
        Parameter(
            negative="", show_default=False, help="let the model answer each prompt as a message"
        ),
    ] = False,
    max_new_tokens: MaxNewTokens = None,
    temperature: Temperature = None,
    top_k: TopK = None,
    top_p: TopP = None,
    min_p: MinP = None,
    repetition_penalty: RepetitionPenalty = None,
    stop: Annotated[
        tuple[str, ...],
        Parameter(group=_SAMPLING, negative="", show_default=False, help="end before this text"),
    ] = (),
    seed: Annotated[
        ranges.Seed | None, Parameter(group=_SAMPLING, help="the same seed draws the same text")
    ] = None,
) -> None:
    """Write what a model makes of the prompts."""
    if prompts_file is not None and prompts:
        raise UserError(
            f"there are prompts on the command line and in --prompts={prompts_file}; "
            "give one or the other"
        )
    if prompts_file is None and (out is not None or logprobs is not None):
        option = "--out" if out is not None else "--logprobs"
        raise UserError(f"{option} is for a file of prompts; name it with --prompts")
    folder = find_model(model)
    texts = () if prompts_file is not None else _prompts(prompts)
    from groundup.app.completions import complete_file, sampling_of, write_completions

    sampling = sampling_of(
        folder,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        repetition_penalty=repetition_penalty,
        stop=stop or None,
        seed=seed,
    )
    if prompts_file is None:
        write_completions(folder, texts, sampling, as_messages=chat, adapter=adapter)
    else:
        complete_file(
            folder,
            prompts_file,
            out,
            sampling,
            as_messages=chat,
            logprobs=logprobs,
            batch_size=batch_size,
            adapter=adapter,
            force=force,
        )


def _prompts(given: Sequence[str]) -> Sequence[str]:
    texts = given or (() if sys.stdin.isatty() else (_standard_input(),))
    if not any(texts):
        raise UserError('there is no prompt; give one in quotes: groundup generate MODEL "The sea"')
    for text in texts:
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise UserError(
                f"the prompt is not valid UTF-8 (character {error.start + 1}); "
                "give it as text in UTF-8"
            ) from None
    return texts


def _standard_input() -> str:
    if hasattr(sys.stdin, "reconfigure"):
        sys.stdin.reconfigure(encoding="utf-8", errors="surrogateescape")
    try:
        return sys.stdin.read().rstrip("\n")
    except OSError as error:
        raise UserError(
            f"standard input cannot be read ({error.strerror or error}); give the prompt in quotes"
        ) from None


@_checked
def chat(
    model: ModelFolder,
    /,
    *,
    adapter: Annotated[
        tuple[Path, ...],
        Parameter(
            negative="",
            consume_multiple=True,
            show_default=False,
            help="folders of adapters to put on the model, ours or PEFT's; the first answers, "
            "and /adapter NAME changes to another",
        ),
    ] = (),
    max_new_tokens: MaxNewTokens = None,
    temperature: Temperature = None,
    top_k: TopK = None,
    top_p: TopP = None,
    min_p: MinP = None,
    repetition_penalty: RepetitionPenalty = None,
    seed: Annotated[
        ranges.Seed | None,
        Parameter(group=_SAMPLING, help="draw the same answers every time (default: fresh ones)"),
    ] = None,
) -> None:
    """Talk with a model."""
    folder = find_model(model)
    from groundup.app.chat import converse
    from groundup.app.completions import sampling_of

    sampling = sampling_of(
        folder,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        repetition_penalty=repetition_penalty,
    )
    converse(str(model), folder, sampling, seed, adapter)


@_checked
def export(
    model: ModelFolder,
    /,
    *,
    to: Annotated[
        Literal["gguf", "hf"],
        Parameter(help="llama.cpp's and Ollama's one file, or a Hugging Face folder"),
    ] = "gguf",
    type: Annotated[
        str | None,
        Parameter(
            help="how weights are stored: f32, f16, bf16; in gguf also q8_0, q5_1, q5_0, q4_1 and "
            "q4_0, and by llama.cpp (extra llama-cpp) q4_k_m, q5_k_m, q6_k and their like "
            "(default: q8_0; in hf the model's own)"
        ),
    ] = None,
    out: Annotated[
        Path | None, Parameter(help="folder to write (default: beside the model)")
    ] = None,
    force: Force = False,
) -> None:
    """Write a model in the form that other programs read, and prove that it is the same."""
    from groundup.formats.export import export as write

    # Where a name is given, and not a place, the copy belongs into the folder one is in.
    source = model if is_named(model) else find_model(model)
    say(f"Written:     {write(source, to, type, out, force=force)}")


@_checked
def verify(
    model: ModelFolder,
    /,
    *,
    against: Annotated[
        Path | None, Parameter(help="the model folder that a GGUF file was made of")
    ] = None,
) -> None:
    """Compare a model with itself, with transformers and with its copies."""
    folder, original = find_model(model), None if against is None else find_model(against)
    from groundup.formats.checks import require_same
    from groundup.formats.verify import verify

    require_same(verify(folder, original), folder)


# The shell.

_STARTUP = {"bash": ".bashrc", "zsh": ".zshrc"}


def install_completion(
    *,
    shell: Annotated[
        Literal["bash", "zsh", "fish"] | None,
        Parameter(help="the shell (default: the one this is typed into)"),
    ] = None,
) -> None:
    """Write what the shell completes by where it looks for it. It never starts this program."""
    from cyclopts.completion.detect import ShellDetectionError, detect_shell

    from groundup.app.cli import app

    try:
        found = shell or detect_shell()
    except ShellDetectionError:
        found = "powershell"
    if found == "powershell":
        raise UserError(
            "the shell here is none of bash, zsh and fish; name the one that is to complete: "
            "groundup --install-completion --shell bash"
        )
    say(f"Completion for {found} is in {app.install_completion(shell=found)}.")
    if found in _STARTUP:
        say(f"A line in {Path.home() / _STARTUP[found]} loads it; open a new shell to use it.")
    else:
        say("Open a new shell to use it.")
