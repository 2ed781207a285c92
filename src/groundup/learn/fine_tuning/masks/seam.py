"""Puts the learner's masks into fine-tuning."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from types import ModuleType

import numpy as np

from groundup.learn.plain import all_replaced
from groundup.text import batches, example
from groundup.text.bpe import train_bpe
from groundup.text.chat import ChatTokens
from groundup.text.example import Example
from groundup.text.rows import Conversation, Message
from groundup.text.template import CHATML
from groundup.text.tokenizer import Tokenizer

USED_BY = "sft and all packing of texts into rows: which tokens are trained, and their targets"


def swap(part: ModuleType) -> AbstractContextManager[None]:
    """Templates other than ChatML keep the product's mask."""
    product = (example.conversation_item, batches.joined)

    def conversation_item(
        tokenizer: Tokenizer, conversation: Conversation, tokens: ChatTokens | None = None
    ) -> Example:
        item = product[0](tokenizer, conversation, tokens)
        if tokenizer.chat_template != CHATML:
            return item
        header = tokenizer.encode("assistant\n")
        mask = part.assistant_mask(list(item.ids), tokenizer.im_start, tokenizer.im_end, header)
        return replace(item, loss_mask=mask)

    def joined(members: Sequence[Example], width: int, prompt_weight: float = 0.0) -> batches.Row:
        row, start = product[1](members, width, prompt_weight), 0
        for member in members:
            inputs, targets, weights = part.shifted(list(member.ids), list(member.loss_mask))
            place = slice(start, start + member.inputs)
            row.input_ids[place], row.targets[place] = inputs, targets
            row.weights[place] = np.where(np.array(weights, bool), weights, prompt_weight)
            start += member.inputs
        return row

    return all_replaced(
        (example, "conversation_item", conversation_item), (batches, "joined", joined)
    )


def try_it() -> list[float]:
    """A conversation as a row of a batch: inputs, targets and weights."""
    tokenizer = Tokenizer.from_bpe(train_bpe(["assistant\nuser\n"], 280))
    turns = (
        Message("user", "Where?"),
        Message("assistant", "There."),
        Message("user", "Why?"),
        Message("assistant", "So."),
    )
    found = example.encode_rows(tokenizer, [Conversation(turns, "", "")], 128)
    batch = batches.packed_batch([found.items], 128)
    rows = (batch.input_ids, batch.targets, batch.weights)
    return [float(one) for row in rows for one in row.flatten()]
