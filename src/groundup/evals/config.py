"""The settings of evaluation, without torch."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from groundup.text.config import OwnDataConfig
from groundup.train.config import Device, DType, StageConfig

_MODELS = "models, in order: folders, .gguf files, pack:NAME, hub:OWNER/NAME"


class EvalConfig(StageConfig):
    """Measure one or several models on held-out material and write the report."""

    models: tuple[Path, ...] = Field(min_length=1, description=_MODELS)
    data: Path = Field(
        description="folder of a data stage, whose held-out side is measured; or a text file or a "
        "folder of texts, for bits per byte alone"
    )
    ngram_orders: tuple[int, ...] = Field(
        (3, 5), description="orders of the n-gram baselines counted over the training tokens"
    )
    bytes_per_source: int = Field(
        100_000, ge=2_048, description="held-out bytes read per source, at most"
    )
    questions: int = Field(
        150,
        ge=1,
        description="held-out questions per set, at most; in the small world requests too",
    )
    pairs: int = Field(500, ge=1, description="held-out preference pairs per set, at most")
    conversations: int = Field(60, ge=1, description="held-out conversations per set, at most")
    refusal_prompts: int = Field(60, ge=1, description="prompts answered for each refusal rate")
    device: Device = Field("auto", description="where to compute")
    dtype: DType = Field("auto", description="compute type; bfloat16 where the processor has it")
    threads: int | None = Field(None, ge=1, description="CPU threads (default: all cores)")


class ModelsConfig(StageConfig):
    """What the suites share that take models from anywhere."""

    models: tuple[str, ...] = Field(min_length=1, description=_MODELS)
    device: Device = Field("auto", description="where to compute")
    dtype: DType = Field("auto", description="compute type; bfloat16 where the processor has it")
    threads: int | None = Field(None, ge=1, description="CPU threads (default: all cores)")


class CoreConfig(ModelsConfig):
    """Ask models the questions of six public benchmarks, and measure bits per byte."""

    questions: int = Field(
        1000, ge=6, description="questions of all six sets together, as evenly as they allow"
    )
    bytes_per_source: int = Field(
        50_000, ge=2_048, description="held-out bytes of text read per source, at most"
    )


class HarnessConfig(ModelsConfig):
    """Run tasks of the lm-evaluation-harness on models."""

    tasks: tuple[str, ...] = Field(
        min_length=1, description="tasks of the harness by name, or task files (.yaml)"
    )
    include: Path | None = Field(None, description="a folder with further task files")
    limit: int | None = Field(None, ge=1, description="questions per task, at most (default: all)")
    examples: int | None = Field(
        None, ge=0, description="solved examples before each question (default: as the task says)"
    )
    chat: bool = Field(False, description="ask in the model's chat format")


class TuningReportConfig(ModelsConfig, OwnDataConfig):
    """What fine-tuning on a domain brought and what it cost: the models against the first one."""

    models: tuple[str, ...] = Field(
        min_length=1, description=f"{_MODELS}; all are compared with the first"
    )
    data: tuple[Path, ...] = Field(
        min_length=1,
        description="the domain, as it was given to fine-tuning: .jsonl, .json, .csv or .parquet "
        "files, texts, folders of them, a data-stage folder, pack:NAME or hub:OWNER/NAME; its "
        "held-out side is measured",
    )
    validation: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="share of your own rows that is held out (default: as the models' runs held "
        "out, else 0.05)",
    )
    questions: int = Field(
        300, ge=12, description="questions, half of them about the domain and half of core's sets"
    )
    conversations: int = Field(
        100, ge=1, description="held-out conversations whose answers are predicted, at most"
    )
    bytes_per_source: int = Field(
        30_000, ge=2_048, description="held-out bytes of text read per source, at most"
    )
