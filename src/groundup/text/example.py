"""Examples to learn from: token ids, and which of them are learned.

A conversation trains the assistant's words alone, a document every word of it. Both are the same
thing to a stream, so that a model can go on pre-training, be fine-tuned, or both at once.

A conversation is one example where the chat template writes it so that each answer stands in it as
the model would be asked for it. Some templates drop earlier reasoning, end the last turn in another
way or move the system's message: then each answer is an example of its own.
"""

from __future__ import annotations

import itertools
import operator
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from groundup.errors import UserError
from groundup.text.chat import ChatTokens, encode_chat, encode_chats, encode_last_answer
from groundup.text.rows import Conversation, Document, TrainingRow
from groundup.text.tokenizer import Tokenizer

# A template that takes none of so many rows takes next to none.
_TRIES = 100
# So many that a call costs nothing beside them, and so few that their tokens take no memory.
_LETTERS_AT_ONCE = 2**18


@dataclass(frozen=True)
class Example:
    """A sequence of tokens; where `loss_mask[i]` is true, token i is learned.

    One that stands `alone` never goes on from another in one segment. `source` says where it is
    from, for whoever mixes sources. Another example begins with the same first `shared` tokens: in
    this one they are read and have no weight.
    """

    ids: Sequence[int]
    loss_mask: Sequence[bool]
    alone: bool = False
    source: str = ""
    shared: int = 0

    @property
    def inputs(self) -> int:
        """The number of positions of a row it takes: the last token is a target only."""
        return len(self.ids) - 1

    @property
    def teaches(self) -> bool:
        """Whether any target is learned; the first token is none."""
        return any(itertools.islice(self.loss_mask, 1, None))


def cut_to(item: Example, context: int) -> Example:
    """The item's first `context` inputs; the item itself where it has no more."""
    if item.inputs <= context:
        return item
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


def conversation_items(
    tokenizer: Tokenizer, conversation: Conversation, tokens: ChatTokens | None = None
) -> list[Example]:
    """A conversation as `conversation_item` gives it; where the chat template does not show all of
    its answers at once, one such item for each answer that is learned, and what stands before it.
    """
    tokens = tokens or encode_chat(tokenizer, conversation.messages)
    if not tokens.last_only:
        return [conversation_item(tokenizer, conversation, tokens)]
    items, before = list[Example](), list[int]()
    for end, message in enumerate(conversation.messages, 1):
        if message.role == "assistant" and message.weight == 1:
            one = encode_last_answer(tokenizer, conversation.messages[:end])
            shared = sum(itertools.takewhile(bool, map(operator.eq, before, one.ids)))
            items.append(Example(one.ids, one.assistant, True, conversation.source, shared))
            before = one.ids
    return items


def document_items(
    tokenizer: Tokenizer, document: Document, context: int, words: Sequence[int] | None = None
) -> list[Example]:
    """A document as pre-training reads it, in pieces of at most `context` inputs, all learned.

    It begins with what the tokenizer begins texts with, else with the end of the text before, and
    ends with the end of a text. The last token of a piece is the first input of the next, so that
    every token but the first is a target exactly once. `words` are the tokens of the text, where
    they are known.

    Raises `UserError` for a tokenizer that knows no end of a text.
    """
    end = tokenizer.end_of_text
    words = tokenizer.encode(document.text) if words is None else words
    ids = [*(tokenizer.opening_ids or [end]), *words, end]
    pieces = [ids[start : start + context + 1] for start in range(0, len(ids) - 1, context)]
    return [Example(one, [True] * len(one), alone=True, source=document.source) for one in pieces]


@dataclass(frozen=True)
class Encoded:
    """Encoded rows: item i is of row `row[i]`; `refused` are rows that could not be, and why.

    So many conversations were taken `apart` into several items.
    """

    items: list[Example]
    row: list[int]
    refused: list[tuple[int, str]]
    apart: int = 0


def encode_rows(tokenizer: Tokenizer, rows: Sequence[TrainingRow], context: int) -> Encoded:
    """Every row as items. A row that the chat template or the tokenizer refuses is set aside.

    Raises `UserError` as `encode_each` does.
    """
    found, apart = Encoded([], [], []), 0
    for place, items in enumerate(encode_each(tokenizer, rows, context)):
        if isinstance(items, UserError):
            found.refused.append((place, str(items)))
            continue
        found.items.extend(items)
        found.row.extend([place] * len(items))
        apart += is_apart(rows[place], items)
    return replace(found, apart=apart)


def is_apart(row: TrainingRow, items: Sequence[Example]) -> bool:
    """Whether a conversation is taken apart into several items."""
    return isinstance(row, Conversation) and len(items) > 1


def encode_each(
    tokenizer: Tokenizer, rows: Sequence[TrainingRow], context: int
) -> Iterator[list[Example] | UserError]:
    """The items of one row after the other, or why the chat template or the tokenizer refuses it.

    Raises `UserError` with the first reason where every row is refused, or each of a hundred that
    are drawn from more: then it is not the rows.
    """
    some = random.Random(0).sample(rows, _TRIES) if len(rows) > _TRIES else ()
    talks = [row.messages for row in some if isinstance(row, Conversation)]
    if some and len(talks) == len(some):
        tried = list(encode_chats(tokenizer, talks))
        if all(isinstance(one, UserError) for one in tried):
            raise UserError(str(tried[0]))
    chats = encode_chats(tokenizer, [row.messages for row in rows if isinstance(row, Conversation)])
    words = _words(tokenizer, (row.text for row in rows if isinstance(row, Document)))
    first, refused = None, 0
    for row in rows:
        try:
            if isinstance(row, Document):
                items = document_items(tokenizer, row, context, next(words))
            else:
                tokens = next(chats)
                if isinstance(tokens, UserError):
                    raise tokens
                items = conversation_items(tokenizer, row, tokens)
        except UserError as reason:
            first, refused = first or str(reason), refused + 1
            if refused == len(rows):
                raise UserError(first) from None
            yield reason.with_traceback(None)
            continue
        yield items


def _words(tokenizer: Tokenizer, texts: Iterable[str]) -> Iterator[Sequence[int] | None]:
    """The tokens of each text, many at once; None for all of those among which one is refused."""
    for some in _together(texts):
        try:
            yield from tokenizer.encode_batch(some)
        except UserError:
            yield from [None] * len(some)


def _together(texts: Iterable[str]) -> Iterator[list[str]]:
    some, letters = list[str](), 0
    for text in texts:
        some.append(text)
        letters += len(text)
        if letters >= _LETTERS_AT_ONCE:
            yield some
            some, letters = [], 0
    if some:
        yield some
