"""The part of a model card that a values report fills: what was measured, and what was not.

The sections are those of Mitchell et al. 2019, "Model cards for model reporting", section 4, but
for the model's details and training data, which the stage that made a model has written above. They
stand between two marks in README.md: a person's own words around them stay as they are.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from groundup.errors import UserError
from groundup.evals.measure import from_json
from groundup.evals.values.suite.page import KINDS, has_interval
from groundup.evals.values.suite.tasks import TASKS, named, of_world
from groundup.evals.values.task import AXES, Task
from groundup.formats.adapter import model_hash
from groundup.formats.folder import CARD
from groundup.report.estimate import Estimate
from groundup.report.table import DASH
from groundup.runs.files import naming, read_json_object, write_text

BEGIN = "<!-- groundup card: what stands between these marks is written anew by it -->"
END = "<!-- groundup card ends -->"

_USE = """\
## Intended use
Made to learn and to study how language models are made, aligned and measured. Whoever does either
is whom it is for.

Out of scope: advice of any kind, decisions about people, texts that others take for checked, and
use as an assistant by people who have not read this card. What was measured below is no proof that
it may be relied on."""

_CAVEATS = """\
## Ethical considerations and caveats
A score says how a model does on these items, not how it does on what people will ask it. A refusal
is a habit of wording, not a safeguard. Sets of stereotypes were written in few places, mostly in
the United States, and name few groups: that a gap was not found does not mean that there is none.
Intervals say what other items of the same sets could have given, and nothing of other sets."""


def write_card(model: Path, report: Path) -> Path:
    """Put what a values report measured of a model into its README.md; the rest of it stays.

    `report` is the report's folder or its report.json. Raises `UserError` for one that is damaged
    or did not measure these weights, and for a README.md whose marks are torn.
    """
    if not report.exists():
        raise UserError(
            f"there is no report {str(report)!r}; measure the model: groundup eval values {model}"
        )
    file = report / "report.json" if report.is_dir() else report
    content = read_json_object(file)
    if content.get("suite") != "values":
        raise UserError(f"{file} is no report of groundup eval values; give its folder")
    hashed = model_hash(model)
    try:
        name = next((n for n, one in content["models"].items() if one["hash"] == hashed), None)
        if name is None:
            raise UserError(
                f"{file} measured other weights than those in {model} "
                f"({', '.join(content['models'])}); measure it: groundup eval values {model}"
            )
        section = card_section(content, name)
    except (KeyError, TypeError, AttributeError, ValueError):
        raise UserError(
            f"{file} does not say all that groundup eval values measures; measure the model anew: "
            f"groundup eval values {model}"
        ) from None
    if not model.is_dir():
        raise UserError(f"{model} is a single file; a card stands in a model's folder")
    path = model / CARD
    with naming(path):
        kept = path.read_bytes() if path.is_file() else f"# {model.name}\n".encode()
    try:
        before = kept.decode("utf-8")
    except UnicodeDecodeError:
        raise UserError(f"{path} must be UTF-8 text for a card to be added; save it so") from None
    write_text(path, with_section(before, section, path))
    return path


def with_section(card: str, section: str, path: Path) -> str:
    """The card with the section between its marks, at the end where it had none."""
    marked = f"{BEGIN}\n{section}\n{END}"
    if (card.count(BEGIN), card.count(END)) == (0, 0):
        return f"{card.rstrip()}\n\n{marked}\n"
    if (card.count(BEGIN), card.count(END)) != (1, 1) or card.index(END) < card.index(BEGIN):
        raise UserError(
            f"{path} does not have both marks of groundup card once ({BEGIN} and {END}); "
            "put them right, or take both out"
        )
    return card[: card.index(BEGIN)] + marked + card[card.index(END) + len(END) :]


def card_section(content: Mapping[str, Any], name: str) -> str:
    """Intended use, factors, metrics, results and what they rest on, data, and caveats."""
    return "\n\n".join(
        [
            _USE,
            _factors(content, name),
            _measured(content, name),
            _contamination(content, name),
            *_judges(content, name),
            _not_measured(content, name),
            _data(content, name),
            _CAVEATS,
        ]
    )


def _factors(content: Mapping[str, Any], name: str) -> str:
    asked = content["models"][name]["numbers"]
    fair = [one["title"] for task, one in content["tasks"].items() if one["axis"] == "fairness"]
    fair = [title for title in fair if title in [content["tasks"][one]["title"] for one in asked]]
    said = "; ".join(fair) or "none"
    return (
        "## Factors and metrics\n"
        f"Groups of people were told apart by: {said}. All texts are in English. Scores run from 0 "
        "to 1, the best that can be; what guessing or babble has is not 0 everywhere. Numbers have "
        "95 % intervals, with whole groups of items that are not independent drawn together."
    )


def _measured(content: Mapping[str, Any], name: str) -> str:
    model = content["models"][name]
    lines = [
        "## What was measured",
        f"By groundup eval values, {content['created']:.10}, weights {model['hash'][:16]}; "
        f"{_settings(content)}.",
        "",
        "| axis | score | 95 % interval |",
        "|---|---|---|",
        *_axis_lines(model),
        "",
        "| what | value | 95 % interval | chance or ideal | items |",
        "|---|---|---|---|---|",
        *_number_lines(content, model),
    ]
    return "\n".join(lines)


def _axis_lines(model: Mapping[str, Any]) -> Iterator[str]:
    for kind, axes in model["axes"].items():
        found = from_json(axes)
        for axis in AXES:
            if axis in found:
                value, interval = shown(found[axis], True)
                yield f"| {axis}, {KINDS[kind]} | {value} | {interval} |"


def _number_lines(content: Mapping[str, Any], model: Mapping[str, Any]) -> Iterator[str]:
    for task, numbers in model["numbers"].items():
        described = content["tasks"][task]
        found = from_json(numbers)
        for one in described["numbers"]:
            if one["name"] not in found or one["part_of"] is not None:
                continue
            estimate = found[one["name"]]
            value, interval = shown(estimate, one["share"])
            level = one["ideal"] if one["ideal"] is not None else estimate.chance
            beside = "" if level is None else _value(level, one["share"])
            what = f"{described['title']}: {one['name']}"
            yield f"| {what} | {value} | {interval} | {beside} | {estimate.items:,} |"


def shown(found: Estimate, share: bool) -> tuple[str, str]:
    """A number and its interval, if it has one, in words; a share in percent."""
    ends = f"{_value(found.low, share)} to {_value(found.high, share)}"
    return _value(found.estimate, share), ends if has_interval(found) else DASH


def _value(value: float, share: bool) -> str:
    return f"{100 * value:.1f} %" if share else f"{value:z.3f}"


def _settings(content: Mapping[str, Any]) -> str:
    """How many items were asked, and how it was computed."""
    settings, compute = content["settings"], content["compute"]
    if settings["items"] is not None:
        asked = f"at most {settings['items']:,} items of each task (--items)"
    elif settings["fast"]:
        asked = "fewer items of each task than usual, for a first look (--fast)"
    else:
        asked = "as many items of each task as is usual"
    return f"{asked}, {compute['dtype']} on {compute['device']}"


def _contamination(content: Mapping[str, Any], name: str) -> str:
    """What of the items stands in the model's training, and what of that is not known."""
    model = content["models"][name]
    seen = model["seen"]
    # A message on data that do not say their sources tells where on this machine they lie.
    told = [
        one["message"]
        if one["rows"]
        else f"whether questions of the suite are in the data of {one['run']} is not known"
        for one in model["familiar"]
    ]
    asked = [one for one in seen["overlaps"] if one["set"] in model["numbers"]]
    for one in asked:
        if one["found"]:
            title = content["tasks"][one["set"]]["title"]
            told.append(
                f"{title}: {one['found']:,} of {one['items']:,} items were found in its training, "
                f"{one['same']:,} in the same words, {one['near']:,} in nearly the same, "
                f"{one['grams']:,} by 13 words in a row or all of a shorter item (one may be found "
                "in several ways)"
            )
    if asked:
        rest = sum(one["items"] - one["found"] for one in asked)
        told.append(f"{rest:,} items were not found in {seen['texts']:,} texts of its training")
    lines = [f"- {one}." for one in dict.fromkeys([*told, *seen["unknown"]])]
    return "\n".join(["## Contamination", *lines])


def _judges(content: Mapping[str, Any], name: str) -> list[str]:
    """How far the verdicts behind the model's numbers agree with labels, where there are any."""
    used = {content["tasks"][task]["judge"] for task in content["models"][name]["numbers"]}
    lines = []
    for one in content["judges"]:
        # Whatever is judged of a refusal is judged by one judge.
        if ("toxicity" if one["judge"] == "toxicity" else "refusal") not in used:
            continue
        of_labels = [
            f"{what} {value} ({interval})"
            for what in ("precision", "recall")
            if one[what] is not None
            for value, interval in [shown(Estimate(**one[what]), True)]
        ]
        kappa, interval = shown(Estimate(**one["kappa"]), False)
        lines.append(
            f"- {one['judge']}, against {one['labels']}, {one['items']:,} answers: "
            f"{', '.join([*of_labels, f'kappa {kappa} ({interval})'])}"
        )
    return ["\n".join(["## The judges, against labels", *lines])] if lines else []


def _not_measured(content: Mapping[str, Any], name: str) -> str:
    model = content["models"][name]
    left = missing([task.name for task in TASKS], model["numbers"])
    lines = [
        f"- {task.title} ({task.axis}): {_why(task, content, model)}"
        for task in TASKS
        if task.name in left
    ]
    lines += [
        "- Other languages than English, long conversations, tools, images.",
        "- Real users, and attacks by people who look for a way around its conduct.",
        "- Privacy: whether it repeats what it has read.",
    ]
    return "\n".join(["## What was not measured", *lines])


def missing(tasks: Sequence[str], measured: Collection[str]) -> list[str]:
    """Which of the tasks were not measured, in their order."""
    return [task for task in tasks if task not in measured]


def _why(task: Task, content: Mapping[str, Any], model: Mapping[str, Any]) -> str:
    if task.name not in content["tasks"]:
        return "it was not asked in this report"
    if task.chats and not model["chats"]:
        return "it was never taught to answer"
    if of_world(task) and not named(task, content["settings"]["tasks"]):
        return "it has not read of that world"
    return "it could read none of its items"


def _data(content: Mapping[str, Any], name: str) -> str:
    used = {
        pack
        for task in content["models"][name]["numbers"]
        for pack in content["tasks"][task]["packs"]
    }
    lines = [
        f"- **{pack}** ({one['license']}): {one['citation']}"
        for pack, one in content["packs"].items()
        if pack in used
    ]
    limits = [
        f"- {one['title']}: {one['limits']}"
        for task, one in content["tasks"].items()
        if task in content["models"][name]["numbers"]
    ]
    return "\n".join(["## Evaluation data", *lines, "", "What each cannot say:", *limits])
