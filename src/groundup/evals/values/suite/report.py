"""The values suite: from settings to report.json, rows.jsonl, report.html and a terminal table."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from groundup.data.files import write_json_lines
from groundup.data.packs.manifest import find_pack
from groundup.errors import UserError
from groundup.evals.benchmarks import LONGEST_CONTEXT, seen_before
from groundup.evals.config import ValuesConfig
from groundup.evals.measure import Evaluated, Subject, to_json
from groundup.evals.suites import Prepared, Suite, run_suite
from groundup.evals.values import judges
from groundup.evals.values.fairness.counterfactual import own_tasks
from groundup.evals.values.suite.asking import (
    Asked,
    Valued,
    asking,
    count_of,
    hashed,
    in_world,
    valued,
)
from groundup.evals.values.suite.axes import axes_of, axis_change
from groundup.evals.values.suite.cache import RowCache, pack_hashes
from groundup.evals.values.suite.changes import (
    claims,
    differences,
    distances,
    most_changed,
    pairs,
)
from groundup.evals.values.suite.page import say_table, values_page
from groundup.evals.values.suite.seen import seeing
from groundup.evals.values.suite.tasks import chosen, in_axis, judge_of, of_world
from groundup.evals.values.suite.wins import reward_wins, vote_wins
from groundup.evals.values.task import Task
from groundup.report.claim import Claim
from groundup.report.estimate import BySource
from groundup.report.page import PAGE, write_page
from groundup.runs.cache import cache_folder
from groundup.runs.files import write_json
from groundup.runs.request import utc_now
from groundup.train.device import Compute

SCHEMA = 1
REPORT, ROWS = "report.json", "rows.jsonl"
Measuring = Mapping[str, Callable[[Subject], Asked | None]]


def run(config: ValuesConfig) -> Path:
    """Measure `config.models` and return the folder with the page, all numbers and all rows.

    Raises `UserError` for unknown tasks, missing models or data, too few items, and a folder that
    cannot be written.
    """
    own = () if config.swaps is None else own_tasks(config.swaps)
    tasks = chosen(config.tasks, noncommercial=config.noncommercial, own=own)
    wins = [
        *([] if config.comparison is None else reward_wins(config.comparison)),
        *([] if config.votes is None else vote_wins(config.votes)),
    ]
    return run_suite(values_suite(tasks, config, wins), config)


def values_suite(
    tasks: Sequence[Task], config: ValuesConfig, wins: Sequence[Mapping[str, Any]] = ()
) -> Suite:
    """A suite with a measuring function for each task, whose rows are cached."""
    cache = RowCache(config.cache or cache_folder() / "values")
    measuring: Measuring = {task.name: asking(task, cache) for task in tasks}
    seen = seeing(cache)

    def prepare(config: ValuesConfig, models: Sequence[Path], compute: Compute) -> Prepared:
        # The items of every task by name, the same for all models.
        material = {task.name: task.items(count_of(task, config)) for task in tasks}
        _check_items(tasks, material, config)
        plan = {
            task.name: {"version": task.version, "items": len(material[task.name])}
            for task in tasks
        }
        return Prepared({"tasks": plan}, lambda folder, tokenizer, context: material)

    def write(
        folder: Path,
        config: ValuesConfig,
        models: Sequence[Evaluated],
        compute: Compute,
        seconds: float,
    ) -> Callable[[], None]:
        by_name = {task.name: task for task in tasks}
        found = [valued(model, by_name, measuring) for model in models]
        asked = [task for task in tasks if any(task.name in one.asked for one in found)]
        tested = claims(asked, found)
        content = values_json(config, asked, found, tested, wins, compute, seconds)
        for one in found:
            content["models"][one.name]["seen"] = one.model(seen)
        write_json(folder / REPORT, content)
        write_json_lines(folder / ROWS, _row_lines(found))
        write_page(folder / PAGE, values_page(content, tested))
        return lambda: say_table(content, tested)

    return Suite(
        name="values",
        measures=(),
        also=(hashed, in_world, seen_before, *measuring.values(), seen),
        longest_context=LONGEST_CONTEXT,
        data=_sources,
        prepare=prepare,
        write=write,
        unpack=True,
    )


def _check_items(
    tasks: Sequence[Task], material: Mapping[str, Sequence[Any]], config: ValuesConfig
) -> None:
    """Refuse a number of items smaller than the blocks in which a task asks."""
    least: dict[str, int] = {}
    for task in tasks:
        if not material[task.name]:
            more = range(count_of(task, config) + 1, task.count + 1)
            least[task.name] = next((count for count in more if task.items(count)), task.count)
    if least:
        asked = ", ".join(f"{name} asks in blocks of {count}" for name, count in least.items())
        raise UserError(f"{asked}: give --items={max(least.values())} or more")


def _sources(config: ValuesConfig) -> dict[str, Path]:
    given = {"comparison": config.comparison, "votes": config.votes, "swaps": config.swaps}
    return {name: path for name, path in given.items() if path is not None}


def _row_lines(models: Sequence[Valued]) -> Iterator[dict[str, Any]]:
    """Every row of every model, so that anyone can recompute the numbers."""
    for one in models:
        for name, asked in one.asked.items():
            for row in asked.rows:
                yield {"model": one.name, "task": name, **row}


# Numbers.


def values_json(
    config: ValuesConfig,
    tasks: Sequence[Task],
    models: Sequence[Valued],
    tested: Sequence[Claim],
    wins: Sequence[Mapping[str, Any]],
    compute: Compute,
    seconds: float,
) -> dict[str, Any]:
    """Every number of the report; 95 % intervals resample whole groups of related items."""
    settings = config.model_dump(mode="json")
    return {
        "schema": SCHEMA,
        "suite": "values",
        "created": utc_now(),
        "seconds": seconds,
        "compute": compute.to_json(),
        "settings": settings,
        "tasks": {task.name: _task_json(task, models) for task in tasks},
        "packs": {
            name: {"license": pack.license, "citation": pack.citation, "about": pack.about}
            for name in dict.fromkeys(name for task in tasks for name in task.packs)
            for pack in [find_pack(name)]
        },
        "models": {one.name: _model_json(tasks, one) for one in models},
        "changes": [_change_json(tasks, *pair) for pair in pairs(models)],
        "claims": [one.to_json() for one in tested],
        "judges": [
            one.to_json()
            for judge in dict.fromkeys(map(judge_of, tasks))
            if judge is not None
            for one in judges.measured(judge)
        ],
        "wins": list(wins),
    }


def _task_json(task: Task, models: Sequence[Valued]) -> dict[str, Any]:
    return {
        "title": task.title,
        "axis": task.axis,
        "world": of_world(task),
        "about": task.about,
        "limits": task.limits,
        "version": task.version,
        "packs": pack_hashes(task)
        | {name: None for name in task.packs if name not in pack_hashes(task)},
        "commercial": task.commercial,
        "judge": judge_of(task),
        "items": max(len(one.asked[task.name].rows) for one in models if task.name in one.asked),
        "numbers": [vars(number) for number in task.shown],
    }


def _model_json(tasks: Sequence[Task], one: Valued) -> dict[str, Any]:
    model = one.model
    return {
        "source": model.source,
        "stage": model.stage,
        "parent": None if one.parent is None else one.parent.name,
        "hash": model(hashed),
        "parameters": model.parameters,
        "chats": model.chats,
        "in_world": model(in_world),
        "seconds": model.seconds,
        "asked": {
            name: {"seconds": asked.seconds, "kept": asked.kept}
            for name, asked in one.asked.items()
        },
        "numbers": {name: to_json(found) for name, found in one.numbers.items()},
        "scores": to_json(one.scores),
        "axes": {kind: to_json(_axes(some, one)) for kind, some in kinds(tasks).items()},
        "familiar": [one.to_json() for one in model(seen_before)],
    }


def _axes(tasks: Sequence[Task], one: Valued) -> BySource:
    return axes_of(tasks, one.scores, {name: asked.rows for name, asked in one.asked.items()})


def kinds(tasks: Sequence[Task]) -> dict[str, list[Task]]:
    """Tasks of the small world, whose truth is known, and of real sets, which are never mixed.

    Tasks with a user's own prompts belong to neither.
    """
    found = {
        "world": [task for task in tasks if of_world(task)],
        "real": [task for task in tasks if not of_world(task) and in_axis(task)],
    }
    return {kind: some for kind, some in found.items() if some}


def _change_json(tasks: Sequence[Task], after: Valued, before: Valued) -> dict[str, Any]:
    """The differences of two models: axes, every number, and the items that changed most."""
    material = after.model.material
    axes = {}
    for kind, some in kinds(tasks).items():
        new, old = _axes(some, after), _axes(some, before)
        axes[kind] = {
            axis: axis_change(new[axis], old[axis]).to_json() for axis in new if axis in old
        }
    return {
        "model": after.name,
        "other": before.name,
        "axes": axes,
        "numbers": {
            task.name: to_json(found)
            for task in tasks
            if (found := differences(task, after, before))
        },
        "distances": {
            task.name: to_json(found) for task in tasks if (found := distances(task, after, before))
        },
        "items": [
            one.to_json()
            for task in tasks
            for one in most_changed(task, material[task.name], after, before)
        ],
    }
