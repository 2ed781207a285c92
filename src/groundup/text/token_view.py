"""Tokens to look at: each as the text it stands for, with what the loss does with it."""

from __future__ import annotations

import codecs
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

from groundup.text.example import Example
from groundup.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class Token:
    """A token as text, or the few tokens that one character is made of.

    Those with `is_control` are the template's or mark an end, those with `is_cut` lie past the
    context.
    """

    text: str
    ids: tuple[int, ...]
    is_trained: bool
    is_control: bool
    is_cut: bool


def view_tokens(tokenizer: Tokenizer, item: Example, context: int) -> Iterator[Token]:
    """The item's tokens as text; a character that is made of several tokens comes as one.

    Nothing stands before the first token that it could be told from, and what lies past the context
    is not read, so that neither is trained.
    """
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    flags = [
        (trained and 0 < place <= context, id in tokenizer.special_ids, place > context)
        for place, (id, trained) in enumerate(zip(item.ids, item.loss_mask, strict=True))
    ]
    held: list[int] = []
    for place, id in enumerate(item.ids):
        held.append(id)
        is_last = place + 1 == len(flags) or flags[place + 1] != flags[place]
        text = decoder.decode(tokenizer.token_bytes(id), final=is_last)
        if text or is_last:
            yield Token(visible(text), tuple(held), *flags[place])
            held = []


def visible(text: str) -> str:
    """The text with what would steer a terminal or turn its direction made visible."""
    shown = []
    for char in text:
        if unicodedata.category(char) in ("Cc", "Cf") and char not in "\n\t\u200d":
            char = chr(0x2400 + ord(char)) if ord(char) < 0x20 else f"<U+{ord(char):04X}>"
        shown.append(char)
    return "".join(shown)
