"""How much of the small world the data stage takes, and what of it is held out.

The world is made by a program, `groundup.world`: item i of seed s is the same on every
machine. A document is taken once, since a second reading of it teaches little; conversations and
pairs are taken as they are drawn, since how often something is asked is a part of the mixture. The
held-out side is always that of one seed, whatever seed trains.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import count
from typing import TypeVar

from groundup.data.config import DataConfig
from groundup.text.rows import Conversation, Document, Message, Preference, RefusalPrompt
from groundup.world import pack

HELDOUT_SEED = 0
# Enough to measure by: 150 KB are about 250 stories, 250 answers are right or wrong to 6 points.
_HELDOUT_BYTES = 150_000
# Of each source; and how many are drawn for them, since the rarest is about one in forty.
_HELDOUT_CONVERSATIONS, _CONVERSATIONS_DRAWN = 250, 6_000
_HELDOUT_PREFERENCES, _PREFERENCES_DRAWN = 200, 2_000

Asked = TypeVar("Asked", Conversation, Preference)


@dataclass(frozen=True)
class World:
    """What is taken of the world; nothing, where it is not asked for."""

    documents: Sequence[Document] = ()
    documents_heldout: Sequence[Document] = ()
    conversations: Sequence[Conversation] = ()
    conversations_heldout: Sequence[Conversation] = ()
    preferences: Sequence[Preference] = ()
    preferences_heldout: Sequence[Preference] = ()
    refusals: Sequence[RefusalPrompt] = ()


def world(config: DataConfig, progress: Callable[[str], None] | None = None) -> World:
    """As much of the world as the settings say, and the held-out side."""
    if progress is not None:
        progress(f"making {config.world_megabytes:g} MB of text about a small world")
    seed, bias, aside = config.seed, config.bias, HELDOUT_SEED
    return World(
        documents=_documents(
            (pack.document(seed, i, bias=bias) for i in count()), config.world_megabytes * 1e6
        ),
        documents_heldout=_documents(
            (pack.document(aside, i, bias=bias, heldout=True) for i in count()), _HELDOUT_BYTES
        ),
        conversations=[
            pack.conversation(seed, i, bias=bias) for i in range(config.world_conversations)
        ],
        conversations_heldout=_some_of_each(
            (pack.conversation(aside, i, heldout=True) for i in range(_CONVERSATIONS_DRAWN)),
            _HELDOUT_CONVERSATIONS,
        ),
        preferences=[pack.preference(seed, i) for i in range(config.world_preferences)],
        preferences_heldout=_some_of_each(
            (pack.preference(aside, i, heldout=True) for i in range(_PREFERENCES_DRAWN)),
            _HELDOUT_PREFERENCES,
        ),
        refusals=pack.refusal_prompts(),
    )


def _documents(drawn: Iterable[Document], size: float) -> list[Document]:
    """The first ones of together `size` bytes, exact repeats left out."""
    found: dict[str, Document] = {}
    written = 0
    for document in drawn:
        if written >= size:
            break
        if document.text not in found:
            found[document.text] = document
            written += len(document.text.encode())
    return list(found.values())


def _some_of_each(drawn: Iterable[Asked], most: int) -> list[Asked]:
    """The first `most` of each source; what is asked twice is tested once."""
    taken: Counter[str] = Counter()
    kept = []
    for row in {_prompt(row): row for row in drawn}.values():
        taken[row.source] += 1
        if taken[row.source] <= most:
            kept.append(row)
    return kept


def _prompt(row: Conversation | Preference) -> tuple[Message, ...]:
    return row.messages[:-1] if isinstance(row, Conversation) else row.prompt
