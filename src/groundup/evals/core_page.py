"""What the core suite writes: core.json, answers.jsonl, one page, and a table at the terminal."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from groundup.data.packs.manifest import find_set
from groundup.data.records import write_json_lines
from groundup.evals.config import CoreConfig
from groundup.evals.core import ALL, CoreResult
from groundup.evals.core_sets import CORE_SETS
from groundup.report import plots
from groundup.report.estimate import POOLED, Estimate
from groundup.report.page import page_environment, write_page
from groundup.runs.console import console, say
from groundup.runs.files import write_json
from groundup.train.device import Compute

SCHEMA = 1
TEXT_TITLES = {POOLED: "all texts", "wiki": "Wikipedia", "boolq": "passages", "sotu": "speeches"}


def write_core(
    folder: Path,
    config: CoreConfig,
    models: Sequence[CoreResult],
    compute: Compute,
    seconds: float,
) -> None:
    """Write core.json, answers.jsonl and report.html into `folder`."""
    content = core_json(config, models, compute, seconds)
    write_json(folder / "core.json", content)
    write_json_lines(folder / "answers.jsonl", _answer_lines(models))
    write_page(folder, core_html(content))


def core_json(
    config: CoreConfig, models: Sequence[CoreResult], compute: Compute, seconds: float
) -> dict[str, Any]:
    """Every number of the suite; intervals are 95 %, of whole groups where questions share one."""
    first = models[0]
    main = first.answers.accuracy(first.answers.main())
    return {
        "schema": SCHEMA,
        "suite": "core",
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "seconds": seconds,
        "compute": compute.to_json(),
        "settings": config.model_dump(mode="json"),
        "sets": {name: _set_json(name, found) for name, found in main.items() if name != ALL},
        "models": {model.name: _model_json(model) for model in models},
        "against_first": {
            model.name: {
                name: one.to_json() for name, one in model.answers.minus(first.answers).items()
            }
            for model in models[1:]
        },
    }


def _set_json(name: str, found: Estimate) -> dict[str, Any]:
    one, pack = CORE_SETS[name], find_set(name)
    return {
        "title": one.title,
        "task": one.task,
        "measure": one.measure,
        "questions": found.items,
        "heldout": "the half that never trains" if one.half else "all of it",
        "guessing": found.chance,
        "licence": pack.licence,
        "citation": pack.citation,
    }


def _model_json(model: CoreResult) -> dict[str, Any]:
    answers = model.answers
    by_measure = {
        measure: answers.accuracy(answers.credit(measure)) for measure in ("acc", "acc_norm")
    }
    return {
        "source": model.source,
        "stage": model.stage,
        "parameters": model.parameters,
        "context": model.context,
        "seconds": model.seconds,
        "accuracy": _json(answers.accuracy(answers.main())),
        "acc": _json(by_measure["acc"]),
        "acc_norm": _json(by_measure["acc_norm"]),
        "bits_per_byte": _json(model.bits.measured()),
        "familiar": [one.to_json() for one in model.contamination],
    }


def _json(found: Mapping[str, Estimate]) -> dict[str, Any]:
    return {name: one.to_json() for name, one in found.items()}


def _answer_lines(models: Sequence[CoreResult]) -> Iterator[dict[str, Any]]:
    """One line for each question, with what every model gave each of its options."""
    for i, row in enumerate(models[0].answers.rows):
        yield {
            "set": row.source,
            "prompt": row.prompt,
            "options": list(row.options),
            "answer": row.answer,
            "logprobs": {model.name: model.answers.sums[i].tolist() for model in models},
        }


# The page.


def core_html(content: Mapping[str, Any]) -> str:
    """The page, made of the numbers of core.json alone."""
    template = page_environment().get_template("core.html.jinja")
    return template.render(
        report=content,
        models=content["models"],
        sets=content["sets"],
        plots=[_accuracy_plot(content), _bits_plot(content)],
        notes=_notes(content),
        text_titles=TEXT_TITLES,
    )


def _notes(content: Mapping[str, Any]) -> dict[str, list[str]]:
    """What is to be known of the models' training, and which models it is true of."""
    found: dict[str, list[str]] = {}
    for name, model in content["models"].items():
        for one in model["familiar"]:
            rows = sum(one["rows"].values())
            counted = f" ({rows:,} training rows)" if rows else ""
            found.setdefault(f"{one['message']}{counted}", []).append(name)
    return found


def _accuracy_plot(content: Mapping[str, Any]) -> plots.Plot:
    titles = {name: facts["title"] for name, facts in content["sets"].items()}
    titles[ALL] = "all questions"
    rows = {
        name: {titles[key]: Estimate(**facts) for key, facts in model["accuracy"].items()}
        for name, model in content["models"].items()
    }
    return plots.interval_plot("Six benchmarks", "share of questions answered right", rows, True)


def _bits_plot(content: Mapping[str, Any]) -> plots.Plot:
    rows = {
        name: {
            TEXT_TITLES.get(key, key): Estimate(**facts)
            for key, facts in model["bits_per_byte"].items()
        }
        for name, model in content["models"].items()
    }
    return plots.interval_plot("Held-out text", "bits per byte, less is better", rows, False)


# The terminal.


def say_table(models: Sequence[CoreResult]) -> None:
    """Sets down, models across: the estimate with the ends of its interval, in per cent."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("")
    table.add_column("questions", justify="right")
    table.add_column("guessing", justify="right")
    for model in models:
        table.add_column(model.name, justify="right")
    found = [model.answers.accuracy(model.answers.main()) for model in models]
    for name, one in found[0].items():
        title = CORE_SETS[name].title if name in CORE_SETS else "all questions"
        assert one.chance is not None
        cells = [_per_cent(row[name]) for row in found]
        table.add_row(title, str(one.items), f"{100 * one.chance:.1f}", *cells)
    bits = [f"{model.bits.per_byte():.3f}" for model in models]
    table.add_row("bits per byte", "", "", *bits)
    console.print(table)
    # Last, where it is read: runs that led to several of the models are told of once.
    for message in dict.fromkeys(one.message for model in models for one in model.contamination):
        say(f"Note: {message}.")


def _per_cent(one: Estimate) -> str:
    return f"{100 * one.estimate:.1f} [{100 * one.low:.0f} – {100 * one.high:.0f}]"
