"""Which side of one's own data a row is on: training or held out.

The hash of what a row shares with others decides, so that it never depends on order, machine or
seed: the same row is always on the same side, and so are two answers to one question.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TypeVar

from groundup.text.cleaning import split_hash
from groundup.text.rows import Choice, Conversation, Document, Preference, RefusalPrompt

AnyRow = TypeVar("AnyRow", bound=Document | Conversation | Preference | Choice | RefusalPrompt)


def content(row: Document | Conversation | Preference | Choice | RefusalPrompt) -> Hashable:
    """What makes two rows the same: all but where they come from."""
    if isinstance(row, Document):
        return row.text
    if isinstance(row, Conversation):
        return row.messages
    if isinstance(row, Preference):
        return row.prompt, row.chosen, row.rejected
    return (row.prompt, row.options) if isinstance(row, Choice) else row.prompt


def hold_out(rows: Sequence[AnyRow], share: float) -> tuple[list[AnyRow], list[AnyRow]]:
    """The rows to train on and those held out, about `share` of them, each side in their order.

    At least one row is on each side as long as two differ; share 0 holds nothing out.
    """
    if share <= 0:
        return list(rows), []
    groups = [row.text if isinstance(row, Document) else row.group for row in rows]
    if len(set(groups)) < 2:
        # Everything answers one question: then the answers are told apart, or nothing could be.
        groups = [repr(content(row)) for row in rows]
    split_hashs = {group: split_hash(group) for group in groups}
    if len(split_hashs) < 2:
        return list(rows), []
    ordered = sorted(split_hashs, key=lambda group: split_hashs[group])
    count = sum(where < share for where in split_hashs.values())
    out = set(ordered[: min(max(count, 1), len(ordered) - 1)])
    train = [row for row, group in zip(rows, groups, strict=True) if group not in out]
    return train, [row for row, group in zip(rows, groups, strict=True) if group in out]
