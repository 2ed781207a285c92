"""A few rows of a data set, for display: training or held-out ones."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import cast

from groundup.data.config import DataConfig
from groundup.data.packs.manifest import GeneratedSet, find_set
from groundup.data.packs.rows import Rejected, gather, page_of
from groundup.errors import UserError
from groundup.text.cleaning import cut_to_sentences
from groundup.text.rows import AnyRow, Conversation, Document, Message, Preference, RefusalPrompt

# Enough of a long document to recognize it.
_LONGEST = 900


def samples(config: DataConfig, count: int, *, heldout: bool = False) -> list[AnyRow]:
    """`count` rows of the one set in `config.packs`: the first of each kind in turn.

    Raises UserError like the data stage, and for a set of harmful texts.
    """
    (name,) = config.packs
    if getattr(find_set(name), "harmful", False):
        raise UserError(
            f"the texts of {name!r} are harmful: they are counted and never shown; "
            "groundup data list says what they are for"
        )
    if isinstance(find_set(name), GeneratedSet):
        kinds: list[Sequence[AnyRow]] = page_of(name).samples(config, count, heldout)
    else:
        data = gather(config, Rejected())
        kinds = [data.documents, data.conversations, data.preferences]
        if heldout:
            kinds = [data.documents_heldout, data.conversations_heldout, data.preferences_heldout]
            kinds += [data.choices, data.refusals]
        # Leaves out the model's statements about itself, which come with every set, and pairs with
        # harmful responses, which have their own sources: these are never shown.
        kinds = [[row for row in kind if row.source == name] for kind in kinds]
    in_turn = itertools.chain.from_iterable(itertools.zip_longest(*kinds))
    return list(itertools.islice((cast(AnyRow, row) for row in in_turn if row is not None), count))


def lines(row: AnyRow) -> list[tuple[str, str]]:
    """A row as pairs of a label (the speaker, or the kind of text) and a text."""
    if isinstance(row, Document):
        text = cut_to_sentences(row.text, _LONGEST)
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
