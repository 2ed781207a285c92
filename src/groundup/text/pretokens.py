"""Pre-tokens: a text is split before any merge, and no token crosses a split.

Words with their leading space, single digits, runs of punctuation. Within a pre-token the alphabet
of byte-level BPE is the 256 bytes, which GPT-2 writes as visible characters (Radford et al. 2019,
"Language Models are Unsupervised Multitask Learners", section 2.2).
"""

from __future__ import annotations

import re
from functools import lru_cache

from tokenizers import Regex, pre_tokenizers

from groundup.errors import UserError

# Qwen2's pattern, character for character: llama.cpp implements it under the name "qwen2".
SPLIT_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)

# GPT-2's pattern, as in tiktoken's `gpt2` and many courses.
GPT2_PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


def _byte_alphabet() -> tuple[str, ...]:
    """One visible character for each byte, as in GPT-2 (a space becomes "Ġ").

    Printable Latin-1 bytes represent themselves; the other 68 use the characters from 256 on, so
    that a token never contains a blank or a control character and merge files stay readable.
    """
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1)]
    printable += range(ord("®"), ord("ÿ") + 1)
    hidden = [byte for byte in range(256) if byte not in printable]
    drawn = {byte: chr(byte) for byte in printable}
    drawn |= {byte: chr(256 + place) for place, byte in enumerate(hidden)}
    return tuple(drawn[byte] for byte in range(256))


BYTE_TO_CHAR = _byte_alphabet()
CHAR_TO_BYTE = {char: byte for byte, char in enumerate(BYTE_TO_CHAR)}

_SURROGATE = re.compile("[\ud800-\udfff]")


def valid_unicode(text: str) -> str:
    """Return `text` with lone surrogates (JSON's "\\ud800" makes them) replaced by U+FFFD.

    They are not characters, have no UTF-8 form, and would make the encoder fail.
    """
    return text if text.isascii() else _SURROGATE.sub("\ufffd", text)


def split_text(text: str, pattern: str = SPLIT_PATTERN) -> list[str]:
    """Split `text` into pre-tokens, by default with Qwen2's pattern; joined, they are the text."""
    return [piece for piece, _ in _splitter(pattern).pre_tokenize_str(valid_unicode(text))]


@lru_cache(maxsize=8)
def _splitter(pattern: str) -> pre_tokenizers.Split:
    """Return the `tokenizers` library's own splitter, instead of the `regex` package's.

    The two have different Unicode versions, and would split differently at a letter that only one
    of them knows.
    """
    try:
        return pre_tokenizers.Split(Regex(pattern), behavior="isolated")
    except Exception as error:  # the Rust library raises bare Exception
        raise UserError(f"pattern={pattern!r} is not a regular expression: {error}") from None


def draw_bytes(text: str) -> str:
    """Write the UTF-8 bytes of `text` in the byte alphabet, one character per byte."""
    return drawn(text.encode("utf-8"))


def drawn(token: bytes) -> str:
    """Write bytes in the byte alphabet, one character per byte."""
    return "".join([BYTE_TO_CHAR[byte] for byte in token])


def drawn_to_bytes(token: str) -> bytes:
    """Return the bytes that a `token` in the byte alphabet represents."""
    return bytes([CHAR_TO_BYTE[char] for char in token])
