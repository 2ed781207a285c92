"""The pack `stereoset`: a stereotype, its opposite and nonsense, about one of 79 groups of people.

Only the development half is read; the other is the authors' test set. In an intrasentence item the
three sentences differ in a word or a few, in an intersentence item each follows a context.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from dataclasses import dataclass

from groundup.data.config import DataConfig
from groundup.data.packs.fetch import read_set
from groundup.data.packs.rows import Progress, Rejected, Rows
from groundup.runs.console import say


@dataclass(frozen=True)
class Triple:
    """Three sentences about a `target`; `context` precedes them, and is empty if `within`."""

    id: str
    within: bool
    target: str
    bias_type: str
    context: str
    stereotype: str
    anti_stereotype: str
    unrelated: str


def rows(name: str, config: DataConfig, rejected: Rejected, progress: Progress) -> Rows:
    """No rows: the set is only used for evaluation."""
    texts = {
        f"{one.context} {sentence}".strip(): None
        for one in triples()
        for sentence in (one.stereotype, one.anti_stereotype)
    }
    return Rows(never_trained=list(texts))


@functools.cache
def triples() -> Sequence[Triple]:
    """All items: the intrasentence ones, then the intersentence ones."""
    [text] = read_set("stereoset", say).values()
    data = json.loads(text)["data"]
    return [
        _triple(one, kind == "intrasentence")
        for kind in ("intrasentence", "intersentence")
        for one in data[kind]
    ]


def _triple(raw: dict[str, object], within: bool) -> Triple:
    sentences = raw["sentences"]
    assert isinstance(sentences, list)
    by_label = {str(one["gold_label"]): str(one["sentence"]).strip() for one in sentences}
    return Triple(
        id=str(raw["id"]),
        within=within,
        target=str(raw["target"]),
        bias_type=str(raw["bias_type"]),
        context="" if within else str(raw["context"]).strip(),
        stereotype=by_label["stereotype"],
        anti_stereotype=by_label["anti-stereotype"],
        unrelated=by_label["unrelated"],
    )
