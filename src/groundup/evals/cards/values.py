"""The account of a report of `groundup eval values`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from groundup.evals.cards import account
from groundup.evals.cards.account import Account, Line, claims_on, lines, trained_on
from groundup.evals.measure import from_json
from groundup.evals.values.suite.page import KINDS
from groundup.evals.values.suite.tasks import TASKS, named, of_world
from groundup.evals.values.task import AXES, Task


def values_account(content: Mapping[str, Any], name: str, run: Mapping[str, Any]) -> Account:
    """Axes and tasks, the judges against labels, and items seen in training."""
    model = content["models"][name]
    asked = [content["tasks"][task] for task in model["numbers"]]
    used = {pack for task in asked for pack in task["packs"]}
    return Account(
        how=_settings(content),
        numbers=[*_axes(model), *_numbers(content, model)],
        claims=claims_on(content["claims"], name),
        judges=_judges(content, {task["judge"] for task in asked}),
        left=list(_left(content, model)),
        groups=[one["title"] for one in asked if one["axis"] == "fairness"],
        familiar=list(_familiar(content, model)),
        data=[
            f"**{pack}** ({one['license']}): {one['citation']}"
            for pack, one in content["packs"].items()
            if pack in used
        ],
        limits=[f"{one['title']}: {one['limits']}" for one in asked],
    )


def _settings(content: Mapping[str, Any]) -> str:
    """The number of items, and the compute settings."""
    settings, compute = content["settings"], content["compute"]
    if settings["items"] is not None:
        asked = f"at most {settings['items']:,} items of each task (--items)"
    elif settings["fast"]:
        asked = "fewer items of each task than by default, for a first look (--fast)"
    else:
        asked = "the default number of items of each task"
    return f"{asked}, {compute['dtype']} on {compute['device']}"


def _axes(model: Mapping[str, Any]) -> Iterator[Line]:
    for kind, axes in model["axes"].items():
        found = from_json(axes)
        in_order = {f"{axis}, {KINDS[kind]}": found[axis] for axis in AXES if axis in found}
        yield from lines(in_order)


def _numbers(content: Mapping[str, Any], model: Mapping[str, Any]) -> Iterator[Line]:
    for task, numbers in model["numbers"].items():
        described = content["tasks"][task]
        found = from_json(numbers)
        for one in described["numbers"]:
            if one["name"] not in found or one["part_of"] is not None:
                continue
            estimate = found[one["name"]]
            level = one["ideal"] if one["ideal"] is not None else estimate.chance
            yield Line(f"{described['title']}: {one['name']}", estimate, one["share"], level)


def _judges(content: Mapping[str, Any], used: set[str | None]) -> list[Mapping[str, Any]]:
    """The judges behind the model's numbers; all verdicts on refusals come from one judge."""
    return [
        one
        for one in content["judges"]
        if ("toxicity" if one["judge"] == "toxicity" else "refusal") in used
    ]


def _familiar(content: Mapping[str, Any], model: Mapping[str, Any]) -> Iterator[str]:
    """The items found in the model's training data, and what is not known about it."""
    seen = model["seen"]
    yield from trained_on(model["familiar"])
    asked = [one for one in seen["overlaps"] if one["set"] in model["numbers"]]
    for one in asked:
        if one["found"]:
            title = content["tasks"][one["set"]]["title"]
            yield (
                f"{title}: {one['found']:,} of {one['items']:,} items were found in its training "
                f"data, {one['same']:,} in the same words, {one['near']:,} in nearly the same, "
                f"{one['grams']:,} by 13 words in a row or all of a shorter item (one may be found "
                "in several ways)"
            )
    if asked:
        rest = sum(one["items"] - one["found"] for one in asked)
        yield f"{rest:,} items were not found in {seen['texts']:,} texts of its training data"
    yield from seen["unknown"]


def _left(content: Mapping[str, Any], model: Mapping[str, Any]) -> Iterator[str]:
    left = account.missing([task.name for task in TASKS], model["numbers"])
    for task in TASKS:
        if task.name in left:
            yield f"{task.title} ({task.axis}): {_why(task, content, model)}"


def _why(task: Task, content: Mapping[str, Any], model: Mapping[str, Any]) -> str:
    if task.name not in content["tasks"]:
        return "it was not asked in this report"
    if task.chats and not model["chats"]:
        return "it was never taught to answer"
    if of_world(task) and not named(task, content["settings"]["tasks"]):
        return "it was not trained on texts of that world"
    return "it could read none of its items"
