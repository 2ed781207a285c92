"""Counting n-grams, numbered so that a whole text is looked up at once.

The obvious dictionary from tuples to counts takes a hundred bytes and a microsecond for each
n-gram. Here the k-grams of a text are one sorted array of integers, made from the (k-1)-grams with
one sort, and looked up with one binary search for all positions together: 20 MB of text are counted
in half a minute.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Integer


@dataclass(frozen=True, eq=False)
class Trie:
    """The n-grams of a text as one sorted array per order; an n-gram's index is its number.

    `keys[k]` holds the k-grams, each as number_of_its_first_(k-1)_tokens * vocab_size + its last
    token. Numbers are below the length of the text, so the key fits 64 bits at any order, and a
    whole text is looked up order by order with binary searches. The empty 0-gram has number 0.
    All 1-grams are present, so a token is its own number. -1 means "never seen".
    """

    keys: tuple[Integer[np.ndarray, "_"], ...]
    vocab_size: int
    boundary: int | None

    def walk(
        self, tokens: Integer[np.ndarray, "n"]
    ) -> Iterator[
        tuple[Integer[np.ndarray, "at"], Integer[np.ndarray, "at"], Integer[np.ndarray, "at"]]
    ]:
        """Yields positions, context numbers and k-gram numbers for k = 1, 2, ...

        The positions are those with at least k - 1 tokens of context; the k-gram is the context of
        k - 1 tokens with the token at the position.
        """
        reach = context_lengths(tokens, self.boundary)
        numbers = np.zeros(len(tokens) + 1, dtype=np.int64)  # entry i: of the (k-1)-gram before i
        for k in range(1, len(self.keys)):
            at = np.flatnonzero(reach >= k - 1)
            contexts = numbers[at]
            grams = self.find(k, contexts, tokens[at])
            yield at, contexts, grams
            numbers = np.full(len(tokens) + 1, -1)
            numbers[at + 1] = grams

    def find(
        self, k: int, contexts: Integer[np.ndarray, "n"], tokens: Integer[np.ndarray, "n"]
    ) -> Integer[np.ndarray, "n"]:
        """Gives the numbers of the k-grams (context, token), -1 for those never seen."""
        keys = self.keys[k]
        result = np.full(len(contexts), -1, dtype=np.int64)
        known = np.flatnonzero(contexts >= 0)
        if len(keys) and len(known):
            wanted = contexts[known] * self.vocab_size + tokens[known]
            place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
            result[known] = np.where(keys[place] == wanted, place, -1)
        return result

    def followers(self, k: int, context: int) -> slice:
        """Gives the numbers of all k-grams that start with a context, which are contiguous."""
        ends = [context * self.vocab_size, (context + 1) * self.vocab_size]
        return slice(*np.searchsorted(self.keys[k], ends).tolist())

    def recent(self, context: Sequence[int]) -> Integer[np.ndarray, "m"]:
        """Gives the relevant part of a context: at most its last order - 1 tokens, and of those
        only the last boundary and the tokens after it.
        """
        longest = len(self.keys) - 2
        tokens = np.array(context[max(0, len(context) - longest) :], int)
        tokens = checked_tokens(tokens, self.vocab_size)
        return tokens[np.flatnonzero(tokens == self.boundary).max(initial=0) :]

    def suffix_numbers(self, context: Sequence[int]) -> list[int]:
        """Gives the numbers of the context's last 0, 1, 2, ... tokens, up to the longest seen."""
        recent = self.recent(context)
        result: list[int] = []
        for length in range(len(recent) + 1):
            number = np.zeros(1, dtype=np.int64)
            for k, token in enumerate(recent[len(recent) - length :], start=1):
                number = self.find(k, number, token[None])
            if number[0] < 0:
                break
            result.append(int(number[0]))
        return result


@dataclass(frozen=True, eq=False)
class Level:
    """The count of every k-gram of one order, and the number of its last k-1 tokens."""

    counts: Integer[np.ndarray, "grams"]
    suffixes: Integer[np.ndarray, "grams"]


def count_ngrams(
    tokens: Integer[np.ndarray, "n"], order: int, vocab_size: int, boundary: int | None
) -> tuple[Trie, list[Level]]:
    """Numbers and counts all n-grams up to an order, each order with one sort."""
    if order < 1:
        raise ValueError(f"order={order} is no n-gram; give 1 or more")
    # With a few hundred million tokens, 32-bit positions save half of the memory.
    small = np.int32 if max(len(tokens), vocab_size) < 2**31 else np.int64
    tokens = checked_tokens(tokens, vocab_size).astype(small)
    reach = np.minimum(context_lengths(tokens, boundary), order).astype(np.min_scalar_type(order))
    numbers = tokens  # entry i: of the k-gram that ends at i
    keys = [np.zeros(1, dtype=np.int64), np.arange(vocab_size)]
    counts = np.bincount(tokens[1:], minlength=vocab_size)
    levels = [Level(counts, np.zeros(vocab_size, dtype=np.int64))]
    for k in range(2, order + 1):
        at = np.flatnonzero(reach >= k - 1).astype(small)
        grams = numbers[at - 1].astype(np.int64)
        grams *= vocab_size
        grams += tokens[at]
        by = np.argsort(grams).astype(small)
        grams = grams[by]
        is_first = np.ones(len(grams), dtype=bool)
        np.not_equal(grams[1:], grams[:-1], out=is_first[1:])
        firsts = np.flatnonzero(is_first)
        keys.append(grams[firsts])
        del grams
        suffixes = numbers[at[by[firsts]]].astype(np.int64)
        levels.append(Level(np.diff(firsts, append=len(at)), suffixes))
        numbers = np.full(len(tokens), -1, dtype=small)
        numbers[at[by]] = np.cumsum(is_first, dtype=small) - 1
    return Trie(tuple(keys), vocab_size, boundary), levels


def context_lengths(
    tokens: Integer[np.ndarray, "n"], boundary: int | None
) -> Integer[np.ndarray, "n"]:
    """Counts, for every position, the tokens before it, back to the boundary that opens its
    document (included). For a boundary these are all tokens of the document before it.
    """
    positions = np.arange(len(tokens))
    opens = np.equal(tokens, -1 if boundary is None else boundary)
    latest = np.maximum.accumulate(np.where(opens, positions, 0))
    positions[1:] -= latest[:-1]
    return positions


def checked_tokens(tokens: Integer[np.ndarray, "n"], vocab_size: int) -> Integer[np.ndarray, "n"]:
    """Gives the tokens as int64; refuses tokens outside the vocabulary."""
    least, most = (int(tokens.min()), int(tokens.max())) if len(tokens) else (0, 0)
    if least < 0 or most >= vocab_size:
        wrong = least if least < 0 else most
        raise ValueError(
            f"token {wrong} is outside 0 ... {vocab_size - 1}; "
            "give the vocabulary size of the tokenizer that made the tokens"
        )
    return tokens.astype(np.int64)
