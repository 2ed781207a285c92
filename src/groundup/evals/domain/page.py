"""The tuning suite's page: the numbers of report.json between the prose of page.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from groundup.evals.core import SET_TITLES, TEXT_TITLES
from groundup.evals.domain.costs import SET_ASIDE
from groundup.evals.domain.material import CONTEXT
from groundup.evals.domain.measures import (
    GENERAL_TEXT,
    LOSS,
    MEASURES,
    SAMPLE_TOKENS,
    informative_measures,
    main_domain,
    training_costs,
)
from groundup.evals.measure import Evaluated, Measure, of_models
from groundup.report.claim import Claim, mark_of
from groundup.report.estimate import BySource, Estimate
from groundup.report.figure import Plot
from groundup.report.history import Curve
from groundup.report.page import (
    Answer,
    Block,
    Box,
    Claims,
    Dialogue,
    Page,
    Plots,
    written,
)
from groundup.report.plots import interval_plot, learning_plot, trade_plot
from groundup.report.table import (
    DASH,
    Cell,
    Column,
    Part,
    Row,
    Table,
    in_bytes,
    number,
    percent,
    short_number,
    source_table,
)
from groundup.report.terminal import in_terminal
from groundup.runs.console import console, say


def curves_of(model: Evaluated) -> tuple[Curve, Curve | None] | None:
    """A run's training loss and held-out loss, if it took steps."""
    if model.history is None or not model.history.train:
        return None
    return model.history.loss(), model.history.heldout()


def tuning_plots(models: Sequence[Evaluated]) -> list[Plot]:
    """The plots for which there is data."""
    parent, *tuned = models
    drawn = []
    trades = {
        f"{model.name} ({model(training_costs).method})": _trade(model, parent) for model in tuned
    }
    if any(trades.values()):
        drawn.append(
            trade_plot(
                "Gain on the domain, and its price",
                (
                    "general text: bits per byte more (to the right: forgotten)",
                    "domain: bits per byte less",
                ),
                parent.name,
                trades,
            )
        )
    runs = {
        model.name: curves_of(model) if model.history and model.history.parent else None
        for model in tuned
    }
    if any(runs.values()):
        drawn.append(learning_plot("Learning curves", runs))
    for title, axis, unit in (
        ("Bits per byte", "bits per byte, less is better", "bits"),
        ("Questions", "share answered right, %", "share"),
    ):
        rows: dict[str, BySource] = {
            model.name: {
                f"{one.about}: {one.short}": found
                for one in informative_measures(models)
                if one.unit == unit and (found := one.estimate(model)) is not None
            }
            for model in models
        }
        drawn.append(interval_plot(title, axis, rows, unit == "share"))
    return drawn


def _trade(model: Evaluated, parent: Evaluated) -> tuple[Estimate, Estimate] | None:
    """The increase in bits of general text, and the decrease in bits of the domain."""
    price = GENERAL_TEXT.change(model, parent)
    gain = main_domain(parent).change(model, parent)
    return None if price is None or gain is None else (price, gain)


def tuning_page(content: dict[str, Any], tested: Sequence[Claim], plots: Sequence[Plot]) -> Page:
    """Gains, forgetting and costs, conclusions, and answers before and after."""
    models, domain, prompts = content["models"], content["domain"], content["prompts"]

    trained, held = domain["rows_trained_on"], domain["heldout_rows"]
    questions, texts, sources = (
        of_models(content, key)
        for key in ("question_accuracy", "text_bits_per_byte", "domain_bits_per_byte")
    )
    answered = source_table(
        questions, {}, SET_TITLES, percent, share=True, chance=True, items="questions"
    )
    by_source = source_table(sources, {}, TEXT_TITLES, number, share=False)
    against = (
        f"Below them is the change against {next(iter(models))}, compared item by item: ✓ is "
        "better, ✗ is worse, ≈ is an interval that includes 0. "
    )
    notes = [f"{note}." for note in content["notes"]]
    each = [
        f"{name} {one['seconds']:.0f} s, {one['cpu_seconds']:.0f} s of one core"
        for name, one in models.items()
    ]
    bad, twice = domain["bad_lines"], domain["duplicates"]
    aside = f" Of the domain’s data, {bad} bad lines and {twice} duplicates were set aside."
    return written(
        Path(__file__).with_suffix(".md").read_text(encoding="utf-8"),
        f"groundup fine-tuning: {', '.join(models)}",
        {
            "measures": [measure_table(content)],
            "plots": [Plots(plots)],
            "claims": [Claims(tested)] if tested else [],
            "samples": _dialogues(content),
            "questions": [answered],
            "texts": [source_table(texts, {}, TEXT_TITLES, number, share=False)],
            "sources": [by_source] if len(by_source.rows) > 2 else [],
        },
        content
        | {
            "count": f"{len(models)} {'model' if len(models) == 1 else 'models'}",
            "rows": (
                f"{trained:,} rows of the domain, all of them trained on,"
                if trained
                else f"{held:,} held-out rows of the domain"
            ),
            "against": against if len(models) > 1 else "",
            "sample_tokens": SAMPLE_TOKENS,
            "prompts": len(prompts),
            "kind": _side(domain)
            + ("conversations" if prompts and prompts[0]["chat"] else "texts"),
            "how": _how(domain),
            "each": ", ".join(each),
            "aside": aside if bad or twice else "",
        },
        opening=[Box("**Read this first.**", notes)] if notes else [],
    )


def measure_table(content: Mapping[str, Any]) -> Table:
    """A row per measure with every model's value and change; then the costs."""
    models = content["models"]
    rows: list[Row | Part] = []
    for about, title in (
        ("domain", "The domain: what fine-tuning is for"),
        ("general", "Everything else: what must not be forgotten"),
    ):
        of_part: list[Row | Part] = []
        for measure in (one for one in MEASURES if one.about == about):
            there = any(measure.name in model["measures"] for model in models.values())
            if there and measure.name in content["shown"]:
                of_part.append(_row(content, measure.name, measure.title, measure))
            if measure is LOSS and of_part:
                of_part.append(_row(content, "perplexity", "perplexity of a token", None))
        rows += [Part(title), *of_part] if of_part else []
    rows += [Part("Costs"), *_costs(content)]
    if aside := _aside(content):
        rows += [Part("Rows not trained on, or not in full"), *aside]
    return Table([Column(name, one["costs"]["method"]) for name, one in models.items()], rows)


def _row(content: Mapping[str, Any], key: str, title: str, measure: Measure[Any] | None) -> Row:
    """A measure's values and changes; without a measure those of perplexity, which has no test."""
    cells: list[Cell | None] = []
    chance = None
    for name, model in content["models"].items():
        if key not in model["measures"]:
            cells.append(None)
            continue
        value = Estimate(**model["measures"][key])
        change = content["against_parent"].get(name, {}).get(key)
        chance = value.chance if chance is None else chance
        cells.append(_cell(value, change, measure, proven=key not in content["unproven"]))
    return Row(title, cells, "" if chance is None else f"guessing reaches {100 * chance:.1f} %")


def _cell(
    value: Estimate,
    change: Mapping[str, Any] | None,
    measure: Measure[Any] | None,
    *,
    proven: bool,
) -> Cell:
    share = measure is not None and measure.share
    cell = percent(value) if share else number(value, 1 if measure is None else 3)
    if change is None or measure is None:
        return cell
    scale, digits = (100, 1) if share else (1, 3)
    ends = [f"{scale * change[end]:+.{digits}f}" for end in ("estimate", "low", "high")]
    mark = mark_of(Estimate(**change), measure.better) if proven else "open"
    return Cell(cell.value, cell.note, "{} ({} to {})".format(*ends), mark)


def _costs(content: Mapping[str, Any]) -> list[Row]:
    """The costs of each model; a dash is what its folder does not record."""
    models = list(content["models"].values())
    rows = {
        "trained": [_adapter(model["costs"]) for model in models],
        "trained parameters": [_trained(model) for model in models],
        "on disk": [_bytes(model["costs"]["disk_bytes"]) for model in models],
        "tokens trained on": [_counted(model["costs"]["tokens"]) for model in models],
        "tokens per second": [_counted(model["costs"]["tokens_per_second"]) for model in models],
        "minutes of training": [_counted(model["costs"]["minutes"], 1) for model in models],
        "peak memory": [_bytes(model["costs"]["peak_memory_bytes"]) for model in models],
    }
    return [Row(title, [Cell(cell) for cell in cells]) for title, cells in rows.items()]


def _adapter(costs: Mapping[str, Any]) -> str:
    shown = [
        name if value is True else f"{name} {value:g}" for name, value in costs["adapter"].items()
    ]
    return ", ".join([costs["method"], *shown])


def _trained(model: Mapping[str, Any]) -> str:
    count = model["costs"]["trained_parameters"]
    if count is None:
        return DASH
    return f"{short_number(count)} ({100 * count / model['parameters']:.3g} %)"


def _bytes(size: int | None) -> str:
    return DASH if size is None else in_bytes(size)


def _counted(count: float | None, digits: int = 0) -> str:
    return DASH if count is None else f"{count:,.{digits}f}"


def _aside(content: Mapping[str, Any]) -> list[Row]:
    """Rows that runs did not train on; without kinds that no run set aside."""
    models = list(content["models"].values())
    return [
        Row(title, [Cell(_counted(model["costs"]["set_aside"].get(name))) for model in models])
        for name, title in SET_ASIDE.items()
        if any(model["costs"]["set_aside"].get(name) for model in models)
    ]


def _dialogues(content: Mapping[str, Any]) -> list[Block]:
    """The same prompts to every model, with the true continuation."""
    blocks: list[Block] = []
    for place, prompt in enumerate(content["prompts"]):
        turns = [
            (one["role"] if prompt["chat"] else "text to continue", one["content"])
            for one in prompt["messages"]
        ]
        said = [Answer("what really followed", prompt["truth"])]
        said += [Answer(name, one["samples"][place]) for name, one in content["models"].items()]
        blocks.append(Dialogue(turns, said))
    return blocks


def _side(domain: Mapping[str, Any]) -> str:
    """The prefix of the rows' name; empty if models were trained on all of them."""
    return "" if domain["rows_trained_on"] else "held-out "


def _how(domain: Mapping[str, Any]) -> str:
    """How the domain was measured, depending on whether it has conversations and texts."""
    said, kind = [], _side(domain)
    if domain["conversations"]:
        said.append(
            f"{domain['conversations']} {kind}conversations, each up to its last answer within "
            f"about 2,000 characters and {CONTEXT} tokens; the assistant’s words in them are "
            "predicted, token by token. "
        )
    if domain["reply_questions"]:
        said.append(
            f"In {domain['reply_questions']} places the true reply is mixed with replies of nearly "
            "its length from other conversations of the same side, and the one with the highest "
            "log-probability per character is the model’s choice; short replies often fit "
            "anywhere, so 100 % cannot be reached. "
        )
    if domain["pieces_of_text"]:
        said.append(f"{kind}texts".capitalize() + " are read in pieces of 2,000 characters. ")
    return "".join(said)


def say_table(content: Mapping[str, Any], tested: Sequence[Claim]) -> None:
    """Print measures and costs as rows and models as columns, with changes below the values."""
    console.print(in_terminal(measure_table(content)))
    for claim in tested:
        say(f"{_MARKS[claim.mark]} {claim.what}: {claim.claim}")
    for note in content["notes"]:
        say(f"Note: {note}.")


_MARKS = {"": "", "yes": "✓", "no": "✗", "open": "?"}
