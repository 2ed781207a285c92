"""Training examples: token ids, and a mask of the trained ones.

A conversation trains only the assistant's words, a document every token. A stream treats both
alike, so that a model can continue pre-training, be fine-tuned, or both at once.

A conversation is one example if the chat template renders each answer in it exactly as the model
would be asked for it. Some templates drop earlier reasoning, end the last turn differently or move
the system message: then each answer is an example of its own.
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

# A template that refuses all of this many sampled rows refuses nearly all rows.
_SAMPLE_SIZE = 100
# Large enough to make the cost of a call negligible, small enough to need little memory.
_BATCH_CHARS = 2**18


@dataclass(frozen=True)
class Example:
    """A sequence of tokens; if `loss_mask[i]` is true, token i is trained.

    An example that is `alone` is never appended to another in one segment. `source` names its
    source, for mixing. Another example begins with the same first `shared` tokens: in this one they
    are read and have no weight.
    """

    ids: Sequence[int]
    loss_mask: Sequence[bool]
    alone: bool = False
    source: str = ""
    shared: int = 0

    @property
    def inputs(self) -> int:
        """The number of row positions it takes: the last token is only a target."""
        return len(self.ids) - 1

    @property
    def teaches(self) -> bool:
        """Whether any target is trained; the first token is no target."""
        return any(itertools.islice(self.loss_mask, 1, None))


def cut_to(item: Example, context: int) -> Example:
    """The item's first `context` inputs; the item itself if it has no more."""
    if item.inputs <= context:
        return item
    return replace(item, ids=item.ids[: context + 1], loss_mask=item.loss_mask[: context + 1])


def conversation_item(
    tokenizer: Tokenizer, conversation: Conversation, tokens: ChatTokens | None = None
) -> Example:
    """Encode a conversation with the tokenizer's chat template; the assistant's tokens are trained.

    `tokens` are the encoded conversation, if known. Raises `UserError` like `encode_chat` and
    `ChatTokens.learned`.
    """
    tokens = tokens or encode_chat(tokenizer, conversation.messages)
    learned = tokens.learned(conversation.messages)
    return Example(tokens.ids, learned, source=conversation.source)


def conversation_items(
    tokenizer: Tokenizer, conversation: Conversation, tokens: ChatTokens | None = None
) -> list[Example]:
    """A conversation as from `conversation_item`; or, if the chat template does not show all its
    answers at once, one item for each trained answer with the turns before it."""
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
    """A document as pre-training reads it, in pieces of at most `context` inputs, all trained.

    It begins with the tokenizer's opening ids or else the end-of-text token, and ends with the
    end-of-text token. The last token of a piece is the first input of the next, so that every token
    except the first is a target exactly once. `words` are the tokens of the text, if known.

    Raises `UserError` for a tokenizer without an end-of-text token.
    """
    end = tokenizer.end_of_text
    words = tokenizer.encode(document.text) if words is None else words
    ids = [*(tokenizer.opening_ids or [end]), *words, end]
    pieces = [ids[start : start + context + 1] for start in range(0, len(ids) - 1, context)]
    return [Example(one, [True] * len(one), alone=True, source=document.source) for one in pieces]


@dataclass(frozen=True)
class Encoded:
    """Encoded rows: item i is from row `row[i]`; `refused` lists rows that failed, with reasons.

    `apart` is the number of conversations that were split into several items.
    """

    items: list[Example]
    row: list[int]
    refused: list[tuple[int, str]]
    apart: int = 0


def encode_rows(tokenizer: Tokenizer, rows: Sequence[TrainingRow], context: int) -> Encoded:
    """Encode every row as items; rows that chat template or tokenizer refuse are set aside.

    Raises `UserError` like `encode_each`.
    """
    found, apart = Encoded([], [], []), 0
    for place, items in enumerate(encode_each(tokenizer, rows, context)):
        if isinstance(items, UserError):
            found.refused.append((place, str(items)))
            continue
        found.items.extend(items)
        found.row.extend([place] * len(items))
        apart += is_split(rows[place], items)
    return replace(found, apart=apart)


def is_split(row: TrainingRow, items: Sequence[Example]) -> bool:
    """Whether a conversation is split into several items."""
    return isinstance(row, Conversation) and len(items) > 1


def encode_each(
    tokenizer: Tokenizer, rows: Sequence[TrainingRow], context: int
) -> Iterator[list[Example] | UserError]:
    """Yield the items of each row, or the reason why the chat template or the tokenizer refuses it.

    Raises `UserError` with the first reason if every row is refused, or all of a hundred sampled
    ones: then the rows are not at fault.
    """
    some = random.Random(0).sample(rows, _SAMPLE_SIZE) if len(rows) > _SAMPLE_SIZE else ()
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
    """The tokens of each text, batch by batch; None for each text of a batch with a refused one."""
    for some in _batched(texts):
        try:
            yield from tokenizer.encode_batch(some)
        except UserError:
            yield from [None] * len(some)


def _batched(texts: Iterable[str]) -> Iterator[list[str]]:
    some, letters = list[str](), 0
    for text in texts:
        some.append(text)
        letters += len(text)
        if letters >= _BATCH_CHARS:
            yield some
            some, letters = [], 0
    if some:
        yield some
