"""The report's page: what report.json holds as tables and plots, between the prose of page.md."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from groundup.evals import honesty
from groundup.evals.fairness import ANSWER, TEXT
from groundup.evals.measure import Evaluated, informative
from groundup.evals.perplexity import BYTES_ON_THE_WAY
from groundup.evals.stages.measures import LONGER, MEASURES, choices
from groundup.evals.stages.opening import dialogues, first
from groundup.evals.world.aims import AIMS, Aim
from groundup.evals.world.answers import PARTS
from groundup.report import plots
from groundup.report.claim import Claim, by_outcome
from groundup.report.estimate import POOLED, WORLD, BySource, Estimate
from groundup.report.figure import Plot
from groundup.report.page import (
    Block,
    Claims,
    Fold,
    Heading,
    Headline,
    Headlines,
    Listing,
    Note,
    Page,
    Plots,
    written,
)
from groundup.report.table import (
    Cell,
    Column,
    Mark,
    Part,
    Row,
    Table,
    nothing_said,
    number,
    percent,
    plain,
    says_nothing,
    short_number,
    source_table,
)

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


def report_page(
    content: dict[str, Any],
    models: Sequence[Evaluated],
    tested: Sequence[Claim],
    numbers: Sequence[Headline],
) -> Page:
    """The opening, and all that was measured between the prose of `page.md`."""
    named, world = content["models"], content["world"]
    minutes = sum(model["costs"].get("minutes", 0.0) for model in named.values())
    apart = "; the small world, which a program made up, stands apart from what people wrote"
    own_words = ", in the small world also by its own words of declining"
    sizes = [f"{n} has {short_number(one['parameters'])} parameters" for n, one in named.items()]
    return written(
        Path(__file__).with_suffix(".md").read_text(encoding="utf-8"),
        f"groundup report: {', '.join(named)}",
        _blocks(content, models, tested),
        content
        | {
            "count": f"{len(models)} {'model' if len(models) == 1 else 'models'}",
            "minutes": f"{minutes:.{0 if minutes >= 1 else 1}f}",
            "apart": apart if world else "",
            "own_words": own_words if world else "",
            "sizes": ", ".join(sizes),
            "bias": f"{world['bias']:.2f}" if world else "",
            "curve_bytes": BYTES_ON_THE_WAY,
        },
        opening=_opening(models, numbers, with_world=world is not None),
        contents=True,
    )


def _opening(
    models: Sequence[Evaluated], numbers: Sequence[Headline], *, with_world: bool
) -> list[Block]:
    blocks: list[Block] = []
    if shown := first(dialogues(models, drawn=False), with_world=with_world):
        blocks.append(
            "The same prompts, given to every model; nothing is chosen or mended. What is not "
            "worth the room is folded: it opens with a click."
        )
        blocks += shown
    if numbers:
        about = "the word beside it rests on a test that stands below."
        blocks += [Headlines(numbers), Note(f"The large number is {models[-1].name}’s; {about}")]
    return blocks


def _blocks(
    content: Mapping[str, Any], models: Sequence[Evaluated], tested: Sequence[Claim]
) -> dict[str, list[Block]]:
    """What stands in each section, by name; nothing where nothing was measured."""
    set_names, text_names = _names(content)
    ngrams = {name: _estimates(row) for name, row in _shared_ngrams(content).items()}
    bits, chosen = _of(content, "bits_per_byte"), _of(content, "choice_accuracy")
    preferred = _of(content, "preference_accuracy") | {
        f"{name}, implicit reward": found
        for name, found in _of(content, "implicit_reward_accuracy").items()
    }
    majority = {"always the commonest": _estimates(content["baselines"]["commonest_answer"])}
    longer = {LONGER: _estimates(content["baselines"]["longer_answer"])}
    words = _of(content, "assistant_loss")
    prompts = list(dialogues(models).values())
    curves = _curve_plots(models)

    def intervals(title: str, axis: str, rows: Mapping[str, BySource], share: bool) -> Plot:
        names = set_names if share else text_names
        return plots.interval_plot(title, axis, _renamed(rows, names), share)

    found: dict[str, list[Block]] = {
        "look": [_in_one_look(models)],
        "claims": _claims(tested),
        "bits": [
            source_table(bits, ngrams, text_names, number, share=False),
            *_passed_in_words(content, tested),
            Plots(
                [intervals("Held-out text", "bits per byte, less is better", bits | ngrams, False)]
            ),
        ],
        "choices": _shown(
            source_table(
                chosen, majority, set_names, percent, share=True, chance=True, items="questions"
            )
        ),
        "calibration": _calibration(content, models, set_names),
        "preferences": _shown(
            source_table(
                preferred, longer, set_names, percent, share=True, chance=True, items="pairs"
            )
        ),
        "words": _shown(
            source_table(words, {}, text_names, lambda one: number(one, 2), share=False)
        ),
        "honesty": _shown(_honesty(content)),
        "aims": _shown(_aims(content)),
        "rewards": _shown(
            source_table(_rewards(content), {}, {}, number, share=True, items="answers")
        ),
        "refusals": _shown(
            source_table(_refusals(content), {}, {}, percent, share=True, items="prompts")
        ),
        **_fairness(content),
        "samples": [Fold(f"All {len(prompts)} prompts", prompts)] if prompts else [],
        "curves": [Plots(curves)] if curves else [],
        "costs": [_costs(content)],
        "data": _data(content),
        "leaks": _leaks(content["leaks"]),
        "verified": [_verified(content)],
        "again": _runs(content),
    }
    if found["choices"]:
        found["choices"].append(Plots([intervals("Multiple choice", "accuracy", chosen, True)]))
    if found["preferences"]:
        found["preferences"].append(Plots([intervals("Preferences", "accuracy", preferred, True)]))
    return found


def _shown(table: Table) -> list[Block]:
    """A table, where it has rows or says why not."""
    return [table] if table.rows or table.left_out else []


def _claims(tested: Sequence[Claim]) -> list[Block]:
    found, blocks = by_outcome(tested), list[Block]()
    marks: tuple[tuple[str, Sequence[Claim], Mark], ...] = (
        ("Worse", found["worse"], "no"),
        ("Better", found["better"], "yes"),
    )
    for title, some, mark in marks:
        blocks.append(Heading(f"{title} ({len(some)})", mark))
        blocks.append(Claims(some) if some else Note("Nothing, as far as can be told."))
    if untold := found["cannot be told"]:
        title = f"Cannot be told ({len(untold)}): the interval allows both"
        blocks.append(Fold(title, [Claims(untold)]))
    return blocks if tested else []


def _rewards(content: Mapping[str, Any]) -> dict[str, BySource]:
    return {
        name: {
            title: Estimate(**model["world"]["reward"][part][POOLED])
            for part, title in _REWARDS.items()
            if POOLED in model["world"]["reward"][part]
        }
        for name, model in content["models"].items()
        if model["world"].get("reward")
    }


def _refusals(content: Mapping[str, Any]) -> dict[str, BySource]:
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


def _fairness(content: Mapping[str, Any]) -> dict[str, list[Block]]:
    """The gaps, and P(she) of every job in each way that models were asked."""
    measured = {name: m["fairness"] for name, m in content["models"].items() if m["fairness"]}
    if not measured:
        return {"gaps": [], "leanings": []}
    bias, jobs = content["world"]["bias"], content["world"]["planted"]["jobs"]
    gaps = {name: _estimates(model["gaps"]) for name, model in measured.items()}
    said = [
        f"{name}, by jobs: planted {bias:.2f}, measured {gap.estimate:.2f} ({gap.low:.2f} to "
        f"{gap.high:.2f})."
        for name, of_model in gaps.items()
        for gap in [of_model["jobs, as text"]]
    ]
    drawn = [
        plots.leaning_plot(f"A woman or a man? Asked {way}", "P(she)", jobs, subjects)
        for way in (TEXT, ANSWER)
        if (
            subjects := {n: m["subjects"][way] for n, m in measured.items() if way in m["subjects"]}
        )
    ]
    table = source_table(gaps, {}, {}, lambda one: number(one, 2), share=False)
    return {"gaps": [table, *said], "leanings": [Plots(drawn)]}


def _costs(content: Mapping[str, Any]) -> Table:
    titles = ("minutes", "steps", "tokens", "FLOPs", "tokens per second")
    columns = [Column(title) for title in titles]
    columns.append(Column("share of the machine’s matrix-multiply peak"))
    rows = []
    for name, model in content["models"].items():
        costs = model["costs"]
        if not costs:
            rows.append(Row(name, [Cell("trained elsewhere"), None, None, None, None, None]))
            continue
        cells = (
            f"{costs['minutes']:.1f}",
            f"{costs['steps']:,}",
            short_number(costs["tokens"]),
            f"{costs['flops']:.1e}",
            f"{costs['tokens_per_second']:,.0f}",
            f"{100 * costs['peak_share']:.0f} %",
        )
        rows.append(Row(name, [Cell(cell) for cell in cells]))
    own = [Cell(f"{content['seconds'] / 60:.1f}"), *[Cell("")] * 5]
    return Table(columns, [*rows, Row("this report", own, base=True)])


def _data(content: Mapping[str, Any]) -> list[Block]:
    """Whom to thank for what, and how many rows there are of it."""
    data = content["data"]
    if not data:
        return []
    rows = []
    for pack in data["packs"]:
        about, archive = pack.get("about", ""), pack.get("archive")
        source = f". From {archive['package']} {archive['version']}" if archive else ""
        said = f"{about[:1].upper()}{about[1:]}." if about else ""
        thanks = Cell(said, f"{pack['citation']}{source}.")
        rows.append(Row(pack["name"], [Cell(pack["licence"]), thanks]))
    columns = [Column("licence", words=True), Column("whom to thank", words=True)]
    blocks: list[Block] = [Table(columns, rows, corner="set")]
    if counts := data.get("counts"):
        lines = []
        for name, one in counts.items():
            by_source = ", ".join(f"{source} {n:,}" for source, n in one["by_source"].items())
            lines.append(Row(name, [Cell(f"{one['rows']:,}"), Cell(by_source)]))
        columns = [Column("in all"), Column("by source", words=True)]
        blocks.append(Table(columns, lines, corner="rows"))
    return [*blocks, *map(Note, data.get("notes", []))]


def _leaks(leaks: Mapping[str, Any] | None) -> list[Block]:
    """How much each check found in all training sets together, and how much is left."""
    sums: dict[str, list[int]] = {}
    for one in leaks["checks"] if leaks else ():
        of_check = sums.setdefault(one["check"], [0, 0])
        of_check[0] += one["found"]
        of_check[1] += one["left"]
    if not sums:
        return []
    said = "; ".join(
        f"by {name} {found:,} found and {left} left" for name, (found, left) in sums.items()
    )
    about = "Training rows that share something with anything evaluated were taken out"
    return [f"{about}: {said}."]


def _verified(content: Mapping[str, Any]) -> Table:
    """For each check what it found of every model, in the models' order."""
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


def _runs(content: Mapping[str, Any]) -> list[Block]:
    """How each model was made, as its run.json says."""
    blocks: list[Block] = []
    for name, model in content["models"].items():
        if not (run := model["run"]):
            continue
        lines = [
            f"groundup {model['stage']}",
            _settings(run["config"]),
            ", ".join(f"{package} {version}" for package, version in run["versions"].items()),
            "",
            f"git {run['git'] or 'not a checkout'}",
            f"{run['machine']['system']}, {run['machine']['cores']} cores; begun {run['started']}",
            ", ".join(f"{p} sha256 {one['sha256'][:16]}" for p, one in run["parents"].items()),
        ]
        blocks += [Heading(name), Listing("\n".join(lines))]
    return blocks


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


def _calibration(
    content: Mapping[str, Any], evaluated: Sequence[Evaluated], names: Mapping[str, str]
) -> list[Block]:
    """Three numbers of each set, each under its own heading, and the curves."""
    models = {n: m for n, m in content["models"].items() if m["choice_calibration"]}
    if not models:
        return []
    of_all = {name: model["choice_calibration"] for name, model in models.items()}
    sources = list(next(iter(of_all.values())))
    by_sum = source_table(
        {name: _estimates(model["choice_accuracy_by_sum"]) for name, model in models.items()},
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
    curves = {
        model.name: found.calibration[POOLED].curve
        for model in evaluated
        if (found := model(choices)) is not None
    }
    table = Table([Column(name) for name in models], rows, by_sum.left_out)
    return [table, Plots([plots.calibration_plot("Calibration", curves)])]


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
    return {True: "yes", False: "no", None: "open"}[aim.reached(world)]  # type: ignore[return-value]


def _passed_in_words(content: Mapping[str, Any], tested: Sequence[Claim]) -> list[str]:
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


def _estimates(row: Mapping[str, Mapping[str, Any]]) -> BySource:
    return {source: Estimate(**facts) for source, facts in row.items()}


def _of(content: Mapping[str, Any], key: str) -> dict[str, BySource]:
    """The estimates of the models that have some."""
    return {n: _estimates(model[key]) for n, model in content["models"].items() if model[key]}


def _renamed(rows: Mapping[str, BySource], names: Mapping[str, str]) -> dict[str, BySource]:
    return {
        name: {names.get(source, source): found for source, found in row.items()}
        for name, row in rows.items()
    }


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
