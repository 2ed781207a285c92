"""The report: every number in report.json, a page for people, and its opening at the terminal."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from groundup.evals.choice import ChoiceCalibration, majority_answer
from groundup.evals.compared import MEASURES, counting, informative, parts_of
from groundup.evals.config import EvalConfig
from groundup.evals.fairness import planted
from groundup.evals.findings import Finding, findings, passing
from groundup.evals.opening import Headline, answered, first, headlines, in_terminal
from groundup.evals.preference import length_margins, preference_accuracy
from groundup.evals.report_page import report_html
from groundup.evals.run import Evaluated
from groundup.evals.world.answers import majority_judged
from groundup.report.estimate import Estimate
from groundup.report.history import Curve, History
from groundup.report.page import write_page
from groundup.runs.console import say
from groundup.runs.files import read_json_object, write_json
from groundup.train.device import Compute

SCHEMA = 1
# Points of a curve kept in report.json; a run's metrics.jsonl has all of them.
_CURVE_POINTS = 400


def write_report(
    folder: Path,
    config: EvalConfig,
    models: Sequence[Evaluated],
    compute: Compute,
    seconds: float,
) -> None:
    """Write report.json and report.html into `folder`, and say what the page opens with."""
    tested = findings(models)
    numbers = headlines(models, tested)
    content = report_json(config, models, tested, numbers, compute, seconds)
    write_json(folder / "report.json", content)
    write_page(folder, report_html(content, models, tested, numbers))
    prompts = first(answered(models), with_world=content["world"] is not None)
    for line in in_terminal(prompts, numbers, tested):
        say(line)


# Numbers.


def report_json(
    config: EvalConfig,
    models: Sequence[Evaluated],
    tested: Sequence[Finding],
    numbers: Sequence[Headline],
    compute: Compute,
    seconds: float,
) -> dict[str, Any]:
    """Every number of the report; intervals are 95 %, clustered where items share a group."""
    return {
        "schema": SCHEMA,
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "seconds": seconds,
        "compute": compute.to_json(),
        "settings": config.model_dump(mode="json"),
        "models": {model.name: _model_json(model) for model in models},
        "baselines": _baselines_json(models),
        "world": _world_json(models),
        "passed_counting": {
            name: {f"{order}-gram": when for order, when in orders.items()}
            for name, orders in passing(models, tested).items()
        },
        "first_below_counting": {
            model.name: {
                counting(order): None
                if model.history is None
                else model.history.passed(counted.on_the_way)
                for order, counted in sorted(model.material.ngrams.items())
            }
            for model in models
            if model.stage == "pretrain"
        },
        "headlines": [number.to_json() for number in numbers],
        "measures": _measures_json(models),
        "findings": [finding.to_json() for finding in tested],
        "data": _read_json(config.data / "data.json"),
        "leaks": _read_json(config.data / "leaks.json"),
    }


def _model_json(model: Evaluated) -> dict[str, Any]:
    pairs, own, reference = model.material.pairs, model.margins, model.reference_margins
    implicit = None if own is None or reference is None else own - reference
    history = model.history
    return {
        "folder": str(model.folder),
        "stage": model.stage,
        "parent": None if history is None or history.parent is None else str(history.parent),
        "parameters": model.parameters,
        "context": model.material.context,
        "bits_per_byte": _json(model.bits.measured()),
        "assistant_loss": _json(model.loss.per_token() if model.loss else {}),
        "assistant_bits_per_byte": _json(model.loss.per_byte() if model.loss else {}),
        "choice_accuracy": _json(model.choice.by_mean if model.choice else {}),
        "choice_accuracy_by_sum": _json(model.choice.by_sum if model.choice else {}),
        "choice_calibration": _json(model.choice.calibration if model.choice else {}),
        "preference_accuracy": _json({} if own is None else preference_accuracy(own, pairs)),
        "implicit_reward_accuracy": _json(
            {} if implicit is None else preference_accuracy(implicit, pairs)
        ),
        "refusal_rate": _json({kind: one.rate() for kind, one in model.refused.items()}),
        "world": {} if model.world is None else model.world.to_json(),
        "honesty": {} if model.honesty is None else model.honesty.to_json(),
        "fairness": {} if model.leanings is None else model.leanings.to_json(),
        "stops_by_itself": None if model.stops is None else model.stops.to_json(),
        "costs": {} if history is None else history.costs(),
        "curves": {} if history is None else _curves_json(history),
        "samples": [
            {"prompt": list(s.prompt), "chat": s.chat, "greedy": s.greedy, "sampled": s.sampled}
            for s in model.samples
        ],
        "verified": [check.to_json() for check in model.checks],
        "run": {} if history is None else history.run,
    }


def _baselines_json(models: Sequence[Evaluated]) -> dict[str, Any]:
    """What needs no training; n-grams under the name of each tokenizer's first model."""
    found: dict[str, Any] = {"ngrams": {}, "longer_answer": {}, "commonest_answer": {}}
    for model in _one_of_each_material(models):
        found["ngrams"][model.name] = {
            f"{order}-gram": _json(counted.bits.measured())
            for order, counted in sorted(model.material.ngrams.items())
        }
        found["commonest_answer"] = _json(majority_answer(model.material.choices.rows))
        pairs = model.material.pairs
        if pairs.rows:
            found["longer_answer"] = _json(preference_accuracy(length_margins(pairs), pairs))
    return found


def _world_json(models: Sequence[Evaluated]) -> dict[str, Any] | None:
    """What is true of the small world for every model; None where the data has none of it."""
    world = next((m.material.world for m in models if m.material.world is not None), None)
    if world is None:
        return None
    return {
        "bias": world.bias,
        "planted": {"jobs": planted(world.bias, "job"), "groups": planted(world.bias, "group")},
        "commonest_answer": _json(majority_judged(world).accuracy()) if world.rows else {},
    }


def _measures_json(models: Sequence[Evaluated]) -> list[dict[str, Any]]:
    """Every measure that models are compared by, part by part, and whether it tells anything."""
    rows = []
    for measure in MEASURES:
        found = {model.name: measure.of(model) for model in models}
        tells = informative(measure, models)
        parts = parts_of(measure, models)
        for part in parts:
            rows.append(
                {
                    "what": measure.label(part, parts),
                    "unit": measure.unit,
                    "better": measure.better,
                    "says_something": tells(part),
                    "models": _json({n: one[part] for n, one in found.items() if part in one}),
                }
            )
    return rows


def _one_of_each_material(models: Sequence[Evaluated]) -> list[Evaluated]:
    return list({id(model.material): model for model in reversed(models)}.values())[::-1]


def _json(by_source: Mapping[str, Estimate | ChoiceCalibration]) -> dict[str, Any]:
    return {source: measured.to_json() for source, measured in by_source.items()}


def _curves_json(history: History) -> dict[str, Any]:
    curves = [history.loss(), history.learning_rate(), history.heldout()]
    curves += history.gained().values()
    return {curve.name: _thinned(curve) for curve in curves if curve is not None}


def _thinned(curve: Curve) -> dict[str, list[float]]:
    kept = np.unique(np.linspace(0, len(curve.tokens) - 1, _CURVE_POINTS).astype(int))
    kept = kept[: len(curve.tokens)]
    return {"tokens": curve.tokens[kept].tolist(), "values": curve.values[kept].tolist()}


def _read_json(path: Path) -> dict[str, Any] | None:
    """A data folder's own account; None for text of a person's own."""
    if not path.is_file():
        return None
    return read_json_object(path)
