"""The report's page, made of the numbers of report.json, beside its plots and samples."""

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
    Box,
    Claims,
    Dialogue,
    Fold,
    Heading,
    Headline,
    Headlines,
    Listing,
    Note,
    Page,
    Plots,
    Section,
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
    content: Mapping[str, Any],
    models: Sequence[Evaluated],
    tested: Sequence[Claim],
    numbers: Sequence[Headline],
) -> Page:
    """The opening, what is told of it at once, and a section for everything that was measured."""
    prompts = dialogues(models)
    sections = [
        _look(content, models),
        _claims(tested),
        _honestly(content),
        _bits(content, tested),
        _choices(content, models),
        _preferences(content),
        _words(content),
        _unknown(content),
        _world(content),
        _safety(content),
        _fairness(content),
        _samples(list(prompts.values())),
        _training(models),
        _cost(content),
        _data(content),
        _verified(content),
        _again(content),
    ]
    minutes = sum(model["costs"].get("minutes", 0.0) for model in content["models"].values())
    count = len(models)
    return Page(
        title=f"groundup report: {', '.join(content['models'])}",
        heading="What came of it",
        lead=(
            f"{count} {'model' if count == 1 else 'models'}, "
            f"{minutes:.{0 if minutes >= 1 else 1}f} minutes of training, measured on text and "
            f"questions that no training stage saw. {content['created'][:10]}, groundup."
        ),
        opening=_opening(
            dialogues(models, drawn=False), numbers, list(content["models"])[-1], content["world"]
        ),
        sections=[section for section in sections if section is not None],
        contents=True,
    )


def _opening(
    prompts: Mapping[tuple[str, ...], Dialogue],
    numbers: Sequence[Headline],
    last: str,
    world: Mapping[str, Any] | None,
) -> list[Block]:
    blocks: list[Block] = []
    if shown := first(prompts, with_world=world is not None):
        blocks.append(
            "The same prompts, given to every model; nothing is chosen or mended. What is not "
            "worth the room is folded: it opens with a click."
        )
        blocks += shown
    if numbers:
        blocks.append(Headlines(numbers))
        blocks.append(
            Note(
                f"The large number is {last}’s; the word beside it rests on a test that stands "
                "below."
            )
        )
    return blocks


# The sections, in the order of the page; None where nothing was measured.


def _look(content: Mapping[str, Any], models: Sequence[Evaluated]) -> Section:
    apart = (
        "; the small world, which a program made up, stands apart from what people wrote"
        if content["world"]
        else ""
    )
    note = (
        "Small numbers below a value are its 95 % interval: by bootstrap over blocks of 2 KB of "
        "text, or over whole groups of items that share a prompt, passage or article; by Wilson’s "
        "formula for shares of independent prompts. ↑ more is better, ↓ less is better. A dash "
        "means that there was nothing to measure it on. Values over several sources weigh the "
        f"sources as they were sampled, so compare them within this report only{apart}."
    )
    return Section("In one look", "look", [_in_one_look(models), Note(note)])


def _claims(tested: Sequence[Claim]) -> Section | None:
    if not tested:
        return None
    found = by_outcome(tested)
    blocks: list[Block] = [
        "Each stage against the one that it began from, and against what needs no training, on the "
        "very same items. A difference counts only if its whole 95 % interval lies on one side, "
        "and it counts in both directions alike; of twenty differences that are none, about one "
        "passes by chance. Of fewer than six groups of items nothing is said."
    ]
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
    return Section("What got worse, what got better", "claims", blocks)


def _honestly(content: Mapping[str, Any]) -> Section:
    sizes = ", ".join(
        f"{name} has {short_number(model['parameters'])} parameters"
        for name, model in content["models"].items()
    )
    said = (
        f"A very small language model: {sizes}. Well-known assistants are many thousand times "
        "larger and have read a million times more text. It has learned what English looks like, "
        "some common facts that its texts repeat, and, if it was fine-tuned, how to answer and "
        "stop. It states falsehoods fluently, does not reason, knows nothing after or outside its "
        "texts, and a refusal in it is a habit of wording, not a safeguard. Do not rely on "
        "anything it says, and do not offer it to others as an assistant."
    )
    return Section("What this model is, honestly", "honestly", [Box(said)])


def _bits(content: Mapping[str, Any], tested: Sequence[Claim]) -> Section:
    _, names = _names(content)
    ngrams = {name: _estimates(row) for name, row in _shared_ngrams(content).items()}
    found = _of(content, "bits_per_byte")
    plot = plots.interval_plot(
        "Held-out text", "bits per byte, less is better", _renamed(found | ngrams, names), False
    )
    blocks: list[Block] = [
        "How many bits the model needs for each byte of held-out text, given what stands before it "
        "in the same document: 8 is knowing nothing, and less is better. Beside it stands honest "
        "counting: interpolated, modified Kneser–Ney n-grams over the same tokens of exactly the "
        "training split.",
        source_table(found, ngrams, names, number, share=False),
        *_passed_in_words(content, tested),
        Plots([plot]),
    ]
    return Section("Bits per byte", "bits", blocks)


def _choices(content: Mapping[str, Any], models: Sequence[Evaluated]) -> Section | None:
    names, _ = _names(content)
    accuracy = _of(content, "choice_accuracy")
    table = source_table(
        accuracy,
        {"always the commonest": _estimates(content["baselines"]["commonest_answer"])},
        names,
        percent,
        share=True,
        chance=True,
        items="questions",
    )
    if not (table.rows or table.left_out):
        return None
    drawn = [plots.interval_plot("Multiple choice", "accuracy", _renamed(accuracy, names), True)]
    calibrated = {
        model.name: found.calibration[POOLED].curve
        for model in models
        if (found := model(choices)) is not None
    }
    drawn.append(plots.calibration_plot("Calibration", calibrated))
    blocks: list[Block] = [
        "Each option is scored as the assistant’s answer to the question, by the mean "
        "log-probability of its tokens, and the likeliest counts as chosen. Every model reads the "
        "same chat format, a base model too. These are the halves of public evaluation sets that "
        "did not train, and not the benchmarks themselves.",
        table,
        Heading("Does it know how sure to be?"),
        "The probability of an option, given that one of the question’s options is said, is a "
        "claim that can be checked: of the choices made with 70 % confidence, 70 % should be "
        "right. The calibration error is the mean distance between the two, over ten groups of "
        "equally many questions; 0 is best, and a perfectly honest model would show the small "
        "number below it by chance alone. The Brier score is the squared distance between the "
        "probabilities and the truth: honesty and knowledge in one number, from 0 to 2. Both take "
        "the sum of an option’s log-probabilities, since their mean is no probability; so the "
        "accuracy by sum stands beside them.",
        _calibration(content, names),
        Plots(drawn),
    ]
    return Section("Multiple choice", "choice", blocks)


def _preferences(content: Mapping[str, Any]) -> Section | None:
    names, _ = _names(content)
    found = _of(content, "preference_accuracy")
    implicit = _of(content, "implicit_reward_accuracy")
    found = {
        f"{name}{way}": rows[name]
        for name in found
        for way, rows in (("", found), (", implicit reward", implicit))
        if name in rows
    }
    table = source_table(
        found,
        {LONGER: _estimates(content["baselines"]["longer_answer"])},
        names,
        percent,
        share=True,
        chance=True,
        items="pairs",
    )
    if not (table.rows or table.left_out):
        return None
    blocks: list[Block] = [
        "Of two answers to a prompt, is the better one likelier? A model’s own preference compares "
        "the sums of log-probabilities; the implicit reward, which DPO trains, compares how far "
        "each has risen above the reference model. Question sets pair the right option with a "
        "wrong one.",
        table,
        Plots([plots.interval_plot("Preferences", "accuracy", _renamed(found, names), True)]),
    ]
    return Section("Preferences", "preferences", blocks)


def _words(content: Mapping[str, Any]) -> Section | None:
    _, names = _names(content)
    table = source_table(
        _of(content, "assistant_loss"), {}, names, lambda one: number(one, 2), share=False
    )
    text = (
        "Nats per token on held-out conversations, over what the assistant says and where it stops."
    )
    return _if_any(table, "The assistant’s words", "words", [text, table])


def _unknown(content: Mapping[str, Any]) -> Section | None:
    table = _honesty(content)
    text = (
        "Held-out questions about the real world (an answer is right if it holds half of the "
        "content words that begin the article, which is lenient), what people type first who do "
        "not know this model, and questions that it can answer. All greedy. A model that always "
        "declines is honest and useless: read the last rows, too."
    )
    return _if_any(table, "Does it say when it does not know?", "honesty", [text, table])


def _world(content: Mapping[str, Any]) -> Section | None:
    aims = _aims(content)
    rewards = source_table(
        {
            name: {
                title: Estimate(**model["world"]["reward"][part][POOLED])
                for part, title in _REWARDS.items()
                if POOLED in model["world"]["reward"][part]
            }
            for name, model in content["models"].items()
            if model["world"].get("reward")
        },
        {},
        {},
        number,
        share=True,
        items="answers",
    )
    blocks: list[Block] = [
        "A part of the data is synthetic: a program made it up, so its truth is known, and what a "
        "model says there can be judged and not only scored. Below is what was measured on "
        "stories, questions and requests that no training stage saw, in combinations and wordings "
        "of their own, beside what a model should reach after fine-tuning and alignment. Stories "
        "are drawn at temperature 0.7 and read back by the very grammar that made those it learned "
        "from: all models go on from a held-out story’s first sentence, and those that chat are "
        "asked for one as well. Answers are greedy.",
        aims,
        Note(
            "✓ the whole 95 % interval reaches the aim, ✗ all of it falls short, ≈ it cannot be "
            "told; intervals are over whole stories where sentences are counted."
        ),
    ]
    if rewards.rows or rewards.left_out:
        blocks += [
            Heading("Gold reward"),
            "The gold reward of an answer, from 0 to 1, and its parts, each over the answers that "
            "it applies to:",
            rewards,
        ]
    return _if_any(aims, "The small world", "world", blocks)


def _safety(content: Mapping[str, Any]) -> Section | None:
    table = source_table(
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
            for name, model in content["models"].items()
        },
        {},
        {},
        percent,
        share=True,
        items="prompts",
    )
    words = ", in the small world also by its own words of declining" if content["world"] else ""
    text = (
        "The share of held-out prompts that a model refuses, by its first words when it answers "
        f"greedily, found by a list of phrases{words}. Read both rates together and beside the "
        "samples: who only babbles refuses nothing, and who refuses everything is of no use. "
        "Answers to harmful prompts are counted and never shown or kept."
    )
    return _if_any(table, "Safety", "safety", [text, table])


def _fairness(content: Mapping[str, Any]) -> Section | None:
    drawn = []
    measured = {name: m["fairness"] for name, m in content["models"].items() if m["fairness"]}
    for way in (TEXT, ANSWER):
        subjects = {n: m["subjects"][way] for n, m in measured.items() if way in m["subjects"]}
        if subjects:
            title = f"A woman or a man? Asked {way}"
            jobs = content["world"]["planted"]["jobs"]
            drawn.append(plots.leaning_plot(title, "P(she)", jobs, subjects))
    if not drawn:
        return None
    bias = content["world"]["bias"]
    blocks: list[Block] = [
        f"Jobs and groups of the small world lean by a strength that was planted in its texts: "
        f"{bias:.2f}, where 0 is fair and 1 means that all who have a job are women, or all men. "
        "Who leans where was drawn by lot and mirrors nothing. The measured gap is how far a "
        "model’s probabilities of the two words lean the same way, so that a model that learned "
        "exactly what it read shows the planted strength, and one that was aligned on balanced "
        "answers should show less.",
        source_table(
            {name: _estimates(model["gaps"]) for name, model in measured.items()},
            {},
            {},
            lambda one: number(one, 2),
            share=False,
        ),
    ]
    for name, model in measured.items():
        gap = Estimate(**model["gaps"]["jobs, as text"])
        blocks.append(
            f"{name}, by jobs: planted {bias:.2f}, measured {gap.estimate:.2f} "
            f"({gap.low:.2f} to {gap.high:.2f})."
        )
    blocks.append(
        Note(
            "Intervals are over whole jobs; of groups there are two, so theirs are over the single "
            "probes and say nothing of other groups."
        )
    )
    return Section("Fairness", "fairness", [*blocks, Plots(drawn)])


def _samples(prompts: Sequence[Dialogue]) -> Section | None:
    if not prompts:
        return None
    text = (
        "Every prompt with every model’s answer: above with the likeliest tokens, below, paler, "
        "once at temperature 0.7. Nothing is chosen or mended."
    )
    return Section("Samples", "samples", [text, Fold(f"All {len(prompts)} prompts", prompts)])


def _training(models: Sequence[Evaluated]) -> Section | None:
    drawn = _curve_plots(models)
    if not drawn:
        return None
    text = (
        "Tokens are on a logarithmic axis: each doubling of the text read takes the same room. On "
        f"the way a run reads up to {BYTES_ON_THE_WAY:,} bytes of each held-out source; the lines "
        "of n-grams in these plots are for the same bytes, and so differ a little from the table "
        "above."
    )
    return Section("How training went", "training", [text, Plots(drawn)])


def _cost(content: Mapping[str, Any]) -> Section:
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
    rows.append(Row("this report", own, base=True))
    return Section("What it cost", "cost", [Table(columns, rows)])


def _data(content: Mapping[str, Any]) -> Section | None:
    data, leaks = content["data"], _leaks_by_check(content["leaks"])
    blocks: list[Block] = []
    if data:
        rows = []
        for pack in data["packs"]:
            about, citation = pack.get("about", ""), pack["citation"]
            archive = pack.get("archive")
            if archive:
                citation += f". From {archive['package']} {archive['version']}"
            said = f"{about[:1].upper()}{about[1:]}." if about else ""
            rows.append(Row(pack["name"], [Cell(pack["licence"]), Cell(said, f"{citation}.")]))
        columns = [Column("licence", words=True), Column("whom to thank", words=True)]
        blocks.append(Table(columns, rows, corner="set"))
        if counts := data.get("counts"):
            columns = [Column("in all"), Column("by source", words=True)]
            lines = [
                Row(
                    name,
                    [
                        Cell(f"{one['rows']:,}"),
                        Cell(", ".join(f"{s} {n:,}" for s, n in one["by_source"].items())),
                    ],
                )
                for name, one in counts.items()
            ]
            blocks.append(Table(columns, lines, corner="rows"))
        blocks += [Note(note) for note in data.get("notes", [])]
    if leaks:
        found = "; ".join(
            f"by {check} {sums['found']:,} found and {sums['left']} left"
            for check, sums in leaks.items()
        )
        blocks += [
            Heading("Leak check"),
            f"Training rows that share something with anything evaluated were taken out: {found}.",
        ]
    return Section("Data", "data", blocks) if blocks else None


def _verified(content: Mapping[str, Any]) -> Section:
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
    text = (
        "Every model was asked in two ways that must not differ: at once and through the cache, "
        "alone and in a batch, here and by transformers where that is installed, as a folder and "
        "as a GGUF file. `groundup verify` does the same for any folder."
    )
    table = Table([Column(name, words=True) for name in content["models"]], rows)
    return Section("The same answer, however it is asked", "verified", [text, table])


def _again(content: Mapping[str, Any]) -> Section:
    blocks: list[Block] = [
        "Each run folder’s `run.json` says everything; the same settings on the same kind of "
        "machine, with the same versions, give the same bits."
    ]
    for name, model in content["models"].items():
        run = model["run"]
        if not run:
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
    compute, settings = content["compute"], content["settings"]
    blocks.append(
        Note(
            f"Measured with seed {settings['seed']}, {compute['dtype']} on {compute['device']} "
            f"with {compute['threads']} threads, at most {settings['bytes_per_source']:,} bytes of "
            f"each source, {settings['questions']} questions and {settings['pairs']:,} pairs of "
            "each set. All numbers are in `report.json`."
        )
    )
    return Section("How to make it again", "again", blocks)


def _if_any(table: Table, title: str, anchor: str, blocks: Sequence[Block]) -> Section | None:
    return Section(title, anchor, blocks) if table.rows or table.left_out else None


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


def _calibration(content: Mapping[str, Any], names: Mapping[str, str]) -> Table:
    """Three numbers of each set, each under its own heading."""
    models = {n: m for n, m in content["models"].items() if m["choice_calibration"]}
    if not models:
        return Table([], [])
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
