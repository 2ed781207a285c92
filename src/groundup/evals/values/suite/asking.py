"""Asks a model the items of a task once: rows are cached and read again."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from math import isfinite
from pathlib import Path
from typing import Any

from groundup.evals.config import ValuesConfig
from groundup.evals.measure import Evaluated, Subject
from groundup.evals.values.suite.cache import RowCache, pack_hashes
from groundup.evals.values.suite.tasks import knows_world, named, of_world
from groundup.evals.values.task import Row, Task
from groundup.formats.adapter import model_hash
from groundup.report.estimate import BySource, Estimate
from groundup.runs.console import say


@dataclass(frozen=True)
class Asked:
    """The rows of one model and one task; `kept` if they came from the cache."""

    rows: Sequence[Row]
    seconds: float
    kept: bool


def count_of(task: Task, config: ValuesConfig) -> int:
    """The number of a task's items, at most."""
    if config.items is not None:
        return config.items
    return task.fast_count if config.fast else task.count


def hashed(on: Subject) -> str:
    """The hash of the model."""
    return model_hash(on.folder)


def in_world(on: Subject) -> bool:
    """Whether the model was trained on texts of the small world."""
    return knows_world(on.folder)


def asking(task: Task, cache: RowCache) -> Callable[[Subject], Asked | None]:
    """The measuring function of a task; it returns None if the task does not apply."""

    def measuring(on: Subject) -> Asked | None:
        # A task of the world is asked if it is named, whatever the model was trained on.
        foreign = of_world(task) and not named(task, on.config.tasks) and not on(in_world)
        if foreign or (task.chats and not on.chats):
            return None
        key = _key(task, on)
        begun = time.monotonic()
        rows = cache.read(key)
        if rows is not None:
            say(f"values  {task.name}: {len(rows)} items, kept from before")
            return Asked(rows, time.monotonic() - begun, True)
        # Convert as the cache does, so that numbers are the same with and without it.
        fresh = json.loads(json.dumps(list(task.ask(on, on.material[task.name]))))
        seconds = time.monotonic() - begun
        cache.write(key, fresh)
        say(f"values  {task.name}: {len(fresh)} items in {seconds:.1f} s")
        return Asked(fresh, seconds, False)

    return measuring


def _key(task: Task, on: Subject) -> dict[str, Any]:
    """Everything that the rows depend on."""
    return {
        "model": on(hashed),
        "task": task.name,
        "version": task.version,
        "packs": pack_hashes(task),
        "items": hash_of(on.material[task.name]),
        "count": count_of(task, on.config),
        "chats": on.chats,
        "context": on.context,
        "device": on.compute.device,
        "dtype": on.compute.dtype,
    }


def hash_of(items: Sequence[Any]) -> str:
    """The SHA-256 of items with all their fields, since some come from files users may edit."""
    return hashlib.sha256(json.dumps(list(items), default=_parts).encode()).hexdigest()


def _parts(item: Any) -> Any:
    """The fields of a dataclass; a check is represented by its name, its code by the version."""
    if callable(item):
        return item.__qualname__
    return {one.name: getattr(item, one.name) for one in fields(item)}


@dataclass(frozen=True)
class Valued:
    """A model with its rows, numbers and scores by the names of the tasks it was asked."""

    model: Evaluated
    asked: Mapping[str, Asked]
    numbers: Mapping[str, BySource]
    scores: Mapping[str, Estimate]

    @property
    def name(self) -> str:
        return self.model.name

    @property
    def parent(self) -> Path | None:
        """The folder of the model that it was trained from, if known."""
        return None if self.model.history is None else self.model.history.parent


def valued(
    model: Evaluated, tasks: Mapping[str, Task], measuring: Mapping[str, Callable[[Subject], Any]]
) -> Valued:
    """A model's numbers and scores; a task without a readable item counts as not asked."""
    asked: dict[str, Asked] = {}
    numbers: dict[str, BySource] = {}
    for name, function in measuring.items():
        found: Asked | None = model(function)
        if found is None or not found.rows:
            continue
        of_rows = finite(tasks[name].numbers(found.rows))
        if tasks[name].shown[0].name in of_rows:
            asked[name], numbers[name] = found, of_rows
    return Valued(
        model,
        asked,
        numbers,
        finite({name: tasks[name].score(one.rows) for name, one in asked.items()}),
    )


def finite(found: BySource) -> BySource:
    """The estimates that are finite: rows that all lack something may give none."""
    return {
        name: one
        for name, one in found.items()
        if all(map(isfinite, (one.estimate, one.low, one.high)))
    }
