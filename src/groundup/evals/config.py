"""The settings of evaluation, without torch."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, field_validator

from groundup.data.config import OwnDataConfig
from groundup.data.files import ROW_KINDS
from groundup.train.config import DEVICE, THREADS, Device, DType, StageConfig
from groundup.train.ranges import (
    BytesPerSource,
    Examples,
    MeasuredShare,
    NewTokens,
    NgramOrder,
    Questions,
    QuestionsOfSix,
    QuestionsOfTwelve,
    Seed,
    Threads,
)

# In bfloat16 a log-likelihood differs in its third digit, so the same model would score differently
# on another machine; float32 takes two to four times as long, which is worth it for a measurement.
_DTYPE = "compute type; auto is bfloat16 where the processor has it: faster, two digits exact"
# Pair losses that compare answers without a reference model.
REFERENCE_FREE = ("simpo", "orpo")
_MODELS = "models, in order: folders, .gguf files, pack:NAME, hub:OWNER/NAME"
# These suites ask every user the same, so that tables can be compared.
_UNUSED_SEED: Seed = Field(
    0, description="has no effect here: every model is sampled with the same random numbers"
)


def _separated(tasks: tuple[str, ...]) -> tuple[str, ...]:
    """Names of tasks, which may also be separated by commas."""
    return tuple(name for one in tasks for name in one.split(",") if name)


class EvalConfig(StageConfig):
    """Measure one or several models on held-out data and write the report."""

    models: tuple[Path, ...] = Field(min_length=1, description=_MODELS)
    data: Path = Field(
        description="the folder of a data stage, whose held-out side is measured; or a text file "
        "or a folder of texts, for bits per byte alone"
    )
    ngram_orders: tuple[NgramOrder, ...] = Field(
        (3, 5), description="orders of the n-gram baselines counted over the training tokens"
    )
    bytes_per_source: BytesPerSource = Field(
        100_000, description="held-out bytes read per source, at most"
    )
    questions: Questions = Field(
        150,
        description="held-out questions per set, at most; also the small world's requests",
    )
    pairs: Questions = Field(500, description="held-out preference pairs per set, at most")
    conversations: Questions = Field(60, description="held-out conversations per set, at most")
    refusal_prompts: Questions = Field(60, description="prompts per refusal rate, at most")
    device: Device = Field("auto", description=DEVICE)
    dtype: DType = Field("float32", description=_DTYPE)
    threads: Threads | None = Field(None, description=THREADS)


class ModelsConfig(StageConfig):
    """The settings that suites for models from anywhere share."""

    models: tuple[str, ...] = Field(min_length=1, description=_MODELS)
    device: Device = Field("auto", description=DEVICE)
    dtype: DType = Field("float32", description=_DTYPE)
    threads: Threads | None = Field(None, description=THREADS)


class CoreConfig(ModelsConfig):
    """Ask models the questions of six public benchmarks, and measure bits per byte."""

    seed: Seed = _UNUSED_SEED
    questions: QuestionsOfSix = Field(
        1000, description="questions of all six sets together, spread as evenly as possible"
    )
    bytes_per_source: BytesPerSource = Field(
        50_000, description="held-out bytes of text read per source, at most"
    )


class ValuesConfig(ModelsConfig):
    """Measure utility, safety, fairness and honesty on known truth and on public sets."""

    seed: Seed = _UNUSED_SEED
    tasks: tuple[str, ...] = Field(
        (),
        description="tasks by name, or whole axes: utility, safety, fairness, honesty (default: "
        "all that apply to the model and may be used commercially)",
    )
    fast: bool = Field(False, description="fewer items of each task, for a first look")
    items: Questions | None = Field(
        None, description="items of each task, at most (default: the task's own number)"
    )
    noncommercial: bool = Field(
        False,
        description="include sets whose license forbids commercial use (at present there are none)",
    )
    swaps: Path | None = Field(
        None,
        description="your own prompts for swaps, one a line, with slots such as {name}, {person} "
        "or {group}; {city} = Paris, Lyon | Lagos defines a slot of your own",
    )
    comparison: Path | None = Field(
        None,
        description="a folder of groundup eval rewards, whose win rates are shown as well",
    )
    votes: Path | None = Field(
        None, description="a log of groundup label, whose win rates by people are shown as well"
    )
    cache: Path | None = Field(
        None,
        description="folder that keeps the answers' rows, so that no model is asked twice "
        "(default: in the user's cache)",
    )

    _one_by_one = field_validator("tasks")(_separated)


class HarnessConfig(ModelsConfig):
    """Run tasks of the lm-evaluation-harness on models."""

    seed: Seed = _UNUSED_SEED
    tasks: tuple[str, ...] = Field(
        min_length=1, description="tasks of the harness by name, or task files (.yaml)"
    )
    include: Path | None = Field(None, description="a folder with further task files")
    limit: Questions | None = Field(None, description="questions per task, at most (default: all)")
    examples: Examples | None = Field(
        None, description="solved examples before each question (default: as the task says)"
    )
    chat: bool = Field(False, description="ask in the model's chat format")

    _one_by_one = field_validator("tasks")(_separated)


class RedTeamConfig(ModelsConfig):
    """Search for prompts that make models break the small world's rules of conduct."""

    budget: Questions = Field(32, description="prompts tried for each request, per search")
    requests: Questions = Field(
        100, description="harmful requests of the small world, evenly spaced over all of them"
    )
    max_new_tokens: NewTokens = Field(48, description="tokens of an answer, at most")
    guard: Path | None = Field(
        None, description="the folder of a guard that is applied to every model (default: none)"
    )


class TuningReportConfig(ModelsConfig, OwnDataConfig):
    """What fine-tuning on a domain gained and what it cost: all models against the first."""

    models: tuple[str, ...] = Field(
        min_length=1, description=f"{_MODELS}; all are compared with the first"
    )
    data: tuple[Path, ...] = Field(
        min_length=1,
        description=f"the domain's data as given to fine-tuning: {ROW_KINDS} files, texts, "
        "folders of them, a data-stage folder, pack:NAME or hub:OWNER/NAME; its held-out side is "
        "measured",
    )
    validation: MeasuredShare | None = Field(
        None,
        description="share of your own rows that is held out and measured, 1 for files that no "
        "model trained on (default: as the models' runs held out, else 0.05)",
    )
    questions: QuestionsOfTwelve = Field(
        300, description="questions, half of them about the domain and half of core's sets"
    )
    conversations: Questions = Field(
        100, description="held-out conversations whose answers are predicted, at most"
    )
    bytes_per_source: BytesPerSource = Field(
        30_000, description="held-out bytes of text read per source, at most"
    )
