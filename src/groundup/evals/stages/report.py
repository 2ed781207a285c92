"""The report of training stages: report.json, an HTML page, and a summary in the terminal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from groundup.evals.by_source import WORLD
from groundup.evals.choice import majority_answer
from groundup.evals.config import EvalConfig
from groundup.evals.fairness import planted
from groundup.evals.measure import Evaluated, informative, parts_of, to_json
from groundup.evals.preference import length_margins, preference_accuracy
from groundup.evals.stages.changed import changes
from groundup.evals.stages.claims import claims, passing
from groundup.evals.stages.material import measured_here, prepare
from groundup.evals.stages.measures import (
    MEASURES,
    assistant_words,
    choices,
    ended,
    endings,
    implicit_reward,
    leaning,
    preferences,
    reference,
    refusals,
    sampled,
    small_world,
    text,
    unknown,
    verified,
)
from groundup.evals.stages.opening import dialogues, first, headlines, in_terminal
from groundup.evals.stages.page import report_page
from groundup.evals.stages.triangle import axes
from groundup.evals.suites import Suite, run_suite
from groundup.evals.world.answers import majority_judged
from groundup.report.claim import Claim
from groundup.report.estimate import POOLED
from groundup.report.history import History
from groundup.report.page import PAGE, Headline, write_page
from groundup.runs.console import say
from groundup.runs.files import read_json_object, write_json
from groundup.runs.request import utc_now
from groundup.train.device import Compute

SCHEMA = 2


def write_report(
    folder: Path,
    config: EvalConfig,
    models: Sequence[Evaluated],
    compute: Compute,
    seconds: float,
) -> Callable[[], None]:
    """Write report.json and report.html; returns a function that prints the summary."""
    tested = claims(models)
    numbers = headlines(models, tested)
    content = report_json(config, models, tested, numbers, compute, seconds)
    write_json(folder / "report.json", content)
    write_page(folder / PAGE, report_page(content, models, tested, numbers))

    def conclude() -> None:
        prompts = first(dialogues(models), with_world=content["world"] is not None)
        for line in in_terminal(prompts, numbers, tested):
            say(line)
        say(f"eval  {folder / PAGE}")

    return conclude


REPORT = Suite(
    name="eval",
    measures=MEASURES,
    also=(refusals, reference, implicit_reward, unknown, sampled, verified),
    # Models from elsewhere may allow a hundred thousand tokens; this many tell as much.
    longest_context=1024,
    data=lambda config: {"data": config.data},
    prepare=prepare,
    write=write_report,
)


def run(config: EvalConfig) -> Path:
    """Measure `config.models` and return the folder with report.html and report.json.

    Raises `UserError` for missing models or data, and for a folder that cannot be written.
    """
    return run_suite(REPORT, config)


# Numbers.


def report_json(
    config: EvalConfig,
    models: Sequence[Evaluated],
    tested: Sequence[Claim],
    numbers: Sequence[Headline],
    compute: Compute,
    seconds: float,
) -> dict[str, Any]:
    """Every number of the report; 95 % intervals, clustered where items share a group."""
    return {
        "schema": SCHEMA,
        "created": utc_now(),
        "seconds": seconds,
        "compute": compute.to_json(),
        "settings": config.model_dump(mode="json"),
        "models": {model.name: _model_json(model) for model in models},
        "baselines": _baselines_json(models),
        "world": _world_json(models),
        "passed_counting": {
            name: {f"{order}-gram": when for order, when in orders.items()}
            for name, orders in passing(list(filter(measured_here, models)), tested).items()
        },
        "headlines": [number.to_json() for number in numbers],
        "measures": _measures_json(models),
        "changes": changes(models),
        "findings": [claim.to_json() for claim in tested],
        "data": _read_json(config.data / "data.json"),
        "leaks": _read_json(config.data / "leaks.json"),
    }


def _model_json(model: Evaluated) -> dict[str, Any]:
    history, loss, asked = model.history, model(assistant_words), model(choices)
    own, implicit = model(preferences), model(implicit_reward)
    world, honest, leans, stops = (
        model(small_world),
        model(unknown),
        model(leaning),
        model(endings),
    )
    pairs = model.material.pairs
    found = {
        "folder": str(model.folder),
        "stage": model.stage,
        "parent": None if history is None or history.parent is None else str(history.parent),
        "parameters": model.parameters,
        "chats": model.chats,
        "context": model.context,
        "bits_per_byte": to_json(model(text).measured()),
        "assistant_loss": to_json(loss.per_token() if loss else {}),
        "assistant_bits_per_byte": to_json(loss.per_byte() if loss else {}),
        "choice_accuracy": to_json(asked.by_mean if asked else {}),
        "choice_accuracy_by_sum": to_json(asked.by_sum if asked else {}),
        "choice_calibration": {
            name: one.to_json() for name, one in (asked.calibration if asked else {}).items()
        },
        "preference_accuracy": to_json(
            {} if own is None else preference_accuracy(own.margins, pairs)
        ),
        "implicit_reward_accuracy": to_json(
            {} if implicit is None else preference_accuracy(implicit, pairs)
        ),
        "refusal_rate": to_json({kind: one.rate() for kind, one in model(refusals).items()}),
        "world": {} if world is None else world.to_json(),
        "honesty": {} if honest is None else honest.to_json(),
        "fairness": {} if leans is None else leans.to_json(),
        "stops_by_itself": None if stops is None else ended(stops).to_json(),
        "costs": {} if history is None else history.costs(),
        "curves": {} if history is None else _curves_json(history),
        "samples": [
            {"prompt": list(s.prompt), "chat": s.chat, "greedy": s.greedy, "sampled": s.sampled}
            for s in model(sampled)
        ],
        "verified": [check.to_json() for check in model(verified)],
        "run": {} if history is None else history.run,
    }
    return found | {"axes": to_json(axes(found))}


def _baselines_json(models: Sequence[Evaluated]) -> dict[str, Any]:
    """The baselines that need no training; n-grams are named after each tokenizer's first model."""
    found: dict[str, Any] = {"ngrams": {}, "longer_answer": {}, "commonest_answer": {}}
    for model in _one_of_each_material(models):
        found["ngrams"][model.name] = {
            f"{order}-gram": to_json(counted.bits.measured())
            for order, counted in sorted(model.material.ngrams.items())
        }
        found["commonest_answer"] = to_json(majority_answer(model.material.choices.rows))
        pairs = model.material.pairs
        if pairs.rows:
            found["longer_answer"] = to_json(preference_accuracy(length_margins(pairs), pairs))
    return found


def _world_json(models: Sequence[Evaluated]) -> dict[str, Any] | None:
    """The facts of the small world, the same for every model; None if the data has none of it."""
    world = next((m.material.world for m in models if m.material.world is not None), None)
    if world is None:
        return None
    return {
        "bias": world.bias,
        "planted": {"jobs": planted(world.bias, "job"), "groups": planted(world.bias, "group")},
        "commonest_answer": to_json(majority_judged(world).accuracy()) if world.rows else {},
    }


def _measures_json(models: Sequence[Evaluated]) -> list[dict[str, Any]]:
    """Every measure by part, with all models' values and whether the part is informative."""
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
                    "models": to_json({n: one[part] for n, one in found.items() if part in one}),
                }
            )
    return rows


def _one_of_each_material(models: Sequence[Evaluated]) -> list[Evaluated]:
    return list({id(model.material): model for model in reversed(models)}.values())[::-1]


def _curves_json(history: History) -> dict[str, Any]:
    curves = [history.loss(), history.learning_rate(), history.heldout()]
    curves += history.gained((POOLED, WORLD)).values()
    return {curve.name: curve.to_json() for curve in curves if curve is not None}


def _read_json(path: Path) -> dict[str, Any] | None:
    """A data folder's own record; None for a user's own text."""
    if not path.is_file():
        return None
    return read_json_object(path)
