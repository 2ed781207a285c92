"""Byte-pair encoding: learn a vocabulary by repeatedly merging the most frequent pair of tokens.

Sennrich et al. 2016, "Neural Machine Translation of Rare Words with Subword Units", section 3.2,
on bytes as in GPT-2 (Radford et al. 2019, section 2.2): the 256 bytes are the alphabet, so that
every text has an encoding and no token is ever unknown. A text is first split into pre-tokens
(words with their leading space, single digits, runs of punctuation); no merge crosses them.

The merges and their order equal those of the `tokenizers` library's trainer on the same text, so
that our model folders work like any other. The one difference: nothing is learned from special
tokens inside a text.
"""

from __future__ import annotations

import heapq
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from groundup.errors import UserError
from groundup.text.encoder import pre_tokens
from groundup.text.pretokens import (
    BYTE_TO_CHAR,
    GPT2_PATTERN,
    SPLIT_PATTERN,
    draw_bytes,
    drawn,
    drawn_to_bytes,
    split_text,
)

SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")

Tie = Literal["smallest", "greatest"]
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class BPE:
    """A trained vocabulary: token → id, and the merges in the order in which they were learned.

    Tokens are written in the byte alphabet (`BYTE_TO_CHAR`), special tokens literally. `pattern`
    splits a text into pre-tokens.
    """

    vocab: dict[str, int]
    merges: list[tuple[str, str]]
    special_tokens: tuple[str, ...] = SPECIAL_TOKENS
    pattern: str = SPLIT_PATTERN

    @classmethod
    def from_bytes(
        cls,
        vocab: Mapping[int, bytes],
        merges: Iterable[tuple[bytes, bytes]],
        special_tokens: Sequence[str] = (),
        pattern: str = GPT2_PATTERN,
    ) -> BPE:
        """Convert a vocabulary as in tiktoken and many courses: id → bytes, and merges of bytes.

        A special token missing in the vocabulary gets the next free id. Raises `UserError` for
        bytes that have two ids.
        """
        controls = {token.encode("utf-8"): token for token in special_tokens}
        named: dict[str, int] = {}
        for id, token in sorted(vocab.items()):
            name = controls.get(token) or drawn(token)
            if named.setdefault(name, id) != id:
                raise UserError(f"vocab has {token!r} twice, as {named[name]} and {id}; keep one")
        for control in special_tokens:
            named.setdefault(control, max(named.values(), default=-1) + 1)
        pairs = [(drawn(left), drawn(right)) for left, right in merges]
        return cls(named, pairs, tuple(special_tokens), pattern)

    def to_bytes(self) -> tuple[dict[int, bytes], list[tuple[bytes, bytes]]]:
        """The inverse of `from_bytes`: id → bytes, and the merges in their order."""
        controls = set(self.special_tokens)
        vocab = {
            id: token.encode("utf-8") if token in controls else drawn_to_bytes(token)
            for token, id in self.vocab.items()
        }
        return vocab, [(drawn_to_bytes(a), drawn_to_bytes(b)) for a, b in self.merges]


def train_bpe(
    texts: Iterable[str],
    vocab_size: int,
    *,
    special_tokens: Sequence[str] = SPECIAL_TOKENS,
    pattern: str = SPLIT_PATTERN,
    tie: Tie = "smallest",
    progress: Progress | None = None,
) -> BPE:
    """Learn a byte-level BPE of at most `vocab_size` tokens from `texts`.

    Ids: the special tokens, then the 256 bytes in the order of their byte-alphabet characters, then
    one new token per merge; a merge that yields an existing token reuses that token's id.
    Each step merges the pair with the greatest count. Among equals, `tie="smallest"` takes the
    smallest pair of ids, as `tokenizers` does, and `tie="greatest"` the lexicographically greatest
    pair of byte strings, as many courses do. Training ends early when no pair is left.

    `pattern` splits the texts, and so do special tokens inside them, from which nothing is learned:
    files of stories often contain `<|endoftext|>` between stories.
    `progress(tokens so far, vocab_size)` is called after each merge.

    Counts are updated incrementally: each pair records the words that contain it, and a merge
    changes only those. The heap is lazy: an entry whose count has fallen since it was pushed is
    noticed at the top and pushed again with its current count.
    """
    texts = _checked_texts(texts)
    ids = _start_vocabulary(vocab_size, special_tokens)
    tokens = list(ids)
    words, weights = _words_of_ids(_split_at_special(special_tokens, texts), ids, pattern)
    counts, where = _count_pairs(words, weights)
    order = _tie_order(tie, tokens)
    heap = [(-count, order(pair), pair) for pair, count in counts.items()]
    heapq.heapify(heap)
    merges: list[tuple[str, str]] = []

    while heap and len(tokens) < vocab_size:
        negative_count, key, pair = heapq.heappop(heap)
        count = counts.get(pair, 0)
        if count != -negative_count:
            if count > 0:
                heapq.heappush(heap, (-count, key, pair))
            continue
        left, right = tokens[ord(pair[0])], tokens[ord(pair[1])]
        merges.append((left, right))
        new_id = ids.setdefault(left + right, len(tokens))
        if new_id == len(tokens):
            tokens.append(left + right)
        for new in _merge_pair(pair, chr(new_id), words, weights, counts, where):
            heapq.heappush(heap, (-counts[new], order(new), new))
        if progress is not None:
            progress(len(tokens), vocab_size)
    return BPE(ids, merges, tuple(special_tokens), pattern)


def _checked_texts(texts: Iterable[str]) -> Iterable[str]:
    """Refuse a single string, which would be read as a sequence of one-letter texts."""
    if isinstance(texts, str):
        raise UserError("texts is a single string, but several are expected; pass [text]")
    return texts


def _start_vocabulary(vocab_size: int, special_tokens: Sequence[str]) -> dict[str, int]:
    """Return token → id before the first merge: special tokens, then the byte alphabet."""
    if len(set(special_tokens)) != len(special_tokens) or "" in special_tokens:
        raise UserError(
            f"special_tokens={list(special_tokens)} holds an empty or a repeated token; "
            "name each token once"
        )
    ids = {token: place for place, token in enumerate(special_tokens)}
    for char in sorted(BYTE_TO_CHAR):
        ids.setdefault(char, len(ids))
    # A word is stored as a string of chr(id) below, and Python has 0x110000 characters.
    if not len(ids) <= vocab_size < 0x110000:
        raise UserError(
            f"vocab_size={vocab_size} must hold the 256 bytes and the {len(special_tokens)} "
            f"special tokens; choose a number from {len(ids)} to {0x110000 - 1}"
        )
    return ids


def _split_at_special(special_tokens: Sequence[str], texts: Iterable[str]) -> Iterator[str]:
    """The texts split at special tokens, which are removed."""
    if not special_tokens:
        yield from texts
        return
    longest_first = sorted(special_tokens, key=len, reverse=True)
    control = re.compile("|".join(map(re.escape, longest_first)))
    for text in texts:
        yield from control.split(text)


def _words_of_ids(
    texts: Iterable[str], ids: dict[str, int], pattern: str
) -> tuple[list[str], list[int]]:
    """Return each distinct pre-token as a string whose characters are token ids, and its count.

    With chr(id) for a token, a pair is a string of two characters, merging is `str.replace` (left
    to right, without overlap, as BPE requires) and comparing two pairs compares their ids.
    """
    seen: Counter[bytes] = Counter()
    for text in texts:
        for words_of_text in pre_tokens(text, pattern):
            seen.update(words_of_text)
    by_byte = [chr(ids[char]) for char in BYTE_TO_CHAR]
    words = ["".join([by_byte[byte] for byte in word]) for word in seen]
    return words, list(seen.values())


def _count_pairs(
    words: list[str], weights: list[int]
) -> tuple[dict[str, int], dict[str, set[int]]]:
    """Return for every adjacent pair its count and the words that contain it."""
    counts: dict[str, int] = {}
    where: dict[str, set[int]] = {}
    for index, word in enumerate(words):
        for left, right in pairwise(word):
            pair = left + right
            counts[pair] = counts.get(pair, 0) + weights[index]
            where.setdefault(pair, set()).add(index)
    return counts, where


def _merge_pair(
    pair: str,
    merged: str,
    words: list[str],
    weights: list[int],
    counts: dict[str, int],
    where: dict[str, set[int]],
) -> set[str]:
    """Replace `pair` by `merged` everywhere, update the counts, and return the new pairs."""
    new_pairs: set[str] = set()
    first, second = pair[0], pair[1]
    for index in where.pop(pair):
        old = words[index]
        new = words[index] = joined(old, pair, merged)
        if len(new) == len(old):  # an earlier merge destroyed this occurrence
            continue
        # Only pairs next to an occurrence change, and a pre-token may be as long as a book.
        parts = old.split(pair)
        weight = weights[index]
        changes = Counter[tuple[str, str]]()
        for place, (before, after) in enumerate(pairwise(parts)):
            if before:
                changes[before[-1] + first, before[-1] + merged] += weight
            elif place:  # right behind another occurrence
                changes[second + first, merged + merged] += weight
            if after:
                changes[second + after[0], merged + after[0]] += weight
        for (gone, now), count in changes.items():
            counts[gone] -= count
            counts[now] = counts.get(now, 0) + count
            new_pairs.add(now)
            where.setdefault(now, set()).add(index)
    del counts[pair]
    return new_pairs


def joined(word: str, pair: str, merged: str) -> str:
    """Replace each `pair` in `word` by `merged`, from left to right and without overlap."""
    return word.replace(pair, merged)


def _tie_order(tie: Tie, tokens: list[str]) -> Callable[[str], tuple[str, ...]]:
    """Return the sort key for pairs of equal count; the smallest key is merged first."""
    if tie == "smallest":
        return lambda pair: (pair,)
    if tie != "greatest":
        raise UserError(f'tie={tie!r} must be "smallest" or "greatest"')

    def backwards(token: str) -> str:
        # Mapping byte b to 255 - b reverses the order; the final 256 sorts "ab" after "abc".
        return "".join([chr(255 - byte) for byte in drawn_to_bytes(token)]) + chr(256)

    return lambda pair: tuple(backwards(tokens[ord(char)]) for char in pair)


# Slow, obvious implementations; tests compare the fast ones with them.


def reference_train_bpe(
    texts: Iterable[str],
    vocab_size: int,
    *,
    special_tokens: Sequence[str] = SPECIAL_TOKENS,
    pattern: str = SPLIT_PATTERN,
    tie: Tie = "smallest",
) -> BPE:
    """Learn the same BPE as `train_bpe`, recounting every pair of every word at each step."""
    vocab = _start_vocabulary(vocab_size, special_tokens)
    texts = _split_at_special(special_tokens, texts)
    words = Counter(tuple(draw_bytes(word)) for text in texts for word in split_text(text, pattern))
    merges: list[tuple[str, str]] = []
    while len(vocab) < vocab_size:
        counts: Counter[tuple[str, str]] = Counter()
        for word, count in words.items():
            for left, right in pairwise(word):
                counts[left, right] += count
        if not counts:
            break
        most = max(counts.values())
        best = [pair for pair, count in counts.items() if count == most]
        if tie == "smallest":
            pair = min(best, key=lambda pair: [vocab[token] for token in pair])
        else:
            pair = max(best, key=lambda pair: [drawn_to_bytes(token) for token in pair])
        merges.append(pair)
        vocab.setdefault("".join(pair), len(vocab))
        words = Counter({_join(word, pair): count for word, count in words.items()})
    return BPE(vocab, merges, tuple(special_tokens), pattern)


def reference_encode(bpe: BPE, text: str) -> list[int]:
    """Encode `text` by applying the earliest learned merge in each pre-token until none fits."""
    rank = {pair: place for place, pair in enumerate(bpe.merges)}
    ids: list[int] = []
    for piece in split_text(text, bpe.pattern):
        word = tuple(draw_bytes(piece))
        while True:
            known = [pair for pair in pairwise(word) if pair in rank]
            if not known:
                break
            word = _join(word, min(known, key=lambda pair: rank[pair]))
        ids += [bpe.vocab[token] for token in word]
    return ids


def _join(word: tuple[str, ...], pair: tuple[str, str]) -> tuple[str, ...]:
    """Join each occurrence of `pair` in `word`, from left to right."""
    joined: list[str] = []
    place = 0
    while place < len(word):
        if word[place : place + 2] == pair:
            joined.append(pair[0] + pair[1])
            place += 2
        else:
            joined.append(word[place])
            place += 1
    return tuple(joined)
