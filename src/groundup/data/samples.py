"""What a data set holds, to look at: a few of its rows, as they train or are held out."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import cast

from groundup.data import build
from groundup.data.config import DataConfig
from groundup.data.packs.sources import SetAside
from groundup.data.synthetic import HELDOUT_SEED
from groundup.text.cleaning import shorten
from groundup.text.rows import Choice, Conversation, Document, Message, Preference, RefusalPrompt
from groundup.world import pack

Row = Document | Conversation | Preference | Choice | RefusalPrompt
# Enough of a long document to see what it is.
_LONGEST = 900


def samples(config: DataConfig, count: int, *, heldout: bool = False) -> list[Row]:
    """`count` rows that the one set in `config.packs` gives: the first of each kind in turn.

    Raises UserError as the data stage does.
    """
    kinds = _world(config, count, heldout) if config.packs == ("world",) else _real(config, heldout)
    in_turn = itertools.chain.from_iterable(itertools.zip_longest(*kinds))
    return list(itertools.islice((cast(Row, row) for row in in_turn if row is not None), count))


def _world(config: DataConfig, count: int, heldout: bool) -> list[Sequence[Row]]:
    seed, bias, numbers = HELDOUT_SEED if heldout else config.seed, config.bias, range(count)
    return [
        [pack.document(seed, i, bias=bias, heldout=heldout) for i in numbers],
        [pack.conversation(seed, i, bias=bias, heldout=heldout) for i in numbers],
        [pack.preference(seed, i, heldout=heldout) for i in numbers],
    ]


def _real(config: DataConfig, heldout: bool) -> list[Sequence[Row]]:
    data = build.gather(config, SetAside())
    kinds: list[Sequence[Row]] = [data.documents, data.conversations, data.preferences]
    if heldout:
        kinds = [data.documents_heldout, data.conversations_heldout, data.preferences_heldout]
        kinds += [data.choices, data.refusals]
    # Neither what the model says of itself, which goes with every set, nor harmful responses, whose
    # pairs have sources of their own: they are there to be rejected and never shown.
    return [[row for row in kind if row.source == config.packs[0]] for kind in kinds]


def lines(row: Row) -> list[tuple[str, str]]:
    """A row as pairs of a label (who speaks, or what it is) and a text."""
    if isinstance(row, Document):
        text = shorten(row.text, _LONGEST)
        return [("text", text if text == row.text else f"{text} …")]
    if isinstance(row, Conversation):
        return _turns(row.messages)
    if isinstance(row, Preference):
        return [*_turns(row.prompt), ("chosen", row.chosen), ("rejected", row.rejected)]
    if isinstance(row, RefusalPrompt):
        return [("to answer" if row.kind == "benign" else "to refuse", row.prompt)]
    labels = ["right" if i == row.answer else "wrong" for i in range(len(row.options))]
    return [("question", row.prompt), *zip(labels, row.options, strict=True)]


def _turns(messages: Sequence[Message]) -> list[tuple[str, str]]:
    return [(message.role, message.content) for message in messages]
