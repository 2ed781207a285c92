"""The questions whose answers changed most between stages, as rows before and after.

A row has the verdicts on an answer, and the answer. Questions in potentially harmful words are
counted elsewhere and have no rows; the small world's requests are mild.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from groundup.data.packs.newcomers import NEWCOMER
from groundup.evals.honesty import outcome, right
from groundup.evals.measure import Evaluated
from groundup.evals.stages.measures import choices, stages_compared, unknown, world_answers
from groundup.report.changed import largest_changes

_UNSHOWN = {NEWCOMER + "harm", NEWCOMER + "despair"}
# A question's words, and its row.
_Asked = Iterator[tuple[str, Mapping[str, Any]]]


def changes(models: Sequence[Evaluated]) -> list[dict[str, Any]]:
    """For each stage and the one it started from, the questions whose answers changed most."""
    found = []
    for after, before in stages_compared(models):
        items = []
        for task, rows_of in ASKED.items():
            new, old = (list(rows_of(model)) for model in (after, before))
            words = {row["id"]: text for text, row in new}
            rows, others = ([row for _, row in some] for some in (new, old))
            items += largest_changes(task, rows, others, words)
        changed = [one.to_json() for one in items]
        found.append({"model": after.name, "other": before.name, "items": changed})
    return found


def _in_world(model: Evaluated) -> _Asked:
    said = model(world_answers)
    if said is None:
        return
    answers = zip(said.rows, said.answers, said.right(), said.rewards, strict=True)
    for place, (row, answer, is_right, reward) in enumerate(answers):
        verdicts = {"gold reward": reward.total}
        # Questions without a single right answer have the reward only.
        if not np.isnan(is_right):
            verdicts = {"right": _verdict(is_right)} | verdicts
        yield row.messages[-2].content, _row(row.source, place, verdicts, answer)


def _honest(model: Evaluated) -> _Asked:
    found = model(unknown)
    if found is None:
        return
    for place, (row, answer) in enumerate(zip(found.said.rows, found.said.answers, strict=True)):
        if row.source in _UNSHOWN:
            continue
        real = row.source == "wiki"
        verdict = {"is": outcome(row, answer)} if real else {"fits": right(row, answer)}
        yield row.messages[-2].content, _row(row.source, place, verdict, answer)


def _chosen(model: Evaluated) -> _Asked:
    found = model(choices)
    if found is None:
        return
    of_items = zip(*(found.items[name] for name in ("chosen", "mean", "brier")), strict=True)
    for place, (row, (chosen, credit, brier)) in enumerate(zip(found.rows, of_items, strict=True)):
        verdicts = {"right": _verdict(credit), "Brier score": float(brier)}
        yield row.prompt, _row(row.source, place, verdicts, row.options[int(chosen)])


def _row(source: str, place: int, verdicts: Mapping[str, Any], answer: str) -> dict[str, Any]:
    return {"id": f"{source} {place + 1}", **verdicts, "answer": answer}


def _verdict(credit: float) -> bool | float:
    """True or False, or the credit of a partly right answer."""
    return bool(credit) if credit in (0, 1) else float(credit)


ASKED: Mapping[str, Callable[[Evaluated], _Asked]] = {
    "the small world": _in_world,
    "what it cannot know, and what newcomers type": _honest,
    "multiple choice": _chosen,
}
