"""Held-out conversations: how well a model predicts the assistant's turns.

    loss = - sum log p(token | all before it) / tokens        over the assistant's tokens, in nats

The tokens are those that fine-tuning trains on: the assistant's words and the control token that
ends its turn. Bits per byte counts the words alone, so that it compares with that of documents.
Every model reads the same chat format, even a base model, whose loss shows what it has yet to
learn. Conversations about one article or question form one group.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from groundup.evals.by_source import by_source
from groundup.lm.logprobs import score
from groundup.lm.model import CausalLM
from groundup.report.estimate import BySource
from groundup.text.chat import encode_chat
from groundup.text.example import Example, conversation_items, cut_to
from groundup.text.rows import Conversation, Message, as_dicts
from groundup.text.tokenizer import Tokenizer


def tokenize_answer(
    tokenizer: Tokenizer, prompt: Sequence[Message], answer: str, context: int
) -> Example:
    """A prompt and the assistant's answer to it, whose tokens are scored.

    If both together exceed the context, the last prompt is cut at its beginning, because its end
    has the question; cutting at the end would lose the answer itself.
    """
    content = prompt[-1].content
    while True:
        asked = as_dicts([*prompt[:-1], replace(prompt[-1], content=content)])
        said = as_dicts([Message("assistant", answer)])
        chat = encode_chat(tokenizer, [*asked, *said])
        excess = max(0, len(chat.ids) - 1 - context)
        # Nearly all prompts fit, and need not be encoded.
        kept = tokenizer.encode(content)[excess:] if excess else []
        if not kept:
            learned = chat.assistant
            # Earlier turns of the assistant belong to the prompt.
            if any(turn.role == "assistant" for turn in prompt):
                start = len(encode_chat(tokenizer, asked, generation_prompt=True).ids)
                learned = [spoken and i >= start for i, spoken in enumerate(learned)]
            return Example(chat.ids, learned)
        content = tokenizer.decode(kept).lstrip("\ufffd ")


def without_controls(item: Example, tokenizer: Tokenizer) -> Example:
    """The same tokens with the assistant's control tokens excluded from scoring."""
    words = [
        spoken and token not in tokenizer.special_ids
        for token, spoken in zip(item.ids, item.loss_mask, strict=True)
    ]
    return Example(item.ids, words)


@dataclass(frozen=True)
class Conversations:
    """Held-out conversations tokenized for one model."""

    items: list[Example]
    sources: list[str]
    groups: list[str]


def ready_conversations(
    rows: Sequence[Conversation], tokenizer: Tokenizer, context: int
) -> Conversations:
    """Tokenize them, without those in which the assistant says nothing within the context."""
    kept, items = [], []
    for row in rows:
        for whole in conversation_items(tokenizer, row):
            item = cut_to(whole, context)
            if item.teaches:
                kept.append(row)
                items.append(item)
    return Conversations(items, [row.source for row in kept], [row.group for row in kept])


@dataclass(frozen=True)
class AssistantLoss:
    """The loss of the assistant's tokens in each conversation, so that models can be compared.

    `nats` and `tokens` include the control token that ends a turn, `bits` and `bytes` do not.
    """

    nats: Float[np.ndarray, " items"]
    tokens: Float[np.ndarray, " items"]
    bits: Float[np.ndarray, " items"]
    bytes: Float[np.ndarray, " items"]
    of: Conversations

    def per_token(self) -> BySource:
        """Nats per assistant token."""
        return by_source(self.nats, self.of.sources, self.tokens, groups=self.of.groups)

    def per_byte(self) -> BySource:
        """Bits per byte of the assistant's words."""
        return by_source(self.bits, self.of.sources, self.bytes, groups=self.of.groups)

    def minus(self, other: AssistantLoss) -> BySource:
        """The difference to `other` in nats per assistant token on the same conversations."""
        difference = self.nats - other.nats
        return by_source(difference, self.of.sources, self.tokens, groups=self.of.groups)


def assistant_loss(
    model: CausalLM,
    conversations: Conversations,
    tokenizer: Tokenizer,
    *,
    context: int,
) -> AssistantLoss:
    """Score the assistant's tokens of every conversation."""
    scores = score(model, conversations.items, context=context)
    nats, bits, lengths = [], [], []
    for item, values in zip(conversations.items, scores, strict=True):
        # The first token is not predicted, and tokens beyond the context have no score.
        own = itertools.compress(item.ids[1:], item.loss_mask[1:])
        spoken = list(itertools.islice(own, len(values)))
        is_word = np.array([token not in tokenizer.special_ids for token in spoken], bool)
        nats.append(-values.sum())
        bits.append(-values[is_word].sum() / math.log(2))
        words = itertools.compress(spoken, is_word)
        lengths.append(sum(len(tokenizer.token_bytes(token)) for token in words))
    tokens = np.array([len(values) for values in scores], float)
    return AssistantLoss(
        np.array(nats), tokens, np.array(bits), np.array(lengths, float), conversations
    )
