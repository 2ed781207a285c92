"""The tables of the report, built from the numbers of report.json."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from groundup.evals import honesty
from groundup.evals.by_source import WORLD
from groundup.evals.measure import Evaluated, from_json, informative
from groundup.evals.stages.measures import MEASURES
from groundup.evals.world.aims import AIMS, Aim
from groundup.evals.world.answers import PARTS
from groundup.report.estimate import POOLED, BySource, Estimate
from groundup.report.table import (
    DASH,
    Cell,
    Column,
    Mark,
    Part,
    Row,
    Table,
    is_uninformative,
    number,
    omitted_row,
    percent,
    plain,
    short_number,
    source_table,
)

# The names of sets that are one half of a well-known benchmark say so.
_SET_NAMES = {
    "siqa": "SIQA (held-out half)",
    "commonsenseqa": "CommonsenseQA (held-out half)",
    "openbookqa": "OpenBookQA (held-out half)",
    "piqa": "PIQA (held-out half)",
    "boolq": "BoolQ (held-out half)",
    "harm": "less against more harmful",
    "harm-refusal": "refusal against harmful",
    "harm-answer": "answer against needless refusal",
}


# As documents, BoolQ is passages of Wikipedia and not a benchmark.
_TEXT_NAMES = {"boolq": "boolq passages"}


_REWARDS = dict(
    zip(PARTS, ("in all", "correct", "instruction kept", "kind", "harmless"), strict=True)
)


def names_of(content: Mapping[str, Any]) -> tuple[dict[str, str], dict[str, str]]:
    """The page's titles of question sets and of text sources."""
    pooled = {POOLED: "pooled"}
    if content["world"] is not None:
        pooled = {POOLED: "real, pooled", WORLD: "world, pooled"}
    return _SET_NAMES | pooled, _TEXT_NAMES | pooled


def shared_ngrams(content: Mapping[str, Any]) -> dict[str, Any]:
    """N-gram rows by name; with several tokenizers the name includes the model."""
    by_model = content["baselines"]["ngrams"]
    if len(by_model) == 1:
        return dict(next(iter(by_model.values())))
    return {
        f"{order} ({name}'s tokens)": row
        for name, orders in by_model.items()
        for order, row in orders.items()
    }


def at_a_glance(models: Sequence[Evaluated]) -> Table:
    """The most important measures, with their baselines in the row titles."""
    rows, left_out = [], []
    for measure in (one for one in MEASURES if one.at_a_glance):
        found = [measure.of(model) for model in models]
        beside = measure.beside(models[0])
        tells = informative(measure, models)
        parts = [part for part in (POOLED, WORLD) if any(part in one for one in found)]
        for part in parts:
            title = measure.label(part, parts)
            having = [one[part] for one in found if part in one]
            if not tells(part):
                left_out.append(omitted_row(title, having))
                continue
            shown: Callable[[Estimate], Cell] = percent if measure.share else number
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


def calibration(content: Mapping[str, Any], names: Mapping[str, str]) -> Table:
    """Calibration error, Brier score and accuracy by sum, each under its own heading."""
    models = {n: m for n, m in content["models"].items() if m["choice_calibration"]}
    if not models:
        return Table([], [])
    of_all = {name: model["choice_calibration"] for name, model in models.items()}
    sources = list(next(iter(of_all.values())))
    by_sum = source_table(
        {name: from_json(model["choice_accuracy_by_sum"]) for name, model in models.items()},
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
        return [number(Estimate(**model[source]["brier"])) for model in of_all.values()]

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


def honesty_table(content: Mapping[str, Any]) -> Table:
    """Answers to what a model cannot know and to what it can."""
    rows: list[Row | Part] = []
    left_out = []
    for what, found in honesty.table(content["models"]):
        ones = [None if one is None else Estimate(**one) for one in found]
        having = [one for one in ones if one is not None]
        if is_uninformative(having):
            # Without its heading, a row must name its question set.
            alone = what.replace("— ", "what newcomers type, ")
            left_out.append(omitted_row(alone, having))
            continue
        rows.append(Row(what, [None if one is None else percent(one) for one in ones]))
    return Table([Column(name) for name in content["models"]], rows, left_out)


def aims(content: Mapping[str, Any]) -> Table:
    """The small world's aims, and whether a model's whole interval reaches each."""
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
        if is_uninformative(list(found.values())):
            about = f", aim {wanted}" if wanted else ""
            left_out.append(omitted_row(f"{aim.what}{about}", list(found.values())))
            continue
        cells = [
            replace(percent(found[name]), mark=_mark(aim, world)) if name in found else None
            for name, world in worlds.items()
        ]
        usual = commonest.get(aim.at[1]) if aim.at[0] == "accuracy" else None
        cells.append(None if usual is None else percent(Estimate(**usual)))
        rows.append(Row(aim.what, cells, f"aim {wanted}" if wanted else ""))
    columns = [Column(name) for name in worlds] + [Column("always the most frequent", base=True)]
    return Table(columns, rows, left_out)


def _mark(aim: Aim, world: Mapping[str, Any]) -> Mark:
    if aim.level is None:
        return ""
    return {True: "yes", False: "no", None: "open"}[aim.reached(world)]  # type: ignore[return-value]


def rewards(content: Mapping[str, Any]) -> dict[str, BySource]:
    return {
        name: {
            title: Estimate(**model["world"]["reward"][part][POOLED])
            for part, title in _REWARDS.items()
            if POOLED in model["world"]["reward"][part]
        }
        for name, model in content["models"].items()
        if model["world"].get("reward")
    }


def refusal_rates(content: Mapping[str, Any]) -> dict[str, BySource]:
    return {
        name: {
            f"{kind}, {where} {arrow}": Estimate(**rates[kind])
            for where, rates in (
                ("real", model["refusal_rate"]),
                ("small world", model["world"].get("declined", {})),
            )
            for kind, arrow in (("harmful", "↑"), ("benign", "↓"))
            if kind in rates
        }
        for name, model in content["models"].items()
    }


def costs(content: Mapping[str, Any]) -> Table:
    models = {name: model["costs"] for name, model in content["models"].items()}
    shown: dict[str, Callable[[Mapping[str, float]], str]] = {
        "minutes": lambda one: _with_plan(one, "minutes", lambda minutes: f"{minutes:.1f}"),
        "peak memory": lambda one: _with_plan(
            one, "peak_memory_bytes", lambda size: f"{size / 1e9:.2f} GB"
        ),
        "steps": lambda one: f"{one['steps']:,}",
        "tokens": lambda one: short_number(one["tokens"]),
        "FLOPs": lambda one: short_number(one["flops"]),
        "tokens per second": lambda one: f"{one['tokens_per_second']:,.0f}",
        "share of peak": lambda one: f"{100 * one['peak_share']:.0f} %",
    }
    about = {"share of peak": "the best matrix products of these shapes"}
    own = {"minutes": f"{content['seconds'] / 60:.1f}"}
    rows = [
        Row(
            title,
            [Cell.of(of(one)) if one else None for one in models.values()]
            + [Cell(own.get(title, ""))],
            about.get(title, ""),
        )
        for title, of in shown.items()
    ]
    columns = [Column(name, "" if one else "trained elsewhere") for name, one in models.items()]
    return Table([*columns, Column("this report", base=True)], rows)


def _with_plan(costs: Mapping[str, float], name: str, written: Callable[[float], str]) -> str:
    """A run's actual cost, followed by the planned one."""
    if name not in costs:
        return DASH
    planned = costs.get(f"planned_{name}")
    return written(costs[name]) + ("" if planned is None else f"\n{written(planned)} planned")


def verified(content: Mapping[str, Any]) -> Table:
    """Every check's result for every model."""
    by_model = [
        {check["name"]: check for check in model["verified"]}
        for model in content["models"].values()
    ]

    def cell(check: Mapping[str, str] | None) -> Cell | None:
        if check is None:
            return None
        if check["status"] == "differs":
            return Cell("differs", check["about"], mark="no")
        return Cell("same" if check["status"] == "same" else "–", check["about"])

    names = dict.fromkeys(name for checks in by_model for name in checks)
    rows = [Row(name, [cell(checks.get(name)) for checks in by_model]) for name in names]
    return Table([Column(name, words=True) for name in content["models"]], rows)
