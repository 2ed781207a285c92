"""The tuning suite: report.json, the page, and the terminal output."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from groundup.evals.benchmarks import LONGEST_CONTEXT, seen_before
from groundup.evals.config import TuningReportConfig
from groundup.evals.domain.claims import claims, notes
from groundup.evals.domain.material import prepare
from groundup.evals.domain.measures import (
    LOSS,
    MEASURES,
    answers,
    general_questions,
    general_text,
    informative_measures,
    perplexity,
    samples,
    too_few,
    training_costs,
)
from groundup.evals.domain.page import curves_of, say_table, tuning_page, tuning_plots
from groundup.evals.measure import Evaluated, to_json
from groundup.evals.suites import Suite, run_suite
from groundup.report.claim import Claim
from groundup.report.page import (
    PAGE,
    write_page,
)
from groundup.runs.content import recorded_hashes
from groundup.runs.files import write_json
from groundup.runs.request import utc_now
from groundup.train.device import Compute

SCHEMA = 1


def write_tuning(
    folder: Path,
    config: TuningReportConfig,
    models: Sequence[Evaluated],
    compute: Compute,
    seconds: float,
) -> Callable[[], None]:
    """Write report.json and report.html; returns a function that prints the summary."""
    tested = claims(models, models[0].material.domain)
    content = tuning_json(config, models, tested, children_of(models), compute, seconds)
    write_json(folder / "report.json", content)
    write_page(folder / PAGE, tuning_page(content, tested, tuning_plots(models)))
    return lambda: say_table(content, tested)


def _data_folders(config: TuningReportConfig) -> dict[str, Path]:
    """The data sources that are on disk; the report depends on their bytes."""
    there = [at for at in config.data if at.exists()]
    return {f"data {place}" if place > 1 else "data": at for place, at in enumerate(there, start=1)}


TUNING = Suite(
    name="tuning",
    measures=MEASURES,
    also=(samples, seen_before, training_costs),
    longest_context=LONGEST_CONTEXT,
    data=_data_folders,
    prepare=prepare,
    write=write_tuning,
    unpack=True,
)


def run(config: TuningReportConfig) -> Path:
    """Measure `config.models` and return the folder with report.html and report.json.

    Raises `UserError` for missing models or data, and for a folder that cannot be written.
    """
    return run_suite(TUNING, config)


def children_of(models: Sequence[Evaluated]) -> dict[str, bool | None]:
    """Whether each tuned model was trained from the first one, by the hashes that runs record; None
    if a folder does not record it."""
    first = recorded_hashes(models[0].folder)
    found: dict[str, bool | None] = {}
    for model in models[1:]:
        began = None if model.history is None else model.history.run["parents"].get("model")
        found[model.name] = None if began is None else began.get("sha256") in first
    return found


# Numbers.


def tuning_json(
    config: TuningReportConfig,
    models: Sequence[Evaluated],
    tested: Sequence[Claim],
    children: Mapping[str, bool | None],
    compute: Compute,
    seconds: float,
) -> dict[str, Any]:
    """Every number of the report; 95 % intervals resample conversations, questions or blocks."""
    parent, *tuned = models
    domain, general = parent.material.domain, parent.material.general
    return {
        "schema": SCHEMA,
        "suite": "tuning",
        "created": utc_now(),
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
        "models": {model.name: _model_json(model, parent) for model in models},
        "against_parent": {model.name: _differences(model, parent) for model in tuned},
        "between": {
            f"{one.name} against {other.name}": _differences(one, other)
            for place, one in enumerate(tuned)
            for other in tuned[place + 1 :]
        },
        "shown": [measure.name for measure in informative_measures(models)],
        "unproven": [
            measure.name
            for measure in MEASURES
            if any(
                (change := measure.change(model, parent)) is not None
                and too_few(measure, change, domain) is not None
                for model in tuned
            )
        ],
        "verdicts": [{"about": one.what, "kind": one.mark, "text": one.claim} for one in tested],
        "notes": notes(models, children, domain),
    }


def _model_json(model: Evaluated, parent: Evaluated) -> dict[str, Any]:
    measured = {one.name: found for one in MEASURES if (found := one.estimate(model)) is not None}
    if LOSS.name in measured:
        measured["perplexity"] = perplexity(measured[LOSS.name])
    questions, loss = model(general_questions), model(answers)
    curves = None if model is parent else curves_of(model)
    return {
        "source": model.source,
        "parameters": model.parameters,
        "costs": model(training_costs).to_json(),
        "measures": to_json(measured),
        "question_accuracy": to_json(questions.accuracy(questions.main())),
        "text_bits_per_byte": to_json(model(general_text).measured()),
        "domain_bits_per_byte": {} if loss is None else to_json(loss.per_byte()),
        "curves": {one.name: one.to_json() for one in curves or () if one is not None},
        "samples": list(model(samples)),
        "familiar": [one.to_json() for one in model(seen_before)],
        "seconds": model.seconds,
        "cpu_seconds": model.cpu_seconds,
    }


def _differences(one: Evaluated, other: Evaluated) -> dict[str, Any]:
    """The differences in each measure, on the same items."""
    found = {measure.name: measure.change(one, other) for measure in MEASURES}
    return {name: change.to_json() for name, change in found.items() if change is not None}
