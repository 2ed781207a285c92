"""What of a benchmark a model of ours has trained on, and so knows from elsewhere than the world.

The data stage cuts four benchmarks in half: one half trains, the other is held out. Questions of
one benchmark are much alike, so a model that was taught the other half has an advantage that a
published number of the whole benchmark does not have. The runs that led to a model name their data
folders, and a data folder names its sources. Of a model from elsewhere nothing is known.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from groundup.errors import UserError
from groundup.evals.core_sets import CORE_SETS
from groundup.report.history import History, lineage
from groundup.runs.files import is_count, read_json_object

# What a training stage may read of a data folder; of one that does not say it, that is all.
_KINDS = ("documents", "conversations", "preferences")


@dataclass(frozen=True)
class Contamination:
    """A run that trained on rows of sets of the suite, by set; without any, what is not known."""

    run: str
    stage: str
    rows: dict[str, int]
    message: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def contamination(model: Path) -> list[Contamination]:
    """What a model's lineage trained on of the core suite, in the order of the runs."""
    return [one for history in lineage(model) for one in _of_run(history)]


def _of_run(history: History) -> Iterator[Contamination]:
    """A run may have read several sources: data, data 2, …, and replay."""
    for name, described in history.run["parents"].items():
        if name.startswith(("data", "replay")):
            yield from _of_source(history, described)


def _of_source(history: History, described: Mapping[str, str]) -> Iterator[Contamination]:
    run, stage = history.folder.resolve().name, history.stage
    called = run if run == stage else f"{run} ({stage})"
    kinds = (history.reads,) if history.reads in _KINDS else _KINDS
    rows = _training_rows(history.beside(described["path"]), kinds)
    if rows is None:
        message = (
            f"{called} was trained on {described['path']}, which says nothing of its "
            "sources: whether questions of the suite are in there is not known"
        )
        yield Contamination(run, stage, {}, message)
        return
    # As documents, BoolQ's passages are articles of Wikipedia; none is of a test question.
    found = {} if kinds == ("documents",) else {n: rows[n] for n in CORE_SETS if rows[n]}
    halves = {name: count for name, count in found.items() if name != "boolq"}
    if halves:
        titles = " and ".join(
            ", ".join(CORE_SETS[name].title for name in part)
            for part in (list(halves)[:-1], list(halves)[-1:])
            if part
        )
        message = (
            f"{called} was trained on the other half of the test questions of {titles}: "
            "not comparable with published numbers"
        )
        yield Contamination(run, stage, halves, message)
    if "boolq" in found:
        message = (
            f"{called} was trained on BoolQ's own training questions: compare with "
            "published fine-tuned numbers, not with zero-shot ones"
        )
        yield Contamination(run, stage, {"boolq": found["boolq"]}, message)


def _training_rows(data: Path, kinds: tuple[str, ...]) -> Counter[str] | None:
    """How many rows of these kinds a data folder has for training, by source; None where it does
    not say."""
    try:
        counts = read_json_object(data / "data.json")["counts"]
        rows: Counter[str] = Counter()
        for kind in kinds:
            found = counts.get(f"{kind}/train", {}).get("by_source", {})
            if not all(map(is_count, found.values())):
                return None
            rows.update(found)
    except (UserError, KeyError, TypeError, AttributeError):
        return None
    return rows
