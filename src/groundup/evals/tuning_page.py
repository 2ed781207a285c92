"""What the tuning suite writes: report.json, one page, and a table at the terminal."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from groundup.evals.config import TuningReportConfig
from groundup.evals.core_page import TEXT_TITLES
from groundup.evals.core_sets import CORE_SETS
from groundup.evals.tuning import CONTEXT, SAMPLE_TOKENS, Tuned
from groundup.evals.tuning_facts import SET_ASIDE
from groundup.evals.tuning_material import Domain, General
from groundup.evals.tuning_measures import (
    MEASURES,
    Measure,
    perplexity,
    says_nothing,
    told,
    too_few,
)
from groundup.evals.tuning_plots import tuning_plots
from groundup.evals.tuning_verdicts import kind_of, notes, verdicts
from groundup.report.estimate import Estimate
from groundup.report.history import Curve
from groundup.report.page import page_environment, write_page
from groundup.report.plots import Plot, short_number
from groundup.runs.console import console, say
from groundup.runs.files import write_json
from groundup.train.device import Compute

SCHEMA = 1
# Points of a curve kept in report.json; a run's metrics.jsonl has all of them.
_CURVE_POINTS = 400
_DASH = "–"


def write_tuning(
    folder: Path,
    config: TuningReportConfig,
    models: Sequence[Tuned],
    domain: Domain,
    general: General,
    children: Mapping[str, bool | None],
    compute: Compute,
    seconds: float,
) -> dict[str, Any]:
    """Write report.json and report.html into `folder` and return what stands in the former."""
    content = tuning_json(config, models, domain, general, children, compute, seconds)
    write_json(folder / "report.json", content)
    write_page(folder, tuning_html(content, tuning_plots(models)))
    return content


# Numbers.


def tuning_json(
    config: TuningReportConfig,
    models: Sequence[Tuned],
    domain: Domain,
    general: General,
    children: Mapping[str, bool | None],
    compute: Compute,
    seconds: float,
) -> dict[str, Any]:
    """Every number of the report; intervals are 95 %, of whole conversations, questions, blocks."""
    parent, *tuned = models
    return {
        "schema": SCHEMA,
        "suite": "tuning",
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "seconds": seconds,
        "compute": compute.to_json(),
        "settings": config.model_dump(mode="json"),
        "domain": {
            "heldout_rows": 0 if domain.trained else domain.rows,
            "rows_trained_on": domain.rows if domain.trained else 0,
            "said_in_training": domain.known,
            "conversations": len(domain.conversations),
            "pieces_of_text": len(domain.documents),
            "reply_questions": len(domain.replies),
            "bad_lines": domain.bad,
            "duplicates": domain.duplicates,
        },
        "general": {"questions": len(general.questions), "pieces_of_text": len(general.texts)},
        "prompts": [asdict(prompt) for prompt in domain.prompts],
        "models": {model.name: _model_json(model) for model in models},
        "against_parent": {model.name: _differences(model, parent) for model in tuned},
        "between": {
            f"{one.name} against {other.name}": _differences(one, other)
            for place, one in enumerate(tuned)
            for other in tuned[place + 1 :]
        },
        "shown": [measure.key for measure in told(models)],
        "unproven": [
            measure.key
            for measure in MEASURES
            if any(
                (change := measure.minus(model, parent)) is not None
                and too_few(measure, change, domain) is not None
                for model in tuned
            )
        ],
        "verdicts": [asdict(one) for one in verdicts(models, domain)],
        "notes": notes(models, children, domain),
    }


def _model_json(model: Tuned) -> dict[str, Any]:
    measured = {one.key: found for one in MEASURES if (found := one.of(model)) is not None}
    if "loss" in measured:
        measured["perplexity"] = perplexity(measured["loss"])
    return {
        "source": model.source,
        "parameters": model.parameters,
        "costs": model.costs.to_json(),
        "measures": _json(measured),
        "question_accuracy": _json(model.answers.accuracy(model.answers.main())),
        "text_bits_per_byte": _json(model.texts.measured()),
        "domain_bits_per_byte": {} if model.loss is None else _json(model.loss.per_byte()),
        "curves": _curves(model),
        "samples": list(model.samples),
        "familiar": [one.to_json() for one in model.contamination],
        "seconds": model.seconds,
        "cpu_seconds": model.cpu_seconds,
    }


def _differences(one: Tuned, other: Tuned) -> dict[str, Any]:
    """Measure by measure what the first has more than the second, on the same items."""
    found = {measure.key: measure.minus(one, other) for measure in MEASURES}
    return {key: change.to_json() for key, change in found.items() if change is not None}


def _json(found: Mapping[str, Estimate]) -> dict[str, Any]:
    return {name: one.to_json() for name, one in found.items()}


def _curves(model: Tuned) -> dict[str, Any]:
    if model.history is None or not model.history.train:
        return {}
    curves = (model.history.loss(), model.history.heldout())
    return {curve.name: _thinned(curve) for curve in curves if curve is not None}


def _thinned(curve: Curve) -> dict[str, list[float]]:
    last = len(curve.tokens) - 1
    kept = np.unique(np.linspace(0, last, min(_CURVE_POINTS, last + 1)).astype(int))
    return {"tokens": curve.tokens[kept].tolist(), "values": curve.values[kept].tolist()}


# The page.


def tuning_html(content: Mapping[str, Any], plots: Sequence[Plot]) -> str:
    """The page, made of the numbers of report.json beside its plots."""
    template = page_environment().get_template("tuning.html.jinja")
    return template.render(
        report=content,
        models=content["models"],
        rows=_rows(content),
        costs=_costs(content),
        aside=_aside(content),
        plots=plots,
        questions=_questions(content),
        sets={name: one.title for name, one in CORE_SETS.items()} | {"all": "all questions"},
        texts=TEXT_TITLES,
        context=CONTEXT,
        sample_tokens=SAMPLE_TOKENS,
    )


def _rows(content: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The table of measures: for each one a cell of every model, with what changed beside it."""
    found = []
    for measure in MEASURES:
        there = any(measure.key in model["measures"] for model in content["models"].values())
        if there and measure.key in content["shown"]:
            found.append(_row(content, measure.key, measure.title, measure))
        if measure.key == "loss" and found:
            found.append(_row(content, "perplexity", "perplexity of a token", None))
    return found


def _questions(content: Mapping[str, Any]) -> list[str]:
    """The sets of questions that tell models apart: not all right, not all wrong, everywhere."""
    found = [model["question_accuracy"] for model in content["models"].values()]
    return [
        name
        for name in found[0]
        if not says_nothing([Estimate(**accuracy[name]) for accuracy in found])
    ]


def _row(
    content: Mapping[str, Any], key: str, title: str, measure: Measure | None
) -> dict[str, Any]:
    about = "domain" if measure is None else measure.about
    cells = [
        _cell(
            model["measures"].get(key),
            content["against_parent"].get(name, {}).get(key),
            measure,
            proven=key not in content["unproven"],
        )
        for name, model in content["models"].items()
    ]
    known = [m["measures"][key] for m in content["models"].values() if key in m["measures"]]
    return {"title": title, "about": about, "chance": known[0].get("chance"), "cells": cells}


def _cell(
    value: Mapping[str, Any] | None,
    change: Mapping[str, Any] | None,
    measure: Measure | None,
    *,
    proven: bool,
) -> dict[str, str] | None:
    if value is None:
        return None
    scale, digits, unit = _shape(measure)
    low, high = (f"{scale * value[end]:.{digits}f}" for end in ("low", "high"))
    cell = {
        "value": f"{scale * value['estimate']:.{digits}f}{unit}",
        "interval": f"{low} – {high}",
        "change": "",
        "kind": "",
    }
    if change is not None and measure is not None:
        points = [f"{scale * change[end]:+.{digits}f}" for end in ("estimate", "low", "high")]
        cell["change"] = "{} ({} to {})".format(*points)
        cell["kind"] = kind_of(Estimate(**change), measure) if proven else "open"
    return cell


def _shape(measure: Measure | None) -> tuple[int, int, str]:
    """How a number is written: its scale, its digits and its unit."""
    if measure is None:
        return 1, 1, ""
    return (100, 1, " %") if measure.unit == "share" else (1, 3, "")


def _costs(content: Mapping[str, Any]) -> list[tuple[str, list[str]]]:
    """What each model took, row by row; a dash is what its folder does not say."""
    models = list(content["models"].values())
    rows = {
        "trained": [_adapter(model["costs"]) for model in models],
        "trained parameters": [_trained(model) for model in models],
        "on disk": [_bytes(model["costs"]["disk_bytes"]) for model in models],
        "tokens trained on": [_counted(model["costs"]["tokens"]) for model in models],
        "tokens a second": [_counted(model["costs"]["tokens_per_second"]) for model in models],
        "minutes of training": [_minutes(model["costs"]["minutes"]) for model in models],
        "peak memory": [_bytes(model["costs"]["peak_memory_bytes"]) for model in models],
    }
    return list(rows.items())


def _adapter(costs: Mapping[str, Any]) -> str:
    shown = [
        name if value is True else f"{name} {value:g}" for name, value in costs["adapter"].items()
    ]
    return ", ".join([costs["method"], *shown])


def _trained(model: Mapping[str, Any]) -> str:
    count = model["costs"]["trained_parameters"]
    if count is None:
        return _DASH
    return f"{short_number(count)} ({100 * count / model['parameters']:.3g} %)"


def _bytes(size: int | None) -> str:
    if size is None:
        return _DASH
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"


def _counted(count: float | None) -> str:
    return _DASH if count is None else f"{count:,.0f}"


def _minutes(minutes: float | None) -> str:
    return _DASH if minutes is None else f"{minutes:.1f}"


def _aside(content: Mapping[str, Any]) -> list[tuple[str, list[str]]]:
    """What each run did not learn from; without what no run set aside."""
    models = list(content["models"].values())
    return [
        (title, [_counted(model["costs"]["set_aside"].get(name)) for model in models])
        for name, title in SET_ASIDE.items()
        if any(model["costs"]["set_aside"].get(name) for model in models)
    ]


# The terminal.


def say_table(content: Mapping[str, Any]) -> None:
    """Measures and costs down, models across: estimates, and below them what changed."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("")
    for name in content["models"]:
        table.add_column(name, justify="right")
    for row in _rows(content):
        chance = "" if row["chance"] is None else f" (guessing {100 * row['chance']:.1f} %)"
        cells = [_lines(cell) for cell in row["cells"]]
        table.add_row(f"{row['about']}: {row['title']}{chance}", *cells)
    for title, cells in _costs(content):
        table.add_row(title, *cells)
    console.print(table)
    for verdict in content["verdicts"]:
        say(f"{_MARKS[verdict['kind']]} {verdict['about']}: {verdict['text']}")
    for note in content["notes"]:
        say(f"Note: {note}.")


_MARKS = {"yes": "✓", "no": "✗", "open": "?"}


def _lines(cell: Mapping[str, str] | None) -> str:
    if cell is None:
        return _DASH
    return f"{cell['value']}\n{cell['change']}" if cell["change"] else cell["value"]
