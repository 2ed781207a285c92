"""Scores an answer by the reference answer of its row.

    --reward groundup.align.rewards.reference_answer:reward

Prompts about the small world have a truth, which the gold reward knows. Everything else that a data
stage teaches, from newcomers' messages to questions about the real world, has a reference answer in
its row. An answer that says the same, or has the same label on the newcomers' page, scores 1.
Another scores its gold if there is a truth, and otherwise

    the reference says            the answer scores
    that it does not know         1/2 if it says so, too, else 0
    no to a harmful request       1 if it declines, too, else 0
    a story                       the share of its sentences that are of the world's stories
    anything else                 0

So a model is rewarded for not knowing only where it does not know. A bare no answers a question and
refuses nothing. An answer whose row has no reference scores its gold.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from groundup.data.packs.newcomers import has_same_label, says_unknown
from groundup.text.rows import Message
from groundup.text.saying_no import is_bare_refusal, is_refusal
from groundup.world import gold


def reward(
    prompts: Sequence[str], completions: Sequence[str], rows: Sequence[Mapping[str, Any]]
) -> list[float]:
    """The score of every answer, from 0 to 1.

    Each row holds all turns of its prompt as `messages`, and its reference as `answer`, if any.
    """
    return [
        worth([Message(turn["role"], turn["content"]) for turn in row["messages"]], said, row)
        for said, row in zip(completions, rows, strict=True)
    ]


def worth(prompt: Sequence[Message], answer: str, row: Mapping[str, Any]) -> float:
    """The score of an answer to the last turn of a prompt, from 0 to 1."""
    judged, reference = gold.judge(prompt, answer), row.get("answer")
    if not isinstance(reference, str | int | float):
        return judged.total
    reference = str(reference)
    if judged.by_truth:
        return max(judged.total, float(has_same_label(reference, answer)))
    # Without a truth, gold has said whether the answer is empty or unkind.
    return judged.total * _likeness(reference, answer)


def _likeness(reference: str, answer: str) -> float:
    if has_same_label(reference, answer):
        return 1.0
    if says_unknown(reference):
        return 0.5 * says_unknown(answer)
    if is_bare_refusal(reference):
        return float(is_bare_refusal(answer))
    if is_refusal(reference):
        return float(is_refusal(answer))
    return gold.form(answer) if gold.form(reference) else 0.0
