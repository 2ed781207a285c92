"""The stage `lm-eval`: tasks of the lm-evaluation-harness on models from anywhere.

Writes harness.json, with the harness's results for every task, and samples.jsonl, question by
question. Tasks named `groundup_…` are first written as files in the harness's own format, so that
the harness itself can run the very same questions anywhere.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from groundup.data.files import write_json_lines
from groundup.evals.config import HarnessConfig
from groundup.evals.core_sets import CORE_SETS, core_questions
from groundup.evals.harness import GroundupLM, evaluate_tasks, penalty_of, task_files
from groundup.evals.models import compute_of, located
from groundup.formats.load import load
from groundup.report.table import Cell, Column, Row, Table
from groundup.report.terminal import in_terminal
from groundup.runs.console import console, say
from groundup.runs.files import write_json, write_text
from groundup.runs.folder import Run
from groundup.runs.request import utc_now
from groundup.text.rows import Choice
from groundup.train.device import prepare, restoring_torch

SCHEMA = 1
PREFIX = "groundup_"


@restoring_torch()
def run(config: HarnessConfig) -> Path:
    """Run `config.tasks` on `config.models` and return the folder with harness.json.

    Raises `UserError` for missing models and unknown tasks.
    """
    paths = {model.name: model.path for model in located(config.models)}
    asked = {f"task file {path}": path for path in task_files(config.tasks, config.include)}
    with Run.open(config.out, "lm-eval", config, paths | asked) as run:
        if run.finished:
            return run.folder
        begun = time.monotonic()
        compute = compute_of(config)
        if run.resolved(dict) is None:
            run.plan({"compute": compute.to_json()})
        include = [] if config.include is None else [config.include]
        local = [task for task in config.tasks if task.removeprefix(PREFIX) in CORE_SETS]
        if local:
            include.append(write_tasks(run.folder / "tasks", local))
        found = {}
        for name, path in paths.items():
            model, tokenizer = load(path)
            prepare(model, compute)
            found[name] = evaluate_tasks(
                GroundupLM(model, tokenizer, name=name, repetition_penalty=penalty_of(path)),
                config.tasks,
                include=include,
                limit=config.limit,
                examples=config.examples,
                chat=config.chat,
            )
            say(f"lm-eval  {name} measured after {time.monotonic() - begun:.0f} s")
        _write(run.folder, config, found, compute.to_json(), time.monotonic() - begun)
        run.finish(seconds=time.monotonic() - begun)
        _say_table({name: one["results"] for name, one in found.items()})
        return run.folder


def write_tasks(folder: Path, names: Sequence[str]) -> Path:
    """Write the core suite's sets as task files with all their held-out questions."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = core_questions(10**9)
    for name in names:
        source = name.removeprefix(PREFIX)
        write_task(folder, name, [row for row in rows if row.source == source])
    return folder


def write_task(folder: Path, name: str, rows: Sequence[Choice]) -> Path:
    """Write one task file, `NAME.yaml`, and its questions, `NAME.jsonl`."""
    write_json_lines(folder / f"{name}.jsonl", rows)
    task = {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str((folder / f"{name}.jsonl").absolute())}},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "{{prompt}}",
        "doc_to_choice": "{{options}}",
        "doc_to_target": "answer",
        "metric_list": [
            {"metric": metric, "aggregation": "mean", "higher_is_better": True}
            for metric in ("acc", "acc_norm")
        ],
        "metadata": {"version": 1.0},
    }
    path = folder / f"{name}.yaml"
    write_text(path, yaml.safe_dump(task, sort_keys=False))
    return path


def _write(
    folder: Path,
    config: HarnessConfig,
    found: Mapping[str, Mapping[str, Any]],
    compute: Mapping[str, Any],
    seconds: float,
) -> None:
    """Write the harness's numbers unchanged; what is not JSON, such as a function, as its name."""
    kept = ("results", "configs", "versions", "n-shot", "n-samples")
    content = {
        "schema": SCHEMA,
        "suite": "lm-eval",
        "created": utc_now(),
        "seconds": seconds,
        "compute": compute,
        "settings": config.model_dump(mode="json"),
        "models": {
            name: {key: one[key] for key in kept if key in one} for name, one in found.items()
        },
    }
    write_json(folder / "harness.json", json.loads(json.dumps(content, default=str)))
    lines = (
        {"model": name, "task": task, **json.loads(json.dumps(sample, default=str))}
        for name, one in found.items()
        for task, samples in one.get("samples", {}).items()
        for sample in samples
    )
    write_json_lines(folder / "samples.jsonl", lines)


def _say_table(results: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> None:
    """Print tasks and measures as rows and models as columns, with standard errors."""
    rows = []
    for task, measures in next(iter(results.values())).items():
        for key, value in measures.items():
            metric, _, kind = key.partition(",")
            if metric.endswith("_stderr") or not isinstance(value, int | float) or not kind:
                continue
            error = f"{metric}_stderr,{kind}"
            cells = [
                Cell(_with_error(of_model[task][key], of_model[task].get(error)))
                for of_model in results.values()
            ]
            rows.append(Row(task, [Cell(metric), *cells]))
    columns = [Column("measure", words=True), *(Column(name) for name in results)]
    console.print(in_terminal(Table(columns, rows, corner="task")))


def _with_error(value: float, error: object) -> str:
    return f"{value:.4f} ± {error:.4f}" if isinstance(error, float) else f"{value:.4f}"
