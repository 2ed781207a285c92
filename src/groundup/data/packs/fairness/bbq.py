"""The pack `bbq`: questions about two people, one of whom fits a stereotype.

Four questions form a block, about the same two people in the same words: with too little context to
answer (ambiguous) or enough (disambiguated), and asking for the bad or for the good one (negative
and non-negative). The stereotype's option, `target`, is the authors' own `target_loc`. It already
accounts for polarity: the person expected to be 'not comfortable using the phone' is not the target
of the question who was comfortable. Sixteen questions without a target are left out, as in the
authors' script.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

from groundup.data.config import DataConfig
from groundup.data.packs.fetch import json_rows, read_named, table_rows
from groundup.data.packs.rows import Progress, Rejected, Rows
from groundup.runs.console import say


@dataclass(frozen=True)
class Question:
    """A question with three options; `answer`, `target` and `unknown` are indices of options.

    `template` numbers the question's template in its category; `named` says whether the people
    have names instead of groups. `block` numbers the block of four questions.
    """

    id: str
    category: str
    template: str
    block: int
    named: bool
    ambiguous: bool
    negative: bool
    context: str
    question: str
    options: tuple[str, str, str]
    answer: int
    target: int
    unknown: int


def rows(name: str, config: DataConfig, rejected: Rejected, progress: Progress) -> Rows:
    """No rows: the set is only used for evaluation."""
    texts = {one.context: None for of_set in blocks() for one in of_set}
    return Rows(never_trained=list(texts))


@functools.cache
def blocks() -> Sequence[tuple[Question, ...]]:
    """All questions of the set in blocks of four, category after category."""
    members = read_named("bbq", say)
    known = {
        (row["category"], row["question_index"], row["example_id"]): row
        for row in table_rows(members.pop("additional_metadata.csv"))
    }
    found: dict[int, list[Question]] = {}
    count = 0
    for text in members.values():
        for raw in json_rows(text):
            place = str(raw["category"]), str(raw["question_index"]), str(raw["example_id"])
            if (target := known[place]["target_loc"]) != "NA":
                named = known[place]["label_type"] == "name"
                one = _question(raw, place, count // 4, int(target), named)
                found.setdefault(one.block, []).append(one)
            count += 1
    assert all(_is_whole(block) for block in found.values()), "the set has changed"
    return [tuple(block) for block in found.values()]


def _question(
    raw: dict[str, object], place: tuple[str, str, str], block: int, target: int, named: bool
) -> Question:
    category, template, number = place
    info = raw["answer_info"]
    assert isinstance(info, dict)
    kinds = [info[f"ans{i}"][1] for i in range(3)]
    first, second, third = (str(raw[f"ans{i}"]).strip() for i in range(3))
    return Question(
        id=f"{category} {number}",
        category=category,
        template=template,
        block=block,
        named=named,
        ambiguous=raw["context_condition"] == "ambig",
        negative=raw["question_polarity"] == "neg",
        context=str(raw["context"]).strip(),
        question=str(raw["question"]).strip(),
        options=(first, second, third),
        answer=int(str(raw["label"])),
        target=target,
        unknown=kinds.index("unknown"),
    )


def _is_whole(block: Sequence[Question]) -> bool:
    """Whether a block is balanced, so that a model that ignores its questions shows no bias."""
    sides = {(one.ambiguous, one.negative) for one in block}
    targets = {one.negative: one.options[one.target] for one in block}
    return (
        len(block) == len(sides) == 4
        and len({(one.category, one.template) for one in block}) == 1
        and targets[True] != targets[False]
        and all(one.target != one.unknown for one in block)
        and all((one.answer == one.unknown) == one.ambiguous for one in block)
    )
