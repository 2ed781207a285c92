"""The core suite's outputs: core.json, answers.jsonl, report.html, and a table in the terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from groundup.data.files import write_json_lines
from groundup.data.packs.manifest import find_set
from groundup.evals.benchmarks import (
    ALL,
    LONGEST_CONTEXT,
    MEASURES,
    prepare,
    questions,
    seen_before,
)
from groundup.evals.config import CoreConfig
from groundup.evals.core_sets import CORE_SETS
from groundup.evals.measure import Evaluated, from_json, of_models, renamed, to_json
from groundup.evals.suites import Suite, run_suite
from groundup.report.estimate import POOLED, BySource, Estimate
from groundup.report.page import PAGE, Block, Box, Page, Plots, write_page, written
from groundup.report.plots import interval_plot
from groundup.report.table import (
    Cell,
    Column,
    Row,
    Table,
    number,
    percent,
    plain,
    points,
    short_number,
)
from groundup.report.terminal import in_terminal
from groundup.runs.console import console, say
from groundup.runs.files import write_json
from groundup.runs.request import utc_now
from groundup.train.device import Compute

SCHEMA = 2
TEXT_TITLES = {POOLED: "all texts", "wiki": "Wikipedia", "boolq": "passages", "sotu": "speeches"}
SET_TITLES = {name: one.title for name, one in CORE_SETS.items()} | {ALL: "all questions"}


def write_core(
    folder: Path,
    config: CoreConfig,
    models: Sequence[Evaluated],
    compute: Compute,
    seconds: float,
) -> Callable[[], None]:
    """Write core.json, answers.jsonl and report.html; returns a function that prints the table."""
    content = core_json(config, models, compute, seconds)
    write_json(folder / "core.json", content)
    write_json_lines(folder / "answers.jsonl", _answer_lines(models))
    write_page(folder / PAGE, core_page(content))
    return lambda: say_table(content)


CORE = Suite(
    name="core",
    measures=MEASURES,
    also=(seen_before,),
    longest_context=LONGEST_CONTEXT,
    data=lambda config: {},
    prepare=prepare,
    write=write_core,
)


def run(config: CoreConfig) -> Path:
    """Measure `config.models`; returns the folder with core.json, answers.jsonl and the page.

    Raises `UserError` for missing models or data, and for a folder that cannot be written.
    """
    return run_suite(CORE, config)


def core_json(
    config: CoreConfig, models: Sequence[Evaluated], compute: Compute, seconds: float
) -> dict[str, Any]:
    """Every number of the suite; 95 % intervals resample whole groups of related questions."""
    accuracy, first = MEASURES[0], models[0]
    return {
        "schema": SCHEMA,
        "suite": "core",
        "created": utc_now(),
        "seconds": seconds,
        "compute": compute.to_json(),
        "settings": config.model_dump(mode="json"),
        "sets": {
            name: _set_json(name, found)
            for name, found in accuracy.of(first).items()
            if name != ALL
        },
        "models": {
            model.name: {
                "source": model.source,
                "stage": model.stage,
                "parameters": model.parameters,
                "context": model.context,
                "seconds": model.seconds,
                **{one.name: to_json(one.of(model)) for one in MEASURES},
                "familiar": [one.to_json() for one in model(seen_before)],
            }
            for model in models
        },
        "against_first": {
            model.name: to_json(accuracy.minus(model, first)) for model in models[1:]
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
        "license": pack.license,
        "citation": pack.citation,
    }


def _answer_lines(models: Sequence[Evaluated]) -> Iterator[dict[str, Any]]:
    """One line per question, with every model's log-probability of each option."""
    for i, row in enumerate(models[0](questions).rows):
        yield {
            "set": row.source,
            "prompt": row.prompt,
            "options": list(row.options),
            "answer": row.answer,
            "logprobs": {model.name: model(questions).sums[i].tolist() for model in models},
        }


# The page, built from core.json alone.


def core_page(content: dict[str, Any]) -> Page:
    """The page: questions answered right, held-out text, both ways to choose, and the method."""
    models = content["models"]
    accuracy, bits = of_models(content, "accuracy"), of_models(content, "bits_per_byte")
    ways = {
        f"{name}, {way}": from_json(model[way])
        for name, model in models.items()
        for way in ("acc", "acc_norm")
    }
    sets = [
        Row(
            one["title"], [Cell(one["task"]), Cell(one["license"]), Cell("", one["citation"] + ".")]
        )
        for one in content["sets"].values()
    ]
    columns = ("the harness’s task", "license", "citation")
    share, unit = "share of questions answered right, %", "bits per byte, less is better"
    plots = [
        interval_plot("Six benchmarks", share, renamed(accuracy, SET_TITLES), True),
        interval_plot("Held-out text", unit, renamed(bits, TEXT_TITLES), False),
    ]
    against = (
        "With so few questions per set, the last rows, which compare two models question by "
        "question (in points), tell them apart far better than two intervals do. "
    )
    return written(
        Path(__file__).with_suffix(".md").read_text(encoding="utf-8"),
        f"groundup core suite: {', '.join(models)}",
        {
            "accuracy": [question_table(content)],
            "plots": [Plots(plots)],
            "bits": [_table_of(bits, TEXT_TITLES, number)],
            "ways": [_table_of(ways, SET_TITLES, percent)],
            "sets": [Table([Column(one, words=True) for one in columns], sets, corner="set")],
        },
        content
        | {
            "count": f"{len(models)} {'model' if len(models) == 1 else 'models'}",
            "questions": f"{next(iter(accuracy.values()))[ALL].items:,}",
            "against": against if content["against_first"] else "",
        },
        opening=_notes(content),
    )


def question_table(content: Mapping[str, Any]) -> Table:
    """Models as rows, sets as columns; then guessing, and differences from the first model."""
    accuracy = of_models(content, "accuracy")
    first = next(iter(accuracy.values()))
    columns = [
        Column(one["title"], f"{one['questions']} questions, {one['measure']}")
        for one in content["sets"].values()
    ]
    columns.append(Column(SET_TITLES[ALL], f"{first[ALL].items}"))
    rows = []
    for name, found in accuracy.items():
        model = content["models"][name]
        size = f"{model['stage']}, {short_number(model['parameters'])}"
        rows.append(Row(name, [percent(one) for one in found.values()], size))
    guessing = [plain(one.chance or 0.0, as_percent=True) for one in first.values()]
    rows.append(Row("guessing", guessing, base=True))
    rows += [
        Row(
            f"{name} against {next(iter(accuracy))}",
            [points(one) for one in from_json(found).values()],
        )
        for name, found in content["against_first"].items()
    ]
    return Table(columns, rows, corner="model")


def _notes(content: Mapping[str, Any]) -> list[Block]:
    """What is known about the models' training data, and for which models."""
    found: dict[str, list[str]] = {}
    for name, model in content["models"].items():
        for one in model["familiar"]:
            rows = sum(one["rows"].values())
            counted = f" ({rows:,} training rows)" if rows else ""
            found.setdefault(f"{one['message']}{counted}", []).append(name)
    if not found:
        return []
    title = "**Read this first.** What these models were trained on, according to their runs:"
    return [Box(title, [f"**{', '.join(names)}**: {said}." for said, names in found.items()])]


def _table_of(
    rows: Mapping[str, BySource],
    titles: Mapping[str, str],
    shown: Callable[[Estimate], Cell],
) -> Table:
    """Models as rows, what they were measured on as columns."""
    parts = list(next(iter(rows.values())))
    return Table(
        [Column(titles.get(part, part)) for part in parts],
        [
            Row(name, [shown(found[part]) if part in found else None for part in parts])
            for name, found in rows.items()
        ],
        corner="model",
    )


# The terminal.


def say_table(content: Mapping[str, Any]) -> None:
    """Print sets as rows and models as columns: estimates with their intervals, in percent."""
    accuracy, bits = of_models(content, "accuracy"), of_models(content, "bits_per_byte")
    rows = []
    for name, one in next(iter(accuracy.values())).items():
        assert one.chance is not None
        cells = [Cell(f"{one.items}"), Cell(f"{100 * one.chance:.1f}")]
        for of_model in (found[name] for found in accuracy.values()):
            share, low, high = (100 * x for x in (of_model.estimate, of_model.low, of_model.high))
            cells.append(Cell(f"{share:.1f} [{low:.0f} – {high:.0f}]"))
        rows.append(Row(SET_TITLES[name], cells))
    blank = Cell("")
    shown = [Cell(f"{found[POOLED].estimate:.3f}") for found in bits.values()]
    rows.append(Row("bits per byte", [blank, blank, *shown]))
    columns = [Column(name) for name in ("questions", "guessing", *accuracy)]
    console.print(in_terminal(Table(columns, rows)))
    # Printed last, so that it is seen; a run that led to several models is named once.
    messages = (one["message"] for model in content["models"].values() for one in model["familiar"])
    for message in dict.fromkeys(messages):
        say(f"Note: {message}.")
