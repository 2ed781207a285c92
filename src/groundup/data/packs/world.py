"""The set `world`: how much of the small world is used, and what is held out.

A program, `groundup.world`, generates the world: item i of seed s is the same on every machine. A
document is used once, because a second reading teaches little; conversations and pairs are used as
they are sampled, because the frequency of questions is part of the mixture. The held-out side
always has the same seed, whatever the training seed. If a model is to admit what it does not know,
newcomers' messages are added (`newcomers.py`).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import chain
from typing import TypeVar

from groundup.data.config import DataConfig
from groundup.data.packs import newcomers, wiki
from groundup.data.packs.rows import HELDOUT_SEED, Progress, Rejected, Rows
from groundup.runs.parallel import on_all_cores, split_range
from groundup.text.cleaning import split_hash
from groundup.text.rows import AnyRow, Conversation, Document, Message, Preference
from groundup.world import pack

# Enough to measure: 150 KB are about 250 stories; 250 answers measure accuracy to 6 points.
_HELDOUT_BYTES = 150_000
# Held-out rows per source; and the number sampled for them, because the rarest is one in forty.
_HELDOUT_CONVERSATIONS, _CONVERSATIONS_DRAWN = 250, 6_000
_HELDOUT_PREFERENCES, _PREFERENCES_DRAWN = 200, 2_000
# Newcomers' rows for training, per conversation and per pair of the world.
_NEWCOMERS = 1.0
# Questions about held-out articles, and newcomers' turns: enough to measure shares to 5 points.
_HELDOUT_ARTICLES, _HELDOUT_NEWCOMERS = 300, 900

# Generating fewer than this takes less time than starting a process.
_MIN_PART = 1_000
# The approximate size of a document, from which their number is estimated.
_DOCUMENT_BYTES = 440

Row = TypeVar("Row", Document, Conversation, Preference)
Sampled = TypeVar("Sampled", Conversation, Preference)


def rows(name: str, config: DataConfig, rejected: Rejected, progress: Progress) -> Rows:
    """As much of the world as the settings request, and its held-out side.

    Includes newcomers' rows if a model is to decline what it cannot know.
    """
    if progress is not None:
        progress(f"making {config.world_megabytes:g} MB of text about a small world")
    made = _world(config)
    if config.unknown == "answered":
        return made
    read = wiki.articles(Rejected()) if "wiki" in config.packs else []
    return Rows.together([made, _newcomers(config, read)])


def _world(config: DataConfig) -> Rows:
    seed, bias = config.seed, config.bias
    return Rows(
        documents=_documents(
            partial(pack.document, seed, bias=bias, morals_share=config.morals),
            config.world_megabytes * 1e6,
        ),
        documents_heldout=_documents(
            partial(pack.document, HELDOUT_SEED, bias=bias, heldout=True), _HELDOUT_BYTES
        ),
        conversations=_sampled(
            partial(pack.conversation, seed, bias=bias), config.world_conversations
        ),
        conversations_heldout=_some_of_each(
            _sampled(partial(pack.conversation, HELDOUT_SEED, heldout=True), _CONVERSATIONS_DRAWN),
            _HELDOUT_CONVERSATIONS,
        ),
        preferences=_sampled(partial(pack.preference, seed), config.world_preferences),
        preferences_heldout=_some_of_each(
            _sampled(partial(pack.preference, HELDOUT_SEED, heldout=True), _PREFERENCES_DRAWN),
            _HELDOUT_PREFERENCES,
        ),
        refusals=pack.refusal_prompts(),
        stock_answers=[answer for row in newcomers.ANSWERS.values() for answer in row],
    )


def _newcomers(config: DataConfig, articles: Sequence[wiki.Article]) -> Rows:
    """Newcomers' turns, which name the articles, and answered questions about held-out ones."""
    heldout = [one for one in articles if wiki.title_is_heldout(one.title)]
    train = [one for one in articles if not wiki.title_is_heldout(one.title)]
    some = newcomers.Newcomers(newcomers.Topics.of(train))
    others = newcomers.Newcomers(newcomers.Topics.of(heldout), heldout=True)
    said = (others.conversation(HELDOUT_SEED, i) for i in range(_HELDOUT_NEWCOMERS))
    asked = {
        one.group: one
        for one in wiki.asked_once(heldout)
        if not newcomers.is_of_the_world(one.messages[0].content)
    }.values()
    real = sorted(asked, key=lambda one: split_hash(one.group))[:_HELDOUT_ARTICLES]
    conversations, pairs = config.world_conversations, config.world_preferences
    return Rows(
        conversations=_sampled(
            partial(some.conversation, config.seed), round(_NEWCOMERS * conversations)
        ),
        preferences=_sampled(partial(some.preference, config.seed), round(_NEWCOMERS * pairs)),
        unknown=[*real, *{one.messages[:-1]: one for one in said}.values()],
    )


def samples(config: DataConfig, count: int, heldout: bool) -> list[Sequence[AnyRow]]:
    """The first rows of each kind, without generating a whole set."""
    seed, bias, numbers = HELDOUT_SEED if heldout else config.seed, config.bias, range(count)
    return [
        [pack.document(seed, i, bias=bias, heldout=heldout) for i in numbers],
        [pack.conversation(seed, i, bias=bias, heldout=heldout) for i in numbers],
        [pack.preference(seed, i, heldout=heldout) for i in numbers],
    ]


def holds_a_heldout_combination(text: str) -> bool:
    """Whether a training text names a person and a thing that occur together only in the test."""
    return pack.is_heldout_combination(text)


def _sampled(item: Callable[[int], Row], count: int, start: int = 0) -> list[Row]:
    """Items `start` to `start + count - 1`, generated on all cores."""
    parts = [range(start + one.start, start + one.stop) for one in split_range(count, _MIN_PART)]
    made = on_all_cores(partial(_items, item), parts)
    return list(chain.from_iterable(made))


def _items(item: Callable[[int], Row], numbers: Iterable[int]) -> list[Row]:
    return [item(number) for number in numbers]


def _documents(item: Callable[[int], Document], size: float) -> list[Document]:
    """The first documents that total `size` bytes, without exact repeats."""
    found: dict[str, Document] = {}
    written = made = 0
    while written < size:
        some = _sampled(item, math.ceil((size - written) / _DOCUMENT_BYTES), made)
        made += len(some)
        for document in some:
            if written < size and document.text not in found:
                found[document.text] = document
                written += len(document.text.encode())
    return list(found.values())


def _some_of_each(drawn: Iterable[Sampled], most: int) -> list[Sampled]:
    """The first `most` of each source; repeated questions are tested once."""
    taken: Counter[str] = Counter()
    kept = []
    for row in {_prompt(row): row for row in drawn}.values():
        taken[row.source] += 1
        if taken[row.source] <= most:
            kept.append(row)
    return kept


def _prompt(row: Conversation | Preference) -> tuple[Message, ...]:
    return row.messages[:-1] if isinstance(row, Conversation) else row.prompt
