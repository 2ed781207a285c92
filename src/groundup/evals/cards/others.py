"""The accounts of all other reports: training stages, benchmarks, tuning, red teaming and more."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from groundup.data.packs.manifest import find_set
from groundup.evals.cards import account
from groundup.evals.cards.account import Account, Line, claims_on, lines, trained_on
from groundup.evals.core import SET_TITLES
from groundup.evals.core_sets import CORE_SETS
from groundup.evals.domain.measures import LOSS
from groundup.evals.domain.measures import MEASURES as TUNING
from groundup.evals.measure import from_json
from groundup.evals.stages.measures import MEASURES
from groundup.evals.stages.page import leak_summary
from groundup.evals.values.world import TASKS
from groundup.report.claim import Better, Claim
from groundup.report.estimate import Estimate
from groundup.runs.console import counted

_WORLD_JUDGES = (
    "answers in the small world: by its gold reward, a program that knows the truth of that world"
)
_REFUSAL_JUDGE = (
    "refusals of people's prompts: by a list of phrases; how far people agree was not measured in "
    "this report"
)
_WINS = ": wins against "


def journey_account(content: Mapping[str, Any], name: str, run: Mapping[str, Any]) -> Account:
    """All informative measures of `groundup eval report`."""
    model, settings, compute = content["models"][name], content["settings"], content["compute"]
    of_model = [one for one in content["measures"] if name in one["models"]]
    numbers = [
        Line(one["what"] if share else f"{one['what']}, {one['unit']}", found, share, found.chance)
        for one in of_model
        if one["says_something"]
        for share in [one["unit"].startswith("share")]
        for found in [Estimate(**one["models"][name])]
    ]
    had = {one["what"] for one in of_model}
    measured = {
        one.name
        for one in MEASURES
        if any(what == one.name or what.startswith(f"{one.name}, ") for what in had)
    }
    why = "it was never taught to answer, or" if not model["chats"] else "as"
    left = [
        f"{what}: {why} the data held nothing of it out"
        for what in account.missing([one.name for one in MEASURES], measured)
    ]
    left += [
        f"{one['what']}: all models had 0 %, or all had 100 %"
        for one in of_model
        if not one["says_something"]
    ]
    return Account(
        how=f"on what its data held out, at most {settings['questions']:,} questions and "
        f"{settings['pairs']:,} pairs of each set, {compute['dtype']} on {compute['device']}",
        numbers=[*lines(from_json(model["axes"]), "in the small world"), *numbers],
        claims=claims_on(content["findings"], name),
        judged=[
            *([_REFUSAL_JUDGE] if any("requests declined" in what for what in had) else []),
            *([_WORLD_JUDGES] if content["world"] else []),
        ],
        left=left,
        groups=["jobs and groups of the small world"] if model["fairness"] else [],
        familiar=[one.rstrip(".") for one in leak_summary(content["leaks"])],
    )


def core_account(content: Mapping[str, Any], name: str, run: Mapping[str, Any]) -> Account:
    """Six benchmarks and bits per byte, from `groundup eval core`."""
    model, compute = content["models"][name], content["compute"]
    first = next(iter(content["models"]))
    right, bits = from_json(model["accuracy"]), from_json(model["bits_per_byte"])
    before = from_json(content["models"][first]["accuracy"])
    against = from_json(content["against_first"].get(name, {}))
    claims = [
        _claim(
            "answers more questions right than",
            change,
            SET_TITLES.get(one, one),
            (name, first),
            (before[one], right[one]),
        )
        for one, change in against.items()
    ]
    titles = {f"{SET_TITLES.get(one, one)}, answered right": found for one, found in right.items()}
    texts = {f"held-out text, {one}, bits per byte": found for one, found in bits.items()}
    return Account(
        how=f"by the wording of the lm-evaluation-harness, {compute['dtype']} on "
        f"{compute['device']}",
        numbers=[*lines(titles), *lines(texts, share=False)],
        claims=claims,
        judged=["questions: by the most likely option, so no verdict is needed"],
        left=["Its own words: options were scored, and nothing was generated"],
        familiar=trained_on(model["familiar"]),
        data=[
            f"**{one['title']}** ({one['license']}): {one['citation']}"
            for one in content["sets"].values()
        ],
    )


def harness_account(content: Mapping[str, Any], name: str, run: Mapping[str, Any]) -> Account:
    """The harness's own numbers and standard errors, from `groundup eval lm-eval`."""
    model, settings, compute = content["models"][name], content["settings"], content["compute"]
    asked = "all questions of each task"
    if settings["limit"] is not None:
        asked = f"at most {counted(settings['limit'], 'question')} of each task (--limit)"
    form = ", in its chat format" if settings["chat"] else ""
    return Account(
        how=f"{asked}{form}, {compute['dtype']} on {compute['device']}; an interval is "
        f"{_ERRORS} standard errors to either side",
        numbers=list(_of_harness(model)),
        judged=["all answers: by the metrics of each task, as the lm-evaluation-harness has them"],
        left=[
            "Whether it is better or worse than another model: no two were compared question by "
            "question",
            "Whether questions of these tasks are in its training data",
        ],
    )


# Standard errors of a 95 % interval of the normal distribution.
_ERRORS = 1.96


def _of_harness(model: Mapping[str, Any]) -> Iterator[Line]:
    """Every metric of every task; the harness does not say which are shares."""
    for task, measures in model["results"].items():
        items = model.get("n-samples", {}).get(task, {}).get("effective", 0)
        for key, value in measures.items():
            metric, _, kind = key.partition(",")
            if metric.endswith("_stderr") or not isinstance(value, int | float) or not kind:
                continue
            error = measures.get(f"{metric}_stderr,{kind}")
            half = _ERRORS * error if isinstance(error, float) else 0.0
            # Equal results for all questions give an error of 0, which is no interval.
            groups = items if half > 0 else 1
            found = Estimate(value, value - half, value + half, items, groups)
            what = metric if kind == "none" else f"{metric} ({kind})"
            yield Line(f"{task}: {what}", found, share=False)


def tuning_account(content: Mapping[str, Any], name: str, run: Mapping[str, Any]) -> Account:
    """Results on the domain and on everything else, from `groundup eval tuning`."""
    model, compute, domain = content["models"][name], content["compute"], content["domain"]
    first, shown = next(iter(content["models"])), content["shown"]
    measures = {one.name: one for one in TUNING if one.name in shown}
    found, before = (from_json(content["models"][one]["measures"]) for one in (name, first))
    changes = from_json(content["against_parent"].get(name, {}))
    trained = domain["rows_trained_on"]
    rows = (
        f"{counted(trained, 'row')} of the domain, all of them trained on"
        if trained
        else f"{counted(domain['heldout_rows'], 'held-out row')} of the domain"
    )
    return Account(
        how=f"{rows}, {counted(content['general']['questions'], 'general question')}, "
        f"{compute['dtype']} on {compute['device']}",
        numbers=[
            Line(one.title, found[key], one.share, found[key].chance)
            for key, one in measures.items()
            if key in found
        ],
        claims=[
            _claim(
                "is better than",
                changes[key],
                one.title,
                (name, first),
                (before[key], found[key]),
                wanted=one.better,
                share=one.share,
                unit=one.unit,
            )
            for key, one in measures.items()
            # Nats per token repeat bits per byte in a unit that depends on the tokenizer.
            if one is not LOSS and key in changes and key not in content["unproven"]
        ],
        judged=["replies and questions: by the most likely option, so no verdict is needed"],
        left=[
            *(
                f"{one.title}: the domain had nothing for it, or it does not distinguish the models"
                for one in TUNING
                if one.name not in found or one.name not in shown
            ),
            *(
                f"{measures[key].title}, whether it changed: "
                + (
                    "its rows were trained on"
                    if trained and measures[key].about == "domain"
                    else "too few rows to tell"
                )
                for key in content["unproven"]
                if key in changes and key in measures
            ),
        ],
        familiar=trained_on(model["familiar"]),
        data=[
            f"**{CORE_SETS[one].title}** ({pack.license}): {pack.citation}"
            for one in model["question_accuracy"]
            if one in CORE_SETS
            for pack in [find_set(one)]
        ],
    )


def rewards_account(content: Mapping[str, Any], name: str, run: Mapping[str, Any]) -> Account:
    """The value of its answers by each reward, from `groundup eval rewards`."""
    model, settings = content["models"][name], run["config"]
    specs = {one: settings.get(one) for one in ("reward", "gold", "judge")}
    used = {one: spec for one, spec in specs.items() if spec}
    (first,) = {key.partition(_WINS)[2] for key in model if _WINS in key}
    numbers, claims = list[Line](), list[Claim]()
    for one in used:
        worth = Estimate(**model[one])
        numbers.append(Line(f"worth of an answer by its {one}", worth, False))
        if name == first:
            continue
        won = Estimate(**model[f"{one}{_WINS}{first}"])
        numbers.append(Line(f"wins against {first} by its {one}", won, level=0.5))
        gain, before = (
            Estimate(**facts)
            for facts in (model[f"{one}: gain on {first}"], content["models"][first][one])
        )
        what = f"worth of an answer by its {one}"
        sides = (name, first)
        claims.append(
            _claim("has answers worth more than", gain, what, sides, (before, worth), share=False)
        )
    if name != first and "estimate" in model["nats"]:
        numbers.append(Line(f"nats from {first}", Estimate(**model["nats"]), False))
    unasked = {"gold": "the truth, as another reward", "judge": "a reward that none trained on"}
    return Account(
        how=f"{content['prompts']:,} held-out prompts, {counted(content['samples'], 'answer')} to "
        "each at temperature 1",
        numbers=numbers,
        claims=claims,
        # Cards are shared, so they do not contain the paths of rewards.
        judged=[f"{one}: {spec.rstrip('/').rpartition('/')[2]}" for one, spec in used.items()],
        left=[
            f"Its worth by {unasked[one]}: no --{one} was given"
            for one in account.missing(list(unasked), list(used))
        ],
    )


def redteam_account(content: Mapping[str, Any], name: str, run: Mapping[str, Any]) -> Account:
    """How many requests a search broke, from `groundup redteam`."""
    model, settings = content["models"][name], content["settings"]
    first, budget = next(iter(content["models"])), str(settings["budget"])

    def broken(of: str, method: str) -> Estimate:
        return Estimate(**content["models"][of]["broken"][method][budget])

    searched = f"harmful requests broken by {budget} prompts of the search"
    numbers = {
        "harmful requests broken as they are": Estimate(**model["broken"]["search"]["1"]),
        f"harmful requests broken by {budget} prompts at random": broken(name, "random"),
        searched: broken(name, "search"),
    }
    more = Estimate(**model["more_than_first"]["search"])
    both = broken(first, "search"), broken(name, "search")
    claim = _claim("is broken less often than", more, searched, (name, first), both, wanted="below")
    guard = settings["guard"]
    judges = content.get("judges", [])  # missing in earlier versions
    return Account(
        how=f"{content['requests']:,} requests of {content['acts']:,} acts of the small world, at "
        f"most {budget} prompts for each" + ("" if guard is None else ", with a guard"),
        numbers=lines(numbers),
        claims=[] if name == first else [claim],
        judges=judges,
        judged=[
            "broken conduct: by a program, by the truth of the small world and by words; help in "
            "other words is not counted",
            *([] if judges else ["how far that program is right was not measured"]),
        ],
        left=[
            "Attacks by gradients, in other languages, and over several turns; real harm",
            *(["The model without its guard"] if guard is not None else []),
        ],
    )


def frontier_account(content: Mapping[str, Any], name: str, run: Mapping[str, Any]) -> Account:
    """Its place before alignment, and what surpassed it, from `groundup frontier`."""
    config = content["config"]
    point = next(one for one in content["points"] if one["kind"] == "start")
    comparisons = [
        f"{len(content['points']) - 1} other models made from it; "
        + (
            f"{point['dominated_by']} is nowhere worse and somewhere better"
            if point["dominated_by"]
            else "none is nowhere worse and somewhere better"
        )
    ]
    if point["beaten_by"]:
        comparisons.append(f"{point['beaten_by']} beats it beyond chance")
    untried = account.missing(
        ("balanced", "constraint", "soup", "system-prompt"), config["strategies"]
    )
    return Account(
        how=f"in the small world, as the start of a dial ({config['dial']}), next to "
        f"{comparisons[0]}" + "".join(f"; {one}" for one in comparisons[1:]),
        numbers=[*lines(from_json(point["axes"])), *_of_tasks(point["numbers"])],
        judged=[_WORLD_JUDGES],
        groups=["jobs and groups of the small world"],
        left=[
            "Anything of the real world: every question was of the small one",
            *(f"The strategy {one}: it was not asked for" for one in untried),
            *(["The model with a guard: none was given"] if config["guard"] is None else []),
        ],
    )


def _of_tasks(numbers: Mapping[str, Any]) -> Iterator[Line]:
    for task in TASKS:
        found = from_json(numbers[task.name])
        for one in task.shown:
            if one.part_of is None and one.name in found:
                estimate = found[one.name]
                level = one.ideal if one.ideal is not None else estimate.chance
                yield Line(f"{task.title}: {one.name}", estimate, one.share, level)


def _claim(
    sentence: str,
    change: Estimate,
    what: str,
    sides: tuple[str, str],
    values: tuple[Estimate, Estimate],
    *,
    wanted: Better = "above",
    share: bool = True,
    unit: str = "reward",
) -> Claim:
    """A comparison of a model (the first of `sides`) with another, whose value comes first."""
    model, other = sides
    return Claim(
        f"{model} {sentence} {other}",
        change,
        "" if share else unit,
        wanted,
        what=what,
        model=model,
        other=other,
        values=(values[0].estimate, values[1].estimate),
        share=share,
        stages=True,
    )
