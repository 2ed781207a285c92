"""The report: every number in report.json, and one page for people, report.html.

The page needs nothing but itself: plots are inside, fonts are the reader's own, and whatever a
model or a data set says stands there as text, never as markup.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from groundup.evals import honesty, plots
from groundup.evals.aims import AIMS
from groundup.evals.choice import ChoiceCalibration, commonest_answer
from groundup.evals.config import EvalConfig
from groundup.evals.fairness import ANSWER, TEXT, planted
from groundup.evals.findings import Finding, findings, passing
from groundup.evals.history import Curve, History
from groundup.evals.measured import POOLED, WORLD, BySource, Measured
from groundup.evals.pages import page_environment, write_page
from groundup.evals.perplexity import BYTES_ON_THE_WAY
from groundup.evals.plots import Plot
from groundup.evals.preference import length_margins, preference_accuracy
from groundup.evals.run import Evaluated
from groundup.evals.world import commonest_judged
from groundup.runs.files import read_json_object, write_json
from groundup.train.device import Compute

SCHEMA = 1
# Points of a curve kept in report.json; a run's metrics.jsonl has all of them.
_CURVE_POINTS = 400

# Where a set is one half of a well-known benchmark, its name says so.
_SET_NAMES = {
    "siqa": "SIQA (held-out half)",
    "commonsenseqa": "CommonsenseQA (held-out half)",
    "openbookqa": "OpenBookQA (held-out half)",
    "piqa": "PIQA (held-out half)",
    "boolq": "BoolQ (held-out half)",
    "harm": "less against more harmful",
    "harm-refusal": "refusal against harmful",
}
# As text to read, BoolQ is passages of Wikipedia and no benchmark.
_TEXT_NAMES = {"boolq": "boolq passages"}


def write_report(
    folder: Path,
    config: EvalConfig,
    models: Sequence[Evaluated],
    compute: Compute,
    seconds: float,
) -> None:
    """Write report.json and report.html into `folder`."""
    tested = findings(models)
    content = report_json(config, models, tested, compute, seconds)
    write_json(folder / "report.json", content)
    write_page(folder, report_html(content, models, tested))


# Numbers.


def report_json(
    config: EvalConfig,
    models: Sequence[Evaluated],
    tested: Sequence[Finding],
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
            for name, orders in passing(models).items()
        },
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
        "refusal_rate": _json(model.refusals),
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
        found["commonest_answer"] = _json(commonest_answer(model.material.choices.rows))
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
        "commonest_answer": _json(commonest_judged(world).accuracy()) if world.rows else {},
    }


def _one_of_each_material(models: Sequence[Evaluated]) -> list[Evaluated]:
    return list({id(model.material): model for model in reversed(models)}.values())[::-1]


def _json(by_source: Mapping[str, Measured | ChoiceCalibration]) -> dict[str, Any]:
    return {source: measured.to_json() for source, measured in by_source.items()}


def _curves_json(history: History) -> dict[str, Any]:
    curves = [history.loss(), history.learning_rate(), history.heldout()]
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


# The page.


def report_html(
    content: Mapping[str, Any], models: Sequence[Evaluated], tested: Sequence[Finding]
) -> str:
    """The page, made of the numbers of report.json alone, beside its plots."""
    environment = page_environment()
    set_names, text_names = _names(content)
    environment.filters["set_name"] = lambda source: set_names.get(source, source)
    environment.filters["text_name"] = lambda source: text_names.get(source, source)
    environment.filters["settings"] = _settings
    template = environment.get_template("report.html.jinja")
    return template.render(
        report=content,
        models=content["models"],
        ngrams=_shared_ngrams(content),
        findings=tested,
        plots=_plots(content, models),
        gaps=_gaps(content),
        aims=[aim for aim in AIMS if any(aim.of(m["world"]) for m in content["models"].values())],
        honest=honesty.table(content["models"]),
        curve_bytes=BYTES_ON_THE_WAY,
        data=content["data"],
        leaks=_leaks_by_check(content["leaks"]),
        verified=_verified(content),
        total_minutes=sum(m["costs"].get("minutes", 0.0) for m in content["models"].values()),
    )


def _names(content: Mapping[str, Any]) -> tuple[dict[str, str], dict[str, str]]:
    """What sets of questions and sources of text are called on the page."""
    pooled = {POOLED: "pooled"}
    if content["world"] is not None:
        pooled = {POOLED: "real, pooled", WORLD: "world, pooled"}
    return _SET_NAMES | pooled, _TEXT_NAMES | pooled


def _shared_ngrams(content: Mapping[str, Any]) -> dict[str, Any]:
    """N-gram rows by name; with several tokenizers the model that they belong to is named too."""
    of_models = content["baselines"]["ngrams"]
    if len(of_models) == 1:
        return dict(next(iter(of_models.values())))
    return {
        f"{order} ({name}'s tokens)": row
        for name, orders in of_models.items()
        for order, row in orders.items()
    }


def _verified(content: Mapping[str, Any]) -> dict[str, list[dict[str, str] | None]]:
    """For each check what it found of every model, in the models' order."""
    by_model = [
        {check["name"]: check for check in model["verified"]}
        for model in content["models"].values()
    ]
    names = dict.fromkeys(name for checks in by_model for name in checks)
    return {name: [checks.get(name) for checks in by_model] for name in names}


def _plots(content: Mapping[str, Any], models: Sequence[Evaluated]) -> dict[str, list[Plot]]:
    bits = {name: model["bits_per_byte"] for name, model in content["models"].items()}
    set_names, text_names = _names(content)
    drawn: dict[str, list[Plot]] = {"bits": [], "choices": [], "preferences": []}
    rows = {name: _measured(row) for name, row in (bits | _shared_ngrams(content)).items()}
    drawn["bits"].append(
        plots.interval_plot(
            "Held-out text", "bits per byte, less is better", _renamed(rows, text_names), False
        )
    )
    for key, title, accuracies in (
        ("choices", "Multiple choice", {"": "choice_accuracy"}),
        (
            "preferences",
            "Preferences",
            {"": "preference_accuracy", ", implicit reward": "implicit_reward_accuracy"},
        ),
    ):
        rows = {
            name + suffix: _measured(model[accuracy])
            for name, model in content["models"].items()
            for suffix, accuracy in accuracies.items()
            if model[accuracy]
        }
        if rows:
            rows = _renamed(rows, set_names)
            drawn[key].append(plots.interval_plot(title, "accuracy", rows, True))
    calibrated = {m.name: m.choice.calibration[POOLED].curve for m in models if m.choice}
    if calibrated:
        drawn["choices"].append(plots.calibration_plot("Calibration", calibrated))
    drawn["fairness"] = _fairness_plots(content)
    drawn["curves"] = _curve_plots(models)
    return drawn


def _gaps(content: Mapping[str, Any]) -> list[str]:
    """Names of all gaps that any of the models has."""
    found = (model["fairness"].get("gaps", {}) for model in content["models"].values())
    return list(dict.fromkeys(name for gaps in found for name in gaps))


def _fairness_plots(content: Mapping[str, Any]) -> list[Plot]:
    """P(she) of every job, in each way that models were asked."""
    drawn = []
    for way in (TEXT, ANSWER):
        measured = {
            name: model["fairness"]["subjects"][way]
            for name, model in content["models"].items()
            if way in model["fairness"].get("subjects", {})
        }
        if measured:
            title = f"A woman or a man? Asked {way}"
            drawn.append(
                plots.leaning_plot(title, "P(she)", content["world"]["planted"]["jobs"], measured)
            )
    return drawn


def _curve_plots(models: Sequence[Evaluated]) -> list[Plot]:
    drawn = []
    trained = {model.name: model for model in models if model.history and model.history.train}
    for name, model in trained.items():
        assert model.history is not None
        heldout = model.history.heldout()
        if heldout is not None and model.stage == "pretrain":
            levels = {f"{n}-gram": one.on_the_way for n, one in model.material.ngrams.items()}
            drawn.append(plots.heldout_plot(f"{name}: held-out text", heldout, levels))
        # Only fine-tuning on nothing but answers measures the very loss that it trains on.
        weighted = model.history.setting("prompt_weight") or 0
        comparable = heldout if model.stage == "sft" and not weighted else None
        drawn.append(plots.loss_plot(f"{name}: loss", model.history.loss(), comparable))
        if heldout is not None and model.stage == "dpo":
            drawn.append(plots.heldout_plot(f"{name}: preferences", heldout, {"chance": 0.5}))
    rates = {n: m.history.learning_rate() for n, m in trained.items() if m.history is not None}
    return [*drawn, plots.rate_plot(rates)] if rates else drawn


def _measured(row: Mapping[str, Mapping[str, Any]]) -> BySource:
    return {source: Measured(**facts) for source, facts in row.items()}


def _renamed(rows: Mapping[str, BySource], names: Mapping[str, str]) -> dict[str, BySource]:
    return {
        name: {names.get(source, source): found for source, found in row.items()}
        for name, row in rows.items()
    }


def _leaks_by_check(leaks: Mapping[str, Any] | None) -> dict[str, dict[str, int]]:
    """How much each check found in all training sets together, and how much is left."""
    found: dict[str, dict[str, int]] = {}
    for one in leaks["checks"] if leaks else ():
        sums = found.setdefault(one["check"], {"found": 0, "left": 0})
        sums["found"] += one["found"]
        sums["left"] += one["left"]
    return found


def _settings(config: Mapping[str, Any]) -> str:
    """A run's settings in one line, folders by their last name: a report may be shown around."""

    def shown(value: object) -> str:
        if isinstance(value, list):
            return "[" + ", ".join(map(shown, value)) + "]"
        text = str(value)
        return Path(text).name if isinstance(value, str) and "/" in text else text

    return ", ".join(
        f"{name}={shown(value)}" for name, value in config.items() if value is not None
    )
