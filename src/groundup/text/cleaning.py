"""Cleaning text, comparing texts, and assigning texts permanently to a side of the split.

Three ideas: a *normal form* is a text reduced to its words, so that case, punctuation and spacing
make no difference; a *shingle* is a hash of n consecutive words, so that texts with shared passages
are found by sorting numbers; a *split hash* is the hash of a normal form as a number in [0, 1), so
that a split never depends on order, machine or seed.

Shingles for near-duplicates: Broder 1997, On the resemblance and containment of documents.
"""

from __future__ import annotations

import hashlib
import itertools
import re
import unicodedata
from collections.abc import Sequence

import numpy as np
import regex
from jaxtyping import Bool, Int, UInt64

# Scripts without spaces between words. Each letter counts as a word: passages are found by a few
# consecutive words, and a passage as long as a clause hardly occurs twice.
_UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}ー\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
# A letter's vowel signs and accents belong to it; variation selectors of emoji do not.
_SIGNS = r"[\p{Mn}\p{Mc}--\uFE00-\uFE0F]*"
_WORD = regex.compile(
    rf"[[\p{{L}}\p{{N}}]&&[{_UNSPACED}]]{_SIGNS}|(?:[[\p{{L}}\p{{N}}]--[{_UNSPACED}]]{_SIGNS})+",
    regex.VERSION1,
)
_NO_SPACE = re.compile(r"\S+")
_SPACED_OR_LETTER = regex.compile(
    rf"[{_UNSPACED}][^\p{{L}}\p{{N}}]*|[^{_UNSPACED}]+", regex.VERSION1
)
_RUN = regex.compile(rf"(?:[\p{{L}}\p{{N}}]{_SIGNS})+", regex.VERSION1)
_ASCII_WORD = re.compile(r"[^\W_]+")
# Number of texts compared at once: larger batches are faster, but all texts would fill the memory.
BATCH_ROWS = 1_000
# Sayings and verses are shorter than this many words; and a text with more original than repeated
# passages is no repetition.
_REPEATED_WORDS, _REPEATED_SHARE = 8, 0.5
# Characters that a reader does not see but a tokenizer would have to learn: C0 and C1 controls
# except the line break, soft hyphen, zero-width and direction marks, and the byte order mark.
_INVISIBLE = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u00ad\u200b-\u200f\u202a-\u202e\u2060\ufeff]")
_WIDE_SPACE = re.compile("[\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]")
_LINE_BREAK = re.compile("\r\n?|[\x0b\x0c\u0085\u2028\u2029]")
# UTF-8 decoded as Latin-1 or Windows-1252 leaves these pairs; lossy decoders leave U+FFFD.
_MOJIBAKE = re.compile("[ÂÃ][\u0080-\u00bf]|â[\u0080-\u0090€][\u0080-\u00bf™œ\u009d]|\ufffd")


def tidy(text: str) -> str:
    """`text` with one kind of space and line break, no invisible characters, no blank-line runs."""
    text = _LINE_BREAK.sub("\n", text).replace("\t", " ")
    text = _WIDE_SPACE.sub(" ", text)
    text = _INVISIBLE.sub("", text)
    lines = [re.sub(" {2,}", " ", line).strip() for line in text.split("\n")]
    return re.sub("\n{3,}", "\n\n", "\n".join(lines)).strip()


def looks_garbled(line: str) -> bool:
    """Whether a line was decoded with the wrong encoding at some point."""
    return _MOJIBAKE.search(line) is not None


def words(text: str) -> list[str]:
    """The words of a text: letters (with their signs) and digits only, case folded.

    In a script without spaces between words each letter is a word.
    """
    return _matches(_WORD, text)


def word_spans(text: str) -> list[tuple[int, int]]:
    """Where the words of a text begin and end, with the marks at them: split at white space.

    In a script without spaces each letter is a word, with the marks behind it.
    """
    return [
        (found.start() + one.start(), found.start() + one.end())
        for found in _NO_SPACE.finditer(text)
        for one in _SPACED_OR_LETTER.finditer(found[0])
    ]


def _matches(pattern: regex.Pattern[str], text: str) -> list[str]:
    plain = unicodedata.normalize("NFKC", text).casefold()
    # The ASCII pattern takes half the time.
    return _ASCII_WORD.findall(plain) if plain.isascii() else pattern.findall(plain)


def normal_form(text: str) -> str:
    """Returns the words of a text, which different spellings of a title or question share.

    `Table (furniture)` and `table_(furniture)` have the same; a suffix in brackets stays, because
    it distinguishes two articles. Adjacent letters stay together in every script. A text without
    any word (`+`) is returned as it is.
    """
    return " ".join(_matches(_RUN, text)) or text.strip()


def split_hash(text: str) -> float:
    """A normal form's hash in [0, 1): uniform, and the same on every machine, permanently."""
    digest = hashlib.sha256(f"groundup split: {text}".encode()).digest()
    return int.from_bytes(digest[:7], "big") / 2.0**56


class _WordHashes(dict[str, int]):
    """Caches the 64-bit hash of each word."""

    def __missing__(self, word: str) -> int:
        digest = hashlib.blake2b(word.encode(), digest_size=8).digest()
        self[word] = int.from_bytes(digest, "little")
        return self[word]


_WORD_HASHES = _WordHashes()


def shingles(text: str | Sequence[str], size: int) -> UInt64[np.ndarray, " shingles"]:
    """A 64-bit hash of every `size` consecutive words; empty if the text has fewer words.

    A polynomial in an odd base modulo 2^64 over hashed words; two different shingles collide with
    probability about 2^-64. `text` may be a list of words already.
    """
    return shingles_of_all([words(text) if isinstance(text, str) else text], size)[0]


def shingles_of_all(
    texts: Sequence[Sequence[str]], size: int
) -> tuple[UInt64[np.ndarray, " shingles"], Int[np.ndarray, " shingles"]]:
    """The shingles of texts, each a list of words, and for each shingle the index of its text.

    Like `shingles`, but many texts at once take a fraction of the time.
    """
    lengths = np.fromiter(map(len, texts), np.int64, len(texts))
    every = itertools.chain.from_iterable(texts)
    hashed = np.fromiter(map(_WORD_HASHES.__getitem__, every), np.uint64, lengths.sum())
    count = max(0, len(hashed) - size + 1)
    total = np.zeros(count, np.uint64)
    base = np.uint64(0x9E3779B97F4A7C15)
    for offset in range(size):
        total = total * base + hashed[offset : offset + count]
    owner = np.repeat(np.arange(len(texts)), lengths)
    # A shingle begins and ends in the same text.
    whole = owner[:count] == owner[len(owner) - count :]
    return total[whole], owner[:count][whole]


def repeats(texts: Sequence[str]) -> Bool[np.ndarray, " texts"]:
    """Returns for each text whether it repeats an earlier one, exactly or nearly.

    A text repeats if at least half of its shingles of eight words occur in earlier texts; a text
    with fewer words if an earlier text has exactly the same words. The first of several always
    stays.
    """
    parts, owners = [np.empty(0, np.uint64)], [np.empty(0, np.int64)]
    for start in range(0, len(texts), BATCH_ROWS):
        some = texts[start : start + BATCH_ROWS]
        said = [words(text) for text in some]
        hashes, owner = shingles_of_all(said, _REPEATED_WORDS)
        short = [place for place, one in enumerate(said) if len(one) < _REPEATED_WORDS]
        own = [_WORD_HASHES[normal_form(some[place])] for place in short]
        parts += [hashes, np.array(own, np.uint64)]
        owners += [owner + start, np.array(short, np.int64) + start]
    everything, owner = np.concatenate(parts), np.concatenate(owners)
    order = np.argsort(owner, kind="stable")
    everything, owner = everything[order], owner[order]
    # `unique` returns the first index of each value, hence the text that contained it first.
    _, first, which = np.unique(everything, return_index=True, return_inverse=True)
    said_before = owner[first[which]] < owner
    count = np.bincount(owner, weights=said_before, minlength=len(texts))
    size_of = np.bincount(owner, minlength=len(texts))
    return np.asarray(count >= _REPEATED_SHARE * size_of)


# A full stop after these does not end a sentence; includes the numbers of list items.
_ABBREVIATION = re.compile(
    r"(?:(?:^|\n) *\d{1,2}|\b(?:[A-Z]|Mr|Mrs|Ms|Dr|St|Mt|Jr|Sr|Prof|Gen|Col|Rev|Hon|Nos?|vs|etc"
    r"|ca|fl|cf|lit|approx|e\.g|i\.e|[bcdrv]|Fr|Gr|Lat|pl|sing|Inc|Ltd|Co|Bros|Op|Vol|Art|U\.S"
    r"|U\.K|U\.N|a\.m|p\.m|Ph\.D|B\.C|A\.D))\.$"
)
_SENTENCE_END = re.compile(r"[.!?][\"'”’)\]]*(?=\s+[\"'“‘(\[]?[A-Z0-9])|[.!?][\"'”’)\]]*$")


def sentences(text: str) -> list[str]:
    """Sentences of English prose, by punctuation, capitals and a list of abbreviations."""
    found: list[str] = []
    start = 0
    for end in _SENTENCE_END.finditer(text):
        if text[end.start()] == "." and _ABBREVIATION.search(text, start, end.start() + 1):
            continue
        found.append(text[start : end.end()].strip())
        start = end.end()
    rest = text[start:].strip()
    return [*found, rest] if rest else found


def cut_to_sentences(text: str, limit: int) -> str:
    """As many whole sentences from the start as fit into `limit` characters; else whole words."""
    if len(text) <= limit:
        return text
    best = ""
    for end in _SENTENCE_END.finditer(text):
        if end.end() > limit:
            break
        if not (text[end.start()] == "." and _ABBREVIATION.search(text, 0, end.start() + 1)):
            best = text[: end.end()]
    # Whole words: up to the last white space within the limit that follows a word.
    return best or re.sub(r"(?<=\S)\s+\S*\Z", "", text[: limit + 1])[:limit]
