"""The report's page: report.json as tables and plots, between the prose of page.md."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from groundup.errors import UserError
from groundup.evals.by_source import WORLD
from groundup.evals.fairness import ANSWER, TEXT
from groundup.evals.measure import Evaluated, from_json, of_models, renamed
from groundup.evals.perplexity import INTERMEDIATE_BYTES
from groundup.evals.stages.changed import ASKED
from groundup.evals.stages.material import measured_here
from groundup.evals.stages.measures import LONGER, choices
from groundup.evals.stages.opening import dialogues, first
from groundup.evals.stages.tables import (
    aims,
    at_a_glance,
    calibration,
    costs,
    honesty_table,
    names_of,
    refusal_rates,
    rewards,
    shared_ngrams,
    verified,
)
from groundup.evals.stages.triangle import triangles
from groundup.report import plots
from groundup.report.changed import changed_blocks
from groundup.report.claim import Claim
from groundup.report.estimate import POOLED, BySource
from groundup.report.figure import Plot
from groundup.report.history import HELDOUT
from groundup.report.page import (
    Block,
    Fold,
    Headline,
    Headlines,
    Listing,
    Note,
    Page,
    Plots,
    claims_by_mark,
    written,
)
from groundup.report.table import (
    Cell,
    Column,
    Row,
    Table,
    informative,
    number,
    percent,
    short_number,
    source_table,
)
from groundup.runs.console import counted, duration
from groundup.runs.files import is_number, read_json_object


def report_page(
    content: dict[str, Any],
    models: Sequence[Evaluated],
    tested: Sequence[Claim],
    numbers: Sequence[Headline],
) -> Page:
    """The opening, and all results between the prose of `page.md`."""
    named, world = content["models"], content["world"]
    minutes = sum(model["costs"].get("minutes", 0.0) for model in named.values())
    apart = "; the small world, which a program generated, is separate from what people wrote"
    own_words = ", in the small world also by its own words of declining"
    sizes = [f"{n} has {short_number(one['parameters'])} parameters" for n, one in named.items()]
    return written(
        Path(__file__).with_suffix(".md").read_text(encoding="utf-8"),
        f"groundup report: {', '.join(named)}",
        _blocks(content, models, tested),
        content
        | {
            "count": counted(len(models), "model"),
            "trained": duration(60 * minutes),
            "apart": apart if world else "",
            "own_words": own_words if world else "",
            "sizes": ", ".join(sizes),
            "bias": f"{world['bias']:.2f}" if world else "",
            "curve_bytes": INTERMEDIATE_BYTES,
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
            "The same prompts, given to every model; nothing is selected or edited. Long or poor "
            "answers are folded; a click opens them."
        )
        blocks += shown
    if numbers:
        about = "the verdict next to it rests on a test that is shown below."
        blocks += [Headlines(numbers), Note(f"The large number is {models[-1].name}’s; {about}")]
    return blocks


def _blocks(
    content: Mapping[str, Any], models: Sequence[Evaluated], tested: Sequence[Claim]
) -> dict[str, list[Block]]:
    """The blocks of each section by name; empty if nothing was measured."""
    set_names, text_names = names_of(content)
    ngrams = {name: from_json(row) for name, row in shared_ngrams(content).items()}
    bits, chosen = of_models(content, "bits_per_byte"), of_models(content, "choice_accuracy")
    preferred = of_models(content, "preference_accuracy") | {
        f"{name}, implicit reward": found
        for name, found in of_models(content, "implicit_reward_accuracy").items()
    }
    majority = {"always the most frequent": from_json(content["baselines"]["commonest_answer"])}
    longer = {LONGER: from_json(content["baselines"]["longer_answer"])}
    words = of_models(content, "assistant_loss")
    prompts = list(dialogues(models).values())
    curves = _curve_plots(models)

    def intervals(title: str, axis: str, rows: Mapping[str, BySource], share: bool) -> Plot:
        names, shown = (set_names, informative(rows)) if share else (text_names, rows)
        known = renamed(shown, names)
        return plots.interval_plot(title, axis, known, share, content["models"], ngrams)

    found: dict[str, list[Block]] = {
        "look": [at_a_glance(models)],
        "triangles": triangles(content),
        "claims": claims_by_mark(tested),
        "bits": [
            source_table(bits, ngrams, text_names, number, share=False),
            *passed_in_words(content, tested),
            Plots(
                [intervals("Held-out text", "bits per byte, less is better", bits | ngrams, False)]
            ),
        ],
        "choices": _shown(
            source_table(
                chosen, majority, set_names, percent, share=True, chance=True, items="questions"
            )
        ),
        "calibration": _shown(calibration(content, set_names)),
        "preferences": _shown(
            source_table(
                preferred, longer, set_names, percent, share=True, chance=True, items="pairs"
            )
        ),
        "words": _shown(
            source_table(words, {}, text_names, lambda one: number(one, 2), share=False)
        ),
        "honesty": _shown(honesty_table(content)),
        "aims": _shown(aims(content)),
        "rewards": _shown(
            source_table(rewards(content), {}, {}, number, share=True, items="answers")
        ),
        "refusals": _shown(
            source_table(refusal_rates(content), {}, {}, percent, share=True, items="prompts")
        ),
        **_fairness(content),
        "samples": [Fold(f"All {len(prompts)} prompts", prompts)] if prompts else [],
        "changed": changed_blocks(content["changes"], {name: name for name in ASKED}),
        "curves": [Plots(curves)] if curves else [],
        "costs": [costs(content)],
        "data": _data(content),
        "leaks": [*leak_summary(content["leaks"])],
        "verified": [verified(content)],
        "again": _runs(content),
    }
    if found["calibration"]:
        sure = {
            model.name: answers.calibration[POOLED].curve
            for model in models
            if (answers := model(choices)) is not None
        }
        drawn = plots.calibration_plot("Calibration", sure, content["models"])
        found["calibration"].append(Plots([drawn]))
    for key, title, items, rows in (
        ("choices", "Multiple choice", "questions", chosen),
        ("preferences", "Preferences", "pairs", preferred),
    ):
        if any(informative(rows).values()):
            found[key].append(Plots([intervals(title, f"share of {items}, %", rows, True)]))
    return found


def _shown(table: Table) -> list[Block]:
    """The table, unless it has neither rows nor reasons for missing ones."""
    return [table] if table.rows or table.left_out else []


def _fairness(content: Mapping[str, Any]) -> dict[str, list[Block]]:
    """The gaps, and P(she) of every job for each way of asking."""
    measured = {name: m["fairness"] for name, m in content["models"].items() if m["fairness"]}
    if not measured:
        return {"gaps": [], "leanings": []}
    bias, jobs = content["world"]["bias"], content["world"]["planted"]["jobs"]
    gaps = {name: from_json(model["gaps"]) for name, model in measured.items()}
    said = [
        f"{name}, by jobs: planted {bias:.2f}, measured {gap.estimate:.2f} ({gap.low:.2f} to "
        f"{gap.high:.2f})."
        for name, of_model in gaps.items()
        for gap in [of_model["jobs, as text"]]
    ]
    drawn = [
        plots.leaning_plot(
            f"A woman or a man? Asked {way}", "P(she)", jobs, subjects, content["models"]
        )
        for way in (TEXT, ANSWER)
        if (
            subjects := {n: m["subjects"][way] for n, m in measured.items() if way in m["subjects"]}
        )
    ]
    table = source_table(gaps, {}, {}, lambda one: number(one, 2), share=False)
    return {"gaps": [table, *said], "leanings": [Plots(drawn)]}


def _data(content: Mapping[str, Any]) -> list[Block]:
    """The sets with licenses and citations, and their numbers of rows."""
    data = content["data"]
    if not data:
        return []
    rows = []
    for pack in data["packs"]:
        about, archive = pack.get("about", ""), pack.get("archive")
        source = f". From {archive['package']} {archive['version']}" if archive else ""
        said = f"{about[:1].upper()}{about[1:]}." if about else ""
        thanks = Cell(said, f"{pack['citation']}{source}.")
        license = pack.get("license", pack.get("licence", ""))  # as earlier releases wrote it
        rows.append(Row(pack["name"], [Cell(license), thanks]))
    columns = [Column("license", words=True), Column("citation", words=True)]
    blocks: list[Block] = [Table(columns, rows, corner="set")]
    if counts := data.get("counts"):
        lines = []
        for name, one in counts.items():
            by_source = ", ".join(f"{source} {n:,}" for source, n in one["by_source"].items())
            lines.append(Row(name, [Cell(f"{one['rows']:,}"), Cell(by_source)]))
        columns = [Column("in all"), Column("by source", words=True)]
        blocks.append(Table(columns, lines, corner="rows"))
    return [*blocks, *map(Note, data.get("notes", []))]


def leak_summary(leaks: Mapping[str, Any] | None) -> list[str]:
    """What each leak check found in all training sets together, and what is left."""
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


def _runs(content: Mapping[str, Any]) -> list[Block]:
    """The command of the recipe that made the models and, folded, the contents of each run.json."""
    folders = {Path(model["folder"]).resolve().parent for model in content["models"].values()}
    # A recipe's runs are next to a copy of it.
    recipes = [found for one in folders if (found := one / "recipe.toml").is_file()]
    blocks: list[Block] = [Listing(_recipe_command(one)) for one in sorted(recipes)]
    for name, model in content["models"].items():
        if not (run := model["run"]):
            continue
        lines = [
            f"groundup {model['stage']}",
            _settings(run["config"]),
            ", ".join(f"{package} {version}" for package, version in run["versions"].items()),
            f"git {run['git'] or 'not a checkout'}",
            f"{run['machine']['system']}, {run['machine']['cores']} cores; begun {run['started']}",
            ", ".join(f"{p} sha256 {one['sha256'][:16]}" for p, one in run["parents"].items()),
        ]
        blocks.append(Fold(f"{name}: every setting of its run", [Listing("\n".join(lines))]))
    return blocks


def _recipe_command(recipe: Path) -> str:
    """The command that repeats a recipe with the same planned minutes, in a new folder."""
    minutes, name = None, recipe.parent.name
    with contextlib.suppress(UserError):  # no valid plan.json: then as the recipe says
        minutes = read_json_object(recipe.with_name("plan.json")).get("minutes")
    planned = f" --minutes {minutes:g}" if is_number(minutes) else ""
    recipe_of_it, again = (shlex.quote(one) for one in (f"{name}/{recipe.name}", f"{name}-again"))
    return f"groundup run {recipe_of_it}{planned} --out {again}"


def passed_in_words(content: Mapping[str, Any], tested: Sequence[Claim]) -> list[str]:
    """For each n-gram order, when training passed it, in agreement with the claims."""
    said = []
    for name, orders in content["passed_counting"].items():
        measured = content["models"][name]["curves"].get(HELDOUT["bits_per_byte"])
        for order, when in orders.items():
            test = next(t for t in tested if t.model == name and t.other == f"{order} counting")
            if when:
                margin = "below it by more than the margin of error of the test above"
                at = f"{short_number(when['tokens'])} tokens"
                after = f"after {when['minutes']:.1f} minutes of training"
                if measured is not None and when["tokens"] >= measured["tokens"][-1]:
                    said.append(
                        f"{name} passed {order} counting at the last measurement only, at {at}, "
                        f"{after}: there it was {margin}."
                    )
                    continue
                said.append(
                    f"{name} passed {order} counting at {at}, {after}: from there on it stayed "
                    f"{margin}."
                )
            elif test.outcome == "better":
                said.append(
                    f"{name} ended better than {order} counting, but at no evaluation on the way "
                    "by more than the margin of error of the test above."
                )
            elif test.outcome == "worse":
                said.append(f"{name} did not pass {order} counting in this run.")
            else:
                said.append(f"The difference of {name} from {order} counting is not significant.")
    return said


def _curve_plots(models: Sequence[Evaluated]) -> list[Plot]:
    drawn = list[Plot]()
    colors = plots.model_colors(model.name for model in models)
    trained = {model.name: model for model in models if model.history and model.history.train}
    for name, model in trained.items():
        assert model.history is not None
        reads_text = model.history.measure == "bits_per_byte" and measured_here(model)
        counted = model.material.ngrams if reads_text else {}
        levels = {f"{n}-gram": one.on_the_way for n, one in counted.items()}
        drawn += plots.history_plots(name, model.history, colors[name], levels=levels, pools=_POOLS)
    rates = {n: m.history.learning_rate() for n, m in trained.items() if m.history is not None}
    return [*drawn, plots.rate_plot(rates, colors)] if rates else drawn


_POOLS = {POOLED: "pairs written by people", WORLD: "the small world’s pairs"}


def _settings(config: Mapping[str, Any]) -> str:
    """A run's settings in one line; folders by their last name, since reports are shared."""

    def shown(value: object) -> str:
        if isinstance(value, list):
            return "[" + ", ".join(map(shown, value)) + "]"
        text = str(value)
        return Path(text).name if isinstance(value, str) and "/" in text else text

    return ", ".join(
        f"{name}={shown(value)}" for name, value in config.items() if value is not None
    )
