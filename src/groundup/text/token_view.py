"""Tokens for display: each as the text it represents, with its role in the loss."""

from __future__ import annotations

import codecs
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

from groundup.text.example import Example
from groundup.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class Token:
    """A token as text, or the few tokens that form one character.

    `is_control` marks tokens of the template and end tokens; `is_cut` marks tokens past the
    context.
    """

    text: str
    ids: tuple[int, ...]
    is_trained: bool
    is_control: bool
    is_cut: bool


def view_tokens(tokenizer: Tokenizer, item: Example, context: int) -> Iterator[Token]:
    """The item's tokens as text; several tokens that form one character come as one.

    The first token has no predecessor that could predict it, and tokens past the context are not
    read, so neither is trained.
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
    """The text with characters visible that would control a terminal or change its direction."""
    shown = []
    for char in text:
        if unicodedata.category(char) in ("Cc", "Cf") and char not in "\n\t\u200d":
            char = chr(0x2400 + ord(char)) if ord(char) < 0x20 else f"<U+{ord(char):04X}>"
        shown.append(char)
    return "".join(shown)
