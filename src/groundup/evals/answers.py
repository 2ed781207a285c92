"""Held-out conversations: how well a model predicts what the assistant says.

    loss = - sum log p(token | all before it) / tokens        over the assistant's tokens, in nats

The tokens are those that fine-tuning trains on: the assistant's words and the control token that
ends its turn. Bits per byte counts the words alone, so that it can stand beside that of documents.
Every model, a base model too, reads the same chat format: what it lacks there is what it has yet to
learn. Conversations about one article or question are one group.
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
    """A prompt and the assistant's answer to it, whose tokens are the trained ones.

    Where both are too long together, the last prompt loses its beginning and keeps its end, where
    the question stands: cut at the other side, the answer itself would be lost.
    """
    content = prompt[-1].content
    while True:
        asked = as_dicts([*prompt[:-1], replace(prompt[-1], content=content)])
        said = as_dicts([Message("assistant", answer)])
        chat = encode_chat(tokenizer, [*asked, *said])
        excess = max(0, len(chat.ids) - 1 - context)
        # Nearly all fit, and then the prompt's own tokens are of no use.
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
    """The same tokens with only words to score: no control token of the assistant's."""
    words = [
        spoken and token not in tokenizer.special_ids
        for token, spoken in zip(item.ids, item.loss_mask, strict=True)
    ]
    return Example(item.ids, words)


@dataclass(frozen=True)
class Conversations:
    """Held-out conversations made ready for one tokenizer."""

    items: list[Example]
    sources: list[str]
    groups: list[str]


def ready_conversations(
    rows: Sequence[Conversation], tokenizer: Tokenizer, context: int
) -> Conversations:
    """Encode them, without those whose assistant says nothing within the context."""
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
    """What the assistant's tokens of each conversation cost, item by item so that models compare.

    `nats` and `tokens` with the control token that ends a turn, `bits` and `bytes` without.
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
        """How many nats per assistant token more than `other` on the same conversations."""
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
        # The first token is no target, and one beyond the context has no score.
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
