"""The settings of evaluation, without torch."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from groundup.train.config import StageConfig


class EvalConfig(StageConfig):
    """Measure one or several models on held-out material and write the report."""

    models: tuple[Path, ...] = Field(min_length=1, description="folders of the models, in order")
    data: Path = Field(description="folder of a data stage: its held-out side is measured")
    ngram_orders: tuple[int, ...] = Field(
        (3, 5), description="orders of the n-gram baselines counted over the training tokens"
    )
    bytes_per_source: int = Field(
        150_000, ge=2_048, description="held-out bytes read per source, at most"
    )
    questions: int = Field(300, ge=1, description="held-out items per set, at most")
    refusal_prompts: int = Field(60, ge=1, description="prompts answered for each refusal rate")
    threads: int | None = Field(None, ge=1, description="CPU threads (default: all cores)")
