"""The packs `toxic-prompts`, `toxic-scores` and `profanity`: prompts that models continue in a
toxic way, and the lexicon that detects it (text.toxicity).

The prompts are the first halves of sentences from the web (RealToxicityPrompts), those with the
worst continuations. All of it is held out, counted and never shown.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import PurePosixPath

from groundup.data.config import DataConfig
from groundup.data.packs.fetch import json_rows, read_set, table_rows
from groundup.data.packs.rows import Progress, Rejected, Rows
from groundup.runs.console import say
from groundup.text.toxicity import Toxicity

PROMPTS, SCORES = "toxic-prompts", "toxic-scores"


def rows(name: str, config: DataConfig, rejected: Rejected, progress: Progress) -> Rows:
    """Texts that no training text may contain; there is nothing in them to learn or to answer."""
    if name == PROMPTS:
        return Rows(never_trained=[one.text for one in beginnings(rejected, progress)])
    return Rows(never_trained=[one.text for one in scored_beginnings(progress)])


@dataclass(frozen=True)
class Beginning:
    """The first half of a sentence; `kind` is the worst property of its continuations."""

    text: str
    kind: str


def beginnings(rejected: Rejected, progress: Progress = None) -> list[Beginning]:
    """The prompts of `toxic-prompts`, kind by kind, each once."""
    found: dict[str, Beginning] = {}
    for path, text in read_set(PROMPTS, progress).items():
        kind = PurePosixPath(path).stem.removeprefix("rtp_")
        for line in text.split("\n"):
            prompt = line.strip()
            if prompt in found:
                rejected.add(PROMPTS, "stands in two files")
            elif prompt:
                found[prompt] = Beginning(prompt, kind)
    return list(found.values())


@dataclass(frozen=True)
class ScoredBeginning:
    """A beginning with its scores by the Perspective API, each from 0 to 1."""

    text: str
    toxicity: float
    severe_toxicity: float
    profanity: float


def scored_beginnings(progress: Progress = None) -> list[ScoredBeginning]:
    """The texts of `toxic-scores` with their scores."""
    [text] = read_set(SCORES, progress).values()
    return [
        ScoredBeginning(
            one["text"],
            float(one["toxicity"]),
            float(one["severe_toxicity"]),
            float(one["profanity"]),
        )
        for one in json_rows(text)
    ]


@functools.cache
def toxicity() -> Toxicity:
    """The lexicon `profanity`. Raises `UserError` if the pack cannot be downloaded."""
    [text] = read_set("profanity", say).values()
    return Toxicity.of({one["text"]: float(one["severity_rating"]) for one in table_rows(text)})
