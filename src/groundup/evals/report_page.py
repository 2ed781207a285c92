"""The report's page, made of the numbers of report.json alone, beside its plots.

The page needs nothing but itself: plots are inside, fonts are the reader's own, and whatever a
model or a data set says stands there as text, never as markup.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from groundup.evals import honesty
from groundup.evals.compared import LONGER, MEASURES, informative, says_nothing
from groundup.evals.fairness import ANSWER, TEXT
from groundup.evals.findings import Finding, by_outcome
from groundup.evals.opening import Headline, answered, change_in_words, first
from groundup.evals.perplexity import BYTES_ON_THE_WAY
from groundup.evals.run import Evaluated
from groundup.evals.tables import (
    Cell,
    Column,
    Mark,
    Part,
    Row,
    Table,
    by_source,
    nothing_said,
    number,
    percent,
    plain,
)
from groundup.evals.world.aims import AIMS, Aim
from groundup.evals.world.answers import PARTS
from groundup.report import plots
from groundup.report.estimate import POOLED, WORLD, BySource, Estimate
from groundup.report.page import page_environment
from groundup.report.plots import Plot, short_number

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


_REWARDS = dict(
    zip(PARTS, ("in all", "correct", "instruction kept", "kind", "harmless"), strict=True)
)


def report_html(
    content: Mapping[str, Any],
    models: Sequence[Evaluated],
    tested: Sequence[Finding],
    numbers: Sequence[Headline],
) -> str:
    """The page, made of the numbers of report.json alone, beside its plots and samples."""
    environment = page_environment()
    environment.filters["settings"] = _settings
    environment.filters["headings"] = headings
    environment.filters["change"] = change_in_words
    prompts = answered(models)
    return environment.get_template("report.html.jinja").render(
        report=content,
        models=content["models"],
        prompts=prompts,
        first=first(prompts, with_world=content["world"] is not None),
        headlines=numbers,
        outcomes=by_outcome(tested),
        look=_in_one_look(models),
        tables=_tables(content),
        plots=_plots(content, models),
        passed=_passed_in_words(content, tested),
        curve_bytes=BYTES_ON_THE_WAY,
        data=content["data"],
        leaks=_leaks_by_check(content["leaks"]),
        verified=_verified(content),
        total_minutes=sum(m["costs"].get("minutes", 0.0) for m in content["models"].values()),
    )


def headings(body: str) -> list[tuple[str, str]]:
    """The anchors and titles of a body's sections, in order: its table of contents."""
    return re.findall(r'<h2 id="([^"]+)">([^<]+)</h2>', body)


# Tables.


def _in_one_look(models: Sequence[Evaluated]) -> Table:
    """The measures that a person asks for first, with what needs no training below each."""
    rows, left_out = [], []
    for measure in (one for one in MEASURES if one.in_one_look):
        found = [measure.of(model) for model in models]
        beside = measure.beside(models[0])
        tells = informative(measure, models)
        parts = [part for part in (POOLED, WORLD) if any(part in one for one in found)]
        for part in parts:
            title = measure.label(part, parts)
            having = [one[part] for one in found if part in one]
            if not tells(part):
                left_out.append(nothing_said(title, having))
                continue
            shown = percent if measure.share else number()
            baselines = {name: one[part] for name, one in beside.items() if part in one}
            notes = [f"{name} {shown(one).value}" for name, one in baselines.items()]
            if having[0].chance is not None:
                notes.append(f"guessing {plain(having[0].chance, as_percent=True).value}")
            arrow = "↓" if measure.better == "below" else "↑"
            unit = "" if measure.share else f"{measure.unit}; "
            cells = [shown(one[part]) if part in one else None for one in found]
            rows.append(Row(f"{title} {arrow}", cells, f"{unit}{', '.join(notes)}".rstrip("; ")))
    columns = [
        Column(model.name, f"{model.stage}, {short_number(model.parameters)}") for model in models
    ]
    return Table(columns, rows, left_out)


def _tables(content: Mapping[str, Any]) -> dict[str, Table | None]:
    """The sections' tables by name, None where nothing was measured; all of one may say nothing."""
    models = content["models"]
    set_names, text_names = _names(content)

    def of(key: str) -> dict[str, BySource]:
        return {name: _measured(model[key]) for name, model in models.items() if model[key]}

    ngrams = {name: _measured(row) for name, row in _shared_ngrams(content).items()}
    found = {
        "bits": by_source(of("bits_per_byte"), ngrams, text_names, number(), share=False),
        "loss": by_source(of("assistant_loss"), {}, text_names, number(2), share=False),
        "choices": by_source(
            of("choice_accuracy"),
            {"always the commonest": _measured(content["baselines"]["commonest_answer"])},
            set_names,
            percent,
            share=True,
            chance=True,
            items="questions",
        ),
        "calibration": _calibration(content, set_names),
        "preferences": by_source(
            of("preference_accuracy")
            | {
                f"{n}, implicit reward": found
                for n, found in of("implicit_reward_accuracy").items()
            },
            {LONGER: _measured(content["baselines"]["longer_answer"])},
            set_names,
            percent,
            share=True,
            chance=True,
            items="pairs",
        ),
        "refusals": by_source(
            {
                name: {
                    f"{kind}, {where} {arrow}": Estimate(**rates[kind])
                    for where, rates in (
                        ("real", model["refusal_rate"]),
                        ("small world", model["world"].get("declined", {})),
                    )
                    for kind, arrow in (("harmful", "↑"), ("benign", "↓"))
                    if kind in rates
                }
                for name, model in models.items()
            },
            {},
            {},
            percent,
            share=True,
            items="prompts",
        ),
        "gaps": by_source(
            {
                name: _measured(model["fairness"].get("gaps", {}))
                for name, model in models.items()
                if model["fairness"]
            },
            {},
            {},
            number(2),
            share=False,
        ),
        "rewards": by_source(
            {
                name: {
                    title: Estimate(**model["world"]["reward"][part][POOLED])
                    for part, title in _REWARDS.items()
                    if POOLED in model["world"]["reward"][part]
                }
                for name, model in models.items()
                if model["world"].get("reward")
            },
            {},
            {},
            number(),
            share=True,
            items="answers",
        ),
        "aims": _aims(content),
        "honesty": _honesty(content),
    }
    return {name: t if t.rows or t.left_out else None for name, t in found.items()}


def _calibration(content: Mapping[str, Any], names: Mapping[str, str]) -> Table:
    """Three numbers of each set, each under its own heading."""
    models = {n: m for n, m in content["models"].items() if m["choice_calibration"]}
    if not models:
        return Table([], [])
    of_all = {name: model["choice_calibration"] for name, model in models.items()}
    sources = list(next(iter(of_all.values())))
    by_sum = by_source(
        {name: _measured(model["choice_accuracy_by_sum"]) for name, model in models.items()},
        {},
        names,
        percent,
        share=True,
    )

    def errors(source: str) -> list[Cell | None]:
        ones = (model[source] for model in of_all.values())
        return [
            Cell(f"{one['error']:.3f}", f"by chance {one['error_by_chance']:.3f}") for one in ones
        ]

    def briers(source: str) -> list[Cell | None]:
        return [number()(Estimate(**model[source]["brier"])) for model in of_all.values()]

    nothing = {s: next(iter(of_all.values()))[s]["brier"]["chance"] for s in sources}
    rows = [
        Part("calibration error ↓"),
        *(Row(names.get(source, source), errors(source)) for source in sources),
        Part("Brier score ↓"),
        *(Row(names.get(s, s), briers(s), f"knowing nothing {nothing[s]:.3f}") for s in sources),
        *([Part("accuracy by sum ↑")] if by_sum.rows else ()),
        *by_sum.rows,
    ]
    return Table([Column(name) for name in models], rows, by_sum.left_out)


def _honesty(content: Mapping[str, Any]) -> Table:
    """What a model says to what it cannot know, and to what it can."""
    rows: list[Row | Part] = []
    left_out = []
    for what, found in honesty.table(content["models"]):
        ones = [None if one is None else Estimate(**one) for one in found]
        having = [one for one in ones if one is not None]
        if says_nothing(having):
            left_out.append(nothing_said(what, having))
            continue
        rows.append(Row(what, [None if one is None else percent(one) for one in ones]))
    return Table([Column(name) for name in content["models"]], rows, left_out)


def _aims(content: Mapping[str, Any]) -> Table:
    """What a model should reach, and whether its whole interval does."""
    worlds = {name: model["world"] for name, model in content["models"].items()}
    commonest = (content["world"] or {}).get("commonest_answer", {})
    rows: list[Row | Part] = []
    left_out = []
    for aim in AIMS:
        found = {name: Estimate(**one) for name, w in worlds.items() if (one := aim.of(w))}
        if not found:
            continue
        wanted = ""
        if aim.level is not None:
            wanted = f"{'≤' if aim.below else '≥'} {100 * aim.level:.0f} %"
        if says_nothing(list(found.values())):
            about = f", aim {wanted}" if wanted else ""
            left_out.append(nothing_said(f"{aim.what}{about}", list(found.values())))
            continue
        cells = [
            replace(percent(found[name]), mark=_mark(aim, world)) if name in found else None
            for name, world in worlds.items()
        ]
        usual = commonest.get(aim.at[1]) if aim.at[0] == "accuracy" else None
        cells.append(None if usual is None else percent(Estimate(**usual)))
        rows.append(Row(aim.what, cells, f"aim {wanted}" if wanted else ""))
    columns = [Column(name) for name in worlds] + [Column("always the commonest", base=True)]
    return Table(columns, rows, left_out)


def _mark(aim: Aim, world: Mapping[str, Any]) -> Mark:
    if aim.level is None:
        return ""
    return {True: "reached", False: "missed", None: "open"}[aim.reached(world)]  # type: ignore[return-value]


def _passed_in_words(content: Mapping[str, Any], tested: Sequence[Finding]) -> list[str]:
    """For each n-gram what the claims above say of it, and where training came below it."""
    said = []
    for name, orders in content["passed_counting"].items():
        for order, when in orders.items():
            test = next(t for t in tested if t.model == name and t.other == f"{order} counting")
            if when:
                said.append(
                    f"{name} passed {order} counting at {short_number(when['tokens'])} tokens, "
                    f"after {when['minutes']:.1f} minutes of training: from there on it stayed "
                    "below it by more than the test above is unsure of."
                )
            elif test.outcome == "better":
                said.append(
                    f"{name} ended better than {order} counting, but at no evaluation on the way "
                    "by more than the test above is unsure of."
                )
            elif test.outcome == "worse":
                said.append(f"{name} did not pass {order} counting in this run.")
            else:
                said.append(f"Whether {name} passed {order} counting cannot be told.")
    return said


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
        gained = {_POOLS[pool]: curve for pool, curve in model.history.gained().items()}
        if gained:
            drawn.append(plots.gained_plot(f"{name}: preferences on the way", gained))
    rates = {n: m.history.learning_rate() for n, m in trained.items() if m.history is not None}
    return [*drawn, plots.rate_plot(rates)] if rates else drawn


_POOLS = {POOLED: "pairs written by people", WORLD: "the small world’s pairs"}


def _measured(row: Mapping[str, Mapping[str, Any]]) -> BySource:
    return {source: Estimate(**facts) for source, facts in row.items()}


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
