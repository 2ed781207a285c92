"""Examples to learn from: token ids, and which of them are learned.

A conversation trains the assistant's words alone, a document every word of it. Both are the same
thing to a stream, so that a model can go on pre-training, be fine-tuned, or both at once.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from groundup.errors import UserError
from groundup.text.chat import ChatTokens, encode_chat, encode_chats
from groundup.text.rows import Conversation, Document, TrainingRow
from groundup.text.tokenizer import Tokenizer

# A template that takes none of so many rows takes next to none.
_TRIES = 100


@dataclass(frozen=True)
class Example:
    """A sequence of tokens; where `loss_mask[i]` is true, token i is learned.

    One that stands `alone` never goes on from another in one segment. `source` says where it is
    from, for whoever mixes sources.
    """

    ids: Sequence[int]
    loss_mask: Sequence[bool]
    alone: bool = False
    source: str = ""

    @property
    def inputs(self) -> int:
        """The number of positions of a row it takes: the last token is a target only."""
        return len(self.ids) - 1

    @property
    def teaches(self) -> bool:
        """Whether any target is learned; the first token is none."""
        return any(self.loss_mask[1:])


def cut_to(item: Example, context: int) -> Example:
    """The item's first `context` inputs."""
    return replace(item, ids=item.ids[: context + 1], loss_mask=item.loss_mask[: context + 1])


def conversation_item(
    tokenizer: Tokenizer, conversation: Conversation, tokens: ChatTokens | None = None
) -> Example:
    """A conversation by the tokenizer's chat template, with the assistant's tokens learned.

    `tokens` are those of the conversation, where they are known. Raises `UserError` as
    `encode_chat` does, and as its result does for answers of weight 0.
    """
    tokens = tokens or encode_chat(tokenizer, conversation.messages)
    learned = tokens.learned(conversation.messages)
    return Example(tokens.ids, learned, source=conversation.source)


def document_items(tokenizer: Tokenizer, document: Document, context: int) -> list[Example]:
    """A document as pre-training reads it, in pieces of at most `context` inputs, all learned.

    It begins with what the tokenizer begins texts with, else with the end of the text before, and
    ends with the end of a text. The last token of a piece is the first input of the next, so that
    every token but the first is a target exactly once.

    Raises `UserError` for a tokenizer that knows no end of a text.
    """
    end = tokenizer.end_of_text
    ids = [*(tokenizer.opening_ids or [end]), *tokenizer.encode(document.text), end]
    pieces = [ids[start : start + context + 1] for start in range(0, len(ids) - 1, context)]
    return [Example(one, [True] * len(one), alone=True, source=document.source) for one in pieces]


def _with_tokens(
    tokenizer: Tokenizer, rows: Sequence[TrainingRow]
) -> Iterator[tuple[TrainingRow, ChatTokens | UserError | None]]:
    """The rows, with the tokens of those that are conversations, or why they have none."""
    talks = [row.messages for row in rows if isinstance(row, Conversation)]
    tokens = encode_chats(tokenizer, talks)
    for row in rows:
        yield row, next(tokens) if isinstance(row, Conversation) else None


@dataclass(frozen=True)
class Encoded:
    """Encoded rows: item i is of row `row[i]`; `refused` are rows that could not be, and why."""

    items: list[Example]
    row: list[int]
    refused: list[tuple[int, str]]


def encode_rows(
    tokenizer: Tokenizer,
    rows: Sequence[TrainingRow],
    context: int,
    progress: Callable[[int], None] = lambda done: None,
) -> Encoded:
    """Every row as items. A row that the chat template or the tokenizer refuses is set aside.

    `progress` hears how many rows are done. Raises `UserError` with the first reason where every
    row is refused, or each of a hundred that are drawn from more: then it is not the rows.
    """
    some = random.Random(0).sample(rows, _TRIES) if len(rows) > _TRIES else ()
    tried = [tokens for _, tokens in _with_tokens(tokenizer, some)]
    if tried and all(isinstance(one, UserError) for one in tried):
        raise UserError(str(tried[0]))
    found = Encoded([], [], [])
    for place, (row, tokens) in enumerate(_with_tokens(tokenizer, rows)):
        try:
            if isinstance(row, Document):
                items = document_items(tokenizer, row, context)
            elif isinstance(tokens, UserError):
                raise tokens
            else:
                items = [conversation_item(tokenizer, row, tokens)]
        except UserError as reason:
            found.refused.append((place, str(reason)))
            if len(found.refused) == len(rows):
                raise UserError(found.refused[0][1]) from None
            continue
        found.items.extend(items)
        found.row.extend([place] * len(items))
        progress(place + 1)
    return found
