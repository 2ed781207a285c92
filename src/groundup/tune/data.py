"""What fine-tuning reads: own rows of several sources, general text beside them, as marked tokens.

A conversation is trained where the assistant speaks, a document everywhere. That is all that is
different between supervised fine-tuning and continued pre-training on a domain.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence, Set
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from groundup.evals.score import spread
from groundup.text.marked import Items, Marked, cut_to, encode_rows
from groundup.text.own_data import read_each, read_own
from groundup.text.packing import ConversationStream
from groundup.text.records import Conversation, Document
from groundup.text.splitting import content
from groundup.text.tokenizer import Tokenizer
from groundup.train.progress import say
from groundup.tune.config import SFTConfig

# Held-out items scored at each evaluation on the way, and the most tokens of them: conversations
# can be long, and measuring is not to outlast training.
_CURVE_ITEMS, _CURVE_TOKENS = 300, 20_000
_CHARACTERS_A_TOKEN = 8

Row = Conversation | Document


@dataclass(frozen=True)
class TuningData:
    """A stream of batches, what is held out to judge by, and what was set aside on the way.

    `tokenizer` is the model's, with a chat template if there are `chats` among the rows.
    """

    tokenizer: Tokenizer
    stream: ConversationStream
    heldout: Sequence[Marked]
    counts: Mapping[str, Any]
    chats: bool


@dataclass(frozen=True)
class _Part:
    """The training items of one source, as the settings name it, and where each says it is from."""

    name: str
    items: Sequence[Marked]
    sources: Sequence[str]

    def tokens(self, context: int) -> int:
        """What a row of `context` can hold of its items, those apart that teach nothing there."""
        cut = (cut_to(item, context) for item in self.items)
        return sum(item.inputs for item in cut if any(item.trained[1:]))


def read_data(config: SFTConfig, tokenizer: Tokenizer, context: int) -> TuningData:
    """All that `config` names, read, encoded and laid out. Raises `UserError` for what cannot be
    used."""
    names = [str(at) for at in config.data]
    found = read_each(config.data, columns=config.column_names, validation=config.validation)
    own = dict(zip(names, found, strict=True))
    chats = any(isinstance(row, Conversation) for read in found for row in read.train)
    tokenizer = tokenizer.able_to_chat() if chats else tokenizer
    wanted = None if config.steps is None else config.steps * config.rows * context
    parts, heldout, refused, unread = list[_Part](), list[Marked](), 0, 0
    for name, read in own.items():
        for line in read.bad:
            say(str(line))
        rows = _enough(read.train, wanted, context, config.seed)
        unread += len(read.train) - len(rows)
        encoded = encode_rows(tokenizer, rows, context)
        refused += _told(name, encoded)
        parts.append(_Part(name, encoded.items, [rows[i].source for i in encoded.row]))
        if read.heldout:
            heldout += encode_rows(tokenizer, spread(read.heldout, _CURVE_ITEMS), context).items
    sizes = [part.tokens(context) for part in parts]
    weights, tokens = _weights(config, parts, sizes), sum(sizes)
    if config.replay:
        known = {content(row) for read in found for row in read.heldout}
        parts += _replayed(config, tokenizer, context, wanted, known)
    stream = ConversationStream(
        [item for part in parts for item in part.items],
        # Weights are given for whole sources; without them, balance looks at the finer ones.
        sources=[s if weights is None else p.name for p in parts for s in p.sources],
        balance=config.balance,
        world=config.world,
        weights=weights,
        # General text comes on top: an epoch is still one pass over one's own.
        epoch_tokens=round(tokens / (1 - config.replay)),
        layout=config.layout,
        prompt_weight=config.prompt_weight,
        chained=config.chained,
        context=context,
        rows=config.rows,
        micro_rows=config.micro(context),
        seed=config.seed,
    )
    counts = {
        **asdict(stream.counts),
        "bad_lines": sum(len(read.bad) for read in own.values()),
        "refused": refused,
        "duplicates": sum(read.duplicates for read in own.values()),
        "unread": unread,
        "heldout": sum(len(read.heldout) for read in own.values()),
    }
    return TuningData(tokenizer, stream, _few(heldout), counts, chats)


def _few(heldout: Sequence[Marked]) -> Sequence[Marked]:
    """Some of the held-out items, evenly spaced, of about as many tokens as may be."""
    tokens = sum(item.inputs for item in heldout)
    return spread(heldout, min(_CURVE_ITEMS, -(-_CURVE_TOKENS * len(heldout) // max(tokens, 1))))


def _weights(
    config: SFTConfig, parts: Sequence[_Part], sizes: Sequence[int]
) -> dict[str, float] | None:
    """Each source's share of the tokens; None where all are taken as they come."""
    if config.weights is None and not config.replay:
        return None
    given = config.weights or [float(size) for size in sizes]
    own = {
        part.name: (1 - config.replay) * weight / sum(given)
        for part, weight in zip(parts, given, strict=True)
    }
    replayed = {str(at): config.replay / len(config.replay_data) for at in config.replay_data}
    return own | (replayed if config.replay else {})


def _enough(rows: Sequence[Row], tokens: int | None, context: int, seed: int) -> Sequence[Row]:
    """As many rows as so many tokens need, drawn at random; all of them without a number.

    Encoding a large file takes longer than a short training on a little of it.
    """
    if tokens is None:
        return rows
    order = np.random.default_rng(seed).permutation(len(rows))
    # A row is cut at the context. Four characters a token are usual in English; eight are not.
    lengths = np.array([min(_characters(rows[i]), 4 * context) for i in order])
    before = np.cumsum(lengths) - lengths
    return [rows[i] for i in sorted(order[before < _CHARACTERS_A_TOKEN * tokens])]


def _characters(row: Row) -> int:
    if isinstance(row, Document):
        return len(row.text)
    return sum(len(message.content) for message in row.messages)


def _replayed(
    config: SFTConfig,
    tokenizer: Tokenizer,
    context: int,
    tokens: int | None,
    heldout: Set[Hashable],
) -> list[_Part]:
    """The general text of replay, without what is held out of one's own."""
    parts = []
    for at in config.replay_data:
        read = read_own([at])
        for line in read.bad:
            say(str(line))
        general = [row for row in read.train if content(row) not in heldout]
        rows = _enough(general, tokens, context, config.seed)
        found = encode_rows(tokenizer, rows, context)
        _told(str(at), found)
        parts.append(_Part(str(at), found.items, [rows[i].source for i in found.row]))
    return parts


def _told(name: str, found: Items) -> int:
    """Say how many rows of a source its chat template refused, and why it refused the first."""
    if found.refused:
        row, reason = found.refused[0]
        say(
            f"{name}: {len(found.refused)} rows are set aside, the first is row {row + 1}: {reason}"
        )
    return len(found.refused)


def locations(config: SFTConfig) -> dict[str, Path]:
    """The sources that lie somewhere, by the names under which a run remembers them."""
    named = {"data": config.data, "replay": config.replay_data if config.replay else ()}
    return {
        f"{name} {i + 1}" if i else name: at
        for name, sources in named.items()
        for i, at in enumerate(at for at in sources if at.exists())
    }
