"""The settings of evaluation, without torch."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from groundup.train.config import Device, DType, StageConfig


class EvalConfig(StageConfig):
    """Measure one or several models on held-out material and write the report."""

    models: tuple[Path, ...] = Field(min_length=1, description="folders of the models, in order")
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
