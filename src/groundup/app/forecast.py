"""`groundup plan`: estimate what a run would take before it starts.

The stage is planned as its own command would plan it, in a temporary folder, and a few
micro-batches and one evaluation are timed on this machine. The estimate contains time, peak memory,
disk, tokens and FLOPs. Pre-training needs no data for this (`pretrain.dry_run`); other stages are
planned on the data that they would read.

    loss     E + A / N^α + B / D^β, with the interval of `groundup scaling fit`, whose folder is
             given; without one the loss is unknown, since it depends on the text

With `--machine FILE`, written by `groundup doctor --json FILE` on another machine, nothing is
measured here: the run is assumed to reach the FLOP/s of that machine's trial.
"""

from __future__ import annotations

import contextlib
import functools
import math
import re
import tempfile
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias, get_args

from pydantic import BaseModel

from groundup.align.config import RolloutConfig
from groundup.app.commands.options import option_name
from groundup.app.settings import configured
from groundup.app.stages import STAGES, Stage
from groundup.errors import UserError
from groundup.kernels.library import Kernels
from groundup.lm.config import ModelConfig
from groundup.maths.intervals import Interval
from groundup.pretrain.config import PretrainConfig
from groundup.pretrain.dry_run import pretrain_on_noise, sized
from groundup.pretrain.scaling.flops import kaplan_flops
from groundup.pretrain.scaling.law import Law, predicted
from groundup.pretrain.shape import model_shape
from groundup.pretrain.stage import RATES, passes
from groundup.report.table import (
    Cell,
    Column,
    Table,
    decimals,
    listing,
    number,
    short_number,
    text_table,
)
from groundup.report.terminal import in_terminal
from groundup.runs.console import console, duration, say
from groundup.runs.files import is_number, read_json_object, write_json
from groundup.text.tokenizer import Tokenizer
from groundup.train.config import TrainingConfig
from groundup.train.device import (
    EXPECTED_PEAK_SHARE,
    RECURRENT_PEAK_SHARE,
    Compute,
    free_memory,
    resolve,
)
from groundup.train.plan import (
    TRAINING_SHARE,
    Shape,
    Trained,
    how_computed,
    run_memory,
    steps_between_saves,
    training_disk,
    training_memory,
)
from groundup.train.stage import Forecast, forecast

# Settings that have their own options.
_OPTIONS = ("data", "tokenizer", "model")
_NUMBERS = ("minutes", "steps", "depth", "width", "context", "rows")
_OPTION = re.compile(r"--([a-z]+(?:-[a-z]+)*)(?![a-z-])(=| \w+)?")
# A law is trusted from a tenth of its runs' minimum to ten times their maximum.
_FAR_OUTSIDE = 10.0
# Options that determine the same value.
_PAIRS = (("minutes", "steps"), ("minutes", "tokens"), ("steps", "tokens"), ("params", "depth"))


@dataclass(frozen=True)
class PlanRequest:
    """The run to plan: the options of the command line."""

    stage: str
    minutes: float | None = None
    steps: int | None = None
    tokens: float | None = None
    depth: int | None = None
    width: int | None = None
    parameters: float | None = None
    vocab_size: int = 4_096
    context: int | None = None
    rows: int | None = None
    model: Path | None = None
    data: tuple[Path, ...] = ()
    tokenizer: Path | None = None
    settings: tuple[str, ...] = ()


@dataclass(frozen=True)
class RunEstimate:
    """What a run would take: seconds, bytes, and the loss with its interval if it is known.

    `passes` over the data are None for a plan without data.
    """

    parameters: int
    trained_parameters: int
    steps: int
    tokens: float
    flops: float
    kaplan_flops: float | None
    seconds: float
    training_seconds: float
    preparing_seconds: float
    tokens_per_second: float
    peak_memory: int
    disk: int
    loss: Interval | None
    reasons: Mapping[str, str]
    how: str
    device: str
    passes: float | None = None

    def to_json(self) -> dict[str, Any]:
        found = dict(vars(self))
        return found | {"loss": None if self.loss is None else vars(self.loss)}


def plan_run(
    request: PlanRequest, *, machine: Path | None, law: Path | None, json: Path | None = None
) -> RunEstimate:
    """Estimate and print what a run would take. Raises `UserError` for a run that cannot start."""
    _refuse_pairs(request)
    stage = _stage(request)
    if law is not None and not _is_new(stage):
        raise UserError(
            f"--law predicts the loss of pre-training a new model, not of {request.stage}; leave "
            "it out"
        )
    law_found = None if law is None else read_law(law)
    try:
        estimate = _elsewhere(request, machine) if machine is not None else _here(request)
    except UserError as error:
        raise UserError(_by_set(stage.config, str(error))) from None
    reasons = {name: _by_set(stage.config, one) for name, one in estimate.reasons.items()}
    estimate = replace(estimate, reasons=reasons)
    if (wanted := request.parameters) is not None:
        near = f"{estimate.parameters:,}, the nearest available size to {wanted:,.0f}"
        reason = f"{near}; set the exact size with --width and --depth"
        estimate = replace(estimate, reasons={"parameters": reason, **estimate.reasons})
    if law_found is not None:
        loss = predicted(*law_found[:4], estimate.parameters, estimate.tokens)
        estimate = replace(estimate, loss=loss)
        if doubts := _doubts(estimate, loss, law_found[4], _vocab_size(request)):
            reasons = {**estimate.reasons, "loss": f"doubtful, because {doubts}"}
            estimate = replace(estimate, reasons=reasons)
    console.print(in_terminal(table(estimate)))
    for name, reason in estimate.reasons.items():
        say(f"  {name}: {reason}")
    if not _is_new(stage):
        say(
            "FLOPs are counted as if every token were trained on; a run counts only those that are."
        )
    if estimate.passes is not None and _is_new(stage):
        _, warning = passes(estimate.passes)
        if warning:
            say(f"Warning: {warning}")
    if estimate.loss is None and _is_new(stage):
        say(
            "The loss is unknown, because it depends on the text: train a few small models on it, "
            "put parameters, tokens and loss in a table, and give --law the folder that groundup "
            "scaling fit writes."
        )
    if machine is None and estimate.peak_memory > (free := free_memory(estimate.device)):
        say(f"Only {free / 1e9:.1f} GB of memory are free: the run would be refused.")
    if json is not None:
        write_json(json, estimate.to_json())
    return estimate


# On this machine.

_PLANNING = "planning, and timing a few steps …"


def _here(request: PlanRequest) -> RunEstimate:
    stage = _stage(request)
    with _scratch() as folder:
        if _is_new(stage) and not request.data:
            config = _pretraining(request, folder)
            say(_PLANNING)
            try:
                with _quietly():
                    found = forecast(
                        functools.partial(pretrain_on_noise, config, _vocab_size(request))
                    )
            except UserError:
                _say_unmeasured(config, _vocab_size(request))
                raise
        else:
            settings = _settings(request, stage.config) | {"out": str(folder / "run")}
            ready = configured(stage.config, settings, _spelling(request))
            say(_PLANNING)
            with _quietly():
                if isinstance(ready, PretrainConfig) and (request.tokens or request.parameters):
                    vocab_size = Tokenizer.load(ready.tokenizer).vocab_size
                    ready = _sized(ready, request, vocab_size)
                found = forecast(lambda: stage.run(ready))
    return replace(_estimate(found), passes=found.passes if request.data else None)


def _say_unmeasured(config: PretrainConfig, vocab_size: int) -> None:
    """Print what is known of a refused run without a measurement, if its steps are given."""
    if config.steps is None:
        return
    shape, _ = model_shape(config, vocab_size, 1.0)
    tokens = config.steps * config.rows * config.context
    trained = Trained.whole(shape, config.context, RATES, "")
    width = resolve(config, compile_by_default=False).torch_dtype.itemsize
    say(
        f"It would have {short_number(shape.parameters)} parameters and take "
        f"{short_number(tokens)} tokens, {trained.flops_per_token * tokens:.2e} FLOPs and "
        f"{training_disk(trained, snapshots=width, steps=config.steps) / 1e9:.2f} GB of disk."
    )


def _stage(request: PlanRequest) -> Stage:
    """The stage to plan. Raises `UserError` if it cannot be planned, or if a size is given and it
    makes no new model.
    """
    stage = STAGES.get(request.stage)
    if stage is None or not _is_planned(stage):
        planned = ", ".join(one.name for one in STAGES.values() if _is_planned(one))
        why = "is not a stage that trains on rows"
        if stage is not None and issubclass(stage.config, RolloutConfig):
            why = "trains on answers that its model generates, which cannot be timed in advance"
        raise UserError(f"--stage={request.stage} {why}; give one of {planned}")
    for name, value in (("--tokens", request.tokens), ("--params", request.parameters)):
        if value is not None and not _is_new(stage):
            raise UserError(
                f"{name} applies to a new model, which {request.stage} does not make; leave it "
                "out, and give --steps or --minutes"
            )
    return stage


def _refuse_pairs(request: PlanRequest) -> None:
    """Raise `UserError` for two options that determine the same value."""
    values = vars(request) | {"params": request.parameters} | _named(request.settings)
    for one, other in _PAIRS:
        if values[one] is not None and values[other] is not None:
            raise UserError(f"--{one} and --{other} set the same value; give one of them")


def _is_planned(stage: Stage) -> bool:
    """Whether the stage's steps can be timed in advance: they need no generated answers."""
    config = stage.config
    return issubclass(config, TrainingConfig) and not issubclass(config, RolloutConfig)


def _is_new(stage: Stage) -> bool:
    """Whether the stage trains a new model from scratch."""
    return issubclass(stage.config, PretrainConfig)


def _estimate(found: Forecast) -> RunEstimate:
    plan = found.plan
    tokens = float(plan.steps * plan.tokens_per_step)
    expected = plan.expected or {}
    return RunEstimate(
        parameters=plan.parameters,
        trained_parameters=plan.trained_parameters or plan.parameters,
        steps=plan.steps,
        tokens=tokens,
        flops=plan.flops_per_token * tokens,
        kaplan_flops=_kaplan(found.trained.shape, tokens),
        seconds=found.seconds,
        training_seconds=found.training,
        preparing_seconds=found.preparing,
        tokens_per_second=plan.tokens_per_second or 0.0,
        peak_memory=int(expected["peak_memory_bytes"]),
        disk=int(expected.get("disk_bytes", 0)),
        loss=None,
        reasons=plan.reasons,
        how=f"{plan.compute.dtype} on {plan.compute.device}, {how_computed(plan.compute)}",
        device=plan.compute.device,
    )


def _kaplan(shape: Shape, tokens: float) -> float | None:
    """FLOPs of a plain transformer without its head and attention scores."""
    if isinstance(shape, ModelConfig) and not shape.family.recurrent and shape.experts is None:
        return kaplan_flops(shape) * tokens
    return None


def _settings(request: PlanRequest, config: type[BaseModel]) -> dict[str, Any]:
    """The settings for the stage's own command."""
    found: dict[str, Any] = {}
    for name in _NUMBERS:
        if (value := getattr(request, name)) is not None:
            found[name] = value
    for name in ("model", "tokenizer"):
        if (place := getattr(request, name)) is not None:
            found[name] = str(place)
    if request.data:
        several = "tuple" in str(config.model_fields["data"].annotation)
        places = [str(one) for one in request.data]
        found["data"] = places if several else places[0]
    own = _named(request.settings)
    if twice := sorted(own.keys() & {*_OPTIONS, *found}):
        raise UserError(f"--set {twice[0]}=…: give it once, as --{twice[0]}")
    if "out" in own:
        raise UserError("--set out=…: a plan writes no run folder; leave it out")
    return found | own


def _spelling(request: PlanRequest) -> Callable[[str], str]:
    """How a setting was given: with --set, or as its own option."""
    own = _named(request.settings)
    return lambda field: f"--set {field}" if field in own else option_name(field)


def _by_set(config: type[BaseModel], said: str) -> str:
    """A stage's message, with its command's options replaced by those of `groundup plan`."""

    def spell(option: re.Match[str]) -> str:
        name, after = option[1].replace("-", "_"), option[2] or ""
        if name not in config.model_fields or name in (*_OPTIONS, *_NUMBERS, "out"):
            return option[0]
        kind = config.model_fields[name].annotation
        if after == "=":
            return f"--set {name}="
        if after[1:] in get_args(kind):  # a choice
            return f"--set {name}={after[1:]}"
        return f"--set {name}={'true' if kind is bool else '…'}{after}"

    return _OPTION.sub(spell, said)


def _named(settings: Sequence[str]) -> dict[str, Any]:
    """Parse NAME=VALUE as in a recipe, with optional quotes; names of one table are merged.

    Raises `UserError` for a name that is given twice.
    """
    found: dict[str, Any] = {}
    for one in settings:
        name, _, value = one.partition("=")
        # The part behind a dot is a user's name, such as a source's.
        setting, dot, inside = name.partition(".")
        name = f"{setting.replace('-', '_')}{dot}{inside}"
        read: dict[str, Any] = {name: value}
        with contextlib.suppress(ValueError):
            read = tomllib.loads(f"{name} = {value}")
        for key, new in read.items():
            old = found.get(key)
            if isinstance(old, dict) and isinstance(new, dict) and not old.keys() & new.keys():
                found[key] = old | new
            elif key in found:
                raise UserError(f"--set {name}=… is given twice; give it once")
            else:
                found[key] = new
    return found


def _pretraining(request: PlanRequest, folder: Path) -> PretrainConfig:
    nowhere = {"out": str(folder / "run"), "data": str(folder), "tokenizer": str(folder)}
    own = _settings(request, PretrainConfig)
    config = configured(PretrainConfig, {**own, **nowhere}, _spelling(request))
    return _sized(config, request, _vocab_size(request))


def _vocab_size(request: PlanRequest) -> int:
    """The vocabulary size of the given tokenizer, else the requested one."""
    if request.tokenizer is None:
        return request.vocab_size
    return Tokenizer.load(request.tokenizer).vocab_size


def _sized(config: PretrainConfig, request: PlanRequest, vocab_size: int) -> PretrainConfig:
    return sized(
        config, vocab_size=vocab_size, parameters=request.parameters, tokens=request.tokens
    )


# On another machine.


def _elsewhere(request: PlanRequest, machine: Path) -> RunEstimate:
    """Estimate a run on the machine of a doctor's file, at the FLOP/s of its trial."""
    if not _is_new(_stage(request)) or request.data:
        raise UserError(
            "--machine plans only pre-training without data; other stages are timed where they run"
        )
    found = read_json_object(machine)
    facts, trial = found.get("facts"), found.get("trial_flops")
    if not isinstance(facts, dict) or not is_number(trial) or trial <= 0:
        raise UserError(
            f"--machine={machine} does not say how fast a machine trains; write it there with "
            f"groundup doctor --json {machine.name}, without --quick, which skips training"
        )
    with _scratch() as folder:
        config = _pretraining(request, folder)
    cores = facts.get("cores", 1)
    if not is_number(cores) or cores < 1:
        raise UserError(f"--machine={machine} has cores={cores!r}, which is not a number of cores")
    fast = bool(facts.get("fast_bfloat16"))
    names: tuple[Kernels, ...] = get_args(Kernels)
    kernels = next((name for name in names if name == facts.get("kernels")), names[0])
    compute = Compute(
        device="cpu",
        dtype="bfloat16" if fast else "float32",
        attention="matmul",
        compile=False,
        threads=int(cores),
        torch_version=str(facts.get("torch", "")),
        kernels=kernels,
    )
    peak = float(trial) / EXPECTED_PEAK_SHARE
    _refuse_other_compute(config, compute, str(facts.get("device", "cpu")))
    shape, reasons = model_shape(config, _vocab_size(request), peak)
    trained = Trained.whole(shape, config.context, RATES, "")
    per_token = shape.flops_per_token(config.context)
    # The trial was a transformer's.
    share = RECURRENT_PEAK_SHARE if shape.family.recurrent else EXPECTED_PEAK_SHARE
    computed = float(per_token)
    if config.gradient_checkpointing:  # repeats the blocks' forward pass, a third of their FLOPs
        computed += (per_token - 6 * shape.vocab_size * shape.hidden_size) / 3
    speed = peak * share / computed
    per_step = config.rows * config.context
    steps = config.steps or max(
        1, round((config.minutes or 0.0) * 60 * TRAINING_SHARE * speed / per_step)
    )
    seconds = steps * per_step / speed
    return RunEstimate(
        parameters=shape.parameters,
        trained_parameters=shape.parameters,
        steps=steps,
        tokens=float(steps * per_step),
        flops=float(per_token * steps * per_step),
        kaplan_flops=_kaplan(shape, steps * per_step),
        seconds=seconds / TRAINING_SHARE,
        training_seconds=seconds,
        preparing_seconds=0.0,
        tokens_per_second=speed,
        peak_memory=training_memory(config, trained, compute, config.context)
        + run_memory(config, trained, compute, config.context),
        disk=training_disk(
            trained,
            snapshots=compute.torch_dtype.itemsize,
            steps=steps,
            save_every=config.save_every or steps_between_saves(per_step / speed),
        ),
        loss=None,
        reasons=reasons,
        how=f"{compute.dtype} on {facts.get('processor')}, as fast as its trial",
        device=compute.device,
    )


def _refuse_other_compute(config: PretrainConfig, compute: Compute, device: str) -> None:
    """Raise `UserError` for settings that would compute in another way than the trial."""
    trial = {"threads": compute.threads, "dtype": compute.dtype, "device": device, "compile": "off"}
    for name, own in trial.items():
        if (asked := getattr(config, name)) not in (None, "auto", own):
            raise UserError(
                f"--set {name}={asked} must be {own} with --machine, because only the trial of "
                "that machine is known; leave it out"
            )


# The loss.


_Ranges: TypeAlias = Mapping[str, tuple[float, float]]
"""The minimum and maximum parameters, tokens and FLOPs of a law's runs."""


def read_law(folder: Path) -> tuple[Law, tuple[Law, ...], float, int, _Ranges]:
    """Return the law that `groundup scaling fit` wrote, its bootstrap laws, a run's deviation, the
    number of runs, and their ranges (empty for older folders).

    The experiment `scaling-law` writes a law too, among its data. Raises `UserError` without one.
    """
    path = folder / "result.json" if folder.is_dir() else folder
    try:
        if not path.exists():
            raise KeyError(path.name)
        found = read_json_object(path)
        fit = found["fit"] if "fit" in found else found["data"]["fit"]
        law = Law(**{name: float(fit["law"][name]) for name in ("E", "A", "B", "alpha", "beta")})
        drawn = tuple(Law(*(float(one) for one in row)) for row in fit["drawn"])
        if not 0 <= (deviation := float(fit["deviation"])) < math.inf:
            raise ValueError
        ranges = {}
        for name in ("parameters", "tokens", "flops") if "range" in fit else ():
            low, high = fit["range"][name]
            ranges[name] = float(low), float(high)
        return law, drawn, deviation, int(fit["runs"]) - len(fit["left_out"]), ranges
    except (KeyError, TypeError, ValueError):
        raise UserError(
            f"--law={folder} contains no law; give a folder that groundup scaling fit or groundup "
            "experiment scaling-law wrote"
        ) from None


def _doubts(estimate: RunEstimate, loss: Interval, ranges: _Ranges, vocab_size: int) -> str:
    """Why the predicted loss may be far off; empty if it can be trusted."""
    far = []
    for name, (low, high) in ranges.items():
        value = getattr(estimate, name)
        if not low / _FAR_OUTSIDE <= value <= high * _FAR_OUTSIDE:
            word = "FLOPs" if name == "flops" else name
            own, least, most = (
                f"{one:.2g}" if name == "flops" else short_number(one) for one in (value, low, high)
            )
            far.append(f"{least} to {most} {word} (here {own})")
    said = [f"the law's runs have {listing(far)}"] if far else []
    guessing = math.log(vocab_size)
    if loss.high > guessing:
        what = "the loss" if loss.estimate > guessing else "the end of its interval"
        said.append(
            f"guessing costs ln {vocab_size:,} = {guessing:.2f} nats per token, below {what}"
        )
    return "; and ".join(said)


# Output.


def table(estimate: RunEstimate) -> Table:
    """A table of what a run would take."""
    of_them = ""
    if estimate.trained_parameters != estimate.parameters:
        of_them = f"{short_number(estimate.trained_parameters)} of them trained"
    kaplan = (
        ""
        if estimate.kaplan_flops is None
        else f"{estimate.kaplan_flops:.2e} without head and scores"
    )
    loss: str | Cell = "unknown"
    if estimate.loss is not None:
        loss = number(estimate.loss, decimals(estimate.loss.estimate))
    rows: list[tuple[str, str | Cell]] = [
        (
            "time",
            Cell(duration(estimate.seconds), f"{duration(estimate.training_seconds)} in steps"),
        ),
        ("preparation", f"{estimate.preparing_seconds:.0f} s to read data and plan"),
        ("peak memory", f"{estimate.peak_memory / 1e9:.2f} GB"),
        ("disk", f"{estimate.disk / 1e9:.2f} GB"),
        ("parameters", Cell(short_number(estimate.parameters), of_them)),
        ("steps", f"{estimate.steps:,}"),
        (
            "tokens",
            Cell(
                short_number(estimate.tokens),
                f"{estimate.tokens / estimate.parameters:.3g} per parameter",
            ),
        ),
        *([] if estimate.passes is None else [("passes over the data", f"{estimate.passes:.3g}")]),
        ("FLOPs", Cell(f"{estimate.flops:.2e}", kaplan)),
        ("speed", f"{estimate.tokens_per_second:,.0f} tokens per second"),
        ("computed", estimate.how),
        ("final loss", loss),
    ]
    plain = text_table("What it would take", ("", ""), rows)
    return Table([Column("", words=True)], plain.rows, title=plain.title)


@contextlib.contextmanager
def _scratch() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="groundup-plan-") as folder:
        yield Path(folder)


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Suppress a stage's own messages."""
    before, console.quiet = console.quiet, True
    try:
        yield
    finally:
        console.quiet = before
